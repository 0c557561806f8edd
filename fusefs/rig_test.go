package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/staging"
	"github.com/wholefs/wholefs/store"
	"github.com/wholefs/wholefs/store/localdir"
)

const root = fuse.FUSE_ROOT_ID

// A rig drives an FS as the kernel does, over a real directory, engine,
// staging directory and journal, without a mount.
type rig struct {
	testing.TB
	dir    string // the store
	fs     *FS
	engine *session.Engine
	told   told
}

// told records what the kernel would have been told.
type told struct {
	mu   sync.Mutex
	said []string
}

func (t *told) InvalEntry(parent uint64, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said = append(t.said, fmt.Sprintf("entry %d/%s", parent, name))
}

func (t *told) InvalInode(node uint64, off, length int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said = append(t.said, fmt.Sprintf("inode %d", node))
}

// newRig makes a rig on the store at dir, or on a fresh one if dir is empty.
// change may alter the options.
func newRig(t testing.TB, dir string, change ...func(*Options)) *rig {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	r := &rig{TB: t, dir: dir}
	st, err := localdir.Open(dir, localdir.Options{})
	r.must(err)
	layout, err := chunker.NewLayout(1 << 20)
	r.must(err)
	stage, err := staging.OpenDir(st.StagingPath(), staging.Options{Layout: layout})
	r.must(err)
	j, err := journal.Open(filepath.Join(st.StateDir(), "journal"), journal.Options{})
	r.must(err)
	r.engine, err = session.New(session.Options{
		Store: st, Staging: stage, Journal: j, Layout: layout, HoldTTL: -1,
		Hooks: session.Hooks{
			Published: func(s *session.Session, path string, a store.Attr) { r.fs.SessionPublished(s, path, a) },
			Ended:     func(s *session.Session, path string) { r.fs.SessionEnded(s, path) },
		},
	})
	r.must(err)
	_, err = r.engine.Recover(context.Background())
	r.must(err)
	o := Options{Store: st, Engine: r.engine}
	for _, f := range change {
		f(&o)
	}
	r.fs, err = New(o)
	r.must(err)
	r.fs.SetNotifier(&r.told)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		r.must(r.engine.Close(ctx))
		r.fs.Close()
		r.must(j.Close())
		r.must(stage.Close())
		r.must(st.Close())
	})
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// ok fails the test unless status is OK.
func (r *rig) ok(status fuse.Status) {
	r.Helper()
	if !status.Ok() {
		r.Fatalf("got %v", syscall.Errno(status))
	}
}

// is fails the test unless status is errno.
func (r *rig) is(status fuse.Status, errno syscall.Errno) {
	r.Helper()
	if syscall.Errno(status) != errno {
		r.Fatalf("got %v, want %v", syscall.Errno(status), errno)
	}
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// header is of a request by this process, about node.
func header(node uint64) fuse.InHeader {
	h := fuse.InHeader{NodeId: node}
	h.Pid, h.Uid, h.Gid = uint32(os.Getpid()), uint32(os.Getuid()), uint32(os.Getgid())
	return h
}

// lookup walks path from the root and returns the last entry.
func (r *rig) lookup(path string) (fuse.EntryOut, fuse.Status) {
	h := header(root)
	var out fuse.EntryOut
	for name := range strings.SplitSeq(path, "/") {
		out = fuse.EntryOut{}
		if status := r.fs.Lookup(nil, &h, name, &out); !status.Ok() {
			return out, status
		}
		h.NodeId = out.NodeId
	}
	return out, fuse.OK
}

func (r *rig) find(path string) fuse.EntryOut {
	r.Helper()
	out, status := r.lookup(path)
	if !status.Ok() {
		r.Fatalf("lookup %s: %v", path, syscall.Errno(status))
	}
	return out
}

func (r *rig) absent(path string) {
	r.Helper()
	if _, status := r.lookup(path); syscall.Errno(status) != syscall.ENOENT {
		r.Fatalf("lookup %s: got %v, want ENOENT", path, syscall.Errno(status))
	}
}

// parent returns the node of the directory of path, and the name in it.
func (r *rig) parent(path string) (uint64, string) {
	r.Helper()
	dir, name := filepath.Split(path)
	if dir == "" {
		return root, name
	}
	return r.find(strings.TrimSuffix(dir, "/")).NodeId, name
}

// An open file, as the kernel sees it.
type file struct {
	r    *rig
	node uint64
	ino  uint64
	fh   uint64
}

func (r *rig) create(path string) file {
	r.Helper()
	p, name := r.parent(path)
	in := fuse.CreateIn{InHeader: header(p), Flags: syscall.O_WRONLY | syscall.O_EXCL, Mode: syscall.S_IFREG | 0o644}
	var out fuse.CreateOut
	r.ok(r.fs.Create(nil, &in, name, &out))
	equal(r, "open flags", out.OpenFlags, fuse.FOPEN_DIRECT_IO)
	return file{r, out.NodeId, out.Ino, out.Fh}
}

func (r *rig) open(path string, flags uint32) file {
	r.Helper()
	e := r.find(path)
	in := fuse.OpenIn{InHeader: header(e.NodeId), Flags: flags}
	var out fuse.OpenOut
	r.ok(r.fs.Open(nil, &in, &out))
	return file{r, e.NodeId, e.Ino, out.Fh}
}

func (f file) write(off int64, data string) {
	f.r.Helper()
	f.r.ok(f.tryWrite(off, data, 0, 0))
}

func (f file) tryWrite(off int64, data string, flags, writeFlags uint32) fuse.Status {
	in := fuse.WriteIn{
		InHeader: header(f.node), Fh: f.fh, Offset: uint64(off), Size: uint32(len(data)),
		LockOwner: 7, Flags: flags, WriteFlags: fuse.WRITE_LOCKOWNER | writeFlags,
	}
	n, status := f.r.fs.Write(nil, &in, []byte(data))
	if status.Ok() {
		equal(f.r, "written", int(n), len(data))
	}
	return status
}

func (f file) read() string {
	f.r.Helper()
	in := fuse.ReadIn{InHeader: header(f.node), Fh: f.fh, Size: 1 << 16}
	res, status := f.r.fs.Read(nil, &in, make([]byte, 1<<16))
	f.r.ok(status)
	got, status := res.Bytes(nil)
	f.r.ok(status)
	return string(got)
}

func (f file) flush() fuse.Status {
	return f.r.fs.Flush(nil, &fuse.FlushIn{InHeader: header(f.node), Fh: f.fh, LockOwner: 7})
}

func (f file) release() {
	h := fuse.InHeader{NodeId: f.node} // no pid, as the kernel sends it
	f.r.fs.Release(nil, &fuse.ReleaseIn{InHeader: h, Fh: f.fh})
}

func (f file) close() {
	f.r.Helper()
	f.r.ok(f.flush())
	f.release()
}

func (f file) stat() fuse.Attr {
	f.r.Helper()
	return f.r.stat(f.node)
}

func (r *rig) stat(node uint64) fuse.Attr {
	r.Helper()
	var out fuse.AttrOut
	r.ok(r.fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(node)}, &out))
	return out.Attr
}

// put makes a published file through the mount.
func (r *rig) put(path, content string) file {
	r.Helper()
	f := r.create(path)
	if content != "" {
		f.write(0, content)
	}
	f.close()
	return f
}

// content reads a file through the mount.
func (r *rig) content(path string) string {
	r.Helper()
	f := r.open(path, syscall.O_RDONLY)
	defer f.close()
	return f.read()
}

func (r *rig) mkdir(path string) uint64 {
	r.Helper()
	p, name := r.parent(path)
	var out fuse.EntryOut
	r.ok(r.fs.Mkdir(nil, &fuse.MkdirIn{InHeader: header(p), Mode: 0o755}, name, &out))
	return out.NodeId
}

func (r *rig) unlink(path string) fuse.Status {
	r.Helper()
	p, name := r.parent(path)
	h := header(p)
	return r.fs.Unlink(nil, &h, name)
}

func (r *rig) rmdir(path string) fuse.Status {
	r.Helper()
	p, name := r.parent(path)
	h := header(p)
	return r.fs.Rmdir(nil, &h, name)
}

func (r *rig) rename(from, to string, flags uint32) fuse.Status {
	r.Helper()
	p, oldName := r.parent(from)
	q, newName := r.parent(to)
	return r.fs.Rename(nil, &fuse.RenameIn{InHeader: header(p), Newdir: q, Flags: flags}, oldName, newName)
}

func (r *rig) link(from, to string) (fuse.EntryOut, fuse.Status) {
	r.Helper()
	q, name := r.parent(to)
	var out fuse.EntryOut
	status := r.fs.Link(nil, &fuse.LinkIn{InHeader: header(q), Oldnodeid: r.find(from).NodeId}, name, &out)
	return out, status
}

// state is what the mount says of a file's state.
func (r *rig) state(path string) string {
	r.Helper()
	h := header(r.find(path).NodeId)
	buf := make([]byte, 32)
	n, status := r.fs.GetXAttr(nil, &h, stateXattr, buf)
	r.ok(status)
	return string(buf[:n])
}

// stored is what other observers of the store see at path; "-" if nothing.
func (r *rig) stored(path string) string {
	r.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, path))
	if errors.Is(err, os.ErrNotExist) {
		return "-"
	}
	r.must(err)
	return string(b)
}

// outside writes a file into the store, behind the mount.
func (r *rig) outside(path, content string) {
	r.Helper()
	r.must(os.WriteFile(filepath.Join(r.dir, path), []byte(content), 0o644))
}

// descriptors counts what this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

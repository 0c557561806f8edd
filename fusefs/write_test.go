package fusefs

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func TestFileIsPublishedAtClose(t *testing.T) {
	r := newRig(t, "")
	f := r.create("a")
	f.write(0, "hello ")
	f.write(6, "world")
	equal(t, "store before the close (W1)", r.stored("a"), "-")
	equal(t, "size before the close", f.stat().Size, uint64(11))
	equal(t, "state before the close", r.state("a"), "open")
	equal(t, "mount before the close (W5)", r.content("a"), "hello world")
	r.ok(f.flush())
	equal(t, "store after the close (W2)", r.stored("a"), "hello world")
	equal(t, "state after the close", r.state("a"), "published")
	f.release()
	equal(t, "mount after the release", r.content("a"), "hello world")
}

func TestEmptyFileIsPublishedAtRelease(t *testing.T) {
	r := newRig(t, "")
	r.put("empty", "")
	equal(t, "store", r.stored("empty"), "")
}

func TestFlushOfAnotherProcessPublishesNothing(t *testing.T) {
	r := newRig(t, "")
	f := r.create("a")
	f.write(0, "x")
	h := header(f.node)
	h.Pid = uint32(os.Getppid())
	r.ok(r.fs.Flush(nil, &fuse.FlushIn{InHeader: h, Fh: f.fh, LockOwner: 8}))
	equal(t, "store", r.stored("a"), "-")
	h.Pid = 0 // in another pid namespace
	r.ok(r.fs.Flush(nil, &fuse.FlushIn{InHeader: h, Fh: f.fh, LockOwner: 7}))
	equal(t, "store", r.stored("a"), "-")
	f.release()
	equal(t, "store after the last release (W3)", r.stored("a"), "x")
}

func TestInodeStaysOverAPublish(t *testing.T) {
	r := newRig(t, "")
	f := r.put("a", "one")
	reader := r.open("a", syscall.O_RDONLY)
	equal(t, "first version", reader.read(), "one")

	w := r.open("a", syscall.O_WRONLY)
	equal(t, "node", w.node, f.node)
	w.write(0, "second version")
	equal(t, "store while open (W1)", r.stored("a"), "one")
	equal(t, "reader while open", reader.read(), "second version")
	w.close()

	equal(t, "store", r.stored("a"), "second version")
	equal(t, "reader after the publish", reader.read(), "second version")
	e := r.find("a")
	equal(t, "node after the publish", e.NodeId, f.node)
	equal(t, "st_ino after the publish", e.Ino, f.ino)
	equal(t, "st_ino of stat", reader.stat().Ino, f.ino)
	equal(t, "listed ino", r.list(root)["a"], f.ino)
	reader.close()
}

func TestInodeNumberInUseIsNotGivenAgain(t *testing.T) {
	r := newRig(t, "")
	seen := map[uint64]string{}
	for _, name := range []string{"a", "b", "c", "d"} {
		f := r.put(name, "one")
		for range 3 { // frees inodes of the store, which are then used again
			w := r.open(name, syscall.O_WRONLY)
			w.write(0, "more")
			w.close()
		}
		if other := seen[f.ino]; other != "" {
			t.Fatalf("%s and %s both show inode %d", name, other, f.ino)
		}
		seen[f.ino] = name
		equal(t, "st_ino of "+name, r.find(name).Ino, f.ino)
	}
	for name, ino := range r.list(root) {
		equal(t, "listed ino of "+name, seen[ino], name)
	}
}

func TestUpdateKeepsTheRest(t *testing.T) {
	r := newRig(t, "")
	r.put("a", "hello world")
	w := r.open("a", syscall.O_RDWR)
	equal(t, "state when nothing is written", r.state("a"), "published")
	w.write(6, "there")
	equal(t, "read back", w.read(), "hello there")
	w.close()
	equal(t, "store", r.stored("a"), "hello there")
}

func TestAppendGoesToTheEnd(t *testing.T) {
	r := newRig(t, "")
	r.put("log", "one,")
	a, b := r.open("log", syscall.O_WRONLY|syscall.O_APPEND), r.open("log", syscall.O_WRONLY|syscall.O_APPEND)
	r.ok(a.tryWrite(4, "two,", syscall.O_APPEND, 0))
	r.ok(b.tryWrite(4, "three,", syscall.O_APPEND, 0)) // the kernel's idea of the end is stale
	r.ok(a.tryWrite(0, "O", syscall.O_APPEND, fuse.WRITE_CACHE))
	r.ok(a.flush())
	equal(t, "store while b is open", r.stored("log"), "one,")
	b.close()
	a.release()
	equal(t, "store", r.stored("log"), "One,two,three,")
}

func TestTruncation(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(r *rig)
		want string
	}{
		{"open with O_TRUNC and write", func(r *rig) {
			w := r.open("a", syscall.O_WRONLY|syscall.O_TRUNC)
			w.write(0, "new")
			w.close()
		}, "new"},
		{"open with O_TRUNC only", func(r *rig) {
			w := r.open("a", syscall.O_WRONLY|syscall.O_TRUNC)
			equal(r, "store while open (W1)", r.stored("a"), "0123456789")
			w.close()
		}, ""},
		{"read-only with O_TRUNC", func(r *rig) {
			f := r.open("a", syscall.O_RDONLY|syscall.O_TRUNC)
			equal(r, "read", f.read(), "")
			f.close()
		}, ""},
		{"truncate by path, down", func(r *rig) { r.ok(r.setSize("a", 4, nil)) }, "0123"},
		{"truncate by path, up", func(r *rig) { r.ok(r.setSize("a", 12, nil)) }, "0123456789\x00\x00"},
		{"ftruncate", func(r *rig) {
			w := r.open("a", syscall.O_WRONLY)
			r.ok(r.setSize("a", 2, &w.fh))
			equal(r, "store while open (W1)", r.stored("a"), "0123456789")
			w.close()
		}, "01"},
		{"truncate by path while it is written", func(r *rig) {
			w := r.open("a", syscall.O_WRONLY)
			w.write(0, "ab")
			r.ok(r.setSize("a", 3, nil))
			equal(r, "store while open (W1)", r.stored("a"), "0123456789")
			w.close()
		}, "ab2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "")
			r.put("a", "0123456789")
			c.do(r)
			equal(t, "store", r.stored("a"), c.want)
			equal(t, "mount", r.content("a"), c.want)
			equal(t, "size", r.find("a").Size, uint64(len(c.want)))
		})
	}
}

func (r *rig) setSize(path string, size uint64, fh *uint64) fuse.Status {
	r.Helper()
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{
		InHeader: header(r.find(path).NodeId), Valid: fuse.FATTR_SIZE, Size: size,
	}}
	if fh != nil {
		in.Valid |= fuse.FATTR_FH
		in.Fh = *fh
	}
	var out fuse.AttrOut
	status := r.fs.SetAttr(nil, &in, &out)
	if status.Ok() {
		equal(r, "size in the answer", out.Size, size)
	}
	return status
}

func TestFallocate(t *testing.T) {
	for _, c := range []struct {
		name string
		mode uint32
		off  uint64
		n    uint64
		errn syscall.Errno
		want string
	}{
		{"plain", 0, 0, 12, 0, "0123456789\x00\x00"},
		{"keep size", unix.FALLOC_FL_KEEP_SIZE, 0, 12, 0, "0123456789"},
		{"punch", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 2, 3, 0, "01\x00\x00\x0056789"},
		{"zero", unix.FALLOC_FL_ZERO_RANGE, 8, 4, 0, "01234567\x00\x00\x00\x00"},
		{"collapse", unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4, syscall.EOPNOTSUPP, "0123456789"},
		{"nothing", 0, 0, 0, syscall.EINVAL, "0123456789"},
		{"too far", 0, 1 << 62, 1 << 62, syscall.EFBIG, "0123456789"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "")
			r.put("a", "0123456789")
			w := r.open("a", syscall.O_RDWR)
			in := fuse.FallocateIn{InHeader: header(w.node), Fh: w.fh, Offset: c.off, Length: c.n, Mode: c.mode}
			r.is(r.fs.Fallocate(nil, &in), c.errn)
			equal(t, "read back", w.read(), c.want)
			w.close()
			equal(t, "store", r.stored("a"), c.want)
		})
	}
}

func TestCopyFileRange(t *testing.T) {
	r := newRig(t, "")
	big := strings.Repeat("0123456789abcdef", 200_000) // more than one step
	r.put("from", big)
	from, to := r.open("from", syscall.O_RDONLY), r.create("to")
	in := fuse.CopyFileRangeIn{InHeader: header(from.node), FhIn: from.fh, FhOut: to.fh, NodeIdOut: to.node, OffIn: 16, OffOut: 0, Len: 1 << 30}
	n, status := r.fs.CopyFileRange(nil, &in)
	r.ok(status)
	equal(t, "copied", int(n), len(big)-16)
	from.close()
	to.close()
	equal(t, "store", r.stored("to") == big[16:], true)
}

func TestSeekFindsHoles(t *testing.T) {
	r := newRig(t, "")
	f := r.create("sparse")
	f.write(1<<20, "data")
	for _, c := range []string{"unfinished", "published"} {
		var out fuse.LseekOut
		in := fuse.LseekIn{InHeader: header(f.node), Fh: f.fh, Whence: unix.SEEK_DATA}
		r.ok(r.fs.Lseek(nil, &in, &out))
		equal(t, "data of the "+c, out.Offset, 1<<20)
		in.Whence = unix.SEEK_HOLE
		r.ok(r.fs.Lseek(nil, &in, &out))
		equal(t, "hole of the "+c, out.Offset, 0)
		in.Offset = 1<<20 + 4
		r.is(r.fs.Lseek(nil, &in, &out), syscall.ENXIO)
		r.ok(f.flush())
	}
	f.release()
}

func TestHandlesAreChecked(t *testing.T) {
	r := newRig(t, "")
	r.put("a", "x")
	f := r.open("a", syscall.O_RDONLY)
	r.is(f.tryWrite(0, "y", 0, 0), syscall.EBADF)
	r.ok(r.fs.Fsync(nil, &fuse.FsyncIn{InHeader: header(f.node), Fh: f.fh}))
	f.close()
	r.is(f.tryWrite(0, "y", 0, 0), syscall.EBADF)
	_, status := r.fs.Read(nil, &fuse.ReadIn{Fh: f.fh, Size: 1}, make([]byte, 1))
	r.is(status, syscall.EBADF)
	r.is(r.fs.Fsync(nil, &fuse.FsyncIn{Fh: f.fh}), syscall.EBADF)
	equal(t, "store", r.stored("a"), "x")
}

func TestFsyncPublishesNothing(t *testing.T) {
	r := newRig(t, "")
	f := r.create("a")
	f.write(0, "x")
	r.ok(r.fs.Fsync(nil, &fuse.FsyncIn{InHeader: header(f.node), Fh: f.fh}))
	equal(t, "store", r.stored("a"), "-")
	f.close()
	equal(t, "store", r.stored("a"), "x")
}

func TestSymlinkIsNotFollowedByOpen(t *testing.T) {
	r := newRig(t, "")
	r.must(os.Symlink("/etc/passwd", filepath.Join(r.dir, "link")))
	in := fuse.OpenIn{InHeader: header(r.find("link").NodeId)}
	r.is(r.fs.Open(nil, &in, &fuse.OpenOut{}), syscall.ENXIO)
}

// The kernel may keep the pages of a file that is still the one they were read
// from, and of no other.
func TestKeepCache(t *testing.T) {
	r := newRig(t, "")
	keeps := func() bool {
		t.Helper()
		e := r.find("f")
		var out fuse.OpenOut
		r.ok(r.fs.Open(nil, &fuse.OpenIn{InHeader: header(e.NodeId)}, &out))
		r.fs.Release(nil, &fuse.ReleaseIn{InHeader: header(e.NodeId), Fh: out.Fh})
		return out.OpenFlags&fuse.FOPEN_KEEP_CACHE != 0
	}
	r.outside("f", "one")
	equal(t, "nothing is cached yet", keeps(), false)
	equal(t, "unchanged since", keeps(), true)
	time.Sleep(20 * time.Millisecond) // more than the grain of file times
	r.outside("f", "two")             // in place: the same file and size
	equal(t, "the file was changed behind the mount", keeps(), false)
	equal(t, "unchanged since", keeps(), true)

	w := r.open("f", syscall.O_WRONLY)
	w.write(0, "new")
	equal(t, "a session is active", keeps(), false)
	w.close()
	equal(t, "the first open of the new version", keeps(), false)
	equal(t, "unchanged since", keeps(), true)
}

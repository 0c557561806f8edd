package fusefs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// forgetAll takes back all lookups, as the kernel does under memory pressure.
func (r *rig) forgetAll() {
	r.fs.mu.RLock()
	lookups := map[uint64]uint64{}
	for id, n := range r.fs.nodes {
		lookups[id] = n.lookups
	}
	r.fs.mu.RUnlock()
	for id, n := range lookups {
		r.fs.Forget(id, n)
	}
}

// empty fails the test unless only the root is left in the tables.
func (r *rig) empty() {
	r.Helper()
	fs := r.fs
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	got := fmt.Sprintf("%d nodes, %d identities, %d numbers, %d sessions, %d handles, %d directories, %d children",
		len(fs.nodes), len(fs.byID), len(fs.inos), len(fs.bySession), len(fs.handles), len(fs.dirHandles), len(fs.root.children))
	equal(r, "left", got, "1 nodes, 1 identities, 1 numbers, 0 sessions, 0 handles, 0 directories, 0 children")
}

func TestForgetFreesNodesAndDescriptors(t *testing.T) {
	r := newRig(t, "", func(o *Options) { o.MaxOpenDirs = 3 })
	before := descriptors(t)
	for i := range 10 {
		dir := fmt.Sprintf("dir%d", i)
		r.mkdir(dir)
		r.put(dir+"/published", "x")
		r.put(dir+"/removed", "x")
		r.put(dir+"/updated", "x")
		w, reader := r.open(dir+"/updated", syscall.O_RDWR), r.open(dir+"/removed", syscall.O_RDONLY)
		w.write(0, "y")
		r.ok(r.unlink(dir + "/removed"))
		r.put(dir+"/closed", "x")
		r.ok(r.unlink(dir + "/closed"))
		r.list(r.find(dir).NodeId)
		w.close()
		reader.close()
	}
	r.mkdir("gone")
	r.ok(r.rmdir("gone"))
	r.forgetAll()
	r.empty()
	if after := descriptors(t); after > before+3 {
		t.Fatalf("%d descriptors are open, %d were before", after, before)
	}
	equal(t, "content after being forgotten", r.content("dir3/updated"), "y")
}

func TestOpenDirectoriesAreBounded(t *testing.T) {
	r := newRig(t, "", func(o *Options) { o.MaxOpenDirs = 4 })
	before := descriptors(t)
	for i := range 40 {
		r.must(os.MkdirAll(filepath.Join(r.dir, fmt.Sprintf("a%d/b/c", i)), 0o755))
		r.outside(fmt.Sprintf("a%d/b/c/f", i), fmt.Sprint(i))
		r.find(fmt.Sprintf("a%d/b/c/f", i))
	}
	if after := descriptors(t); after > before+4 {
		t.Fatalf("%d descriptors are open, %d were before", after, before)
	}
	for i := range 40 { // by nodes whose directories were closed meanwhile
		equal(t, "content", r.content(fmt.Sprintf("a%d/b/c/f", i)), fmt.Sprint(i))
	}
}

func TestForgetOfAFileThatIsOpen(t *testing.T) {
	r := newRig(t, "")
	f := r.create("a")
	f.write(0, "x")
	r.forgetAll()
	equal(t, "read", f.read(), "x")
	f.close()
	r.empty()
	equal(t, "store", r.stored("a"), "x")
}

func TestChangesBehindTheMount(t *testing.T) {
	r := newRig(t, "")
	f := r.put("a", "one")
	reader := r.open("a", syscall.O_RDONLY)
	r.outside("new", "two")
	r.must(os.Rename(filepath.Join(r.dir, "new"), filepath.Join(r.dir, "a")))
	equal(t, "open reader", reader.read(), "one")
	equal(t, "open reader's fstat", reader.stat().Nlink, 0)
	e := r.find("a")
	equal(t, "another node", e.NodeId != f.node, true)
	equal(t, "another ino", e.Ino != f.ino, true)
	equal(t, "content", r.content("a"), "two")
	reader.close()
	equal(t, "fstat by whoever else holds it", f.stat().Nlink, 0)

	f = r.put("b", "never opened")
	r.outside("new", "two")
	r.must(os.Rename(filepath.Join(r.dir, "new"), filepath.Join(r.dir, "b")))
	var out fuse.AttrOut
	r.is(r.fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(f.node)}, &out), syscall.ESTALE)
	equal(t, "content", r.content("b"), "two")

	r.must(os.Remove(filepath.Join(r.dir, "a")))
	r.absent("a")
	r.put("a", "three")
	equal(t, "content", r.content("a"), "three")
	r.is(r.fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(999)}, &out), syscall.ESTALE)
}

func TestRemovedBehindTheMountWhileOpen(t *testing.T) {
	r := newRig(t, "")
	r.put("a", "one")
	w := r.open("a", syscall.O_RDWR)
	r.must(os.Remove(filepath.Join(r.dir, "a")))
	r.absent("a")
	r.put("a", "two")
	w.close()
	equal(t, "store", r.stored("a"), "two")
}

func TestDirectoriesMovedBehindTheMount(t *testing.T) {
	r := newRig(t, "")
	r.mkdir("a")
	r.mkdir("a/b")
	a, b := r.find("a").NodeId, r.find("a/b").NodeId
	r.list(b) // opens it
	// b comes out of a, and a goes into b.
	r.must(os.Rename(filepath.Join(r.dir, "a/b"), filepath.Join(r.dir, "b")))
	r.must(os.Rename(filepath.Join(r.dir, "a"), filepath.Join(r.dir, "b/a")))
	h := header(b)
	var out fuse.EntryOut
	r.ok(r.fs.Lookup(nil, &h, "a", &out)) // by the node of b, which we believe to be in a
	equal(t, "node of a", out.NodeId, a)
	h = header(a)
	r.is(r.fs.Lookup(nil, &h, "x", &out), syscall.ENOENT)
	r.put("b/a/f", "x")
	equal(t, "store", r.stored("b/a/f"), "x")
}

func (t *told) wait(tb testing.TB, want ...string) {
	tb.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		t.mu.Lock()
		said := slices.Clone(t.said)
		t.mu.Unlock()
		missing := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(said, w) })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("the kernel was told %q, not %q", said, missing)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestAbortedSessionIsForgotten(t *testing.T) {
	r := newRig(t, "")
	f := r.create("a")
	f.write(0, "x")
	r.put("b", "old")
	g := r.open("b", syscall.O_RDWR)
	g.write(0, "new")
	r.must(r.engine.AbortID(context.Background(), "a"))
	r.must(r.engine.AbortID(context.Background(), "b"))
	r.absent("a")
	equal(t, "content", r.content("b"), "old")
	r.told.wait(t, fmt.Sprintf("entry %d/a", root), fmt.Sprintf("inode %d", f.node), fmt.Sprintf("inode %d", g.node))
	r.is(f.tryWrite(1, "y", 0, 0), syscall.ESTALE)
	f.flush()
	f.release()
	g.flush()
	g.release()
	r.put("a", "again")
	w := r.open("b", syscall.O_WRONLY)
	w.write(0, "NEW")
	w.close()
	equal(t, "store", r.stored("b"), "NEW")
}

func TestHeldSessionsAfterARestart(t *testing.T) {
	dir := t.TempDir()
	t.Run("before", func(t *testing.T) {
		r := newRig(t, dir)
		r.mkdir("d")
		r.put("d/old", "old")
		r.create("d/new").write(0, "half")
		r.open("d/old", syscall.O_WRONLY).write(0, "OLD, longer")
		// The mount ends here, and the engine holds what has writers.
	})
	t.Run("after", func(t *testing.T) {
		r := newRig(t, dir)
		d := r.find("d").NodeId
		listed := r.list(d)
		equal(t, "names", len(listed), 2)
		equal(t, "state", r.state("d/new"), "held")
		equal(t, "content (W4)", r.content("d/new"), "half")
		equal(t, "content (W4)", r.content("d/old"), "OLD, longer")
		equal(t, "store (W1)", r.stored("d/old"), "old")
		equal(t, "store (W1)", r.stored("d/new"), "-")
		for name, ino := range listed {
			equal(t, "ino", r.find("d/"+name).Ino, ino)
		}
		r.is(r.rmdir("d"), syscall.ENOTEMPTY)

		node := r.find("d/old").NodeId
		r.must(r.engine.PublishID(context.Background(), "d/old", false))
		equal(t, "store", r.stored("d/old"), "OLD, longer")
		equal(t, "node", r.find("d/old").NodeId, node)
		equal(t, "state", r.state("d/old"), "published")

		w := r.open("d/new", syscall.O_WRONLY) // reopened and finished
		w.write(4, " and half")
		w.close()
		equal(t, "store", r.stored("d/new"), "half and half")
	})
}

func TestErrnos(t *testing.T) {
	for _, c := range []struct {
		err   error
		want  syscall.Errno
		known bool
	}{
		{syscall.ENOSPC, syscall.ENOSPC, true},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, syscall.EACCES, true},
		{fmt.Errorf("publish: %w", &session.Error{Op: "publish", Errno: syscall.EDQUOT}), syscall.EDQUOT, true},
		{fmt.Errorf("wait: %w", context.DeadlineExceeded), syscall.ETIMEDOUT, true},
		{context.Canceled, syscall.ESHUTDOWN, true},
		{session.ErrInactive, syscall.ESTALE, true},
		{iofs.ErrNotExist, syscall.ENOENT, true},
		{os.ErrClosed, syscall.EBADF, true},
		{syscall.ENOSYS, syscall.EOPNOTSUPP, true},
		{syscall.Errno(0), syscall.EIO, false},
		{syscall.Errno(512), syscall.EIO, false}, // ERESTARTSYS never leaves the kernel
		{errors.New("no idea"), syscall.EIO, false},
	} {
		got, known := errnoOf(c.err)
		equal(t, c.err.Error(), got, c.want)
		equal(t, c.err.Error()+", known", known, c.known)
	}
}

// TestDefaultedMethods compares the list in api_check.go with the methods of
// FS that are go-fuse's.
func TestDefaultedMethods(t *testing.T) {
	fs := reflect.TypeFor[*FS]()
	api := reflect.TypeFor[fuse.RawFileSystem]()
	var missing []string
	for i := range api.NumMethod() {
		name := api.Method(i).Name
		m, _ := fs.MethodByName(name)
		file, _ := runtime.FuncForPC(m.Func.Pointer()).FileLine(m.Func.Pointer())
		if strings.Contains(file, "autogenerated") {
			missing = append(missing, name)
		}
	}
	listed := slices.Sorted(slices.Values(defaulted))
	equal(t, "defaulted methods", strings.Join(missing, " "), strings.Join(listed, " "))
}

func TestFreeInoIsFree(t *testing.T) {
	tab := newTables()
	seen := map[uint64]bool{}
	for i := range 1000 {
		n := tab.newNode(store.Attr{ID: store.ID{Dev: uint64(i), Ino: 7}})
		if seen[n.ino] || n.ino == 0 {
			t.Fatalf("node %d shows %d", i, n.ino)
		}
		seen[n.ino] = true
	}
}

// TestConcurrentUse lets several programs do everything to a few names at
// once. Under the race detector it looks for unguarded fields and deadlocks;
// in the end each file must be whole: all of one letter.
func TestConcurrentUse(t *testing.T) {
	r := newRig(t, "", func(o *Options) { o.MaxOpenDirs = 1 })
	r.mkdir("d0")
	r.mkdir("d1")
	path := func(rnd *rand.Rand) (uint64, string) {
		var out fuse.EntryOut
		h := header(root)
		if status := r.fs.Lookup(nil, &h, fmt.Sprintf("d%d", rnd.IntN(2)), &out); !status.Ok() {
			t.Errorf("lookup: %v", status)
		}
		return out.NodeId, fmt.Sprintf("f%d", rnd.IntN(3))
	}
	// The kernel lets one request at a time change names.
	var names sync.Mutex
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			letter := strings.Repeat(string(rune('a'+i)), 100)
			for range 150 {
				dir, name := path(rnd)
				h := header(dir)
				switch rnd.IntN(8) {
				case 0:
					names.Lock()
					r.fs.Unlink(nil, &h, name)
					names.Unlock()
				case 1:
					to, newName := path(rnd)
					names.Lock()
					r.fs.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: to, Flags: uint32(rnd.IntN(3))}, name, newName)
					names.Unlock()
				case 2:
					var open fuse.OpenOut
					r.ok(r.fs.OpenDir(nil, &fuse.OpenIn{InHeader: h}, &open))
					r.fs.ReadDirPlus(nil, &fuse.ReadIn{Fh: open.Fh}, fuse.NewDirEntryList(make([]byte, 4096), 0))
					r.fs.ReleaseDir(&fuse.ReleaseIn{Fh: open.Fh})
				case 3, 4:
					var e fuse.EntryOut
					if !r.fs.Lookup(nil, &h, name, &e).Ok() {
						continue
					}
					var open fuse.OpenOut
					if !r.fs.Open(nil, &fuse.OpenIn{InHeader: header(e.NodeId)}, &open).Ok() {
						continue
					}
					f := file{r: r, node: e.NodeId, fh: open.Fh}
					r.fs.Read(nil, &fuse.ReadIn{InHeader: header(f.node), Fh: f.fh, Size: 100}, make([]byte, 100))
					r.fs.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(f.node)}, &fuse.AttrOut{})
					f.flush()
					f.release()
					r.fs.Forget(e.NodeId, 1)
				default:
					var out fuse.CreateOut
					names.Lock()
					status := r.fs.Create(nil, &fuse.CreateIn{InHeader: h, Flags: syscall.O_WRONLY | syscall.O_TRUNC, Mode: 0o644}, name, &out)
					names.Unlock()
					if !status.Ok() {
						continue // ESTALE: its session ended between two steps
					}
					f := file{r: r, node: out.NodeId, fh: out.Fh}
					f.tryWrite(0, letter, 0, 0)
					f.flush()
					f.release()
				}
			}
		})
	}
	all.Wait()
	r.forgetAll()
	for _, dir := range []string{"d0", "d1"} {
		for name := range r.list(r.find(dir).NodeId) {
			path := dir + "/" + name
			equal(t, "state of "+path, r.state(path), "published")
			content := r.content(path)
			equal(t, "content of "+path+" in mount and store", content, r.stored(path))
			if len(content) != 100 && len(content) != 0 || strings.Trim(content, content[:min(1, len(content))]) != "" {
				t.Errorf("%s is torn: %q", path, content)
			}
		}
	}
	r.forgetAll()
	r.empty()
}

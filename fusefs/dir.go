package fusefs

import (
	"iter"
	"path"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// A dirHandle is one open directory and its listing: what the store has, and
// then the unfinished files that it does not have. Entries stay where they
// were, so that telldir and seekdir work; offset 0 starts a fresh listing.
type dirHandle struct {
	fs   *FS
	node *node
	dir  *openDir

	mu sync.Mutex
	// entries is what has been listed so far. The offset of an entry, which is
	// where a program goes on after it, is its index plus one.
	entries []store.Entry
	next    func() (store.Entry, error, bool) // nil once the store has no more
	stop    func()
	// unfinished are the active sessions of the directory when the listing
	// began, until the store lists their names. They are taken at the
	// beginning: one that is published meanwhile is then listed by the store,
	// or still from here.
	unfinished map[string]*session.Session
	done       bool
	err        error // why the listing ended early
}

// OpenDir opens a directory for listing.
func (fs *FS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := fs.get(in.NodeId)
	if err != nil {
		return fs.status("opendir", err)
	}
	d, err := fs.openDir(n)
	if err != nil {
		return fs.status("opendir", err)
	}
	h := &dirHandle{fs: fs, node: n, dir: d}
	fs.mu.Lock()
	out.Fh = fs.nextHandle
	fs.nextHandle++
	fs.dirHandles[out.Fh] = h
	n.handles++
	fs.mu.Unlock()
	return fuse.OK
}

// ReleaseDir closes a directory handle.
func (fs *FS) ReleaseDir(in *fuse.ReleaseIn) {
	fs.mu.Lock()
	h := fs.dirHandles[in.Fh]
	delete(fs.dirHandles, in.Fh)
	fs.mu.Unlock()
	if h == nil {
		return
	}
	h.close()
	fs.mu.Lock()
	h.node.handles--
	dropped := fs.drop(h.node)
	fs.mu.Unlock()
	if dropped {
		fs.free(h.node)
	}
}

// FsyncDir makes the names in a directory durable.
func (fs *FS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := fs.dirHandle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	return fs.status("fsyncdir", h.dir.Sync())
}

func (fs *FS) dirHandle(fh uint64) *dirHandle {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return fs.dirHandles[fh]
}

// ReadDir lists a directory.
func (fs *FS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readDir("readdir", in, func(h *dirHandle, e store.Entry, off uint64) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: e.Name, Ino: h.ino(e), Mode: e.Mode, Off: off})
	})
}

// ReadDirPlus lists a directory and looks each entry up on the way. An entry
// that is gone by then is listed without being looked up.
func (fs *FS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return fs.readDir("readdirplus", in, func(h *dirHandle, e store.Entry, off uint64) bool {
		d := fuse.DirEntry{Name: e.Name, Mode: e.Mode, Off: off}
		if e.Name == "." || e.Name == ".." {
			d.Ino = h.ino(e)
			return out.AddDirLookupEntry(d) != nil
		}
		found, err := fs.resolve(h.node, e.Name)
		if err != nil {
			d.Ino = e.Ino
			return out.AddDirLookupEntry(d) != nil
		}
		d.Ino, d.Mode = found.node.ino, found.node.kind
		entry := out.AddDirLookupEntry(d)
		if entry == nil {
			fs.Forget(found.node.id, 1)
			return false
		}
		fs.fillEntry(found, entry)
		return true
	})
}

// readDir gives entries to add, from the one at in.Offset on, until it has no
// room.
func (fs *FS) readDir(op string, in *fuse.ReadIn, add func(h *dirHandle, e store.Entry, off uint64) bool) fuse.Status {
	h := fs.dirHandle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if in.Offset == 0 || h.entries == nil {
		if err := h.restart(); err != nil {
			return fs.status(op, err)
		}
	}
	for i := in.Offset; ; i++ {
		ok, err := h.pull(i)
		if err != nil {
			if i > in.Offset {
				return fuse.OK // what there is first; then the error again
			}
			return fs.status(op, err)
		}
		if !ok || !add(h, h.entries[i], i+1) {
			return fuse.OK
		}
	}
}

// restart begins a fresh listing. The caller holds h.mu.
func (h *dirHandle) restart() error {
	h.end()
	h.entries = append(h.entries[:0],
		store.Entry{Name: ".", Mode: syscall.S_IFDIR}, store.Entry{Name: "..", Mode: syscall.S_IFDIR})
	h.unfinished, h.done, h.err = nil, false, nil
	dir, err := h.fs.pathOf(h.node, "")
	if err != nil {
		h.done = true // a directory that was removed is empty
		return nil
	}
	h.unfinished = make(map[string]*session.Session)
	for _, s := range h.fs.engine.In(dir) {
		h.unfinished[path.Base(s.Path())] = s
	}
	h.next, h.stop = iter.Pull2(h.dir.List(h.fs.ctx))
	return nil
}

// pull makes sure that entry i is there; ok is false if there is none.
func (h *dirHandle) pull(i uint64) (ok bool, err error) {
	for uint64(len(h.entries)) <= i {
		if h.done {
			return false, h.err
		}
		if h.next == nil {
			h.pullUnfinished()
			continue
		}
		e, err, more := h.next()
		switch {
		case !more:
			h.end()
		case err != nil:
			h.end()
			h.done, h.err = true, err
		case h.fs.reserved(h.node, e.Name):
		default:
			if h.unfinished[e.Name] != nil {
				e.Mode = syscall.S_IFREG
				delete(h.unfinished, e.Name)
			}
			h.entries = append(h.entries, e)
		}
	}
	return true, nil
}

// pullUnfinished adds the unfinished files that the store did not list. One
// that was published after the store had listed the rest is still there.
func (h *dirHandle) pullUnfinished() {
	for name, s := range h.unfinished {
		p, err := h.fs.pathOf(h.node, name)
		if err != nil {
			break // the directory is gone
		}
		var a store.Attr
		if h.fs.engine.Get(p) == s {
			a, err = s.Attr()
		} else {
			a, err = h.fs.lookIn(h.node, name)
		}
		if err == nil {
			h.entries = append(h.entries, store.Entry{Name: name, Ino: inoOf(a.ID), Mode: a.Mode & syscall.S_IFMT})
		}
	}
	h.unfinished, h.done = nil, true
}

// end ends the listing of the store. The caller holds h.mu.
func (h *dirHandle) end() {
	if h.stop != nil {
		h.stop()
	}
	h.next, h.stop = nil, nil
}

func (h *dirHandle) close() {
	h.mu.Lock()
	h.end()
	h.mu.Unlock()
	h.fs.dirs.release(h.dir)
}

// ino returns the inode number that stat shows for the entry e, or would show
// if it were looked up now.
func (h *dirHandle) ino(e store.Entry) uint64 {
	fs, p := h.fs, h.node
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	switch e.Name {
	case ".":
		return p.ino
	case "..":
		if len(p.links) > 0 {
			p = p.links[0].parent
		}
		return p.ino
	}
	// What we know under this name, unless the store has another file there.
	id := store.ID{Dev: p.fileID.Dev, Ino: e.Ino}
	if n := p.children[e.Name]; n != nil && (n.session != nil || e.Ino == 0 || inoOf(n.fileID) == e.Ino) {
		return n.ino
	}
	if n := fs.byID[id]; n != nil && n.kind == e.Mode {
		return n.ino // another name of a file that we know
	}
	return fs.freeIno(e.Ino)
}

package fusefs

import (
	"errors"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/internal/procstate"
	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// A handle is one open file. It never changes.
type handle struct {
	node *node
	// session and writer are set on handles that may write.
	session *session.Session
	writer  *session.Writer
	// keepCache is set on handles whose reads the kernel's cache may answer.
	keepCache bool
}

// handle returns the open file with the number fh, or nil.
func (fs *FS) handle(fh uint64) *handle {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return fs.handles[fh]
}

// addHandle enters an open file of n and returns its number.
func (fs *FS) addHandle(h *handle) uint64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fh := fs.nextHandle
	fs.nextHandle++
	fs.handles[fh] = h
	h.node.handles++
	return fh
}

// Create makes a file that does not exist yet and opens it. It exists in the
// mount from now on, and for everyone once it is published.
func (fs *FS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	p, err := fs.get(in.NodeId)
	if err != nil {
		return fs.status("create", err)
	}
	e, h, err := fs.create(p, name, newFile{in.Mode, in.Umask, in.Caller}, in.Flags&syscall.O_EXCL != 0)
	if err != nil {
		return fs.status("create", err)
	}
	if h == nil {
		// Somebody else made it after the kernel had looked.
		open := fuse.OpenIn{InHeader: in.InHeader, Flags: in.Flags, Mode: in.OpenFlags}
		open.NodeId = e.node.id
		if status := fs.Open(cancel, &open, &out.OpenOut); !status.Ok() {
			fs.Forget(e.node.id, 1)
			return status
		}
		if a, active, err := fs.stat(e.node); err == nil {
			e.attr, e.active = a, active // O_TRUNC may have changed them
		}
		fs.fillEntry(e, &out.EntryOut)
		return fuse.OK
	}
	out.Fh, out.OpenFlags = fs.addHandle(h), fuse.FOPEN_DIRECT_IO
	fs.fillEntry(e, &out.EntryOut)
	return fuse.OK
}

// newFile is what a request says of the file that it makes.
type newFile struct {
	mode, umask uint32
	by          fuse.Caller
}

// create begins the session of a new file at name in p. If the name is taken
// it answers EEXIST if excl is set, else the entry that is there and no handle.
func (fs *FS) create(p *node, name string, f newFile, excl bool) (entry, *handle, error) {
	path, err := fs.making(p, name)
	if err != nil {
		return entry{}, nil, err
	}
	e, err := fs.resolve(p, name)
	switch {
	case err == nil && excl:
		fs.Forget(e.node.id, 1)
		return entry{}, nil, syscall.EEXIST
	case err == nil && e.node.kind == syscall.S_IFLNK:
		fs.Forget(e.node.id, 1)
		return entry{}, nil, syscall.ESTALE // the kernel looks again, and follows it
	case err == nil:
		return e, nil, nil
	case !errors.Is(err, syscall.ENOENT):
		return entry{}, nil, err
	}
	a, acl, err := fs.newFileAttr(p, f.mode, f.umask, f.by)
	if err != nil {
		return entry{}, nil, err
	}
	s, err := fs.begin(p, name, path, a)
	if err != nil {
		return entry{}, nil, err
	}
	w := s.Writer(tgidOf(f.by.Pid))
	if w == nil {
		return entry{}, nil, syscall.ESTALE // aborted by command already
	}
	if err = setACL(s, acl); err == nil {
		a, err = s.Attr()
	}
	if err != nil {
		s.Unlink()
		w.Release(fs.ctx)
		return entry{}, nil, err
	}
	n := fs.enterSession(p, name, s, a, nil)
	n.unprivileged.Store(a.Mode&(syscall.S_ISUID|syscall.S_ISGID) == 0)
	fs.mu.Lock()
	n.writers++
	fs.mu.Unlock()
	return entry{n, a, true}, &handle{node: n, session: s, writer: w}, nil
}

// begin asks the engine for the session of a new file. A session that still
// has the path, though there is nothing at the name, is that of a file that
// was removed behind the mount while it was open: it loses its name.
func (fs *FS) begin(p *node, name, path string, a store.Attr) (*session.Session, error) {
	s, err := fs.engine.Create(fs.ctx, path, a)
	if !errors.Is(err, syscall.EEXIST) || fs.engine.Get(path) != nil {
		return s, err
	}
	var old *session.Session
	fs.mu.RLock()
	all := slices.Collect(maps.Keys(fs.bySession))
	fs.mu.RUnlock()
	for _, have := range all {
		if have.Path() == path {
			old = have
		}
	}
	if old == nil {
		return nil, err
	}
	old.Unlink()
	return fs.engine.Create(fs.ctx, path, a)
}

// tgidOf returns the process that the thread pid belongs to, or 0.
func tgidOf(pid uint32) int {
	c, _ := procstate.Of(int(pid)) // an error leaves it unknown, which is 0
	return c.TGID
}

// Open opens a file that exists. Reading goes through the page cache, writing
// around it. O_DIRECT and O_APPEND are nothing to us here: staging is written
// at any alignment, and each WRITE says whether it appends.
func (fs *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := fs.get(in.NodeId)
	if err != nil {
		return fs.status("open", err)
	}
	h, err := fs.open(n, in)
	if err != nil {
		return fs.status("open", err)
	}
	switch {
	case h.writer != nil:
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
	case h.keepCache:
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
	out.Fh = fs.addHandle(h)
	return fuse.OK
}

// contents identifies what a published file holds: whoever changes it changes
// one of these, and the time of change cannot be set back.
type contents struct {
	id           store.ID
	size         int64
	mtime, ctime time.Time
}

// seen reports whether the kernel's cached pages, from the last time that the
// file was opened for reading, are those of the file with the attributes a.
// Changes through the mount keep them right; this is about those behind it.
func (n *node) seen(a store.Attr) bool {
	now := contents{a.ID, a.Size, a.Mtime, a.Ctime}
	n.mu.Lock()
	defer n.mu.Unlock()
	same := n.cached == now
	n.cached = now
	return same
}

func (fs *FS) open(n *node, in *fuse.OpenIn) (*handle, error) {
	switch {
	case n.isDir():
		return nil, syscall.EISDIR
	case !n.isRegular():
		return nil, syscall.ENXIO // the kernel serves pipes and devices itself
	}
	truncate := in.Flags&syscall.O_TRUNC != 0
	kill := truncate && in.Mode&fuse.OPEN_KILL_SUIDGID != 0
	empty := func(w *session.Writer) error {
		if kill {
			// First: once the file is emptied there is something to publish,
			// and an open that fails must not.
			if err := fs.killPrivileges(n); err != nil {
				return err
			}
		}
		return w.Reset(fs.ctx)
	}
	if acc := in.Flags & syscall.O_ACCMODE; acc != syscall.O_WRONLY && acc != syscall.O_RDWR {
		if truncate {
			if err := fs.writeOnce(n, empty); err != nil {
				return nil, err
			}
		}
		if s := fs.sessionOf(n); s != nil && s.Active() {
			return &handle{node: n}, nil
		}
		// Opened now, so that the handle reads this file whatever happens to
		// its name.
		f, err := fs.openFile(n)
		if err != nil {
			return nil, err
		}
		defer f.release(n)
		a, err := f.open.Stat()
		if err != nil {
			return nil, err
		}
		return &handle{node: n, keepCache: n.seen(a)}, nil
	}
	h, err := fs.openWriter(n, tgidOf(in.Pid))
	if err != nil {
		return nil, err
	}
	if truncate {
		if err := empty(h.writer); err != nil {
			fs.closeWriter(h)
			return nil, err
		}
	}
	return h, nil
}

// openWriter makes a writer of n. Its session is the one that n has, or else
// begins with what is published.
func (fs *FS) openWriter(n *node, tgid int) (*handle, error) {
	n.opening.Lock()
	defer n.opening.Unlock()
	n.unprivileged.Store(false)
	for {
		s := fs.sessionOf(n)
		if s == nil {
			var err error
			if s, err = fs.openSession(n); err != nil {
				return nil, err
			}
		}
		w := s.Writer(tgid)
		fs.mu.Lock()
		if w != nil {
			fs.attach(n, s)
			n.writers++
			fs.mu.Unlock()
			return &handle{node: n, session: s, writer: w}, nil
		}
		if n.session == s {
			fs.detach(n) // it has ended meanwhile; the next one starts from its file
		}
		fs.mu.Unlock()
	}
}

// openSession asks the engine for a session of the published file n.
func (fs *FS) openSession(n *node) (*session.Session, error) {
	var s *session.Session
	err := fs.atName(n, func(d store.Dir, at link) error {
		f, err := d.OpenFile(at.name)
		if err != nil {
			return err
		}
		a, err := f.Stat()
		if err == nil && !fs.standsFor(n, a) {
			err = errMoved
		}
		path := ""
		if err == nil {
			path, err = fs.pathOf(at.parent, at.name)
		}
		if err != nil {
			f.Close()
			return err
		}
		s, err = fs.engine.Open(fs.ctx, path, f, a) // it owns f from here on
		return err
	})
	return s, err
}

// closeWriter releases the writer of a handle. The last one of a session may
// publish: the error is for whoever can still be told.
func (fs *FS) closeWriter(h *handle) error {
	err := h.writer.Release(fs.ctx)
	fs.mu.Lock()
	last := false
	if h.node.session == h.session {
		h.node.writers--
		last = h.node.writers == 0
	}
	fs.mu.Unlock()
	if last && h.session.Ended() {
		fs.mu.Lock()
		if h.node.session == h.session && h.node.writers == 0 {
			fs.detach(h.node)
		}
		fs.mu.Unlock()
	}
	return err
}

// writeOnce calls f with a writer of its own and closes that as a program
// closes a file that it has changed. The writer counts as the daemon's, so
// that opening and closing it are one process's.
func (fs *FS) writeOnce(n *node, f func(*session.Writer) error) error {
	h, err := fs.openWriter(n, os.Getpid())
	if err != nil {
		return err
	}
	err = f(h.writer)
	if flushErr := h.writer.Flush(fs.ctx, session.Caller{TGID: os.Getpid()}); err == nil {
		err = flushErr
	}
	if closeErr := fs.closeWriter(h); err == nil {
		err = closeErr
	}
	return err
}

// Flush is one close(2) of a handle. Who closes, and whether it dies, decides
// what becomes of the file (W3, W4); the answer is what close returns (W2).
func (fs *FS) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h := fs.handle(in.Fh)
	if h == nil || h.writer == nil {
		return fuse.OK
	}
	c := session.Caller{Owner: session.Owner(in.LockOwner)}
	if in.Pid != 0 {
		seen, err := procstate.Of(int(in.Pid))
		if err != nil {
			fs.log.Debug("who closes a file cannot be seen", "pid", in.Pid, "err", err)
		}
		c.TGID, c.Signal = seen.TGID, seen.Signal
		c.Killed = seen.Exit == procstate.Killed
		c.Unknown = seen.Exit == procstate.Unknown && seen.TGID != 0
	}
	return fs.status("flush", h.writer.Flush(fs.ctx, c))
}

// Release ends a handle: no descriptor and no mapping refers to it any more.
// Nobody waits for the answer, so what goes wrong is logged.
func (fs *FS) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	fs.mu.Lock()
	h := fs.handles[in.Fh]
	delete(fs.handles, in.Fh)
	if h == nil {
		fs.mu.Unlock()
		return
	}
	n := h.node
	// What was written to a file without a name can be read for as long as
	// anybody has it open; the engine keeps it while it has a writer.
	late := h.writer != nil && n.handles > 1 && len(n.links) == 0
	if late {
		n.late = append(n.late, h)
	}
	fs.mu.Unlock()
	if h.writer != nil && !late {
		fs.releaseWriter(h)
	}
	fs.mu.Lock()
	n.handles--
	var ended []*handle
	if n.handles == 0 {
		ended, n.late = n.late, nil
	}
	idle := n.handles == 0 && len(n.links) > 0
	dropped := fs.drop(n)
	fs.mu.Unlock()
	for _, h := range ended {
		fs.releaseWriter(h)
	}
	switch {
	case dropped:
		fs.free(n)
	case idle:
		fs.dropFile(n, false)
	}
}

func (fs *FS) releaseWriter(h *handle) {
	if err := fs.closeWriter(h); err != nil {
		fs.log.Warn("file not published at its last release; it is held", "path", h.session.Path(), "err", err)
	}
}

package fusefs

import (
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// generation goes with every node id. Ids are never reused, so one will do.
const generation = 1

// stat returns the attributes of n, and whether they are those of an active
// session.
func (fs *FS) stat(n *node) (a store.Attr, active bool, err error) {
	if s := fs.sessionOf(n); s != nil {
		a, err := s.Attr()
		if !errors.Is(err, session.ErrInactive) {
			return a, true, err
		}
	}
	n.mu.Lock()
	file := n.file
	if file != nil {
		file.refs++
	}
	n.mu.Unlock()
	if file != nil {
		defer file.release(n)
		a, err := file.open.Stat()
		return a, false, err
	}
	if n.isDir() || fs.nameless(n) {
		err := fs.onStore(n, func(node store.Node) (err error) {
			a, err = node.Stat()
			return err
		})
		return a, false, err
	}
	err = fs.atName(n, func(d store.Dir, at link) (err error) {
		if a, err = d.Lookup(at.name); err == nil && !fs.standsFor(n, a) {
			err = errMoved
		}
		return err
	})
	if errors.Is(err, errMoved) {
		if kept := n.keep(); kept != nil {
			a, err = kept.open.Stat() // its name is going away right now
			kept.release(n)
		}
	}
	return a, false, err
}

// fillAttr writes the attributes a of n as the kernel wants them.
func (fs *FS) fillAttr(n *node, a store.Attr, active bool, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: n.ino, Size: uint64(a.Size), Blocks: uint64(a.Blocks),
		Mode: a.Mode, Nlink: fs.nlink(n, a, active),
		Owner: fuse.Owner{Uid: a.UID, Gid: a.GID},
		Rdev:  uint32(a.Rdev), Blksize: fs.o.BlockSize,
	}
	out.Atime, out.Atimensec = fuseTime(a.Atime)
	out.Mtime, out.Mtimensec = fuseTime(a.Mtime)
	out.Ctime, out.Ctimensec = fuseTime(a.Ctime)
}

// nlink returns the number of names of n. A staging file has names of its own,
// which do not count: those that the file has, or will have, do.
func (fs *FS) nlink(n *node, a store.Attr, active bool) uint32 {
	fs.mu.RLock()
	names, seen := uint32(len(n.links)), n.nlink
	fs.mu.RUnlock()
	if active {
		if names == 0 {
			return 0
		}
		return max(seen, names)
	}
	if seen != a.Nlink {
		fs.mu.Lock()
		n.nlink = a.Nlink
		fs.mu.Unlock()
	}
	return a.Nlink
}

func fuseTime(t time.Time) (sec uint64, nsec uint32) {
	if t.IsZero() {
		return 0, 0
	}
	return uint64(t.Unix()), uint32(t.Nanosecond())
}

// attrTimeout says how long attributes may be cached: not at all while a
// session is active.
func (fs *FS) attrTimeout(active bool) time.Duration {
	if active {
		return 0
	}
	return fs.o.AttrTimeout
}

// fillEntry writes the answer to a request that looked e up or made it.
func (fs *FS) fillEntry(e entry, out *fuse.EntryOut) {
	out.NodeId, out.Generation = e.node.id, generation
	out.SetEntryTimeout(fs.o.EntryTimeout)
	out.SetAttrTimeout(fs.attrTimeout(e.active))
	fs.fillAttr(e.node, e.attr, e.active, &out.Attr)
}

// answerAttr writes the attributes of n, fresh, into out.
func (fs *FS) answerAttr(op string, n *node, out *fuse.AttrOut) fuse.Status {
	a, active, err := fs.stat(n)
	if err != nil {
		return fs.status(op, err)
	}
	out.SetTimeout(fs.attrTimeout(active))
	fs.fillAttr(n, a, active, &out.Attr)
	return fuse.OK
}

// GetAttr answers stat and fstat. A file that was replaced behind the mount
// answers ESTALE, upon which the kernel looks its name up again; one that is
// open or was removed here still answers.
func (fs *FS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := fs.get(in.NodeId)
	if err != nil {
		return fs.status("getattr", err)
	}
	return fs.answerAttr("getattr", n, out)
}

// Statx answers statx(2) calls that ask for more than stat tells: the time of
// birth.
func (fs *FS) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n, err := fs.get(in.NodeId)
	if err != nil {
		return fs.status("statx", err)
	}
	a, active, err := fs.stat(n)
	if err != nil {
		return fs.status("statx", err)
	}
	out.SetTimeout(fs.attrTimeout(active))
	x := &out.Statx
	*x = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: fs.o.BlockSize, Ino: n.ino,
		Nlink: fs.nlink(n, a, active), Uid: a.UID, Gid: a.GID, Mode: uint16(a.Mode),
		Size: uint64(a.Size), Blocks: uint64(a.Blocks),
		RdevMajor: unix.Major(a.Rdev), RdevMinor: unix.Minor(a.Rdev),
	}
	x.Atime.Sec, x.Atime.Nsec = fuseTime(a.Atime)
	x.Mtime.Sec, x.Mtime.Nsec = fuseTime(a.Mtime)
	x.Ctime.Sec, x.Ctime.Nsec = fuseTime(a.Ctime)
	if !a.Btime.IsZero() {
		x.Btime.Sec, x.Btime.Nsec = fuseTime(a.Btime)
		x.Mask |= unix.STATX_BTIME
	}
	return fuse.OK
}

// fattrs are the bits of SetAttrIn.Valid that name something to change.
const fattrs = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE |
	fuse.FATTR_ATIME | fuse.FATTR_MTIME | fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME_NOW | fuse.FATTR_CTIME

// SetAttr changes attributes. Those of a file with an active session become
// the published file's. A size is set like a write, through a writer, and the
// error of publishing it is the answer.
func (fs *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := fs.get(in.NodeId)
	if err == nil {
		err = fs.setAttr(n, in)
	}
	if err != nil {
		return fs.status("setattr", err)
	}
	return fs.answerAttr("setattr", n, out)
}

func (fs *FS) setAttr(n *node, in *fuse.SetAttrIn) error {
	c := changeOf(in)
	owner := c.UID != nil || c.GID != nil
	// The kernel leaves this to us (HANDLE_KILLPRIV_V2): when it says so, and
	// after writes of its own, which it announces by changing nothing.
	kill := in.Valid&fuse.FATTR_KILL_SUIDGID != 0 || in.Valid&fattrs == 0 || owner
	if kill && n.isRegular() {
		// First: a file must not be seen changed and still privileged.
		if err := fs.killPrivileges(n); err != nil {
			return err
		}
	}
	if size, ok := in.GetSize(); ok {
		if err := fs.setSize(n, in, int64(size)); err != nil {
			return err
		}
	}
	if c == (store.Change{}) {
		return nil
	}
	if c.Mode != nil {
		defer n.unprivileged.Store(false)
	}
	return fs.onNode(n, func(node store.Node) error {
		_, err := node.SetAttr(c)
		return err
	})
}

// changeOf returns what a SETATTR changes, without the size.
func changeOf(in *fuse.SetAttrIn) store.Change {
	var c store.Change
	if mode, ok := in.GetMode(); ok {
		c.Mode = &mode
	}
	if uid, ok := in.GetUID(); ok {
		c.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		c.GID = &gid
	}
	if t, ok := in.GetATime(); ok {
		c.Atime = &t
	}
	if t, ok := in.GetMTime(); ok {
		c.Mtime = &t
	}
	return c
}

// setSize truncates or extends n, by the handle that the request names or by
// one of its own, which is closed at once and so publishes.
func (fs *FS) setSize(n *node, in *fuse.SetAttrIn, size int64) error {
	if size < 0 {
		return syscall.EINVAL
	}
	switch {
	case n.isDir():
		return syscall.EISDIR
	case !n.isRegular():
		return syscall.EINVAL
	}
	if fh, ok := in.GetFh(); ok {
		if h := fs.handle(fh); h != nil && h.writer != nil {
			return h.writer.Truncate(fs.ctx, size)
		}
	}
	return fs.writeOnce(n, func(w *session.Writer) error { return w.Truncate(fs.ctx, size) })
}

const capabilityXattr = "security.capability"

// killPrivileges clears what a write by others must not leave: suid, sgid of
// executables, and file capabilities. The kernel asks for it at each write of
// a program without CAP_FSETID; only the first after a change does something.
func (fs *FS) killPrivileges(n *node) error {
	if n.unprivileged.Swap(true) {
		return nil
	}
	err := fs.onNode(n, func(node store.Node) error {
		a, err := node.Stat()
		if err != nil {
			return err
		}
		mode := a.Mode &^ syscall.S_ISUID & 0o7777
		if mode&syscall.S_IXGRP != 0 {
			mode &^= syscall.S_ISGID
		}
		if mode != a.Mode&0o7777 {
			if _, err := node.SetAttr(store.Change{Mode: &mode}); err != nil {
				return err
			}
		}
		// Looked at before: only root may remove it, even where there is none.
		_, err = node.GetXattr(capabilityXattr)
		if errors.Is(err, syscall.ENODATA) || errors.Is(err, syscall.EOPNOTSUPP) {
			return nil
		}
		if err != nil {
			return err
		}
		return node.RemoveXattr(capabilityXattr)
	})
	if err != nil {
		n.unprivileged.Store(false)
	}
	return err
}

package fusefs

import (
	"errors"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// A place is what a name shows: what the store has there, and the active
// session, which wins over it.
type place struct {
	parent  *node
	name    string
	path    string
	session *session.Session
	attr    store.Attr
	stored  bool
}

func (at place) exists() bool { return at.stored || at.session != nil }
func (at place) isDir() bool  { return at.session == nil && at.stored && at.attr.IsDir() }

// look finds out about name in p. The caller has frozen the path if what it
// learns must stay true.
func (fs *FS) look(p *node, name, path string) (place, error) {
	at := place{parent: p, name: name, path: path, session: fs.engine.Get(path)}
	a, err := fs.lookIn(p, name)
	switch {
	case err == nil:
		at.attr, at.stored = a, true
	case !errors.Is(err, syscall.ENOENT):
		return place{}, err
	}
	return at, nil
}

// Unlink removes a name. An unfinished file that loses its last name is never
// published; programs that have it open go on using it. A file with several
// names goes on under another one that the kernel has looked up; what was not
// published yet is lost to names that it has not.
func (fs *FS) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	p, err := fs.get(h.NodeId)
	if err == nil {
		err = fs.unlink(p, name)
	}
	return fs.status("unlink", err)
}

func (fs *FS) unlink(p *node, name string) error {
	if fs.reserved(p, name) {
		return syscall.ENOENT
	}
	path, err := fs.pathOf(p, name)
	if err != nil {
		return err
	}
	other := fs.otherName(p, name)
	thaw := fs.engine.Freeze(path, other)
	defer thaw()
	at, err := fs.look(p, name, path)
	switch {
	case err != nil:
		return err
	case !at.exists():
		fs.vanished(p, name, fs.child(p, name))
		return syscall.ENOENT
	case at.isDir():
		return syscall.EISDIR
	}
	n, s := fs.child(p, name), fs.writtenAt(at)
	if at.stored {
		fs.keep(p, name)
		if err := fs.inDir(p, func(d store.Dir) error { return d.Unlink(name) }); err != nil {
			return err
		}
	}
	if s != nil {
		if other != path {
			// The file lives on under its other name, and so does its session.
			fs.engine.Rename(path, other)
		} else {
			s.Unlink()
		}
	}
	fs.lost(p, name, n)
	return nil
}

// otherName returns the path of another name of the file that name in p is
// known to be, or that of name itself if there is none.
func (fs *FS) otherName(p *node, name string) string {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	path, _ := fs.pathLocked(p, name)
	if n := p.children[name]; n != nil && n.isRegular() {
		for _, at := range n.links {
			if at.parent == p && at.name == name {
				continue
			}
			if other, err := fs.pathLocked(at.parent, at.name); err == nil {
				return other
			}
		}
	}
	return path
}

// writtenAt returns the session of the path: the active one, or one that has
// nothing unpublished and goes on only because the file is open for writing.
func (fs *FS) writtenAt(at place) *session.Session {
	if at.session != nil {
		return at.session
	}
	if n := fs.child(at.parent, at.name); n != nil {
		if s := fs.sessionOf(n); s != nil && s.Path() == at.path {
			return s
		}
	}
	return nil
}

// lost says that name in p, which was n, is gone.
func (fs *FS) lost(p *node, name string, n *node) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if n == nil || p.children[name] != n {
		return
	}
	fs.cut(p, name)
	fs.unnamed(n)
}

// unnamed counts one name of n less. The caller holds FS.mu.
func (t *tables) unnamed(n *node) {
	if n.nlink > 0 {
		n.nlink--
	}
	if len(n.links) == 0 && n.writers == 0 {
		t.detach(n) // nobody writes: the session has gone with the name
	}
}

// Rmdir removes an empty directory; one with unfinished files is not empty.
func (fs *FS) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	p, err := fs.get(h.NodeId)
	if err == nil {
		err = fs.rmdir(p, name)
	}
	return fs.status("rmdir", err)
}

func (fs *FS) rmdir(p *node, name string) error {
	if fs.reserved(p, name) {
		return syscall.ENOENT
	}
	path, err := fs.pathOf(p, name)
	if err != nil {
		return err
	}
	switch {
	case fs.engine.Get(path) != nil:
		return syscall.ENOTDIR
	case fs.engine.Under(path):
		return syscall.ENOTEMPTY
	}
	fs.keep(p, name)
	if err := fs.inDir(p, func(d store.Dir) error { return d.Rmdir(name) }); err != nil {
		return err
	}
	fs.lost(p, name, fs.child(p, name))
	return nil
}

// Rename moves a name, with the flags of renameat2(2). What is being written
// moves along, and is published under its new name. An unfinished file that
// takes the name of a published one replaces it in the mount at once, and in
// the store when it is published.
func (fs *FS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	from, err := fs.get(in.NodeId)
	if err != nil {
		return fs.status("rename", err)
	}
	to, err := fs.get(in.Newdir)
	if err == nil {
		err = fs.rename(from, oldName, to, newName, in.Flags)
	}
	return fs.status("rename", err)
}

func (fs *FS) rename(from *node, oldName string, to *node, newName string, flags uint32) error {
	switch {
	case flags != 0 && flags != store.RenameNoReplace && flags != store.RenameExchange:
		return syscall.EINVAL // RENAME_WHITEOUT, and what may come
	case fs.reserved(from, oldName):
		return syscall.ENOENT
	}
	oldPath, err := fs.pathOf(from, oldName)
	if err != nil {
		return err
	}
	newPath, err := fs.making(to, newName)
	if err != nil {
		return err
	}
	if strings.HasPrefix(newPath, oldPath+"/") {
		return syscall.EINVAL
	}
	thaw := fs.engine.Freeze(oldPath, newPath)
	defer thaw()
	src, err := fs.look(from, oldName, oldPath)
	if err != nil {
		return err
	}
	dst, err := fs.look(to, newName, newPath)
	if err != nil {
		return err
	}
	switch {
	case !src.exists():
		return syscall.ENOENT
	case flags == store.RenameExchange:
		return fs.exchange(src, dst)
	case dst.exists():
		if flags == store.RenameNoReplace {
			return syscall.EEXIST
		}
		if oldPath == newPath || src.stored && dst.stored && src.attr.ID == dst.attr.ID {
			return nil // two names of one file: rename(2) does nothing
		}
		if err := fs.mayReplace(src, dst); err != nil {
			return err
		}
	}
	if dst.stored {
		fs.keep(to, newName)
	}
	if src.stored {
		if err := fs.renameStored(src, dst, int(flags)); err != nil {
			return err
		}
	}
	fs.engine.Rename(oldPath, newPath)

	fs.mu.Lock()
	defer fs.mu.Unlock()
	moved, replaced := from.children[oldName], to.children[newName]
	fs.cut(from, oldName)
	fs.cut(to, newName)
	if moved != nil {
		fs.link(to, newName, moved)
	}
	if replaced != nil {
		fs.unnamed(replaced)
	}
	return nil
}

// mayReplace checks what rename(2) demands of the types of both ends.
func (fs *FS) mayReplace(src, dst place) error {
	switch {
	case src.isDir() && !dst.isDir():
		return syscall.ENOTDIR
	case !src.isDir() && dst.isDir():
		return syscall.EISDIR
	case dst.isDir() && fs.engine.Under(dst.path):
		return syscall.ENOTEMPTY
	}
	return nil
}

// renameStored renames in the store.
func (fs *FS) renameStored(src, dst place, flags int) error {
	return fs.inDir(src.parent, func(from store.Dir) error {
		return fs.inDir(dst.parent, func(to store.Dir) error {
			return from.Rename(src.name, to, dst.name, flags)
		})
	})
}

// exchange swaps two names.
func (fs *FS) exchange(a, b place) error {
	var err error
	switch {
	case !b.exists():
		return syscall.ENOENT
	case a.path == b.path:
		return nil
	case strings.HasPrefix(a.path, b.path+"/"):
		return syscall.EINVAL
	case a.stored && b.stored:
		err = fs.renameStored(a, b, store.RenameExchange)
	case a.stored:
		err = fs.renameStored(a, b, store.RenameNoReplace)
	case b.stored:
		err = fs.renameStored(b, a, store.RenameNoReplace)
	}
	if err != nil {
		return err
	}
	fs.engine.Exchange(a.path, b.path)

	fs.mu.Lock()
	defer fs.mu.Unlock()
	atA, atB := a.parent.children[a.name], b.parent.children[b.name]
	fs.cut(a.parent, a.name)
	fs.cut(b.parent, b.name)
	if atA != nil {
		fs.link(b.parent, b.name, atA)
	}
	if atB != nil {
		fs.link(a.parent, a.name, atB)
	}
	return nil
}

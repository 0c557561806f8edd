package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/store"
)

// make lets f make name in the directory id of the store, and answers with the
// entry. An unfinished file has its name already, though the store does not
// know it.
func (fs *FS) make(op string, id uint64, name string, out *fuse.EntryOut, f func(store.Dir) (store.Attr, error)) fuse.Status {
	e, err := fs.makeEntry(id, name, f)
	if err != nil {
		return fs.status(op, err)
	}
	fs.fillEntry(e, out)
	return fuse.OK
}

func (fs *FS) makeEntry(id uint64, name string, f func(store.Dir) (store.Attr, error)) (entry, error) {
	p, err := fs.get(id)
	if err != nil {
		return entry{}, err
	}
	path, err := fs.making(p, name)
	if err != nil {
		return entry{}, err
	}
	if fs.engine.Get(path) != nil {
		return entry{}, syscall.EEXIST
	}
	var a store.Attr
	err = fs.inDir(p, func(d store.Dir) (err error) {
		a, err = f(d)
		return err
	})
	if err != nil {
		return entry{}, err
	}
	n, _ := fs.showPublished(p, name, a)
	return entry{n, a, false}, nil
}

func ownerOf(c fuse.Caller) store.Owner { return store.Owner{UID: c.Uid, GID: c.Gid} }

// Mkdir makes a directory, in the store and at once.
func (fs *FS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make("mkdir", in.NodeId, name, out, func(d store.Dir) (store.Attr, error) {
		return d.Mkdir(name, masked(d, in.Mode, in.Umask), ownerOf(in.Caller))
	})
}

// Symlink makes a symbolic link, in the store and at once.
func (fs *FS) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return fs.make("symlink", h.NodeId, name, out, func(d store.Dir) (store.Attr, error) {
		return d.Symlink(name, target, ownerOf(h.Caller))
	})
}

// Readlink tells where a symbolic link points.
func (fs *FS) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := fs.get(h.NodeId)
	if err != nil {
		return nil, fs.status("readlink", err)
	}
	var target string
	err = fs.onStore(n, func(node store.Node) (err error) {
		target, err = node.Readlink()
		return err
	})
	return []byte(target), fs.status("readlink", err)
}

// Mknod makes a pipe, a socket or a device in the store, or an empty regular
// file, which is published at once: nobody has it open.
func (fs *FS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if kind := in.Mode & syscall.S_IFMT; kind != syscall.S_IFREG && kind != 0 {
		return fs.make("mknod", in.NodeId, name, out, func(d store.Dir) (store.Attr, error) {
			return d.Mknod(name, kind|masked(d, in.Mode, in.Umask), uint64(in.Rdev), ownerOf(in.Caller))
		})
	}
	p, err := fs.get(in.NodeId)
	if err != nil {
		return fs.status("mknod", err)
	}
	e, h, err := fs.create(p, name, newFile{in.Mode, in.Umask, in.Caller}, true)
	if err != nil {
		return fs.status("mknod", err)
	}
	err = fs.closeWriter(h)
	if err == nil {
		e.attr, e.active, err = fs.stat(e.node)
	}
	if err != nil {
		fs.Forget(e.node.id, 1)
		return fs.status("mknod", err)
	}
	fs.fillEntry(e, out)
	return fuse.OK
}

// Link gives a file another name. A file with an active session answers EBUSY:
// the store has no such file yet, or has the version that is about to be
// replaced, and a name given to that would not be one of the new file.
func (fs *FS) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n, err := fs.get(in.Oldnodeid)
	if err != nil {
		return fs.status("link", err)
	}
	if n.isDir() {
		return fuse.EPERM
	}
	if s := fs.sessionOf(n); s != nil && s.Active() {
		return fuse.EBUSY
	}
	return fs.make("link", in.NodeId, name, out, func(d store.Dir) (a store.Attr, err error) {
		err = fs.onStore(n, func(node store.Node) (err error) {
			a, err = d.Link(name, node)
			return err
		})
		return a, err
	})
}

package localdir

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/durable"
	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
)

// dir is a directory, held by an O_PATH descriptor.
type dir struct {
	node
	top bool // here the reserved name is hidden
}

// existing checks a name that is looked for: the reserved one is not there.
func (d *dir) existing(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if d.top && name == StateDirName {
		return unix.ENOENT
	}
	return nil
}

// creatable checks a name that is to be made: the reserved one may not be.
func (d *dir) creatable(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if d.top && name == StateDirName {
		return unix.EPERM
	}
	return nil
}

// Lookup tells of one entry, not following a symlink. What is mounted on the
// entry, if anything, is what it tells of.
func (d *dir) Lookup(name string) (store.Attr, error) {
	if err := d.existing(name); err != nil {
		return store.Attr{}, err
	}
	a, err := d.statAt(name)
	if err == nil && d.isState(a) {
		return store.Attr{}, unix.ENOENT
	}
	return a, err
}

func (d *dir) statAt(name string) (a store.Attr, err error) {
	err = fdnode.With(d.F, func(fd int) (err error) {
		a, err = fdnode.StatAt(fd, name)
		return err
	})
	return a, err
}

// isState reports whether a name at the top led to the state directory after
// all: a filesystem that ignores case knows it by several.
func (d *dir) isState(a store.Attr) bool { return d.top && a.ID == d.store.state }

// OpenNode opens whatever name is; a symlink is opened itself. Nothing happens
// to what it opens: a FIFO does not block, a device does not wake.
func (d *dir) OpenNode(name string) (store.Node, error) {
	n, _, err := d.open(name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// open opens name with O_PATH and tells what it is.
func (d *dir) open(name string) (*node, store.Attr, error) {
	if err := d.existing(name); err != nil {
		return nil, store.Attr{}, err
	}
	f, err := openat2(d.F, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, store.Attr{}, err
	}
	n := &node{Node: fdnode.Node{F: f}, store: d.store}
	a, err := n.Stat()
	switch {
	case err != nil:
	case a.ID.Dev != d.store.id.Dev:
		err = unix.EXDEV
	case d.isState(a):
		err = unix.ENOENT
	default:
		return n, a, nil
	}
	n.Close()
	return nil, store.Attr{}, err
}

// OpenFile opens a regular file for reading: EISDIR for a directory, ELOOP for
// a symlink, ENXIO for a FIFO, a socket or a device. It never blocks on what
// it opens, and opens what it has looked at, whatever became of the name.
func (d *dir) OpenFile(name string) (store.File, error) {
	n, a, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		return nil, unix.EISDIR
	case unix.S_IFLNK:
		return nil, unix.ELOOP
	default:
		return nil, unix.ENXIO
	}
	f, err := fdnode.Reopen(n.F, unix.O_RDONLY|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	return &file{node{Node: fdnode.Node{F: f}, store: d.store}}, nil
}

// OpenDir opens a directory: ENOTDIR for what is none, ELOOP for a symlink,
// EXDEV where another filesystem begins.
func (d *dir) OpenDir(name string) (store.Dir, error) {
	n, a, err := d.open(name)
	if err != nil {
		return nil, err
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return &dir{node: *n}, nil
	case unix.S_IFLNK:
		err = unix.ELOOP
	default:
		err = unix.ENOTDIR
	}
	n.Close()
	return nil, err
}

// Unlink removes a name that is not a directory; EISDIR if it is one.
func (d *dir) Unlink(name string) error {
	if err := d.existing(name); err != nil {
		return err
	}
	return fdnode.With(d.F, func(fd int) error { return unix.Unlinkat(fd, name, 0) })
}

// Rmdir removes an empty directory; ENOTEMPTY or ENOTDIR if it is not that.
func (d *dir) Rmdir(name string) error {
	if _, err := d.Lookup(name); err != nil { // the state directory by another name
		return err
	}
	return fdnode.With(d.F, func(fd int) error { return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) })
}

// Rename moves name to toName in to, as renameat2(2) does. EXDEV if to is not
// a directory of this store, EINVAL for flags that it does not know or that
// exclude each other.
func (d *dir) Rename(name string, to store.Dir, toName string, flags int) error {
	target, ok := to.(*dir)
	if !ok || target.store != d.store {
		return unix.EXDEV
	}
	if flags&^(store.RenameNoReplace|store.RenameExchange) != 0 {
		return unix.EINVAL
	}
	if err := d.existing(name); err != nil {
		return err
	}
	if err := target.creatable(toName); err != nil {
		return err
	}
	// The state directory by another name: it must neither move nor be replaced.
	if a, err := d.statAt(name); err == nil && d.isState(a) {
		return unix.ENOENT
	}
	if target.top {
		if a, err := target.statAt(toName); err == nil && target.isState(a) {
			return unix.EPERM
		}
	}
	return durable.Rename(d.F, name, target.F, toName, uint(flags))
}

// Sync makes the entries durable. It opens the directory for reading, which
// takes the right to (EACCES).
func (d *dir) Sync() error {
	return d.withReadable(durable.SyncDir)
}

// withReadable calls fn with a readable descriptor of the directory.
func (d *dir) withReadable(fn func(*os.File) error) error {
	f, err := readDir(d.F)
	if err != nil {
		return err
	}
	defer f.Close()
	return fn(f)
}

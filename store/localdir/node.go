package localdir

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
)

// node is one thing in the store, held by an O_PATH descriptor, or by a
// readable one in a file.
type node struct {
	fdnode.Node
	store *Store
}

// local is what the nodes of this package have in common; Link and Rename
// find by it the descriptor behind what they were given.
type local interface{ self() *node }

func (n *node) self() *node { return n }

// Reopen opens the file for reading, whatever has become of its names.
func (n *node) Reopen() (store.File, error) {
	f, err := fdnode.Reopen(n.F, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &file{node{Node: fdnode.Node{F: f}, store: n.store}}, nil
}

// file is a regular file opened for reading.
type file struct{ node }

var (
	_ store.Reopener = (*node)(nil)
	_ store.File     = (*file)(nil)
	_ store.Dir      = (*dir)(nil)
)

// ReadAt reads as io.ReaderAt does.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	n, err := f.F.ReadAt(p, off)
	if errors.Is(err, os.ErrClosed) {
		err = unix.EBADF
	}
	return n, bare(err)
}

// SeekData returns the next offset at or after off that holds data.
func (f *file) SeekData(off int64) (int64, error) { return f.seek(off, unix.SEEK_DATA) }

// SeekHole returns the next offset at or after off that lies in a hole, of
// which there is one at the end.
func (f *file) SeekHole(off int64) (int64, error) { return f.seek(off, unix.SEEK_HOLE) }

func (f *file) seek(off int64, whence int) (at int64, err error) {
	if off < 0 {
		return 0, unix.EINVAL
	}
	err = fdnode.With(f.F, func(fd int) (err error) {
		at, err = unix.Seek(fd, off, whence)
		return err
	})
	return at, err
}

// bare takes the errno out of what package os returns.
func bare(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

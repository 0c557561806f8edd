package localdir

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/durable"
	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
)

// publishInPlace is the way of a file that has several names: a rename would
// leave the other names with the old content, so the content is copied into
// the file that is there.
//
// This is the exception to W1: meanwhile a reader of the store sees some of
// both. What makes it safe is that the staging file is the redo record. It is
// durable, under its name, before the first byte of the old content is gone,
// and the new content is durable when Complete returns, both whatever
// f.Durability says. Complete can be called again, after an error as after a
// crash, and copies all of it again. So that this is true up to the moment in
// which the caller has forgotten the session, the staging file is left to the
// caller, who removes it then (Published.InPlace).
//
// Room for the content is reserved at first: a full disk is found out before
// anything has changed.
func (u *upload) publishInPlace(parent *dir, name string, f store.Final) (store.Published, error) {
	dst, err := openInPlace(parent, name)
	if err != nil {
		return store.Published{}, err
	}
	defer dst.Close()
	src := f.Staged.Fd()
	if err := durable.SyncFile(src); err != nil {
		return store.Published{}, fmt.Errorf("sync staging file: %w", err)
	}
	if err := syncStagedName(f.Staged); err != nil {
		return store.Published{}, err
	}
	staged, err := u.verify(f)
	if err != nil {
		return store.Published{}, err
	}
	if err := eachExtent(src, f.Size, reserve(dst)); err != nil {
		return store.Published{}, fmt.Errorf("reserve room: %w", err)
	}
	if err := replaceContent(dst, src, staged, f.Size); err != nil {
		return store.Published{}, fmt.Errorf("replace the content in place, begun but not finished: %w", err)
	}
	if err := durable.SyncFile(dst); err != nil {
		return store.Published{}, fmt.Errorf("sync the content replaced in place: %w", err)
	}
	a, err := fdnode.Node{F: dst}.Stat()
	return store.Published{Attr: a, InPlace: true}, err
}

// openInPlace opens the file to write to, as OpenFile opens one to read.
func openInPlace(parent *dir, name string) (*os.File, error) {
	n, a, err := parent.open(name)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	if !a.IsRegular() {
		return nil, unix.ESTALE // it was, a moment ago
	}
	return fdnode.Reopen(n.F, unix.O_RDWR)
}

func syncStagedName(s store.Staged) error {
	d, err := readDir(s.Dir())
	if err != nil {
		return fmt.Errorf("staging directory: %w", err)
	}
	defer d.Close()
	if err := durable.SyncDir(d); err != nil {
		return fmt.Errorf("sync staging directory: %w", err)
	}
	return nil
}

// replaceContent makes dst the same as src: bytes, holes, size, owner, mode,
// extended attributes, and times.
func replaceContent(dst, src *os.File, staged store.Attr, size int64) error {
	err := eachExtent(src, size, func(off, n int64, hole bool) error {
		if hole {
			return punch(dst, off, n)
		}
		return copyRange(dst, src, off, n)
	})
	if err != nil {
		return err
	}
	if err := fdnode.With(dst, func(fd int) error { return unix.Ftruncate(fd, size) }); err != nil {
		return err
	}
	if err := fdnode.Inherit(dst, fdnode.Node{F: src}); err != nil {
		return err
	}
	_, err = fdnode.Node{F: dst}.SetAttr(store.Change{Atime: &staged.Atime, Mtime: &staged.Mtime})
	return err
}

// eachExtent calls fn for the runs of data and the holes of src in turn, up to
// size. Where a filesystem knows no holes all is data.
func eachExtent(src *os.File, size int64, fn func(off, n int64, hole bool) error) error {
	for off := int64(0); off < size; {
		data, err := seek(src, off, unix.SEEK_DATA)
		switch {
		case err == unix.ENXIO: // a hole to the end
			data = size
		case err == unix.EINVAL:
			return fn(off, size-off, false)
		case err != nil:
			return err
		}
		data = min(data, size)
		if data > off {
			if err := fn(off, data-off, true); err != nil {
				return err
			}
		}
		if data == size {
			return nil
		}
		hole, err := seek(src, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		hole = min(hole, size)
		if err := fn(data, hole-data, false); err != nil {
			return err
		}
		off = hole
	}
	return nil
}

func seek(f *os.File, off int64, whence int) (at int64, err error) {
	err = fdnode.With(f, func(fd int) (err error) {
		at, err = unix.Seek(fd, off, whence)
		return err
	})
	return at, err
}

// reserve returns a function for eachExtent that makes sure of the room for
// the data, beyond the end of dst too, without changing what is read from it.
func reserve(dst *os.File) func(off, n int64, hole bool) error {
	return func(off, n int64, hole bool) error {
		if hole {
			return nil
		}
		err := fdnode.With(dst, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n) })
		if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
			return nil // no way to know beforehand
		}
		return err
	}
}

// punch makes [off, off+n) of dst a hole, or zeros where there are no holes.
func punch(dst *os.File, off, n int64) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	err := fdnode.With(dst, func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return err
	}
	zeros := make([]byte, min(n, copyBuffer))
	for n > 0 {
		written, err := dst.WriteAt(zeros[:min(n, copyBuffer)], off)
		if err != nil {
			return bare(err)
		}
		off, n = off+int64(written), n-int64(written)
	}
	return nil
}

// copyBuffer is the piece in which bytes are copied where the kernel does not.
const copyBuffer = 256 << 10

// copyRange copies [off, off+n) of src to the same place in dst, in the kernel
// if it can: sharing blocks where the filesystem does that.
func copyRange(dst, src *os.File, off, n int64) error {
	for n > 0 {
		var copied int
		err := fdnode.With(src, func(from int) error {
			return fdnode.With(dst, func(to int) (err error) {
				rOff, wOff := off, off
				copied, err = unix.CopyFileRange(from, &rOff, to, &wOff, int(min(n, 1<<30)), 0)
				return err
			})
		})
		if err != nil || copied == 0 {
			return copyByHand(dst, src, off, n) // tells what is wrong, if anything is
		}
		off, n = off+int64(copied), n-int64(copied)
	}
	return nil
}

func copyByHand(dst, src *os.File, off, n int64) error {
	buf := make([]byte, min(n, copyBuffer))
	for n > 0 {
		read, err := src.ReadAt(buf[:min(n, copyBuffer)], off)
		if read == 0 {
			if err == nil || err == io.EOF {
				return unix.EIO // shorter than it was
			}
			return bare(err)
		}
		if _, err := dst.WriteAt(buf[:read], off); err != nil {
			return bare(err)
		}
		off, n = off+int64(read), n-int64(read)
	}
	return nil
}

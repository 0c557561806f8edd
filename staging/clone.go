package staging

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
)

// copyStep is the most bytes that one copy_file_range is asked for. The call
// cannot be interrupted half way, and a larger one gains nothing.
const copyStep = 64 << 20

// CloneFrom makes the file's content that of the first size bytes of src, and
// its size size; what src lacks of it is a hole. It shares src's blocks where
// the filesystem can (FICLONE), else has the kernel copy them, else copies
// them itself; holes stay holes. src may lie on another filesystem. Its own
// position may move. The sums of the parts are unknown afterwards. On an error
// the content is undefined.
func (f *File) CloneFrom(src *os.File, size int64) error {
	if size < 0 {
		return f.sys.wrap(OpClone, unix.EINVAL)
	}
	conn, err := src.SyscallConn()
	if err != nil {
		return err
	}
	return f.alone(everything, func() error {
		var failed error
		// Control keeps src from being closed meanwhile.
		if conn.Control(func(fd uintptr) { failed = f.cloneFrom(int(fd), size) }) != nil {
			return &os.PathError{Op: string(OpClone), Path: src.Name(), Err: os.ErrClosed}
		}
		return failed
	})
}

func (f *File) cloneFrom(src int, size int64) error {
	err := f.sys.ficlone(f.fd, src)
	if err == nil {
		return f.sys.ftruncate(f.fd, size)
	}
	if !unsupported(err) {
		return err
	}
	st, err := f.sys.fstat(src)
	if err != nil {
		return err
	}
	// From a hole of the right size, only data needs to be copied.
	if err := f.sys.ftruncate(f.fd, 0); err != nil {
		return err
	}
	if err := f.sys.ftruncate(f.fd, size); err != nil {
		return err
	}
	copyData := f.copyInKernel
	for at, end := int64(0), min(size, st.Size); at < end; {
		data, err := f.nextData(src, at, end)
		if err != nil {
			return err
		}
		err = copyData(src, data)
		if unsupported(err) {
			// The start may have been copied; to copy it again is harmless.
			copyData = f.copyThroughMemory
			err = copyData(src, data)
		}
		if err != nil {
			return err
		}
		at = data.End
	}
	return nil
}

// nextData returns the first run of data in src from at on, cut at end; an
// empty one at end if there is none. Where the filesystem does not tell holes,
// all is data.
func (f *File) nextData(src int, at, end int64) (chunker.Extent, error) {
	off, err := f.sys.seek(src, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return chunker.Extent{Off: end, End: end}, nil
	case unsupported(err):
		return chunker.Extent{Off: at, End: end}, nil
	case err != nil:
		return chunker.Extent{}, err
	case off >= end:
		return chunker.Extent{Off: end, End: end}, nil
	}
	hole, err := f.sys.seek(src, off, unix.SEEK_HOLE)
	switch {
	case errors.Is(err, unix.ENXIO), unsupported(err):
		hole = end
	case err != nil:
		return chunker.Extent{}, err
	}
	return chunker.Extent{Off: off, End: min(hole, end)}, nil
}

func (f *File) copyInKernel(src int, e chunker.Extent) error {
	for !e.Empty() {
		n, err := f.sys.copyRange(f.fd, src, e.Off, int(min(e.Len(), copyStep)))
		if err != nil {
			return err
		}
		if n == 0 {
			// The end of src, or a filesystem whose files have content
			// without having a size: reading tells which.
			return f.copyThroughMemory(src, e)
		}
		e.Off += int64(n)
	}
	return nil
}

func (f *File) copyThroughMemory(src int, e chunker.Extent) error {
	buf := borrow()
	defer giveBack(buf)
	for !e.Empty() {
		p := (*buf)[:min(e.Len(), int64(len(*buf)))]
		n, err := f.sys.pread(src, p, e.Off)
		if err != nil {
			return err
		}
		if n == 0 {
			return f.sys.wrap(OpRead, io.ErrUnexpectedEOF)
		}
		if err := f.sys.pwrite(f.fd, p[:n], e.Off); err != nil {
			return err
		}
		e.Off += int64(n)
	}
	return nil
}

package staging

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
)

// Truncate sets the size in bytes. When the file grows, the new bytes are a
// hole.
func (f *File) Truncate(size int64) error {
	if size < 0 {
		return f.sys.wrap(OpTruncate, unix.EINVAL)
	}
	return f.alone(chunker.Extent{Off: size, End: math.MaxInt64}, func() error {
		return f.sys.ftruncate(f.fd, size)
	})
}

// Punch makes the bytes of e a hole, which reads as zero and takes no space.
// The size stays. Where the filesystem knows no holes, zeros are written.
func (f *File) Punch(e chunker.Extent) error {
	if e.Empty() || e.Off < 0 {
		return f.sys.wrap(OpPunch, unix.EINVAL)
	}
	return f.alone(e, func() error { return f.punch(e) })
}

func (f *File) punch(e chunker.Extent) error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	err := f.sys.fallocate(OpPunch, f.fd, mode, e.Off, e.Len())
	if unsupported(err) {
		return f.writeZeros(e)
	}
	return err
}

// Zero makes the bytes of e zero and keeps space allocated for them where the
// filesystem can. The size stays: bytes of e behind the end are not added.
func (f *File) Zero(e chunker.Extent) error {
	if e.Empty() || e.Off < 0 {
		return f.sys.wrap(OpZero, unix.EINVAL)
	}
	return f.alone(e, func() error {
		const mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
		err := f.sys.fallocate(OpZero, f.fd, mode, e.Off, e.Len())
		if unsupported(err) {
			return f.punch(e)
		}
		return err
	})
}

// Allocate takes space on the disk for the bytes of e, so that writing them
// cannot fail for lack of it; their content stays. The file grows to the end
// of e unless keepSize is set. Where the filesystem cannot, it is EOPNOTSUPP:
// to write zeros instead would promise what a copying filesystem does not keep.
func (f *File) Allocate(e chunker.Extent, keepSize bool) error {
	if e.Empty() || e.Off < 0 {
		return f.sys.wrap(OpAllocate, unix.EINVAL)
	}
	var mode uint32
	if keepSize {
		mode = unix.FALLOC_FL_KEEP_SIZE
	}
	return f.alone(chunker.Extent{}, func() error {
		return f.sys.fallocate(OpAllocate, f.fd, mode, e.Off, e.Len())
	})
}

// unsupported reports whether err says that this kernel or filesystem does not
// have the call, or not for these files, so that another way must be taken.
func unsupported(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.EPERM, unix.ETXTBSY:
		return true
	}
	return false
}

// writeZeros writes zeros over the bytes of e below the size.
func (f *File) writeZeros(e chunker.Extent) error {
	st, err := f.sys.fstat(f.fd)
	if err != nil {
		return err
	}
	buf := borrow()
	defer giveBack(buf)
	clear(*buf)
	for e = e.Intersect(chunker.Extent{Off: 0, End: st.Size}); !e.Empty(); {
		n := min(e.Len(), int64(len(*buf)))
		if err := f.sys.pwrite(f.fd, (*buf)[:n], e.Off); err != nil {
			return err
		}
		e.Off += n
	}
	return nil
}

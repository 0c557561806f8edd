package fdnode

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// Values and name lists are at most 64 KiB (XATTR_SIZE_MAX, XATTR_LIST_MAX);
// most fit the first buffer.
var bufferSizes = [...]int{512, 4 << 10, 64 << 10}

// GetXattr returns the value of an extended attribute; ENODATA if there is
// none, EOPNOTSUPP where the filesystem or the type of file has none.
func (n Node) GetXattr(name string) ([]byte, error) {
	return n.grow(func(fd int, buf []byte) (int, error) {
		size, err := unix.Fgetxattr(fd, name, buf)
		if err == unix.EBADF { // O_PATH
			size, err = unix.Getxattr(entryPath(fd), name, buf)
		}
		return size, err
	})
}

// ListXattr returns the names of the extended attributes.
func (n Node) ListXattr() ([]string, error) {
	list, err := n.grow(func(fd int, buf []byte) (int, error) {
		size, err := unix.Flistxattr(fd, buf)
		if err == unix.EBADF {
			size, err = unix.Listxattr(entryPath(fd), buf)
		}
		return size, err
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range bytes.SplitSeq(list, []byte{0}) {
		if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names, nil
}

// grow calls get with larger buffers until what it wants to say fits, and
// returns a copy that is not nil. What grew between two calls needs no
// special care: there is a largest size.
func (n Node) grow(get func(fd int, buf []byte) (int, error)) (value []byte, err error) {
	err = With(n.F, func(fd int) error {
		for _, size := range bufferSizes {
			buf := make([]byte, size)
			var length int
			err := Retry(func() (err error) {
				length, err = get(fd, buf)
				return err
			})
			if err == unix.ERANGE {
				continue
			}
			if err != nil {
				return err
			}
			value = buf[:length:length]
			return nil
		}
		return unix.E2BIG
	})
	return value, err
}

// SetXattr sets an extended attribute; flags are XATTR_CREATE (EEXIST if it is
// there) and XATTR_REPLACE (ENODATA if it is not).
func (n Node) SetXattr(name string, value []byte, flags int) error {
	return With(n.F, func(fd int) error {
		err := unix.Fsetxattr(fd, name, value, flags)
		if err == unix.EBADF {
			err = unix.Setxattr(entryPath(fd), name, value, flags)
		}
		return err
	})
}

// RemoveXattr removes an extended attribute; ENODATA if there is none.
func (n Node) RemoveXattr(name string) error {
	return With(n.F, func(fd int) error {
		err := unix.Fremovexattr(fd, name)
		if err == unix.EBADF {
			err = unix.Removexattr(entryPath(fd), name)
		}
		return err
	})
}

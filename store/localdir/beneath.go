package localdir

import (
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/fdnode"
)

// resolve are the conditions under which every name is looked up. With
// O_PATH|O_NOFOLLOW a symlink as the last component is opened itself.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS |
	unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// attempts bounds the repetitions of openat2 after EAGAIN, which says that a
// rename elsewhere kept the kernel from being sure that it stayed beneath.
const attempts = 100

// openat2 opens a relative path beneath the directory at.
func openat2(at *os.File, name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
	var opened int
	err := fdnode.With(at, func(fd int) (err error) {
		for range attempts {
			opened, err = unix.Openat2(fd, name, &how)
			if err != unix.EAGAIN {
				break
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), path.Base(name)), nil
}

// reopenDir gives another O_PATH descriptor of the directory f, and readDir
// one that can be listed and synced.
func reopenDir(f *os.File) (*os.File, error) {
	return openDot(f, unix.O_PATH)
}

func readDir(f *os.File) (*os.File, error) {
	return openDot(f, unix.O_RDONLY)
}

func openDot(f *os.File, flags int) (*os.File, error) {
	var opened int
	err := fdnode.With(f, func(fd int) (err error) {
		opened, err = unix.Openat(fd, ".", flags|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), f.Name()), nil
}

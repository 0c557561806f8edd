// Package fdnode gives attributes and extended attributes to an open
// descriptor: it is the part of the store contract (store.Node) that published
// files and staging files have in common.
//
// # Descriptors, not paths
//
// A path says where something was when somebody looked; a descriptor is the
// thing itself, wherever it is renamed to and whatever takes its name. All
// calls here work on a descriptor, also one opened with O_PATH, which is the
// only kind that a symlink, a device or an unreadable file can be opened with.
//
// Some system calls refuse O_PATH descriptors (EBADF) or exist for paths only.
// They are made through the process's own /proc/self/fd, whose entries lead to
// the open file itself without looking up a name. For a symlink that is the
// link, never its target. A chroot without /proc cannot run wholefs.
//
// # Errors
//
// Errors are bare errnos of the system call that failed; EBADF also stands for
// a descriptor that was closed. Calls that a signal interrupts are repeated.
package fdnode

import (
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
)

// Node is an open file of whatever type. Its methods are those of store.Node,
// and are safe for concurrent use, also with Close: a call either works on the
// file or gives EBADF.
type Node struct{ F *os.File }

var _ store.Node = Node{}

// Close closes the descriptor. A second Close gives EBADF.
func (n Node) Close() error {
	if n.F.Close() != nil {
		return unix.EBADF
	}
	return nil
}

// With calls fn with the descriptor of f, which stays open meanwhile, and
// again as long as fn returns EINTR. It gives EBADF if f is closed.
func With(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return unix.EBADF
	}
	var result error
	if err := conn.Control(func(fd uintptr) {
		result = Retry(func() error { return fn(int(fd)) })
	}); err != nil {
		return unix.EBADF
	}
	return result
}

// Retry calls fn until it returns something other than EINTR.
func Retry(fn func() error) error {
	for {
		if err := fn(); err != unix.EINTR {
			return err
		}
	}
}

// Reopen opens the file behind f once more, as open(2) would with flags: the
// way from an O_PATH descriptor to one that can be read or written. O_CLOEXEC
// is added. Permissions are checked anew. A symlink gives ELOOP.
func Reopen(f *os.File, flags int) (*os.File, error) {
	proc, err := procFd()
	if err != nil {
		return nil, err
	}
	var opened int
	err = With(f, func(fd int) (err error) {
		opened, err = unix.Openat(proc, strconv.Itoa(fd), flags|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), f.Name()), nil
}

// procFd returns a descriptor of /proc/self/fd that is opened once and kept.
// Entries of it are names like "7".
var procFd = sync.OnceValues(func() (int, error) {
	var fd int
	err := Retry(func() (err error) {
		fd, err = unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
})

// Entry returns the descriptor of /proc/self/fd and the name in it that leads
// to fd, for *at calls that take no descriptor. The name is good while fd is
// open: call it inside With.
func Entry(fd int) (dirfd int, name string, err error) {
	dirfd, err = procFd()
	return dirfd, strconv.Itoa(fd), err
}

// entryPath is Entry for calls that take only a path.
func entryPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

package localdir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
)

// Options is how a directory is served. There is nothing to choose yet.
type Options struct{}

// Open opens the directory at path as a store and makes its state directory,
// unless it is there. It refuses, with an error in one line that says why and
// what to do, and that carries the errno where there is one:
//
//   - what is missing (ENOENT), not a directory (ENOTDIR), not readable or not
//     writable (EACCES), or on a read-only filesystem (EROFS);
//   - a directory beneath which something else is mounted (EXDEV);
//   - a state directory that is something else, or belongs to somebody else
//     than us or the owner of the directory (EPERM);
//   - a kernel without openat2(2) (ENOSYS).
func Open(path string, o Options) (*Store, error) {
	s, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	return s, nil
}

func open(path string) (*Store, error) {
	top, err := openTop(path)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	s := &Store{}
	if s.path, err = pathOf(top); err != nil {
		return nil, err
	}
	a, err := fdnode.Node{F: top}.Stat()
	if err != nil {
		return nil, err
	}
	s.id = a.ID
	if err := checkWritable(top); err != nil {
		return nil, err
	}
	if err := refuseMounts(top, s.path); err != nil {
		return nil, err
	}
	if s.state, err = makeState(top, a); err != nil {
		return nil, err
	}
	if s.root, err = reopenDir(top); err != nil {
		return nil, err
	}
	return s, nil
}

// openTop opens the directory as it was named: the one place where a path of
// the machine is resolved, symlinks and all.
func openTop(path string) (*os.File, error) {
	var fd int
	err := fdnode.Retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	switch err {
	case nil:
		return os.NewFile(uintptr(fd), path), nil
	case unix.ENOENT:
		return nil, fmt.Errorf("there is no such directory, make it first: %w", err)
	case unix.ENOTDIR:
		return nil, fmt.Errorf("a store has to be a directory: %w", err)
	case unix.EACCES:
		return nil, fmt.Errorf("the directory cannot be read by user %d: %w", os.Geteuid(), err)
	}
	return nil, err
}

// pathOf asks the kernel where the directory is.
func pathOf(f *os.File) (path string, err error) {
	err = fdnode.With(f, func(fd int) error {
		path, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("/proc has to be mounted: %w", err)
	}
	return path, nil
}

func checkWritable(top *os.File) error {
	return fdnode.With(top, func(fd int) error {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return err
		}
		if st.Flags&unix.ST_RDONLY != 0 {
			return fmt.Errorf("the filesystem is read-only: %w", unix.EROFS)
		}
		if err := unix.Faccessat(fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("the directory cannot be written by user %d: %w", os.Geteuid(), err)
		}
		return nil
	})
}

// makeState makes the state directory and returns its identity. owner is who
// else may own it.
func makeState(top *os.File, topAttr store.Attr) (store.ID, error) {
	err := fdnode.With(top, func(fd int) error { return unix.Mkdirat(fd, StateDirName, 0o700) })
	if err != nil && err != unix.EEXIST {
		return store.ID{}, fmt.Errorf("%s cannot be made: %w", StateDirName, err)
	}
	f, err := openat2(top, StateDirName, unix.O_PATH|unix.O_DIRECTORY)
	switch {
	case err == unix.ENOSYS:
		return store.ID{}, fmt.Errorf("wholefs needs Linux 5.6 or newer, for openat2: %w", err)
	case err == unix.ELOOP || err == unix.ENOTDIR:
		return store.ID{}, fmt.Errorf("%s is reserved for a directory of wholefs, move it away: %w", StateDirName, err)
	case err != nil:
		return store.ID{}, fmt.Errorf("%s: %w", StateDirName, err)
	}
	defer f.Close()
	n := fdnode.Node{F: f}
	a, err := n.Stat()
	if err != nil {
		return store.ID{}, err
	}
	// Who owns the state directory can exchange what is about to be published.
	if a.UID != uint32(os.Geteuid()) && a.UID != topAttr.UID {
		return store.ID{}, fmt.Errorf("%s belongs to user %d, who could exchange unfinished files; remove it or give it to user %d: %w",
			StateDirName, a.UID, os.Geteuid(), unix.EPERM)
	}
	if a.Mode&0o7777 != 0o700 {
		mode := uint32(0o700)
		if a, err = n.SetAttr(store.Change{Mode: &mode}); err != nil && !errors.Is(err, unix.EPERM) {
			return store.ID{}, fmt.Errorf("%s: %w", StateDirName, err)
		}
	}
	return a.ID, nil
}

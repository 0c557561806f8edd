package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// statDeadline is how long a mountpoint may take to answer before it counts
// as hung.
const statDeadline = 10 * time.Second

// withDeadline runs do and gives up waiting for it at the deadline. What hangs in
// the kernel cannot be called back: its goroutine stays until it answers.
func withDeadline(d time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("no answer for %v: %w", d, os.ErrDeadlineExceeded)
	}
}

// statFor stats path with a deadline. It asks the filesystem first: a stat
// alone may be answered from the kernel's memory for a while after the daemon
// of a mount has died.
func statFor(path string, d time.Duration) (info os.FileInfo, err error) {
	type answer struct {
		info os.FileInfo
		err  error
	}
	done := make(chan answer, 1)
	err = withDeadline(d, func() error {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); isStale(err) {
			done <- answer{nil, err}
			return nil
		}
		info, err := os.Stat(path)
		done <- answer{info, err}
		return nil
	})
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	a := <-done
	return a.info, a.err
}

// checkMountpoint makes sure that something can be mounted on path, and
// returns path without symlinks. A mount that a dead daemon left there is
// cleared; cleared says so.
func checkMountpoint(path string) (real string, cleared bool, err error) {
	at, err := plainPath(path)
	if err != nil {
		return "", false, err
	}
	info, err := statFor(at, statDeadline)
	for tries := 0; isStale(err) && tries < 16; tries++ { // stale mounts may be stacked
		if err := detach(at); err != nil {
			return "", false, fail("", "%s: a dead mount lies there and cannot be removed: %w", path, err)
		}
		cleared = true
		info, err = statFor(at, statDeadline)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", cleared, fail("make the directory first", "mountpoint %s does not exist", path)
	case err != nil:
		return "", cleared, fail("", "mountpoint %s: %w", path, pathCause(err))
	case !info.IsDir():
		return "", cleared, fail("choose an empty directory", "mountpoint %s is not a directory", path)
	}
	if at, err = filepath.EvalSymlinks(at); err != nil {
		return "", cleared, err
	}
	mounts, err := readMounts()
	if err != nil {
		return "", cleared, err
	}
	if m, ok := mountAt(mounts, at); ok && m.fsType == fsType {
		return "", cleared, fail("wholefs umount "+path+" unmounts it", "%s is mounted already, from %s", path, m.source)
	}
	return at, cleared, nil
}

// checkEmpty refuses a mountpoint that holds files: they would be out of
// reach behind the mount.
func checkEmpty(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fail("", "mountpoint %s: %w", path, pathCause(err))
	}
	defer d.Close()
	names, err := d.Readdirnames(1)
	if len(names) > 0 {
		return fail("choose an empty directory", "mountpoint %s is not empty", path)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fail("", "mountpoint %s: %w", path, pathCause(err))
	}
	return nil
}

// checkApart refuses a mountpoint and a directory that lie in each other: the
// daemon would wait for itself. what names the directory.
func checkApart(mountpoint, what, dir string) error {
	if dir == "" {
		return nil
	}
	switch in, err := liesIn(mountpoint, dir); {
	case err != nil:
		return err
	case in:
		same, err := liesIn(dir, mountpoint)
		if err == nil && same {
			return usage("choose another mountpoint", "%s is both the %s and the mountpoint", mountpoint, what)
		}
		return usage("choose a mountpoint outside of it", "mountpoint %s lies inside the %s %s", mountpoint, what, dir)
	}
	if in, err := liesIn(dir, mountpoint); err != nil {
		return err
	} else if in {
		return usage("choose another mountpoint", "the %s %s lies inside the mountpoint %s", what, dir, mountpoint)
	}
	return nil
}

// liesIn reports whether inner is outer or lies beneath it, by the identity of
// its parents: other names of a directory, by bind mounts, are recognised.
// inner need not exist; its first parent that does counts.
func liesIn(inner, outer string) (bool, error) {
	var want unix.Stat_t
	if err := unix.Stat(outer, &want); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		}
		return false, &os.PathError{Op: "stat", Path: outer, Err: err}
	}
	at, err := existing(inner)
	if err != nil {
		return false, err
	}
	for ; ; at = filepath.Dir(at) {
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil {
			return false, &os.PathError{Op: "stat", Path: at, Err: err}
		}
		if st.Dev == want.Dev && st.Ino == want.Ino {
			return true, nil
		}
		if at == "/" {
			return false, nil
		}
	}
}

// existing returns path, or its nearest parent that exists, without symlinks.
func existing(path string) (string, error) {
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return real, nil
		}
		if !errors.Is(err, os.ErrNotExist) || path == "/" {
			return "", err
		}
		path = filepath.Dir(path)
	}
}

// checkStore refuses what cannot be a store before anything is made in it.
func checkStore(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fail("make the directory first", "store %s does not exist", path)
	case err != nil:
		return fail("", "store %s: %w", path, pathCause(err))
	case !info.IsDir():
		return fail("a store is a directory", "store %s is not a directory", path)
	}
	return nil
}

// detach takes a mount out of sight whatever uses it.
func detach(mountpoint string) error {
	err := unix.Unmount(mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, syscall.EPERM) {
		return detachByHelper(mountpoint)
	}
	return err
}

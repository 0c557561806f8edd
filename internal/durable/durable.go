// Package durable is the one place that orders bytes, names and the disk:
// fsync of a file, rename, fsync of a directory. Nothing else in wholefs calls
// these, so that what a publish does before what can be read here and checked
// by a test.
//
// # What has to happen in which order
//
// A file that must survive a power loss under its name needs three steps, and
// each is useless without the one before it:
//
//	SyncFile(staged)                       the bytes are on the disk
//	Rename(staging, tmp, parent, name, 0)  the name points at them
//	SyncDir(parent), SyncDir(staging)      the names are on the disk
//
// Renaming before the file is synced may leave, after a power loss, the name
// with an empty file behind it. Leaving out the last step may bring back the
// old file: whole, but not the one that close() promised.
//
// # What an error means
//
// A failed Rename changed nothing. A failed SyncFile may have thrown the dirty
// pages away: the kernel reports a write error once and then forgets it, so a
// second SyncFile that succeeds proves nothing, and the caller must treat the
// file as lost. After a failed SyncDir the change is visible, but may not be
// on the disk.
//
// # Seeing the order
//
// Tests install a function with Observe and see each Step before it is done;
// an error that the function returns is the outcome of the step, which is then
// not done. Recorder is such a function that keeps a list.
package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Rename moves oldName in oldDir to newName in newDir, in one step that no
// observer sees half of. flags are those of renameat2(2): RENAME_NOREPLACE,
// RENAME_EXCHANGE. Descriptors opened with O_PATH will do. The error is a bare
// errno: EEXIST under RENAME_NOREPLACE, EXDEV where the two directories are
// not on one mount of one filesystem, and the others of rename(2).
//
// Where both names already are the same file rename(2) does nothing and
// reports success: both names are then still there.
func Rename(oldDir *os.File, oldName string, newDir *os.File, newName string, flags uint) error {
	if err := note(Step{Op: OpRename, File: oldDir.Name(), Name: oldName, To: newDir.Name(), ToName: newName}); err != nil {
		return err
	}
	return with(oldDir, func(oldFd int) error {
		return with(newDir, func(newFd int) error {
			return unix.Renameat2(oldFd, oldName, newFd, newName, flags)
		})
	})
}

// SyncFile waits until the bytes and the attributes of f are on the disk. An
// error is final: see the package documentation. The error is a bare errno.
func SyncFile(f *os.File) error {
	if err := note(Step{Op: OpSyncFile, File: f.Name()}); err != nil {
		return err
	}
	return with(f, unix.Fsync)
}

// SyncDir waits until the entries of d are on the disk. d has to be opened for
// reading; an O_PATH descriptor gives EBADF. Filesystems that cannot sync a
// directory (EINVAL) have nothing to wait for: that is success.
func SyncDir(d *os.File) error {
	if err := note(Step{Op: OpSyncDir, File: d.Name()}); err != nil {
		return err
	}
	err := with(d, unix.Fsync)
	if err == unix.EINVAL {
		return nil
	}
	return err
}

// with runs fn on the descriptor of f, which cannot be closed meanwhile, and
// again when a signal interrupted it. A file that is closed gives EBADF.
func with(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return unix.EBADF
	}
	var result error
	if err := conn.Control(func(fd uintptr) {
		for {
			result = fn(int(fd))
			if !errors.Is(result, unix.EINTR) {
				return
			}
		}
	}); err != nil {
		return unix.EBADF
	}
	return result
}

package fusefs

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
)

// errnos says what programs are told for errors that carry no errno.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	{context.DeadlineExceeded, syscall.ETIMEDOUT},
	{os.ErrDeadlineExceeded, syscall.ETIMEDOUT},
	{context.Canceled, syscall.ESHUTDOWN}, // only the end of the mount cancels
	{session.ErrInactive, syscall.ESTALE}, // the session ended and left no file
	{iofs.ErrNotExist, syscall.ENOENT},
	{iofs.ErrExist, syscall.EEXIST},
	{iofs.ErrPermission, syscall.EACCES},
	{iofs.ErrInvalid, syscall.EINVAL},
	{iofs.ErrClosed, syscall.EBADF},
}

// maxErrno is the highest number that the kernel takes for an errno.
const maxErrno = 511

// errnoOf returns the errno for err, and whether err said which it is.
func errnoOf(err error) (errno syscall.Errno, known bool) {
	if errors.As(err, &errno) && errno > 0 && errno <= maxErrno {
		if errno == syscall.ENOSYS {
			// To the kernel ENOSYS means that the whole mount lacks the
			// operation, and it never asks again.
			return syscall.EOPNOTSUPP, true
		}
		return errno, true
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno, true
		}
	}
	return syscall.EIO, false
}

// status turns err into the answer to the request op. An error that has no
// errno becomes EIO, and since nobody would learn the cause, it is logged.
func (fs *FS) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno, known := errnoOf(err)
	if !known {
		fs.log.Error("request failed", "op", op, "err", err)
	}
	return fuse.Status(errno)
}

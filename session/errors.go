package session

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrInactive says that a session holds nothing that the store does not have:
// the caller reads from the store instead.
var ErrInactive = errors.New("session: nothing unpublished")

// Error is a failure of one session. Errno is what a program is told; Err is
// the cause for people.
type Error struct {
	Op    string // what was tried: write, publish, hold ...
	Path  string
	Errno syscall.Errno
	Err   error
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Errno)
	}
	return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err)
}

// Unwrap yields the errno and the cause, for errors.Is and errors.As.
func (e *Error) Unwrap() []error { return []error{e.Errno, e.Err} }

// errnoOf returns the errno in err's chain, or EIO.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return syscall.EIO
}

func newError(op, path string, errno syscall.Errno, format string, args ...any) *Error {
	return &Error{Op: op, Path: path, Errno: errno, Err: fmt.Errorf(format, args...)}
}

func wrapError(op, path string, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	return &Error{Op: op, Path: path, Errno: errnoOf(err), Err: err}
}

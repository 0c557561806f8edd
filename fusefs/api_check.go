package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// What go-fuse's default answers for FS, ENOSYS if not said otherwise, and
// why. A test compares this list with the methods that FS does not have.
//
//	Access         default_permissions: the kernel checks by itself
//	GetLk          locks are the kernel's: one mount sees all programs, and
//	SetLk          EnableLocks is not asked for, so these never come
//	SetLkw
//	Init           the device loop does without go-fuse's Server
//	OnUnmount      the device loop knows when the mount ends
//	SetDebug       logging is slog's
//	Writev         go-fuse then calls Write
var defaulted = []string{
	"Access", "GetLk", "SetLk", "SetLkw", "Init", "OnUnmount", "SetDebug", "Writev",
}

// Ioctl refuses: files here have no commands. ENOSYS would say the same for
// the whole mount, but programs understand ENOTTY.
func (fs *FS) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	return fuse.Status(syscall.ENOTTY)
}

// Tmpfile refuses, so that programs fall back to a named temporary file and a
// rename: a file that is given its name later would have to be published by
// linkat(2), which has nobody to answer for a failure.
func (fs *FS) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}

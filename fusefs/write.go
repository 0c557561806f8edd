package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/session"
)

// writer returns the open file with the number fh and its writer; EBADF if it
// was not opened for writing.
func (fs *FS) writer(fh uint64) (*handle, fuse.Status) {
	h := fs.handle(fh)
	if h == nil || h.writer == nil {
		return nil, fuse.EBADF
	}
	return h, fuse.OK
}

// beginWrite reserves the range of a WRITE and returns the writer and the
// offset that it stores the bytes at: for one that appends, the end of the
// file. Once it has answered OK the request may be acknowledged; the writer's
// Finish must follow.
func (fs *FS) beginWrite(in *fuse.WriteIn) (w *session.Writer, at int64, status fuse.Status) {
	h, status := fs.writer(in.Fh)
	if !status.Ok() {
		return nil, 0, status
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := fs.killPrivileges(h.node); err != nil {
			return nil, 0, fs.status("write", err)
		}
	}
	var o session.WriteOptions
	if in.WriteFlags&fuse.WRITE_LOCKOWNER != 0 {
		o.Owner = session.Owner(in.LockOwner)
	}
	// Pages of a mapping that are written back lie where they lie.
	o.Append = in.Flags&syscall.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0
	at, err := h.writer.Begin(int64(in.Offset), int64(in.Size), o)
	if err != nil {
		return nil, 0, fs.status("write", err)
	}
	return h.writer, at, fuse.OK
}

// Write answers a WRITE that comes through go-fuse. Those of a real mount do
// not: the device loop acknowledges them before it stores their bytes.
func (fs *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if int(in.Size) != len(data) {
		return 0, fuse.EINVAL
	}
	w, at, status := fs.beginWrite(in)
	if !status.Ok() {
		return 0, status
	}
	w.Finish(at, data)
	fs.o.Observer.Written(len(data))
	if in.Flags&(unix.O_SYNC|unix.O_DSYNC) != 0 {
		if err := w.Sync(fs.ctx); err != nil {
			return 0, fs.status("write", err)
		}
	}
	return in.Size, fuse.OK
}

// Fsync makes durable what was written through a handle, in staging if it is
// not published yet. A handle that only reads has nothing to add: what the
// store shows is as durable as the mount was told to make it.
func (fs *FS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := fs.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	if h.writer == nil {
		return fuse.OK
	}
	return fs.status("fsync", h.writer.Sync(fs.ctx))
}

// Fallocate does fallocate(2), in the modes that the session knows.
func (fs *FS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, status := fs.writer(in.Fh)
	if !status.Ok() {
		return status
	}
	if in.Length == 0 || int64(in.Offset) < 0 || int64(in.Length) < 0 {
		return fuse.EINVAL
	}
	if int64(in.Offset)+int64(in.Length) < 0 {
		return fuse.Status(syscall.EFBIG)
	}
	if err := fs.killByOthers(h.node, in.Caller); err != nil {
		return fs.status("fallocate", err)
	}
	return fs.status("fallocate", h.writer.Allocate(fs.ctx, in.Mode, int64(in.Offset), int64(in.Length)))
}

// killByOthers clears privileges for requests that change content and do not
// say whether to: unless root sent them, as with CAP_FSETID on a local disk.
func (fs *FS) killByOthers(n *node, c fuse.Caller) error {
	if c.Uid == 0 {
		return nil
	}
	return fs.killPrivileges(n)
}

const (
	copyStep = 1 << 20
	// copyMost is what one request copies at most: it must not keep its caller
	// waiting for long, who asks again for the rest.
	copyMost = 64 << 20
)

// CopyFileRange copies between two files of the mount without the bytes going
// through the program.
func (fs *FS) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from := fs.handle(in.FhIn)
	to, status := fs.writer(in.FhOut)
	if from == nil || !status.Ok() {
		return 0, fuse.EBADF
	}
	if in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	if err := fs.killByOthers(to.node, in.Caller); err != nil {
		return 0, fs.status("copy_file_range", err)
	}
	left := int64(min(in.Len, copyMost))
	buf := make([]byte, min(left, copyStep))
	src, dst, copied := int64(in.OffIn), int64(in.OffOut), int64(0)
	for left > 0 {
		n, err := fs.readAt(from.node, buf[:min(left, copyStep)], src)
		if err == nil && n > 0 {
			_, err = to.writer.Begin(dst, int64(n), session.WriteOptions{})
		}
		if err != nil && copied == 0 {
			return 0, fs.status("copy_file_range", err)
		}
		if err != nil || n == 0 {
			break
		}
		to.writer.Finish(dst, buf[:n])
		fs.o.Observer.Written(n)
		src, dst, copied, left = src+int64(n), dst+int64(n), copied+int64(n), left-int64(n)
	}
	return uint32(copied), fuse.OK
}

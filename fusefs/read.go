package fusefs

import (
	"errors"
	"io"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// content is where the bytes of a file are: a session, or a published file.
type content interface {
	io.ReaderAt
	SeekData(off int64) (int64, error)
	SeekHole(off int64) (int64, error)
}

var (
	_ content = (*session.Session)(nil)
	_ content = store.File(nil)
)

// onContent calls f with the newest content of n: that of its session while
// that is active, else what is published.
func (fs *FS) onContent(n *node, f func(content) error) error {
	if !n.isRegular() {
		return syscall.EINVAL
	}
	if s := fs.sessionOf(n); s != nil {
		if err := f(s); !errors.Is(err, session.ErrInactive) {
			return err
		}
	}
	file, err := fs.openFile(n)
	if err != nil {
		return err
	}
	defer file.release(n)
	return f(file.open)
}

// readAt reads into dst from n at off. Fewer bytes than asked for mean the end
// of the file.
func (fs *FS) readAt(n *node, dst []byte, off int64) (int, error) {
	got := 0
	err := fs.onContent(n, func(c content) (err error) {
		got, err = c.ReadAt(dst, off)
		if err == io.EOF {
			err = nil
		}
		return err
	})
	return got, err
}

// readInto answers a READ into dst, whose length is what was asked for. The
// device loop calls it with the buffer that holds the reply.
func (fs *FS) readInto(in *fuse.ReadIn, dst []byte) (int, fuse.Status) {
	h := fs.handle(in.Fh)
	if h == nil {
		return 0, fuse.EBADF
	}
	n, err := fs.readAt(h.node, dst, int64(in.Offset))
	return n, fs.status("read", err)
}

// Read answers a READ that comes through go-fuse.
func (fs *FS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	buf = buf[:min(len(buf), int(in.Size))]
	n, status := fs.readInto(in, buf)
	if !status.Ok() {
		return nil, status
	}
	fs.o.Observer.Read(n)
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Lseek finds data and holes; the kernel does the other kinds of seeking.
func (fs *FS) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h := fs.handle(in.Fh)
	if h == nil {
		return fuse.EBADF
	}
	err := fs.onContent(h.node, func(c content) error {
		seek := c.SeekData
		switch in.Whence {
		case unix.SEEK_DATA:
		case unix.SEEK_HOLE:
			seek = c.SeekHole
		default:
			return syscall.EINVAL
		}
		at, err := seek(int64(in.Offset))
		out.Offset = uint64(at)
		return err
	})
	return fs.status("lseek", err)
}

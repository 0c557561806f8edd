package staging

import (
	"os"

	"golang.org/x/sys/unix"
)

// Op names a system call of this package, for Hook and in errors.
type Op string

// The system calls that this package makes on staging files and their
// directory.
const (
	OpMkdir     Op = "mkdir"
	OpOpen      Op = "openat"
	OpStat      Op = "fstat"
	OpChmod     Op = "fchmod"
	OpRead      Op = "pread"
	OpWrite     Op = "pwrite"
	OpTruncate  Op = "ftruncate"
	OpAllocate  Op = "fallocate" // allocates space
	OpPunch     Op = "punch"     // fallocate that punches a hole
	OpZero      Op = "zero"      // fallocate that zeroes a range
	OpSeek      Op = "lseek"
	OpSync      Op = "fdatasync"
	OpClone     Op = "ficlone"
	OpCopyRange Op = "copy_file_range"
	OpUnlink    Op = "unlinkat"
	OpReadDir   Op = "readdir"
	OpClose     Op = "close"
)

// Hook lets a test fail exactly one system call. It is asked before each one,
// with the name of the staging file (empty for the directory itself) and the
// number of bytes the call would transfer (0 if it transfers none). An error
// that it returns is returned in place of the call; otherwise the call
// transfers at most as many bytes as it returns. A nil Hook makes every call
// as it is.
//
// A Hook is called from many goroutines at once, outside of any lock.
type Hook func(op Op, name string, n int) (limit int, err error)

// calls is the only way to the kernel: the calls of one file, each asking the
// hook first and repeating itself when a signal interrupts it. (Go's own
// runtime sends itself signals all the time.)
type calls struct {
	hook Hook
	name string
}

// ask consults the hook and cuts n down to what it allows.
func (c calls) ask(op Op, n int) (int, error) {
	if c.hook == nil {
		return n, nil
	}
	limit, err := c.hook(op, c.name, n)
	return min(n, limit), err
}

// transfer makes a call that moves up to n bytes. It returns what was moved,
// which may be less.
func (c calls) transfer(op Op, n int, call func(n int) (int, error)) (int, error) {
	for {
		m, err := c.ask(op, n)
		if err == nil {
			m, err = call(m)
		}
		if err != unix.EINTR {
			return max(m, 0), c.wrap(op, err)
		}
	}
}

// do makes a call that moves no bytes.
func (c calls) do(op Op, call func() error) error {
	_, err := c.transfer(op, 0, func(int) (int, error) { return 0, call() })
	return err
}

// wrap gives err the operation and the name; the errno stays in the chain.
func (c calls) wrap(op Op, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: string(op), Path: c.name, Err: err}
}

// storeStep is the most that one pwrite stores: what cp writes at a time. The
// page cache allocates a folio as large as the write, if it can, and blocks of
// 256 pages and more are, on a virtual machine that reports its free memory,
// those that the host has taken back: storing 2 GiB then cost 3 to 7 s of
// processor time instead of 1.2.
const storeStep = 128 << 10

// pwrite writes all of p at off. A short write is continued, and one that
// writes nothing at all is an error, or it would be repeated for ever.
func (c calls) pwrite(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := c.ask(OpWrite, min(len(p), storeStep))
		if err == nil {
			n, err = unix.Pwrite(fd, p[:n], off)
		}
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return c.wrap(OpWrite, err)
		case n == 0:
			return c.wrap(OpWrite, unix.EIO)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// pread reads up to len(p) bytes at off and continues short reads; it returns
// fewer only at the end of the file or with an error.
func (c calls) pread(fd int, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := c.ask(OpRead, len(p)-done)
		if err == nil {
			n, err = unix.Pread(fd, p[done:done+n], off+int64(done))
		}
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, c.wrap(OpRead, err)
		case n == 0:
			return done, nil
		}
		done += n
	}
	return done, nil
}

func (c calls) openat(dir int, name string, flags int, mode uint32) (int, error) {
	return c.transfer(OpOpen, 0, func(int) (int, error) {
		return unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	})
}

func (c calls) fstat(fd int) (st unix.Stat_t, err error) {
	err = c.do(OpStat, func() error { return unix.Fstat(fd, &st) })
	return st, err
}

func (c calls) fchmod(fd int, mode uint32) error {
	return c.do(OpChmod, func() error { return unix.Fchmod(fd, mode) })
}

func (c calls) ftruncate(fd int, size int64) error {
	return c.do(OpTruncate, func() error { return unix.Ftruncate(fd, size) })
}

func (c calls) fallocate(op Op, fd int, mode uint32, off, n int64) error {
	return c.do(op, func() error { return unix.Fallocate(fd, mode, off, n) })
}

func (c calls) fdatasync(fd int) error {
	return c.do(OpSync, func() error { return unix.Fdatasync(fd) })
}

func (c calls) ficlone(dst, src int) error {
	return c.do(OpClone, func() error { return unix.IoctlFileClone(dst, src) })
}

func (c calls) unlinkat(dir int) error {
	return c.do(OpUnlink, func() error { return unix.Unlinkat(dir, c.name, 0) })
}

// seek is lseek with SEEK_DATA or SEEK_HOLE. It moves the file's own position,
// which nothing in this package uses.
func (c calls) seek(fd int, off int64, whence int) (pos int64, err error) {
	err = c.do(OpSeek, func() (err error) {
		pos, err = unix.Seek(fd, off, whence)
		return err
	})
	return pos, err
}

// copyRange copies up to n bytes at off to the same offset of dst.
func (c calls) copyRange(dst, src int, off int64, n int) (int, error) {
	return c.transfer(OpCopyRange, n, func(n int) (int, error) {
		from, to := off, off
		return unix.CopyFileRange(src, &from, dst, &to, n, 0)
	})
}

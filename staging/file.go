package staging

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
)

// everything is the extent of the longest file there can be.
var everything = chunker.Extent{Off: 0, End: math.MaxInt64}

// File is one staging file. The package documentation describes its
// write-behind. Its methods are safe for concurrent use; offsets and sizes are
// bytes. After Close they return an error that wraps os.ErrClosed.
type File struct {
	dir  *Dir
	sys  calls
	file *os.File
	fd   int

	// storing is held over the pwrite of a flight. Filesystems let one writer
	// at a time into a file, and the others spin in the kernel for their turn:
	// on a small machine that takes the processor from the program that writes.
	storing sync.Mutex

	// syncing is held over fdatasync, and taken before mu. The kernel
	// reports a failed writeback to one caller only; with one Sync at a time
	// the next one finds that error kept in err.
	syncing sync.Mutex

	// mu guards what follows and is never held over a system call.
	mu sync.Mutex
	// changed is broadcast when a flight ends, when the turn passes on, when
	// the file is poisoned, and when a user leaves a file that is closing.
	changed sync.Cond
	flights []flight
	begun   uint64 // flights begun so far; numbers them
	// Those that wait to begin draw a ticket and go in its order.
	tickets, turn uint64
	sums          *chunker.Sums
	err           error // the first failure; sticky
	users         int   // calls that use fd without being in flight
	closing       bool
	closed        chan struct{} // closed when closeErr is set
	closeErr      error
	nameless      bool // the name is removed, or not ours any more
}

// newFile wraps an open descriptor.
func newFile(d *Dir, sys calls, fd int) *File {
	f := &File{
		dir:     d,
		sys:     sys,
		file:    os.NewFile(uintptr(fd), filepath.Join(d.dir.Name(), sys.name)),
		fd:      fd,
		flights: make([]flight, 0, d.options.InFlight),
		sums:    chunker.NewSums(d.options.Layout),
		closed:  make(chan struct{}),
	}
	f.changed.L = &f.mu
	return f
}

// Dir is the directory that the file was made in. It must not be closed.
func (f *File) Dir() *os.File { return f.dir.dir }

// Name is the name of the file in Dir.
func (f *File) Name() string { return f.sys.name }

// Fd is the open file, for fstat(2), extended attributes and comparing
// identities. It is valid until Close, and must not be closed or written.
func (f *File) Fd() *os.File { return f.file }

// Err returns the error that poisoned the file, nil if none did.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Fail poisons the file with err, as a failed write would: the first error
// stays. A nil err changes nothing.
func (f *File) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail(err)
}

// fail is Fail for who holds mu.
func (f *File) fail(err error) {
	if f.err == nil && err != nil {
		f.err = err
		f.changed.Broadcast()
	}
}

// usable returns why no change can begin, if so. The caller holds mu.
func (f *File) usable() error {
	if f.closing {
		return f.sys.wrap(OpWrite, os.ErrClosed)
	}
	return f.err
}

// enter lets the caller use fd until leave. The caller holds mu.
func (f *File) enter(op Op) error {
	if f.closing {
		return f.sys.wrap(op, os.ErrClosed)
	}
	f.users++
	return nil
}

// leave ends what enter began.
func (f *File) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaveLocked()
}

// leaveLocked is leave for who holds mu.
func (f *File) leaveLocked() {
	f.users--
	if f.closing {
		f.changed.Broadcast()
	}
}

// ReadAt reads what was written, bytes in flight included. Like every
// io.ReaderAt it returns io.EOF when it reads less than asked because the file
// ends. A poisoned file can be read.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, f.sys.wrap(OpRead, unix.EINVAL)
	}
	end := int64(math.MaxInt64)
	if off <= end-int64(len(p)) {
		end = off + int64(len(p))
	}
	if err := f.enterAfter(OpRead, chunker.Extent{Off: off, End: end}); err != nil {
		return 0, err
	}
	defer f.leave()
	n, err := f.sys.pread(f.fd, p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// SeekData returns the offset of the first data at or behind off, SeekHole
// that of the first hole, where the end of the file counts as one. They are
// ENXIO past the end, as in lseek(2), and wait for what is in flight behind
// off.
func (f *File) SeekData(off int64) (int64, error) { return f.seek(off, unix.SEEK_DATA) }

// SeekHole is described with SeekData.
func (f *File) SeekHole(off int64) (int64, error) { return f.seek(off, unix.SEEK_HOLE) }

func (f *File) seek(off int64, whence int) (int64, error) {
	if off < 0 {
		return 0, f.sys.wrap(OpSeek, unix.ENXIO)
	}
	if err := f.enterAfter(OpSeek, chunker.Extent{Off: off, End: math.MaxInt64}); err != nil {
		return 0, err
	}
	defer f.leave()
	return f.sys.seek(f.fd, off, whence)
}

// allocated is what the file takes of the disk, in bytes.
func (f *File) allocated() (int64, error) {
	f.mu.Lock()
	err := f.enter(OpStat)
	f.mu.Unlock()
	if err != nil {
		return 0, err
	}
	defer f.leave()
	st, err := f.sys.fstat(f.fd)
	return st.Blocks * 512, err // st_blocks counts 512 bytes on every filesystem
}

// Sync waits for the writes that have begun and makes the content durable. A
// failure is sticky: the kernel may have dropped the dirty pages, and a second
// fdatasync would report success for bytes that are gone.
func (f *File) Sync() error {
	f.syncing.Lock()
	defer f.syncing.Unlock()
	if err := f.enterAfter(OpSync, everything); err != nil {
		return err
	}
	defer f.leave()
	if err := f.Err(); err != nil {
		return err
	}
	f.Fail(f.sys.fdatasync(f.fd))
	return f.Err()
}

// Remove unlinks the file's name; the descriptor stays usable. It does nothing
// if the name was removed before or is not ours any more (Detach). That the
// name does not exist is success.
func (f *File) Remove() error {
	f.mu.Lock()
	nameless := f.nameless
	f.mu.Unlock()
	if nameless {
		return nil
	}
	if err := f.dir.Remove(f.sys.name); err != nil {
		return err
	}
	f.mu.Lock()
	f.nameless = true
	f.mu.Unlock()
	return nil
}

// Detach says that the file was published by rename: its name in the staging
// directory is gone and Usage no longer counts it. Everything else goes on
// working, for who still has it open.
func (f *File) Detach() {
	f.mu.Lock()
	f.nameless = true
	f.mu.Unlock()
	f.dir.forget(f)
}

// Close waits for what is in flight and for calls that use the file, and
// closes it. New calls are refused from the start. The error is the sticky
// one, else that of close(2). Closing again returns the same.
func (f *File) Close() error {
	f.mu.Lock()
	if f.closing {
		f.mu.Unlock()
		<-f.closed
		return f.closeErr
	}
	f.closing = true
	f.changed.Broadcast()
	for len(f.flights) > 0 || f.users > 0 {
		f.changed.Wait()
	}
	err := f.err
	f.mu.Unlock()

	f.dir.forget(f)
	closed := f.sys.do(OpClose, func() error { return nil })
	closed = errors.Join(closed, f.file.Close())
	if err == nil {
		err = closed
	}
	f.closeErr = err
	close(f.closed)
	return err
}

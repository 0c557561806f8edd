package staging

import (
	"fmt"
	"io"
	"math"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
)

// scratchSize is the size in bytes of the memory that files are read back and
// copied through. It fits the processor's second-level cache.
const scratchSize = 256 << 10

// scratch keeps such memory for reuse. It is not of the Buffers: those who
// read back a file may be who the Buffers are waiting for.
var scratch = sync.Pool{New: func() any {
	b := make([]byte, scratchSize)
	return &b
}}

func borrow() *[]byte    { return scratch.Get().(*[]byte) }
func giveBack(b *[]byte) { scratch.Put(b) }

// ChecksumError is the error of Verify: the staging file does not hold the
// bytes that the checksum was computed of. It is EIO to a program.
type ChecksumError struct {
	Name string // of the staging file
	Part int64
	Want uint32 // CRC32C
	Got  uint32
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("staging file %s: part %d has CRC32C %08x, want %08x", e.Name, e.Part, e.Got, e.Want)
}

// Unwrap returns EIO.
func (e *ChecksumError) Unwrap() error { return unix.EIO }

// Sum returns the CRC32C of a part in a file of size bytes, so that the tail
// counts as long as it is. It waits for writes in flight in the part. It reads
// the file only if the pieces that arrived do not tell. Where the file ends
// before the part does, because a write behind the gap is still in flight, the
// rest counts as the hole that it is.
func (f *File) Sum(part, size int64) (uint32, error) {
	e := f.dir.options.Layout.Extent(part, size)
	f.mu.Lock()
	for f.busy(e, f.begun) { // not wait: a sum must be of bytes at rest
		f.changed.Wait()
	}
	if crc, ok := f.sums.Sum(e); ok && !f.closing {
		f.mu.Unlock()
		return crc, nil
	}
	begun := f.begun
	err := f.enter(OpRead)
	f.mu.Unlock()
	if err != nil {
		return 0, err
	}
	crc, err := f.readSum(e, true)

	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.begun == begun { // nothing changed under the reading
		f.sums.Forget(f.dir.options.Layout.Extent(part, math.MaxInt64))
		f.sums.Add(e.Off, e.Len(), crc)
	}
	f.leaveLocked()
	return crc, err
}

// Verify reads a part of a file of size bytes and compares its CRC32C. A
// mismatch is a *ChecksumError; a file that is too short for the part,
// io.ErrUnexpectedEOF. It never relies on what is remembered: it is for bytes
// that have been through a crash.
func (f *File) Verify(part, size int64, crc uint32) error {
	e := f.dir.options.Layout.Extent(part, size)
	if err := f.enterAfter(OpRead, e); err != nil {
		return err
	}
	defer f.leave()
	got, err := f.readSum(e, false)
	if err != nil {
		return err
	}
	if got != crc {
		return &ChecksumError{Name: f.sys.name, Part: part, Want: crc, Got: got}
	}
	return nil
}

// KnownSum returns the CRC32C of a part like Sum, if the pieces that arrived
// tell it; it never reads the file.
func (f *File) KnownSum(part, size int64) (uint32, bool) {
	e := f.dir.options.Layout.Extent(part, size)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy(e, f.begun) {
		return 0, false
	}
	return f.sums.Sum(e)
}

// readSum reads the bytes of e and returns their CRC32C. If open is set, what
// lies behind the end of the file reads as zeros; else it is an error.
func (f *File) readSum(e chunker.Extent, open bool) (crc uint32, err error) {
	buf := borrow()
	defer giveBack(buf)
	for !e.Empty() {
		p := (*buf)[:min(e.Len(), int64(len(*buf)))]
		n, err := f.sys.pread(f.fd, p, e.Off)
		if err != nil {
			return 0, err
		}
		if n < len(p) && open {
			clear(p[n:])
			n = len(p)
		}
		if n < len(p) {
			return 0, f.sys.wrap(OpRead, io.ErrUnexpectedEOF)
		}
		crc = chunker.Update(crc, p)
		e.Off += int64(n)
	}
	return crc, nil
}

package staging

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
)

// errNotBegun is the cause in the error of a Finish that no Begin belongs to.
var errNotBegun = errors.New("write was not begun")

// flight is a range that a write, or another change, has reserved. No two
// flights of a file overlap, so the offset identifies one.
type flight struct {
	chunker.Extent
	number uint64
}

// Begin reserves the n bytes at off for a write that will then be acknowledged
// and carried out by Finish, or dropped by Cancel. It waits while a write that
// overlaps is in flight, or as many as Options.InFlight are; those that wait
// go in the order in which they came. On a poisoned file it returns the sticky
// error at once; a range that cannot exist is EINVAL or EFBIG and poisons
// nothing. An error means that nothing is reserved. So does n == 0, which
// reserves nothing and needs no Finish.
func (f *File) Begin(off, n int64) error {
	switch {
	case off < 0 || n < 0:
		return f.sys.wrap(OpWrite, unix.EINVAL)
	case off > math.MaxInt64-n:
		return f.sys.wrap(OpWrite, unix.EFBIG)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n == 0 {
		return f.usable()
	}
	return f.reserve(chunker.Extent{Off: off, End: off + n})
}

// reserve waits for its turn and for e to be free, and takes it. The caller
// holds mu.
func (f *File) reserve(e chunker.Extent) error {
	ticket := f.tickets
	f.tickets++
	for ticket != f.turn || f.usable() == nil && !f.admits(e) {
		f.changed.Wait()
	}
	f.turn++
	if f.turn != f.tickets {
		f.changed.Broadcast() // the next one may be able to go too
	}
	if err := f.usable(); err != nil {
		return err
	}
	f.flights = append(f.flights, flight{e, f.begun})
	f.begun++
	return nil
}

// admits reports whether a flight over e may begin.
func (f *File) admits(e chunker.Extent) bool {
	return len(f.flights) < f.dir.options.InFlight && !f.busy(e, f.begun)
}

// busy reports whether a flight with a number below the limit overlaps e.
func (f *File) busy(e chunker.Extent, limit uint64) bool {
	for i := range f.flights {
		if f.flights[i].number < limit && f.flights[i].Overlaps(e) {
			return true
		}
	}
	return false
}

// find returns the index of the flight at off, or -1.
func (f *File) find(off int64) int {
	for i := range f.flights {
		if f.flights[i].Off == off {
			return i
		}
	}
	return -1
}

// release ends the flight at off. The caller holds mu.
func (f *File) release(off int64) {
	i := f.find(off)
	last := len(f.flights) - 1
	f.flights[i] = f.flights[last]
	f.flights = f.flights[:last]
	f.changed.Broadcast()
}

// Finish writes data at off, where Begin reserved at least as many bytes, and
// ends the reservation. The data is not kept. The error is the sticky one: of
// this write, or of one that failed before. The bytes are written even if an
// earlier write failed, because they were acknowledged and what is staged can
// be saved.
func (f *File) Finish(off int64, data []byte) error {
	n := int64(len(data))
	f.mu.Lock()
	i := f.find(off)
	if i < 0 || n > f.flights[i].Len() {
		defer f.mu.Unlock()
		return f.finishStray(off, n, i >= 0)
	}
	f.mu.Unlock()

	// The sums are computed while the bytes are still in the processor's cache
	// from arriving, and beside the pwrite of the flight before this one.
	var room [4]piece
	pieces := room[:0]
	for at, rest := off, data; len(rest) > 0; {
		part := f.dir.options.Layout.PartAt(at)
		end := f.dir.options.Layout.Extent(part, off+n).End
		pieces = append(pieces, piece{at, end - at, chunker.Checksum(rest[:end-at])})
		rest, at = rest[end-at:], end
	}
	f.storing.Lock()
	err := f.sys.pwrite(f.fd, data, off)
	f.storing.Unlock()

	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.sums.Forget(chunker.Extent{Off: off, End: off + n})
		f.fail(err)
	} else {
		for _, p := range pieces {
			f.sums.Add(p.off, p.n, p.crc)
		}
	}
	f.release(off)
	return f.err
}

// piece is a run of bytes inside one part, with its CRC32C.
type piece struct {
	off, n int64
	crc    uint32
}

// finishStray is the end of a Finish that no Begin belongs to, or one for
// fewer bytes. The caller's books are wrong, and it may have acknowledged
// bytes that have no place: that is a failed write. The caller holds mu.
func (f *File) finishStray(off, n int64, reserved bool) error {
	if n > 0 {
		f.fail(f.sys.wrap(OpWrite, errors.Join(errNotBegun, unix.EIO)))
	}
	if reserved {
		f.release(off)
	}
	return f.err
}

// Cancel ends the reservation of n bytes at off without writing: the request
// was not acknowledged.
func (f *File) Cancel(off, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > 0 && f.find(off) >= 0 {
		f.release(off)
	}
}

// Write is Begin and Finish at once.
func (f *File) Write(off int64, data []byte) error {
	if err := f.Begin(off, int64(len(data))); err != nil {
		return err
	}
	if len(data) == 0 {
		return nil
	}
	return f.Finish(off, data)
}

// Wait returns when each write that overlaps e and had begun when it was
// called has finished. It does not wait for those that begin later, so a
// steady writer cannot hold it up.
func (f *File) Wait(e chunker.Extent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait(e)
}

// wait is Wait for who holds mu.
func (f *File) wait(e chunker.Extent) {
	for limit := f.begun; f.busy(e, limit); {
		f.changed.Wait()
	}
}

// Drain returns when each write that had begun when it was called has
// finished, with the sticky error.
func (f *File) Drain() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait(everything)
	return f.err
}

// enterAfter waits for the writes over e that have begun, and then lets the
// caller use fd until leave.
func (f *File) enterAfter(op Op, e chunker.Extent) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wait(e)
	return f.enter(op)
}

// alone runs change while nothing else is in flight, and forgets the sums of
// forget. Writes that begin meanwhile wait. The error of change is returned
// and not sticky: its caller is still there to be told.
func (f *File) alone(forget chunker.Extent, change func() error) error {
	f.mu.Lock()
	if err := f.reserve(everything); err != nil {
		f.mu.Unlock()
		return err
	}
	f.mu.Unlock()

	err := change()

	f.mu.Lock()
	defer f.mu.Unlock()
	// Whether or not it failed: it may have done half of its work.
	f.sums.Forget(forget)
	f.release(everything.Off)
	return err
}

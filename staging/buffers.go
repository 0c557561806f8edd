package staging

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// idleKept is how many idle buffers Trim leaves, so that the next write does
// not begin with page faults.
const idleKept = 4

// Buffers is the memory budget of a mount (promise W8): a fixed number of
// buffers of one size. They are mapped when they are first needed, begin at a
// page, and lie outside of the garbage collector's heap. The one given back
// last is handed out first, because it is still in the processor's cache.
type Buffers struct {
	size  int // of one buffer, as asked for
	limit int // number of buffers

	mu        sync.Mutex
	idle      []*Buffer // the last is the hottest
	allocated int       // idle and in use
	waiters   []*waiter // first come, first served
	waited    time.Duration
}

// waiter is one Get that found the budget spent. Its channel has room for one
// buffer, so that Release never blocks.
type waiter struct {
	since time.Time
	got   chan *Buffer
}

// Buffer is one buffer. It belongs to who got it until its Release.
type Buffer struct {
	owner *Buffers
	mem   []byte // whole pages
	inUse bool   // guarded by owner.mu
}

// BuffersStats is a moment's view of Buffers.
type BuffersStats struct {
	InUse     int64 // bytes in buffers handed out
	Allocated int64 // bytes in buffers, idle ones too
	Limit     int64 // bytes that may be allocated
	// WaitSeconds is the time that callers of Get have waited since the
	// start, those still waiting included.
	WaitSeconds float64
}

// NewBuffers returns a budget of count buffers with size bytes each. Both are
// at least 1.
func NewBuffers(size, count int) *Buffers {
	return &Buffers{size: max(size, 1), limit: max(count, 1)}
}

// Get returns a buffer, and waits for one to be given back when the budget is
// spent. Its contents are arbitrary. The error is that of ctx, or ENOMEM.
func (b *Buffers) Get(ctx context.Context) (*Buffer, error) {
	b.mu.Lock()
	buf, err := b.take()
	if buf != nil || err != nil {
		b.mu.Unlock()
		return buf, err
	}
	w := &waiter{since: time.Now(), got: make(chan *Buffer, 1)}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()

	select {
	case buf := <-w.got:
		return buf, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, o := range b.waiters {
		if o == w {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.waited += time.Since(w.since)
			return nil, ctx.Err()
		}
	}
	return <-w.got, nil // it was handed over just now
}

// TryGet returns a buffer, or nil if it would have to wait.
func (b *Buffers) TryGet() *Buffer {
	b.mu.Lock()
	defer b.mu.Unlock()
	buf, _ := b.take()
	return buf
}

// take hands out an idle or a new buffer, or nil if the budget is spent. If
// the kernel gives no memory, buffers that exist are waited for; the error is
// for when there are none.
func (b *Buffers) take() (*Buffer, error) {
	if n := len(b.idle); n > 0 {
		buf := b.idle[n-1]
		b.idle[n-1] = nil
		b.idle = b.idle[:n-1]
		buf.inUse = true
		return buf, nil
	}
	if b.allocated == b.limit {
		return nil, nil
	}
	page := os.Getpagesize()
	n := (b.size + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		if b.allocated > 0 {
			return nil, nil
		}
		return nil, fmt.Errorf("staging: no memory for a buffer of %d bytes: %w", n, err)
	}
	b.allocated++
	return &Buffer{owner: b, mem: mem, inUse: true}, nil
}

// Stats tells how much of the budget is used. It is cheap.
func (b *Buffers) Stats() BuffersStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	size, waited := int64(b.size), b.waited
	for _, w := range b.waiters {
		waited += time.Since(w.since)
	}
	return BuffersStats{
		InUse:       int64(b.allocated-len(b.idle)) * size,
		Allocated:   int64(b.allocated) * size,
		Limit:       int64(b.limit) * size,
		WaitSeconds: waited.Seconds(),
	}
}

// Trim gives the memory of idle buffers back to the kernel, except for a few.
func (b *Buffers) Trim() {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := max(len(b.idle)-idleKept, 0)
	for i, buf := range b.idle[:n] { // the coldest
		_ = unix.Munmap(buf.mem) // fails only for what was not mapped
		buf.mem = nil
		b.idle[i] = nil
	}
	b.idle = append(b.idle[:0], b.idle[n:]...)
	b.allocated -= n
}

// Bytes is the memory of the buffer, which begins at a page. It must not be
// touched after Release.
func (b *Buffer) Bytes() []byte { return b.mem[:b.owner.size] }

// Release gives the buffer back, to the longest waiter if there is one. To
// release a buffer twice would give one piece of memory to two writers; it
// panics instead.
func (b *Buffer) Release() {
	o := b.owner
	o.mu.Lock()
	defer o.mu.Unlock()
	if !b.inUse {
		panic("staging: buffer released twice")
	}
	if len(o.waiters) > 0 {
		w := o.waiters[0]
		o.waiters = append(o.waiters[:0], o.waiters[1:]...)
		o.waited += time.Since(w.since)
		w.got <- b
		return
	}
	b.inUse = false
	o.idle = append(o.idle, b)
}

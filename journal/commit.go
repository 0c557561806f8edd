package journal

import (
	"context"
	"sync"
)

// A Commit is one group of records on its way into the journal. All calls
// that came while the group before was being written share it.
type Commit struct {
	done chan struct{}
	err  error // set before done is closed

	// Owned by the queue until it hands the group to the writer.
	ops   []op
	bytes int
	sync  bool // a Sync waits for this group
}

func newCommit() *Commit { return &Commit{done: make(chan struct{})} }

// failed is a Commit that has ended with err already.
func failed(err error) *Commit {
	c := newCommit()
	c.finish(err)
	return c
}

// finish ends the group. What it held is not kept: callers may keep Commits.
func (c *Commit) finish(err error) {
	c.err = err
	c.ops = nil
	close(c.done)
}

// Wait returns when the group is in the journal (durable, if the journal was
// opened with SyncWrites), or with the error that kept it out, or with ctx's
// when that is done first; the group is then written all the same. It may be
// called any number of times, or never: an error of a write that nobody waited
// for ends all later writes and comes back from their Wait.
func (c *Commit) Wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	default:
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// An op is one call's changes, encoded.
type op struct {
	what opKind
	id   string
	keys [][]byte // set to vals, or deleted if there are none
	vals [][]byte
	gen  uint64 // opPut: generation of its extents records, 0 if it has none
}

type opKind byte

const (
	opPut     opKind = iota // set keys; drop extents of other generations
	opPart                  // set keys
	opDrop                  // delete keys
	opDelete                // delete the session with all that is its
	opOrphans               // delete what is left of a session without record
)

func (o *op) size() int {
	n := 64
	for _, k := range o.keys {
		n += len(k)
	}
	for _, v := range o.vals {
		n += len(v)
	}
	return n
}

// What one group may hold before callers wait for the one before it.
const (
	groupOps   = 2048
	groupBytes = 256 << 10
)

// queue holds the group that is being filled. Callers append to it, the
// writer takes it whole: what arrives during one commit shares the next.
type queue struct {
	mu struct {
		sync.Mutex
		next   *Commit
		err    error // sticky: ends all later writes
		closed bool
	}
	spare  []op      // of the group before, to be filled again; under mu
	filled sync.Cond // next has ops, or the queue was closed
	space  sync.Cond // next was taken, or the queue failed or was closed
}

func newQueue() *queue {
	q := &queue{}
	q.mu.next = newCommit()
	q.filled.L, q.space.L = &q.mu, &q.mu
	return q
}

// add puts o into the group that is being filled; o.keys may be empty for a
// sync alone. It waits while that group is full.
func (q *queue) add(o *op, sync bool) *Commit {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.mu.closed {
			return failed(ErrClosed)
		}
		if q.mu.err != nil {
			return failed(q.mu.err)
		}
		c := q.mu.next
		if len(c.ops) < groupOps && c.bytes < groupBytes {
			break
		}
		q.space.Wait()
	}
	c := q.mu.next
	if o != nil {
		c.ops = append(c.ops, *o)
		c.bytes += o.size()
	}
	c.sync = c.sync || sync
	if len(c.ops) <= 1 {
		q.filled.Signal()
	}
	return c
}

// take waits for a group and hands it to the writer; nil when the queue is
// closed and empty.
func (q *queue) take() *Commit {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.mu.next.ops) == 0 && !q.mu.next.sync {
		if q.mu.closed {
			return nil
		}
		q.filled.Wait()
	}
	c := q.mu.next
	q.mu.next = newCommit()
	q.mu.next.ops, q.spare = q.spare, nil
	q.space.Broadcast()
	return c
}

// recycle takes back the memory of a group that was written.
func (q *queue) recycle(ops []op) {
	clear(ops)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.spare = ops[:0]
}

// fail makes err the answer to all later writes, and reports whether it is
// the first.
func (q *queue) fail(err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.err != nil {
		return false
	}
	q.mu.err = err
	q.space.Broadcast()
	return true
}

// err returns the sticky error.
func (q *queue) failure() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.err
}

// close lets the writer end when it has written what is queued.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.closed = true
	q.filled.Broadcast()
	q.space.Broadcast()
}

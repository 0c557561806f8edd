package fusefs

import (
	"sync"
)

// Notifier tells the kernel what it must not believe any longer. The device
// loop implements it.
type Notifier interface {
	// InvalEntry makes the kernel look name in the directory parent up again.
	InvalEntry(parent uint64, name string)
	// InvalInode makes it forget the attributes of a node, and its cached
	// content from off on: length bytes, or all if length is 0. A negative
	// off leaves the content alone.
	InvalInode(node uint64, off, length int64)
}

// notices is the queue of notifications. They are sent by a goroutine of their
// own: sent from a request handler they may wait for that very request.
type notices struct {
	done chan struct{}

	mu      sync.Mutex
	wake    *sync.Cond
	to      Notifier
	queue   []func(Notifier)
	stopped bool
}

// SetNotifier says who tells the kernel. Until then nothing is cached there
// that could be wrong, and notifications are dropped.
func (fs *FS) SetNotifier(to Notifier) {
	fs.notices.mu.Lock()
	fs.notices.to = to
	fs.notices.mu.Unlock()
}

func (q *notices) start() {
	q.wake = sync.NewCond(&q.mu)
	q.done = make(chan struct{})
	go q.run()
}

// run sends what is queued until stop.
func (q *notices) run() {
	defer close(q.done)
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped {
		if len(q.queue) == 0 {
			q.wake.Wait()
			continue
		}
		batch, to := q.queue, q.to
		q.queue = nil
		q.mu.Unlock()
		for _, send := range batch {
			if to != nil {
				send(to)
			}
		}
		q.mu.Lock()
	}
}

// stop ends the sending. What is still queued is dropped: the mount ends.
func (q *notices) stop() {
	q.mu.Lock()
	q.stopped = true
	q.wake.Signal()
	q.mu.Unlock()
	<-q.done
}

func (q *notices) push(send func(Notifier)) {
	q.mu.Lock()
	if !q.stopped && q.to != nil {
		q.queue = append(q.queue, send)
		q.wake.Signal()
	}
	q.mu.Unlock()
}

// invalEntry queues that name in parent must be looked up again.
func (fs *FS) invalEntry(at link) {
	parent, name := at.parent.id, at.name
	fs.notices.push(func(to Notifier) { to.InvalEntry(parent, name) })
}

// invalInode queues that attributes and content of n are stale.
func (fs *FS) invalInode(n *node) {
	id := n.id
	fs.notices.push(func(to Notifier) { to.InvalInode(id, 0, 0) })
}

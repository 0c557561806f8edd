package session

import (
	"context"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/internal/fdnode"
)

// Owner identifies the process behind a write or a flush for as long as it
// has the file open: FUSE's lock_owner. 0 means unknown.
type Owner uint64

// Writer is one write handle of a session.
type Writer struct {
	s *Session
	// opener is the thread group that opened the handle; 0 if not known.
	opener int
	// wrote says that something was changed through the handle, closed that
	// its opener has closed it since. A close before the first write tells
	// nothing: it is how a shell redirects, by dup2 and close.
	wrote    bool
	closed   bool
	released bool
}

// WriteOptions qualify one write.
type WriteOptions struct {
	Owner Owner
	// Append places the bytes at the end of the file, whatever offset is given.
	Append bool
}

// Writer registers a write handle that the thread group tgid opened (0 if the
// process cannot be seen). It answers nil if the session has ended meanwhile:
// then the caller opens a new one.
func (s *Session) Writer(tgid int) *Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended() && s.isDetached() {
		return nil
	}
	w := &Writer{s: s, opener: tgid}
	s.writers[w] = struct{}{}
	return w
}

// isDetached reports whether the engine has forgotten the session.
func (s *Session) isDetached() bool {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if _, ok := s.e.nameless[s]; ok {
		return false
	}
	return s.e.live[s.path] != s
}

// Begin reserves n bytes at off for a write and returns where they go. After
// it the write may be acknowledged; Finish must follow. It waits while the
// range is being written by somebody else, while too many writes of this file
// are in flight, and while the file is being published. Errors: the sticky one
// of an earlier failure; EFBIG beyond what the store takes.
func (w *Writer) Begin(off, n int64, o WriteOptions) (at int64, err error) {
	s := w.s
	s.mu.Lock()
	if err := s.open(true); err != nil {
		s.mu.Unlock()
		return 0, err
	}
	if o.Append {
		off = s.size
	}
	e := chunker.Extent{Off: off, End: off + n}
	if err := s.admit(e); err != nil {
		s.mu.Unlock()
		return 0, err
	}
	if e.End > s.size {
		// A gap before the write is a hole that the program made; the range
		// itself is unknown until its bytes are stored.
		s.cover.Extend(e.Off)
		s.cover.Extend(e.End)
		s.cover.Lose(chunker.Extent{Off: max(e.Off, s.size), End: e.End})
		s.size = e.End
	}
	s.pending++
	s.written = true
	w.wrote, w.closed = true, false
	if o.Owner != 0 {
		if s.owners == nil {
			s.owners = make(map[Owner]struct{}, 1)
		}
		s.owners[o.Owner] = struct{}{}
	}
	staged := s.staged
	s.mu.Unlock()

	if err := staged.Begin(off, n); err != nil {
		s.mu.Lock()
		s.fail(err)
		s.endWrite()
		s.mu.Unlock()
		return 0, wrapError("write", s.Path(), err)
	}
	return off, nil
}

// Finish stores the bytes of a write that Begin reserved at at. A failure
// poisons the session; the next call of any writer tells it.
func (w *Writer) Finish(at int64, data []byte) {
	s := w.s
	err := s.staged.Finish(at, data)
	s.mu.Lock()
	if err != nil {
		s.fail(err)
		s.endWrite()
		s.mu.Unlock()
		return
	}
	whole := s.cover.Write(chunker.Extent{Off: at, End: at + int64(len(data))})
	if len(whole) > 0 {
		s.completeParts(whole)
	}
	s.endWrite()
	s.mu.Unlock()
}

// A Releaser is given back what it lent when its bytes are stored.
type Releaser interface{ Release() }

// delivery is a reserved write whose bytes wait to be stored.
type delivery struct {
	w    *Writer
	at   int64
	data []byte
	lent Releaser
}

// FinishLater is Finish in another goroutine, and then gives data back to lent.
// The caller goes on at once: on a machine of few processors the program that
// writes would else wait for the one that the caller stores with. One goroutine
// stores what is delivered to a session; it ends when nothing is left.
func (w *Writer) FinishLater(at int64, data []byte, lent Releaser) {
	q := &w.s.deliveries
	q.mu.Lock()
	q.waiting = append(q.waiting, delivery{w, at, data, lent})
	start := !q.storing
	q.storing = true
	q.mu.Unlock()
	if start {
		go q.run()
	}
}

// deliveries are the writes of a session that are acknowledged and not stored.
// Their number is bounded by what Begin lets through.
type deliveries struct {
	mu      sync.Mutex
	waiting []delivery
	storing bool
}

func (q *deliveries) run() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		d := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.mu.Unlock()
		d.w.Finish(d.at, d.data)
		d.lent.Release()
		q.mu.Lock()
	}
	q.storing = false
}

// endWrite ends one pending write. The caller holds s.mu.
func (s *Session) endWrite() {
	s.pending--
	if s.pending == 0 {
		s.updated = s.e.o.Now()
		s.idle.Broadcast()
	}
}

// fail remembers the first failure of the session (W6). The caller holds s.mu.
func (s *Session) fail(err error) {
	if s.err == nil {
		s.err = wrapError("write", s.Path(), err)
		s.e.o.Logger.Warn("write failed; the file will not be published", "session", s.id, "path", s.Path(), "err", err)
	}
}

// open makes the session ready to be changed: it waits for a publish to end
// and begins the next version of a published file, with its content if keep
// is set, or reopens a held one. The caller holds s.mu.
func (s *Session) open(keep bool) error {
	for s.state == StatePublishing {
		s.idle.Wait()
	}
	switch s.state {
	case StateOpen:
	case StateHeld:
		if err := s.reopen(); err != nil {
			return err
		}
	case StatePublished:
		if err := s.nextVersion(keep); err != nil {
			return err
		}
	default:
		return newError("write", s.Path(), syscall.ESTALE, "the session was ended by command")
	}
	return s.err
}

// nextVersion begins the version that follows the published one.
func (s *Session) nextVersion(keep bool) error {
	if s.pending > 0 {
		return newError("write", s.Path(), syscall.EIO, "writes outlived their version")
	}
	base, a, err := s.openBase()
	if err != nil {
		return wrapError("read the published file", s.Path(), err)
	}
	err = s.beginVersion(origin{attr: a, base: base, content: keep})
	if err == nil {
		// The version that follows this one starts from what this one is.
		s.dropBase()
	}
	return err
}

// replaceHeld drops a held version for an empty one, which takes over the
// attributes of what is published, or else of the held file.
func (s *Session) replaceHeld() error {
	held, err := fdnode.StatFd(int(s.staged.Fd().Fd()))
	if err != nil {
		return wrapError("stat", s.Path(), err)
	}
	from := origin{attr: held}
	if base, a, err := s.openBase(); err == nil {
		from = origin{attr: a, base: base}
	} else if errnoOf(err) != syscall.ENOENT {
		return wrapError("read the published file", s.Path(), err)
	}
	s.dropVersion(endReplaced)
	err = s.beginVersion(from)
	s.dropBase()
	return err
}

// admit checks a change of the extent e against the limits and takes the
// records of finished parts that it touches out of the journal, before their
// bytes change. The caller holds s.mu.
func (s *Session) admit(e chunker.Extent) error {
	if e.Off < 0 || e.End < e.Off {
		return newError("write", s.Path(), syscall.EINVAL, "impossible range %d+%d", e.Off, e.Len())
	}
	if e.End > s.e.maxSize {
		return newError("write", s.Path(), syscall.EFBIG,
			"%d bytes are more than the store takes (%d)", e.End, s.e.maxSize)
	}
	if e.Empty() || len(s.parts) == 0 && len(s.summing) == 0 {
		return nil
	}
	first, last := s.e.o.Layout.Span(e)
	var rewritten []int64
	for p := first; p <= last && p <= s.lastPart(); p++ {
		if _, ok := s.summing[p]; ok {
			s.summing[p] = false
		}
		if r, ok := s.parts[p]; ok && e.Overlaps(chunker.Extent{Off: r.Offset, End: r.Offset + r.Size}) {
			rewritten = append(rewritten, p)
		}
	}
	return s.dropParts(rewritten)
}

// lastPart returns the highest part number that the file has now.
func (s *Session) lastPart() int64 { return s.e.o.Layout.Count(s.size) }

// dropParts takes records out of the journal and waits until they are out.
func (s *Session) dropParts(parts []int64) error {
	if len(parts) == 0 {
		return nil
	}
	for _, p := range parts {
		delete(s.parts, p)
		s.e.o.Observer.PartRewritten()
	}
	if err := s.e.o.Journal.DropParts(s.id, parts...).Wait(s.e.ctx); err != nil {
		return wrapError("journal", s.Path(), err)
	}
	return nil
}

// Reset empties the file for a handle that was opened with O_TRUNC: the next
// version begins empty, and a held one is dropped. Until something is written
// a flush does not publish it; the last release does.
func (w *Writer) Reset(ctx context.Context) error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	switch s.state {
	case StateHeld:
		return s.replaceHeld()
	case StatePublished:
		return s.nextVersion(false)
	}
	if err := s.open(false); err != nil {
		return err
	}
	return s.truncate(0)
}

// Truncate sets the size of the file, as ftruncate(2) does.
func (w *Writer) Truncate(ctx context.Context, size int64) error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if err := s.open(size > 0); err != nil {
		return err
	}
	s.settle()
	w.wrote, w.closed = true, false
	s.written = true
	return s.truncate(size)
}

// truncate sets the size. The caller holds s.mu, settled and open.
func (s *Session) truncate(size int64) error {
	if size == s.size {
		return nil
	}
	if err := s.admit(chunker.Extent{Off: min(size, s.size), End: max(size, s.size)}); err != nil {
		return err
	}
	if err := s.staged.Truncate(size); err != nil {
		s.fail(err)
		return s.err
	}
	s.cover.Truncate(size)
	s.size = size
	s.updated = s.e.o.Now()
	return nil
}

// Allocate does fallocate(2) with mode 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE or
// ZERO_RANGE with or without KEEP_SIZE, and answers EOPNOTSUPP for the rest.
func (w *Writer) Allocate(ctx context.Context, mode uint32, off, n int64) error {
	s := w.s
	e := chunker.Extent{Off: off, End: off + n}
	keep := mode&unix.FALLOC_FL_KEEP_SIZE != 0
	kind := mode &^ unix.FALLOC_FL_KEEP_SIZE
	if kind != 0 && kind != unix.FALLOC_FL_PUNCH_HOLE && kind != unix.FALLOC_FL_ZERO_RANGE ||
		kind == unix.FALLOC_FL_PUNCH_HOLE && !keep {
		return newError("fallocate", s.Path(), syscall.EOPNOTSUPP, "mode %#x", mode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if err := s.open(true); err != nil {
		return err
	}
	s.settle()
	touched := e
	if kind == 0 {
		touched = chunker.Extent{Off: max(off, s.size), End: max(e.End, s.size)}
	}
	if err := s.admit(touched); err != nil {
		return err
	}
	var err error
	switch kind {
	case 0:
		err = s.staged.Allocate(e, keep)
	case unix.FALLOC_FL_PUNCH_HOLE:
		err = s.staged.Punch(e)
	default:
		if !keep && e.End > s.size {
			if err = s.staged.Truncate(e.End); err != nil {
				break
			}
		}
		err = s.staged.Zero(e)
	}
	if err != nil {
		// Nothing was acknowledged that is now lost: ENOSPC here is an answer,
		// not a poison.
		return wrapError("fallocate", s.Path(), err)
	}
	w.wrote, w.closed = true, false
	s.written = true
	if !keep && e.End > s.size {
		s.cover.Extend(e.End)
		s.size = e.End
	}
	if kind != 0 {
		s.cover.Punch(e)
	}
	s.updated = s.e.o.Now()
	return nil
}

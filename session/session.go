package session

import (
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/staging"
	"github.com/wholefs/wholefs/store"
)

// Session is the unpublished life of one path; see the package documentation.
type Session struct {
	e *Engine

	// Guarded by Engine.mu: the path, and whether the store is taking the
	// file over right now.
	path    string
	landing bool

	mu sync.Mutex
	// idle is signalled when no write is pending, and when a publish ends.
	idle    *sync.Cond
	id      string // of this version; also the name of its staging file
	state   State
	reason  string // why it is held
	created time.Time
	updated time.Time

	writers map[*Writer]struct{}
	// owners are the processes (by lock owner) that wrote and have not closed.
	owners map[Owner]struct{}
	// written says that this version differs from the published one by more
	// than having been opened with O_TRUNC or created.
	written bool
	killed  int // the signal that ended a writer, or 0
	// unlinked says that the name is gone: the session is never published.
	unlinked bool
	// baseID is the published file that this version is the next of; zero if
	// it is a new one. linked says that it has several names, so that
	// publishing writes into it, under a journaled record, to keep them one.
	baseID store.ID
	linked bool

	staged  *staging.File
	cover   *chunker.Coverage
	size    int64 // with what is reserved but not stored yet
	pending int   // writes between Begin and Finish
	err     error // the first failure; sticky (W6)

	deliveries deliveries

	// base is the published content that the next version starts from, while
	// it is known; a store may also be asked for it by path.
	base store.File

	journaled bool
	// parts are the records that the journal has.
	parts map[int64]store.Receipt
	// summing marks parts whose checksum is being read from the staging
	// file; a write to one of them turns it false.
	summing map[int64]bool
	// unverified says that the parts come from before a crash and are
	// believed only once their checksums match.
	unverified bool
	upload     store.Upload
	uploadID   string
	send       *sender
	// beginMu lets one goroutine begin the upload; it is taken before mu.
	beginMu sync.Mutex
}

// origin is what a new version starts from: the attributes of a new file, or
// a published file whose attributes, and with content also whose bytes, it
// takes over.
type origin struct {
	attr    store.Attr
	base    store.File
	content bool
}

// ID returns the id of the session's present version.
func (s *Session) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Path returns where the session's file is, or will be published; after its
// name was removed, where it last was.
func (s *Session) Path() string {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return s.path
}

// State returns where the session stands.
func (s *Session) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Active reports whether the session holds the newest content of its file, so
// that its bytes, size and attributes are to be shown and not the store's.
func (s *Session) Active() bool { return s.State().active() }

// Ended reports whether nothing will happen to the session any more: it has
// no writers and holds nothing. A file that is opened for writing then needs
// a new one.
func (s *Session) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended()
}

func (s *Session) ended() bool {
	return len(s.writers) == 0 && !s.state.active()
}

// Size returns the size of the file in bytes, with writes that are
// acknowledged and not stored yet.
func (s *Session) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// Attr returns the attributes of the staging file, with the logical size. It
// answers ErrInactive when the session holds nothing.
func (s *Session) Attr() (store.Attr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.active() || s.staged == nil {
		return store.Attr{}, ErrInactive
	}
	a, err := fdnode.StatFd(int(s.staged.Fd().Fd()))
	if err != nil {
		return store.Attr{}, wrapError("stat", s.Path(), err)
	}
	a.Size = s.size
	return a, nil
}

// Node gives access to the attributes and extended attributes of the staging
// file, which become the published file's. Writes in flight have been stored
// when it returns, so that they do not move a time set through it. The caller
// does not close it.
func (s *Session) Node() (store.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if !s.state.active() || s.staged == nil {
		return nil, ErrInactive
	}
	return borrowed{fdnode.Node{F: s.staged.Fd()}}, nil
}

// borrowed is a node whose descriptor belongs to someone else.
type borrowed struct{ fdnode.Node }

func (borrowed) Close() error { return nil }

// settle waits until no write is pending and no publish under way. The caller
// holds s.mu, which is released meanwhile.
func (s *Session) settle() {
	for s.pending > 0 || s.state == StatePublishing {
		s.idle.Wait()
	}
}

// ReadAt reads what programs have written, with what is still in flight. It
// answers io.EOF at the end and ErrInactive when the session holds nothing.
func (s *Session) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	if !s.state.active() || s.staged == nil {
		s.mu.Unlock()
		return 0, ErrInactive
	}
	staged, size := s.staged, s.size
	s.mu.Unlock()
	if off >= size {
		return 0, io.EOF
	}
	if int64(len(p)) > size-off {
		p = p[:size-off]
	}
	staged.Wait(chunker.Extent{Off: off, End: off + int64(len(p))})
	n, err := staged.ReadAt(p, off)
	if n < len(p) && err == io.EOF {
		// The staging file ends where a write failed; the rest was promised.
		clear(p[n:])
		n, err = len(p), nil
	}
	if errIsClosed(err) {
		return 0, ErrInactive
	}
	return n, err
}

// SeekData and SeekHole have the meaning of lseek(2) on the staging file.
func (s *Session) SeekData(off int64) (int64, error) {
	return s.seek(off, (*staging.File).SeekData)
}

// SeekHole returns the next offset at or after off that lies in a hole.
func (s *Session) SeekHole(off int64) (int64, error) {
	return s.seek(off, (*staging.File).SeekHole)
}

func (s *Session) seek(off int64, in func(*staging.File, int64) (int64, error)) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if !s.state.active() || s.staged == nil {
		return 0, ErrInactive
	}
	if off >= s.size {
		return 0, syscall.ENXIO
	}
	return in(s.staged, off)
}

// errIsClosed reports whether a read lost against the end of the session.
func errIsClosed(err error) bool {
	pe, ok := err.(*os.PathError)
	return ok && pe.Err == os.ErrClosed || err == os.ErrClosed
}

// beginVersion makes the staging file of a new version and opens the session.
// The caller holds s.mu, has settled it and checked that it may.
func (s *Session) beginVersion(from origin) error {
	p := s.Path()
	if err := s.e.reserve(p); err != nil {
		return err
	}
	id := newID()
	staged, err := s.e.o.Staging.Create(id, from.attr.Mode&0o7777)
	if err == nil {
		if err = s.seed(staged, from); err != nil {
			staged.Remove()
			staged.Close()
		}
	}
	if err != nil {
		s.e.unreserve()
		return wrapError("stage", p, err)
	}
	s.id, s.staged = id, staged
	s.cover = chunker.NewCoverage(s.e.o.Layout)
	s.size = 0
	if from.content {
		s.size = from.attr.Size
		s.cover.Write(chunker.Extent{Off: 0, End: s.size})
	}
	if err := s.step(eventWrite); err != nil {
		return err
	}
	s.reason, s.err = "", nil
	s.written, s.killed, s.journaled, s.unverified = false, 0, false, false
	s.owners, s.parts, s.summing = nil, nil, nil
	s.upload, s.uploadID = nil, ""
	s.baseID, s.linked = store.ID{}, false
	if from.base != nil {
		s.baseID, s.linked = from.attr.ID, from.attr.Nlink > 1
	}
	s.created = s.e.o.Now()
	s.updated = s.created
	return nil
}

// seed gives a new staging file the attributes, and the content, of its origin.
func (s *Session) seed(f *staging.File, from origin) error {
	if from.base == nil {
		return own(int(f.Fd().Fd()), from.attr)
	}
	if err := fdnode.Inherit(f.Fd(), from.base); err != nil {
		return err
	}
	if !from.content || from.attr.Size == 0 {
		return nil
	}
	if d, ok := from.base.(interface{ Fd() *os.File }); ok {
		return f.CloneFrom(d.Fd(), from.attr.Size)
	}
	return copyContent(f, from.base, from.attr.Size)
}

// own gives a new staging file to the user who creates the file. A daemon that
// is not root can only make files of its own.
func own(fd int, a store.Attr) error {
	if int(a.UID) == os.Geteuid() && int(a.GID) == os.Getegid() {
		return nil
	}
	if err := fdnode.Chown(fd, int(a.UID), int(a.GID)); err != nil {
		if os.Geteuid() != 0 && errnoOf(err) == syscall.EPERM {
			return nil
		}
		return err
	}
	if a.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0 {
		return fdnode.Chmod(fd, a.Mode&0o7777) // chown(2) took them away
	}
	return nil
}

// copyContent reads a file that is not in a local filesystem into f.
func copyContent(f *staging.File, from io.ReaderAt, size int64) error {
	buf := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; {
		n, err := from.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if n == 0 && err != nil {
			return err
		}
		if err := f.Write(off, buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return f.Drain()
}

// openBase returns the published content, asking the store by path where it
// is not known yet.
func (s *Session) openBase() (store.File, store.Attr, error) {
	if s.base == nil {
		p := s.Path()
		dir, err := s.e.o.Store.OpenDir(parentOf(p))
		if err != nil {
			return nil, store.Attr{}, err
		}
		defer dir.Close()
		if s.base, err = dir.OpenFile(baseName(p)); err != nil {
			return nil, store.Attr{}, err
		}
	}
	a, err := s.base.Stat()
	return s.base, a, err
}

// dropStaging ends the present version's hold on its staging file. remove is
// false when the store has taken the file over by its name.
func (s *Session) dropStaging(remove bool) {
	if s.staged == nil {
		return
	}
	if remove {
		if err := s.staged.Remove(); err != nil {
			s.e.o.Logger.Warn("staging file left behind; the next mount removes it", "session", s.id, "err", err)
		}
	} else {
		s.staged.Detach()
	}
	s.staged.Close()
	s.staged, s.cover = nil, nil
	s.e.unreserve()
}

// dropBase forgets the published content; it was replaced, or nobody asks.
func (s *Session) dropBase() {
	if s.base != nil {
		s.base.Close()
		s.base = nil
	}
}

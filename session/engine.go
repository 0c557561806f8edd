package session

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/wholefs/wholefs/store"
)

// Engine makes, finds, moves and ends sessions. One engine owns one state
// directory: its journal and its staging files.
type Engine struct {
	o       Options
	maxSize int64
	// ctx bounds the work of all sessions; it is the mount's, never a
	// request's, since signals cancel those.
	ctx    context.Context
	cancel context.CancelFunc

	mu sync.Mutex
	// changed is signalled when a publish ends or a path thaws.
	changed *sync.Cond
	closed  bool
	// live holds each session that has a path: active ones, and published
	// ones that still have writers. byDir has the same by parent directory.
	live  map[string]*Session
	byDir map[string]map[*Session]struct{}
	// nameless holds sessions whose name was removed while writers go on.
	nameless map[*Session]struct{}
	// frozen paths may not begin to publish; see Freeze.
	frozen []string
	// active counts the sessions that hold a staging file.
	active int

	expiry *time.Timer
}

// New makes an engine; call Recover before the first session.
func New(o Options) (*Engine, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	e := &Engine{
		o:        o,
		maxSize:  maxSize(o.Layout, o.Store.Limits()),
		live:     make(map[string]*Session),
		byDir:    make(map[string]map[*Session]struct{}),
		nameless: make(map[*Session]struct{}),
	}
	e.changed = sync.NewCond(&e.mu)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.expiry = time.AfterFunc(time.Hour, e.expire)
	e.expiry.Stop()
	return e, nil
}

// parentOf returns the directory part of a store path; "" is the top.
func parentOf(p string) string {
	if dir := path.Dir(p); dir != "." {
		return dir
	}
	return ""
}

// within reports whether p is dir or lies beneath it.
func within(p, dir string) bool {
	return dir == "" || p == dir || strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}

// Get returns the session whose content the mount must show at p, or nil.
func (e *Engine) Get(p string) *Session {
	e.mu.Lock()
	s := e.live[p]
	e.mu.Unlock()
	if s == nil || !s.Active() {
		return nil
	}
	return s
}

// In returns the active sessions whose parent directory is dir.
func (e *Engine) In(dir string) []*Session {
	e.mu.Lock()
	found := make([]*Session, 0, len(e.byDir[dir]))
	for s := range e.byDir[dir] {
		found = append(found, s)
	}
	e.mu.Unlock()
	return slices.DeleteFunc(found, func(s *Session) bool { return !s.Active() })
}

// Under reports whether an active session lies at dir or beneath it.
func (e *Engine) Under(dir string) bool {
	for _, s := range e.snapshot() {
		if s.Active() && within(s.Path(), dir) {
			return true
		}
	}
	return false
}

// snapshot returns the sessions that have a path.
func (e *Engine) snapshot() []*Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*Session, 0, len(e.live))
	for _, s := range e.live {
		all = append(all, s)
	}
	return all
}

// all returns every session, with and without a path.
func (e *Engine) all() []*Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]*Session, 0, len(e.live)+len(e.nameless))
	for _, s := range e.live {
		all = append(all, s)
	}
	for s := range e.nameless {
		all = append(all, s)
	}
	return all
}

// Create begins the session of a file that does not exist: an empty staging
// file with the mode and owner of a. It answers EEXIST if the path has a
// session, ENFILE at the limit of sessions.
func (e *Engine) Create(ctx context.Context, p string, a store.Attr) (*Session, error) {
	s := e.newSession(p)
	if err := e.attach(s); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.beginVersion(origin{attr: a}); err != nil {
		e.detach(s)
		return nil, err
	}
	return s, nil
}

// Open returns the session of a published file that is opened for writing: a
// new one, which has nothing to publish until something is written, or the
// one that the path has already. base is the published content; it belongs to
// the engine from here on, whatever is returned.
func (e *Engine) Open(ctx context.Context, p string, base store.File, a store.Attr) (*Session, error) {
	s := e.newSession(p)
	s.state = StatePublished
	s.base = base
	e.mu.Lock()
	if have := e.live[p]; have != nil {
		e.mu.Unlock()
		if base != nil {
			base.Close()
		}
		return have, nil
	}
	err := e.attachLocked(s)
	e.mu.Unlock()
	if err != nil {
		if base != nil {
			base.Close()
		}
		return nil, err
	}
	return s, nil
}

func (e *Engine) newSession(p string) *Session {
	now := e.o.Now()
	s := &Session{
		e: e, path: p, state: StateOpen,
		writers: make(map[*Writer]struct{}),
		created: now, updated: now,
	}
	s.idle = sync.NewCond(&s.mu)
	return s
}

// newID returns a session id: unique for ever, and sorted by time.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// attach enters s into the tables.
func (e *Engine) attach(s *Session) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.attachLocked(s)
}

func (e *Engine) attachLocked(s *Session) error {
	if e.closed {
		return newError("open", s.path, syscall.ESHUTDOWN, "the mount is ending")
	}
	if e.live[s.path] != nil {
		return newError("create", s.path, syscall.EEXIST, "an unfinished file has this name")
	}
	e.enter(s, s.path)
	return nil
}

// enter puts s at p in both tables. The caller holds e.mu.
func (e *Engine) enter(s *Session, p string) {
	s.path = p
	e.live[p] = s
	dir := parentOf(p)
	if e.byDir[dir] == nil {
		e.byDir[dir] = make(map[*Session]struct{})
	}
	e.byDir[dir][s] = struct{}{}
}

// leave takes s out of both tables, if it is there. The caller holds e.mu.
func (e *Engine) leave(s *Session) {
	if e.live[s.path] != s {
		return
	}
	delete(e.live, s.path)
	dir := parentOf(s.path)
	delete(e.byDir[dir], s)
	if len(e.byDir[dir]) == 0 {
		delete(e.byDir, dir)
	}
}

// detach forgets a session that has ended.
func (e *Engine) detach(s *Session) {
	e.mu.Lock()
	e.leave(s)
	delete(e.nameless, s)
	e.mu.Unlock()
}

// reserve counts one more active session, or answers ENFILE.
func (e *Engine) reserve(p string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.active >= e.o.MaxSessions {
		return newError("open", p, syscall.ENFILE,
			"%d sessions are open or held, the most allowed: end held ones (wholefs session ls) or raise --max-sessions", e.active)
	}
	e.active++
	return nil
}

func (e *Engine) unreserve() {
	e.mu.Lock()
	e.active--
	e.mu.Unlock()
}

// Freeze waits until no session at or beneath one of the paths is being
// published and keeps them from beginning to, until thaw is called. A rename
// or removal in the store holds its paths frozen, so that a publish never
// lands under a name that has just moved away.
func (e *Engine) Freeze(paths ...string) (thaw func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frozen = append(e.frozen, paths...)
	for e.publishingWithin(paths) {
		e.changed.Wait()
	}
	return func() {
		e.mu.Lock()
		for _, p := range paths {
			if i := slices.Index(e.frozen, p); i >= 0 {
				e.frozen = slices.Delete(e.frozen, i, i+1)
			}
		}
		e.changed.Broadcast()
		e.mu.Unlock()
	}
}

func (e *Engine) publishingWithin(paths []string) bool {
	for _, s := range e.live {
		if s.landing && slices.ContainsFunc(paths, func(dir string) bool { return within(s.path, dir) }) {
			return true
		}
	}
	return false
}

// land marks s as being published and returns the path to publish at, once
// nothing that covers it is frozen. ok is false when the name was removed
// meanwhile.
func (e *Engine) land(s *Session) (p string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for slices.ContainsFunc(e.frozen, func(dir string) bool { return within(s.path, dir) }) {
		e.changed.Wait()
	}
	if e.live[s.path] != s {
		return "", false
	}
	s.landing = true
	return s.path, true
}

// landed ends what land began.
func (e *Engine) landed(s *Session) {
	e.mu.Lock()
	s.landing = false
	e.changed.Broadcast()
	e.mu.Unlock()
}

// Rename moves every session at or beneath oldPath to newPath. A session that
// was at or beneath newPath loses its name, as the file that a rename replaces
// does. The caller holds both paths frozen.
func (e *Engine) Rename(oldPath, newPath string) {
	if oldPath == newPath {
		return
	}
	for _, s := range e.within(newPath) {
		s.Unlink()
	}
	e.move(func(p string) string {
		if within(p, oldPath) {
			return newPath + p[len(oldPath):]
		}
		return p
	})
}

// Exchange swaps the sessions at and beneath a with those at and beneath b.
// The caller holds both paths frozen.
func (e *Engine) Exchange(a, b string) {
	e.move(func(p string) string {
		switch {
		case within(p, a):
			return b + p[len(a):]
		case within(p, b):
			return a + p[len(b):]
		}
		return p
	})
}

// within returns the sessions at or beneath dir.
func (e *Engine) within(dir string) []*Session {
	return slices.DeleteFunc(e.snapshot(), func(s *Session) bool { return !within(s.Path(), dir) })
}

// move gives each session the path that to returns for its own, and journals
// the new path of those that the journal knows.
func (e *Engine) move(to func(string) string) {
	e.mu.Lock()
	var moved []*Session
	for p, s := range e.live {
		if to(p) != p {
			moved = append(moved, s)
		}
	}
	paths := make([]string, len(moved))
	for i, s := range moved {
		paths[i] = to(s.path)
		e.leave(s)
	}
	for i, s := range moved {
		e.enter(s, paths[i])
	}
	e.mu.Unlock()
	for _, s := range moved {
		s.mu.Lock()
		if s.journaled {
			s.record()
		}
		s.mu.Unlock()
	}
}

// Close drains: it refuses new sessions, waits for publishes under way and
// holds what still has writers. It returns ctx's error if that takes longer.
// The journal and the staging directory stay open; they are the caller's.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.expiry.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, s := range e.all() {
			s.drainAtClose()
		}
	}()
	select {
	case <-done:
		e.cancel()
		return nil
	case <-ctx.Done():
		e.cancel()
		return fmt.Errorf("session: drain: %w", ctx.Err())
	}
}

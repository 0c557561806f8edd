package session

import (
	"context"
	"fmt"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/wholefs/wholefs/store"
)

// How a session ended, as the metric sessions_total names it.
const (
	endAborted  = "aborted"  // by command
	endReplaced = "replaced" // its file was opened with O_TRUNC, or created anew
	endUnlinked = "unlinked" // its name was removed
	endExpired  = "expired"  // held for longer than its TTL
	endKilled   = "killed"   // its writer was killed, under --on-kill=abort
)

// hold keeps the session out of the store, with everything it has, and
// writes down why: ev is eventHold, or eventFail after the store's refusal. The
// caller holds s.mu, settled.
func (s *Session) hold(ev event, reason string) {
	held := s.state == StateHeld
	if err := s.step(ev); err != nil {
		s.e.o.Logger.Error("session cannot be held", "session", s.id, "err", err)
		return
	}
	if !held {
		s.e.o.Observer.SessionEnded("held")
	}
	s.reason = reason
	if err := s.recordRemainder(true); err != nil {
		s.e.o.Logger.Warn("held without all checksums", "session", s.id, "path", s.Path(), "err", err)
	}
	if err := s.record().Wait(s.e.ctx); err != nil {
		s.e.o.Logger.Error("held in memory only: the journal does not take it", "session", s.id, "path", s.Path(), "err", err)
	}
	s.updated = s.e.o.Now()
	s.e.o.Logger.Warn("session held, not published", "session", s.id, "path", s.Path(), "bytes", s.size, "reason", reason)
	s.e.scheduleExpiry()
}

// reopen makes a held session writable again: the program that opened it goes
// on where it ended. What failed is missing until it is written again. The
// caller holds s.mu.
func (s *Session) reopen() error {
	if err := s.heal(); err != nil {
		return err
	}
	if err := s.verify(); err != nil {
		return err
	}
	if err := s.step(eventWrite); err != nil {
		return err
	}
	s.reason, s.killed = "", 0
	if s.journaled {
		return s.record().Wait(s.e.ctx)
	}
	return nil
}

// heal forgets a failure: the range that it hit stays missing until it is
// written again, and what was recorded is verified anew. The caller holds s.mu.
func (s *Session) heal() error {
	if s.err == nil {
		return nil
	}
	// The old staging handle repeats its failure for ever; a new one on the
	// same file does not.
	f, err := s.e.o.Staging.Open(s.id)
	if err != nil {
		return wrapError("reopen", s.Path(), err)
	}
	s.staged.Close()
	s.staged, s.err, s.unverified = f, nil, true
	return nil
}

// discard drops the version's data and its record. Handles that are still
// open get ESTALE at their next write. The caller holds s.mu, settled.
func (s *Session) discard(result string) {
	active := s.state.active()
	if s.step(eventAbort) == nil && active {
		s.dropVersion(result)
	}
}

// dropVersion frees everything that the present version has. The caller holds
// s.mu.
func (s *Session) dropVersion(result string) {
	s.stopSending(true)
	if err := s.abortUpload(); err != nil {
		s.e.o.Logger.Warn("upload left behind in the store", "session", s.id, "upload", s.uploadID, "err", err)
	}
	if s.journaled {
		s.forget() // before the staging file, or a restart would miss that
	}
	s.dropStaging(true)
	s.upload, s.uploadID, s.parts = nil, "", nil
	s.e.o.Observer.SessionEnded(result)
}

// forget takes the version's record out of the journal and waits until it is
// out. The caller holds s.mu.
func (s *Session) forget() {
	if err := s.e.o.Journal.Delete(s.id).Wait(s.e.ctx); err != nil {
		s.e.o.Logger.Error("the journal still has a session that has ended; a restart will hold it", "session", s.id, "path", s.Path(), "err", err)
	}
	s.journaled, s.parts = false, nil
}

// abortUpload frees what the store keeps of the version, if it was sent
// anything. The caller holds s.mu.
func (s *Session) abortUpload() error {
	up := s.upload
	if up == nil {
		if s.uploadID == "" {
			return nil
		}
		var err error
		plan := store.Plan{Path: s.Path(), PartSize: s.e.o.Layout.PartSize(), Staged: s.staged}
		if up, err = s.e.o.Store.Resume(s.e.ctx, s.uploadID, plan); err != nil {
			return err
		}
	}
	return up.Abort(s.e.ctx)
}

// AbortID drops the session with the given id or path, by command: what was
// published before, if anything, is the file again.
func (e *Engine) AbortID(ctx context.Context, idOrPath string) error {
	s, err := e.find(idOrPath)
	if err != nil {
		return err
	}
	return s.end(endAborted)
}

// end drops the session and tells the face.
func (s *Session) end(result string) error {
	s.mu.Lock()
	s.settle()
	if !s.state.active() {
		s.mu.Unlock()
		return newError("abort", s.Path(), syscall.ESTALE, "the session is %s", s.State())
	}
	p, id := s.Path(), s.id
	s.discard(result)
	s.mu.Unlock()
	s.e.detach(s)
	s.e.o.Logger.Info("session ended", "session", id, "path", p, "result", result)
	if s.e.o.Hooks.Ended != nil {
		s.e.o.Hooks.Ended(s, p)
	}
	return nil
}

// find returns the active session with the given id, prefix of an id, or path.
func (e *Engine) find(idOrPath string) (*Session, error) {
	want := strings.TrimPrefix(path.Clean("/"+idOrPath), "/")
	var byPrefix []*Session
	for _, s := range e.all() {
		if !s.Active() {
			continue
		}
		if s.ID() == idOrPath || s.Path() == want {
			return s, nil
		}
		if len(idOrPath) >= 4 && strings.HasPrefix(s.ID(), idOrPath) {
			byPrefix = append(byPrefix, s)
		}
	}
	switch len(byPrefix) {
	case 0:
		return nil, &Error{Op: "find", Path: idOrPath, Errno: syscall.ENOENT, Err: errNoSession}
	case 1:
		return byPrefix[0], nil
	}
	return nil, newError("find", idOrPath, syscall.EINVAL, "%d sessions begin like this: give more of the id", len(byPrefix))
}

// scheduleExpiry sets the timer to the next held session's end. It may run
// under a session's lock, so it only wakes the timer's own goroutine.
func (e *Engine) scheduleExpiry() {
	if e.o.HoldTTL > 0 {
		e.expiry.Reset(0)
	}
}

// expire ends the held sessions that are older than their TTL, oldest first,
// and sleeps until the next is due. Sessions with writers never expire.
func (e *Engine) expire() {
	now := e.o.Now()
	var due time.Time
	for _, s := range e.byAge() {
		s.mu.Lock()
		idle := s.state == StateHeld && len(s.writers) == 0
		at := s.updated.Add(e.o.HoldTTL)
		s.mu.Unlock()
		switch {
		case !idle:
		case at.After(now):
			if due.IsZero() || at.Before(due) {
				due = at
			}
		default:
			e.o.Logger.Warn("held session expired", "session", s.ID(), "path", s.Path(),
				"ttl", e.o.HoldTTL, "why", fmt.Sprintf("nobody published or reopened it since %s", at.Add(-e.o.HoldTTL).Format(time.RFC3339)))
			if err := s.end(endExpired); err != nil {
				e.o.Logger.Error("held session cannot be ended", "session", s.ID(), "err", err)
			}
		}
	}
	if !due.IsZero() && e.ctx.Err() == nil {
		e.expiry.Reset(max(due.Sub(now), time.Second))
	}
}

// drainAtClose waits for a publish under way and holds what still has writers.
func (s *Session) drainAtClose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	switch {
	case s.unlinked:
		s.discard(endUnlinked)
	case s.state == StateOpen:
		s.hold(eventHold, "the mount ended while the file was open")
	}
	if s.staged != nil {
		s.staged.Close()
	}
	s.dropBase()
}

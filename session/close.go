package session

import (
	"context"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Caller is the process behind a flush, as far as it can be seen.
type Caller struct {
	// TGID is its thread group; 0 when it is not visible from here, as with
	// programs in another pid namespace.
	TGID  int
	Owner Owner
	// Killed says that it is dying by Signal; Unknown that it is dying and how
	// is hidden, which counts as killed.
	Killed  bool
	Unknown bool
	Signal  int
}

// Decisions of Flush and Release, as the metric flush_decisions_total names
// them.
const (
	decidePublish   = "publish"         // the writing has ended: publish now
	decideClean     = "skip_clean"      // nothing was written, or not through this handle
	decideOther     = "skip_other"      // closed by a process that did not open it
	decideInherited = "skip_inherited"  // a process that wrote still has it open
	decideWriters   = "skip_writers"    // another write handle is still open
	decideInvisible = "skip_invisible"  // the process cannot be seen: the release decides
	decideKilled    = "hold_killed"     // a writer died by a signal
	decideFailed    = "hold_failed"     // a write had failed
	decideUnlinked  = "drop_unlinked"   // the name is gone
	decideRelease   = "publish_release" // published at the last release
)

// Flush is one close(2) of the handle, by c. It decides whether the writing
// has ended (W3) and then publishes or holds, before the close is answered
// (W2). The error is what close returns.
func (w *Writer) Flush(ctx context.Context, c Caller) error {
	s := w.s
	s.mu.Lock()
	s.settle()
	decision := s.judge(w, c)
	s.e.o.Observer.FlushDecision(decision)
	switch decision {
	case decidePublish:
		s.mu.Unlock()
		return s.publish(ctx, false)
	case decideFailed:
		defer s.mu.Unlock()
		if s.state == StateOpen && s.lastToClose(w) {
			s.hold(eventHold, s.err.Error())
		}
		return s.err
	case decideKilled:
		defer s.mu.Unlock()
		if s.lastToClose(w) && w.closed {
			// Whoever closes last in good order learns that the file is not whole.
			s.holdKilled()
			return newError("close", s.Path(), syscall.EIO, "another writer of the file was killed: it is held, not published")
		}
		return nil
	}
	defer s.mu.Unlock()
	return s.err
}

// judge decides on a flush. The caller holds s.mu, settled.
func (s *Session) judge(w *Writer, c Caller) string {
	_, wrote := s.owners[c.Owner]
	delete(s.owners, c.Owner)
	if s.unlinked {
		return decideUnlinked
	}
	if (c.Killed || c.Unknown) && s.state == StateOpen && (wrote || c.TGID == w.opener && w.opener != 0) && s.e.o.OnKill != KillPublish {
		s.killed = max(c.Signal, 1)
		if !c.Killed {
			s.killed = int(unix.SIGKILL)
		}
		return decideKilled
	}
	switch {
	case c.TGID == 0:
		return decideInvisible
	case c.TGID != w.opener:
		return decideOther
	}
	w.closed = w.wrote
	switch {
	case s.err != nil:
		return decideFailed
	case s.state != StateOpen || !w.wrote || !s.written:
		return decideClean
	case s.killed != 0:
		return decideKilled
	case !s.lastToClose(w):
		return decideWriters
	case len(s.owners) > 0:
		return decideInherited
	}
	return decidePublish
}

// lastToClose reports whether every write handle but w has been closed by its
// opener. The caller holds s.mu.
func (s *Session) lastToClose(w *Writer) bool {
	for other := range s.writers {
		if other != w && !other.closed {
			return false
		}
	}
	return true
}

// Release ends the handle: no descriptor and no mapping refers to it any more.
// The last release of a session decides what no flush has: it publishes, or
// holds after a kill or a failure, or drops a file whose name is gone. In the
// mount nobody waits for the error; it is logged there, and the session held.
func (w *Writer) Release(ctx context.Context) error {
	s := w.s
	s.mu.Lock()
	if w.released {
		s.mu.Unlock()
		return nil
	}
	w.released = true
	s.settle()
	delete(s.writers, w)
	if len(s.writers) > 0 {
		// Perhaps this was the one that the others' closes had to wait for.
		ended := s.state == StateOpen && s.written && s.err == nil && s.killed == 0 && !s.unlinked &&
			s.lastToClose(w) && len(s.owners) == 0
		s.mu.Unlock()
		if ended {
			s.e.o.Observer.FlushDecision(decideRelease)
			return s.publish(ctx, false)
		}
		return nil
	}
	s.owners = nil
	switch {
	case s.unlinked:
		s.discard(endUnlinked)
	case s.state == StatePublished || s.state == StateAborted:
		s.dropBase()
	case s.state == StateHeld:
	case s.err != nil:
		s.e.o.Observer.FlushDecision(decideFailed)
		s.hold(eventHold, s.err.Error())
	case s.killed != 0:
		s.holdKilled()
	default:
		s.e.o.Observer.FlushDecision(decideRelease)
		s.mu.Unlock()
		err := s.publish(ctx, false)
		s.mu.Lock()
		s.retire()
		s.mu.Unlock()
		return err
	}
	s.retire()
	s.mu.Unlock()
	return nil
}

// retire lets the engine forget the session if nothing can happen to it. The
// caller holds s.mu.
func (s *Session) retire() {
	if s.ended() {
		s.dropBase()
		s.e.detach(s)
	}
}

// holdKilled does with a killed writer's session what --on-kill says. The
// caller holds s.mu.
func (s *Session) holdKilled() {
	reason := fmt.Sprintf("writer killed by %s", unix.SignalName(unix.Signal(s.killed)))
	if s.e.o.OnKill == KillAbort {
		s.e.o.Logger.Warn("session aborted", "session", s.id, "path", s.Path(), "reason", reason)
		s.discard(endKilled)
		return
	}
	s.hold(eventHold, reason)
}

// KeepBase keeps the published content at hand: its name is about to go away,
// and the next write through an open handle starts from it all the same.
func (s *Session) KeepBase() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != StatePublished || len(s.writers) == 0 {
		return
	}
	if _, _, err := s.openBase(); err != nil {
		s.e.o.Logger.Debug("published content cannot be kept for open handles", "path", s.Path(), "err", err)
	}
}

// Unlink tells the session that its name is gone: it is never published, its
// bytes stay readable through open handles, and it is dropped at the last
// release, or now if nobody writes. The caller holds the path frozen.
func (s *Session) Unlink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unlinked || s.state == StateAborted {
		return
	}
	s.unlinked = true
	if s.journaled {
		s.forget() // a crash must not bring the name back
	}
	s.e.mu.Lock()
	s.e.leave(s)
	s.e.nameless[s] = struct{}{}
	s.e.mu.Unlock()
	if len(s.writers) == 0 && s.state != StatePublishing {
		s.discard(endUnlinked)
		s.retire()
	}
}

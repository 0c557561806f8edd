package session

import (
	"context"
	"errors"
	"syscall"

	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/store"
)

// publish hands the file to the store and waits for the outcome, at most
// FlushTimeout: then the caller is told ETIMEDOUT and the store goes on. With
// force, missing bytes are published as holes.
func (s *Session) publish(ctx context.Context, force bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.e.o.FlushTimeout)
	done := make(chan error, 1)
	go func() {
		defer cancel()
		done <- s.publishNow(force)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		select {
		case err := <-done:
			return err
		default:
		}
		return newError("publish", s.Path(), syscall.ETIMEDOUT, "the store has not answered in %v; it goes on behind", s.e.o.FlushTimeout)
	}
}

// publishNow is the one way into the store. It ends in state published, or
// held with the reason, or leaves a session without a name as it is.
func (s *Session) publishNow(force bool) error {
	s.mu.Lock()
	s.settle()
	if s.state == StatePublished {
		s.mu.Unlock()
		return nil
	}
	if s.unlinked {
		s.mu.Unlock()
		return nil
	}
	if err := s.ready(force); err != nil {
		s.hold(eventHold, err.Error())
		s.mu.Unlock()
		return err
	}
	if err := s.step(eventPublish); err != nil {
		s.mu.Unlock()
		return err
	}
	s.mu.Unlock()

	start := s.e.o.Now()
	path, named := s.e.land(s)
	if !named {
		s.mu.Lock()
		err := s.step(eventUnname)
		s.idle.Broadcast()
		if len(s.writers) == 0 {
			s.discard(endUnlinked)
			s.retire()
		}
		s.mu.Unlock()
		return err
	}
	got, err := s.complete(path)
	took := s.e.o.Now().Sub(start)

	s.mu.Lock()
	if err != nil {
		err = wrapError("publish", path, err)
		s.hold(eventFail, err.Error())
		s.idle.Broadcast()
		s.mu.Unlock()
		s.e.landed(s)
		s.e.o.Observer.PublishDone("error", took)
		return err
	}
	size := s.size
	s.mu.Unlock()
	// The face learns of the new file before the session lets go of it, so that
	// at no moment neither of them shows it.
	if s.e.o.Hooks.Published != nil {
		s.e.o.Hooks.Published(s, path, got.Attr)
	}
	s.mu.Lock()
	forgotten := s.landedWhole(got)
	s.mu.Unlock()
	if forgotten != nil {
		// Before the path can change again, or a restart could not tell this
		// version from one that was lost.
		if err := forgotten.Wait(s.e.ctx); err != nil {
			s.e.o.Logger.Error("published, but the journal still has the session", "path", path, "err", err)
		}
	}
	s.e.landed(s)
	s.e.o.Observer.PublishDone("ok", took)
	s.e.o.Logger.Debug("published", "path", path, "bytes", size, "took", took)
	s.mu.Lock()
	s.idle.Broadcast()
	s.mu.Unlock()
	return nil
}

// ready checks that the file is whole (W1): nothing failed, and each byte was
// written or is a hole that the program made. The caller holds s.mu.
func (s *Session) ready(force bool) error {
	if s.err != nil {
		return s.err
	}
	if err := s.verify(); err != nil {
		return err
	}
	missing := s.cover.Missing()
	if len(missing) == 0 {
		return nil
	}
	if !force {
		return newError("publish", s.Path(), syscall.EIO,
			"%d ranges were never written, the first at %d+%d", len(missing), missing[0].Off, missing[0].Len())
	}
	for _, e := range missing {
		if err := s.staged.Punch(e); err != nil {
			return wrapError("publish", s.Path(), err)
		}
		s.cover.Punch(e)
	}
	return nil
}

// complete makes the file visible at path. It runs without s.mu in state
// publishing, when nobody else touches the version.
func (s *Session) complete(path string) (store.Published, error) {
	if err := s.staged.Drain(); err != nil {
		return store.Published{}, err
	}
	if err := s.beginUpload(); err != nil {
		return store.Published{}, err
	}
	receipts, err := s.sendParts()
	if err != nil {
		return store.Published{}, err
	}
	if err := s.recordPublishing(); err != nil {
		return store.Published{}, err
	}
	final := store.Final{
		Path: path, Size: s.size, Staged: s.staged, Base: s.baseID,
		Receipts: receipts, Durability: s.e.o.Durability,
	}
	got, err := s.upload.Complete(s.e.ctx, final)
	if err == nil {
		return got, nil
	}
	// A lost answer may hide a success: look, do not guess. What is left to do,
	// as making it durable, is done by completing once more.
	if done, lookErr := s.upload.Completed(s.e.ctx, final); lookErr == nil && done {
		return s.upload.Complete(s.e.ctx, final)
	}
	return got, err
}

// recordPublishing writes down that the file is about to become visible, when
// a restart has to know: if the session was journaled already, or if its
// publishing is not one step (several names, several parts).
func (s *Session) recordPublishing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.journaled && !s.linked {
		return nil
	}
	// Copying into a file of several names takes a while, and a restart must
	// be able to do it again; a rename is done or not, so for it nothing is
	// read that is not known anyway.
	if err := s.recordRemainder(s.linked); err != nil {
		return err
	}
	if err := s.record().Wait(s.e.ctx); err != nil || !s.linked {
		return err
	}
	// Half of a copy may reach the disk before a power loss.
	return s.e.o.Journal.Sync(s.e.ctx)
}

// landedWhole ends the version that the store now shows, and returns the
// removal of its record if it has one. The caller holds s.mu.
func (s *Session) landedWhole(got store.Published) (forgotten *journal.Commit) {
	_ = s.step(eventDone) // publishing: it cannot be refused
	if s.journaled {
		forgotten = s.e.o.Journal.Delete(s.id)
	}
	// Taken by rename, the staging name is gone already. Copied or sent, it is
	// not needed any more, once the journal does not ask for it.
	copied := got.InPlace || s.e.o.Store.Limits().EagerParts
	if copied && forgotten != nil {
		if err := forgotten.Wait(s.e.ctx); err != nil {
			copied = false // told below; the next start settles it
		}
	}
	s.dropStaging(copied)
	s.dropBase()
	s.upload, s.uploadID, s.parts, s.journaled = nil, "", nil, false
	s.written = false
	s.updated = s.e.o.Now()
	s.e.o.Observer.SessionEnded("published")
	return forgotten
}

// PublishID publishes the session with the given id or path, by command. With
// force a session with missing bytes is published too, with holes there.
func (e *Engine) PublishID(ctx context.Context, idOrPath string, force bool) error {
	s, err := e.find(idOrPath)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if len(s.writers) > 0 && s.state != StateHeld {
		n := len(s.writers)
		s.mu.Unlock()
		return newError("publish", s.Path(), syscall.EBUSY, "%d handles still write to it: close them first", n)
	}
	// The range that failed to be written is known to be missing; what is
	// there may be published if somebody says so.
	err = s.heal()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.publish(ctx, force); err != nil {
		return err
	}
	s.mu.Lock()
	s.retire()
	s.mu.Unlock()
	return nil
}

// RetryID publishes a held session whose publishing had failed.
func (e *Engine) RetryID(ctx context.Context, idOrPath string, force bool) error {
	return e.PublishID(ctx, idOrPath, force)
}

// errNoSession says that a command named nothing.
var errNoSession = errors.New("no such session: wholefs session ls lists them")

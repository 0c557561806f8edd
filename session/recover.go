package session

import (
	"context"
	"fmt"
	"time"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/store"
)

// Report is what Recover found.
type Report struct {
	Published int // publishing was finished, or had been
	Held      int // kept for someone to decide
	Lost      int // recorded, but the staging file is gone
	Orphans   int // staging files that no record names, removed
}

// Recover brings back what the journal knows after a start (W7): publishing is
// finished or undone, unfinished sessions are held, orphans are removed. It
// may be interrupted at any point and run again.
func (e *Engine) Recover(ctx context.Context) (Report, error) {
	var rep Report
	entries, err := e.o.Journal.Load(ctx)
	if err != nil {
		return rep, err
	}
	known := make(map[string]bool, len(entries))
	for _, entry := range entries {
		known[entry.Session.StagingName] = true
		result, err := e.recoverSession(ctx, entry)
		if err != nil {
			return rep, fmt.Errorf("recover session %s of %s: %w", entry.Session.ID, entry.Session.Path, err)
		}
		e.o.Observer.SessionRecovered(result)
		switch result {
		case "published":
			rep.Published++
		case "held":
			rep.Held++
		default:
			rep.Lost++
		}
	}
	names, err := e.o.Staging.List()
	if err != nil {
		return rep, err
	}
	for _, name := range names {
		if known[name] {
			continue
		}
		if err := e.o.Staging.Remove(name); err != nil {
			return rep, err
		}
		rep.Orphans++
		e.o.Observer.SessionRecovered("orphan")
	}
	if rep != (Report{}) {
		e.o.Logger.Info("recovered", "published", rep.Published, "held", rep.Held, "lost", rep.Lost, "orphans", rep.Orphans)
	}
	return rep, nil
}

// recoverSession brings one session back and tells what became of it.
func (e *Engine) recoverSession(ctx context.Context, entry journal.Entry) (string, error) {
	rec := entry.Session
	staged, stageErr := e.o.Staging.Open(rec.StagingName)
	if stageErr != nil {
		return e.recoverWithoutStaging(ctx, rec, stageErr)
	}
	s := e.newSession(rec.Path)
	s.id, s.staged, s.size = rec.ID, staged, rec.Size
	s.created, s.updated = rec.Created, rec.Updated
	s.journaled, s.unverified, s.linked = true, true, rec.Replaces
	s.uploadID, s.reason = rec.UploadID, rec.Reason
	if rec.Killed {
		s.killed = 1
	}
	if rec.PartSize != e.o.Layout.PartSize() {
		staged.Close()
		return "", fmt.Errorf("it was written with parts of %d bytes: mount with --part-size=%d once and end it, or abort it",
			rec.PartSize, rec.PartSize)
	}
	if err := s.restore(entry); err != nil {
		staged.Close()
		return "", err
	}
	if err := e.reserve(rec.Path); err != nil {
		staged.Close()
		return "", err
	}
	if err := e.attach(s); err != nil {
		staged.Close()
		e.unreserve()
		return "", err
	}
	if rec.State == journal.State(StatePublishing) {
		if done, err := s.finishPublishing(ctx); err != nil || done {
			return "published", err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.State == journal.State(StateOpen) {
		s.reason = "the daemon ended while the file was being written"
	}
	updated := s.updated
	s.hold(eventHold, s.reason)
	s.updated = updated // a restart does not prolong its TTL
	return "held", nil
}

// restore rebuilds what is known of the bytes. An orderly held session wrote
// its coverage down; of an interrupted one only the recorded parts are known.
func (s *Session) restore(entry journal.Entry) error {
	l := s.e.o.Layout
	s.parts = make(map[int64]store.Receipt, len(entry.Parts))
	var written, holes []chunker.Extent
	if entry.Session.Exact {
		for _, x := range entry.Session.Holes {
			holes = append(holes, chunker.Extent{Off: x[0], End: x[1]})
		}
		for _, x := range entry.Session.Written {
			written = append(written, chunker.Extent{Off: x[0], End: x[1]})
		}
	}
	size := s.size
	for _, p := range entry.Parts {
		off := p.Number * l.PartSize()
		s.parts[p.Number] = store.Receipt{
			Part:  store.Part{Number: p.Number, Offset: off, Size: p.Size, CRC: p.CRC},
			Token: p.Token,
		}
		size = max(size, off+p.Size)
	}
	s.size = size
	s.cover = chunker.NewCoverage(l)
	s.cover.Extend(size)
	s.cover.Lose(chunker.Extent{Off: 0, End: size})
	for _, e := range holes {
		s.cover.Punch(e)
	}
	for _, e := range written {
		s.cover.Write(e)
	}
	for _, r := range s.parts {
		e := chunker.Extent{Off: r.Offset, End: r.Offset + r.Size}
		if len(s.cover.Missing()) > 0 && overlapsAny(s.cover.Missing(), e) {
			s.cover.Write(e)
		}
	}
	if s.cover.Size() != size {
		return fmt.Errorf("its record is inconsistent: coverage of %d bytes in a file of %d", s.cover.Size(), size)
	}
	return nil
}

// recoverWithoutStaging settles a record whose staging file is gone: the store
// took it, or it is lost.
func (e *Engine) recoverWithoutStaging(ctx context.Context, rec journal.Session, cause error) (string, error) {
	result := "lost"
	if rec.UploadID != "" {
		plan := store.Plan{Path: rec.Path, PartSize: rec.PartSize}
		up, err := e.o.Store.Resume(ctx, rec.UploadID, plan)
		if err != nil {
			return "", err
		}
		done, err := up.Completed(ctx, store.Final{Path: rec.Path, Size: rec.Size})
		if err == nil && done {
			result = "published"
		}
	}
	if result == "lost" {
		e.o.Observer.IntegrityFailure("recovery")
		e.o.Logger.Error("the staging file of a recorded session is gone; what is published stays as it is",
			"session", rec.ID, "path", rec.Path, "staging", rec.StagingName, "err", cause)
	}
	return result, e.o.Journal.Delete(rec.ID).Wait(ctx)
}

// finishPublishing goes on where a crash interrupted publishing. It reports
// whether the file is published; if not, it is to be held.
func (s *Session) finishPublishing(ctx context.Context) (bool, error) {
	e := s.e
	plan := store.Plan{Path: s.path, PartSize: e.o.Layout.PartSize(), Staged: s.staged}
	up, err := e.o.Store.Resume(ctx, s.uploadID, plan)
	if err != nil {
		s.reason = fmt.Sprintf("publishing was interrupted and cannot go on: %v", err)
		return false, nil
	}
	s.upload = up
	if s.linked {
		// It was being copied into the file of several names that is there.
		if _, a, err := s.openBase(); err == nil {
			s.baseID = a.ID
		}
		s.dropBase()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range e.o.Layout.Count(s.size) {
		if r, ok := s.parts[p]; !ok || r.Size != e.o.Layout.Extent(p, s.size).Len() {
			s.reason = fmt.Sprintf("publishing was interrupted and part %d has no checksum", p)
			return false, nil
		}
	}
	if err := s.verify(); err != nil {
		return false, err
	}
	s.mu.Unlock()
	err = s.publish(ctx, false)
	s.mu.Lock()
	if err != nil {
		s.reason = fmt.Sprintf("publishing was interrupted, and failed again: %v", err)
		return false, nil
	}
	s.retire()
	e.o.Logger.Info("finished an interrupted publish", "session", s.id, "path", s.path, "after", time.Since(s.updated))
	return true, nil
}

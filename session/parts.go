package session

import (
	"context"
	"time"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/store"
)

// completeParts records parts that have just become whole. Their checksums
// are known already when the bytes came in order; else they are read from the
// staging file without s.mu, and believed if nobody wrote meanwhile. The
// caller holds s.mu and has a pending write, so that no version ends here.
func (s *Session) completeParts(parts []int64) {
	for _, p := range parts {
		if s.summing == nil {
			s.summing = make(map[int64]bool)
		}
		s.summing[p] = true
		staged, size := s.staged, s.size
		s.mu.Unlock()
		sum, err := staged.Sum(p, size)
		if err == nil && s.e.o.Durability == store.DurabilityPart {
			err = staged.Sync()
		}
		s.mu.Lock()
		untouched := s.summing[p]
		delete(s.summing, p)
		switch {
		case err != nil:
			s.fail(err)
		case untouched:
			s.recordPart(s.part(p, sum))
			s.sendEarly(p)
			s.e.o.Observer.PartCompleted()
		}
	}
}

// part describes part p of the file as it is now.
func (s *Session) part(p int64, sum uint32) store.Part {
	e := s.e.o.Layout.Extent(p, s.size)
	return store.Part{Number: p, Offset: e.Off, Size: e.Len(), CRC: sum}
}

// recordPart journals a part, and the session before its first. The caller
// holds s.mu.
func (s *Session) recordPart(p store.Part) *journal.Commit {
	if !s.journaled {
		s.record()
	}
	if s.parts == nil {
		s.parts = make(map[int64]store.Receipt)
	}
	s.parts[p.Number] = store.Receipt{Part: p}
	return s.e.o.Journal.PutPart(s.id, journal.Part{Number: p.Number, Size: p.Size, CRC: p.CRC})
}

// recordReceipt journals the store's answer to a part. The caller holds s.mu.
func (s *Session) recordReceipt(r store.Receipt) {
	s.parts[r.Number] = r
	s.e.o.Journal.PutPart(s.id, journal.Part{Number: r.Number, Size: r.Size, CRC: r.CRC, Token: r.Token})
}

// recordRemainder journals the parts that no record vouches for yet: the tail
// and those whose checksum was never needed. Only what is known is recorded:
// a part with missing bytes is left out. If read is not set, so are parts whose
// checksum would have to be read from the staging file. The caller holds s.mu,
// settled.
func (s *Session) recordRemainder(read bool) error {
	l := s.e.o.Layout
	missing := s.cover.Missing()
	for p := range l.Count(s.size) {
		e := l.Extent(p, s.size)
		if r, ok := s.parts[p]; ok && r.Size == e.Len() || overlapsAny(missing, e) {
			continue
		}
		sum, known := s.staged.KnownSum(p, s.size)
		switch {
		case known:
		case s.cover.Blank(e):
			sum = chunker.ZeroSum(e.Len())
		case !read:
			continue
		default:
			var err error
			if sum, err = s.staged.Sum(p, s.size); err != nil {
				return err
			}
		}
		s.recordPart(s.part(p, sum))
	}
	return nil
}

func overlapsAny(extents []chunker.Extent, e chunker.Extent) bool {
	for _, x := range extents {
		if x.Overlaps(e) {
			return true
		}
	}
	return false
}

// maxRecordedExtents bounds the coverage in a session's record. A held
// session that is more scattered keeps only its whole parts over a restart.
const maxRecordedExtents = 4096

// record journals the session as it is now. The caller holds s.mu.
func (s *Session) record() *journal.Commit {
	s.journaled = true
	r := journal.Session{
		ID: s.id, Path: s.Path(), State: journal.State(s.state), Reason: s.reason,
		Killed: s.killed != 0, PartSize: s.e.o.Layout.PartSize(), Size: s.size,
		Created: s.created, Updated: s.updated,
		UploadID: s.uploadID, StagingName: s.id, Replaces: s.linked,
	}
	if s.cover != nil && s.state != StateOpen {
		// While the session is open its coverage changes all the time, and a
		// crash leaves what no checksum vouches for unknown.
		holes, written := s.cover.Holes(), s.cover.Written()
		if len(holes)+len(written) <= maxRecordedExtents {
			r.Holes, r.Written, r.Exact = extents(holes), extents(written), true
		}
	}
	return s.e.o.Journal.Put(r)
}

func extents(in []chunker.Extent) []journal.Extent {
	out := make([]journal.Extent, len(in))
	for i, e := range in {
		out[i] = journal.Extent{e.Off, e.End}
	}
	return out
}

// Sync makes everything written so far durable in staging and journal, as
// fsync(2) asks. It publishes nothing.
func (w *Writer) Sync(ctx context.Context) error {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	if s.err != nil {
		return s.err
	}
	if s.state != StateOpen {
		return nil
	}
	if err := s.staged.Sync(); err != nil {
		s.fail(err)
		return s.err
	}
	s.record()
	err := s.recordRemainder(true)
	if err == nil {
		err = s.e.o.Journal.Sync(s.e.ctx)
	}
	if err != nil {
		return wrapError("fsync", s.Path(), err)
	}
	return nil
}

// verify reads back every part that was recorded before a crash and forgets
// those whose checksum does not match (W7: bytes are believed only if it
// does). The caller holds s.mu.
func (s *Session) verify() error {
	if !s.unverified {
		return nil
	}
	start := time.Now()
	// What lies beyond was acknowledged to a program that never closed, and no
	// checksum vouches for it.
	if err := s.staged.Truncate(s.size); err != nil {
		return wrapError("verify", s.Path(), err)
	}
	var lost []int64
	for p, r := range s.parts {
		if err := s.staged.Verify(p, r.Offset+r.Size, r.CRC); err != nil {
			lost = append(lost, p)
			s.cover.Lose(chunker.Extent{Off: r.Offset, End: r.Offset + r.Size})
			s.e.o.Observer.IntegrityFailure("recovery")
			s.e.o.Logger.Error("part is damaged; its bytes must be written again",
				"session", s.id, "path", s.Path(), "part", p, "offset", r.Offset, "err", err)
		}
	}
	s.unverified = false
	s.e.o.Logger.Info("verified staged parts", "session", s.id, "path", s.Path(),
		"parts", len(s.parts), "damaged", len(lost), "took", time.Since(start))
	return s.dropParts(lost)
}

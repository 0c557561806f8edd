package session

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/wholefs/wholefs/staging"
	"github.com/wholefs/wholefs/store"
)

// sendParallel is how many parts of one file are sent at once.
const sendParallel = 8

// sender sends the parts of one version while the file is still being written,
// to a store that wants them so (store.Limits.EagerParts). What it could not
// send is sent when the file is published.
type sender struct {
	// ctx ends when the version is dropped.
	ctx    context.Context
	cancel context.CancelFunc
	// Guarded by Session.mu: parts that wait, and workers at work.
	queue   []int64
	workers int
}

// sendEarly queues a part that has just been recorded. The caller holds s.mu.
func (s *Session) sendEarly(part int64) {
	if !s.e.o.Store.Limits().EagerParts {
		return
	}
	if s.send == nil {
		s.send = new(sender)
		s.send.ctx, s.send.cancel = context.WithCancel(s.e.ctx)
	}
	s.send.queue = append(s.send.queue, part)
	if s.send.workers < sendParallel {
		s.send.workers++
		go s.work(s.send, s.staged)
	}
}

// work sends queued parts until there is none, or one fails: then the store is
// not well, and what is left waits for the publish, whose error is told.
func (s *Session) work(q *sender, staged *staging.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(q.queue) > 0 && q.ctx.Err() == nil {
		part := q.queue[0]
		q.queue = q.queue[1:]
		r, ok := s.parts[part]
		if !ok || r.Token != "" {
			continue // rewritten meanwhile, or sent
		}
		s.mu.Unlock()
		got, err := s.sendPart(q.ctx, r.Part, staged)
		s.mu.Lock()
		if err != nil {
			if q.ctx.Err() == nil {
				s.e.o.Logger.Warn("part not sent yet; publishing tries again", "session", s.id, "path", s.Path(), "part", part, "err", err)
			}
			break
		}
		if now, ok := s.parts[part]; ok && now.Part == r.Part {
			s.recordReceipt(got)
		}
	}
	q.workers--
	if q.workers == 0 {
		s.idle.Broadcast()
	}
}

// sendPart sends one part, beginning the upload if need be.
func (s *Session) sendPart(ctx context.Context, p store.Part, staged *staging.File) (store.Receipt, error) {
	if err := s.beginUpload(); err != nil {
		return store.Receipt{}, err
	}
	return s.upload.PutPart(ctx, p, staged)
}

// stopSending waits for the workers, after they have finished what they send,
// or at once if the version is being dropped. The caller holds s.mu, which is
// released meanwhile.
func (s *Session) stopSending(drop bool) {
	if s.send == nil {
		return
	}
	if drop {
		s.send.cancel()
	}
	s.send.queue = nil
	for s.send.workers > 0 {
		s.idle.Wait()
	}
	s.send.cancel()
	s.send = nil
}

// beginUpload asks the store for an upload, once a version. Where the store is
// sent parts, its id is in the journal before the first of them.
func (s *Session) beginUpload() error {
	s.beginMu.Lock()
	defer s.beginMu.Unlock()
	s.mu.Lock()
	begun, known, staged := s.upload != nil, s.uploadID, s.staged
	s.mu.Unlock()
	if begun {
		return nil
	}
	plan := store.Plan{Path: s.Path(), PartSize: s.e.o.Layout.PartSize(), Staged: staged}
	var up store.Upload
	var err error
	if known != "" {
		up, err = s.e.o.Store.Resume(s.e.ctx, known, plan) // begun before a restart
	} else {
		up, err = s.e.o.Store.Begin(s.e.ctx, plan)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.upload, s.uploadID = up, up.ID()
	if known == "" && s.e.o.Store.Limits().EagerParts {
		return s.record().Wait(s.e.ctx)
	}
	return nil
}

// sendParts sends the parts that the store has no receipt for and returns all
// receipts in order. A store without EagerParts needs none.
func (s *Session) sendParts() ([]store.Receipt, error) {
	if !s.e.o.Store.Limits().EagerParts {
		return nil, nil
	}
	s.mu.Lock()
	s.stopSending(false)
	err := s.recordRemainder(true)
	receipts := make([]store.Receipt, 0, len(s.parts))
	for _, r := range s.parts {
		receipts = append(receipts, r)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(receipts, func(a, b store.Receipt) int { return int(a.Number - b.Number) })
	group, ctx := errgroup.WithContext(s.e.ctx)
	group.SetLimit(sendParallel)
	for i := range receipts {
		if receipts[i].Token != "" {
			continue
		}
		group.Go(func() error {
			got, err := s.upload.PutPart(ctx, receipts[i].Part, s.staged)
			if err != nil {
				return fmt.Errorf("part %d: %w", receipts[i].Number, err)
			}
			receipts[i] = got
			s.mu.Lock()
			defer s.mu.Unlock()
			s.recordReceipt(got)
			return nil
		})
	}
	return receipts, group.Wait()
}

package main

import (
	"context"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
	"github.com/wholefs/wholefs/telemetry"
)

// observedStore counts the publishing half of a store; the namespace half is
// counted as FUSE operations already.
type observedStore struct {
	store.Store
	metrics *telemetry.Metrics
}

// observe counts one request and returns its error.
func (s observedStore) observe(op string, start time.Time, err error) error {
	code := "OK"
	if err != nil {
		code = "error"
		if errno := unwrapErrno(err); errno != 0 {
			if code = unix.ErrnoName(errno); code == "" {
				code = strconv.Itoa(int(errno))
			}
		}
	}
	s.metrics.StoreRequest(op, code, time.Since(start))
	return err
}

// Begin starts an upload.
func (s observedStore) Begin(ctx context.Context, p store.Plan) (store.Upload, error) {
	start := time.Now()
	u, err := s.Store.Begin(ctx, p)
	if s.observe("begin", start, err) != nil {
		return nil, err
	}
	return observedUpload{u, s}, nil
}

// Resume finds an upload again.
func (s observedStore) Resume(ctx context.Context, id string, p store.Plan) (store.Upload, error) {
	start := time.Now()
	u, err := s.Store.Resume(ctx, id, p)
	if s.observe("resume", start, err) != nil {
		return nil, err
	}
	return observedUpload{u, s}, nil
}

type observedUpload struct {
	store.Upload
	store observedStore
}

// PutPart sends one part.
func (u observedUpload) PutPart(ctx context.Context, p store.Part, r io.ReaderAt) (store.Receipt, error) {
	start := time.Now()
	receipt, err := u.Upload.PutPart(ctx, p, r)
	return receipt, u.store.observe("put_part", start, err)
}

// Parts lists what the store has received.
func (u observedUpload) Parts(ctx context.Context) ([]store.Receipt, error) {
	start := time.Now()
	list, err := u.Upload.Parts(ctx)
	return list, u.store.observe("parts", start, err)
}

// Complete makes the file visible.
func (u observedUpload) Complete(ctx context.Context, f store.Final) (store.Published, error) {
	start := time.Now()
	published, err := u.Upload.Complete(ctx, f)
	return published, u.store.observe("complete", start, err)
}

// Completed reports whether the file is visible already.
func (u observedUpload) Completed(ctx context.Context, f store.Final) (bool, error) {
	start := time.Now()
	done, err := u.Upload.Completed(ctx, f)
	return done, u.store.observe("completed", start, err)
}

// Abort frees what the store keeps of the upload.
func (u observedUpload) Abort(ctx context.Context) error {
	start := time.Now()
	return u.store.observe("abort", start, u.Upload.Abort(ctx))
}

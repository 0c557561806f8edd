package session

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

// partStore is a directory that is sent parts, as a bucket is: they lie as
// files beneath uploads until Complete puts them together. It counts what it
// is sent.
type partStore struct {
	store.Store
	uploads string

	mu   sync.Mutex
	sent map[int64]int
	fail error
}

func (p *partStore) Limits() store.Limits { return store.Limits{EagerParts: true} }

func (p *partStore) Begin(ctx context.Context, plan store.Plan) (store.Upload, error) {
	return p.Resume(ctx, uuid.NewString(), plan)
}

func (p *partStore) Resume(_ context.Context, id string, plan store.Plan) (store.Upload, error) {
	dir := filepath.Join(p.uploads, id)
	return &partUpload{p: p, id: id, dir: dir}, os.MkdirAll(dir, 0o700)
}

type partUpload struct {
	p       *partStore
	id, dir string
}

func (u *partUpload) ID() string { return u.id }
func (u *partUpload) name(n int64) string {
	return filepath.Join(u.dir, fmt.Sprint(n))
}

func (u *partUpload) PutPart(_ context.Context, part store.Part, r io.ReaderAt) (store.Receipt, error) {
	u.p.mu.Lock()
	defer u.p.mu.Unlock()
	if u.p.fail != nil {
		return store.Receipt{}, u.p.fail
	}
	u.p.sent[part.Number]++
	b, err := io.ReadAll(io.NewSectionReader(r, part.Offset, part.Size))
	if err != nil || int64(len(b)) != part.Size {
		return store.Receipt{}, fmt.Errorf("part of %d bytes: %w", len(b), syscall.EIO)
	}
	return store.Receipt{Part: part, Token: fmt.Sprintf("etag-%08x", part.CRC)}, os.WriteFile(u.name(part.Number), b, 0o600)
}

func (u *partUpload) Parts(context.Context) ([]store.Receipt, error) { return nil, nil }

func (u *partUpload) Complete(_ context.Context, f store.Final) (store.Published, error) {
	var whole []byte
	for i, r := range f.Receipts {
		if r.Number != int64(i) || r.Token != fmt.Sprintf("etag-%08x", r.CRC) {
			return store.Published{}, fmt.Errorf("receipt %d is %+v: %w", i, r, syscall.EIO)
		}
		b, err := os.ReadFile(u.name(r.Number))
		if err != nil {
			return store.Published{}, err
		}
		whole = append(whole, b...)
	}
	if int64(len(whole)) != f.Size {
		return store.Published{}, syscall.EIO
	}
	tmp := filepath.Join(u.dir, "whole")
	if err := os.WriteFile(tmp, whole, 0o600); err != nil {
		return store.Published{}, err
	}
	if err := os.Rename(tmp, filepath.Join(u.p.String(), f.Path)); err != nil {
		return store.Published{}, err
	}
	os.RemoveAll(u.dir)
	dir, err := u.p.OpenDir(parentOf(f.Path))
	if err != nil {
		return store.Published{}, err
	}
	defer dir.Close()
	a, err := dir.Lookup(baseName(f.Path))
	return store.Published{Attr: a}, err
}

func (u *partUpload) Completed(context.Context, store.Final) (bool, error) {
	_, err := os.Stat(u.dir)
	return os.IsNotExist(err), nil
}

func (u *partUpload) Abort(context.Context) error { return os.RemoveAll(u.dir) }

// newPartWorld is a world whose store is sent parts.
func newPartWorld(t *testing.T) (*world, *partStore, func(*Options)) {
	p := &partStore{uploads: t.TempDir(), sent: map[int64]int{}}
	use := func(o *Options) { p.Store = o.Store; o.Store = p }
	return newWorld(t, use), p, use
}

func (p *partStore) counts() map[int64]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := map[int64]int{}
	for k, v := range p.sent {
		c[k] = v
	}
	return c
}

func TestPartsAreSentWhileTheFileIsWritten(t *testing.T) {
	w, p, _ := newPartWorld(t)
	s, h := w.create("f")
	data := pattern(3*testPart+9, 1)
	writeAt(t, h, 0, data[:3*testPart], 1)
	require.Eventually(t, func() bool { return len(p.counts()) == 3 }, testDeadline, testPoll)
	writeAt(t, h, 3*testPart, data[3*testPart:], 1)
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	require.Equal(t, map[int64]int{0: 1, 1: 1, 2: 1, 3: 1}, p.counts(), "only the tail was left for the close")
	require.True(t, bytes.Equal(data, w.published("f")))
	h.Release(ctx)
	require.True(t, s.Ended())
	require.Empty(t, w.leftovers())
}

func TestRewrittenPartIsSentAgain(t *testing.T) {
	w, p, _ := newPartWorld(t)
	_, h := w.create("f")
	data := pattern(2*testPart, 2)
	writeAt(t, h, 0, data, 1)
	require.Eventually(t, func() bool { return len(p.counts()) == 2 }, testDeadline, testPoll)
	writeAt(t, h, 3, []byte("header"), 1)
	copy(data[3:], "header")
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	require.Equal(t, map[int64]int{0: 2, 1: 1}, p.counts())
	require.True(t, bytes.Equal(data, w.published("f")))
}

func TestCrashResumesByPart(t *testing.T) {
	w, p, use := newPartWorld(t)
	s, h := w.create("f")
	data := pattern(2*testPart, 3)
	writeAt(t, h, 0, data, 1)
	require.Eventually(t, func() bool { return s.Info().PartsComplete == 2 && len(p.counts()) == 2 }, testDeadline, testPoll)
	s.mu.Lock()
	s.stopSending(false)
	s.mu.Unlock()
	require.NoError(t, w.journal.Sync(ctx))
	w.crash()
	require.Equal(t, Report{Held: 1}, w.start(use))
	require.NoError(t, w.PublishID(ctx, "f", false))
	require.Equal(t, map[int64]int{0: 1, 1: 1}, p.counts(), "no complete part is sent twice")
	require.True(t, bytes.Equal(data, w.published("f")))
	left, err := os.ReadDir(p.uploads)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestStoreFailureIsToldAtTheClose(t *testing.T) {
	w, p, _ := newPartWorld(t)
	p.fail = syscall.EDQUOT
	s, h := w.create("f")
	writeAt(t, h, 0, pattern(2*testPart, 4), 1)
	require.ErrorIs(t, h.Flush(ctx, flushBy(me, 1)), syscall.EDQUOT)
	h.Release(ctx)
	require.Equal(t, StateHeld, s.State())
	require.Nil(t, w.published("f"))
	p.mu.Lock()
	p.fail = nil
	p.mu.Unlock()
	require.NoError(t, w.RetryID(ctx, "f", false))
	require.Len(t, w.published("f"), 2*testPart)
}

func TestAbortAfterACrashFreesTheUpload(t *testing.T) {
	w, p, use := newPartWorld(t)
	_, h := w.create("f")
	writeAt(t, h, 0, pattern(testPart, 6), 1)
	require.Eventually(t, func() bool { return len(p.counts()) == 1 }, testDeadline, testPoll)
	require.NoError(t, w.journal.Sync(ctx))
	w.crash()
	w.start(use)
	require.NoError(t, w.AbortID(ctx, "f"))
	left, err := os.ReadDir(p.uploads)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestAbortFreesTheUpload(t *testing.T) {
	w, p, _ := newPartWorld(t)
	_, h := w.create("f")
	writeAt(t, h, 0, pattern(2*testPart, 5), 1)
	require.Eventually(t, func() bool { return len(p.counts()) == 2 }, testDeadline, testPoll)
	require.NoError(t, w.AbortID(ctx, "f"))
	left, err := os.ReadDir(p.uploads)
	require.NoError(t, err)
	require.Empty(t, left)
	h.Release(ctx)
}

package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadersEndWhenAsked(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{})
	j.Put(session("a"))
	for i := range int64(5000) {
		j.PutPart("a", part(i))
	}
	require.NoError(t, j.Sync(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := j.Load(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, err = j.Get(ctx, "a")
	require.ErrorIs(t, err, context.Canceled)

	mine := errors.New("enough")
	require.Equal(t, mine, j.Walk(t.Context(), func(Entry) error { return mine }))

	// Close does not wait for a walk longer than for one session.
	j.Put(session("b"))
	for i := range int64(5000) {
		j.PutPart("b", part(i))
	}
	require.NoError(t, j.Sync(t.Context()))
	closed := make(chan error, 1)
	err = j.Walk(t.Context(), func(Entry) error {
		go func() { closed <- j.Close() }()
		<-j.closing
		select {
		case <-closed:
			t.Error("the database was closed under a reader")
		case <-time.After(50 * time.Millisecond):
		}
		return nil
	})
	require.ErrorIs(t, err, ErrClosed)
	require.NoError(t, <-closed)
}

// A Walk's function may write more than the queue holds while the writer is
// copying a generation.
func TestWalkMayWrite(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{garbageFloor: 1})
	const n = 200
	for i := range n {
		j.Put(session(fmt.Sprintf("%04d", i)))
	}
	require.NoError(t, j.Sync(t.Context()))
	seen := 0
	require.NoError(t, j.Walk(t.Context(), func(e Entry) error {
		for i := range int64(200) {
			j.PutPart(e.Session.ID, part(i))
		}
		seen += 1 + len(e.Parts)
		return nil
	}))
	require.Equal(t, n, seen, "a walk shows what was there when it began")
	require.NoError(t, j.Sync(t.Context()))
	all := mustLoad(t, j)
	require.Len(t, all, n)
	for _, e := range all {
		require.Len(t, e.Parts, 200)
	}
	require.Eventually(t, func() bool { return !slices.Contains(names(t, j.dir), firstGeneration) }, 10*time.Second, time.Millisecond)
}

func TestConcurrentCallers(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{garbageFloor: 64 << 10})
	const callers, rounds = 8, 300
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			id := fmt.Sprint("s", c)
			s := session(id)
			j.Put(s)
			for i := range int64(rounds) {
				j.PutPart(id, part(i))
				if i%3 == 0 {
					j.DropParts(id, i)
				}
				if i%50 == 0 {
					s.Size = i
					assert.NoError(t, j.Put(s).Wait(t.Context()))
					e, err := j.Get(t.Context(), id)
					assert.NoError(t, err)
					assert.Equal(t, i, e.Session.Size, "a caller reads what it has waited for")
				}
				if i%100 == 0 {
					_, err := j.Load(t.Context())
					assert.NoError(t, err)
					_ = j.Stats()
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, j.Sync(t.Context()))
	all := mustLoad(t, j)
	require.Len(t, all, callers)
	for _, e := range all {
		require.Len(t, e.Parts, rounds-rounds/3)
	}
}

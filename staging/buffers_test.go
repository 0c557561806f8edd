package staging

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestBuffersAreAlignedAndWhole(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 1<<20 + 4096, 1<<20 + 1} {
		b := NewBuffers(size, 1)
		buf, err := b.Get(t.Context())
		require.NoError(t, err)
		p := buf.Bytes()
		require.Len(t, p, max(size, 1))
		require.Zero(t, uintptr(unsafe.Pointer(&p[0]))%uintptr(os.Getpagesize()), "not at a page")
		p[0], p[len(p)-1] = 1, 1
		buf.Release()
	}
}

func TestBuffersLimit(t *testing.T) {
	const size = 4096
	for _, count := range []int{0, 1, 2, 5} {
		b := NewBuffers(size, count)
		limit := max(count, 1)
		require.Equal(t, BuffersStats{Limit: int64(limit) * size}, b.Stats(), "nothing is allocated before it is needed")
		var held []*Buffer
		for i := range limit {
			held = append(held, b.TryGet())
			require.NotNil(t, held[i])
			require.Equal(t, BuffersStats{int64(i+1) * size, int64(i+1) * size, int64(limit) * size, 0}, b.Stats())
		}
		require.Nil(t, b.TryGet(), "one more than the limit")
		last := held[limit-1]
		last.Release()
		require.Equal(t, int64(limit)*size, b.Stats().Allocated, "released is not freed")
		require.Equal(t, int64(limit-1)*size, b.Stats().InUse)
		require.Same(t, last, b.TryGet())
	}
}

func TestBuffersLastReleasedIsFirstUsed(t *testing.T) {
	b := NewBuffers(1, 3)
	x, y, z := b.TryGet(), b.TryGet(), b.TryGet()
	y.Release()
	z.Release()
	x.Release()
	require.Same(t, x, b.TryGet())
	require.Same(t, z, b.TryGet())
	require.Same(t, y, b.TryGet())
}

func TestBuffersGetWaitsInOrder(t *testing.T) {
	b := NewBuffers(1, 1)
	held := b.TryGet()
	order := make(chan int, 3)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			buf, err := b.Get(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			order <- i
			buf.Release()
		})
		eventually(t, "it waits", func() bool { return b.waiting() == i+1 })
	}
	time.Sleep(5 * time.Millisecond)
	during := b.Stats().WaitSeconds
	require.GreaterOrEqual(t, during, 0.015, "three wait for 5 ms each, and are still waiting")
	held.Release()
	wg.Wait()
	require.Equal(t, []int{0, 1, 2}, []int{<-order, <-order, <-order})
	after := b.Stats()
	require.GreaterOrEqual(t, after.WaitSeconds, during)
	require.Equal(t, BuffersStats{0, 1, 1, after.WaitSeconds}, after)
}

func (b *Buffers) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiters)
}

func TestBuffersGetGivesUp(t *testing.T) {
	b := NewBuffers(1, 1)
	held := b.TryGet()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	_, err := b.Get(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Zero(t, b.waiting())
	require.Greater(t, b.Stats().WaitSeconds, 0.004)
	held.Release()
	require.Same(t, held, b.TryGet(), "the buffer did not go to one that gave up")
}

// Cancellation and handing over race; no buffer may be lost by it.
func TestBuffersNoneIsLost(t *testing.T) {
	b := NewBuffers(1, 2)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%20)*time.Microsecond)
				if buf, err := b.Get(ctx); err == nil {
					buf.Bytes()[0]++ // the race detector sees one with two owners
					time.Sleep(time.Microsecond)
					buf.Release()
				}
				cancel()
				if i%50 == 0 {
					b.Trim()
					_ = b.Stats()
				}
			}
		})
	}
	wg.Wait()
	s := b.Stats()
	require.Zero(t, s.InUse)
	require.LessOrEqual(t, s.Allocated, s.Limit)
	require.NotNil(t, b.TryGet())
	require.NotNil(t, b.TryGet())
	require.Nil(t, b.TryGet())
}

func TestBuffersTrim(t *testing.T) {
	b := NewBuffers(1, 20)
	var held []*Buffer
	for range 10 {
		held = append(held, b.TryGet())
	}
	for _, buf := range held[:8] {
		buf.Release()
	}
	b.Trim()
	require.Equal(t, BuffersStats{InUse: 2, Allocated: 2 + idleKept, Limit: 20}, b.Stats())
	require.Same(t, held[7], b.TryGet(), "the hottest stays")
	held[9].Bytes()[0] = 1 // those in use are untouched
	b.Trim()
	require.Equal(t, int64(2+idleKept), b.Stats().Allocated)
}

func TestBufferReleasedTwicePanics(t *testing.T) {
	buf := NewBuffers(1, 1).TryGet()
	buf.Release()
	require.PanicsWithValue(t, "staging: buffer released twice", buf.Release)
}

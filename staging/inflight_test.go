package staging

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
)

func extent(off, end int64) chunker.Extent { return chunker.Extent{Off: off, End: end} }

// blocked starts call, checks that it does not return as long as nothing else
// happens, and gives a function that waits for it.
func blocked(t *testing.T, f *File, call func()) (join func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		call()
	}()
	select {
	case <-done:
		t.Fatal("did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	return func() {
		t.Helper()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("waits still")
		}
	}
}

// Whoever reads or changes the file waits for a write in flight in its range,
// and not for one outside.
func TestWhoWaitsForAWriteInFlight(t *testing.T) {
	const off, n = 2 * testPart, testPart
	buf := make([]byte, 100)
	src, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer src.Close()
	for name, c := range map[string]struct {
		call  func(f *File)
		waits bool
	}{
		"Begin inside":       {func(f *File) { _ = f.Begin(off+10, 1); f.Cancel(off+10, 1) }, true},
		"Begin at its end":   {func(f *File) { _ = f.Begin(off+n, 1); f.Cancel(off+n, 1) }, false},
		"Begin before":       {func(f *File) { _ = f.Begin(0, off); f.Cancel(0, off) }, false},
		"Begin one byte in":  {func(f *File) { _ = f.Begin(0, off+1); f.Cancel(0, off+1) }, true},
		"ReadAt inside":      {func(f *File) { _, _ = f.ReadAt(buf, off+50) }, true},
		"ReadAt before":      {func(f *File) { _, _ = f.ReadAt(buf, off-100) }, false},
		"ReadAt one byte in": {func(f *File) { _, _ = f.ReadAt(buf, off-99) }, true},
		"Wait on it":         {func(f *File) { f.Wait(extent(off, off+1)) }, true},
		"Wait behind it":     {func(f *File) { f.Wait(extent(off+n, math.MaxInt64)) }, false},
		"Drain":              {func(f *File) { _ = f.Drain() }, true},
		"Sync":               {func(f *File) { _ = f.Sync() }, true},
		"Sum of the part":    {func(f *File) { _, _ = f.Sum(2, 4*testPart) }, true},
		"Sum of another":     {func(f *File) { _, _ = f.Sum(1, 4*testPart) }, false},
		"Verify of the part": {func(f *File) { _ = f.Verify(2, 4*testPart, 0) }, true},
		"Verify of another":  {func(f *File) { _ = f.Verify(3, 4*testPart, 0) }, false},
		"SeekData before":    {func(f *File) { _, _ = f.SeekData(0) }, true},
		"SeekHole behind":    {func(f *File) { _, _ = f.SeekHole(off + n) }, false},
		"Truncate":           {func(f *File) { _ = f.Truncate(5) }, true},
		"Punch elsewhere":    {func(f *File) { _ = f.Punch(extent(0, 5)) }, true},
		"Zero elsewhere":     {func(f *File) { _ = f.Zero(extent(0, 5)) }, true},
		"Allocate elsewhere": {func(f *File) { _ = f.Allocate(extent(0, 5), true) }, true},
		"CloneFrom":          {func(f *File) { _ = f.CloneFrom(src, 0) }, true},
		"Close":              {func(f *File) { _ = f.Close() }, true},
		"Err":                {func(f *File) { _ = f.Err() }, false},
		"Usage":              {func(f *File) { f.dir.Usage() }, false},
		"Remove":             {func(f *File) { _ = f.Remove() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTestFile(t, Options{})
			require.NoError(t, f.Truncate(4*testPart))
			require.NoError(t, f.Begin(off, n))
			if !c.waits {
				done := make(chan struct{})
				go func() { defer close(done); c.call(f) }()
				select {
				case <-done:
				case <-time.After(10 * time.Second):
					t.Error("waits for a write that does not concern it")
				}
				require.NoError(t, f.Finish(off, make([]byte, n)))
				return
			}
			join := blocked(t, f, func() { c.call(f) })
			require.NoError(t, f.Finish(off, make([]byte, n)))
			join()
		})
	}
}

func TestInFlightLimit(t *testing.T) {
	for _, limit := range []int{0, 1, 3} {
		f := newTestFile(t, Options{InFlight: limit})
		n := limit
		if n == 0 {
			n = DefaultInFlight
		}
		for i := range int64(n) {
			require.NoError(t, f.Begin(i*100, 10))
		}
		join := blocked(t, f, func() { _ = f.Begin(10_000, 10) })
		f.Cancel(0, 10)
		join()
		for i := range int64(n) {
			f.Cancel(i*100, 10)
		}
		f.Cancel(10_000, 10)
		require.NoError(t, f.Drain())
	}
}

// Those that wait go in the order in which they came, also where a later one
// could go at once: nobody starves.
func TestWaitersAreServedInOrder(t *testing.T) {
	const apart = 3 // the one that overlaps no other
	f := newTestFile(t, Options{InFlight: 8})
	require.NoError(t, f.Begin(0, 100))
	order := make(chan int, 6)
	var wg sync.WaitGroup
	for i := range 6 {
		off := int64(0)
		if i == apart {
			off = 1000
		}
		wg.Go(func() {
			if err := f.Begin(off, 100); err != nil {
				t.Error(err)
			}
			if i != apart {
				order <- i
			}
			f.Cancel(off, 100)
		})
		eventually(t, "it waits", func() bool { return f.waiting() == i+1 })
	}
	f.Cancel(0, 100)
	wg.Wait()
	close(order)
	var got []int
	for i := range order {
		got = append(got, i)
	}
	require.Equal(t, []int{0, 1, 2, 4, 5}, got)
	require.Zero(t, f.waiting())
}

// Several that can go at the same moment all go, in whatever order the
// scheduler wakes them: none may wait for another one's Finish.
func TestTheTurnPassesOn(t *testing.T) {
	const n = 6
	f := newTestFile(t, Options{InFlight: n})
	for range 200 {
		require.NoError(t, f.Begin(0, 1000))
		var begun sync.WaitGroup
		for i := range int64(n) {
			begun.Go(func() { _ = f.Begin(i*100, 100) })
		}
		eventually(t, "all wait", func() bool { return f.waiting() == n })
		f.Cancel(0, 1000)
		all := make(chan struct{})
		go func() { begun.Wait(); close(all) }()
		select {
		case <-all:
		case <-time.After(10 * time.Second):
			t.Fatal("one waits although its range is free")
		}
		for i := range int64(n) {
			f.Cancel(i*100, 100)
		}
	}
}

// A change of the whole file gets its turn although writes keep coming.
func TestChangesAreNotStarvedByWriters(t *testing.T) {
	f := newTestFile(t, Options{InFlight: 2})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range int64(4) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = f.Write(w*testPart, make([]byte, testPart))
				}
			}
		})
	}
	for range 50 {
		require.NoError(t, f.Truncate(0))
		require.NoError(t, f.Drain())
		_, _ = f.ReadAt(make([]byte, 10), 0)
		_, err := f.Sum(0, 0)
		require.NoError(t, err)
	}
	close(stop)
	wg.Wait()
}

// A write that overlaps one in flight must reach the file after it: the last
// one to begin wins, in the file and in the sums.
func TestOverlappingWritersKeepTheOrderOfBegin(t *testing.T) {
	const size = int(4 * testPart)
	f := newTestFile(t, Options{InFlight: 6})
	require.NoError(t, f.Truncate(int64(size)))
	model := make([]byte, size)
	var order sync.Mutex // makes the order of Begin known to the model
	var wg sync.WaitGroup
	for w := range uint64(6) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 5))
			for range 150 {
				off := rnd.IntN(size - 1)
				n := 1 + rnd.IntN(min(size-off, 6000))
				p := random(rnd.Uint64(), n)
				order.Lock()
				err := f.Begin(int64(off), int64(n))
				if err == nil {
					copy(model[off:], p)
				}
				order.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				if rnd.IntN(3) == 0 {
					time.Sleep(time.Duration(rnd.IntN(50)) * time.Microsecond)
				}
				if err := f.Finish(int64(off), p); err != nil {
					t.Error(err)
				}
			}
		})
	}
	// Readers and sums meanwhile: of no certain value, but without a race.
	for range 2 {
		wg.Go(func() {
			p := make([]byte, 5000)
			for i := range int64(100) {
				_, _ = f.ReadAt(p, i*97%int64(size))
				_, _ = f.Sum(i%4, int64(size))
			}
		})
	}
	wg.Wait()
	require.NoError(t, f.Drain())
	require.True(t, slices.Equal(model, content(t, f)), "the file is not what was written last")
	requireSums(t, f, model)
}

func TestReadSeesBytesInFlight(t *testing.T) {
	f := newTestFile(t, Options{})
	data := random(4, 1000)
	require.NoError(t, f.Begin(500, 1000))
	got := make([]byte, 1000)
	join := blocked(t, f, func() { _, _ = f.ReadAt(got, 500) })
	require.NoError(t, f.Finish(500, data))
	join()
	require.Equal(t, data, got)
}

// Wait and Drain wait for what had begun, not for what begins later.
func TestWaitIsNotHeldUpByLaterWrites(t *testing.T) {
	f := newTestFile(t, Options{})
	require.NoError(t, f.Begin(0, 10))
	join := blocked(t, f, func() { f.Wait(extent(0, 100)) })
	require.NoError(t, f.Begin(50, 10))
	require.NoError(t, f.Finish(0, make([]byte, 10)))
	join()
	f.Cancel(50, 10)
}

func TestFinishWithoutBegin(t *testing.T) {
	for name, finish := range map[string]func(f *File) error{
		"nothing begun":     func(f *File) error { return f.Finish(5, []byte("data")) },
		"another offset":    func(f *File) error { _ = f.Begin(0, 4); defer f.Cancel(0, 4); return f.Finish(1, []byte("dat")) },
		"more than begun":   func(f *File) error { _ = f.Begin(0, 3); return f.Finish(0, []byte("data")) },
		"after its Finish":  func(f *File) error { _ = f.Write(0, nil); return f.Finish(0, []byte("data")) },
		"after its Cancel":  func(f *File) error { _ = f.Begin(0, 4); f.Cancel(0, 4); return f.Finish(0, []byte("data")) },
		"cancelled by half": func(f *File) error { _ = f.Begin(0, 4); f.Cancel(0, 2); return f.Finish(0, []byte("data")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newTestFile(t, Options{})
			err := finish(f)
			require.ErrorIs(t, err, errNotBegun)
			require.ErrorIs(t, err, unix.EIO)
			require.Equal(t, err, f.Err(), "acknowledged bytes that have no place poison the file")
			require.Empty(t, content(t, f))
			require.Equal(t, err, f.Drain(), "nothing is left in flight")
		})
	}
}

func TestFinishWithFewerBytes(t *testing.T) {
	f := newTestFile(t, Options{})
	require.NoError(t, f.Begin(0, 1000))
	require.NoError(t, f.Finish(0, []byte("short")))
	require.NoError(t, f.Begin(500, 100))
	require.NoError(t, f.Finish(500, nil))
	require.NoError(t, f.Drain())
	require.Equal(t, "short", string(content(t, f)))
	requireSums(t, f, []byte("short"))
}

func TestCloseWaitsAndRefuses(t *testing.T) {
	f := newTestFile(t, Options{})
	require.NoError(t, f.Begin(0, 4))
	other := blocked(t, f, func() {
		if err := f.Begin(2, 2); !errors.Is(err, os.ErrClosed) {
			t.Errorf("a write that waits when the file closes: %v", err)
		}
	})
	join := blocked(t, f, func() { _ = f.Close() })
	second := blocked(t, f, func() { _ = f.Close() })
	other()
	require.NoError(t, f.Finish(0, []byte("data")))
	join()
	second()
	require.NoError(t, f.Close())

	src, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer src.Close()
	for name, err := range map[string]error{
		"Begin":     f.Begin(0, 1),
		"Write":     f.Write(0, []byte("x")),
		"Truncate":  f.Truncate(0),
		"Punch":     f.Punch(extent(0, 1)),
		"Sync":      f.Sync(),
		"CloneFrom": f.CloneFrom(src, 0),
		"Verify":    f.Verify(0, 1, 0),
		"ReadAt":    second2(f.ReadAt(make([]byte, 1), 0)),
		"Sum":       second2(f.Sum(0, 4)),
		"SeekData":  second2(f.SeekData(0)),
	} {
		require.ErrorIs(t, err, os.ErrClosed, name)
	}
	bytes, files := f.dir.Usage()
	require.Zero(t, bytes)
	require.Zero(t, files)
	require.NoError(t, f.Remove(), "a closed file can still be removed")
}

// Close must not take the descriptor away from a call that uses it: the number
// could belong to another file a moment later.
func TestCloseWaitsForReaders(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	require.NoError(t, f.Write(0, []byte("data")))
	reading, goOn := make(chan struct{}), make(chan struct{})
	h.set(func(op Op, _, n int) (int, error) {
		if op == OpRead {
			close(reading)
			<-goOn
		}
		return n, nil
	})
	p := make([]byte, 4)
	read := make(chan error)
	go func() { read <- second2(f.ReadAt(p, 0)) }()
	<-reading
	join := blocked(t, f, func() { _ = f.Close() })
	require.ErrorIs(t, second2(f.ReadAt(p, 0)), os.ErrClosed, "new calls are refused meanwhile")
	close(goOn)
	require.NoError(t, <-read)
	require.Equal(t, "data", string(p))
	join()
}

func second2[T any](_ T, err error) error { return err }

func TestBeginFinishDoNotAllocate(t *testing.T) {
	f := newTestFile(t, Options{Layout: mustLayout(t, 1<<30)})
	data := make([]byte, 4096)
	off := int64(0)
	n := testing.AllocsPerRun(500, func() {
		if f.Begin(off, 4096) != nil || f.Finish(off, data) != nil {
			t.Error("failed")
		}
		off += 4096
	})
	require.Zero(t, n)
}

func mustLayout(t testing.TB, size int64) chunker.Layout {
	t.Helper()
	l, err := chunker.NewLayout(size)
	require.NoError(t, err)
	return l
}

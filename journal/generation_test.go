package journal

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// garbage writes parts and drops them, until the journal has been looked at
// for garbage: several logs. What is left is parts 0 to 9.
func garbage(j *Journal, rounds int) *Commit {
	for range rounds {
		const n = 2500 // more than one transaction holds, which would keep the last of each key only
		drop := make([]int64, n)
		for i := range drop {
			drop[i] = 100 + int64(i)
			j.PutPart("a", part(drop[i]))
		}
		j.DropParts("a", drop...)
	}
	for i := range int64(9) {
		j.PutPart("a", part(i))
	}
	return j.PutPart("a", part(9))
}

func fill(t *testing.T, j *Journal) {
	t.Helper()
	require.NoError(t, garbage(j, 15).Wait(t.Context()))
	require.NoError(t, j.Sync(t.Context()))
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	all, err := generations(dir)
	require.NoError(t, err)
	return all
}

func wantA() []Entry {
	e := Entry{Session: session("a")}
	for i := range int64(10) {
		e.Parts = append(e.Parts, part(i))
	}
	return []Entry{e}
}

func TestGarbageIsCopiedAway(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{garbageFloor: 300 << 10})
	j.Put(session("a"))
	fill(t, j)
	require.Equal(t, wantA(), mustLoad(t, j))
	mustClose(t, j)
	all := names(t, dir)
	require.Len(t, all, 1, "the old one is gone when Close returns")
	require.NotEqual(t, firstGeneration, all[0])
	j = mustOpen(t, dir, Options{})
	require.Equal(t, wantA(), mustLoad(t, j))
	require.Less(t, j.Stats().DiskBytes, int64(4<<20))
}

func TestReaderOutlivesItsGeneration(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{garbageFloor: 300 << 10})
	j.Put(session("a"))
	j.PutPart("a", part(0))
	require.NoError(t, j.PutPart("b", part(0)).Wait(t.Context()))
	j.Put(session("b"))
	j.Put(session("c"))
	require.NoError(t, j.Sync(t.Context()))
	var seen []string
	require.NoError(t, j.Walk(t.Context(), func(e Entry) error {
		if seen == nil {
			fill(t, j)
			require.Contains(t, names(t, j.dir), firstGeneration, "the old one stays while it is read")
			require.Greater(t, len(names(t, j.dir)), 1)
			require.NoError(t, j.Delete("c").Wait(t.Context()))
		}
		seen = append(seen, e.Session.ID)
		return nil
	}))
	require.Equal(t, []string{"a", "b", "c"}, seen)
	require.Eventually(t, func() bool { return len(names(t, j.dir)) == 1 }, 5*time.Second, time.Millisecond)
}

// A restart must not take garbage for records.
func TestGarbageIsKnownAfterARestart(t *testing.T) {
	dir := t.TempDir()
	var most int64
	for range 25 {
		j := mustOpen(t, dir, Options{garbageFloor: 300 << 10})
		j.Put(session("a"))
		require.NoError(t, garbage(j, 2).Wait(t.Context()))
		most = max(most, j.Stats().DiskBytes)
		mustClose(t, j)
	}
	require.Less(t, most, int64(8<<20))
	require.NotEqual(t, []string{firstGeneration}, names(t, dir))
}

// A copy that fails changes nothing; one whose outcome is not known ends the
// writing. In both cases nothing is lost.
func TestCopyFails(t *testing.T) {
	for name, c := range map[string]struct {
		fail   func(f *os.File) error // in place of fsync
		free   int64
		sticky bool
	}{
		"no room":             {free: minFree + 1},
		"sync of a log fails": {fail: failing("000002/00001.mem"), free: 1 << 40},
		"sync of CURRENT":     {fail: failing("CURRENT.new"), free: 1 << 40, sticky: true},
		"sync of the rename":  {fail: failing("journal"), free: 1 << 40, sticky: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/journal"
			j := mustOpen(t, dir, Options{garbageFloor: 300 << 10})
			if c.fail != nil {
				j.fsync = c.fail
			}
			j.current.gen.space.free = func(string) (int64, error) { return c.free, nil }
			j.Put(session("a"))
			garbage(j, 1)
			err := garbage(j, 15).Wait(t.Context())
			if c.sticky {
				require.Eventually(t, func() bool { return j.queue.failure() != nil }, 5*time.Second, time.Millisecond)
				require.ErrorIs(t, j.Delete("a").Wait(t.Context()), syscall.EIO)
				require.ErrorIs(t, j.Close(), syscall.EIO)
			} else {
				require.NoError(t, err)
				require.Equal(t, wantA(), mustLoad(t, j))
				require.NoError(t, j.PutPart("a", part(9)).Wait(t.Context()))
				mustClose(t, j)
				require.Equal(t, []string{firstGeneration}, names(t, dir))
			}
			j = mustOpen(t, dir, Options{})
			all := mustLoad(t, j)
			require.Equal(t, []Part{part(0), part(1)}, all[0].Parts[:2])
			require.Len(t, names(t, dir), 1)
		})
	}
}

// failing answers EIO for files whose path ends so.
func failing(suffix string) func(f *os.File) error {
	return func(f *os.File) error {
		if n := f.Name(); len(n) >= len(suffix) && n[len(n)-len(suffix):] == suffix {
			return &os.PathError{Op: "fsync", Path: n, Err: syscall.EIO}
		}
		return f.Sync()
	}
}

func TestWithin(t *testing.T) {
	mine := errors.New("mine")
	require.Equal(t, mine, within(time.Minute, func() error { return mine }))
	hold := make(chan struct{})
	require.ErrorIs(t, within(time.Millisecond, func() error { <-hold; return nil }), ErrStalled)
	close(hold)
}

// One session of very many parts. With WHOLEFS_LONG_TESTS set it is a million
// of them: 16 TiB in parts of 16 MiB.
func TestManyParts(t *testing.T) {
	n := 50_000
	if os.Getenv("WHOLEFS_LONG_TESTS") != "" {
		n = 1_000_000
	}
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{})
	start := time.Now()
	j.Put(session("a"))
	for i := range n {
		j.PutPart("a", part(int64(i)))
	}
	require.NoError(t, j.Sync(t.Context()))
	put := time.Since(start)
	mustClose(t, j)

	start = time.Now()
	j = mustOpen(t, dir, Options{})
	open := time.Since(start)
	start = time.Now()
	all := mustLoad(t, j)
	load := time.Since(start)
	require.Len(t, all, 1)
	require.Len(t, all[0].Parts, n)
	require.Equal(t, part(int64(n-1)), all[0].Parts[n-1])
	t.Logf("%d parts: put %v, open %v, load %v, %s on disk", n, put.Round(time.Millisecond), open.Round(time.Millisecond),
		load.Round(time.Millisecond), mib(uint64(j.Stats().DiskBytes)))

	start = time.Now()
	require.NoError(t, j.Delete("a").Wait(t.Context()))
	t.Logf("delete %v", time.Since(start).Round(time.Millisecond))
	require.Empty(t, mustLoad(t, j))
}

func BenchmarkPutPart(b *testing.B) {
	j := mustOpen(b, b.TempDir(), Options{})
	j.Put(session("a"))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		j.PutPart("a", part(int64(i%100_000)))
	}
	if err := j.PutPart("a", part(0)).Wait(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// One caller that waits for each record: the latency of a commit.
func BenchmarkCommitLatency(b *testing.B) {
	for _, o := range []Options{{}, {SyncWrites: true}} {
		b.Run(fmt.Sprintf("sync=%v", o.SyncWrites), func(b *testing.B) {
			j := mustOpen(b, b.TempDir(), o)
			j.Put(session("a"))
			b.ResetTimer()
			for i := range b.N {
				if err := j.PutPart("a", part(int64(i%1000))).Wait(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

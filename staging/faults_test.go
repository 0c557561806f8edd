package staging

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The first failed write poisons the file (W6): its error, and no other,
// comes back from everything that writes, and reading goes on.
func TestFailedWritePoisons(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	data := random(1, 3*testPart)
	require.NoError(t, f.Write(0, data))

	h.set(failOn(OpWrite, 1, unix.ENOSPC))
	first := f.Write(testPart, []byte("lost"))
	require.ErrorIs(t, first, unix.ENOSPC)
	var pe *os.PathError
	require.ErrorAs(t, first, &pe)
	require.Equal(t, "pwrite", pe.Op)

	h.set(failOn(OpSync, 1, unix.EIO)) // is not even tried
	f.Fail(errors.New("a later error"))
	f.Fail(nil)
	src, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer src.Close()
	for name, err := range map[string]error{
		"Begin":     f.Begin(0, 1),
		"Begin 0":   f.Begin(0, 0),
		"Write":     f.Write(0, []byte("x")),
		"Drain":     f.Drain(),
		"Sync":      f.Sync(),
		"Err":       f.Err(),
		"Truncate":  f.Truncate(0),
		"Punch":     f.Punch(extent(0, 1)),
		"Zero":      f.Zero(extent(0, 1)),
		"Allocate":  f.Allocate(extent(0, 1), false),
		"CloneFrom": f.CloneFrom(src, 0),
	} {
		require.Equal(t, first, err, name)
	}
	p := make([]byte, len(data))
	_, err = f.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, data, p)
	requireSums(t, f, data) // also of the part where the write failed
	require.Equal(t, first, f.Close())
	require.Equal(t, first, f.Close())
}

// Writes that were acknowledged before the file was poisoned are carried out,
// so that what is held is as much as can be.
func TestPoisonedFileTakesWhatIsInFlight(t *testing.T) {
	f := newTestFile(t, Options{})
	require.NoError(t, f.Begin(0, 4))
	require.NoError(t, f.Begin(10, 4))
	join := blocked(t, f, func() {
		if err := f.Begin(2, 10); !errors.Is(err, unix.EDQUOT) {
			t.Errorf("one that waits when the file is poisoned: %v", err)
		}
	})
	f.Fail(unix.EDQUOT)
	join()
	require.ErrorIs(t, f.Finish(10, []byte("tail")), unix.EDQUOT)
	require.ErrorIs(t, f.Finish(0, []byte("head")), unix.EDQUOT)
	require.Equal(t, "head\x00\x00\x00\x00\x00\x00tail", string(content(t, f)))
	require.ErrorIs(t, f.Drain(), unix.EDQUOT)
}

func TestShortAndInterruptedCalls(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	rnd := rand.New(rand.NewPCG(1, 1))
	h.set(func(op Op, nth, n int) (int, error) {
		if nth%3 == 1 {
			return 0, unix.EINTR
		}
		if n > 1 {
			return 1 + rnd.IntN(n), nil
		}
		return n, nil
	})
	data := random(3, 5*testPart+11)
	require.NoError(t, f.Write(0, data))
	require.NoError(t, f.Sync())
	p := make([]byte, len(data))
	_, err := f.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, data, p)
	requireSums(t, f, data)
	require.NoError(t, f.Punch(extent(0, 1)))
	require.NoError(t, f.Truncate(100))
	require.Greater(t, h.count(OpWrite), 2)

	// A write that moves nothing is a failure, not a reason to try for ever.
	h.set(func(Op, int, int) (int, error) { return 0, nil })
	require.ErrorIs(t, f.Write(0, data), unix.EIO)
}

func TestFailureInTheMiddleOfAWrite(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	old := random(1, 2*testPart)
	require.NoError(t, f.Write(0, old))
	h.set(func(op Op, nth, n int) (int, error) {
		if op != OpWrite {
			return n, nil
		}
		if nth == 1 {
			return 1000, nil
		}
		return 0, unix.EIO
	})
	require.ErrorIs(t, f.Write(testPart-500, random(2, 5000)), unix.EIO)
	now := content(t, f)
	require.NotEqual(t, old, now, "the first part of the write is there")
	requireSums(t, f, now) // and no sum speaks of bytes that are not
}

// A failed fdatasync is final: the kernel may have dropped the pages.
func TestFailedSyncIsNotRetriedIntoSuccess(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	require.NoError(t, f.Write(0, []byte("x")))
	require.NoError(t, f.Sync())
	h.set(failOn(OpSync, 1, unix.EIO))
	err := f.Sync()
	require.ErrorIs(t, err, unix.EIO)
	require.Equal(t, err, f.Sync())
	require.Equal(t, 1, h.count(OpSync))
	require.Equal(t, err, f.Begin(0, 1))
}

// The kernel tells a failed writeback to one caller only. Another one that
// syncs at the same time must not take its silence for success.
func TestConcurrentSyncsAllLearnOfTheFailure(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	require.NoError(t, f.Write(0, []byte("x")))
	syncing, goOn := make(chan struct{}), make(chan struct{})
	h.set(func(op Op, nth, n int) (int, error) {
		if op != OpSync || nth > 1 {
			return n, nil
		}
		close(syncing)
		<-goOn
		return 0, unix.EIO
	})
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- f.Sync() }()
	<-syncing
	join := blocked(t, f, func() { second <- f.Sync() })
	close(goOn)
	join()
	require.ErrorIs(t, <-first, unix.EIO)
	require.ErrorIs(t, <-second, unix.EIO)
}

// A change that fails tells its caller and poisons nothing, and the sums are
// right afterwards.
func TestFailedChangeIsNotSticky(t *testing.T) {
	for name, c := range map[string]struct {
		op   Op
		call func(f *File) error
	}{
		"Truncate": {OpTruncate, func(f *File) error { return f.Truncate(10) }},
		"Punch":    {OpPunch, func(f *File) error { return f.Punch(extent(5, 10)) }},
		"Zero":     {OpZero, func(f *File) error { return f.Zero(extent(5, 10)) }},
		"Allocate": {OpAllocate, func(f *File) error { return f.Allocate(extent(5, 1<<20), false) }},
	} {
		t.Run(name, func(t *testing.T) {
			var h trap
			f := newTestFile(t, Options{Hook: h.hook})
			data := random(1, 2*testPart)
			require.NoError(t, f.Write(0, data))
			h.set(failOn(c.op, 1, unix.ENOSPC))
			err := c.call(f)
			require.ErrorIs(t, err, unix.ENOSPC)
			require.NoError(t, f.Err())
			requireSums(t, f, data)
			require.NoError(t, c.call(f), "the next try may succeed")
			requireSums(t, f, content(t, f))
		})
	}
}

func TestChangesRefuseImpossibleRanges(t *testing.T) {
	f := newTestFile(t, Options{})
	for _, err := range []error{
		f.Truncate(-1),
		f.Punch(extent(5, 5)), f.Punch(extent(-1, 5)),
		f.Zero(extent(5, 4)), f.Zero(extent(-1, 5)),
		f.Allocate(extent(5, 5), true), f.Allocate(extent(-1, 5), false),
		f.CloneFrom(os.Stdin, -1),
		second2(f.ReadAt(nil, -1)),
	} {
		require.ErrorIs(t, err, unix.EINVAL)
	}
	require.ErrorIs(t, second2(f.SeekData(-1)), unix.ENXIO)
	require.NoError(t, f.Err())
}

// Where the filesystem has no holes, zeros are written.
func TestZerosWhereThereAreNoHoles(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	data := random(1, scratchSize+testPart)
	require.NoError(t, f.Write(0, data))
	h.set(func(op Op, _, n int) (int, error) {
		if op == OpPunch || op == OpZero || op == OpAllocate {
			return 0, unix.EOPNOTSUPP
		}
		return n, nil
	})
	e := extent(100, int64(len(data))-50)
	require.NoError(t, f.Punch(e))
	clear(data[e.Off:e.End])
	require.Equal(t, data, content(t, f))
	copy(data[3000:], "data")
	require.NoError(t, f.Write(3000, []byte("data")))
	e = extent(3001, 1<<40) // the size stays
	require.NoError(t, f.Zero(e))
	clear(data[e.Off:])
	require.Equal(t, data, content(t, f))
	requireSums(t, f, data)
	require.ErrorIs(t, f.Allocate(extent(0, 10), true), unix.EOPNOTSUPP)

	h.set(func(op Op, _, n int) (int, error) {
		switch op {
		case OpPunch:
			return 0, unix.EOPNOTSUPP
		case OpWrite:
			return 0, unix.EIO
		}
		return n, nil
	})
	require.ErrorIs(t, f.Punch(extent(0, 10)), unix.EIO)
	h.set(func(op Op, nth, n int) (int, error) {
		if op == OpPunch || op == OpStat {
			return 0, unix.ENOSYS
		}
		return n, nil
	})
	require.ErrorIs(t, f.Punch(extent(0, 10)), unix.ENOSYS)
}

// Each call of the directory fails once; the error comes back with the name,
// and nothing is left behind.
func TestDirFaults(t *testing.T) {
	var h trap
	for _, op := range []Op{OpMkdir, OpOpen, OpStat, OpChmod} {
		path := filepath.Join(t.TempDir(), "staging")
		require.NoError(t, os.Mkdir(path, 0o755))
		h.set(failOn(op, 1, unix.EIO))
		_, err := OpenDir(path, Options{Layout: testLayout(t), Hook: h.hook})
		require.ErrorIs(t, err, unix.EIO, op)
	}
	h.set(nil)
	d := newDir(t, Options{Hook: h.hook})
	umask := unix.Umask(0o077)
	defer unix.Umask(umask)
	for _, op := range []Op{OpOpen, OpStat, OpChmod} {
		h.set(failOn(op, 1, unix.EIO))
		_, err := d.Create("f", 0o666)
		require.ErrorIs(t, err, unix.EIO, op)
		var pe *os.PathError
		require.ErrorAs(t, err, &pe)
		require.Equal(t, os.PathError{Op: string(op), Path: "f", Err: unix.EIO}, *pe)
		names, err := d.List()
		require.NoError(t, err)
		require.Empty(t, names, "%s left a file", op)
	}
	h.set(nil)
	f, err := d.Create("f", 0o600)
	require.NoError(t, err)
	for _, op := range []Op{OpOpen, OpReadDir} {
		h.set(failOn(op, 1, unix.EIO))
		_, err = d.List()
		require.ErrorIs(t, err, unix.EIO)
	}
	h.set(failOn(OpUnlink, 1, unix.EBUSY))
	require.ErrorIs(t, f.Remove(), unix.EBUSY)
	require.NoError(t, f.Remove(), "it is tried again")
	require.Equal(t, 2, h.count(OpUnlink))
	h.set(failOn(OpStat, 1, unix.EIO))
	_, files := d.Usage()
	require.Zero(t, files)
	h.set(failOn(OpClose, 1, unix.EIO))
	require.ErrorIs(t, f.Close(), unix.EIO)
	require.Error(t, f.Fd().Close(), "closed nevertheless")
}

func TestReadFaults(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	data := random(1, testPart)
	require.NoError(t, f.Write(0, data[1:]))
	require.NoError(t, f.Write(0, data))
	h.set(failOn(OpRead, 1, unix.EIO))
	n, err := f.ReadAt(make([]byte, 10), 0)
	require.ErrorIs(t, err, unix.EIO)
	require.Zero(t, n)
	h.set(failOn(OpRead, 1, unix.EIO))
	require.ErrorIs(t, f.Verify(0, testPart, 0), unix.EIO)
	require.NoError(t, f.Truncate(testPart+1))
	h.set(failOn(OpRead, 1, unix.EIO))
	require.ErrorIs(t, second2(f.Sum(1, testPart+1)), unix.EIO)
	h.set(failOn(OpSeek, 1, unix.EIO))
	require.ErrorIs(t, second2(f.SeekHole(0)), unix.EIO)
	require.NoError(t, f.Err(), "a failed read poisons nothing")
}

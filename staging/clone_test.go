package staging

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// source makes a file with data at both ends of a hole.
func source(t *testing.T, dir string) (*os.File, []byte) {
	t.Helper()
	src, err := os.CreateTemp(dir, "wholefs-source-")
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = src.Close()
		_ = os.Remove(src.Name())
	})
	data := make([]byte, 4<<20+777)
	copy(data, random(1, 300_000))
	copy(data[3<<20:], random(2, 1<<20))
	_, err = src.WriteAt(data[:300_000], 0)
	require.NoError(t, err)
	_, err = src.WriteAt(data[3<<20:4<<20], 3<<20)
	require.NoError(t, err)
	require.NoError(t, src.Truncate(int64(len(data))))
	return src, data
}

// refuse fails every call of the given operations.
func refuse(errno unix.Errno, ops ...Op) func(Op, int, int) (int, error) {
	return func(op Op, _, n int) (int, error) {
		for _, o := range ops {
			if o == op {
				return 0, errno
			}
		}
		return n, nil
	}
}

// However the copying is done, the content, the size, the sums and the hole
// are the same.
func TestCloneFrom(t *testing.T) {
	for name, c := range map[string]struct {
		on      func(Op, int, int) (int, error)
		noHoles bool
	}{
		"as it goes":           {on: nil},
		"copy_file_range":      {on: refuse(unix.EOPNOTSUPP, OpClone)},
		"another filesystem":   {on: refuse(unix.EXDEV, OpClone, OpCopyRange)},
		"through memory":       {on: refuse(unix.EINVAL, OpClone, OpCopyRange)},
		"old kernel":           {on: refuse(unix.ENOSYS, OpClone, OpCopyRange)},
		"holes are not told":   {on: refuse(unix.EINVAL, OpClone, OpSeek), noHoles: true},
		"no hole is found":     {on: noHoleFound, noHoles: true},
		"short and by bits":    {on: shortCopies},
		"refused in the midst": {on: refusedInTheMidst},
		"copies nothing":       {on: copiesNothing},
	} {
		t.Run(name, func(t *testing.T) {
			src, data := source(t, t.TempDir())
			before := random(3, 5<<20)
			for _, size := range []int{0, 1, 100_000, 300_001, 2 << 20, 3<<20 + 5, len(data), len(data) + 99_999} {
				var h trap
				f := newTestFile(t, Options{Hook: h.hook, Layout: mustLayout(t, 64<<10)})
				require.NoError(t, f.Write(0, before)) // what was there goes
				h.set(c.on)
				require.NoError(t, f.CloneFrom(src, int64(size)))
				require.Positive(t, h.count(OpClone), "FICLONE comes first")
				want := append(data[:min(size, len(data)):min(size, len(data))], make([]byte, max(0, size-len(data)))...)
				require.True(t, bytes.Equal(want, content(t, f)), "size %d", size)
				h.set(nil)
				requireSums(t, f, want)
				if size > 2<<20 && !c.noHoles {
					hole, err := f.SeekHole(0)
					require.NoError(t, err)
					require.Less(t, hole, int64(1<<20), "the hole was filled")
				}
				require.NoError(t, f.Close())
			}
		})
	}
}

// noHoleFound is SEEK_HOLE, always the second of a pair, failing as it does
// when the file shrinks just then: what follows is taken for data.
func noHoleFound(op Op, nth, n int) (int, error) {
	switch {
	case op == OpClone:
		return 0, unix.EOPNOTSUPP
	case op == OpSeek && nth%2 == 0:
		return 0, unix.ENXIO
	}
	return n, nil
}

func shortCopies(op Op, nth, n int) (int, error) {
	switch {
	case op == OpClone:
		return 0, unix.ENOTTY
	case nth%2 == 1:
		return 0, unix.EINTR
	case n > 70_001:
		return 70_001, nil
	}
	return n, nil
}

func refusedInTheMidst(op Op, nth, n int) (int, error) {
	switch {
	case op == OpClone, op == OpCopyRange && nth == 2:
		return 0, unix.EXDEV
	case op == OpCopyRange:
		return min(n, 50_000), nil
	}
	return n, nil
}

func copiesNothing(op Op, _, n int) (int, error) {
	switch op {
	case OpClone:
		return 0, unix.EOPNOTSUPP
	case OpCopyRange:
		return 0, nil
	}
	return n, nil
}

func TestCloneFromAnotherFilesystem(t *testing.T) {
	var here, there unix.Statfs_t
	require.NoError(t, unix.Statfs(t.TempDir(), &here))
	if unix.Statfs("/dev/shm", &there) != nil || here.Fsid == there.Fsid {
		t.Skip("/dev/shm is not another filesystem")
	}
	src, data := source(t, "/dev/shm")
	f := newTestFile(t, Options{})
	require.NoError(t, f.CloneFrom(src, int64(len(data))))
	require.Equal(t, data, content(t, f))
	requireSums(t, f, data)
}

func TestCloneFromFaults(t *testing.T) {
	src, data := source(t, t.TempDir())
	noClone := func(on func(Op, int, int) (int, error)) func(Op, int, int) (int, error) {
		return func(op Op, nth, n int) (int, error) {
			if op == OpClone {
				return 0, unix.EOPNOTSUPP
			}
			return on(op, nth, n)
		}
	}
	inMemory := func(on func(Op, int, int) (int, error)) func(Op, int, int) (int, error) {
		return noClone(func(op Op, nth, n int) (int, error) {
			if op == OpCopyRange {
				return 0, unix.EXDEV
			}
			return on(op, nth, n)
		})
	}
	for name, on := range map[string]func(Op, int, int) (int, error){
		"FICLONE":          failOn(OpClone, 1, unix.EIO),
		"fstat":            noClone(failOn(OpStat, 1, unix.EIO)),
		"ftruncate":        noClone(failOn(OpTruncate, 1, unix.EIO)),
		"ftruncate again":  noClone(failOn(OpTruncate, 2, unix.EIO)),
		"SEEK_DATA":        noClone(failOn(OpSeek, 1, unix.EIO)),
		"SEEK_HOLE":        noClone(failOn(OpSeek, 2, unix.EIO)),
		"copy_file_range":  noClone(failOn(OpCopyRange, 1, unix.EIO)),
		"the second":       noClone(failOn(OpCopyRange, 2, unix.EIO)),
		"pread":            inMemory(failOn(OpRead, 1, unix.EIO)),
		"pwrite":           inMemory(failOn(OpWrite, 1, unix.EIO)),
		"the third pwrite": inMemory(failOn(OpWrite, 3, unix.EIO)),
	} {
		t.Run(name, func(t *testing.T) {
			var h trap
			f := newTestFile(t, Options{Hook: h.hook})
			h.set(on)
			require.ErrorIs(t, f.CloneFrom(src, int64(len(data))), unix.EIO)
			require.NoError(t, f.Err(), "the caller was told; nothing acknowledged is lost")
			h.set(nil)
			require.NoError(t, f.CloneFrom(src, int64(len(data))))
			requireSums(t, f, data)
		})
	}
	t.Run("source closed", func(t *testing.T) {
		f := newTestFile(t, Options{})
		gone, err := os.Open(src.Name())
		require.NoError(t, err)
		require.NoError(t, gone.Close())
		require.ErrorIs(t, f.CloneFrom(gone, 1), os.ErrClosed)
	})
	t.Run("source shrinks", func(t *testing.T) {
		var h trap
		f := newTestFile(t, Options{Hook: h.hook})
		shrinking, data := source(t, t.TempDir())
		h.set(noClone(func(op Op, nth, n int) (int, error) {
			if op == OpCopyRange && nth == 1 {
				return n, os.Truncate(shrinking.Name(), 1000)
			}
			return n, nil
		}))
		require.ErrorIs(t, f.CloneFrom(shrinking, int64(len(data))), io.ErrUnexpectedEOF)
	})
}

func TestSeekDataAndHole(t *testing.T) {
	f := newTestFile(t, Options{})
	require.NoError(t, f.Truncate(1<<20))
	require.NoError(t, f.Write(256<<10, make([]byte, 64<<10)))
	data, err := f.SeekData(0)
	require.NoError(t, err)
	require.Equal(t, int64(256<<10), data)
	hole, err := f.SeekHole(data)
	require.NoError(t, err)
	require.Equal(t, int64(320<<10), hole)
	_, err = f.SeekData(hole)
	require.ErrorIs(t, err, unix.ENXIO)
	_, err = f.SeekHole(1 << 20)
	require.ErrorIs(t, err, unix.ENXIO)
}

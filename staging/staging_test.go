package staging

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/wholefs/wholefs/chunker"
)

// testPart is the part size of the tests: the smallest, so that little data
// has many parts and borders.
const testPart = chunker.MinPartSize

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testLayout(t testing.TB) chunker.Layout {
	t.Helper()
	l, err := chunker.NewLayout(testPart)
	require.NoError(t, err)
	return l
}

// newDir opens a directory of staging files that is closed after the test.
func newDir(t testing.TB, o Options) *Dir {
	t.Helper()
	if o.Layout.PartSize() == 0 {
		o.Layout = testLayout(t)
	}
	d, err := OpenDir(filepath.Join(t.TempDir(), "staging"), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// newTestFile creates a staging file that is closed after the test.
func newTestFile(t testing.TB, o Options) *File {
	t.Helper()
	f, err := newDir(t, o).Create("file", 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() }) // the sticky error, if the test made one
	return f
}

func random[N int | int64](seed uint64, n N) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(p)
	return p
}

// content reads all of f through a second descriptor, behind its back.
func content(t testing.TB, f *File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Fd().Name())
	require.NoError(t, err)
	return b
}

// requireSums checks the sum of each part against the bytes, and that Verify
// agrees with it and with nothing else.
func requireSums(t testing.TB, f *File, data []byte) {
	t.Helper()
	size := int64(len(data))
	l := f.dir.options.Layout
	for part := range l.Count(size) {
		e := l.Extent(part, size)
		want := chunker.Checksum(data[e.Off:e.End])
		got, err := f.Sum(part, size)
		require.NoError(t, err)
		require.Equalf(t, want, got, "sum of part %d", part)
		require.NoError(t, f.Verify(part, size, want))
		var ce *ChecksumError
		require.ErrorAs(t, f.Verify(part, size, want+1), &ce)
	}
}

// eventually waits for what another goroutine does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// waiting is the number of callers of Begin and the like that wait.
func (f *File) waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int(f.tickets - f.turn)
}

// trap is a Hook that records calls and fails or shortens chosen ones.
type trap struct {
	mu    sync.Mutex
	calls map[Op]int
	// on decides about the nth call (from 1) of an operation. Nil lets all
	// pass.
	on func(op Op, nth, n int) (int, error)
}

func (h *trap) hook(op Op, _ string, n int) (int, error) {
	h.mu.Lock()
	if h.calls == nil {
		h.calls = map[Op]int{}
	}
	h.calls[op]++
	nth, on := h.calls[op], h.on
	h.mu.Unlock()
	if on == nil {
		return n, nil
	}
	return on(op, nth, n)
}

func (h *trap) count(op Op) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[op]
}

// set changes what happens from now on, and counts from 1 again.
func (h *trap) set(on func(op Op, nth, n int) (int, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls, h.on = nil, on
}

// failOn fails the nth call of op with err.
func failOn(op Op, nth int, err error) func(Op, int, int) (int, error) {
	return func(o Op, i, n int) (int, error) {
		if o == op && i == nth {
			return 0, err
		}
		return n, nil
	}
}

func TestWriteReadSum(t *testing.T) {
	f := newTestFile(t, Options{})
	data := random(1, 10*testPart+123)
	for off := 0; off < len(data); off += 10_000 {
		require.NoError(t, f.Write(int64(off), data[off:min(off+10_000, len(data))]))
	}
	require.NoError(t, f.Drain())
	require.Equal(t, data, content(t, f))
	requireSums(t, f, data)

	p := make([]byte, 100)
	n, err := f.ReadAt(p, 5000)
	require.NoError(t, err)
	require.Equal(t, data[5000:5100], p[:n])
	n, err = f.ReadAt(p, int64(len(data)-60))
	require.Equal(t, io.EOF, err, "io.ReaderAt asks for io.EOF itself")
	require.Equal(t, data[len(data)-60:], p[:n])
	n, err = f.ReadAt(p, int64(len(data)))
	require.Equal(t, io.EOF, err)
	require.Zero(t, n)
}

// The sums of parts written in order must come from the pieces: no read.
func TestSumOfSequentialWritesReadsNothing(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	data := random(2, 5*testPart+7)
	for off := 0; off < len(data); off += 1000 {
		require.NoError(t, f.Write(int64(off), data[off:min(off+1000, len(data))]))
	}
	size := int64(len(data))
	for part := range int64(6) {
		_, err := f.Sum(part, size)
		require.NoError(t, err)
	}
	require.Zero(t, h.count(OpRead))

	// A rewrite inside of a part makes its sum, and only that, be read. Once.
	copy(data[testPart+5:], "rewritten")
	require.NoError(t, f.Write(testPart+5, []byte("rewritten")))
	for range 3 {
		for part := range int64(6) {
			e := f.dir.options.Layout.Extent(part, size)
			crc, err := f.Sum(part, size)
			require.NoError(t, err)
			require.Equal(t, chunker.Checksum(data[e.Off:e.End]), crc)
		}
	}
	require.Equal(t, 1, h.count(OpRead))
}

// KnownSum tells what Sum would, if that takes no reading and no waiting.
func TestKnownSum(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	data := random(2, 3*testPart)
	require.NoError(t, f.Write(0, data[:testPart]))
	require.NoError(t, f.Write(testPart+1, data[testPart+1:2*testPart]))
	known := func(part int64) bool {
		crc, ok := f.KnownSum(part, 3*testPart)
		if ok {
			require.Equal(t, chunker.Checksum(data[part*testPart:(part+1)*testPart]), crc)
		}
		return ok
	}
	require.True(t, known(0))
	require.False(t, known(1), "its first byte did not arrive")
	require.False(t, known(2))
	require.NoError(t, f.Begin(5, 1))
	require.False(t, known(0), "a write is on its way")
	require.NoError(t, f.Finish(5, data[5:6]))
	require.False(t, known(0), "a piece was overwritten in part")
	_, err := f.Sum(0, 3*testPart)
	require.NoError(t, err)
	require.True(t, known(0), "Sum read it")
	require.NoError(t, f.Write(testPart, data[testPart:testPart+1]))
	require.True(t, known(1))
	require.Equal(t, 1, h.count(OpRead))
}

// A part that came in too many pieces is read once, and known from then on.
func TestSumOfManyPiecesReadsOnce(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	data := random(5, testPart+1000) // the second part is a tail
	for _, odd := range []int{1, 0} {
		for i := odd; i*5 < len(data); i += 2 {
			require.NoError(t, f.Write(int64(i*5), data[i*5:min(i*5+5, len(data))]))
		}
	}
	for part := range int64(2) {
		_, ok := f.KnownSum(part, int64(len(data)))
		require.False(t, ok, "the test does not reach what it is for")
	}
	for range 2 {
		for part := range int64(2) {
			e := f.dir.options.Layout.Extent(part, int64(len(data)))
			crc, err := f.Sum(part, int64(len(data)))
			require.NoError(t, err)
			require.Equal(t, chunker.Checksum(data[e.Off:e.End]), crc)
		}
	}
	require.Equal(t, 2, h.count(OpRead))
}

// A write that comes while Sum reads makes what it read old: it must not be
// remembered.
func TestSumIsNotRememberedIfTheFileChangedMeanwhile(t *testing.T) {
	var h trap
	f := newTestFile(t, Options{Hook: h.hook})
	data := random(6, testPart)
	require.NoError(t, f.Truncate(testPart))
	h.set(func(op Op, nth, n int) (int, error) {
		if op == OpRead && nth == 1 {
			return 1, nil // the rest is read after the write
		}
		if op == OpRead && nth == 2 {
			return n, f.Write(0, data[:1])
		}
		return n, nil
	})
	_, err := f.Sum(0, testPart)
	require.NoError(t, err)
	requireSums(t, f, append(data[:1:1], make([]byte, testPart-1)...))
}

func TestSumOfUnwrittenBytes(t *testing.T) {
	f := newTestFile(t, Options{})
	require.NoError(t, f.Truncate(2*testPart))
	requireSums(t, f, make([]byte, 2*testPart))
	crc, err := f.Sum(2, 3*testPart)
	require.NoError(t, err)
	require.Equal(t, chunker.Checksum(make([]byte, testPart)), crc, "a write behind the gap is on its way")
	require.ErrorIs(t, f.Verify(2, 3*testPart, 0), io.ErrUnexpectedEOF)
	crc, err = f.Sum(2, 2*testPart)
	require.NoError(t, err)
	require.Zero(t, crc, "the sum of no bytes")
}

func TestVerifyReadsWhatIsThere(t *testing.T) {
	f := newTestFile(t, Options{})
	data := random(3, testPart)
	require.NoError(t, f.Write(0, data))
	crc, err := f.Sum(0, testPart)
	require.NoError(t, err)
	require.NoError(t, f.Verify(0, testPart, crc))

	other, err := os.OpenFile(f.Fd().Name(), os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = other.WriteAt([]byte{data[77] ^ 1}, 77)
	require.NoError(t, err)
	require.NoError(t, other.Close())

	err = f.Verify(0, testPart, crc)
	var ce *ChecksumError
	require.ErrorAs(t, err, &ce)
	data[77] ^= 1
	require.Equal(t, ChecksumError{Name: "file", Part: 0, Want: crc, Got: chunker.Checksum(data)}, *ce)
}

// The same random operations on a staging file and on a byte slice.
func TestFileAgainstBytes(t *testing.T) {
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		f := newTestFile(t, Options{})
		var model []byte
		resize := func(n int) {
			model = append(model[:min(n, len(model)):min(n, len(model))], make([]byte, max(0, n-len(model)))...)
		}
		const limit = int(6 * testPart)
		for step := range 300 {
			off := rnd.IntN(limit)
			n := 1 + rnd.IntN(limit-off)
			e := chunker.Extent{Off: int64(off), End: int64(off + n)}
			switch rnd.IntN(10) {
			case 0:
				require.NoError(t, f.Truncate(int64(off)))
				resize(off)
			case 1:
				require.NoError(t, f.Punch(e))
				clear(model[min(off, len(model)):min(off+n, len(model))])
			case 2:
				require.NoError(t, f.Zero(e))
				clear(model[min(off, len(model)):min(off+n, len(model))])
			case 3:
				keep := rnd.IntN(2) == 0
				require.NoError(t, f.Allocate(e, keep))
				if !keep && off+n > len(model) {
					resize(off + n)
				}
			default:
				n = min(n, 1+rnd.IntN(2*int(testPart)))
				p := random(rnd.Uint64(), n)
				require.NoError(t, f.Write(int64(off), p))
				if off+n > len(model) {
					resize(off + n)
				}
				copy(model[off:], p)
			}
			if step%10 == 0 {
				require.True(t, bytes.Equal(model, content(t, f)), "seed %d, step %d", seed, step)
				requireSums(t, f, model)
			}
		}
	}
}

func TestBeginRefuses(t *testing.T) {
	f := newTestFile(t, Options{})
	for _, c := range []struct {
		off, n int64
		want   error
	}{
		{-1, 1, os.ErrInvalid},
		{0, -1, os.ErrInvalid},
		{1<<63 - 1, 1, nil},
		{1<<63 - 5, 6, nil},
	} {
		err := f.Begin(c.off, c.n)
		require.Error(t, err, "Begin(%d, %d)", c.off, c.n)
		var pe *os.PathError
		require.True(t, errors.As(err, &pe))
		require.Equal(t, "file", pe.Path)
	}
	require.NoError(t, f.Err(), "a refused range poisons nothing")
	require.NoError(t, f.Begin(7, 0))
	require.NoError(t, f.Drain(), "nothing was reserved")
	require.NoError(t, f.Write(3, nil))
	require.NoError(t, f.Finish(3, nil))
}

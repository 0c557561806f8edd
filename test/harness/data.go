package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Seed is the seed of this process's draws: WHOLEFS_TEST_SEED or the clock's.
var Seed = sync.OnceValue(func() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("WHOLEFS_TEST_SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano())
})

// Rand is a source seeded by Seed; tests that draw print the seed.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	t.Logf("seed: WHOLEFS_TEST_SEED=%d", Seed())
	return rand.New(rand.NewPCG(Seed(), 0))
}

// EnvInt is a whole number from the environment, or its default.
func EnvInt(name string, def int64) int64 {
	if n, err := strconv.ParseInt(os.Getenv(name), 10, 64); err == nil && n > 0 {
		return n
	}
	return def
}

// Content is size bytes that depend on the tag, so that no two versions
// agree anywhere.
func Content(tag string, size int64) io.Reader {
	sum := sha256.Sum256([]byte(tag))
	return io.LimitReader(rand.NewChaCha8(sum), size)
}

// WriteContent makes a file of such bytes and returns its SHA-256.
func WriteContent(path, tag string, size int64) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(f, h), Content(tag, size), make([]byte, 1<<20)); err != nil {
		f.Close()
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), f.Close()
}

// Source makes a file outside the mount and returns its path and SHA-256.
func Source(t testing.TB, tag string, size int64) (path, sum string) {
	t.Helper()
	path = filepath.Join(TempDir(t), filepath.Base(tag))
	sum, err := WriteContent(path, tag, size)
	if err != nil {
		t.Fatal(err)
	}
	return path, sum
}

// BigSource is Source on tmpfs when its free memory is at least three times
// the size, so that a copy is not bound by reading.
func BigSource(tag string, size int64) (path, sum string, remove func(), err error) {
	dir := ""
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) == nil && int64(st.Bavail)*st.Bsize > 3*size {
		dir = "/dev/shm"
	} else if dir, err = scratch(); err != nil {
		return "", "", nil, err
	}
	if dir, err = os.MkdirTemp(dir, "wholefs-source-"); err != nil {
		return "", "", nil, err
	}
	path = filepath.Join(dir, "source")
	remove = func() { os.RemoveAll(dir) }
	if sum, err = WriteContent(path, tag, size); err != nil {
		remove()
	}
	return path, sum, remove, err
}

// Sum is the SHA-256 of a file.
func Sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, f, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// SumOf is the SHA-256 of a string.
func SumOf(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }

// MustSum is Sum for tests.
func MustSum(t testing.TB, path string) string {
	t.Helper()
	sum, err := Sum(path)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// SamePrefix compares the first n bytes of two files, skipping the extents
// in except, and returns the offset of the first difference, -1 for none.
func SamePrefix(a, b string, n int64, except []Extent) (int64, error) {
	fa, err := os.Open(a)
	if err != nil {
		return 0, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return 0, err
	}
	defer fb.Close()
	skip := func(off int64) (int64, bool) {
		for _, e := range except {
			if off >= e.Off && off < e.End {
				return e.End, true
			}
		}
		return off, false
	}
	next := func(off int64) int64 {
		end := n
		for _, e := range except {
			if e.Off > off && e.Off < end {
				end = e.Off
			}
		}
		return min(end, off+1<<20)
	}
	ba, bb := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < n; {
		if end, ok := skip(off); ok {
			off = end
			continue
		}
		size := next(off) - off
		if _, err := fa.ReadAt(ba[:size], off); err != nil {
			return off, fmt.Errorf("%s at %d: %w", a, off, err)
		}
		if _, err := fb.ReadAt(bb[:size], off); err != nil {
			return off, fmt.Errorf("%s at %d: %w", b, off, err)
		}
		for i := range size {
			if ba[i] != bb[i] {
				return off + i, nil
			}
		}
		off += size
	}
	return -1, nil
}

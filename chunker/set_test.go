package chunker

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// bitmap is the naive set of bytes that Set must agree with.
type bitmap []bool

func (m bitmap) fill(e Extent, v bool) {
	for i := max(e.Off, 0); i < min(e.End, int64(len(m))); i++ {
		m[i] = v
	}
}

// runs returns the extents within e whose bytes are v.
func (m bitmap) runs(e Extent, v bool) []Extent {
	var out []Extent
	for i := e.Off; i < e.End; i++ {
		if m[i] != v {
			continue
		}
		if n := len(out); n > 0 && out[n-1].End == i {
			out[n-1].End++
		} else {
			out = append(out, Extent{i, i + 1})
		}
	}
	return out
}

// checkSet fails unless s equals m in all that can be asked, and is kept as
// its comments say.
func checkSet(t interface {
	Helper()
	Fatalf(string, ...any)
}, s *Set, m bitmap) {
	t.Helper()
	want := m.runs(Extent{0, int64(len(m))}, true)
	if got := s.Extents(); !slices.Equal(got, want) {
		t.Fatalf("extents are %v, want %v", got, want)
	}
	if s.Len() != len(want) {
		t.Fatalf("Len = %d, want %d", s.Len(), len(want))
	}
	var bytes int64
	for _, e := range want {
		bytes += e.Len()
	}
	if s.Bytes() != bytes {
		t.Fatalf("Bytes = %d, want %d", s.Bytes(), bytes)
	}
	for i, leaf := range s.leaves {
		if len(leaf) == 0 || len(leaf) > leafMax {
			t.Fatalf("leaf %d of %d has %d extents", i, len(s.leaves), len(leaf))
		}
	}
}

func drawExtent(t *rapid.T, size int64) Extent {
	off := rapid.Int64Range(0, size).Draw(t, "off")
	return Extent{off, rapid.Int64Range(off, size).Draw(t, "end")}
}

func TestSetAgainstBitmap(t *testing.T) {
	const size = 200
	rapid.Check(t, func(t *rapid.T) {
		s, m := &Set{}, make(bitmap, size)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				e := drawExtent(t, size)
				s.Add(e)
				m.fill(e, true)
			},
			"remove": func(t *rapid.T) {
				e := drawExtent(t, size)
				s.Remove(e)
				m.fill(e, false)
			},
			"truncate": func(t *rapid.T) {
				n := rapid.Int64Range(0, size).Draw(t, "size")
				s.Truncate(n)
				m.fill(Extent{n, size}, false)
			},
			"ask": func(t *rapid.T) {
				e := drawExtent(t, size)
				if got, want := s.Contains(e), len(m.runs(e, false)) == 0; got != want {
					t.Fatalf("Contains(%v) = %v of %v", e, got, s.Extents())
				}
				if got, want := s.Overlaps(e), len(m.runs(e, true)) != 0; got != want {
					t.Fatalf("Overlaps(%v) = %v of %v", e, got, s.Extents())
				}
				if got, want := s.Missing(e), m.runs(e, false); !slices.Equal(got, want) {
					t.Fatalf("Missing(%v) = %v of %v", e, got, s.Extents())
				}
			},
			"clone": func(t *rapid.T) {
				was := s.Clone()
				e := drawExtent(t, size)
				s.Add(e)
				s.Remove(Extent{e.Off, e.Off + 1})
				checkSet(t, was, m)
				s = was
			},
			"": func(t *rapid.T) { checkSet(t, s, m) },
		})
	})
}

// With thousands of extents the set has many leaves; they split, join and
// empty.
func TestSetManyLeaves(t *testing.T) {
	const size = 20_000
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s, m := &Set{}, make(bitmap, size)
		add := func(off, n int64) {
			e := Extent{off, min(off+n, size)}
			s.Add(e)
			m.fill(e, true)
		}
		remove := func(off, n int64) {
			e := Extent{off, min(off+n, size)}
			s.Remove(e)
			m.fill(e, false)
		}
		for range 8_000 {
			add(rnd.Int64N(size), 1+rnd.Int64N(2))
		}
		checkSet(t, s, m)
		if len(s.leaves) < 8 {
			t.Fatalf("only %d leaves: the test does not reach what it is for", len(s.leaves))
		}
		for range 300 {
			remove(rnd.Int64N(size), rnd.Int64N(1500))
			checkSet(t, s, m)
			add(rnd.Int64N(size), rnd.Int64N(300))
			for range 100 {
				add(rnd.Int64N(size), 1)
			}
			checkSet(t, s, m)
		}
		remove(0, size)
		checkSet(t, s, m)
	}
}

func TestSetDescending(t *testing.T) {
	const n = 5000
	s, m := &Set{}, make(bitmap, 2*n)
	for i := int64(n - 1); i >= 0; i-- {
		s.Add(Extent{2 * i, 2*i + 1})
	}
	for i := range int64(n) {
		m[2*i] = true
	}
	checkSet(t, s, m)
}

func TestSetSequentialStaysOneExtent(t *testing.T) {
	s := &Set{}
	const tebi, step = 1 << 40, 1 << 20
	for off := int64(0); off < tebi; off += step {
		s.Add(Extent{off, off + step})
	}
	if s.Len() != 1 || s.Bytes() != tebi || len(s.leaves[0]) != 1 {
		t.Errorf("1 TiB in order is %d extents, %d bytes", s.Len(), s.Bytes())
	}
	if n := testing.AllocsPerRun(100, func() { s.Add(Extent{s.Bytes(), s.Bytes() + step}) }); n != 0 {
		t.Errorf("adding in order allocates %v times", n)
	}
}

// Ascending writes with gaps fill the leaves: two halves after each split
// would take twice the memory.
func TestSetAscendingFillsLeaves(t *testing.T) {
	s := &Set{}
	for i := range int64(100 * leafMax) {
		s.Add(Extent{2 * i, 2*i + 1})
	}
	if len(s.leaves) != 100 {
		t.Errorf("%d extents lie in %d leaves", s.Len(), len(s.leaves))
	}
}

// Removing most of a large set must not leave many leaves with little in each.
func TestSetLeavesJoin(t *testing.T) {
	s := &Set{}
	const n = 100 * leafMax
	for i := range int64(n) {
		s.Add(Extent{2 * i, 2*i + 1})
	}
	for i := range int64(n) {
		if i%50 != 0 {
			s.Remove(Extent{2 * i, 2*i + 1})
		}
	}
	if want := n / 50; s.Len() != want || len(s.leaves) > 10 {
		t.Errorf("%d extents (want %d) lie in %d leaves", s.Len(), want, len(s.leaves))
	}
}

func TestSetAtTheEndOfInt64(t *testing.T) {
	s := &Set{}
	top := Extent{math.MaxInt64 - 1, math.MaxInt64}
	s.Add(top)
	s.Add(Extent{0, 1})
	if !s.Contains(top) || s.Contains(Extent{1, 2}) || s.Bytes() != 2 {
		t.Errorf("%v", s.Extents())
	}
	s.Truncate(1)
	if !slices.Equal(s.Extents(), []Extent{{0, 1}}) {
		t.Errorf("after Truncate: %v", s.Extents())
	}
}

// FuzzSet reads operations of three bytes each: what, offset, length.
func FuzzSet(f *testing.F) {
	f.Add([]byte{0, 0, 10, 0, 10, 10, 0, 5, 10})                       // in order, overlapping
	f.Add([]byte{0, 100, 5, 0, 50, 5, 0, 0, 5, 1, 52, 50})             // descending, then a hole
	f.Add([]byte{0, 0, 255, 1, 10, 1, 1, 20, 1, 0, 9, 13, 2, 15, 0})   // punched, filled, truncated
	f.Add(bytes.Repeat([]byte{0, 7, 1, 0, 9, 1, 0, 8, 1, 1, 8, 1}, 9)) // join and split
	f.Fuzz(func(t *testing.T, ops []byte) {
		s, m := &Set{}, make(bitmap, 512)
		for ; len(ops) >= 3; ops = ops[3:] {
			e := Extent{int64(ops[1]), int64(ops[1]) + int64(ops[2])}
			switch ops[0] % 3 {
			case 0:
				s.Add(e)
				m.fill(e, true)
			case 1:
				s.Remove(e)
				m.fill(e, false)
			case 2:
				s.Truncate(e.Off)
				m.fill(Extent{e.Off, int64(len(m))}, false)
			}
			checkSet(t, s, m)
		}
	})
}

func BenchmarkSetAdd(b *testing.B) {
	b.Run("sequential", func(b *testing.B) {
		s := &Set{}
		b.ReportAllocs()
		for i := range int64(b.N) {
			s.Add(Extent{i << 20, (i + 1) << 20})
		}
	})
	// Random 4 KiB writes into a file of 4 GiB: up to half a million extents.
	b.Run("random", func(b *testing.B) {
		s, rnd := &Set{}, rand.New(rand.NewPCG(1, 2))
		for range 400_000 {
			off := rnd.Int64N(1<<20) << 12
			s.Add(Extent{off, off + 4096})
		}
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			off := rnd.Int64N(1<<20) << 12
			s.Remove(Extent{off, off + 4096})
			off = rnd.Int64N(1<<20) << 12
			s.Add(Extent{off, off + 4096})
		}
	})
}

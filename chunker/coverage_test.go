package chunker

import (
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The states of a byte in the naive model.
const (
	outside = iota
	missing
	hole
	written
)

// naive is a coverage kept byte by byte. Its unit stands for unit bytes of
// the real one, so that parts of 4 KiB can be tried with few bytes.
type naive struct {
	unit, partSize int64 // partSize in units
	size           int64
	state          []byte
}

func (m *naive) set(e Extent, state byte) {
	for i := e.Off; i < min(e.End, m.size); i++ {
		m.state[i] = state
	}
}

// part counts the bytes of a part in each state.
func (m *naive) part(part int64) (count [4]int64) {
	for i := part * m.partSize; i < (part+1)*m.partSize; i++ {
		if i < m.size {
			count[m.state[i]]++
		} else {
			count[outside]++
		}
	}
	return count
}

func (m *naive) whole(part int64) bool {
	c := m.part(part)
	return c[hole]+c[written] == m.partSize
}

func (m *naive) resize(size int64, gap byte) {
	old := m.size
	m.size = size
	if size > old {
		m.set(Extent{old, size}, gap)
	}
}

// write returns what Coverage.Write should, from its documentation and by
// looking at all parts before and after.
func (m *naive) write(e Extent) []int64 {
	if e.Empty() {
		return nil
	}
	parts := int64(len(m.state)) / m.partSize
	wasWhole, wasFull := make([]bool, parts), make([]bool, parts)
	for p := range parts {
		wasWhole[p], wasFull[p] = m.whole(p), m.part(p)[written] == m.partSize
	}
	if e.End > m.size {
		m.resize(e.End, hole)
	}
	m.set(e, written)
	var out []int64
	for p := range parts {
		full := m.part(p)[written] == m.partSize
		some := m.part(p)[written] > 0
		if m.whole(p) && some && !wasWhole[p] || full && !wasFull[p] {
			out = append(out, p)
		}
	}
	return out
}

func (m *naive) extents(state byte) []Extent {
	var out []Extent
	for i := range m.size {
		if m.state[i] != state {
			continue
		}
		if n := len(out); n > 0 && out[n-1].End == i*m.unit {
			out[n-1].End += m.unit
		} else {
			out = append(out, Extent{i * m.unit, (i + 1) * m.unit})
		}
	}
	return out
}

func (m *naive) scale(e Extent) Extent { return Extent{e.Off * m.unit, e.End * m.unit} }

// checkCoverage fails unless c says of the file what m does.
func checkCoverage(t interface {
	Helper()
	Fatalf(string, ...any)
}, c *Coverage, m *naive) {
	t.Helper()
	if c.Size() != m.size*m.unit {
		t.Fatalf("size %d, want %d", c.Size(), m.size*m.unit)
	}
	for _, x := range []struct {
		name  string
		got   []Extent
		state byte
	}{{"written", c.Written(), written}, {"holes", c.Holes(), hole}, {"missing", c.Missing(), missing}} {
		if want := m.extents(x.state); !slices.Equal(x.got, want) {
			t.Fatalf("%s: %v, want %v", x.name, x.got, want)
		}
	}
	for p := range int64(len(m.state)) / m.partSize {
		if got := c.Whole(p); got != m.whole(p) {
			t.Fatalf("Whole(%d) = %v", p, got)
		}
		e := c.Layout().Extent(p, c.Size())
		if got, want := c.Known(e), m.part(p)[missing] == 0; got != want {
			t.Fatalf("Known(%v) = %v", e, got)
		}
		if got, want := c.Blank(e), m.part(p)[written] == 0; got != want {
			t.Fatalf("Blank(%v) = %v", e, got)
		}
	}
}

func newNaive(units int64) *naive {
	const unit = 1024 // four units are a part
	return &naive{unit: unit, partSize: testPart / unit, state: make([]byte, units)}
}

func TestCoverageAgainstBytes(t *testing.T) {
	l := mustLayout(t, testPart)
	const units = 64
	rapid.Check(t, func(t *rapid.T) {
		c, m := NewCoverage(l), newNaive(units)
		write := func(t *rapid.T, e Extent) {
			got, want := c.Write(m.scale(e)), m.write(e)
			if !slices.Equal(got, want) {
				t.Fatalf("Write(%v) = %v, want %v", m.scale(e), got, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) { write(t, drawExtent(t, units)) },
			"append": func(t *rapid.T) {
				write(t, Extent{m.size, min(m.size+rapid.Int64Range(0, 9).Draw(t, "n"), units)})
			},
			"extend": func(t *rapid.T) {
				n := rapid.Int64Range(0, units).Draw(t, "size")
				c.Extend(n * m.unit)
				if n > m.size {
					m.resize(n, hole)
				}
			},
			"truncate": func(t *rapid.T) {
				n := rapid.Int64Range(0, units).Draw(t, "size")
				c.Truncate(n * m.unit)
				m.resize(n, hole)
			},
			"punch": func(t *rapid.T) {
				e := drawExtent(t, units)
				c.Punch(m.scale(e))
				m.set(e, hole)
			},
			"lose": func(t *rapid.T) {
				e := drawExtent(t, units)
				c.Lose(m.scale(e))
				m.set(e, missing)
			},
			"restore": func(t *rapid.T) {
				var err error
				if c, err = RestoreCoverage(l, c.Size(), c.Written(), c.Holes()); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) { checkCoverage(t, c, m) },
		})
	})
}

// What Write returns, case by case: the rules of its documentation.
func TestCoverageWriteReturns(t *testing.T) {
	const p = testPart
	write := func(off, end int64) func(*Coverage) []int64 {
		return func(c *Coverage) []int64 { return c.Write(Extent{off, end}) }
	}
	quiet := func(f func(*Coverage)) func(*Coverage) []int64 {
		return func(c *Coverage) []int64 { f(c); return nil }
	}
	extend := func(n int64) func(*Coverage) []int64 { return quiet(func(c *Coverage) { c.Extend(n) }) }
	lose := func(off, end int64) func(*Coverage) []int64 {
		return quiet(func(c *Coverage) { c.Lose(Extent{off, end}) })
	}
	type step struct {
		do   func(*Coverage) []int64
		want []int64
	}
	for name, steps := range map[string][]step{
		"in order":                  {{write(0, p-1), nil}, {write(p-1, p), []int64{0}}, {write(p, 2*p), []int64{1}}},
		"one write of many parts":   {{write(0, 3*p+1), []int64{0, 1, 2}}},
		"the tail is not returned":  {{write(0, p+1), []int64{0}}, {write(p+1, 2*p-1), nil}},
		"a rewrite is not":          {{write(0, p), []int64{0}}, {write(0, p), nil}, {write(5, 6), nil}},
		"an empty write is not":     {{write(p, p), nil}, {write(9, 3), nil}},
		"a gap finishes the tail":   {{write(0, 10), nil}, {write(p, p+1), []int64{0}}},
		"far gap, only the tail":    {{write(0, 10), nil}, {write(9*p, 9*p+1), []int64{0}}},
		"holes alone are not":       {{write(9*p, 10*p), []int64{9}}},
		"a gap inside of a part":    {{write(p-1, p), []int64{0}}},
		"filling a gap in order":    {{write(2*p, 3*p), []int64{2}}, {write(0, p/2), nil}, {write(p/2, p), []int64{0}}, {write(p, 2*p), []int64{1}}},
		"preallocated, then filled": {{extend(2 * p), nil}, {write(0, p-1), nil}, {write(p-1, p), []int64{0}}, {write(p, 2*p), []int64{1}}},
		"with a hole, then full":    {{write(1, p), []int64{0}}, {write(0, 1), []int64{0}}},
		"lost and written again":    {{write(0, p), []int64{0}}, {lose(5, 6), nil}, {write(0, 5), nil}, {write(5, 6), []int64{0}}},
		"lost around a hole":        {{extend(p), nil}, {lose(5, 6), nil}, {write(5, 6), []int64{0}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewCoverage(mustLayout(t, p))
			for i, s := range steps {
				if got := s.do(c); !slices.Equal(got, s.want) {
					t.Fatalf("step %d: %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

// A write at the far end of all files must neither take memory for the parts
// in between nor count over the end of int64.
func TestCoverageWriteFarBehind(t *testing.T) {
	c := NewCoverage(mustLayout(t, testPart))
	c.Write(Extent{0, 1})
	top := Extent{math.MaxInt64 - 1, math.MaxInt64}
	if got := c.Write(top); !slices.Equal(got, []int64{0}) {
		t.Errorf("Write(%v) = %v", top, got)
	}
	if c.Size() != math.MaxInt64 || c.written.Len() != 2 || c.missing.Len() != 0 {
		t.Errorf("size %d, %d written, %d missing", c.Size(), c.written.Len(), c.missing.Len())
	}
	if !slices.Equal(c.Holes(), []Extent{{1, top.Off}}) {
		t.Errorf("holes: %v", c.Holes())
	}
}

func TestCoverageTruncatedBytesComeBackAsHole(t *testing.T) {
	c := NewCoverage(mustLayout(t, testPart))
	c.Write(Extent{0, 100})
	c.Lose(Extent{90, 100})
	c.Truncate(50)
	c.Truncate(100)
	if !slices.Equal(c.Written(), []Extent{{0, 50}}) || !slices.Equal(c.Holes(), []Extent{{50, 100}}) || c.Missing() != nil {
		t.Errorf("written %v, holes %v, missing %v", c.Written(), c.Holes(), c.Missing())
	}
}

func TestRestoreCoverageRefuses(t *testing.T) {
	l := mustLayout(t, testPart)
	for name, r := range map[string]struct {
		size           int64
		written, holes []Extent
		bad            Extent
	}{
		"negative size":       {-1, nil, nil, Extent{0, -1}},
		"written past end":    {10, []Extent{{0, 11}}, nil, Extent{0, 11}},
		"hole past end":       {10, nil, []Extent{{9, 11}}, Extent{9, 11}},
		"negative offset":     {10, []Extent{{-1, 5}}, nil, Extent{-1, 5}},
		"empty":               {10, []Extent{{5, 5}}, nil, Extent{5, 5}},
		"reversed":            {10, nil, []Extent{{6, 5}}, Extent{6, 5}},
		"hole that is data":   {10, []Extent{{0, 5}}, []Extent{{4, 6}}, Extent{4, 6}},
		"second one is wrong": {10, []Extent{{0, 5}, {5, 12}}, nil, Extent{5, 12}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := RestoreCoverage(l, r.size, r.written, r.holes)
			var ce *CoverageError
			if !errors.As(err, &ce) || ce.Extent != r.bad {
				t.Errorf("%v, want a CoverageError with %v", err, r.bad)
			}
		})
	}
	c, err := RestoreCoverage(l, 100, []Extent{{50, 60}, {0, 10}, {5, 20}}, []Extent{{20, 30}, {25, 30}})
	if err != nil {
		t.Fatalf("out of order and repeated: %v", err)
	}
	if !slices.Equal(c.Missing(), []Extent{{30, 50}, {60, 100}}) {
		t.Errorf("missing: %v", c.Missing())
	}
}

// FuzzCoverage reads operations of three bytes each.
func FuzzCoverage(f *testing.F) {
	f.Add([]byte{0, 0, 4, 0, 4, 4, 0, 8, 3})                   // in order, with a tail
	f.Add([]byte{0, 40, 4, 0, 0, 20, 0, 20, 20})               // out of order
	f.Add([]byte{0, 0, 60, 1, 30, 0, 1, 60, 0, 2, 3, 9})       // truncated down and up, punched
	f.Add([]byte{0, 0, 40, 3, 5, 9, 0, 5, 8, 0, 13, 1, 4, 63}) // lost, rewritten, extended
	f.Fuzz(func(t *testing.T, ops []byte) {
		c, m := NewCoverage(mustLayout(t, testPart)), newNaive(128)
		for ; len(ops) >= 3; ops = ops[3:] {
			off := int64(ops[1] % 64)
			e := Extent{off, off + int64(ops[2]%64)}
			switch ops[0] % 5 {
			case 0:
				if got, want := c.Write(m.scale(e)), m.write(e); !slices.Equal(got, want) {
					t.Fatalf("Write(%v) = %v, want %v", m.scale(e), got, want)
				}
			case 1:
				c.Truncate(off * m.unit)
				m.resize(off, hole)
			case 2:
				c.Punch(m.scale(e))
				m.set(e, hole)
			case 3:
				c.Lose(m.scale(e))
				m.set(e, missing)
			case 4:
				c.Extend(off * m.unit)
				if off > m.size {
					m.resize(off, hole)
				}
			}
			checkCoverage(t, c, m)
		}
	})
}

func TestCoverageWriteInOrderDoesNotAllocate(t *testing.T) {
	c := NewCoverage(mustLayout(t, 1<<30))
	n := testing.AllocsPerRun(500, func() { c.Write(Extent{c.Size(), c.Size() + 1<<20}) })
	if n != 0 {
		t.Errorf("Write allocates %v times", n)
	}
}

func BenchmarkCoverageWrite(b *testing.B) {
	l := mustLayout(b, 16<<20)
	b.Run("sequential", func(b *testing.B) {
		c := NewCoverage(l)
		b.ReportAllocs()
		for i := range int64(b.N) {
			c.Write(Extent{i << 20, (i + 1) << 20})
		}
	})
	b.Run("preallocated", func(b *testing.B) {
		c := NewCoverage(l)
		c.Extend(int64(b.N) << 20)
		b.ReportAllocs()
		for i := range int64(b.N) {
			c.Write(Extent{i << 20, (i + 1) << 20})
		}
	})
}

package chunker

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// testPart is the part size of most tests: the smallest, so that short files
// have many parts.
const testPart = MinPartSize

func mustLayout(t testing.TB, partSize int64) Layout {
	t.Helper()
	l, err := NewLayout(partSize)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNewLayoutLimits(t *testing.T) {
	for _, c := range []struct {
		size int64
		ok   bool
	}{
		{math.MinInt64, false}, {-4096, false}, {0, false}, {1, false},
		{MinPartSize - 1, false}, {MinPartSize, true}, {MinPartSize + 1, false},
		{MinPartSize + PartSizeStep, true},
		{16 << 20, true}, {16<<20 + 512, false},
		{MaxPartSize - PartSizeStep, true}, {MaxPartSize - 1, false}, {MaxPartSize, true},
		{MaxPartSize + 1, false}, {MaxPartSize + PartSizeStep, false}, {math.MaxInt64, false},
	} {
		l, err := NewLayout(c.size)
		if (err == nil) != c.ok {
			t.Errorf("NewLayout(%d): %v, want ok %v", c.size, err, c.ok)
		}
		var wrong *PartSizeError
		switch {
		case err == nil && l.PartSize() != c.size:
			t.Errorf("NewLayout(%d).PartSize() = %d", c.size, l.PartSize())
		case err != nil && (!errors.As(err, &wrong) || wrong.PartSize != c.size):
			t.Errorf("NewLayout(%d): error %#v does not carry the size", c.size, err)
		}
	}
}

func TestLayoutCountAndTail(t *testing.T) {
	const p = testPart
	l := mustLayout(t, p)
	for _, c := range []struct{ size, count, tail int64 }{
		{0, 0, 0}, {-1, 0, 0}, {1, 1, 1}, {p - 1, 1, p - 1}, {p, 1, p}, {p + 1, 2, 1},
		{10*p - 1, 10, p - 1}, {10 * p, 10, p}, {10*p + 1, 11, 1},
		{math.MaxInt64, math.MaxInt64/p + 1, p - 1},
	} {
		if n := l.Count(c.size); n != c.count {
			t.Errorf("Count(%d) = %d, want %d", c.size, n, c.count)
		}
		if c.count > 0 {
			if e := l.Extent(c.count-1, c.size); e.Len() != c.tail || e.End != c.size {
				t.Errorf("tail of %d bytes is %v, want %d bytes", c.size, e, c.tail)
			}
		}
		if e := l.Extent(max(c.count, 0), c.size); !e.Empty() {
			t.Errorf("the part behind the last of %d bytes is %v, want empty", c.size, e)
		}
	}
}

// Parts must cover a file without gap or overlap, whatever the sizes.
func TestLayoutPartitionsTheFile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, err := NewLayout(PartSizeStep * rapid.Int64Range(1, MaxPartSize/PartSizeStep).Draw(t, "steps"))
		if err != nil {
			t.Fatal(err)
		}
		size := rapid.Int64Range(1, math.MaxInt64).Draw(t, "size")
		off := rapid.Int64Range(0, size-1).Draw(t, "off")
		part := l.PartAt(off)
		e := l.Extent(part, size)
		if off < e.Off || off >= e.End {
			t.Fatalf("byte %d is not in its part %d %v", off, part, e)
		}
		if e.Off%l.PartSize() != 0 || e.Len() > l.PartSize() || e.Off != part*l.PartSize() {
			t.Fatalf("part %d is %v", part, e)
		}
		if e.End < size {
			if e.Len() != l.PartSize() {
				t.Fatalf("part %d is short, %v, and not the tail of %d bytes", part, e, size)
			}
			if next := l.Extent(part+1, size); next.Off != e.End || next.Empty() {
				t.Fatalf("part %d is %v and the next %v", part, e, next)
			}
		} else if part != l.Count(size)-1 {
			t.Fatalf("part %d reaches the end, but there are %d", part, l.Count(size))
		}
		end := rapid.Int64Range(off+1, size).Draw(t, "end")
		first, last := l.Span(Extent{off, end})
		if first != part || last != l.PartAt(end-1) {
			t.Fatalf("Span([%d,%d)) = %d, %d", off, end, first, last)
		}
	})
}

func TestPartsBeyondInt64AreEmptyNotWrapped(t *testing.T) {
	l := mustLayout(t, MaxPartSize)
	last := int64(math.MaxInt64) / MaxPartSize
	if e := l.Extent(last, math.MaxInt64); e.Off != last*MaxPartSize || e.End != math.MaxInt64 {
		t.Errorf("the last part there can be is %v", e)
	}
	for _, part := range []int64{last + 1, last + 2, math.MaxInt64 / 2, math.MaxInt64} {
		if e := l.Extent(part, math.MaxInt64); !e.Empty() || e.Off < 0 {
			t.Errorf("part %d is %v, want empty", part, e)
		}
	}
}

func TestExtent(t *testing.T) {
	a := Extent{10, 20}
	for _, c := range []struct {
		b                  Extent
		overlaps, contains bool
		common             int64
	}{
		{Extent{0, 10}, false, false, 0},
		{Extent{0, 11}, true, false, 1},
		{Extent{10, 20}, true, true, 10},
		{Extent{11, 19}, true, true, 8},
		{Extent{9, 21}, true, false, 10},
		{Extent{19, 30}, true, false, 1},
		{Extent{20, 30}, false, false, 0},
		{Extent{15, 15}, false, true, 0},
		{Extent{40, 30}, false, true, 0},
	} {
		if got := a.Overlaps(c.b); got != c.overlaps {
			t.Errorf("%v.Overlaps(%v) = %v", a, c.b, got)
		}
		if got := a.Contains(c.b); got != c.contains {
			t.Errorf("%v.Contains(%v) = %v", a, c.b, got)
		}
		if got := a.Intersect(c.b).Len(); got != c.common {
			t.Errorf("%v.Intersect(%v) has %d bytes", a, c.b, got)
		}
	}
	if s := a.String(); s != "[10,20)" {
		t.Errorf("String: %s", s)
	}
	if b, _ := json.Marshal(a); string(b) != `{"off":10,"end":20}` {
		t.Errorf("JSON: %s", b)
	}
}

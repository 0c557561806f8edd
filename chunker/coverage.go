package chunker

import (
	"fmt"
)

// Coverage is what is known of one file: its size, and for each byte below it
// whether it was written, is an explicit hole, or is missing (the package
// documentation says what these mean). It is not safe for concurrent use.
type Coverage struct {
	layout Layout
	size   int64
	// A byte below size that is in neither set is a hole. Written and missing
	// bytes are the ones kept because a file without holes then costs one
	// extent, and a file of holes none.
	written Set
	missing Set
}

// NewCoverage returns the coverage of an empty file.
func NewCoverage(l Layout) *Coverage { return &Coverage{layout: l} }

// CoverageError is the error of RestoreCoverage for a record that contradicts
// itself.
type CoverageError struct {
	Extent Extent // the extent that cannot be right
	Reason string
}

func (e *CoverageError) Error() string {
	return fmt.Sprintf("coverage: extent %v %s", e.Extent, e.Reason)
}

// RestoreCoverage returns the coverage of a file of size bytes of which the
// given extents are written and holes; all else below size is missing. The
// extents may come in any order and may repeat one another. An extent that is
// empty or reaches outside the file, or a byte that is written and hole at
// once, is answered with a *CoverageError.
func RestoreCoverage(l Layout, size int64, written, holes []Extent) (*Coverage, error) {
	if size < 0 {
		return nil, &CoverageError{Extent{0, size}, "is a negative size"}
	}
	c := &Coverage{layout: l, size: size}
	c.missing.Add(Extent{0, size})
	for _, e := range written {
		if err := c.check(e); err != nil {
			return nil, err
		}
		c.written.Add(e)
		c.missing.Remove(e)
	}
	for _, e := range holes {
		if err := c.check(e); err != nil {
			return nil, err
		}
		if c.written.Overlaps(e) {
			return nil, &CoverageError{e, "is a hole and written"}
		}
		c.missing.Remove(e)
	}
	return c, nil
}

// check tells whether e is a possible extent of the file.
func (c *Coverage) check(e Extent) error {
	switch {
	case e.Empty():
		return &CoverageError{e, "is empty"}
	case e.Off < 0 || e.End > c.size:
		return &CoverageError{e, fmt.Sprintf("reaches outside the file of %d bytes", c.size)}
	}
	return nil
}

// Layout is the layout of the file's parts.
func (c *Coverage) Layout() Layout { return c.layout }

// Size is the size of the file in bytes.
func (c *Coverage) Size() int64 { return c.size }

// Write records that the bytes of e were written. If e begins behind the end,
// the gap becomes a hole, as POSIX has it.
//
// It returns the parts, ascending, that are worth sending now because of this
// write: those it made whole, and those that were whole because of holes and
// now consist of written bytes altogether (a file that was extended first and
// filled afterwards). A part of nothing but holes is never returned: a
// program that writes far behind the end will more often come back to fill
// the gap than not, and the list stays as short as the write. The tail is
// never returned either, because its end is not known before the file is
// complete. So at publish there may be whole parts that were never returned;
// Whole knows them all.
func (c *Coverage) Write(e Extent) []int64 {
	if e.Empty() {
		return nil
	}
	size := max(c.size, e.End)

	// The parts that may change: those that e touches, and the old tail,
	// which is finished by a hole if e begins in a later part. Of each that
	// is not full of written bytes yet, keep the number, and whether it was
	// whole as the sign. Most writes end inside of a part and keep none.
	var room [8]int64
	changed := room[:0]
	first, last := c.layout.Span(e)
	if old := c.layout.PartAt(c.size); old < first {
		changed = c.unfinished(changed, old, size)
	}
	for part := first; part <= last; part++ {
		changed = c.unfinished(changed, part, size)
	}

	c.size = size
	c.written.Add(e)
	c.missing.Remove(e)

	var whole []int64
	for _, n := range changed {
		part, wasWhole := n, n < 0
		if wasWhole {
			part = ^n
		}
		full := c.layout.full(part)
		if wasWhole && c.written.Contains(full) ||
			!wasWhole && c.Whole(part) && c.written.Overlaps(full) {
			whole = append(whole, part)
		}
	}
	return whole
}

// unfinished appends part to list if it could be returned by a Write that
// makes the file size bytes long: its complement if it is whole already.
func (c *Coverage) unfinished(list []int64, part, size int64) []int64 {
	full := c.layout.full(part)
	switch {
	case full.End > size:
		return list // the tail
	case !c.Whole(part):
		return append(list, part)
	case !c.written.Contains(full):
		return append(list, ^part)
	}
	return list
}

// Extend makes the file size bytes long; what is new is a hole. It does
// nothing if the file is that long already.
func (c *Coverage) Extend(size int64) { c.size = max(c.size, size) }

// Truncate makes the file size bytes long. Cut off bytes are forgotten: when
// the file grows again, they are holes.
func (c *Coverage) Truncate(size int64) {
	if size < c.size {
		c.written.Truncate(size)
		c.missing.Truncate(size)
	}
	c.size = size
}

// Punch makes the bytes of e below the size a hole, whatever they were.
func (c *Coverage) Punch(e Extent) {
	c.written.Remove(e)
	c.missing.Remove(e)
}

// Lose makes the bytes of e below the size missing, whatever they were: damage
// was found there.
func (c *Coverage) Lose(e Extent) {
	e = e.Intersect(Extent{0, c.size})
	c.written.Remove(e)
	c.missing.Add(e)
}

// Whole reports whether the part has its full size and all of its bytes are
// known. The tail is not whole in this sense unless it happens to have the
// full size.
func (c *Coverage) Whole(part int64) bool {
	full := c.layout.full(part)
	return full.End <= c.size && full.Len() == c.layout.partSize && !c.missing.Overlaps(full)
}

// Known reports whether each byte of e lies below the size and is written or
// a hole. It is how the tail is judged when the file is complete.
func (c *Coverage) Known(e Extent) bool {
	return e.Empty() || e.End <= c.size && !c.missing.Overlaps(e)
}

// Blank reports whether no byte of e counts as written: each is a hole, or
// missing, or behind the end.
func (c *Coverage) Blank(e Extent) bool { return !c.written.Overlaps(e) }

// Missing returns the extents below the size that are neither written nor
// hole, ascending; nil if there are none.
func (c *Coverage) Missing() []Extent { return c.missing.Extents() }

// Written returns the extents that were written, ascending.
func (c *Coverage) Written() []Extent { return c.written.Extents() }

// Holes returns the explicit holes, ascending.
func (c *Coverage) Holes() []Extent {
	if len(c.missing.leaves) == 0 {
		return c.written.Missing(Extent{0, c.size})
	}
	var holes []Extent
	for _, gap := range c.written.Missing(Extent{0, c.size}) {
		holes = append(holes, c.missing.Missing(gap)...)
	}
	return holes
}

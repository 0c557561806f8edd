package chunker

import (
	"math"
	"slices"
	"sort"
)

// leafMax is the most extents in one leaf of a Set: 4 KiB of them, little
// enough that shifting half a leaf for an insertion costs less than finding
// the place in memory.
const leafMax = 256

// Set is a set of bytes of a file, kept as extents that are sorted, disjoint
// and never adjacent, so that equal sets are kept equally. The zero Set is
// empty and ready to use. It is not safe for concurrent use.
//
// Adding at the end, as a file written in order does, takes constant time;
// anything else takes a binary search and the shifting of one leaf.
type Set struct {
	// leaves holds the extents in order, cut into slices of 1 to leafMax, so
	// that an insertion among millions does not shift millions.
	leaves [][]Extent
	bytes  int64
}

// place is where an extent stands in a Set. The place behind the last extent
// is {len(leaves), 0}.
type place struct{ leaf, i int }

// Add puts the bytes of e into the set.
func (s *Set) Add(e Extent) {
	if e.Empty() || s.addAtEnd(e) {
		return
	}
	// What e touches, adjacent extents included, becomes one extent with it.
	lo, hi := s.firstEndAfter(e.Off-1), s.firstOffAfter(e.End)
	if lo != hi {
		e.Off = min(e.Off, s.at(lo).Off)
		e.End = max(e.End, s.before(hi).End)
	}
	s.replace(lo, hi, e)
}

// addAtEnd adds e if it begins in or behind the last extent, which is what
// writing in order does.
func (s *Set) addAtEnd(e Extent) bool {
	n := len(s.leaves)
	if n == 0 {
		return false
	}
	leaf := s.leaves[n-1]
	last := &leaf[len(leaf)-1]
	switch {
	case e.Off < last.Off:
		return false
	case e.Off <= last.End:
		if e.End > last.End {
			s.bytes += e.End - last.End
			last.End = e.End
		}
	case len(leaf) < leafMax:
		s.leaves[n-1] = append(leaf, e)
		s.bytes += e.Len()
	default:
		// A new leaf instead of two halves: ascending writes fill leaves.
		s.leaves = append(s.leaves, append(make([]Extent, 0, leafMax), e))
		s.bytes += e.Len()
	}
	return true
}

// Remove takes the bytes of e out of the set.
func (s *Set) Remove(e Extent) {
	if e.Empty() {
		return
	}
	lo, hi := s.firstEndAfter(e.Off), s.firstOffAfter(e.End-1)
	if lo == hi {
		return
	}
	left := Extent{s.at(lo).Off, e.Off}
	right := Extent{e.End, s.before(hi).End}
	switch {
	case left.Empty() && right.Empty():
		s.replace(lo, hi)
	case right.Empty():
		s.replace(lo, hi, left)
	case left.Empty():
		s.replace(lo, hi, right)
	default:
		s.replace(lo, hi, left, right)
	}
}

// Truncate removes all bytes at and behind size.
func (s *Set) Truncate(size int64) { s.Remove(Extent{size, math.MaxInt64}) }

// Contains reports whether each byte of e is in the set. It is true of an
// empty e.
func (s *Set) Contains(e Extent) bool {
	if e.Empty() {
		return true
	}
	p := s.firstEndAfter(e.Off)
	return p.leaf < len(s.leaves) && s.at(p).Contains(e)
}

// Overlaps reports whether any byte of e is in the set.
func (s *Set) Overlaps(e Extent) bool {
	if e.Empty() {
		return false
	}
	p := s.firstEndAfter(e.Off)
	return p.leaf < len(s.leaves) && s.at(p).Overlaps(e)
}

// Missing returns the extents of within that are not in the set, ascending;
// nil if there are none.
func (s *Set) Missing(within Extent) []Extent {
	var out []Extent
	at := within.Off
	s.walk(s.firstEndAfter(within.Off), func(e Extent) bool {
		if e.Off >= within.End {
			return false
		}
		if at < e.Off {
			out = append(out, Extent{at, e.Off})
		}
		at = e.End
		return true
	})
	if at < within.End {
		out = append(out, Extent{at, within.End})
	}
	return out
}

// Extents returns the extents of the set, ascending, as a copy; nil if it is
// empty.
func (s *Set) Extents() []Extent {
	if len(s.leaves) == 0 {
		return nil
	}
	return slices.Concat(s.leaves...)
}

// Len is the number of extents in the set.
func (s *Set) Len() int {
	n := 0
	for _, leaf := range s.leaves {
		n += len(leaf)
	}
	return n
}

// Bytes is the number of bytes in the set.
func (s *Set) Bytes() int64 { return s.bytes }

// Clone returns a copy that shares nothing with s.
func (s *Set) Clone() *Set {
	c := &Set{bytes: s.bytes}
	for _, leaf := range s.leaves {
		c.leaves = append(c.leaves, slices.Clone(leaf))
	}
	return c
}

// firstEndAfter is the place of the first extent whose End is above off.
func (s *Set) firstEndAfter(off int64) place {
	l := sort.Search(len(s.leaves), func(l int) bool {
		leaf := s.leaves[l]
		return leaf[len(leaf)-1].End > off
	})
	if l == len(s.leaves) {
		return place{l, 0}
	}
	leaf := s.leaves[l]
	return place{l, sort.Search(len(leaf), func(i int) bool { return leaf[i].End > off })}
}

// firstOffAfter is the place of the first extent whose Off is above off.
func (s *Set) firstOffAfter(off int64) place {
	l := sort.Search(len(s.leaves), func(l int) bool {
		leaf := s.leaves[l]
		return leaf[len(leaf)-1].Off > off
	})
	if l == len(s.leaves) {
		return place{l, 0}
	}
	leaf := s.leaves[l]
	return place{l, sort.Search(len(leaf), func(i int) bool { return leaf[i].Off > off })}
}

// at is the extent at p, which must not be the place behind the last.
func (s *Set) at(p place) Extent { return s.leaves[p.leaf][p.i] }

// before is the extent that stands before p, which must not be the first.
func (s *Set) before(p place) Extent {
	if p.i > 0 {
		return s.leaves[p.leaf][p.i-1]
	}
	leaf := s.leaves[p.leaf-1]
	return leaf[len(leaf)-1]
}

// walk calls f for the extents from p on until f returns false.
func (s *Set) walk(p place, f func(Extent) bool) {
	for ; p.leaf < len(s.leaves); p = (place{p.leaf + 1, 0}) {
		for _, e := range s.leaves[p.leaf][p.i:] {
			if !f(e) {
				return
			}
		}
	}
}

// replace puts with in the place of the extents from lo to before hi. It is
// the only way by which extents leave the set or enter its middle.
func (s *Set) replace(lo, hi place, with ...Extent) {
	if len(s.leaves) == 0 {
		s.leaves = append(s.leaves, make([]Extent, 0, 4))
	}
	// A place at the start of a leaf is as well the place behind the leaf
	// before it. The latter form keeps lo and hi in leaves that exist, and in
	// one leaf if they can be.
	if lo.leaf == len(s.leaves) {
		lo = place{lo.leaf - 1, len(s.leaves[lo.leaf-1])}
	}
	if hi.i == 0 && hi.leaf > lo.leaf {
		hi = place{hi.leaf - 1, len(s.leaves[hi.leaf-1])}
	}
	for p := lo; p.leaf <= hi.leaf; p = (place{p.leaf + 1, 0}) {
		end := len(s.leaves[p.leaf])
		if p.leaf == hi.leaf {
			end = hi.i
		}
		for _, e := range s.leaves[p.leaf][p.i:end] {
			s.bytes -= e.Len()
		}
	}
	for _, e := range with {
		s.bytes += e.Len()
	}
	if lo.leaf == hi.leaf {
		s.leaves[lo.leaf] = slices.Replace(s.leaves[lo.leaf], lo.i, hi.i, with...)
	} else {
		s.leaves[lo.leaf] = append(s.leaves[lo.leaf][:lo.i], with...)
		s.leaves[hi.leaf] = slices.Delete(s.leaves[hi.leaf], 0, hi.i)
		s.leaves = slices.Delete(s.leaves, lo.leaf+1, hi.leaf)
		s.balance(lo.leaf + 1)
	}
	s.balance(lo.leaf)
}

// balance restores the bounds on the size of leaf l after a change: a leaf
// that became too long is halved, an empty one goes, and a short one joins a
// short neighbour.
func (s *Set) balance(l int) {
	leaf := s.leaves[l]
	switch {
	case len(leaf) == 0:
		s.leaves = slices.Delete(s.leaves, l, l+1)
	case len(leaf) > leafMax:
		half := len(leaf) / 2
		right := append(make([]Extent, 0, leafMax), leaf[half:]...)
		s.leaves[l] = leaf[:half]
		s.leaves = slices.Insert(s.leaves, l+1, right)
	default:
		s.join(l)
		s.join(l - 1)
	}
}

// join makes one leaf of l and the next if both exist and both are short. A
// leaf of half the length leaves room to grow, so that leaves are not joined
// and halved in turns.
func (s *Set) join(l int) {
	if l < 0 || l+1 >= len(s.leaves) || len(s.leaves[l])+len(s.leaves[l+1]) > leafMax/2 {
		return
	}
	s.leaves[l] = append(s.leaves[l], s.leaves[l+1]...)
	s.leaves = slices.Delete(s.leaves, l+1, l+2)
}

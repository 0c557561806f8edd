package chunker

import (
	"hash/crc32"
	"slices"
)

// maxPieces is the most pieces of one part that are kept. Writers that keep
// more separate places in one part at a time are rare, and reading the part
// again serves them well; a bound keeps memory and lock holds short (W8).
const maxPieces = 64

// Sums knows the CRC32C of parts from the checksums of their pieces, in
// whatever order these come. It is not safe for concurrent use.
//
// A part that is summed altogether costs about 25 bytes, one that is being
// written at most some 1.5 KiB.
type Sums struct {
	layout Layout
	// whole holds the sums of full-size parts, partial the pieces of others.
	// A part is in at most one of them.
	whole   map[int64]uint32
	partial map[int64]*pieces
	// hot is the entry of partial that was used last, for hotPart: pieces
	// mostly follow one another. Nil if none.
	hot     *pieces
	hotPart int64
	// spare is an entry out of use, kept so that a file written in order
	// allocates one and not one a part.
	spare *pieces
}

// piece is a run of bytes with a known checksum.
type piece struct {
	Extent
	crc uint32
}

// pieces are the known runs of one part: ascending, disjoint, and never
// adjacent, because adjacent ones are combined.
type pieces struct {
	list []piece
	// gaveUp is set when there were too many; then nothing is kept until the
	// whole part is forgotten.
	gaveUp bool
}

// NewSums returns Sums that know nothing.
func NewSums(l Layout) *Sums {
	return &Sums{layout: l, whole: map[int64]uint32{}, partial: map[int64]*pieces{}}
}

// Add records that the n bytes at off, all inside one part, have the CRC32C
// crc. Known pieces that they overlap are forgotten, because their bytes have
// changed in part. A run that crosses into another part is not taken in;
// what it touches is forgotten.
func (s *Sums) Add(off, n int64, crc uint32) {
	if n <= 0 {
		return
	}
	e := Extent{off, off + n}
	part, last := s.layout.Span(e)
	if part != last {
		s.Forget(e)
		return
	}
	p := s.hot
	if p == nil || s.hotPart != part {
		p = s.open(part)
	}
	if p.gaveUp {
		return
	}
	p.add(piece{e, crc})
	if len(p.list) > maxPieces {
		p.list, p.gaveUp = p.list[:0], true
		return
	}
	if p.list[0].Len() == s.layout.partSize {
		s.whole[part] = p.list[0].crc
		s.close(part, p)
	}
}

// open returns the pieces of part, new ones if need be, and makes them hot. A
// sum of the whole part is dropped: the piece to come overlaps it.
func (s *Sums) open(part int64) *pieces {
	p := s.partial[part]
	if p == nil {
		delete(s.whole, part)
		if p, s.spare = s.spare, nil; p == nil {
			p = &pieces{}
		}
		s.partial[part] = p
	}
	s.hot, s.hotPart = p, part
	return p
}

// close takes part out of those partially known.
func (s *Sums) close(part int64, p *pieces) {
	delete(s.partial, part)
	p.list, p.gaveUp = p.list[:0], false
	s.spare = p
	if s.hotPart == part {
		s.hot = nil
	}
}

// Forget makes the sums of the bytes of e unknown: they were changed by other
// means than a write that Add tells of. A piece is forgotten altogether even
// if e covers a few of its bytes.
func (s *Sums) Forget(e Extent) {
	if e.Empty() {
		return
	}
	first, last := s.layout.Span(e)
	// A truncation forgets up to the end of all files, so walk over the
	// parts that are known if they are fewer than those that e touches.
	if n := int64(len(s.whole) + len(s.partial)); last-first < n {
		for part := first; part <= last; part++ {
			s.forget(part, e)
		}
		return
	}
	for part := range s.whole {
		if first <= part && part <= last {
			delete(s.whole, part)
		}
	}
	for part := range s.partial {
		if first <= part && part <= last {
			s.forget(part, e)
		}
	}
}

// forget is Forget for one part that e touches.
func (s *Sums) forget(part int64, e Extent) {
	delete(s.whole, part)
	p := s.partial[part]
	if p == nil {
		return
	}
	p.list = slices.DeleteFunc(p.list, func(k piece) bool { return k.Overlaps(e) })
	if e.Contains(s.layout.full(part)) || len(p.list) == 0 && !p.gaveUp {
		s.close(part, p)
	}
}

// Sum returns the CRC32C of the bytes of e, which lie in one part. It is known
// if they are exactly what pieces were added for; false says that the bytes
// must be read. The sum of an empty e is known to be 0.
func (s *Sums) Sum(e Extent) (uint32, bool) {
	if e.Empty() {
		return 0, true
	}
	part := s.layout.PartAt(e.Off)
	if crc, ok := s.whole[part]; ok {
		return crc, e == s.layout.full(part)
	}
	if p := s.partial[part]; p != nil {
		for _, k := range p.list {
			if k.Extent == e {
				return k.crc, true
			}
		}
	}
	return 0, false
}

// add puts k among the pieces in place of those that it overlaps, and combines
// it with those that it touches.
func (p *pieces) add(k piece) {
	n := len(p.list)
	if n > 0 && p.list[n-1].End == k.Off { // in order
		last := &p.list[n-1]
		last.crc = Combine(last.crc, k.crc, k.Len())
		last.End = k.End
		return
	}
	// The pieces from i to before j overlap k.
	i := n
	for i > 0 && p.list[i-1].End > k.Off {
		i--
	}
	j := i
	for j < n && p.list[j].Off < k.End {
		j++
	}
	if i > 0 && p.list[i-1].End == k.Off {
		i--
		before := p.list[i]
		k = piece{Extent{before.Off, k.End}, Combine(before.crc, k.crc, k.Len())}
	}
	if j < n && p.list[j].Off == k.End {
		after := p.list[j]
		k = piece{Extent{k.Off, after.End}, Combine(k.crc, after.crc, after.Len())}
		j++
	}
	p.list = slices.Replace(p.list, i, j, k)
}

// castagnoli is the table of CRC32C. For it hash/crc32 uses the processor's
// instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C (Castagnoli) of p.
func Checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// Update is the CRC32C of bytes with the sum crc followed by p.
func Update(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

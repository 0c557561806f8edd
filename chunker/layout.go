package chunker

import (
	"fmt"
	"math"
)

// The part sizes that NewLayout accepts, in bytes. The smallest is a page, so
// that a part always starts where a block of the staging filesystem does; the
// largest is what S3 takes as one part. A part size is a multiple of
// PartSizeStep.
const (
	MinPartSize  int64 = 4 << 10
	MaxPartSize  int64 = 5 << 30
	PartSizeStep int64 = 4 << 10
)

// Extent is the byte range [Off, End) of a file. It is empty when End <= Off.
// Offsets are never negative.
type Extent struct {
	Off int64 `json:"off"`
	End int64 `json:"end"`
}

// Len is the number of bytes in e, 0 when it is empty.
func (e Extent) Len() int64 { return max(0, e.End-e.Off) }

// Empty reports whether e has no bytes.
func (e Extent) Empty() bool { return e.End <= e.Off }

// Overlaps reports whether e and o have a byte in common.
func (e Extent) Overlaps(o Extent) bool {
	return max(e.Off, o.Off) < min(e.End, o.End)
}

// Intersect returns the bytes that e and o have in common. If there are none,
// the result is empty and its offsets mean nothing.
func (e Extent) Intersect(o Extent) Extent {
	return Extent{max(e.Off, o.Off), min(e.End, o.End)}
}

// Contains reports whether each byte of o is in e. An empty o is contained in
// every extent.
func (e Extent) Contains(o Extent) bool {
	return o.Empty() || (e.Off <= o.Off && o.End <= e.End)
}

// String writes e as "[off,end)".
func (e Extent) String() string { return fmt.Sprintf("[%d,%d)", e.Off, e.End) }

// PartSizeError is the error of NewLayout for a part size that cannot be used.
type PartSizeError struct {
	PartSize int64 // bytes
}

func (e *PartSizeError) Error() string {
	return fmt.Sprintf("part size %d is not a multiple of %d from %d to %d",
		e.PartSize, PartSizeStep, MinPartSize, MaxPartSize)
}

// Layout divides files into parts of one size. It is a value; the zero Layout
// is not usable.
type Layout struct {
	partSize int64
}

// NewLayout returns the layout with parts of partSize bytes: MinPartSize to
// MaxPartSize, a multiple of PartSizeStep. The error is a *PartSizeError.
func NewLayout(partSize int64) (Layout, error) {
	if partSize < MinPartSize || partSize > MaxPartSize || partSize%PartSizeStep != 0 {
		return Layout{}, &PartSizeError{PartSize: partSize}
	}
	return Layout{partSize: partSize}, nil
}

// PartSize is the size of every part but the tail, in bytes.
func (l Layout) PartSize() int64 { return l.partSize }

// PartAt is the number of the part that holds the byte at off.
func (l Layout) PartAt(off int64) int64 { return off / l.partSize }

// Count is the number of parts of a file of size bytes, the tail included;
// 0 for an empty file.
func (l Layout) Count(size int64) int64 {
	if size <= 0 {
		return 0
	}
	// Not (size+partSize-1)/partSize: that overflows near the largest size.
	return (size-1)/l.partSize + 1
}

// Extent is the byte range of a part in a file of size bytes. The tail is
// shorter than the others, and a part beyond the end is empty.
func (l Layout) Extent(part, size int64) Extent {
	e := l.full(part)
	return Extent{min(e.Off, max(size, 0)), min(e.End, max(size, 0))}
}

// Span returns the first and the last part that e touches. It must not be
// empty.
func (l Layout) Span(e Extent) (first, last int64) {
	return e.Off / l.partSize, (e.End - 1) / l.partSize
}

// full is the byte range of a part in an endless file. Beyond what int64 can
// count it is cut off rather than wrapped around.
func (l Layout) full(part int64) Extent {
	if part > math.MaxInt64/l.partSize {
		return Extent{math.MaxInt64, math.MaxInt64}
	}
	off := part * l.partSize
	if off > math.MaxInt64-l.partSize {
		return Extent{off, math.MaxInt64}
	}
	return Extent{off, off + l.partSize}
}

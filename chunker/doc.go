// Package chunker is the arithmetic of a file that is made in parts: where
// each part begins and ends, which bytes of the file are known so far, which
// parts are whole because of it, and what the checksum of a part is when its
// bytes arrive in pieces.
//
// It does no I/O, reads no clock and starts no goroutine; what it answers
// depends only on what it was told. That is why it can be tested against a
// plain bitmap, byte for byte.
//
// # Words
//
// A part is a fixed-size piece of a file, numbered from 0. The last part is
// usually shorter and is called the tail. An extent is a half-open byte range
// [Off, End). All sizes and offsets are bytes, counted in int64.
//
// # The types
//
// [Layout] knows the part size and nothing else: it turns offsets into part
// numbers and back.
//
// [Set] is a set of bytes, kept as sorted extents. A file written in order is
// one extent, however long it is.
//
// [Coverage] is what is known of one file. Each byte below its size is in one
// of three states:
//
//	written   a program wrote it
//	hole      it reads as zero, and that is meant: a gap that a write left
//	          behind it (as POSIX has it), a truncate upward, a punched range
//	missing   it ought to be there and is not: damage, or what a crash took
//
// A file may be published only when nothing is missing (promise W1). Written
// and hole bytes are both called known, and a part is whole when it has its
// full size and all of its bytes are known.
//
// [Sums] collects the CRC32C of each part from the checksums of its pieces, in
// whatever order they come (promise W9). It holds checksums, not bytes, so it
// cannot split a piece: a write over the middle of one makes the sum unknown,
// and the caller reads the part again. Sums prefers "unknown" to any guess.
//
// None of the types has a lock. Their owner, the staging file or the session,
// has one already and calls them under it; so each call must be short.
package chunker

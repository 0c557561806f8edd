// Package staging keeps the bytes of files that are being made: sparse files
// in a directory of their own, into which writes go at their offsets, behind
// the back of the program that wrote them.
//
// # Write-behind
//
// A write through the mount is acknowledged as soon as its request has been
// read, and is carried out from the request's own buffer afterwards, on
// another thread. A second copy of the bytes into part-sized buffers would
// cost a third of the throughput, so there is none: a part is a range of the
// staging file, not a buffer. In this package a write therefore has two ends:
//
//	f.Begin(off, n)       // reserve the range; from here on the write counts
//	...                   // acknowledge to the kernel
//	f.Finish(off, data)   // carry it out, release the range
//
// Between the two the range is in flight. Three rules follow:
//
//   - Order. A write that overlaps one in flight waits in Begin until that one
//     has finished, so bytes reach the file in the order in which writes were
//     acknowledged. Those that wait are served first come, first served.
//   - Visibility. Who reads, by ReadAt, Sum, SeekData and the like, waits for
//     what is in flight in the range; and whatever changes the file by other
//     means than a write (Truncate, Punch, CloneFrom) waits for everything in
//     flight and holds off new writes meanwhile.
//   - Errors come late (promise W6). The error of a Finish has nobody to go
//     to, for the write was acknowledged long ago. So the first one poisons
//     the file: Begin, Drain, Sync and the calls that change it return that
//     same error ever after. Reading goes on: what was staged can be saved.
//
// Memory is bounded by [Buffers], the one budget of a mount: a request is read
// into a buffer from it, and when all are in flight the reader waits (W8).
//
// # Checksums
//
// Finish computes the CRC32C of the bytes while they are in the processor's
// cache, cut at part borders, and notes it with the range (W9). When the
// writes of a part have covered it piece by piece, its sum is known without
// reading anything; File.Sum reads the file only if pieces were overwritten in
// part or left gaps.
//
// # Hazards
//
//   - Each Begin that returned nil must be followed by exactly one Finish or
//     Cancel. Otherwise Drain and Close wait for ever.
//   - Nobody may wait, in Begin or Drain, while holding what a Finish needs to
//     go on.
//   - No lock is held over a system call. A disk that hangs blocks the calls
//     that need it, and Stats, Usage and Err still answer; Usage asks the
//     kernel for attributes only.
package staging

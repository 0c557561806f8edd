package chunker

import "hash/crc32"

// A CRC is the remainder of the message, read as a polynomial over GF(2),
// divided by the polynomial P. To append n bytes is to multiply the message by
// x^(8n) and add the appended bytes; so the sum of a concatenation follows
// from the sums of its halves and the length of the second. (The inversions
// before and after, which CRC32C adds, cancel out.)
//
// Polynomials below are in the bit order of hash/crc32: the highest bit is the
// coefficient of x^0, the lowest that of x^31.

// one is the polynomial 1.
const one = 1 << 31

// shifts[i][d] is x^(8*d*256^i) mod P: what appending d*256^i bytes multiplies
// by. A length is looked up digit by digit in base 256, and the usual lengths,
// multiples of a page, have one or two digits that are not 0.
var shifts = makeShifts()

// reduce4[v] is v/x^4 brought back below the degree of P: the correction for
// the four bits that a shift by four drops.
var reduce4 = makeReduce4()

// Combine returns the CRC32C of the bytes with sum crc1 followed by len2 bytes
// with sum crc2. It allocates nothing and takes some tens of nanoseconds.
func Combine(crc1, crc2 uint32, len2 int64) uint32 {
	if len2 <= 0 {
		return crc1
	}
	for i, n := 0, uint64(len2); n != 0; i, n = i+1, n>>8 {
		if d := n & 0xff; d != 0 {
			crc1 = multiply(crc1, shifts[i][d])
		}
	}
	return crc1 ^ crc2
}

// ZeroSum returns the CRC32C of n zero bytes, which is what a hole reads as. It
// costs as much as one Combine, however long the hole is.
func ZeroSum(n int64) uint32 {
	// Appending zeros to nothing, with the inversions that CRC32C begins and
	// ends with.
	return ^Combine(^uint32(0), 0, n)
}

// multiply returns a*b mod P. It takes a in digits of four bits, the highest
// power first, so that each step multiplies by x^4 and adds a multiple of b.
func multiply(a, b uint32) uint32 {
	var times [16]uint32 // times[v] is b times the digit v
	b1 := timesX(b)
	b2 := timesX(b1)
	b3 := timesX(b2)
	times[8], times[4], times[2], times[1] = b, b1, b2, b3
	times[3] = b2 ^ b3
	times[5] = b1 ^ b3
	times[6] = b1 ^ b2
	times[7] = times[6] ^ b3
	for v := 1; v < 8; v++ {
		times[8+v] = b ^ times[v]
	}
	var p uint32
	for range 8 {
		p = p>>4 ^ reduce4[p&15] ^ times[a&15]
		a >>= 4
	}
	return p
}

// timesX returns a*x mod P.
func timesX(a uint32) uint32 { return a>>1 ^ crc32.Castagnoli&-(a&1) }

func makeReduce4() (t [16]uint32) {
	for v := range t {
		a := uint32(v)
		for range 4 {
			a = timesX(a)
		}
		t[v] = a
	}
	return t
}

func makeShifts() (t [8][256]uint32) {
	base := uint32(one)
	for range 8 {
		base = timesX(base) // x^8: one byte
	}
	for i := range t {
		t[i][0] = one
		for d := 1; d < 256; d++ {
			t[i][d] = multiply(t[i][d-1], base)
		}
		base = multiply(t[i][255], base)
	}
	return t
}

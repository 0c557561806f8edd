package chunker

import (
	"bytes"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestChecksumIsCRC32C(t *testing.T) {
	// The check value of CRC-32C in RFC 3720 and everywhere else.
	if got := Checksum([]byte("123456789")); got != 0xe3069283 {
		t.Errorf("Checksum = %08x", got)
	}
	if got := Update(Checksum([]byte("1234")), []byte("56789")); got != 0xe3069283 {
		t.Errorf("Update = %08x", got)
	}
}

func TestCombine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOf(rapid.Byte()).Draw(t, "a")
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		got := Combine(Checksum(a), Checksum(b), int64(len(b)))
		if want := Checksum(append(a, b...)); got != want {
			t.Fatalf("Combine = %08x, want %08x", got, want)
		}
	})
}

// Every digit of the length must count, and lengths beyond memory are checked
// by adding up shorter ones.
func TestCombineLengths(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for _, n := range []int64{1, 255, 256, 257, 4096, 10240, 65535, 65536, 65537, 1<<20 - 1, 1 << 20} {
		want := Update(0x12345678, zeros[:n])
		if got := Combine(0x12345678, Checksum(zeros[:n]), n); got != want {
			t.Errorf("%d bytes: %08x, want %08x", n, got, want)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		n := rnd.Int64N(math.MaxInt64-1) >> rnd.IntN(40)
		m := rnd.Int64N(n + 1)
		a, b, c := rnd.Uint32(), rnd.Uint32(), rnd.Uint32()
		left := Combine(Combine(a, b, m), c, n-m)
		right := Combine(a, Combine(b, c, n-m), n)
		if m > 0 && n > m && left != right {
			t.Fatalf("(a+b)+c and a+(b+c) differ at lengths %d, %d", m, n-m)
		}
	}
}

func TestMultiplyBitByBit(t *testing.T) {
	slow := func(a, b uint32) (p uint32) {
		for i := range 32 {
			if a>>(31-i)&1 == 1 {
				p ^= b
			}
			b = b>>1 ^ crc32.Castagnoli&-(b&1)
		}
		return p
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 10_000 {
		a, b := rnd.Uint32(), rnd.Uint32()
		if got, want := multiply(a, b), slow(a, b); got != want {
			t.Fatalf("%08x*%08x = %08x, want %08x", a, b, got, want)
		}
	}
}

func TestZeroSum(t *testing.T) {
	for _, n := range []int64{0, 1, 2, 3, 4095, 4096, 1<<20 + 7} {
		if got, want := ZeroSum(n), Checksum(make([]byte, n)); got != want {
			t.Errorf("%d zeros: %08x, want %08x", n, got, want)
		}
	}
	if got, want := ZeroSum(1<<40), Combine(ZeroSum(1<<39), ZeroSum(1<<39), 1<<39); got != want {
		t.Errorf("a TiB of zeros: %08x, want %08x", got, want)
	}
}

// known is the naive model of Sums: the bytes of the file, and the runs whose
// sum is known. Runs that meet inside a part become one; a run that loses a
// byte is gone altogether.
type known struct {
	data []byte
	runs []Extent
}

func (k *known) forget(e Extent) {
	k.runs = slices.DeleteFunc(k.runs, func(r Extent) bool { return r.Overlaps(e) })
}

func (k *known) add(e Extent) {
	k.forget(e)
	var rest []Extent
	for _, r := range k.runs {
		switch {
		case r.End == e.Off && e.Off%testPart != 0:
			e.Off = r.Off
		case e.End == r.Off && r.Off%testPart != 0:
			e.End = r.End
		default:
			rest = append(rest, r)
		}
	}
	k.runs = append(rest, e)
}

func TestSumsAgainstBytes(t *testing.T) {
	const parts, size = 3, 3 * testPart
	l := mustLayout(t, testPart)
	rapid.Check(t, func(t *rapid.T) {
		s := NewSums(l)
		k := &known{data: make([]byte, size)}
		fill := byte(0)
		add := func(t *rapid.T, e Extent) {
			fill++
			for i := e.Off; i < e.End; i++ {
				k.data[i] = fill + byte(i*7)
			}
			s.Add(e.Off, e.Len(), Checksum(k.data[e.Off:e.End]))
			if !e.Empty() {
				k.add(e)
			}
		}
		// Few different borders, or pieces would hardly ever meet.
		border := rapid.Custom(func(t *rapid.T) int64 { return 512 * rapid.Int64Range(0, 8).Draw(t, "b") })
		inPart := func(t *rapid.T) Extent {
			base := testPart * rapid.Int64Range(0, parts-1).Draw(t, "part")
			a, b := border.Draw(t, "a"), border.Draw(t, "b")
			return Extent{base + min(a, b), base + max(a, b)}
		}
		next := int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) { add(t, inPart(t)) },
			"in order": func(t *rapid.T) {
				e := Extent{next % size, next%size + 1024}
				add(t, e)
				next += 1024
			},
			"forget": func(t *rapid.T) {
				a, b := border.Draw(t, "a")*parts, border.Draw(t, "b")*parts
				e := Extent{min(a, b), max(a, b)}
				if rapid.Bool().Draw(t, "to the end") {
					e.End = math.MaxInt64
				}
				s.Forget(e)
				k.forget(e)
			},
			"": func(t *rapid.T) {
				for off := int64(0); off < size; off += 512 {
					for end := off; end <= off-off%testPart+testPart; end += 512 {
						e := Extent{off, end}
						got, ok := s.Sum(e)
						if want := e.Empty() || slices.Contains(k.runs, e); ok != want {
							t.Fatalf("Sum(%v) known: %v, want %v; runs %v", e, ok, want, k.runs)
						}
						if ok && got != Checksum(k.data[off:end]) {
							t.Fatalf("Sum(%v) = %08x, want %08x", e, got, Checksum(k.data[off:end]))
						}
					}
				}
			},
		})
	})
}

func TestSumsAnyOrderOfPieces(t *testing.T) {
	const n = maxPieces // as many pieces as may be apart
	const size = int64(testPart / n)
	l := mustLayout(t, testPart)
	rnd := rand.New(rand.NewPCG(5, 5))
	data := make([]byte, testPart)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	for range 50 {
		s := NewSums(l)
		for _, i := range rnd.Perm(n) {
			off := int64(i) * size
			s.Add(testPart+off, size, Checksum(data[off:off+size]))
		}
		crc, ok := s.Sum(Extent{testPart, 2 * testPart})
		if !ok || crc != Checksum(data) {
			t.Fatalf("%08x %v, want %08x", crc, ok, Checksum(data))
		}
		if len(s.partial) != 0 || len(s.whole) != 1 {
			t.Fatalf("a whole part is kept as %d partial, %d whole", len(s.partial), len(s.whole))
		}
	}
}

// At 64 pieces apart a part is still summed; one more gives it up, and only
// forgetting the whole part takes it up again.
func TestSumsBound(t *testing.T) {
	l := mustLayout(t, testPart)
	for _, n := range []int64{maxPieces - 1, maxPieces, maxPieces + 1} {
		s := NewSums(l)
		for i := range n {
			s.Add(2*i, 1, Checksum([]byte{byte(i)}))
		}
		_, ok := s.Sum(Extent{0, 1})
		if want := n <= maxPieces; ok != want {
			t.Errorf("%d pieces: known is %v, want %v", n, ok, want)
		}
		if n <= maxPieces {
			continue
		}
		full := make([]byte, testPart)
		s.Add(0, testPart, Checksum(full))
		if _, ok := s.Sum(Extent{0, testPart}); ok {
			t.Error("a part that was given up is known after Add")
		}
		s.Forget(Extent{1, math.MaxInt64})
		s.Add(0, testPart, Checksum(full))
		if _, ok := s.Sum(Extent{0, testPart}); ok {
			t.Error("a part that was given up is known after Forget of some of it")
		}
		s.Add(testPart, testPart, 7) // another part is not concerned
		if crc, ok := s.Sum(Extent{testPart, 2 * testPart}); !ok || crc != 7 {
			t.Error("giving up one part gave up another")
		}
		s.Forget(Extent{0, testPart})
		s.Add(0, testPart, Checksum(full))
		if crc, ok := s.Sum(Extent{0, testPart}); !ok || crc != Checksum(full) {
			t.Errorf("after Forget of the part: %08x %v", crc, ok)
		}
	}
}

func TestSumsAcrossPartsIsForgotten(t *testing.T) {
	s := NewSums(mustLayout(t, testPart))
	s.Add(0, testPart, 1)
	s.Add(testPart, testPart, 2)
	s.Add(testPart-1, 2, 3)
	for part := range int64(2) {
		if _, ok := s.Sum(Extent{part * testPart, (part + 1) * testPart}); ok {
			t.Errorf("part %d is known after a run across its border", part)
		}
	}
	if _, ok := s.Sum(Extent{testPart - 1, testPart + 1}); ok {
		t.Error("a run across a border is known")
	}
}

// FuzzSums writes random bytes at random places and compares all known sums
// with the sum of what is there.
func FuzzSums(f *testing.F) {
	f.Add([]byte{0, 0, 8, 0, 8, 8, 0, 16, 16})                  // in order
	f.Add([]byte{0, 16, 16, 0, 0, 8, 0, 8, 8})                  // out of order
	f.Add([]byte{0, 0, 32, 0, 8, 8, 0, 0, 8, 0, 16, 16})        // rewritten
	f.Add([]byte{0, 0, 32, 1, 8, 8, 1, 0, 32, 0, 0, 32})        // forgotten
	f.Add(bytes.Repeat([]byte{0, 0, 1, 0, 2, 1, 0, 1, 1}, 100)) // merging in the middle
	f.Fuzz(func(t *testing.T, ops []byte) {
		s := NewSums(mustLayout(t, testPart))
		data := make([]byte, 2*testPart)
		for i := byte(0); len(ops) >= 3; i, ops = i+1, ops[3:] {
			off := int64(ops[1]) * 32
			n := min(int64(ops[2])*32, int64(len(data))-off)
			for j := range n {
				data[off+j] = i ^ byte(j*13)
			}
			if ops[0]%2 == 1 {
				s.Forget(Extent{off, off + n})
				continue
			}
			for n > 0 { // cut at part borders as staging does
				m := min(n, testPart-off%testPart)
				s.Add(off, m, Checksum(data[off:off+m]))
				off, n = off+m, n-m
			}
		}
		for part := range int64(2) {
			for off := part * testPart; off < (part+1)*testPart; off += 32 {
				for end := off + 32; end <= (part+1)*testPart; end += 32 {
					if crc, ok := s.Sum(Extent{off, end}); ok && crc != Checksum(data[off:end]) {
						t.Fatalf("Sum([%d,%d)) = %08x, want %08x", off, end, crc, Checksum(data[off:end]))
					}
				}
			}
		}
	})
}

func TestSumsAddInOrderDoesNotAllocate(t *testing.T) {
	s := NewSums(mustLayout(t, 1<<30))
	off := int64(0)
	n := testing.AllocsPerRun(500, func() {
		s.Add(off, 1<<20, uint32(off))
		off += 1 << 20
	})
	if n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
}

func BenchmarkSumsAdd(b *testing.B) {
	for name, n := range map[string]int64{"10KiB": 10 << 10, "1MiB": 1 << 20} {
		b.Run("sequential "+name, func(b *testing.B) {
			s := NewSums(mustLayout(b, 16<<20))
			b.ReportAllocs()
			off := int64(0)
			for range b.N {
				m := min(n, 16<<20-off%(16<<20))
				s.Add(off, m, uint32(off))
				off += m
			}
		})
	}
}

func BenchmarkCombine(b *testing.B) {
	for name, n := range map[string]int64{"4KiB": 4096, "1MiB": 1 << 20, "1234567": 1234567} {
		b.Run(name, func(b *testing.B) {
			crc := uint32(1)
			for range b.N {
				crc = Combine(crc, 0x12345678, n)
			}
			if crc == 0 {
				b.Log("never")
			}
		})
	}
}

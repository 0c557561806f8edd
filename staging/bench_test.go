package staging

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
)

// BenchmarkBeginFinish is a whole write. Compare with pwrite, the system call
// alone; "no pwrite" is what this package adds, the checksum included.
func BenchmarkBeginFinish(b *testing.B) {
	const window = 64 << 20 // of the file, rewritten again and again
	for _, size := range []int64{10 << 10, 128 << 10, 1 << 20} {
		data := make([]byte, size)
		open := func(b *testing.B) *File {
			f := newTestFile(b, Options{Layout: mustLayout(b, 16<<20)})
			require.NoError(b, f.Allocate(extent(0, window), false))
			for off := int64(0); off+size <= window; off += size { // warm the page cache
				require.NoError(b, f.sys.pwrite(f.fd, data, off))
			}
			b.SetBytes(size)
			b.ReportAllocs()
			b.ResetTimer()
			return f
		}
		name := fmt.Sprintf("%dKiB", size>>10)
		b.Run(name, func(b *testing.B) {
			f := open(b)
			for i := range int64(b.N) {
				off := i % (window / size) * size
				if f.Begin(off, size) != nil || f.Finish(off, data) != nil {
					b.Fatal(f.Err())
				}
			}
		})
		b.Run(name+" pwrite", func(b *testing.B) {
			f := open(b)
			for i := range int64(b.N) {
				off := i % (window / size) * size
				if n, err := unix.Pwrite(f.fd, data, off); int64(n) != size {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" two writers", func(b *testing.B) {
			f := open(b)
			var next atomic.Int64
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					off := next.Add(1) % (window / size) * size
					if f.Begin(off, size) != nil || f.Finish(off, data) != nil {
						b.Error(f.Err())
					}
				}
			})
		})
	}
	b.Run("overhead", func(b *testing.B) {
		f := newTestFile(b, Options{Layout: mustLayout(b, 16<<20)})
		b.ReportAllocs()
		for i := range int64(b.N) {
			off := i << 12
			if f.Begin(off, 4096) != nil {
				b.Fatal(f.Err())
			}
			f.mu.Lock()
			f.sums.Add(off, 4096, uint32(i))
			f.release(off)
			f.mu.Unlock()
		}
	})
}

func BenchmarkChecksum(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for range b.N {
				chunker.Checksum(data)
			}
		})
	}
}

func BenchmarkBuffers(b *testing.B) {
	bufs := NewBuffers(1<<20+4096, 4)
	b.ReportAllocs()
	for range b.N {
		bufs.TryGet().Release()
	}
}

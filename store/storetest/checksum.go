package storetest

import (
	"hash/crc32"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC32C of a part.
func checksum(t testing.TB, r io.ReaderAt, p store.Part) uint32 {
	t.Helper()
	h := crc32.New(castagnoli)
	n, err := io.Copy(h, io.NewSectionReader(r, p.Offset, p.Size))
	require.NoError(t, err)
	require.Equal(t, p.Size, n)
	return h.Sum32()
}

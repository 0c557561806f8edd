package journal

import (
	"bytes"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/stretchr/testify/require"
)

func TestDamagedRecords(t *testing.T) {
	s := session("b")
	s.Written = extents(inlineExtents + 1)
	good := encodePart(&Part{Number: 1})
	sess, err := encodeSession(&s, nil)
	require.NoError(t, err)
	newer := bytes.Clone(good)
	newer[0] = 2
	for name, c := range map[string]struct {
		key, val []byte
		says     string
	}{
		"part of no bytes":        {partKey("b", 1), nil, "record part 1 of session b: record is cut short"},
		"part with a flipped bit": {partKey("b", 1), flip(8)(bytes.Clone(good)), "record part 1 of session b: checksum does not match"},
		"part of another kind":    {partKey("b", 1), sess, "version 1 and kind 1, want 1 and 3"},
		"newer part":              {partKey("b", 1), newer, "part record (part 1 of session b) has version 2, this wholefs reads up to 1"},
		"session of another":      {sessionKey("b"), mustEncode(t, session("a")), "record session b: record is of session a"},
		"session is no JSON":      {sessionKey("b"), seal(append(newRecord(kindSession, 0), "{"...)), "record session b: unexpected end"},
		"extents are gone":        {sessionKey("b"), mustSpill(t, session("b"), 3), "record session b: 0 of 3 extents records"},
		"key of no known kind":    {append(prefix("b", 0), 9), good, `record "s/b\x00\t"`},
	} {
		t.Run(name, func(t *testing.T) {
			j := mustOpen(t, t.TempDir(), Options{})
			for _, id := range []string{"a", "b", "c"} {
				j.Put(session(id))
				require.NoError(t, j.PutPart(id, part(0)).Wait(t.Context()))
			}
			raw(t, j, func(txn *badger.Txn) error { return txn.Set(c.key, c.val) })
			_, err := j.Load(t.Context())
			require.ErrorContains(t, err, c.says)
			if !strings.Contains(name, "newer") {
				var corrupt *CorruptError
				require.ErrorAs(t, err, &corrupt)
			}
			_, err = j.Get(t.Context(), "b")
			require.ErrorContains(t, err, c.says)
			_, err = j.Get(t.Context(), "c")
			require.NoError(t, err, "others can be read")
			damage, err := j.Check(t.Context())
			require.NoError(t, err)
			require.Len(t, damage, 1)
			require.ErrorContains(t, damage[0], c.says)
			require.Zero(t, j.Stats().Orphans, "parts of a damaged session are not orphans")
			require.NoError(t, j.Delete("b").Wait(t.Context()), "what is damaged can be given up")
			damage, err = j.Check(t.Context())
			require.NoError(t, err)
			require.Empty(t, damage)
		})
	}
}

func mustEncode(t *testing.T, s Session) []byte {
	t.Helper()
	rec, err := encodeSession(&s, nil)
	require.NoError(t, err)
	return rec
}

func mustSpill(t *testing.T, s Session, records int) []byte {
	t.Helper()
	rec, err := encodeSession(&s, &spill{Gen: 1, Records: records})
	require.NoError(t, err)
	return rec
}

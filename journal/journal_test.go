package journal

import (
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/stretchr/testify/require"
)

// extents makes n extents of 4 KiB with gaps.
func extents(n int) []Extent {
	list := make([]Extent, n)
	for i := range list {
		list[i] = Extent{int64(i) * 12288, int64(i)*12288 + 4096}
	}
	return list
}

func with(change func(s *Session)) Session {
	s := session("0197a0c4-52b1-7d3e-8f00-000000000001")
	change(&s)
	return s
}

func TestWhatIsPutComesBack(t *testing.T) {
	for name, e := range map[string]Entry{
		"plain":    {Session: with(func(s *Session) {})},
		"parts":    {with(func(s *Session) {}), []Part{part(0), part(1), {Number: 2, Size: 8 << 20, CRC: math.MaxUint32}}},
		"far part": {with(func(s *Session) {}), []Part{{Number: math.MaxInt64, Size: math.MaxInt64, Token: strings.Repeat("x", 4000)}}},
		"held": {Session: with(func(s *Session) {
			s.State, s.Reason, s.Killed = StateHeld, "the writer was killed by signal 9", true
			s.Holes, s.Written, s.Exact = []Extent{{4096, 8192}}, []Extent{{0, 4096}, {8192, math.MaxInt64}}, true
		})},
		"publishing": {Session: with(func(s *Session) { s.State, s.UploadID, s.Replaces = StatePublishing, "2~Rk<>&'\"\u2028", true })},
		"odd bytes":  {Session: with(func(s *Session) { s.Path, s.Reason, s.UploadID = "a/\xff\xfe\x00b\n", "\xc3\x28", "\x80" })},
		"odd id":     {with(func(s *Session) { s.ID = "\xff/\x01s/" }), []Part{part(7)}},
		"longest id": {with(func(s *Session) { s.ID = strings.Repeat("i", maxID) }), []Part{part(7)}},
		"many extents": {Session: with(func(s *Session) {
			s.Holes, s.Written, s.Exact = extents(3*chunkExtents+1), extents(chunkExtents), true
		})},
		"extents at the limit":   {Session: with(func(s *Session) { s.Written = extents(inlineExtents) })},
		"extents past the limit": {Session: with(func(s *Session) { s.Written = extents(inlineExtents + 1) })},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := mustOpen(t, dir, Options{})
			j.Put(e.Session)
			for _, p := range e.Parts {
				j.PutPart(e.Session.ID, p)
			}
			require.NoError(t, j.Sync(t.Context()))
			got, err := j.Get(t.Context(), e.Session.ID)
			require.NoError(t, err)
			require.Equal(t, e, got)
			mustClose(t, j)
			for range 2 { // what is replayed twice is as what is replayed once
				j = mustOpen(t, dir, Options{})
				require.Equal(t, []Entry{e}, mustLoad(t, j))
				require.Equal(t, 1, j.Stats().Sessions)
				mustClose(t, j)
			}
		})
	}
}

func TestLaterCallsWin(t *testing.T) {
	a, b := session("a"), session("b")
	held := session("a")
	held.State, held.Reason = StateHeld, "why"
	for name, c := range map[string]struct {
		do   func(j *Journal)
		want []Entry
	}{
		"session replaced, parts stay": {func(j *Journal) { j.Put(a); j.PutPart("a", part(1)); j.Put(held) },
			[]Entry{{held, []Part{part(1)}}}},
		"part replaced": {func(j *Journal) { j.Put(a); j.PutPart("a", part(1)); j.PutPart("a", Part{Number: 1, CRC: 9}) },
			[]Entry{{a, []Part{{Number: 1, CRC: 9}}}}},
		"parts ascend": {func(j *Journal) {
			j.Put(a)
			for _, n := range []int64{300, 2, 1 << 40, 0, 255, 256} {
				j.PutPart("a", part(n))
			}
		}, []Entry{{a, []Part{part(0), part(2), part(255), part(256), part(300), part(1 << 40)}}}},
		"parts dropped": {func(j *Journal) {
			j.Put(a)
			for n := range int64(4) {
				j.PutPart("a", part(n))
			}
			j.DropParts("a", 1, 3, 77)
		}, []Entry{{a, []Part{part(0), part(2)}}}},
		"no parts dropped": {func(j *Journal) { j.Put(a); j.PutPart("a", part(1)); j.DropParts("a") }, []Entry{{a, []Part{part(1)}}}},
		"dropped and put again": {func(j *Journal) { j.Put(a); j.PutPart("a", part(1)); j.DropParts("a", 1); j.PutPart("a", part(1)) },
			[]Entry{{a, []Part{part(1)}}}},
		"deleted": {func(j *Journal) { j.Put(a); j.Put(b); j.PutPart("a", part(1)); j.PutPart("b", part(1)); j.Delete("a") },
			[]Entry{{b, []Part{part(1)}}}},
		"deleted and put again":   {func(j *Journal) { j.Put(a); j.PutPart("a", part(1)); j.Delete("a"); j.Put(held) }, []Entry{{Session: held}}},
		"what was never, deleted": {func(j *Journal) { j.Put(a); j.Delete("b") }, []Entry{{Session: a}}},
		"an id that begins as another": {func(j *Journal) { s := session("ab"); j.Put(a); j.Put(s); j.PutPart("ab", part(1)); j.Delete("a") },
			[]Entry{{session("ab"), []Part{part(1)}}}},
	} {
		for _, how := range []string{"one group", "a group each", "twice"} {
			t.Run(name+", "+how, func(t *testing.T) {
				dir := t.TempDir()
				o := Options{SyncWrites: how == "a group each"}
				j := mustOpen(t, dir, o)
				c.do(j)
				if how == "twice" {
					require.NoError(t, j.Sync(t.Context()))
					c.do(j)
				}
				require.NoError(t, j.Sync(t.Context()))
				require.Equal(t, c.want, mustLoad(t, j))
				mustClose(t, j)
				j = mustOpen(t, dir, o)
				require.Equal(t, c.want, mustLoad(t, j))
				require.Equal(t, len(c.want), j.Stats().Sessions)
				require.Zero(t, j.Stats().Orphans)
			})
		}
	}
}

// keys lists all keys in the journal, as people read them.
func keys(t testing.TB, j *Journal) []string {
	t.Helper()
	g, err := j.current.acquire()
	require.NoError(t, err)
	defer g.readers.Done()
	var all []string
	require.NoError(t, eachRecord(g.db, func(item *badger.Item) error {
		all = append(all, keyString(item.KeyCopy(nil)))
		return nil
	}))
	return all
}

// raw changes the database behind the journal's back.
func raw(t testing.TB, j *Journal, change func(txn *badger.Txn) error) {
	t.Helper()
	g, err := j.current.acquire()
	require.NoError(t, err)
	defer g.readers.Done()
	require.NoError(t, g.db.Update(change))
}

func TestExtentsOfAReplacedSessionGo(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{})
	put := func(n int) {
		s := session("a")
		s.Written = extents(n)
		require.NoError(t, j.Put(s).Wait(t.Context()))
		e, err := j.Get(t.Context(), "a")
		require.NoError(t, err)
		require.Len(t, e.Session.Written, n)
	}
	count := func() int { return len(keys(t, j)) - 2 } // format, session
	put(5 * chunkExtents)
	require.Equal(t, 5, count())
	put(2 * chunkExtents)
	require.Equal(t, 2, count())
	mustClose(t, j)
	j = mustOpen(t, dir, Options{}) // the new writer must find out by itself
	put(3 * chunkExtents)
	require.Equal(t, 3, count())
	put(10)
	require.Zero(t, count())
	put(2 * chunkExtents)
	require.NoError(t, j.Delete("a").Wait(t.Context()))
	require.Equal(t, []string{`"format"`}, keys(t, j))
}

// A Put that a crash cut off between its extents and its session changes
// nothing.
func TestExtentsWithoutTheirSession(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{})
	s := session("a")
	s.Written = extents(2 * chunkExtents)
	require.NoError(t, j.Put(s).Wait(t.Context()))
	raw(t, j, func(txn *badger.Txn) error {
		other := Session{Written: extents(5)}
		return txn.Set(extentsKey("a", math.MaxUint64, 0), encodeExtents(&other)[0])
	})
	require.Equal(t, []Entry{{Session: s}}, mustLoad(t, j))
}

func TestOrphansAreDropped(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{})
	a := session("a")
	j.Put(a)
	j.PutPart("a", part(1))
	j.PutPart("gone", part(1))
	j.PutPart("gone", part(2))
	require.NoError(t, j.PutPart("zz", part(0)).Wait(t.Context()))

	require.Equal(t, []Entry{{a, []Part{part(1)}}}, mustLoad(t, j))
	require.EqualValues(t, 3, j.Stats().Orphans)
	require.NoError(t, j.Sync(t.Context()))
	require.Equal(t, []string{`"format"`, "session a", "part 1 of session a"}, keys(t, j))
	require.Equal(t, []Entry{{a, []Part{part(1)}}}, mustLoad(t, j))
	require.EqualValues(t, 3, j.Stats().Orphans, "they are counted once")

	_, err := j.Get(t.Context(), "gone")
	require.ErrorIs(t, err, ErrNotFound)
}

// A session that is put between the reading and the dropping keeps its parts.
func TestOrphansThatFoundTheirSession(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{})
	require.NoError(t, j.PutPart("late", part(1)).Wait(t.Context()))
	j.Put(session("late"))
	j.dropOrphans(map[string]int{"late": 1})
	require.NoError(t, j.Sync(t.Context()))
	require.Equal(t, []Entry{{session("late"), []Part{part(1)}}}, mustLoad(t, j))
}

func TestRefusedRecords(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{})
	for name, c := range map[string]*Commit{
		"no id":              j.Put(Session{State: StateOpen}),
		"id too long":        j.Delete(strings.Repeat("x", maxID+1)),
		"id with NUL":        j.PutPart("a\x00b", part(1)),
		"unknown state":      j.Put(with(func(s *Session) { s.State = "published" })),
		"negative size":      j.Put(with(func(s *Session) { s.Size = -1 })),
		"negative part size": j.Put(with(func(s *Session) { s.PartSize = -1 })),
		"empty extent":       j.Put(with(func(s *Session) { s.Holes = []Extent{{5, 5}} })),
		"extents overlap":    j.Put(with(func(s *Session) { s.Written = []Extent{{0, 5}, {4, 9}} })),
		"negative extent":    j.Put(with(func(s *Session) { s.Written = []Extent{{-4, 5}} })),
		"record too large":   j.Put(with(func(s *Session) { s.Reason = strings.Repeat("x", maxRecord) })),
		"negative part":      j.PutPart("a", Part{Number: -1}),
		"part of size -1":    j.PutPart("a", Part{Size: -1}),
		"token too long":     j.PutPart("a", Part{Token: strings.Repeat("x", maxToken+1)}),
		"drop of part -1":    j.DropParts("a", 1, -1),
		"drop without id":    j.DropParts("", 1),
	} {
		t.Run(name, func(t *testing.T) { require.ErrorIs(t, c.Wait(t.Context()), ErrInvalid) })
	}
	_, err := j.Get(t.Context(), "")
	require.ErrorIs(t, err, ErrInvalid)
	// The journal goes on, and the largest that is allowed is kept.
	require.NoError(t, j.Put(session("a")).Wait(t.Context()))
	p := Part{Number: 1, Token: strings.Repeat("x", maxToken)}
	require.NoError(t, j.PutPart("a", p).Wait(t.Context()))
	require.Equal(t, []Entry{{session("a"), []Part{p}}}, mustLoad(t, j))
}

func TestClosedJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(dir, Options{})
	require.NoError(t, err)
	var last *Commit
	for i := range 3000 {
		last = j.Put(session(fmt.Sprint(i)))
	}
	require.NoError(t, j.Close())
	require.NoError(t, j.Close(), "again")
	require.NoError(t, last.Wait(t.Context()), "Close writes what is queued")

	ctx := t.Context()
	require.ErrorIs(t, j.Put(session("a")).Wait(ctx), ErrClosed)
	require.ErrorIs(t, j.PutPart("a", part(1)).Wait(ctx), ErrClosed)
	require.ErrorIs(t, j.DropParts("a", 1).Wait(ctx), ErrClosed)
	require.ErrorIs(t, j.Delete("a").Wait(ctx), ErrClosed)
	require.ErrorIs(t, j.Sync(ctx), ErrClosed)
	_, err = j.Load(ctx)
	require.ErrorIs(t, err, ErrClosed)
	_, err = j.Get(ctx, "a")
	require.ErrorIs(t, err, ErrClosed)
	_, err = j.Check(ctx)
	require.ErrorIs(t, err, ErrClosed)
	_ = j.Stats()

	j = mustOpen(t, dir, Options{})
	require.Len(t, mustLoad(t, j), 3000)
}

type counter struct {
	mu     sync.Mutex
	ops    map[string]int
	synced int
}

func (c *counter) Op(op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ops == nil {
		c.ops = make(map[string]int)
	}
	c.ops[op]++
}

func (c *counter) Synced(_ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.synced++
}

func TestObserver(t *testing.T) {
	var c counter
	j := mustOpen(t, t.TempDir(), Options{Observer: &c})
	j.Put(session("a"))
	j.PutPart("a", part(1))
	j.DropParts("a", 1)
	mustLoad(t, j)
	_, _ = j.Get(t.Context(), "a")
	j.Delete("a")
	require.NoError(t, j.Sync(t.Context()))
	require.Equal(t, map[string]int{"put": 1, "put_part": 1, "drop_parts": 1, "load": 1, "get": 1, "delete": 1, "sync": 1}, c.ops)
	require.Equal(t, 1, c.synced)
}

func TestDirectoryIsPrivate(t *testing.T) {
	dir := t.TempDir() + "/deep/journal"
	mustOpen(t, dir, Options{})
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), fi.Mode().Perm())
}

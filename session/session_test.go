package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/staging"
	"github.com/wholefs/wholefs/store"
	"github.com/wholefs/wholefs/store/localdir"
)

const (
	testPart     = 64 << 10
	testDeadline = 10 * time.Second
	testPoll     = time.Millisecond
)

var ctx = context.Background()

// world is an engine on a real directory, journal and staging; crash leaves
// them as a killed daemon would.
type world struct {
	t       *testing.T
	top     string
	store   store.Store
	staging *staging.Dir
	journal *journal.Journal
	*Engine
	seen counts
}

// counts records what the engine observed.
type counts struct {
	noObserver
	mu        sync.Mutex
	ended     map[string]int
	decisions map[string]int
	recovered map[string]int
	complete  int
	rewritten int
}

func (c *counts) add(m *map[string]int, key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[key]++
}
func (c *counts) SessionEnded(r string)     { c.add(&c.ended, r) }
func (c *counts) FlushDecision(d string)    { c.add(&c.decisions, d) }
func (c *counts) SessionRecovered(r string) { c.add(&c.recovered, r) }
func (c *counts) PartCompleted()            { c.mu.Lock(); c.complete++; c.mu.Unlock() }
func (c *counts) PartRewritten()            { c.mu.Lock(); c.rewritten++; c.mu.Unlock() }

func newWorld(t *testing.T, adjust ...func(*Options)) *world {
	w := &world{t: t, top: t.TempDir()}
	w.start(adjust...)
	t.Cleanup(w.stop)
	return w
}

func (w *world) start(adjust ...func(*Options)) Report {
	t := w.t
	l, err := chunker.NewLayout(testPart)
	require.NoError(t, err)
	st, err := localdir.Open(w.top, localdir.Options{})
	require.NoError(t, err)
	dir, err := staging.OpenDir(st.StagingPath(), staging.Options{Layout: l})
	require.NoError(t, err)
	j, err := journal.Open(filepath.Join(st.StateDir(), "journal"), journal.Options{})
	require.NoError(t, err)
	o := Options{Store: st, Staging: dir, Journal: j, Layout: l, Observer: &w.seen}
	for _, f := range adjust {
		f(&o)
	}
	w.store, w.staging, w.journal = st, dir, j
	w.Engine, err = New(o)
	require.NoError(t, err)
	rep, err := w.Recover(ctx)
	require.NoError(t, err)
	return rep
}

func (w *world) stop() {
	if w.Engine == nil {
		return
	}
	require.NoError(w.t, w.Engine.Close(ctx))
	w.crash()
}

// crash drops the engine without a word to its sessions.
func (w *world) crash() {
	w.Engine.expiry.Stop()
	require.NoError(w.t, w.journal.Close())
	w.staging.Close()
	w.store.Close()
	w.Engine = nil
}

func (w *world) create(path string) (*Session, *Writer) {
	w.t.Helper()
	s, err := w.Create(ctx, path, store.Attr{Mode: 0o640, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	require.NoError(w.t, err)
	return s, s.Writer(me)
}

// open opens a published file for writing.
func (w *world) open(path string) (*Session, *Writer) {
	w.t.Helper()
	dir, err := w.store.OpenDir(parentOf(path))
	require.NoError(w.t, err)
	defer dir.Close()
	base, err := dir.OpenFile(baseName(path))
	require.NoError(w.t, err)
	a, err := base.Stat()
	require.NoError(w.t, err)
	s, err := w.Open(ctx, path, base, a)
	require.NoError(w.t, err)
	return s, s.Writer(me)
}

// published returns what an observer of the directory sees; nil for nothing.
func (w *world) published(path string) []byte {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.top, path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(w.t, err)
	if b == nil {
		b = []byte{}
	}
	return b
}

// leftovers returns the names in the staging directory.
func (w *world) leftovers() []string {
	names, err := w.staging.List()
	require.NoError(w.t, err)
	return names
}

const (
	me    = 100 // the thread group that opens files in these tests
	other = 200
)

func writeAt(t *testing.T, w *Writer, off int64, data []byte, owner Owner) {
	t.Helper()
	at, err := w.Begin(off, int64(len(data)), WriteOptions{Owner: owner})
	require.NoError(t, err)
	require.Equal(t, off, at)
	w.Finish(at, data)
}

func flushBy(tgid int, owner Owner) Caller { return Caller{TGID: tgid, Owner: owner} }

func pattern(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return b
}

func TestPublishAtTheOpenersClose(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	data := pattern(3*testPart+100, 1)
	writeAt(t, h, 0, data, 1)
	require.Nil(t, w.published("f"), "nothing before the close")
	require.Same(t, s, w.Get("f"))
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	require.True(t, bytes.Equal(data, w.published("f")))
	require.Equal(t, StatePublished, s.State())
	require.Nil(t, w.Get("f"))
	require.NoError(t, h.Release(ctx))
	require.True(t, s.Ended())
	require.Empty(t, w.leftovers())
	require.Empty(t, w.List())
	entries, err := w.journal.Load(ctx)
	require.NoError(t, err)
	require.Empty(t, entries)
	require.Equal(t, 3, w.seen.complete)
	require.Equal(t, map[string]int{"published": 1}, w.seen.ended)
	st, err := os.Stat(filepath.Join(w.top, "f"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), st.Mode())
}

func TestSmallFileNeverEntersTheJournal(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("small")
	writeAt(t, h, 0, []byte("hello"), 1)
	require.False(t, s.journaled)
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	require.False(t, s.journaled)
	require.Equal(t, []byte("hello"), w.published("small"))
	h.Release(ctx)
}

func TestWhichCloseDecides(t *testing.T) {
	// Each step closes or writes; want is what an observer has after it.
	type step struct {
		write   string // bytes appended by owner
		by      int    // thread group that closes; 0: no close
		owner   Owner
		release bool
		want    string // "" for nothing published
		decide  string
	}
	tests := map[string][]step{
		"shell redirection: dup2 and close before the first write": {
			{by: me, owner: 1, decide: decideClean},
			{write: "x", owner: 1},
			{by: me, owner: 1, want: "x", decide: decidePublish},
		},
		"(echo a; sleep; echo b) > f": {
			{by: me, owner: 1, decide: decideClean},
			{write: "a", owner: 1},
			{by: other, owner: 2, decide: decideOther}, // sleep exits
			{write: "b", owner: 1},
			{by: me, owner: 1, want: "ab", decide: decidePublish},
		},
		"a child writes, the parent closes last": {
			{write: "child", owner: 2},
			{by: other, owner: 2, decide: decideOther},
			{by: me, owner: 1, want: "child", decide: decidePublish},
		},
		"the parent closes first, the child goes on": {
			{write: "begin", owner: 2},
			{by: me, owner: 1, decide: decideInherited},
			{write: " end", owner: 2},
			{by: other, owner: 2, decide: decideOther},
			{release: true, want: "begin end", decide: decideRelease},
		},
		"the parent closes before the child writes": {
			{by: me, owner: 1, decide: decideClean},
			{write: "late", owner: 2},
			{by: other, owner: 2, decide: decideOther},
			{release: true, want: "late", decide: decideRelease},
		},
		"an empty file": {
			{by: me, owner: 1, decide: decideClean},
			{release: true, want: "", decide: decideRelease},
		},
		"a process that cannot be seen": {
			{write: "y", owner: 1},
			{by: -1, owner: 1, decide: decideInvisible},
			{release: true, want: "y", decide: decideRelease},
		},
		"a write after the close begins the next version": {
			{write: "one", owner: 1},
			{by: me, owner: 1, want: "one", decide: decidePublish},
			{write: " two", owner: 1, want: "one"},
			{by: me, owner: 1, want: "one two", decide: decidePublish},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s, h := w.create("f")
			for i, st := range steps {
				w.seen.decisions = nil
				switch {
				case st.write != "":
					at, err := h.Begin(0, int64(len(st.write)), WriteOptions{Owner: st.owner, Append: true})
					require.NoError(t, err)
					h.Finish(at, []byte(st.write))
				case st.release:
					require.NoError(t, h.Release(ctx))
				default:
					require.NoError(t, h.Flush(ctx, flushBy(max(st.by, 0), st.owner)))
				}
				if st.decide != "" {
					require.Equal(t, map[string]int{st.decide: 1}, w.seen.decisions, "step %d", i)
				}
				if st.want == "" && !st.release {
					require.Nil(t, w.published("f"), "step %d", i)
				} else {
					require.Equal(t, st.want, string(w.published("f")), "step %d", i)
				}
			}
			h.Release(ctx)
			require.True(t, s.Ended())
			require.Empty(t, w.leftovers())
		})
	}
}

func TestSeveralHandlesPublishOnce(t *testing.T) {
	w := newWorld(t)
	s, a := w.create("f")
	b := s.Writer(other)
	writeAt(t, a, 0, []byte("left"), 1)
	writeAt(t, b, 4, []byte("right"), 2)
	require.NoError(t, a.Flush(ctx, flushBy(me, 1)))
	require.Nil(t, w.published("f"), "the other downloader is at work")
	a.Release(ctx)
	require.Nil(t, w.published("f"))
	require.NoError(t, b.Flush(ctx, flushBy(other, 2)))
	require.Equal(t, "leftright", string(w.published("f")))
	b.Release(ctx)
	require.Equal(t, map[string]int{"published": 1}, w.seen.ended)
}

func TestAHandleThatHasNotWrittenYetIsNotClosed(t *testing.T) {
	w := newWorld(t)
	s, a := w.create("f")
	b := s.Writer(other)
	// Both are redirections of a shell: dup2 and close come first.
	require.NoError(t, a.Flush(ctx, flushBy(me, 1)))
	require.NoError(t, b.Flush(ctx, flushBy(other, 2)))
	writeAt(t, a, 0, []byte("a"), 1)
	require.NoError(t, a.Flush(ctx, flushBy(me, 1)))
	require.Nil(t, w.published("f"), "b is still to write")
	a.Release(ctx)
	writeAt(t, b, 1, []byte("b"), 2)
	require.NoError(t, b.Flush(ctx, flushBy(other, 2)))
	require.Equal(t, "ab", string(w.published("f")))
	b.Release(ctx)
	require.Equal(t, 1, w.seen.ended["published"])
}

func TestTheHandleThatNeverWroteReleasesTheOthers(t *testing.T) {
	w := newWorld(t)
	s, a := w.create("f")
	b := s.Writer(other)
	writeAt(t, a, 0, []byte("a"), 1)
	require.NoError(t, a.Flush(ctx, flushBy(me, 1))) // a dup of it stays open
	require.NoError(t, b.Flush(ctx, flushBy(other, 2)))
	require.Nil(t, w.published("f"))
	require.NoError(t, b.Release(ctx))
	require.Equal(t, "a", string(w.published("f")))
	a.Release(ctx)
}

func TestKilledWriter(t *testing.T) {
	kill := Caller{TGID: me, Owner: 1, Killed: true, Signal: int(unix.SIGKILL)}
	for _, policy := range []KillPolicy{KillHold, KillPublish, KillAbort} {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t, func(o *Options) { o.OnKill = policy })
			s, h := w.create("f")
			writeAt(t, h, 0, []byte("torn"), 1)
			require.NoError(t, h.Flush(ctx, kill))
			require.NoError(t, h.Release(ctx))
			switch policy {
			case KillHold:
				require.Nil(t, w.published("f"))
				require.Equal(t, StateHeld, s.State())
				list := w.List()
				require.Len(t, list, 1)
				require.Contains(t, list[0].Reason, "SIGKILL")
				require.EqualValues(t, 4, list[0].Size)
				require.NoError(t, w.PublishID(ctx, "f", false))
				require.Equal(t, "torn", string(w.published("f")))
			case KillPublish:
				require.Equal(t, "torn", string(w.published("f")))
			case KillAbort:
				require.Nil(t, w.published("f"))
				require.Empty(t, w.List())
			}
			require.Empty(t, w.leftovers())
		})
	}
}

func TestAWriterKilledAfterItsCloseChangesNothing(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	writeAt(t, h, 0, []byte("x"), 1)
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	require.NoError(t, h.Flush(ctx, Caller{TGID: me, Owner: 1, Killed: true, Signal: 9})) // a dup of it
	h.Release(ctx)
	require.Equal(t, "x", string(w.published("f")))
	require.True(t, s.Ended())
	require.Empty(t, w.List())
}

func TestAKilledBystanderChangesNothing(t *testing.T) {
	w := newWorld(t)
	_, h := w.create("f")
	writeAt(t, h, 0, []byte("x"), 1)
	// A child that inherited the file, wrote nothing and died.
	require.NoError(t, h.Flush(ctx, Caller{TGID: other, Owner: 2, Killed: true, Signal: 15}))
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	require.Equal(t, "x", string(w.published("f")))
	h.Release(ctx)
}

func TestOneOfSeveralWritersKilled(t *testing.T) {
	w := newWorld(t)
	s, a := w.create("f")
	b := s.Writer(other)
	writeAt(t, a, 0, []byte("a"), 1)
	writeAt(t, b, 1, []byte("b"), 2)
	require.NoError(t, a.Flush(ctx, Caller{TGID: me, Owner: 1, Killed: true, Signal: 9}))
	a.Release(ctx)
	err := b.Flush(ctx, flushBy(other, 2))
	require.ErrorIs(t, err, syscall.EIO, "the one who closes learns that it is not published")
	b.Release(ctx)
	require.Equal(t, StateHeld, s.State())
	require.Nil(t, w.published("f"))
}

func TestHeldSessionIsReopenedReplacedAborted(t *testing.T) {
	held := func(t *testing.T) (*world, *Session) {
		w := newWorld(t)
		s, h := w.create("f")
		writeAt(t, h, 0, []byte("first half,"), 1)
		h.Flush(ctx, Caller{TGID: me, Owner: 1, Killed: true, Signal: 9})
		h.Release(ctx)
		require.Equal(t, StateHeld, s.State())
		return w, s
	}
	t.Run("reopened and finished", func(t *testing.T) {
		w, s := held(t)
		h := s.Writer(me)
		at, err := h.Begin(0, 12, WriteOptions{Owner: 3, Append: true})
		require.NoError(t, err)
		h.Finish(at, []byte(" second half"))
		require.NoError(t, h.Flush(ctx, flushBy(me, 3)))
		h.Release(ctx)
		require.Equal(t, "first half, second half", string(w.published("f")))
	})
	t.Run("replaced by an open with O_TRUNC", func(t *testing.T) {
		w, s := held(t)
		h := s.Writer(me)
		require.NoError(t, h.Reset(ctx))
		writeAt(t, h, 0, []byte("new"), 3)
		require.NoError(t, h.Flush(ctx, flushBy(me, 3)))
		h.Release(ctx)
		require.Equal(t, "new", string(w.published("f")))
		require.Equal(t, map[string]int{"held": 1, "replaced": 1, "published": 1}, w.seen.ended)
		st, err := os.Stat(filepath.Join(w.top, "f"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o640), st.Mode(), "it takes over the held file's mode")
	})
	t.Run("aborted", func(t *testing.T) {
		w, s := held(t)
		require.NoError(t, w.AbortID(ctx, s.ID()[:13]))
		require.Equal(t, StateAborted, s.State())
		require.Nil(t, w.published("f"))
		require.Empty(t, w.leftovers())
		require.ErrorIs(t, w.AbortID(ctx, "f"), syscall.ENOENT)
	})
	t.Run("unlinked", func(t *testing.T) {
		w, s := held(t)
		s.Unlink()
		require.Empty(t, w.List())
		require.Empty(t, w.leftovers())
	})
	t.Run("expired", func(t *testing.T) {
		var later atomic.Int64 // read by the engine's timer too
		now := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
		w := newWorld(t, func(o *Options) { o.Now = now; o.HoldTTL = time.Hour })
		_, h := w.create("f")
		writeAt(t, h, 0, []byte("x"), 1)
		h.Flush(ctx, Caller{TGID: me, Owner: 1, Killed: true, Signal: 9})
		h.Release(ctx)
		w.expire()
		require.Len(t, w.List(), 1)
		later.Store(int64(time.Hour))
		w.expire()
		require.Empty(t, w.List())
		require.Equal(t, 1, w.seen.ended["expired"])
	})
	t.Run("kept over an orderly restart, byte for byte", func(t *testing.T) {
		w, s := held(t)
		id := s.ID()
		require.NoError(t, w.Engine.Close(ctx))
		w.crash()
		require.Equal(t, Report{Held: 1}, w.start())
		require.Equal(t, id, w.List()[0].ID)
		require.NoError(t, w.PublishID(ctx, id, false))
		require.Equal(t, "first half,", string(w.published("f")))
	})
}

func TestUpdateStartsFromThePublishedContent(t *testing.T) {
	w := newWorld(t)
	old := pattern(2*testPart+10, 2)
	require.NoError(t, os.WriteFile(filepath.Join(w.top, "f"), old, 0o604))
	require.NoError(t, unix.Setxattr(filepath.Join(w.top, "f"), "user.note", []byte("kept"), 0))
	s, h := w.open("f")
	require.False(t, s.Active(), "opening changes nothing")
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	writeAt(t, h, testPart, []byte("changed"), 1)
	require.Equal(t, old, w.published("f"), "the old version stays until the close")
	want := bytes.Clone(old)
	copy(want[testPart:], "changed")
	got := make([]byte, len(want))
	n, err := s.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, want, got[:n])
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	require.Equal(t, want, w.published("f"))
	st, err := os.Stat(filepath.Join(w.top, "f"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o604), st.Mode())
	note := make([]byte, 16)
	k, err := unix.Getxattr(filepath.Join(w.top, "f"), "user.note", note)
	require.NoError(t, err)
	require.Equal(t, "kept", string(note[:k]))
}

func TestHardLinkedFileKeepsItsNames(t *testing.T) {
	w := newWorld(t)
	a, b := filepath.Join(w.top, "a"), filepath.Join(w.top, "b")
	require.NoError(t, os.WriteFile(a, []byte("old and longer"), 0o644))
	require.NoError(t, os.Link(a, b))
	_, h := w.open("a")
	require.NoError(t, h.Reset(ctx))
	writeAt(t, h, 0, []byte("new"), 1)
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	require.Equal(t, "new", string(w.published("a")))
	require.Equal(t, "new", string(w.published("b")))
	require.Empty(t, w.leftovers())
}

func TestTruncateAllocateAndHoles(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	writeAt(t, h, 3*testPart, []byte("far"), 1) // what lies before is a hole
	require.EqualValues(t, 3*testPart+3, s.Size())
	require.NoError(t, h.Truncate(ctx, testPart/2))
	require.NoError(t, h.Truncate(ctx, 2*testPart))
	require.NoError(t, h.Allocate(ctx, 0, 2*testPart, 10))
	writeAt(t, h, 0, bytes.Repeat([]byte{1}, 100), 1)
	require.NoError(t, h.Allocate(ctx, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 50, 10))
	require.ErrorIs(t, h.Allocate(ctx, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096), syscall.EOPNOTSUPP)
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	want := make([]byte, 2*testPart+10)
	copy(want, bytes.Repeat([]byte{1}, 100))
	clear(want[50:60])
	require.Equal(t, want, w.published("f"))
}

func TestFailedWritePoisons(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	writeAt(t, h, 0, []byte("good"), 1)
	s.staged.Fail(syscall.ENOSPC)
	_, err := h.Begin(4, 1, WriteOptions{Owner: 1})
	require.ErrorIs(t, err, syscall.ENOSPC)
	_, err = h.Begin(4, 1, WriteOptions{Owner: 1})
	require.ErrorIs(t, err, syscall.ENOSPC, "it comes back")
	require.ErrorIs(t, h.Sync(ctx), syscall.ENOSPC)
	require.ErrorIs(t, h.Flush(ctx, flushBy(me, 1)), syscall.ENOSPC)
	h.Release(ctx)
	require.Nil(t, w.published("f"))
	require.Equal(t, StateHeld, s.State())
	require.Contains(t, w.List()[0].Reason, "no space left")

	// The range that failed is missing, until it is written again.
	require.ErrorIs(t, w.PublishID(ctx, "f", false), syscall.EIO)
	h = s.Writer(me)
	writeAt(t, h, 4, []byte("!"), 3)
	require.NoError(t, h.Flush(ctx, flushBy(me, 3)))
	h.Release(ctx)
	require.Equal(t, "good!", string(w.published("f")))
}

func TestRewrittenPartLosesItsRecordFirst(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	writeAt(t, h, 0, pattern(2*testPart, 3), 1)
	require.NoError(t, w.journal.Sync(ctx))
	entry, err := w.journal.Get(ctx, s.ID())
	require.NoError(t, err)
	require.Len(t, entry.Parts, 2)
	_, err = h.Begin(10, 5, WriteOptions{Owner: 1})
	require.NoError(t, err)
	entry, err = w.journal.Get(ctx, s.ID())
	require.NoError(t, err)
	require.Len(t, entry.Parts, 1, "gone before the bytes change")
	h.Finish(10, []byte("12345"))
	require.NoError(t, h.Sync(ctx))
	entry, err = w.journal.Get(ctx, s.ID())
	require.NoError(t, err)
	require.Len(t, entry.Parts, 2, "and back with a new checksum when somebody needs it")
	require.Equal(t, 1, w.seen.rewritten)
	h.Flush(ctx, flushBy(me, 1))
	h.Release(ctx)
}

func TestCrashWhileWriting(t *testing.T) {
	w := newWorld(t)
	_, h := w.create("big")
	data := pattern(3*testPart, 4)
	writeAt(t, h, 0, data, 1)
	writeAt(t, h, 3*testPart, []byte("tail not recorded"), 1)
	_, small := w.create("small")
	writeAt(t, small, 0, []byte("never journaled"), 2)
	require.NoError(t, w.journal.Sync(ctx))
	w.crash()

	require.Equal(t, Report{Held: 1, Orphans: 1}, w.start())
	list := w.List()
	require.Len(t, list, 1)
	require.Equal(t, "big", list[0].Path)
	require.EqualValues(t, 3, list[0].PartsComplete)
	require.EqualValues(t, 3*testPart, list[0].Size, "the tail is not believed")
	require.Nil(t, w.published("big"))

	// Again, since recovery may be interrupted.
	w.crash()
	require.Equal(t, Report{Held: 1}, w.start())

	s := w.Get("big")
	h = s.Writer(me)
	writeAt(t, h, 3*testPart, []byte("end"), 3)
	require.NoError(t, h.Flush(ctx, flushBy(me, 3)))
	h.Release(ctx)
	require.Equal(t, append(bytes.Clone(data), "end"...), w.published("big"))
}

func TestHolesOfAnInterruptedFileAreNotBelieved(t *testing.T) {
	w := newWorld(t)
	_, h := w.create("f")
	require.NoError(t, h.Truncate(ctx, 4*testPart)) // as a downloader does first
	writeAt(t, h, 0, pattern(testPart, 1), 1)
	writeAt(t, h, 2*testPart, pattern(100, 2), 1)
	require.NoError(t, w.journal.Sync(ctx))
	w.crash()
	require.Equal(t, Report{Held: 1}, w.start())
	require.ErrorIs(t, w.PublishID(ctx, "f", false), syscall.EIO, "the part that was being filled is not known")
	require.Nil(t, w.published("f"))
}

func TestSparseFileKeepsItsHolesOverAnOrderlyRestart(t *testing.T) {
	w := newWorld(t)
	_, h := w.create("f")
	require.NoError(t, h.Truncate(ctx, 4*testPart))
	writeAt(t, h, 2*testPart+5, []byte("island"), 1)
	require.NoError(t, w.Engine.Close(ctx))
	w.crash()
	require.Equal(t, Report{Held: 1}, w.start())
	require.NoError(t, w.PublishID(ctx, "f", false))
	want := make([]byte, 4*testPart)
	copy(want[2*testPart+5:], "island")
	require.True(t, bytes.Equal(want, w.published("f")))
}

func TestDamagedPartIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("big")
	writeAt(t, h, 0, pattern(2*testPart, 5), 1)
	require.NoError(t, w.journal.Sync(ctx))
	name := filepath.Join(w.top, ".wholefs", "staging", s.ID())
	w.crash()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("damage"), testPart+7)
	require.NoError(t, err)
	f.Close()
	w.start()
	err = w.PublishID(ctx, "big", false)
	require.ErrorIs(t, err, syscall.EIO)
	require.Nil(t, w.published("big"))
	require.Equal(t, []chunker.Extent{{Off: testPart, End: 2 * testPart}}, w.List()[0].Missing)
}

func TestCrashWhilePublishing(t *testing.T) {
	data := pattern(2*testPart+5, 6)
	begin := func(t *testing.T) (*world, *Session) {
		w := newWorld(t)
		s, h := w.create("f")
		writeAt(t, h, 0, data, 1)
		// As publishNow does, up to the store's turn.
		s.mu.Lock()
		require.NoError(t, s.step(eventPublish))
		s.mu.Unlock()
		require.NoError(t, s.beginUpload())
		require.NoError(t, s.recordPublishing())
		return w, s
	}
	t.Run("before the store took it", func(t *testing.T) {
		w, _ := begin(t)
		w.crash()
		require.Equal(t, Report{Published: 1}, w.start())
		require.True(t, bytes.Equal(data, w.published("f")))
		require.Empty(t, w.List())
		require.Empty(t, w.leftovers())
	})
	t.Run("after the store took it", func(t *testing.T) {
		w, s := begin(t)
		_, err := s.upload.Complete(ctx, store.Final{Path: "f", Size: s.size, Staged: s.staged})
		require.NoError(t, err)
		w.crash()
		require.Equal(t, Report{Published: 1}, w.start())
		require.True(t, bytes.Equal(data, w.published("f")))
		entries, err := w.journal.Load(ctx)
		require.NoError(t, err)
		require.Empty(t, entries)
	})
	t.Run("and a part was damaged", func(t *testing.T) {
		w, s := begin(t)
		name := filepath.Join(w.top, ".wholefs", "staging", s.ID())
		w.crash()
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		require.NoError(t, err)
		f.WriteAt([]byte("damage"), 7)
		f.Close()
		require.Equal(t, Report{Held: 1}, w.start())
		require.Nil(t, w.published("f"))
	})
}

func TestCrashWhileCopyingIntoAFileOfSeveralNames(t *testing.T) {
	w := newWorld(t)
	a, b := filepath.Join(w.top, "a"), filepath.Join(w.top, "b")
	require.NoError(t, os.WriteFile(a, pattern(3000, 1), 0o644))
	require.NoError(t, os.Link(a, b))
	s, h := w.open("a")
	writeAt(t, h, 0, []byte("new"), 1)
	s.mu.Lock()
	require.NoError(t, s.step(eventPublish))
	s.mu.Unlock()
	require.NoError(t, s.beginUpload())
	require.NoError(t, s.recordPublishing())
	w.crash()
	require.NoError(t, os.WriteFile(a, []byte("torn"), 0o644)) // half of the copy
	require.Equal(t, Report{Published: 1}, w.start())
	want := pattern(3000, 1)
	copy(want, "new")
	require.Equal(t, want, w.published("a"))
	require.Equal(t, want, w.published("b"))
	require.Empty(t, w.leftovers())
}

func TestANewFileTakesOneOfSeveralNames(t *testing.T) {
	w := newWorld(t)
	a, b := filepath.Join(w.top, "a"), filepath.Join(w.top, "b")
	require.NoError(t, os.WriteFile(a, []byte("old"), 0o644))
	require.NoError(t, os.Link(a, b))
	_, h := w.create("c")
	writeAt(t, h, 0, []byte("new"), 1)
	thaw := w.Freeze("c", "a")
	w.Rename("c", "a")
	thaw()
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	require.Equal(t, "new", string(w.published("a")))
	require.Equal(t, "old", string(w.published("b")))
}

func TestRenameMovesSessions(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, os.MkdirAll(filepath.Join(w.top, "d/e"), 0o755))
	s, h := w.create("d/e/f")
	victim, vh := w.create("x")
	writeAt(t, h, 0, []byte("data"), 1)
	writeAt(t, vh, 0, []byte("victim"), 2)
	thaw := w.Freeze("d/e/f", "x")
	w.Rename("d/e/f", "x")
	thaw()
	require.Equal(t, "x", s.Path())
	require.Same(t, s, w.Get("x"))
	require.True(t, victim.Active(), "its handle still reads")
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	require.NoError(t, vh.Flush(ctx, flushBy(me, 2)))
	vh.Release(ctx)
	require.Equal(t, "data", string(w.published("x")), "the one that lost its name is not published")
	require.Empty(t, w.leftovers())

	s, h = w.create("d/e/g")
	writeAt(t, h, 0, []byte("deep"), 1)
	require.True(t, w.Under("d"))
	require.NoError(t, os.Rename(filepath.Join(w.top, "d"), filepath.Join(w.top, "dd")))
	w.Rename("d", "dd")
	require.False(t, w.Under("d"))
	require.Len(t, w.In("dd/e"), 1)
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	require.Equal(t, "deep", string(w.published("dd/e/g")))
	require.True(t, s.Ended())
}

func TestFreezeKeepsPublishesAway(t *testing.T) {
	w := newWorld(t)
	_, h := w.create("f")
	writeAt(t, h, 0, []byte("x"), 1)
	thaw := w.Freeze("f")
	done := make(chan error)
	go func() { done <- h.Flush(ctx, flushBy(me, 1)) }()
	select {
	case <-done:
		t.Fatal("published under a frozen path")
	case <-time.After(50 * time.Millisecond):
	}
	require.Nil(t, w.published("f"))
	w.Rename("f", "g")
	thaw()
	require.NoError(t, <-done)
	require.Nil(t, w.published("f"))
	require.Equal(t, "x", string(w.published("g")))
	h.Release(ctx)
}

func TestUnlinkedFileStaysReadable(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	writeAt(t, h, 0, []byte("ghost"), 1)
	s.Unlink()
	require.Nil(t, w.Get("f"))
	got := make([]byte, 10)
	n, _ := s.ReadAt(got, 0)
	require.Equal(t, "ghost", string(got[:n]))
	_, again := w.create("f") // the name is free
	writeAt(t, again, 0, []byte("new"), 1)
	require.NoError(t, again.Flush(ctx, flushBy(me, 1)))
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	again.Release(ctx)
	require.Equal(t, "new", string(w.published("f")))
	require.Empty(t, w.leftovers())
}

func TestACrashBringsNoRemovedNameBack(t *testing.T) {
	for i := range 10 {
		w := newWorld(t)
		s, h := w.create("f")
		writeAt(t, h, 0, pattern(testPart, 1), 1)
		require.NoError(t, w.journal.Sync(ctx))
		if i%2 == 0 {
			s.Unlink()
		} else {
			require.NoError(t, w.AbortID(ctx, "f"))
		}
		entries, err := w.journal.Load(ctx) // what a start at this moment would find
		require.NoError(t, err)
		require.Empty(t, entries)
		h.Release(ctx)
	}
}

func TestWriteAfterPublishAndUnlink(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	writeAt(t, h, 0, []byte("published"), 1)
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	thaw := w.Freeze("f")
	s.KeepBase()
	require.NoError(t, os.Remove(filepath.Join(w.top, "f")))
	s.Unlink()
	thaw()
	writeAt(t, h, 0, []byte("P"), 1)
	got := make([]byte, 20)
	n, _ := s.ReadAt(got, 0)
	require.Equal(t, "Published", string(got[:n]), "the open handle goes on with what it had")
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	h.Release(ctx)
	require.Nil(t, w.published("f"))
	require.Empty(t, w.leftovers())
}

func TestPublishFailureHoldsAndCanBeRetried(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, os.Mkdir(filepath.Join(w.top, "d"), 0o755))
	s, h := w.create("d/f")
	writeAt(t, h, 0, []byte("x"), 1)
	require.NoError(t, os.Remove(filepath.Join(w.top, "d")))
	require.ErrorIs(t, h.Flush(ctx, flushBy(me, 1)), syscall.ENOENT)
	h.Release(ctx)
	require.Equal(t, StateHeld, s.State())
	require.NoError(t, os.Mkdir(filepath.Join(w.top, "d"), 0o755))
	require.NoError(t, w.RetryID(ctx, "d/f", false))
	require.Equal(t, "x", string(w.published("d/f")))
}

func TestLimits(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.MaxSessions = 2 })
	_, a := w.create("a")
	_, b := w.create("b")
	_, err := w.Create(ctx, "c", store.Attr{Mode: 0o600})
	require.ErrorIs(t, err, syscall.ENFILE)
	require.Nil(t, w.Get("c"))
	_, err = w.Create(ctx, "a", store.Attr{Mode: 0o600})
	require.ErrorIs(t, err, syscall.EEXIST)
	a.Release(ctx)
	_, c := w.create("c")
	c.Release(ctx)
	b.Release(ctx)
	_, err = a.Begin(0, -1, WriteOptions{})
	require.Error(t, err)
	l, _ := chunker.NewLayout(testPart)
	require.EqualValues(t, 10*testPart, maxSize(l, store.Limits{MaxParts: 10}))
	require.EqualValues(t, 5, maxSize(l, store.Limits{MaxParts: 10, MaxSize: 5}))
	require.Error(t, checkLimits(l, store.Limits{MinPartSize: 5 << 20}))
}

func TestEFBIGAtTheWriteThatPassesTheLimit(t *testing.T) {
	w := newWorld(t)
	w.maxSize = 100
	_, h := w.create("f")
	writeAt(t, h, 0, make([]byte, 100), 1)
	_, err := h.Begin(100, 1, WriteOptions{Owner: 1})
	require.ErrorIs(t, err, syscall.EFBIG)
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)), "a refused write is no failed one")
	h.Release(ctx)
	require.Len(t, w.published("f"), 100)
}

func TestSyncSurvivesACrash(t *testing.T) {
	w := newWorld(t)
	_, h := w.create("f")
	data := pattern(testPart+77, 8)
	writeAt(t, h, 0, data, 1)
	require.NoError(t, h.Sync(ctx))
	require.Nil(t, w.published("f"), "fsync publishes nothing")
	w.crash()
	require.Equal(t, Report{Held: 1}, w.start())
	require.NoError(t, w.PublishID(ctx, "f", false))
	require.True(t, bytes.Equal(data, w.published("f")))
}

func TestConcurrentWriters(t *testing.T) {
	w := newWorld(t)
	s, first := w.create("f")
	const n = 8
	data := pattern(n*4*testPart, 9)
	writers := []*Writer{first}
	for range n - 1 { // all before the first can end the session
		writers = append(writers, s.Writer(me))
	}
	var wg sync.WaitGroup
	for i, h := range writers {
		wg.Go(func() {
			for off := i * 4 * testPart; off < (i+1)*4*testPart; off += 7000 {
				end := min(off+7000, (i+1)*4*testPart)
				at, err := h.Begin(int64(off), int64(end-off), WriteOptions{Owner: Owner(i + 1)})
				if err != nil {
					t.Error(err)
					return
				}
				h.Finish(at, data[off:end])
			}
			if err := h.Flush(ctx, flushBy(me, Owner(i+1))); err != nil {
				t.Error(err)
			}
			h.Release(ctx)
		})
	}
	wg.Wait()
	require.True(t, bytes.Equal(data, w.published("f")))
	require.Equal(t, map[string]int{"published": 1}, w.seen.ended)
	require.Empty(t, w.leftovers())
}

type lentBuffer struct{ returned chan struct{} }

func (l lentBuffer) Release() { close(l.returned) }

func TestDeliveredWritesAreStoredInOrderAndWaitedFor(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	want := make([]byte, 0, 20*1000)
	var lent []lentBuffer
	for i := range 20 {
		data := bytes.Repeat([]byte{byte(i)}, 1000)
		at, err := h.Begin(int64(len(want)), 1000, WriteOptions{Owner: 1})
		require.NoError(t, err)
		lent = append(lent, lentBuffer{make(chan struct{})})
		h.FinishLater(at, data, lent[i])
		want = append(want, data...)
	}
	// The same bytes again: the later write wins.
	at, err := h.Begin(0, 3, WriteOptions{Owner: 1})
	require.NoError(t, err)
	last := lentBuffer{make(chan struct{})}
	h.FinishLater(at, []byte("end"), last)
	copy(want, "end")
	require.NoError(t, h.Flush(ctx, flushBy(me, 1)))
	require.True(t, bytes.Equal(want, w.published("f")), "the close waits for what was delivered")
	for _, l := range append(lent, last) {
		<-l.returned
	}
	h.Release(ctx)
	require.True(t, s.Ended())
}

func TestCloseHoldsWhatIsOpen(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	writeAt(t, h, 0, []byte("half"), 1)
	require.NoError(t, w.Engine.Close(ctx))
	require.Equal(t, StateHeld, s.State())
	_, err := w.Create(ctx, "g", store.Attr{})
	require.ErrorIs(t, err, syscall.ESHUTDOWN)
	w.crash()
	require.Equal(t, Report{Held: 1}, w.start())
	require.NoError(t, w.PublishID(ctx, "f", false))
	require.Equal(t, "half", string(w.published("f")))
}

func TestReadsSeeWhatIsInFlight(t *testing.T) {
	w := newWorld(t)
	s, h := w.create("f")
	at, err := h.Begin(0, 5, WriteOptions{Owner: 1})
	require.NoError(t, err)
	require.EqualValues(t, 5, s.Size(), "the size counts what was acknowledged")
	got := make(chan string)
	go func() {
		b := make([]byte, 9)
		n, err := s.ReadAt(b, 0)
		if err != nil && err != io.EOF {
			t.Error(err)
		}
		got <- string(b[:n])
	}()
	time.Sleep(10 * time.Millisecond)
	h.Finish(at, []byte("hello"))
	require.Equal(t, "hello", <-got)
	h.Release(ctx)
}

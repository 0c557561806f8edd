package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// gate stands for fsync: it lets calls through, holds them, or fails them.
type gate struct {
	mu    sync.Mutex
	hold  chan struct{} // not nil: calls wait until it is closed
	err   error
	names []string
}

func (g *gate) sync(f *os.File) error {
	g.mu.Lock()
	hold, err := g.hold, g.err
	g.names = append(g.names, filepath.Base(f.Name()))
	g.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return err
}

func (g *gate) set(hold chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold, g.err, g.names = hold, err, nil
}

func (g *gate) calls() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.names)
}

// gated opens a journal whose syncs go through a gate.
func gated(t *testing.T, dir string, o Options) (*Journal, *gate) {
	t.Helper()
	j := mustOpen(t, dir, o)
	g := &gate{}
	j.fsync = g.sync // the writer reads it first when it has a group
	return j, g
}

// block holds the writer in a sync until the returned function is called.
func (g *gate) block(t *testing.T, j *Journal) (release func()) {
	t.Helper()
	hold := make(chan struct{})
	g.set(hold, nil)
	j.Put(session("blocker"))
	c := j.queue.add(nil, true)
	require.Eventually(t, func() bool { return g.calls() > 0 }, 5*time.Second, time.Millisecond)
	return func() {
		g.set(nil, nil)
		close(hold)
		<-c.done
	}
}

func TestCallsShareACommit(t *testing.T) {
	j, g := gated(t, t.TempDir(), Options{SyncWrites: true})
	release := g.block(t, j)
	first := j.Put(session("a"))
	for i := range int64(100) {
		require.Same(t, first, j.PutPart("a", part(i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, first.Wait(ctx), context.DeadlineExceeded, "nothing is committed before it is synced")
	release()
	require.NoError(t, first.Wait(t.Context()))
	require.NotSame(t, first, j.Delete("a"))
	require.NoError(t, first.Wait(ctx), "what is done is done, with any context")
}

func TestQueueIsBounded(t *testing.T) {
	j, g := gated(t, t.TempDir(), Options{SyncWrites: true})
	release := g.block(t, j)
	var queued atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range int64(3 * groupOps) {
			j.PutPart("blocker", part(i))
			queued.Add(1)
		}
	}()
	require.Eventually(t, func() bool { return queued.Load() > 100 }, 5*time.Second, time.Millisecond)
	time.Sleep(50 * time.Millisecond)
	require.LessOrEqual(t, queued.Load(), int64(groupOps))
	release()
	<-done
	require.NoError(t, j.Sync(t.Context()))
	e, err := j.Get(t.Context(), "blocker")
	require.NoError(t, err)
	require.Len(t, e.Parts, 3*groupOps)
}

// What Sync promises: each log and the directory are synced, and only then.
func TestSyncReachesEachLog(t *testing.T) {
	j, g := gated(t, t.TempDir(), Options{})
	require.NoError(t, j.Put(session("a")).Wait(t.Context()))
	require.Zero(t, g.calls(), "without SyncWrites nothing waits for the disk")
	// A second log, as it is while Badger flushes the first.
	dir := j.current.gen.dir
	require.NoError(t, os.WriteFile(filepath.Join(dir, "00009"+walSuffix), make([]byte, 64), 0o600))
	require.NoError(t, j.Sync(t.Context()))
	require.Equal(t, []string{"00001" + walSuffix, "00009" + walSuffix, filepath.Base(dir)}, g.names)
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// W6: a write that failed is told to everyone who writes after it.
func TestWriteErrorSticks(t *testing.T) {
	dir := t.TempDir()
	var out logBuffer
	j, g := gated(t, dir, Options{SyncWrites: true, Logger: slog.New(slog.NewTextHandler(&out, nil))})
	before := j.Put(session("a"))
	require.NoError(t, before.Wait(t.Context()))

	g.set(nil, syscall.EIO)
	j.Put(session("lost")) // nobody waits
	require.ErrorIs(t, j.Sync(t.Context()), syscall.EIO)
	g.set(nil, nil) // the disk works again: that changes nothing
	for name, c := range map[string]*Commit{
		"put": j.Put(session("b")), "put part": j.PutPart("a", part(1)), "drop": j.DropParts("a", 1), "delete": j.Delete("a"),
	} {
		require.ErrorIs(t, c.Wait(t.Context()), syscall.EIO, name)
	}
	require.ErrorIs(t, j.Sync(t.Context()), syscall.EIO)
	require.NoError(t, before.Wait(t.Context()), "what was committed stays so")
	_, err := j.Get(t.Context(), "a")
	require.NoError(t, err, "reading goes on")
	require.ErrorIs(t, j.Close(), syscall.EIO)
	require.ErrorIs(t, j.Close(), syscall.EIO)
	require.Equal(t, 1, strings.Count(out.String(), "write failed"), out.String())

	j = mustOpen(t, dir, Options{}) // and a new start has what was written
	_, err = j.Get(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, j.Put(session("b")).Wait(t.Context()))
}

// What was queued behind a group that is lost is not written: it may build on
// what was lost.
func TestNothingFollowsALostGroup(t *testing.T) {
	dir := t.TempDir()
	j, g := gated(t, dir, Options{SyncWrites: true})
	hold := make(chan struct{})
	g.set(hold, syscall.EIO)
	lost := j.Put(session("lost"))
	require.Eventually(t, func() bool { return g.calls() > 0 }, 5*time.Second, time.Millisecond)
	behind := j.Put(session("behind"))
	require.NotSame(t, lost, behind)
	close(hold)
	require.ErrorIs(t, lost.Wait(t.Context()), syscall.EIO)
	require.ErrorIs(t, behind.Wait(t.Context()), syscall.EIO)
	require.ErrorIs(t, j.Close(), syscall.EIO)
	j = mustOpen(t, dir, Options{})
	_, err := j.Get(t.Context(), "behind")
	require.ErrorIs(t, err, ErrNotFound)
}

// A disk that never answers blocks nobody for ever.
func TestStalledDisk(t *testing.T) {
	j, g := gated(t, t.TempDir(), Options{SyncWrites: true, StallTimeout: 100 * time.Millisecond})
	hold := make(chan struct{})
	g.set(hold, nil)
	start := time.Now()
	first := j.Put(session("a"))
	done := make(chan error)
	go func() { // more than the queue takes
		var c *Commit
		for i := range int64(3 * groupOps) {
			c = j.PutPart("a", part(i))
		}
		done <- c.Wait(context.Background())
	}()
	require.ErrorIs(t, first.Wait(t.Context()), ErrStalled)
	require.ErrorIs(t, <-done, ErrStalled)
	require.ErrorIs(t, j.Close(), ErrStalled)
	require.Less(t, time.Since(start), 5*time.Second)
	close(hold)
}

func TestNoSpaceIsAnError(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{})
	j.current.gen.space.free = func(string) (int64, error) { return minFree - 1, nil }
	require.NoError(t, j.Put(session("a")).Wait(t.Context()), "the log that is open has its blocks")
	var c *Commit
	for i := range int64(memTable / 100) {
		c = j.PutPart("a", part(i))
	}
	err := c.Wait(t.Context())
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "31 MiB are free")
	names, err := filepath.Glob(filepath.Join(j.current.gen.dir, "*"+walSuffix))
	require.NoError(t, err)
	require.Len(t, names, 1, "no log was begun without room for it")
}

// The blocks of an open log are there before they are written.
func TestLogIsAllocatedAhead(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{})
	s := j.current.gen.space
	if s.left == 0 {
		t.Skip("no fallocate on this filesystem")
	}
	var st unix.Stat_t
	require.NoError(t, unix.Stat(s.path(s.fid), &st))
	require.GreaterOrEqual(t, st.Blocks*512, int64(memTableAlloc))
	j.Put(session("a"))
	for i := range int64(2 * memTable / 100) {
		j.PutPart("a", part(i))
	}
	require.NoError(t, j.Sync(t.Context()))
	require.Greater(t, s.fid, 1)
	require.NoError(t, unix.Stat(s.path(s.fid), &st))
	require.GreaterOrEqual(t, st.Blocks*512, int64(memTableAlloc))
}

func init() {
	children["fulldisk"] = func(args []string) error {
		ctx, cancel := newContext()
		defer cancel()
		j, err := Open(args[0], Options{})
		if err != nil {
			return err
		}
		var c *Commit
		for i := range int64(100) {
			c = j.PutPart("a", part(i))
		}
		if err := c.Wait(ctx); err != nil {
			return err
		}
		// Somebody else fills the disk to the last block.
		f, err := os.Create(filepath.Join(args[0], "..", "full"))
		if err != nil {
			return err
		}
		for err == nil {
			_, err = f.Write(make([]byte, 64<<10))
		}
		for i := int64(0); ; i++ {
			if err := j.PutPart("a", part(i)).Wait(ctx); err != nil {
				if !errors.Is(err, syscall.ENOSPC) {
					return err
				}
				fmt.Println(i)
				return nil // the memtable cannot be flushed: no Close
			}
		}
	}
}

// On a full disk the journal answers ENOSPC. Without care the kernel answers
// a write to a mapped hole with SIGBUS, and the mount is gone.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("journal-test", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skip("cannot mount a tmpfs: ", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	var written int
	runChild(t, &written, "fulldisk", filepath.Join(dir, "journal"))
	require.Greater(t, written, 1000, "what the open log has blocks for is still taken")

	_, err := Open(filepath.Join(dir, "journal"), Options{})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, os.Remove(filepath.Join(dir, "full")))
	j := mustOpen(t, filepath.Join(dir, "journal"), Options{})
	require.NoError(t, j.Put(session("a")).Wait(t.Context()))
}

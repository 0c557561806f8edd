package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func init() {
	// killself writes n parts, waits for the last, and dies.
	children["killself"] = func(args []string) error {
		ctx, cancel := newContext()
		defer cancel()
		n, _ := strconv.Atoi(args[1])
		j, err := Open(args[0], Options{})
		if err != nil {
			return err
		}
		j.Put(session("a"))
		var c *Commit
		for i := range int64(n) {
			c = j.PutPart("a", part(i))
		}
		if err := c.Wait(ctx); err != nil {
			return err
		}
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	// busy writes for ever, copies generations all the time, and prints the
	// number of each session that is committed with its three parts.
	children["busy"] = func(args []string) error {
		ctx, cancel := newContext()
		defer cancel()
		first, _ := strconv.Atoi(args[1])
		j, err := Open(args[0], Options{garbageFloor: 200 << 10})
		if err != nil {
			return err
		}
		for i := first; ; i++ {
			id := fmt.Sprintf("%08d", i)
			j.Put(session(id))
			for p := range int64(3) {
				j.PutPart(id, part(p))
			}
			for p := range int64(200) { // garbage
				j.PutPart(id, part(1000+p))
				j.DropParts(id, 1000+p)
			}
			c := j.Delete(fmt.Sprintf("%08d", i-20))
			if err := c.Wait(ctx); err != nil {
				return err
			}
			fmt.Println(i)
		}
	}
	children["hold"] = func(args []string) error {
		j, err := Open(args[0], Options{})
		if err != nil {
			return err
		}
		fmt.Println("open")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		return j.Close()
	}
}

func requireKilled(t *testing.T, err error) {
	t.Helper()
	var exit interface{ Sys() any }
	require.True(t, errors.As(err, &exit), "%v", err)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
}

// W7: what Wait has answered for is there after a SIGKILL, without any sync.
func TestCommittedSurvivesKill(t *testing.T) {
	for _, n := range []int{1, 500, 40_000} { // within a log, and over several
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := t.TempDir()
			requireKilled(t, child(t, "killself", dir, strconv.Itoa(n)).Run())
			for range 2 {
				j := mustOpen(t, dir, Options{})
				e, err := j.Get(t.Context(), "a")
				require.NoError(t, err)
				require.Len(t, e.Parts, n)
				for i, p := range e.Parts {
					require.Equal(t, part(int64(i)), p)
				}
				mustClose(t, j)
			}
		})
	}
}

// A log that is damaged although the machine did not go down is refused: its
// owner's LOCK tells that.
func TestDamageAfterAKill(t *testing.T) {
	dir := t.TempDir()
	requireKilled(t, child(t, "killself", dir, "5000").Run())
	edit(t, glob(t, dir, firstGeneration+"/*"+walSuffix), func(b []byte) []byte { return flip(txnEnds(b)[0] + 8)(b) })
	_, err := Open(dir, Options{})
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, firstGeneration+"/00001"+walSuffix, corrupt.File)
	require.Positive(t, corrupt.Offset)
}

// The daemon may be killed at any instruction: here at two dozen, while
// records are written and generations copied, over and over on one journal.
func TestKilledAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	dir := t.TempDir()
	next := 100
	copied := false
	for round := range 24 {
		cmd := child(t, "busy", dir, strconv.Itoa(next))
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		time.AfterFunc(time.Duration(20+11*round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		acked := next - 1
		for sc := bufio.NewScanner(out); sc.Scan(); {
			acked, err = strconv.Atoi(sc.Text())
			require.NoError(t, err)
		}
		requireKilled(t, cmd.Wait())

		j := mustOpen(t, dir, Options{})
		for _, e := range mustLoad(t, j) {
			n, err := strconv.Atoi(e.Session.ID)
			require.NoError(t, err)
			require.Greater(t, n, acked-21-1, "round %d: deleted sessions stay deleted", round)
			require.Equal(t, session(e.Session.ID), e.Session)
			if n <= acked {
				require.Equal(t, []Part{part(0), part(1), part(2)}, e.Parts, "round %d, session %d of %d", round, n, acked)
			}
		}
		for i := max(100, acked-18); i <= acked; i++ { // acked-19: the next one may have deleted it
			_, err := j.Get(t.Context(), fmt.Sprintf("%08d", i))
			require.NoError(t, err, "round %d: session %d was committed", round, i)
		}
		damage, err := j.Check(t.Context())
		require.NoError(t, err)
		require.Empty(t, damage)
		for _, id := range sessionsAfter(t, j, acked) {
			require.NoError(t, j.Delete(id).Wait(t.Context()))
		}
		mustClose(t, j)
		names, err := generations(dir)
		require.NoError(t, err)
		require.Len(t, names, 1)
		copied = copied || names[0] > "000003"
		next = acked + 1
	}
	require.True(t, copied, "no generation was copied: the test is too gentle")
	require.Greater(t, next, 200)
}

func sessionsAfter(t *testing.T, j *Journal, acked int) (ids []string) {
	for _, e := range mustLoad(t, j) {
		if e.Session.ID > fmt.Sprintf("%08d", acked) {
			ids = append(ids, e.Session.ID)
		}
	}
	return ids
}

func TestLockedJournal(t *testing.T) {
	dir := t.TempDir()
	cmd := child(t, "hold", dir)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)

	_, err = Open(dir, Options{})
	var locked *LockedError
	require.ErrorAs(t, err, &locked)
	require.Equal(t, cmd.Process.Pid, locked.PID)
	require.Equal(t, fmt.Sprintf("journal %s is in use by process %d: stop the other wholefs, or mount with another --state-dir",
		dir, cmd.Process.Pid), err.Error())

	// One that ends while we ask is waited for.
	time.AfterFunc(30*time.Millisecond, func() { _, _ = in.Write([]byte("\n")) })
	j, err := Open(dir, Options{})
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())

	// Within one process too, and with a LOCK that names nobody.
	require.NoError(t, os.WriteFile(dir+"/"+lockFile, []byte("not a pid"), 0o600))
	_, err = Open(dir, Options{})
	require.ErrorAs(t, err, &locked)
	require.Zero(t, locked.PID)
	require.ErrorContains(t, err, "in use by another process")
	require.NoError(t, j.Close())
	require.NoFileExists(t, dir+"/"+lockFile)
}

// Unmount and mount again at once: Close has given the lock back.
func TestReopenAtOnce(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		j, err := Open(dir, Options{})
		require.NoError(t, err)
		j.Put(session(fmt.Sprint(i)))
		require.NoError(t, j.Close())
	}
	require.Len(t, mustLoad(t, mustOpen(t, dir, Options{})), 30)
}

func init() {
	children["idle"] = func(args []string) error {
		j, err := Open(args[0], Options{})
		if err != nil {
			return err
		}
		j.Put(session("a"))
		time.Sleep(200 * time.Millisecond)
		var before, after syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
		time.Sleep(3 * time.Second)
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
		fmt.Printf("[%d, %d]\n", cpu/1000, after.Nvcsw-before.Nvcsw)
		return j.Close()
	}
}

// An idle journal sleeps. What wakes up in Badger: a ticker every 2 s that
// looks at a pool of builders, and two every minute.
func TestIdleCostsNothing(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("long")
	}
	var took [2]int64 // microseconds of CPU, context switches
	runChild(t, &took, "idle", t.TempDir())
	t.Logf("in 3 s: %d µs of CPU, %d context switches", took[0], took[1])
	require.Less(t, took[0], int64(20_000))
	require.Less(t, took[1], int64(100), "Badger's compactors alone would wake up 120 times")
}

package journal

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The limits that the journal keeps for thousands of sessions.
const (
	memoryLimit = 48 << 20
	filesLimit  = 64 << 20
)

// load is what a child found while it worked on a journal.
type load struct {
	Before, After memory
	HighMem       uint64 // most of anonymous memory and mapped journal files seen, less what there was before
	Allocated     int64  // most seen
	Apparent      int64  // most seen
	Took          time.Duration
	Stats         Stats
}

func (l *load) sample(dir string) error {
	a, s, _, err := usage(dir)
	if err != nil {
		return err
	}
	l.Allocated, l.Apparent = max(l.Allocated, a), max(l.Apparent, s)
	m, err := measure()
	if err != nil {
		return err
	}
	l.After = m
	l.HighMem = max(l.HighMem, m.Anon+m.Mapped-l.Before.Anon)
	return nil
}

func init() {
	children["sessions"] = func(args []string) error { return worker(args, manySessions) }
	children["churn"] = func(args []string) error { return worker(args, churn) }
}

// worker runs work on a journal and prints what it took.
func worker(args []string, work func(j *Journal, l *load, n, parts int) error) error {
	ctx, cancel := newContext()
	defer cancel()
	n, _ := strconv.Atoi(args[1])
	parts, _ := strconv.Atoi(args[2])
	var l load
	var err error
	if l.Before, err = measure(); err != nil {
		return err
	}
	start := time.Now()
	j, err := Open(args[0], Options{})
	if err != nil {
		return err
	}
	if err := work(j, &l, n, parts); err != nil {
		return err
	}
	if err := j.Sync(ctx); err != nil {
		return err
	}
	if err := l.sample(args[0]); err != nil {
		return err
	}
	l.Took = time.Since(start)
	l.Stats = j.Stats()
	if err := j.Close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

// manySessions puts n sessions with their parts, puts each again, drops half
// of the parts and deletes every second session.
func manySessions(j *Journal, l *load, n, parts int) error {
	id := func(i int) string { return fmt.Sprintf("0197a0c4-52b1-7d3e-8f00-%012x", i) }
	for i := range n {
		j.Put(session(id(i)))
		for p := range parts {
			j.PutPart(id(i), part(int64(p)))
		}
		if i%200 == 0 {
			if err := l.sample(j.dir); err != nil {
				return err
			}
		}
	}
	for i := range n {
		s := session(id(i))
		s.State, s.Reason = StateHeld, "the writer was killed by signal 9"
		j.Put(s)
		if i%200 == 0 {
			if err := l.sample(j.dir); err != nil {
				return err
			}
		}
	}
	for i := range n {
		for p := range parts / 2 {
			j.DropParts(id(i), int64(p*2))
		}
		if i%2 == 1 {
			j.Delete(id(i))
		}
		if i%200 == 0 {
			if err := l.sample(j.dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// churn makes n sessions, a few at a time, each deleted when it is complete.
func churn(j *Journal, l *load, n, parts int) error {
	const together = 8
	for i := range n {
		id := fmt.Sprintf("0197a0c4-52b1-7d3e-8f00-%012x", i)
		j.Put(session(id))
		for p := range parts {
			j.PutPart(id, part(int64(p)))
		}
		if i >= together {
			j.Delete(fmt.Sprintf("0197a0c4-52b1-7d3e-8f00-%012x", i-together))
		}
		if i%50 == 0 {
			if err := l.sample(j.dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// peak is how far the process's RSS ever rose, in bytes: all memory of every
// kind at the worst moment, the pages of the program that were touched too.
func (l *load) peak() uint64 { return l.After.Peak - l.Before.RSS }

func (l *load) report(t *testing.T) {
	t.Helper()
	t.Logf("took %v; files %s allocated, %s apparent; memory %s above an empty process", l.Took.Round(time.Millisecond),
		mib(uint64(l.Allocated)), mib(uint64(l.Apparent)), mib(l.HighMem))
	t.Logf("highest RSS %s above the start's", mib(l.peak()))
	t.Logf("at the end: %v; %+v", l.After, l.Stats)
}

// Thousands of sessions fit the limits of memory and disk, at every moment.
func TestSizeOfManySessions(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	n, parts := 5000, 40
	if raceEnabled {
		n = 500
	}
	var l load
	runChild(t, &l, "sessions", t.TempDir(), strconv.Itoa(n), strconv.Itoa(parts))
	l.report(t)
	require.Equal(t, (n+1)/2, l.Stats.Sessions)
	require.Less(t, l.Allocated, int64(filesLimit))
	if !raceEnabled { // the race detector takes memory of its own
		require.Less(t, l.peak(), uint64(memoryLimit))
	}
}

// What is deleted leaves the disk: short sessions that come and go for ever
// do not make the journal grow.
func TestChurnDoesNotGrow(t *testing.T) {
	if testing.Short() {
		t.Skip("long")
	}
	n, parts := 2000, 100
	if raceEnabled {
		n = 200
	}
	var l load
	runChild(t, &l, "churn", t.TempDir(), strconv.Itoa(n), strconv.Itoa(parts))
	l.report(t)
	require.Less(t, l.Allocated, int64(filesLimit)/2)
	require.Equal(t, 8, l.Stats.Sessions)
	if !raceEnabled {
		require.Less(t, l.peak(), uint64(memoryLimit))
	}
}

package journal

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// children are what a test can run in a process of its own: this test binary,
// started again with the child's name in the environment.
var children = map[string]func(args []string) error{}

const childEnv = "WHOLEFS_JOURNAL_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		if err := children[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child prepares a process that runs children[name].
func child(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	require.Contains(t, children, name)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// runChild runs a child that prints one JSON value, and reads that into v.
func runChild(t testing.TB, v any, name string, args ...string) {
	t.Helper()
	out, err := child(t, name, args...).Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, v), "%s", out)
}

// mustOpen opens the journal in dir and closes it at the end of the test.
func mustOpen(t testing.TB, dir string, o Options) *Journal {
	t.Helper()
	j, err := Open(dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func mustClose(t testing.TB, j *Journal) {
	t.Helper()
	require.NoError(t, j.Close())
}

func mustLoad(t testing.TB, j *Journal) []Entry {
	t.Helper()
	all, err := j.Load(t.Context())
	require.NoError(t, err)
	return all
}

var day = time.Date(2031, 5, 17, 10, 20, 30, 405060708, time.UTC)

// session is a plausible session for tests.
func session(id string) Session {
	return Session{
		ID: id, Path: "models/" + id + "/weights.safetensors", State: StateOpen,
		PartSize: 16 << 20, Size: 40 << 20, Created: day, Updated: day.Add(time.Second),
		StagingName: id + ".part",
	}
}

func part(n int64) Part {
	return Part{Number: n, Size: 16 << 20, CRC: uint32(n) * 2654435761, Token: fmt.Sprintf("%032x", n)}
}

// memory is what a process takes, in bytes.
type memory struct {
	Heap   uint64 // in use, of the Go heap
	System uint64 // what Go took from the system and did not give back
	Anon   uint64 // resident, of the process alone
	Mapped uint64 // resident, of mapped files other than the program
	RSS    uint64 // all that is resident, the program too
	Peak   uint64 // highest RSS so far
}

func measure() (memory, error) {
	var m memory
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	m.Heap, m.System = ms.HeapInuse, ms.Sys-ms.HeapReleased
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return m, err
	}
	field := func(name string) uint64 {
		_, rest, _ := strings.Cut(string(status), "\n"+name+":")
		n, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		return n << 10
	}
	m.Anon, m.RSS, m.Peak = field("RssAnon"), field("VmRSS"), field("VmHWM")
	// Mapped files: the program itself is not the journal's.
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return m, err
	}
	defer f.Close()
	var ours bool
	for sc := bufio.NewScanner(f); sc.Scan(); {
		w := strings.Fields(sc.Text())
		switch {
		case len(w) >= 5 && strings.Contains(w[0], "-"):
			ext := "" // of a mapped file
			if len(w) >= 6 {
				ext = filepath.Ext(w[5])
			}
			ours = ext == walSuffix || ext == tableSuffix || ext == valueSuffix || (len(w) >= 6 && filepath.Base(w[5]) == "DISCARD")
		case ours && w[0] == "Rss:":
			n, _ := strconv.ParseUint(w[1], 10, 64)
			m.Mapped += n << 10
		}
	}
	return m, nil
}

func mib(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func (m memory) String() string {
	return fmt.Sprintf("heap %s, held by Go %s, anonymous %s, mapped %s, peak RSS %s",
		mib(m.Heap), mib(m.System), mib(m.Anon), mib(m.Mapped), mib(m.Peak))
}

// newContext is a context for children, which have no *testing.T.
func newContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 2*time.Minute)
}

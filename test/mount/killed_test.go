package mount

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wholefs/wholefs/test/harness"
)

// killWriter lets "cat /dev/zero > name" write for a moment and kills it.
func killWriter(t *testing.T, m *harness.Mnt, name string, sig syscall.Signal) {
	t.Helper()
	cat := harness.Background(t, harness.Cmd{
		Args: []string{"bash", "-c", "ulimit -c 0; exec cat /dev/zero > \"$0\"", m.In(name)},
	})
	harness.Eventually(t, 10*time.Second, "cat writes", func() bool {
		st, err := os.Stat(m.In(name))
		return err == nil && st.Size() > 4<<20
	})
	if err := cat.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if r := cat.Wait(); r.Signal != sig {
		t.Fatalf("the writer ended otherwise: %v", r)
	}
}

// A writer that a signal killed publishes nothing; its session is held and
// says why (W4).
func TestKilledWriterIsHeld(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGSEGV, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			m := harness.Mount(t, harness.Options{})
			watch := harness.NewWatch(t, m.Store)
			killWriter(t, m, "f", sig)
			s := m.HeldAt(t, "f")
			if s.Size < 4<<20 || s.Writers != 0 {
				t.Errorf("held with size %d and %d writers", s.Size, s.Writers)
			}
			if !regexp.MustCompile(`(?i)kill|signal|sig`).MatchString(s.Reason) {
				t.Errorf("the reason does not tell of a signal: %q", s.Reason)
			}
			if st, err := os.Stat(m.In("f")); err != nil || st.Size() != s.Size {
				t.Errorf("the mount does not show the held file: %v, %v", st, err)
			}
			r := m.Wholefs("session", "ls", m.Dir)
			if !r.OK() || !strings.Contains(r.Out, "f") || !strings.Contains(r.Out, "held") {
				t.Errorf("session ls: %v", r)
			}
			r = m.Wholefs("session", "show", m.Dir, "f")
			if !r.OK() || !strings.Contains(r.Out, s.ID) {
				t.Errorf("session show: %v", r)
			}
			if seen := m.Visible(t); len(seen) != 0 {
				t.Errorf("the directory shows %v", seen)
			}
			watch.Published(t, "f")
		})
	}
}

func TestHeldSessionCanBePublished(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	watch := harness.NewWatch(t, m.Store)
	killWriter(t, m, "f", syscall.SIGKILL)
	s := m.HeldAt(t, "f")
	if r := m.Wholefs("session", "publish", m.Dir, "f"); !r.OK() {
		t.Fatal(r)
	}
	st, err := os.Stat(m.Out("f"))
	if err != nil || st.Size() != s.Size {
		t.Fatalf("published %v, %v; the session had %d bytes", st, err, s.Size)
	}
	watch.Published(t, "f", harness.MustSum(t, m.In("f")))
	m.NoSessions(t)
	m.NoStaging(t)
}

func TestHeldSessionCanBeAborted(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	if err := os.WriteFile(m.Out("old"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	killWriter(t, m, "f", syscall.SIGKILL)
	killWriter(t, m, "old", syscall.SIGKILL)
	m.HeldAt(t, "old")
	if r := m.Wholefs("session", "abort", m.Dir, m.HeldAt(t, "f").ID); !r.OK() {
		t.Fatal(r)
	}
	if r := m.Wholefs("session", "abort", m.Dir, "old"); !r.OK() {
		t.Fatal(r)
	}
	if _, err := os.Stat(m.In("f")); !os.IsNotExist(err) {
		t.Errorf("the mount still shows the aborted file: %v", err)
	}
	for _, p := range []string{m.Out("old"), m.In("old")} {
		if b, err := os.ReadFile(p); err != nil || string(b) != "old" {
			t.Errorf("%s: %.20q, %v", p, b, err)
		}
	}
	m.NoSessions(t)
	m.NoStaging(t)
}

// Writing the file again, or removing it, ends a held session.
func TestHeldSessionEndsByName(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	src, sum := harness.Source(t, "again", 5<<20)
	killWriter(t, m, "f", syscall.SIGKILL)
	m.HeldAt(t, "f")
	harness.MustRun(t, "cp", src, m.In("f"))
	if got := harness.MustSum(t, m.Out("f")); got != sum {
		t.Errorf("the new copy is not what was published")
	}
	m.NoSessions(t)
	m.NoStaging(t)

	killWriter(t, m, "g", syscall.SIGKILL)
	m.HeldAt(t, "g")
	harness.MustRun(t, "rm", m.In("g"))
	if _, err := os.Stat(m.In("g")); !os.IsNotExist(err) {
		t.Errorf("removed and still there: %v", err)
	}
	m.NoSessions(t)
	m.NoStaging(t)
}

// A held session can be opened, finished and closed: then it is published.
func TestHeldSessionCanBeFinished(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	killWriter(t, m, "f", syscall.SIGKILL)
	s := m.HeldAt(t, "f")
	harness.Must(t, harness.Shell(m.Dir, "echo the end >> f"))
	st, err := os.Stat(m.Out("f"))
	if err != nil || st.Size() != s.Size+int64(len("the end\n")) {
		t.Fatalf("published %v, %v; held were %d bytes", st, err, s.Size)
	}
	m.NoSessions(t)
	m.NoStaging(t)
}

// A program that exits with an error was not killed: diff and grep publish.
func TestNonZeroExitPublishes(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	for script, want := range map[string]string{
		"bash -c 'echo found; exit 3' > f":             "found\n",
		"diff <(echo one) <(echo two) > f":             "1c1\n< one\n---\n> two\n",
		"grep -c nosuchuser: /etc/passwd > f":          "0\n",
		"python3 -c 'print(1, flush=True); 1/0' > f":   "1\n",
		"bash -c 'echo a > f; kill -9 $$'":             "a\n", // closed before it was killed
		"(echo inner; exit 7) > f":                     "inner\n",
		"timeout -s KILL 5 bash -c 'echo in time' > f": "in time\n",
	} {
		r := harness.Cmd{Args: []string{"bash", "-c", script}, Dir: m.Dir}.Run()
		if r.TimedOut {
			t.Errorf("%s: %v", script, r)
		}
		harness.Eventually(t, 5*time.Second, script+" publishes", func() bool {
			b, err := os.ReadFile(m.Out("f"))
			return err == nil && string(b) == want
		})
		m.NoSessions(t)
		if err := os.Remove(m.In("f")); err != nil {
			t.Error(err)
		}
	}
}

func TestOnKill(t *testing.T) {
	t.Run("publish", func(t *testing.T) {
		m := harness.Mount(t, harness.Options{Flags: []string{"--on-kill=publish"}})
		killWriter(t, m, "f", syscall.SIGKILL)
		harness.Eventually(t, 10*time.Second, "the killed writer's file is published", func() bool {
			st, err := os.Stat(m.Out("f"))
			return err == nil && st.Size() > 4<<20
		})
		m.NoSessions(t)
	})
	t.Run("abort", func(t *testing.T) {
		m := harness.Mount(t, harness.Options{Flags: []string{"--on-kill=abort"}})
		killWriter(t, m, "f", syscall.SIGKILL)
		harness.Eventually(t, 10*time.Second, "the killed writer's file is gone", func() bool {
			_, err := os.Stat(m.In("f"))
			return os.IsNotExist(err)
		})
		if seen := m.Visible(t); len(seen) != 0 {
			t.Errorf("the directory shows %v", seen)
		}
		m.NoSessions(t)
		m.NoStaging(t)
	})
}

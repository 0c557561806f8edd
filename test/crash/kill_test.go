package crash

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wholefs/wholefs/test/harness"
)

const partSize = 1 << 20

// killer is the state of the loop that kills the daemon.
type killer struct {
	*testing.T
	m     *harness.Mnt
	draw  *rand.Rand
	big   string // sources outside the mount
	small [3]string
	known map[string]map[string]bool // path in the store -> contents that are whole

	kills, held, published, withParts, midCopy int
}

// SIGKILL of the daemon at random moments during copies, in a loop (W1, W7):
// after each remount nothing in the directory is partial, held sessions hold
// the bytes that were written, staging has no more than the sessions that
// are listed, and the next copy works. WHOLEFS_TEST_KILLS says how often.
func TestDaemonKilledDuringCopies(t *testing.T) {
	k := &killer{T: t, draw: harness.Rand(t), known: map[string]map[string]bool{}}
	var bigSum string
	k.big, bigSum = harness.Source(t, "big", 40<<20+4321)
	sums := [3]string{}
	for i := range k.small {
		k.small[i], sums[i] = harness.Source(t, fmt.Sprintf("small-%d", i), int64(1+i*300_000))
	}
	k.m = harness.Mount(t, harness.Options{Watchdog: 20 * time.Minute, Flags: []string{"--part-size=1M"}})
	for _, name := range []string{"new", "old"} {
		k.known[name] = map[string]bool{bigSum: true}
	}
	k.known["new"]["absent"] = true
	k.known["old"][sums[2]] = true
	k.known["small"] = map[string]bool{"absent": true, sums[0]: true, sums[1]: true, sums[2]: true}
	harness.MustRun(t, "cp", k.small[2], k.m.In("old"))

	kills := int(harness.EnvInt("WHOLEFS_TEST_KILLS", 100))
	took := k.measure()
	for range kills {
		k.round(took)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d kills: %d in the middle of the copy; %d held sessions (%d with whole parts), %d copies published before the kill",
		k.kills, k.midCopy, k.held, k.withParts, k.published)
	if kills >= 50 && (k.midCopy < kills/10 || k.withParts == 0) {
		t.Error("hardly a kill hit a copy: the loop proves nothing")
	}
}

// measure times one undisturbed copy, so that the kills fall into it.
func (k *killer) measure() time.Duration {
	r := harness.MustRun(k, "cp", k.big, k.m.In("new"))
	harness.MustRun(k, "rm", k.m.In("new"))
	return r.Took
}

func (k *killer) round(took time.Duration) {
	k.Helper()
	copies := []*harness.Process{
		k.start("cp", k.big, k.m.In("new")),
		k.start("cp", k.big, k.m.In("old")),
		k.start("bash", "-c", `while :; do for s in "${@:2}"; do cp "$s" "$1" || exit 1; done; done`, "small", k.m.In("small"), k.small[0], k.small[1], k.small[2]),
	}
	time.Sleep(time.Duration(k.draw.Float64() * 4 * float64(took)))
	if copies[0].Running() {
		k.midCopy++
	}
	k.m.KillOnly()
	k.kills++
	// Without their server all calls fail at once; nothing may hang.
	for _, p := range copies {
		if r := p.Wait(); r.TimedOut {
			k.Fatalf("a copy hung after the daemon's death: %v", r)
		}
	}
	k.checkStore("after the kill")
	k.m.MustRemount(k)
	k.checkStore("after the remount")
	k.checkSessions()
	k.nextCopy()
}

func (k *killer) start(args ...string) *harness.Process {
	k.Helper()
	p, err := harness.Cmd{Args: args}.Start()
	if err != nil {
		k.Fatal(err)
	}
	return p
}

// checkStore looks at every name in the directory, as anybody could.
func (k *killer) checkStore(when string) {
	k.Helper()
	for name, contents := range k.known {
		sum, err := harness.Sum(k.m.Out(name))
		if os.IsNotExist(err) {
			sum, err = "absent", nil
		}
		if err != nil || !contents[sum] {
			st, _ := os.Stat(k.m.Out(name))
			k.Errorf("%s, %s in the directory is no whole version: %v, %v", when, name, st, err)
		}
	}
	for _, name := range k.m.Visible(k) {
		if k.known[name] == nil {
			k.Errorf("%s, the directory shows %q", when, name)
		}
	}
}

// checkSessions compares what is held with what was being written.
func (k *killer) checkSessions() {
	k.Helper()
	sessions := k.m.Sessions(k)
	staging := k.m.StagingFiles(k)
	if len(staging) > len(sessions) {
		k.Errorf("%d staging files for %d sessions: %v, %+v", len(staging), len(sessions), staging, sessions)
	}
	sources := map[string][]string{"new": {k.big}, "old": {k.big}, "small": k.small[:]}
	for _, s := range sessions {
		k.held++
		if s.PartsComplete > 0 {
			k.withParts++
		}
		if s.State != "held" || s.Reason == "" || s.Writers != 0 || s.PartSize != partSize {
			k.Errorf("after the remount: %+v", s)
		}
		if s.PartsComplete*partSize > s.Size+partSize {
			k.Errorf("more parts than bytes: %+v", s)
		}
		if !k.holds(s, sources[s.Path]) {
			k.Errorf("the held bytes of %s are not what was written: %+v", s.Path, s)
		}
	}
}

// holds reports whether a held session has the bytes of one of the sources
// wherever it says that it has bytes.
func (k *killer) holds(s harness.Session, sources []string) bool {
	for _, src := range sources {
		st, err := os.Stat(src)
		if err != nil || st.Size() < s.Size {
			continue
		}
		off, err := harness.SamePrefix(k.m.In(s.Path), src, s.Size, s.Missing)
		if err != nil {
			k.Errorf("reading the held file: %v", err)
		}
		if off < 0 {
			return true
		}
		k.Logf("%s differs from %s at %d of %d", s.Path, filepath.Base(src), off, s.Size)
	}
	return false
}

// nextCopy ends what is held, in a drawn way, and copies again.
func (k *killer) nextCopy() {
	k.Helper()
	for _, s := range k.m.Sessions(k) {
		switch k.draw.IntN(3) {
		case 0:
			if r := k.m.Wholefs("session", "abort", k.m.Dir, s.ID); !r.OK() {
				k.Errorf("abort: %v", r)
			}
		case 1:
			harness.MustRun(k, "cp", k.small[2], k.m.In(s.Path))
			k.known[s.Path][harness.MustSum(k, k.small[2])] = true
		case 2:
			harness.MustRun(k, "rm", k.m.In(s.Path))
			k.known[s.Path]["absent"] = true
		}
	}
	k.m.NoSessions(k)
	k.m.NoStaging(k)
	harness.MustRun(k, "cp", k.big, k.m.In("new"))
	if got, want := harness.MustSum(k, k.m.Out("new")), harness.MustSum(k, k.big); got != want {
		k.Errorf("the next copy is not whole")
	}
	k.checkStore("after the next copy")
	if k.draw.IntN(2) == 0 {
		harness.MustRun(k, "rm", k.m.In("new"))
	}
}

// Whatever is in the hidden directory after all this is small.
func TestNothingGrowsOverCrashes(t *testing.T) {
	m := harness.Mount(t, harness.Options{Flags: []string{"--part-size=1M"}})
	src, _ := harness.Source(t, "f", 8<<20)
	for range 10 {
		p, err := harness.Cmd{Args: []string{"bash", "-c", `while cp "$0" "$1"; do :; done`, src, m.In("f")}}.Start()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		m.KillOnly()
		p.Wait()
		m.MustRemount(t)
		for _, s := range m.Sessions(t) {
			if r := m.Wholefs("session", "abort", m.Dir, s.ID); !r.OK() {
				t.Fatal(r)
			}
		}
	}
	m.NoStaging(t)
	var bytes int64
	var names []string
	filepath.WalkDir(m.Out(harness.Hidden), func(p string, d fs.DirEntry, err error) error {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			bytes += st.Sys().(*syscall.Stat_t).Blocks * 512
			names = append(names, fmt.Sprintf("%s %d", p, st.Size()))
		}
		return nil
	})
	if bytes > 64<<20 {
		t.Errorf("the state directory holds %d bytes:\n%s", bytes, strings.Join(names, "\n"))
	}
}

// A daemon that is killed between a session's publish command and its answer
// leaves the session held or published, nothing between.
func TestKilledDuringSessionPublish(t *testing.T) {
	m := harness.Mount(t, harness.Options{Flags: []string{"--part-size=1M"}})
	src, _ := harness.Source(t, "f", 64<<20)
	draw := harness.Rand(t)
	for range 10 {
		cp := harness.Background(t, harness.Cmd{Args: []string{"dd", "if=" + src, "of=" + m.In("f"), "bs=64k", "status=none"}})
		harness.Eventually(t, 10*time.Second, "dd writes", func() bool {
			st, err := os.Stat(m.In("f"))
			return err == nil && st.Size() > 8<<20
		})
		cp.Kill()
		s := m.HeldAt(t, "f")
		publish := harness.Background(t, harness.Cmd{Args: append([]string{mustBinary(t)}, "session", "publish", m.Dir, "f")})
		time.Sleep(time.Duration(draw.Float64() * float64(40*time.Millisecond)))
		m.KillOnly()
		publish.Wait()
		m.MustRemount(t)
		st, err := os.Stat(m.Out("f"))
		sessions := m.Sessions(t)
		switch {
		case err == nil && st.Size() == s.Size && len(sessions) == 0:
		case os.IsNotExist(err) && len(sessions) == 1 && sessions[0].State == "held":
			harness.MustRun(t, "rm", m.In("f"))
		default:
			t.Fatalf("stat %v, %v; sessions %+v; was %+v", st, err, sessions, s)
		}
		if err == nil {
			if off, err := harness.SamePrefix(m.Out("f"), src, s.Size, nil); off >= 0 || err != nil {
				t.Fatalf("published otherwise than written, at %d: %v", off, err)
			}
			harness.MustRun(t, "rm", m.In("f"))
		}
		m.NoStaging(t)
	}
}

func mustBinary(t *testing.T) string {
	t.Helper()
	bin, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

package mount

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wholefs/wholefs/test/harness"
)

// promtool is where "make test" puts it, or wherever PATH has it.
func promtool(t *testing.T) string {
	t.Helper()
	if p, err := exec.LookPath("promtool"); err == nil {
		return p
	}
	p := filepath.Join(harness.ModuleRoot(), "build", "tools", "promtool")
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("promtool is missing: make test fetches it (%v)", err)
	}
	return p
}

// What Prometheus scrapes passes its own lint and adds up to what was done.
func TestMetrics(t *testing.T) {
	m := harness.Mount(t, harness.Options{Flags: []string{"--part-size=1M"}})
	before := m.Scrape(t)

	const size = 10<<20 + 12345
	src, sum := harness.Source(t, "counted", size)
	harness.MustRun(t, "cp", src, m.In("a"))
	harness.MustRun(t, "cp", src, m.In("b"))
	if got := harness.MustSum(t, m.In("a")); got != sum {
		t.Fatal("read back otherwise")
	}
	killWriter(t, m, "held", syscall.SIGKILL)
	held := m.HeldAt(t, "held")
	status, body, err := m.Get("/metrics")
	if err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}
	after := m.Scrape(t)

	r := harness.Cmd{Args: []string{promtool(t), "check", "metrics"}, Stdin: body}.Run()
	if !r.OK() || strings.TrimSpace(r.Out+r.Err) != "" {
		t.Errorf("promtool check metrics: %v", r)
	}
	for name, want := range map[string]float64{
		"wholefs_written_bytes_total":                2*size + float64(held.Size),
		"wholefs_read_bytes_total":                   size,
		`wholefs_sessions_total{result="published"}`: 2,
		"wholefs_integrity_failures_total":           0,
		"wholefs_publish_duration_seconds_count":     2,
		"wholefs_parts_completed_total":              20,
	} {
		got := sumOf(after, name) - sumOf(before, name)
		switch name {
		case "wholefs_parts_completed_total":
			// The held file has whole parts too.
			if got < want+float64(held.PartsComplete) {
				t.Errorf("%s grew by %v, want at least %v", name, got, want)
			}
		default:
			if got != want {
				t.Errorf("%s grew by %v, want %v", name, got, want)
			}
		}
	}
	for name, want := range map[string]float64{
		`wholefs_sessions{state="held"}`: 1,
		`wholefs_sessions{state="open"}`: 0,
		"wholefs_staging_bytes":          float64(held.Size),
	} {
		if got := after[name]; got < want || (name != "wholefs_staging_bytes" && got != want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	for _, family := range []string{
		"build_info", "fuse_ops_total", "fuse_op_duration_seconds", "written_bytes_total", "read_bytes_total",
		"sessions", "sessions_total", "publish_duration_seconds", "flush_decisions_total", "parts_completed_total",
		"part_rewrites_total", "staging_bytes", "staging_limit_bytes", "staging_oldest_age_seconds", "buffer_bytes",
		"backpressure_seconds_total", "journal_ops_total", "journal_sync_duration_seconds", "recovered_sessions_total",
		"integrity_failures_total",
	} {
		if !strings.Contains(body, "# TYPE wholefs_"+family+" ") {
			t.Errorf("wholefs_%s is missing", family)
		}
	}
	if strings.Contains(body, m.Dir) || strings.Contains(body, m.Store) {
		t.Error("a label carries a path")
	}
}

// sumOf adds up the samples of a name, over all labels unless it has some.
func sumOf(samples map[string]float64, name string) float64 {
	if v, ok := samples[name]; ok || strings.Contains(name, "{") {
		return v
	}
	var sum float64
	for sample, v := range samples {
		if strings.HasPrefix(sample, name+"{") {
			sum += v
		}
	}
	return sum
}

func TestHealth(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	if status, body, err := m.Get("/healthz"); err != nil || status != http.StatusOK {
		t.Errorf("/healthz: %d %q %v", status, body, err)
	}
	r := m.Wholefs("status", m.Dir)
	if !r.OK() || !strings.Contains(r.Out, m.Metrics) {
		t.Errorf("status does not tell where the metrics are: %v", r)
	}
	if r := m.Wholefs("status", "--json", m.Dir); !r.OK() || !strings.Contains(r.Out, `"pid"`) {
		t.Errorf("status --json: %v", r)
	}
}

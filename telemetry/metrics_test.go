package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func fullSources() Sources {
	return Sources{
		Sessions:     func() map[string]int { return map[string]int{"open": 3, "held": 1} },
		OldestAge:    func() time.Duration { return 90 * time.Second },
		StagingBytes: func() int64 { return 4096 },
		StagingLimit: func() int64 { return 0 },
		Buffers: func() Buffers {
			return Buffers{InUse: 1 << 20, Allocated: 2 << 20, Limit: 64 << 20, Wait: 1500 * time.Millisecond}
		},
		Journal: func() Journal { return Journal{DiskBytes: 7, MemoryBytes: 9} },
	}
}

// touch makes every metric have at least one series.
func touch(m *Metrics) {
	m.Op("WRITE", 0, time.Millisecond)
	m.Op("LOOKUP", syscall.ENOENT, time.Microsecond)
	m.Written(512 << 10)
	m.Read(4096)
	m.SessionEnded("published")
	m.PublishDone("published", time.Millisecond)
	m.FlushDecision("publish")
	m.PartCompleted()
	m.PartRewritten()
	m.IntegrityFailure("publish")
	m.SessionRecovered("held")
	m.Journal().Op("put")
	m.Journal().Synced(time.Millisecond)
	m.StoreRequest("complete", "OK", time.Millisecond)
	m.StoreRetry("timeout")
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler(ServeOptions{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, http.StatusOK, rec.Code)
	return rec.Body.String()
}

// names is the list of design and OPERATIONS: dashboards and alerts depend on
// it, so a name that goes missing is a breaking change.
var names = []string{
	"build_info", "fuse_ops_total", "fuse_op_duration_seconds", "written_bytes_total", "read_bytes_total",
	"sessions", "sessions_total", "publish_duration_seconds", "flush_decisions_total", "parts_completed_total",
	"part_rewrites_total", "staging_bytes", "staging_limit_bytes", "staging_oldest_age_seconds", "buffer_bytes",
	"backpressure_seconds_total", "journal_ops_total", "journal_sync_duration_seconds", "store_requests_total",
	"store_request_duration_seconds", "store_retries_total", "recovered_sessions_total", "integrity_failures_total",
}

func TestEveryMetricIsServed(t *testing.T) {
	m := New(Build{Version: "1.2.3"}, fullSources())
	touch(m)
	text := scrape(t, m)
	for _, name := range names {
		require.Contains(t, text, "# TYPE wholefs_"+name+" ")
		require.Contains(t, text, "# HELP wholefs_"+name+" ")
	}
	for _, line := range []string{
		`wholefs_fuse_ops_total{errno="OK",op="WRITE"} 1`,
		`wholefs_fuse_ops_total{errno="ENOENT",op="LOOKUP"} 1`,
		`wholefs_written_bytes_total 524288`,
		`wholefs_sessions{state="open"} 3`,
		`wholefs_sessions{state="publishing"} 0`,
		`wholefs_backpressure_seconds_total 1.5`,
		`wholefs_sessions_total{result="aborted"} 0`,
		`wholefs_store_requests_total{code="OK",op="complete"} 1`,
	} {
		require.Contains(t, text, "\n"+line+"\n")
	}
}

func TestNoSourceNoGauge(t *testing.T) {
	text := scrape(t, New(Build{}, Sources{}))
	require.NotContains(t, text, "wholefs_staging_bytes")
	require.NotContains(t, text, "wholefs_sessions{")
}

func TestLint(t *testing.T) {
	m := New(Build{Version: "1"}, fullSources())
	touch(m)
	problems, err := testutil.GatherAndLint(m.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil && os.Getenv("WHOLEFS_ALLOW_SKIP") == "1" {
		t.Skip("promtool is not installed (Debian: prometheus)")
	}
	require.NoError(t, err, "make test fetches promtool (Debian: prometheus); WHOLEFS_ALLOW_SKIP=1 goes without")
	m := New(Build{Version: "1"}, fullSources())
	touch(m)
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(scrape(t, m))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(bytes.TrimSpace(out)))
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	m := New(Build{}, Sources{})
	hot := func() {
		m.Op("WRITE", 0, time.Millisecond)
		m.Op("LOOKUP", syscall.ENOENT, time.Millisecond)
		m.Written(4096)
		m.Read(4096)
		m.PartCompleted()
	}
	hot()
	require.Zero(t, testing.AllocsPerRun(100, hot))
}

func TestLabelsAreBounded(t *testing.T) {
	m := New(Build{}, Sources{})
	for i := range 10 * maxOps {
		m.Op(fmt.Sprint("OP", i), 0, 0)
		m.Op(fmt.Sprint("OP", i), syscall.Errno(i), 0)
		m.Op(fmt.Sprint("OP", i), syscall.Errno(1<<20+i), 0)
	}
	// maxOps histograms; per operation OK, one error and "other", and the
	// overflowing operation may have met every errno.
	require.LessOrEqual(t, testutil.CollectAndCount(m.ops.durations), maxOps)
	require.LessOrEqual(t, testutil.CollectAndCount(m.ops.counts), 3*maxOps+maxErrno+1)
	require.Contains(t, scrape(t, m), `wholefs_fuse_ops_total{errno="other",op="other"}`)
}

func TestOpsAddUpUnderConcurrency(t *testing.T) {
	m := New(Build{}, Sources{})
	const goroutines, each = 8, 500
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				m.Op(fmt.Sprint("OP", i%7), syscall.Errno(i%3), time.Microsecond)
				m.Written(3)
			}
			_ = g
		})
	}
	wg.Wait()
	require.EqualValues(t, goroutines*each*3, testutil.ToFloat64(m.written))
	families, err := m.registry.Gather()
	require.NoError(t, err)
	var sum float64
	for _, f := range families {
		if f.GetName() == "wholefs_fuse_ops_total" {
			for _, s := range f.GetMetric() {
				sum += s.GetCounter().GetValue()
			}
		}
	}
	require.EqualValues(t, goroutines*each, sum)
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

func BenchmarkOp(b *testing.B) {
	m := New(Build{}, Sources{})
	b.ReportAllocs()
	for b.Loop() {
		m.Op("WRITE", 0, 100*time.Microsecond)
	}
}

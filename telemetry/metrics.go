package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Build says which program is running.
type Build struct {
	Version, Revision, GoVersion string
}

// Metrics holds every counter and histogram of one mount. Its methods are
// safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	ops      opTable

	written, read prometheus.Counter

	sessionsEnded   *prometheus.CounterVec
	publishDuration *prometheus.HistogramVec
	flushDecisions  *prometheus.CounterVec
	partsCompleted  prometheus.Counter
	partRewrites    prometheus.Counter
	recovered       *prometheus.CounterVec
	integrity       *prometheus.CounterVec

	journalOps  *prometheus.CounterVec
	journalSync prometheus.Histogram

	storeRequests *prometheus.CounterVec
	storeDuration *prometheus.HistogramVec
	storeRetries  *prometheus.CounterVec
}

// Buckets, in seconds. A FUSE request takes from ten microseconds to as long
// as the publish that its FLUSH waits for.
var (
	opBuckets      = []float64{1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.1, 0.5, 1, 5, 30}
	syncBuckets    = []float64{1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}
	publishBuckets = []float64{5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}
)

// New makes the metrics of one mount. The functions of s are called while a
// scrape is answered; those that are nil leave their metrics out.
func New(b Build, s Sources) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		sourceCollector{s},
	)
	info := m.gaugeVec("build_info", "The version of this program; the value is always 1.",
		"version", "revision", "goversion")
	info.WithLabelValues(b.Version, b.Revision, b.GoVersion).Set(1)

	m.ops.init(
		m.counterVec("fuse_ops_total", "FUSE requests answered, by operation and errno (OK when there was none).", "op", "errno"),
		m.histogramVec("fuse_op_duration_seconds", "Time from reading a FUSE request to answering it.", opBuckets, "op"),
	)
	m.written = m.counter("written_bytes_total", "Bytes that programs have written into the mount.")
	m.read = m.counter("read_bytes_total", "Bytes that programs have read from the mount; reads that the page cache answers are not seen.")

	m.sessionsEnded = m.counterVec("sessions_total", "Sessions by what became of them; a held session counts again when it ends.", "result")
	m.publishDuration = m.histogramVec("publish_duration_seconds", "Time to make one finished file visible in the store.", publishBuckets, "result")
	m.flushDecisions = m.counterVec("flush_decisions_total", "What was decided at each close of a written file.", "decision")
	m.partsCompleted = m.counter("parts_completed_total", "Parts of which every byte has arrived.")
	m.partRewrites = m.counter("part_rewrites_total", "Completed parts that lost their completion because they were written again.")
	m.recovered = m.counterVec("recovered_sessions_total", "Sessions found in the journal at start, by what was done with them.", "result")
	m.integrity = m.counterVec("integrity_failures_total", "Parts whose bytes did not match their recorded checksum.", "stage")

	m.journalOps = m.counterVec("journal_ops_total", "Records written to the journal.", "op")
	m.journalSync = m.histogram("journal_sync_duration_seconds", "Time to make the journal durable.", syncBuckets)

	m.storeRequests = m.counterVec("store_requests_total", "Requests to the store, by operation and outcome.", "op", "code")
	m.storeDuration = m.histogramVec("store_request_duration_seconds", "Time that requests to the store took.", publishBuckets, "op")
	m.storeRetries = m.counterVec("store_retries_total", "Requests to the store that were sent again.", "reason")

	// Counters that alerts are made of exist from the start: a rate over a
	// series that appears with its first increment misses that increment.
	for _, result := range []string{"published", "held", "aborted", "replaced", "unlinked", "expired", "killed"} {
		m.sessionsEnded.WithLabelValues(result)
	}
	for _, result := range []string{"published", "held", "lost", "orphan"} {
		m.recovered.WithLabelValues(result)
	}
	for _, stage := range []string{"recovery", "publish"} {
		m.integrity.WithLabelValues(stage)
	}
	return m
}

// SessionEnded counts a session that ended or was put on hold.
func (m *Metrics) SessionEnded(result string) { m.sessionsEnded.WithLabelValues(result).Inc() }

// PublishDone records one attempt to publish.
func (m *Metrics) PublishDone(result string, d time.Duration) {
	m.publishDuration.WithLabelValues(result).Observe(d.Seconds())
}

// FlushDecision counts what a FLUSH led to.
func (m *Metrics) FlushDecision(decision string) { m.flushDecisions.WithLabelValues(decision).Inc() }

// PartCompleted counts a part that became whole.
func (m *Metrics) PartCompleted() { m.partsCompleted.Inc() }

// PartRewritten counts a whole part that was written into again.
func (m *Metrics) PartRewritten() { m.partRewrites.Inc() }

// IntegrityFailure counts a checksum that did not match, and where it was
// noticed.
func (m *Metrics) IntegrityFailure(stage string) { m.integrity.WithLabelValues(stage).Inc() }

// SessionRecovered counts a session that a start found in the journal.
func (m *Metrics) SessionRecovered(result string) { m.recovered.WithLabelValues(result).Inc() }

// StoreRequest records one request to the store; code is OK, an errno's name
// or an HTTP status.
func (m *Metrics) StoreRequest(op, code string, d time.Duration) {
	m.storeRequests.WithLabelValues(op, code).Inc()
	m.storeDuration.WithLabelValues(op).Observe(d.Seconds())
}

// StoreRetry counts a request to the store that is sent again.
func (m *Metrics) StoreRetry(reason string) { m.storeRetries.WithLabelValues(reason).Inc() }

// Journal shows m to the journal, whose words for its events are shorter.
func (m *Metrics) Journal() JournalObserver { return JournalObserver{m} }

// JournalObserver is what the journal reports to.
type JournalObserver struct{ m *Metrics }

// Op counts a record written to the journal.
func (o JournalObserver) Op(op string) { o.m.journalOps.WithLabelValues(op).Inc() }

// Synced records how long a sync of the journal took.
func (o JournalObserver) Synced(d time.Duration) { o.m.journalSync.Observe(d.Seconds()) }

const namespace = "wholefs"

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	c := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	c := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogramVec(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	c := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(c)
	return c
}

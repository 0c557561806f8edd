package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources are the functions that a scrape asks. Each must be quick and safe
// to call at any time; one that is nil leaves its metrics out.
type Sources struct {
	// Sessions counts the sessions in the journal and in memory by state.
	Sessions func() map[string]int
	// OldestAge is how long the oldest unpublished session has been waiting.
	OldestAge func() time.Duration
	// StagingBytes is what the staging files take on disk; StagingLimit is
	// what they may take, 0 when the disk is the only limit.
	StagingBytes func() int64
	StagingLimit func() int64
	Buffers      func() Buffers
	Journal      func() Journal
}

// Buffers tells of the memory budget of the write path.
type Buffers struct {
	InUse, Allocated, Limit int64 // bytes
	// Wait is the time that writers have spent waiting for the budget.
	Wait time.Duration
}

// Journal tells what the journal occupies.
type Journal struct {
	DiskBytes, MemoryBytes int64
}

// States of a session that are always reported, so that "no session is held"
// is a zero and not an absent series.
var sessionStates = []string{"open", "publishing", "held"}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

var (
	descSessions     = describe("sessions", "Sessions that are not yet published, by state.", "state")
	descOldestAge    = describe("staging_oldest_age_seconds", "Age of the oldest session that is not yet published; 0 without any.")
	descStagingBytes = describe("staging_bytes", "Disk space that staging files take.")
	descStagingLimit = describe("staging_limit_bytes", "Disk space that staging files may take; 0 means that only the disk limits them.")
	descBufferBytes  = describe("buffer_bytes", "Memory of the write path that holds bytes on their way to staging.")
	descBufferAlloc  = describe("buffer_allocated_bytes", "Memory of the write path that is allocated, in use or idle.")
	descBufferLimit  = describe("buffer_limit_bytes", "Memory that the write path may take.")
	descBackpressure = describe("backpressure_seconds_total", "Time that writers waited because the memory budget was spent.")
	descJournalDisk  = describe("journal_size_bytes", "Disk space that the journal takes.")
	descJournalMem   = describe("journal_memory_bytes", "Memory that the journal takes.")
)

// sourceCollector turns the answers of Sources into metrics at scrape time.
type sourceCollector struct{ Sources }

var _ prometheus.Collector = sourceCollector{}

// Describe sends the description of every metric that Collect may send.
func (c sourceCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descSessions, descOldestAge, descStagingBytes, descStagingLimit, descBufferBytes, descBufferAlloc,
		descBufferLimit, descBackpressure, descJournalDisk, descJournalMem,
	} {
		ch <- d
	}
}

// Collect asks the sources.
func (c sourceCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if c.Sessions != nil {
		counts := c.Sessions()
		for _, state := range sessionStates {
			gauge(descSessions, float64(counts[state]), state)
		}
	}
	if c.OldestAge != nil {
		gauge(descOldestAge, c.OldestAge().Seconds())
	}
	if c.StagingBytes != nil {
		gauge(descStagingBytes, float64(c.StagingBytes()))
	}
	if c.StagingLimit != nil {
		gauge(descStagingLimit, float64(c.StagingLimit()))
	}
	if c.Buffers != nil {
		b := c.Buffers()
		gauge(descBufferBytes, float64(b.InUse))
		gauge(descBufferAlloc, float64(b.Allocated))
		gauge(descBufferLimit, float64(b.Limit))
		ch <- prometheus.MustNewConstMetric(descBackpressure, prometheus.CounterValue, b.Wait.Seconds())
	}
	if c.Journal != nil {
		j := c.Journal()
		gauge(descJournalDisk, float64(j.DiskBytes))
		gauge(descJournalMem, float64(j.MemoryBytes))
	}
}

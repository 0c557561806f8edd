package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// Bounds of the labels of the FUSE metrics. Linux has fewer operations and
// fewer error numbers than these; what lies beyond is counted as "other".
const (
	maxOps   = 96
	maxErrno = 136
	other    = "other"
)

// opTable finds the series of an operation without a lock: its map is
// replaced when a new operation is seen, never changed.
type opTable struct {
	counts    *prometheus.CounterVec
	durations *prometheus.HistogramVec

	seen atomic.Pointer[map[string]*opSeries]
	grow sync.Mutex // held while seen is replaced
}

// opSeries is what one operation counts into.
type opSeries struct {
	ok       prometheus.Counter
	duration prometheus.Observer
	failed   [maxErrno]atomic.Pointer[prometheus.Counter]
}

func (t *opTable) init(counts *prometheus.CounterVec, durations *prometheus.HistogramVec) {
	t.counts, t.durations = counts, durations
	t.seen.Store(&map[string]*opSeries{other: t.series(other)})
}

func (t *opTable) series(op string) *opSeries {
	return &opSeries{ok: t.counts.WithLabelValues(op, "OK"), duration: t.durations.WithLabelValues(op)}
}

func (t *opTable) get(op string) *opSeries {
	if s, ok := (*t.seen.Load())[op]; ok {
		return s
	}
	t.grow.Lock()
	defer t.grow.Unlock()
	old := *t.seen.Load()
	if s, ok := old[op]; ok {
		return s
	}
	if len(old) >= maxOps {
		return old[other]
	}
	s := t.series(op)
	next := maps.Clone(old)
	next[op] = s
	t.seen.Store(&next)
	return s
}

func (t *opTable) failure(op string, s *opSeries, errno syscall.Errno) prometheus.Counter {
	if errno >= maxErrno {
		errno = 0 // not an error number of Linux: slot 0 is free, as success has its own counter
	}
	if c := s.failed[errno].Load(); c != nil {
		return *c
	}
	name := unix.ErrnoName(errno)
	if name == "" {
		name = other
	}
	// Two goroutines may meet here; both get the same child of the vector.
	c := t.counts.WithLabelValues(op, name)
	s.failed[errno].Store(&c)
	return c
}

// Op counts one answered FUSE request and the time from reading it to
// answering it.
func (m *Metrics) Op(op string, errno syscall.Errno, d time.Duration) {
	s := m.ops.get(op)
	if errno == 0 {
		s.ok.Inc()
	} else {
		if s == (*m.ops.seen.Load())[other] {
			op = other
		}
		m.ops.failure(op, s, errno).Inc()
	}
	s.duration.Observe(d.Seconds())
}

// Written counts bytes that a program wrote into the mount.
func (m *Metrics) Written(n int) { m.written.Add(float64(n)) }

// Read counts bytes that the mount gave to a reader.
func (m *Metrics) Read(n int) { m.read.Add(float64(n)) }

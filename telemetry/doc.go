// Package telemetry counts what a mount does and serves the counts to
// Prometheus.
//
// # Two kinds of metrics
//
// What happens is counted when it happens: Metrics has one method per event
// (Op, Written, PublishDone and so on). The packages that cause the events
// declare small Observer interfaces of their own, which *Metrics satisfies
// without either side importing the other; cmd/wholefs puts them together.
// What merely is (sessions by state, bytes in staging, buffers in use) is not
// tracked here at all: Sources holds functions that are called while a scrape
// is answered, so that a gauge can never drift from what it describes.
//
// # Rules
//
//   - Each Metrics has its own registry. Two mounts in one process, or two
//     tests, do not meet.
//   - No label carries a path, a name or an id: the number of series must not
//     grow with the number of files. Every label that comes from outside is
//     bounded (see ops.go).
//   - The methods that run once per FUSE request (Op, Written, Read) do not
//     allocate and take no lock; TestHotPathDoesNotAllocate keeps it so.
//   - Names start with wholefs_, use base units (seconds, bytes), and counters
//     end in _total. A test lints them with the rules of promtool.
//
// # The server
//
// Listen finds a port (the next free one when the wanted one is taken: two
// mounts on one machine are the normal case) and Serve answers on it:
// /metrics, /healthz, which asks the mount itself and not this process, and a
// page that links both. Beyond loopback it answers only with a bearer token
// (promise W10).
package telemetry

package control

import (
	"context"
	"time"
)

// Extent is a range of bytes, End excluded.
type Extent struct {
	Off int64 `json:"off"`
	End int64 `json:"end"`
}

// Session is one file that is not yet published.
type Session struct {
	ID            string    `json:"id"`
	Path          string    `json:"path"`
	State         string    `json:"state"` // open, publishing or held
	Reason        string    `json:"reason,omitempty"`
	Error         string    `json:"error,omitempty"`
	Size          int64     `json:"size"`
	PartSize      int64     `json:"part_size"`
	Parts         int64     `json:"parts"`
	PartsComplete int64     `json:"parts_complete"`
	Writers       int       `json:"writers"`
	Created       time.Time `json:"created"`
	Updated       time.Time `json:"updated"`
	Expires       time.Time `json:"expires,omitzero"`
	// Missing are the ranges that nobody wrote and nobody declared a hole.
	// A session with missing ranges is published only by force.
	Missing []Extent `json:"missing,omitempty"`
}

// Action is what can be done to a session from outside.
type Action string

// The actions.
const (
	Publish Action = "publish"
	Abort   Action = "abort"
	Retry   Action = "retry"
)

// Status is what a mount is and does.
type Status struct {
	State      string    `json:"state"` // mounted or draining
	Store      string    `json:"store"`
	Mountpoint string    `json:"mountpoint"`
	StateDir   string    `json:"state_dir"`
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	Started    time.Time `json:"started"`
	Uptime     float64   `json:"uptime_seconds"`
	// Metrics is the URL of the metrics, empty when they are off.
	Metrics    string `json:"metrics,omitempty"`
	Durability string `json:"durability"`
	// DrainTimeout is how long the end of the mount may wait.
	DrainTimeout float64   `json:"drain_timeout_seconds"`
	OnKill       string    `json:"on_kill"`
	Staging      Staging   `json:"staging"`
	Buffers      Buffers   `json:"buffers"`
	Journal      Journal   `json:"journal"`
	OldestAge    float64   `json:"oldest_age_seconds"`
	Sessions     []Session `json:"sessions"`
}

// Staging tells of the staging directory.
type Staging struct {
	Bytes int64 `json:"bytes"` // on disk
	Files int   `json:"files"`
}

// Buffers tells of the memory budget of the write path, in bytes.
type Buffers struct {
	InUse     int64 `json:"in_use_bytes"`
	Allocated int64 `json:"allocated_bytes"`
	Limit     int64 `json:"limit_bytes"`
	// Wait is for how long writers have waited for the budget.
	Wait float64 `json:"wait_seconds"`
}

// Journal tells of the journal.
type Journal struct {
	Disk     int64 `json:"disk_bytes"`
	Memory   int64 `json:"memory_bytes"`
	Sessions int   `json:"sessions"`
}

// UnmountRequest says how to unmount.
type UnmountRequest struct {
	// Timeout, in seconds, is how long to wait for programs to close their
	// files and for the drain. 0 waits for the drain only, as long as the
	// mount's own --drain-timeout says.
	Timeout float64 `json:"timeout_seconds"`
	// Lazy takes the mount out of sight at once. Programs that have files
	// open keep them until they close them or the time is over.
	Lazy bool `json:"lazy"`
}

// UnmountResult is told once the mount is gone and drained.
type UnmountResult struct {
	// Left are the sessions that stay in the journal for the next mount.
	Left []Session `json:"left"`
}

// Process is a process that keeps a mount busy.
type Process struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
	// Holds says by what: the path of an open file, "cwd" or "root".
	Holds string `json:"holds"`
}

// Sessions is the part of a mount that also exists without one: a state
// directory that nobody serves offers it too.
type Sessions interface {
	Sessions(ctx context.Context) ([]Session, error)
	// Session finds one by id, by the beginning of an id, or by path.
	Session(ctx context.Context, which string) (Session, error)
	// Act does a to the session with this id and returns what it was before.
	Act(ctx context.Context, which string, a Action, force bool) (Session, error)
}

// Mount is what a Server serves.
type Mount interface {
	Sessions
	Status(ctx context.Context) (Status, error)
	Unmount(ctx context.Context, r UnmountRequest) (UnmountResult, error)
}

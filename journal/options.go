package journal

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Options are the choices that Open takes. The zero value is right for a
// mount.
type Options struct {
	// Logger takes the journal's own lines, and Badger's at debug level
	// (its warnings and errors at theirs). Nil discards them.
	Logger *slog.Logger
	// SyncWrites makes each group of records durable before its Commit is
	// done. Without it a record survives the death of the process, however
	// it comes, but a power loss may take back what was written since the
	// last Sync.
	SyncWrites bool
	// Observer is told of operations and syncs; it may be nil. Its methods
	// must not block and must not call the journal.
	Observer Observer
	// StallTimeout is how long one commit may take before the journal gives
	// up on the disk and fails every write with ErrStalled. Default 60 s.
	StallTimeout time.Duration

	garbageFloor int64 // for tests; default garbageFloor
}

// Observer is told what the journal does.
type Observer interface {
	// Op counts a call: put, put_part, drop_parts, delete, sync, load, get.
	Op(op string)
	// Synced tells how long it took to make a group of records durable.
	Synced(d time.Duration)
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = 60 * time.Second
	}
	if o.garbageFloor <= 0 {
		o.garbageFloor = garbageFloor
	}
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
}

type noObserver struct{}

func (noObserver) Op(string)            {}
func (noObserver) Synced(time.Duration) {}

// Badger's sizes. A journal of a mount holds thousands of sessions, not
// gigabytes: everything is cut to that.
const (
	// memTable is the size of one of Badger's in-memory tables and of the
	// part of its write-ahead log that is ever used. A transaction may hold
	// 15 % of it.
	memTable = 1 << 20
	// memTableAlloc is what one in-memory table takes on the heap, and what
	// is allocated on disk for its log: the table, one transaction that
	// overshoots, and that transaction's nodes.
	memTableAlloc = memTable + 2*(memTable*15/100)
	// garbageFloor is how many bytes of tables are let be, whatever is in
	// them; twice what was there after the last copy comes on top.
	garbageFloor = 6 << 20
	// maxRecord bounds one encoded record. Longer lists of extents are split
	// over several.
	maxRecord = 64 << 10
)

// badgerOptions says how Badger is tuned, and why.
func badgerOptions(dir string, l *slog.Logger) badger.Options {
	o := badger.DefaultOptions(dir)
	o.Logger = badgerLog{l}
	o.MetricsEnabled = false
	o.ExternalMagicVersion = FormatVersion // the MANIFEST tells the format before anything is opened

	o.MemTableSize = memTable
	o.NumMemtables = 1 // one is filled, one waits, one is being flushed
	o.NumGoroutines = 1
	o.BaseTableSize = memTable
	o.ValueThreshold = 2 * maxRecord
	o.ValueLogFileSize = 1 << 20 // no value is ever large enough to go there
	o.VLogPercentile = 0

	// Without compression and encryption blocks are read in place from the
	// mapped tables: caches would be copies of the page cache.
	o.Compression = options.None
	o.BlockCacheSize, o.IndexCacheSize = 0, 0

	// There is one writer, and it never reads what it is about to write.
	o.DetectConflicts = false
	// The writer syncs whole groups itself, see syncFiles.
	o.SyncWrites = false

	// No compaction: it takes a multiple of the journal's size in memory,
	// its goroutines wake up twenty times a second for ever, and it goes on
	// without a table that it could not write. Tables stay where they were
	// flushed, and the whole generation is copied when much of it is garbage.
	o.NumCompactors = 0
	o.NumLevelZeroTablesStall = 1 << 30
	o.NumLevelZeroTables = 1<<30 - 1

	// The journal holds a lock of its own over all generations.
	o.BypassLockGuard = true
	return o
}

// badgerLog hands Badger's log lines to slog. What Badger calls information
// is of use to those who debug the journal only.
type badgerLog struct{ l *slog.Logger }

func (b badgerLog) log(level slog.Level, format string, args []any) {
	if !b.l.Enabled(context.Background(), level) {
		return
	}
	b.l.Log(context.Background(), level, "badger: "+strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (b badgerLog) Errorf(f string, args ...any)   { b.log(slog.LevelError, f, args) }
func (b badgerLog) Warningf(f string, args ...any) { b.log(slog.LevelWarn, f, args) }
func (b badgerLog) Infof(f string, args ...any)    { b.log(slog.LevelDebug, f, args) }
func (b badgerLog) Debugf(f string, args ...any)   { b.log(slog.LevelDebug, f, args) }

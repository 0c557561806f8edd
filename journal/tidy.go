package journal

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// tidier merges Badger's tables when there are some to merge, and sleeps
// otherwise. Deleted records and old versions go with it: this is all the
// garbage collection that the journal needs, because no value is large enough
// for Badger's value log.
type tidier struct {
	db   *badger.DB
	log  *slog.Logger
	wake chan struct{} // holds one token: a table may have been added
	idle chan struct{} // holds one token: a merge ended
	quit chan struct{}
	done chan struct{}
}

func startTidier(db *badger.DB, l *slog.Logger) *tidier {
	t := &tidier{
		db: db, log: l,
		wake: make(chan struct{}, 1), idle: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	go t.run()
	t.poke(t.wake)
	return t
}

func (t *tidier) poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (t *tidier) run() {
	defer close(t.done)
	for {
		select {
		case <-t.quit:
			return
		case <-t.wake:
		}
		if t.loose() >= compactAt {
			if err := t.db.Flatten(1); err != nil {
				t.log.Warn("journal: merging tables failed; trying again when there are more", "err", err)
			}
		}
		t.poke(t.idle)
	}
}

// loose is how many tables were flushed and not merged yet.
func (t *tidier) loose() int { return t.db.Levels()[0].NumTables }

// committed is called after each commit; rotated says that it began a new
// memtable, so that the one before becomes a table. It waits while merging
// is far behind.
func (t *tidier) committed(rotated bool, timeout time.Duration) error {
	if !rotated {
		return nil
	}
	t.poke(t.wake)
	if t.loose() < compactWait {
		return nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for t.loose() >= compactWait {
		t.poke(t.wake)
		select {
		case <-t.idle:
		case <-timer.C:
			return fmt.Errorf("merging tables: %w (waited %v)", ErrStalled, timeout)
		}
	}
	return nil
}

func (t *tidier) stop() {
	close(t.quit)
	<-t.done
}

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// errSwitch is a failure while CURRENT was changed. Which generation it names
// is not known then: both are whole, so both stay, and nothing more may be
// written into either.
var errSwitch = errors.New("changing CURRENT")

// maintain is called when Badger has flushed a table. It gives memory back
// and copies the generation if half of it may be garbage. A copy that fails
// leaves everything as it was, and is tried again when there is more.
func (w *writer) maintain() {
	evict(w.gen.dir)
	size := w.gen.tableBytes()
	if size < w.j.garbageFloor+2*w.gen.settled {
		return
	}
	err := w.rewrite(size)
	if errors.Is(err, ErrStalled) || errors.Is(err, errSwitch) {
		w.fail(err)
		return
	}
	if err != nil {
		w.j.log.Warn("journal: copying it without its garbage failed; it goes on as it is", "dir", w.j.dir, "err", err)
		w.gen.settled = size
	}
}

// rewrite copies all records into a new generation and makes it current.
func (w *writer) rewrite(size int64) error {
	start := time.Now()
	free, err := w.gen.space.free(w.j.dir)
	if err != nil {
		return err
	}
	if free < minFree+size {
		return fmt.Errorf("%d MiB are free on its disk, a copy needs %d", free>>20, (minFree+size)>>20)
	}
	n, err := strconv.Atoi(filepath.Base(w.gen.dir))
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%0*d", len(firstGeneration), n+1)
	dir := filepath.Join(w.j.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	next, err := openGeneration(dir, w.j.log)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	records, err := w.copyTo(next)
	if err == nil {
		err = within(w.j.stallTimeout, func() error { return syncFiles(dir, w.j.fsync) })
	}
	if errors.Is(err, ErrStalled) {
		return err // to close it would wait for the same disk
	}
	if err != nil {
		return errors.Join(err, next.db.Close(), os.RemoveAll(dir))
	}
	next.settled = next.tableBytes()
	err = within(w.j.stallTimeout, func() error { return setCurrent(w.j.dir, name, next.settled, w.j.fsync) })
	if err != nil {
		if !errors.Is(err, ErrStalled) {
			err = errors.Join(err, within(w.j.stallTimeout, next.db.Close))
		}
		return fmt.Errorf("%w: %w", errSwitch, err)
	}
	w.gen = next
	w.j.current.replace(next, func(before *generation) {
		if err := errors.Join(before.db.Close(), os.RemoveAll(before.dir)); err != nil {
			w.j.log.Warn("journal: removing what was copied", "dir", before.dir, "err", err)
		}
	})
	w.j.log.Debug("journal: copied without its garbage", "records", records, "before", size, "after", next.settled,
		"took", time.Since(start))
	return nil
}

// copyTo copies all records into next and counts them there.
func (w *writer) copyTo(next *generation) (records int, err error) {
	var txn *badger.Txn
	var room int64
	defer func() {
		if txn != nil {
			txn.Discard()
		}
	}()
	commit := func() error {
		if txn == nil {
			return nil
		}
		t := txn
		txn = nil
		rotated, err := next.commit(t, room, w.j.stallTimeout)
		room = 0
		if rotated {
			evict(w.j.dir) // of both
		}
		return err
	}
	err = eachRecord(w.gen.db, func(item *badger.Item) error {
		k := item.KeyCopy(nil)
		v, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		if txn == nil {
			txn = next.db.NewTransaction(true)
		}
		err = txn.Set(k, v)
		if errors.Is(err, badger.ErrTxnTooBig) {
			if err := commit(); err != nil {
				return err
			}
			txn = next.db.NewTransaction(true)
			err = txn.Set(k, v)
		}
		room += int64(len(k)+len(v)) + entryRoom
		records++
		return err
	})
	if err == nil {
		err = commit()
	}
	if err != nil {
		return 0, err
	}
	there := 0
	err = eachRecord(next.db, func(*badger.Item) error { there++; return nil })
	if err == nil && there != records {
		err = fmt.Errorf("%d of %d records were copied", there, records)
	}
	return records, err
}

func eachRecord(db *badger.DB, fn func(*badger.Item) error) error {
	return db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := fn(it.Item()); err != nil {
				return err
			}
		}
		return nil
	})
}

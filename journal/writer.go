package journal

import (
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// writer is the one goroutine that changes the database. All its fields are
// its own.
type writer struct {
	j   *Journal
	gen *generation // what the journal consists of now
	txn *badger.Txn
	// room is what the transaction takes in the memtable, at most.
	room int64
	// fresh holds, per session, the keys that the open transaction sets and
	// that a scan of the database cannot see yet.
	fresh map[string][][]byte
	// spilled holds the sessions that have extents records.
	spilled map[string]bool
	// rotated is set when a log was filled since the last look at the garbage,
	// and at the start.
	rotated bool
}

func (w *writer) run() {
	defer close(w.j.written)
	for {
		c := w.j.queue.take()
		if c == nil {
			return
		}
		// A group that was filled before the journal failed may not follow a
		// lost one: records would be in the journal without what they build on.
		if err := w.j.queue.failure(); err != nil {
			c.finish(err)
			continue
		}
		err := w.write(c)
		if err != nil {
			err = w.fail(err)
		}
		ops := c.ops
		c.finish(err)
		w.j.queue.recycle(ops)
		if w.rotated && err == nil {
			w.rotated = false
			w.maintain()
		}
	}
}

// fail ends all writing with err, and says so once.
func (w *writer) fail(err error) error {
	err = fmt.Errorf("journal %s: %w", w.j.dir, err)
	if w.j.queue.fail(err) {
		w.j.log.Error("journal: write failed; nothing more is recorded until the next start", "dir", w.j.dir, "err", err)
	}
	return err
}

// write brings one group into the database.
func (w *writer) write(c *Commit) error {
	defer w.discard()
	for i := range c.ops {
		if err := w.apply(&c.ops[i]); err != nil {
			return err
		}
	}
	if err := w.commit(); err != nil {
		return err
	}
	if !c.sync && !w.j.syncWrites {
		return nil
	}
	start, dir := time.Now(), w.gen.dir
	if err := within(w.j.stallTimeout, func() error { return syncFiles(dir, w.j.fsync) }); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	w.j.observer.Synced(time.Since(start))
	return nil
}

func (w *writer) apply(o *op) error {
	switch o.what {
	case opPut, opPart:
		for i, k := range o.keys {
			if err := w.set(o.id, k, o.vals[i]); err != nil {
				return err
			}
		}
		if o.what == opPart {
			return nil
		}
		w.j.sessions.add(o.id)
		if w.spilled[o.id] {
			if err := w.deleteExtents(o.id, o.gen); err != nil {
				return err
			}
		}
		if delete(w.spilled, o.id); o.gen != 0 {
			w.spilled[o.id] = true
		}
		return nil
	case opDrop:
		for _, k := range o.keys {
			if err := w.delete(k); err != nil {
				return err
			}
		}
		return nil
	case opOrphans:
		if w.j.sessions.has(o.id) {
			return nil // it was put again meanwhile
		}
		return w.deletePrefix(o.id)
	case opDelete:
		// The session's record first: what is left of the others after a
		// crash has no session then, and is dropped.
		if err := w.delete(sessionKey(o.id)); err != nil {
			return err
		}
		w.j.sessions.remove(o.id)
		delete(w.spilled, o.id)
		return w.deletePrefix(o.id)
	}
	return fmt.Errorf("operation %d is not known", o.what)
}

// entryRoom is what Badger adds to a key and a value in a memtable, at most.
const entryRoom = 128

func (w *writer) set(id string, k, v []byte) error {
	err := w.modify(int64(len(k)+len(v)), func() error { return w.txn.Set(k, v) })
	if err == nil {
		w.fresh[id] = append(w.fresh[id], k)
	}
	return err
}

func (w *writer) delete(k []byte) error {
	return w.modify(int64(len(k)), func() error { return w.txn.Delete(k) })
}

// modify makes one change; where the transaction is full it commits it first.
func (w *writer) modify(size int64, change func() error) error {
	if w.txn == nil {
		w.begin()
	}
	err := change()
	if errors.Is(err, badger.ErrTxnTooBig) {
		if err := w.commit(); err != nil {
			return err
		}
		w.begin()
		err = change()
	}
	w.room += size + entryRoom
	return err
}

func (w *writer) begin() {
	w.txn = w.gen.db.NewTransaction(true)
	w.room = 0
	w.fresh = make(map[string][][]byte)
}

func (w *writer) discard() {
	if w.txn != nil {
		w.txn.Discard()
		w.txn = nil
	}
}

// commit ends the open transaction.
func (w *writer) commit() error {
	if w.txn == nil {
		return nil
	}
	txn := w.txn
	w.txn = nil
	rotated, err := w.gen.commit(txn, w.room, w.j.stallTimeout)
	w.rotated = w.rotated || rotated
	return err
}

// deletePrefix deletes all that is recorded under the session's ID.
func (w *writer) deletePrefix(id string) error {
	return w.deleteWhere(id, prefix(id, 0), func(keyParts) bool { return true })
}

// deleteExtents deletes the session's extents records but those of generation keep.
func (w *writer) deleteExtents(id string, keep uint64) error {
	return w.deleteWhere(id, append(prefix(id, 1), kindExtents), func(p keyParts) bool { return p.gen != keep })
}

func (w *writer) deleteWhere(id string, pre []byte, want func(keyParts) bool) error {
	fresh := w.fresh[id] // before the deletions begin: they may start a new transaction
	if w.txn == nil {
		fresh = nil
	}
	view := w.gen.db.NewTransaction(false)
	defer view.Discard()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false
	o.Prefix = pre
	it := view.NewIterator(o)
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		k := it.Item().KeyCopy(nil)
		if p, err := parseKey(k); err == nil && !want(p) {
			continue
		}
		if err := w.delete(k); err != nil {
			return err
		}
	}
	for _, k := range fresh {
		if p, err := parseKey(k); err != nil || len(k) < len(pre) || string(k[:len(pre)]) != string(pre) || !want(p) {
			continue
		}
		if err := w.delete(k); err != nil {
			return err
		}
	}
	return nil
}

package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/dgraph-io/badger/v4"
)

// Load returns all sessions with their parts, ordered by session ID. A record
// that cannot be read ends it with *CorruptError or *FormatError.
//
// Parts and extents without a session (a Delete that was cut off by a crash)
// are left out, counted in Stats.Orphans and deleted.
func (j *Journal) Load(ctx context.Context) ([]Entry, error) {
	var all []Entry
	err := j.Walk(ctx, func(e Entry) error {
		all = append(all, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Walk is Load for those who need one session at a time: it calls fn with
// each, ordered by ID, as they were when Walk began, and ends with the first
// error. fn may call the journal, but not Close.
func (j *Journal) Walk(ctx context.Context, fn func(Entry) error) error {
	j.observer.Op("load")
	return j.walk(ctx, fn, func(err error) error { return err })
}

// Check reads every record and returns what is wrong with which: errors of
// type *CorruptError and *FormatError. The error is of the reading itself.
func (j *Journal) Check(ctx context.Context) (damage []error, err error) {
	err = j.walk(ctx, func(Entry) error { return nil }, func(err error) error {
		damage = append(damage, err)
		return nil
	})
	return damage, err
}

// Get returns one session with its parts, ErrNotFound if there is none.
func (j *Journal) Get(ctx context.Context, id string) (Entry, error) {
	j.observer.Op("get")
	if err := checkID(id); err != nil {
		return Entry{}, err
	}
	var found *Entry
	r := &reader{j: j, fn: func(e Entry) error { found = &e; return nil }, bad: func(err error) error { return err }}
	if err := r.run(ctx, prefix(id, 0)); err != nil {
		return Entry{}, err
	}
	if found == nil {
		return Entry{}, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return *found, nil
}

func (j *Journal) walk(ctx context.Context, fn func(Entry) error, bad func(error) error) error {
	r := &reader{j: j, fn: fn, bad: bad, orphans: make(map[string]int)}
	err := r.run(ctx, sessionPrefix)
	evict(j.dir)
	if err != nil {
		return err
	}
	j.dropOrphans(r.orphans)
	return nil
}

// dropOrphans has the writer delete what belongs to no session, unless that
// was put meanwhile.
func (j *Journal) dropOrphans(orphans map[string]int) {
	for _, id := range slices.Sorted(maps.Keys(orphans)) {
		j.orphans.Add(int64(orphans[id]))
		j.log.Warn("journal: records without a session dropped", "session", id, "records", orphans[id])
		j.queue.add(&op{what: opOrphans, id: id}, false)
	}
}

// reader goes over records in key order and puts sessions together.
type reader struct {
	j       *Journal
	fn      func(Entry) error
	bad     func(error) error // of a damaged record; nil goes on without it
	orphans map[string]int    // records without a session, by its ID; may be nil

	cur    *Entry // the session whose records are being read
	damned string // ID of a session whose own record is damaged
	spill  *spill // where the extents of cur are
	chunks int    // how many of them were read
}

func (r *reader) run(ctx context.Context, pre []byte) error {
	g, err := r.j.current.acquire()
	if err != nil {
		return err
	}
	defer g.readers.Done()
	if err := r.stop(ctx); err != nil {
		return err
	}
	view := g.db.NewTransaction(false)
	defer view.Discard()
	o := badger.DefaultIteratorOptions
	o.PrefetchValues = false // values stand beside their keys
	o.Prefix = pre
	it := view.NewIterator(o)
	defer it.Close()
	n := 0
	for it.Rewind(); it.Valid(); it.Next() {
		if n++; n%1024 == 0 {
			if err := r.stop(ctx); err != nil {
				return err
			}
		}
		item := it.Item()
		err := item.Value(func(v []byte) error { return r.record(item.Key(), v) })
		var walk *walkError
		if errors.As(err, &walk) {
			return walk.err
		}
		if err != nil {
			if err := r.bad(r.j.recordError(item.Key(), err)); err != nil {
				return err
			}
		}
	}
	return r.unwrap(r.flush())
}

func (r *reader) stop(ctx context.Context) error {
	select {
	case <-r.j.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	default:
		return nil
	}
}

// walkError is an error of fn or bad: it ends the walk as it is.
type walkError struct{ err error }

func (e *walkError) Error() string { return e.err.Error() }

func (r *reader) unwrap(err error) error {
	var w *walkError
	if errors.As(err, &w) {
		return w.err
	}
	return err
}

// record takes one record; an error that is not a *walkError is the record's.
func (r *reader) record(key, val []byte) error {
	k, err := parseKey(key)
	if err != nil {
		return err
	}
	if k.kind == kindSession {
		if err := r.flush(); err != nil {
			return err
		}
		s, sp, err := decodeSession(val)
		if err == nil && s.ID != k.id {
			err = fmt.Errorf("record is of session %s", s.ID)
		}
		if err != nil {
			r.damned = k.id
			return err
		}
		r.cur, r.spill, r.chunks = &Entry{Session: s}, sp, 0
		return nil
	}
	if r.cur == nil || r.cur.Session.ID != k.id {
		if r.orphans != nil && r.damned != k.id {
			r.orphans[k.id]++
		}
		return nil
	}
	if k.kind == kindPart {
		p, err := decodePart(val, k.number)
		if err == nil {
			r.cur.Parts = append(r.cur.Parts, p)
		}
		return err
	}
	if r.spill == nil || r.spill.Gen != k.gen {
		return nil // of a Put that was cut off, or of one that was replaced
	}
	if k.n != r.chunks {
		return fmt.Errorf("extents record %d follows %d", k.n, r.chunks-1)
	}
	r.chunks++
	return decodeExtents(val, &r.cur.Session)
}

// flush hands the session that was read to fn.
func (r *reader) flush() error {
	e := r.cur
	if e == nil {
		return nil
	}
	r.cur = nil
	if r.spill != nil && r.chunks != r.spill.Records {
		err := r.j.recordError(sessionKey(e.Session.ID), fmt.Errorf("%d of %d extents records are there", r.chunks, r.spill.Records))
		if err := r.bad(err); err != nil {
			return &walkError{err}
		}
		return nil
	}
	if err := r.fn(*e); err != nil {
		return &walkError{err}
	}
	return nil
}

// scanIDs fills j.sessions and notes the sessions that have extents records.
// It reports whether the database holds nothing at all.
func (j *Journal) scanIDs(db *badger.DB, spilled map[string]bool) (empty bool, err error) {
	empty = true
	err = db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); {
			empty = false
			k, err := parseKey(it.Item().Key())
			if err != nil {
				it.Next()
				continue
			}
			switch k.kind {
			case kindSession:
				j.sessions.add(k.id)
				it.Next()
			case kindExtents:
				spilled[k.id] = true
				it.Seek(append(prefix(k.id, 1), kindPart))
			default:
				it.Seek(append(prefix(k.id, 1), kindPart+1))
			}
		}
		return nil
	})
	return empty, err
}

package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Journal is an open journal. Its methods are safe for concurrent use.
type Journal struct {
	dir          string
	log          *slog.Logger
	observer     Observer
	syncWrites   bool
	stallTimeout time.Duration
	garbageFloor int64
	fsync        func(*os.File) error // (*os.File).Sync; tests record or fail it

	lock     *dirLock
	queue    *queue
	sessions ids
	written  chan struct{} // closed when the writer has ended
	orphans  atomic.Int64
	gen      atomic.Uint64 // of the newest extents records

	closing  chan struct{} // closed when Close has drained the queue: readers end
	current  current
	once     sync.Once
	closeErr error
}

// Open opens the journal in dir, which is made (mode 0700) if it is not there.
//
// It answers *LockedError if another process has it open, *FormatError if a
// newer wholefs wrote it, *CorruptError if it cannot be trusted, and the
// operating system's error otherwise.
func Open(dir string, o Options) (*Journal, error) {
	o.setDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		garbageFloor: o.garbageFloor,
		dir:          dir, log: o.Logger, observer: o.Observer, syncWrites: o.SyncWrites, stallTimeout: o.StallTimeout,
		fsync: (*os.File).Sync, lock: lock, queue: newQueue(),
		written: make(chan struct{}), closing: make(chan struct{}),
	}
	if err := j.open(); err != nil {
		lock.leave()
		return nil, err
	}
	return j, nil
}

func (j *Journal) open() error {
	name, settled, err := currentGeneration(j.dir, j.fsync)
	if err != nil {
		return err
	}
	dir := filepath.Join(j.dir, name)
	if err := preflight(j.dir, name, j.lock.crashed, j.log); err != nil {
		return err
	}
	if err := j.lock.settle(); err != nil {
		return err
	}
	if err := removeOthers(j.dir, name); err != nil {
		return err
	}
	if err := roomToOpen(j.dir, freeSpace); err != nil {
		return err
	}
	g, err := openGeneration(dir, j.log)
	if err != nil {
		return err
	}
	w := &writer{j: j, gen: g, spilled: make(map[string]bool), rotated: true}
	j.gen.Store(uint64(time.Now().UnixNano()))
	empty, err := j.scanIDs(g.db, w.spilled)
	if err == nil {
		err = j.settleFormat(g, empty)
	}
	if err != nil {
		if cerr := g.db.Close(); cerr != nil {
			err = errors.Join(err, cerr)
		}
		return err
	}
	g.settled = settled
	j.current.set(g)
	go w.run()
	return nil
}

// settleFormat checks the format record, and writes it into a new journal.
func (j *Journal) settleFormat(g *generation, empty bool) error {
	var rec []byte
	err := g.db.View(func(txn *badger.Txn) error {
		item, err := txn.Get(formatKey)
		if err != nil {
			return err
		}
		rec, err = item.ValueCopy(nil)
		return err
	})
	switch {
	case errors.Is(err, badger.ErrKeyNotFound) && empty:
		err := g.db.Update(func(txn *badger.Txn) error { return txn.Set(formatKey, encodeFormat(FormatVersion)) })
		if err == nil {
			err = syncFiles(g.dir, j.fsync)
		}
		if err != nil {
			return fmt.Errorf("journal %s: %w", j.dir, err)
		}
		return nil
	case errors.Is(err, badger.ErrKeyNotFound):
		return &CorruptError{Dir: j.dir, Offset: -1, Key: string(formatKey), Err: errors.New("the format record is missing")}
	case err != nil:
		return fmt.Errorf("journal %s: %w", j.dir, err)
	}
	v, err := decodeFormat(rec)
	if err != nil {
		return j.recordError(formatKey, err)
	}
	if v > FormatVersion {
		return &FormatError{Dir: j.dir, What: "journal format", Found: v, Supported: FormatVersion}
	}
	return nil
}

// recordError says what is wrong with the record of a key.
func (j *Journal) recordError(key []byte, err error) error {
	var v *versionError
	if errors.As(err, &v) {
		return &FormatError{Dir: j.dir, What: v.kind + " record (" + keyString(key) + ")", Found: v.version, Supported: recordVersion}
	}
	return &CorruptError{Dir: j.dir, Offset: -1, Key: keyString(key), Err: err}
}

// Put records a session, in place of what was recorded of it before; its
// parts stay. A session is put before its first part.
func (j *Journal) Put(s Session) *Commit {
	j.observer.Op("put")
	if err := s.check(); err != nil {
		return j.refuse(err)
	}
	o := &op{what: opPut, id: s.ID}
	var sp *spill
	if len(s.Holes)+len(s.Written) > inlineExtents {
		recs := encodeExtents(&s)
		o.gen = j.gen.Add(1)
		sp = &spill{Gen: o.gen, Records: len(recs)}
		for i, rec := range recs {
			o.keys, o.vals = append(o.keys, extentsKey(s.ID, o.gen, i)), append(o.vals, rec)
		}
	}
	rec, err := encodeSession(&s, sp)
	if err != nil {
		return j.refuse(err)
	}
	o.keys, o.vals = append(o.keys, sessionKey(s.ID)), append(o.vals, rec)
	return j.queue.add(o, false)
}

// PutPart records a part of the session, in place of what was recorded of the
// part before.
func (j *Journal) PutPart(sessionID string, p Part) *Commit {
	j.observer.Op("put_part")
	if err := p.check(sessionID); err != nil {
		return j.refuse(err)
	}
	return j.queue.add(&op{what: opPart, id: sessionID,
		keys: [][]byte{partKey(sessionID, p.Number)}, vals: [][]byte{encodePart(&p)}}, false)
}

// DropParts removes the records of the numbered parts; those that are not
// there are passed over.
func (j *Journal) DropParts(sessionID string, parts ...int64) *Commit {
	j.observer.Op("drop_parts")
	o := &op{what: opDrop, id: sessionID, keys: make([][]byte, 0, len(parts))}
	if err := checkID(sessionID); err != nil {
		return j.refuse(err)
	}
	for _, n := range parts {
		if n < 0 {
			return j.refuse(fmt.Errorf("%w: part %d of session %s", ErrInvalid, n, sessionID))
		}
		o.keys = append(o.keys, partKey(sessionID, n))
	}
	return j.queue.add(o, false)
}

// Delete removes the session and all its parts. It is not an error if there
// is none.
func (j *Journal) Delete(sessionID string) *Commit {
	j.observer.Op("delete")
	if err := checkID(sessionID); err != nil {
		return j.refuse(err)
	}
	return j.queue.add(&op{what: opDelete, id: sessionID}, false)
}

// refuse answers a call that asks for something that cannot be recorded. It
// is logged, for callers that do not wait.
func (j *Journal) refuse(err error) *Commit {
	j.log.Error("journal: record refused", "err", err)
	return failed(err)
}

// Sync returns when all that was written before the call is durable: it
// survives a power loss. With ctx done it returns ctx's error, and the sync
// goes on.
func (j *Journal) Sync(ctx context.Context) error {
	j.observer.Op("sync")
	return j.queue.add(nil, true).Wait(ctx)
}

// Stats is what the journal takes, for people and metrics.
type Stats struct {
	DiskBytes   int64 // allocated on disk
	MemoryBytes int64 // of Badger's tables in memory and of mapped logs: an estimate, an upper bound
	Sessions    int   // recorded now
	Orphans     int64 // records without a session, dropped by Load since Open
}

// Stats counts; it reads the directory and is cheap enough for each scrape.
func (j *Journal) Stats() Stats {
	disk, _, logs, err := usage(j.dir)
	if err != nil {
		j.log.Debug("journal: stats", "err", err)
	}
	return Stats{DiskBytes: disk, MemoryBytes: int64(logs) * 2 * memTableAlloc,
		Sessions: j.sessions.len(), Orphans: j.orphans.Load()}
}

// Close writes what is queued, closes the database and gives the journal
// free for the next process, all before it returns. It returns the error that
// ended the writing, if one did. Later calls return the same.
func (j *Journal) Close() error {
	j.once.Do(func() { j.closeErr = j.close() })
	return j.closeErr
}

func (j *Journal) close() error {
	j.queue.close()
	<-j.written
	close(j.closing)
	// Badger waits for a disk that fails, perhaps for ever; the lock then ends
	// with the process.
	err := within(j.stallTimeout, func() error { return errors.Join(j.current.close(), j.lock.release()) })
	if err != nil {
		err = fmt.Errorf("journal %s: close: %w", j.dir, err)
	}
	return errors.Join(j.queue.failure(), err)
}

// ids is the set of recorded sessions.
type ids struct {
	mu sync.Mutex
	m  map[string]struct{}
}

func (s *ids) add(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[string]struct{})
	}
	s.m[id] = struct{}{}
}

func (s *ids) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
}

func (s *ids) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.m[id]
	return ok
}

func (s *ids) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.m)
}

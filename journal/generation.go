package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// The journal's directory holds one Badger database, in a directory of its
// own whose name the file CURRENT holds. Changed and deleted records leave
// garbage in it. When there is as much garbage as there may be, the records
// are copied into a new database, CURRENT is renamed into place with its
// name, and the old one is removed: at every moment CURRENT names a whole one.
const (
	currentFile     = "CURRENT"
	firstGeneration = "000001"
)

// generation is one such database, open.
type generation struct {
	dir   string
	db    *badger.DB
	space *space
	// settled is what its tables took when they held no garbage, in bytes.
	// CURRENT keeps it: garbage must not pass for records after a restart.
	settled int64
	readers sync.WaitGroup
}

// current hands the current generation to readers. One that was replaced
// stays open until its last reader is done.
type current struct {
	mu  sync.Mutex
	gen *generation // nil when the journal is closed
	old sync.WaitGroup
}

// acquire returns the current generation; the caller calls readers.Done on it.
func (c *current) acquire() (*generation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen == nil {
		return nil, ErrClosed
	}
	c.gen.readers.Add(1)
	return c.gen, nil
}

// set makes g current, and returns what was before.
func (c *current) set(g *generation) *generation {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.gen
	c.gen = g
	return before
}

// replace makes g current, and calls done when nobody reads the one before
// any more.
func (c *current) replace(g *generation, done func(before *generation)) {
	before := c.set(g)
	c.old.Go(func() {
		before.readers.Wait()
		done(before)
	})
}

// close closes the current generation when nobody reads it any more.
func (c *current) close() error {
	g := c.set(nil)
	g.readers.Wait()
	c.old.Wait()
	return g.db.Close()
}

func openGeneration(dir string, l *slog.Logger) (*generation, error) {
	db, err := badger.Open(badgerOptions(dir, l))
	if err != nil {
		return nil, openError(dir, err)
	}
	sp, err := newSpace(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), db.Close())
	}
	return &generation{dir: dir, db: db, space: sp}, nil
}

// tableBytes is what the tables take: all records but those in memory.
func (g *generation) tableBytes() (n int64) {
	for _, l := range g.db.Levels() {
		n += l.Size
	}
	return n
}

// commit ends a transaction that takes room bytes at most, and reports
// whether a new log was begun with it. It does not wait for Badger longer
// than timeout: Badger retries a full or failing disk for ever.
func (g *generation) commit(txn *badger.Txn, room int64, timeout time.Duration) (rotated bool, err error) {
	if err := g.space.reserve(room); err != nil {
		txn.Discard()
		return false, err
	}
	if err := within(timeout, txn.Commit); err != nil {
		return false, fmt.Errorf("commit: %w", err)
	}
	return g.space.used(room), nil
}

// within runs f and returns its error, or ErrStalled when it takes longer than
// d; f then goes on by itself.
func within(d time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%w (waited %v)", ErrStalled, d)
	}
}

// currentGeneration returns the name of the database in dir, and what its
// tables took when they held no garbage. A new journal is begun with its
// name: what a crash leaves behind then is an empty journal.
func currentGeneration(dir string, fsync func(*os.File) error) (name string, settled int64, err error) {
	b, err := os.ReadFile(filepath.Join(dir, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		old, err := generations(dir)
		if err != nil {
			return "", 0, err
		}
		if len(old) > 0 {
			return "", 0, &CorruptError{Dir: dir, File: currentFile, Offset: -1, Err: fmt.Errorf("it is missing, but %s is there", old[0])}
		}
		if err := setCurrent(dir, firstGeneration, 0, fsync); err != nil {
			return "", 0, fmt.Errorf("journal: %w", err)
		}
		b = currentContent(firstGeneration, 0)
	} else if err != nil {
		return "", 0, fmt.Errorf("journal: %w", err)
	}
	_, err = fmt.Sscanf(string(b), "%s %d\n", &name, &settled)
	if err != nil || !isGeneration(name) || settled < 0 || string(currentContent(name, settled)) != string(b) {
		return "", 0, &CorruptError{Dir: dir, File: currentFile, Offset: 0, Err: fmt.Errorf("it does not name a database: %.40q", b)}
	}
	err = os.Mkdir(filepath.Join(dir, name), 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return "", 0, fmt.Errorf("journal: %w", err)
	case name != firstGeneration:
		_ = os.Remove(filepath.Join(dir, name))
		return "", 0, &CorruptError{Dir: dir, File: name, Offset: -1, Err: errors.New("the database that CURRENT names is missing")}
	}
	return name, settled, nil
}

func currentContent(name string, settled int64) []byte {
	return fmt.Appendf(nil, "%s %d\n", name, settled)
}

// isGeneration reports whether a name is one: six digits or more.
func isGeneration(name string) bool {
	for _, c := range []byte(name) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(name) >= len(firstGeneration) && len(name) < 18
}

// generations lists the databases in dir.
func generations(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && isGeneration(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// setCurrent makes name the current database, durably and at once.
func setCurrent(dir, name string, settled int64, fsync func(*os.File) error) error {
	tmp := filepath.Join(dir, currentFile+".new")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(currentContent(name, settled))
	if err == nil {
		err = fsync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, currentFile))
	}
	if err == nil {
		err = syncDir(dir, fsync)
	}
	return err
}

// removeOthers removes the databases that CURRENT does not name: one that was
// being copied into, or one that was copied from, when the daemon died.
func removeOthers(dir, current string) error {
	names, err := generations(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == current {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

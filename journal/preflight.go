package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

const (
	manifestFile = "MANIFEST"
	// badgerVersion is the version of Badger's own files that it reads.
	badgerVersion = 8
)

// preflight looks at Badger's files before Badger does. Where one is damaged
// or missing, Badger ends the process (a table's index), deletes what is left
// (no MANIFEST), or goes on without the data and a log line (a table's
// blocks, the middle of a log). crashed says that the machine went down since
// the journal was last open, so that logs may have lost what was not synced.
func preflight(journal, name string, crashed bool, l *slog.Logger) error {
	err := checkFiles(filepath.Join(journal, name), crashed, l)
	var corrupt *CorruptError
	var format *FormatError
	switch {
	case errors.As(err, &corrupt):
		corrupt.Dir, corrupt.File = journal, filepath.Join(name, corrupt.File)
	case errors.As(err, &format):
		format.Dir = journal
	}
	return err
}

func checkFiles(dir string, crashed bool, l *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	tables, err := checkManifest(dir, entries)
	if err != nil {
		return err
	}
	if err := checkRegistry(dir); err != nil {
		return err
	}
	for _, id := range tables {
		if err := checkTable(dir, id); err != nil {
			return err
		}
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasSuffix(name, walSuffix):
			err = checkLog(dir, name, crashed, l)
		case strings.HasSuffix(name, valueSuffix):
			err = checkValueLog(dir, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkManifest returns the numbers of the tables that the MANIFEST lists.
func checkManifest(dir string, entries []os.DirEntry) ([]uint64, error) {
	damaged := func(err error) error {
		return &CorruptError{Dir: dir, File: manifestFile, Offset: -1, Err: err}
	}
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), walSuffix) || strings.HasSuffix(e.Name(), tableSuffix) {
				return nil, damaged(fmt.Errorf("it is missing, but %s is there", e.Name()))
			}
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	var head [8]byte
	if n, _ := f.ReadAt(head[:], 0); n < len(head) || string(head[:4]) != "Bdgr" {
		return nil, damaged(errors.New("it does not begin as a manifest does"))
	}
	ours, theirs := int(binary.BigEndian.Uint16(head[4:])), int(binary.BigEndian.Uint16(head[6:]))
	switch {
	case ours > FormatVersion:
		return nil, &FormatError{Dir: dir, What: "journal format", Found: ours, Supported: FormatVersion}
	case theirs > badgerVersion:
		return nil, &FormatError{Dir: dir, What: "Badger's file format", Found: theirs, Supported: badgerVersion}
	case ours != FormatVersion || theirs != badgerVersion:
		return nil, damaged(fmt.Errorf("it is not of a wholefs journal (versions %d and %d)", ours, theirs))
	}
	m, _, err := badger.ReplayManifestFile(f, FormatVersion, badgerOptions(dir, slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, damaged(err)
	}
	return slices.Sorted(maps.Keys(m.Tables)), nil
}

// checkRegistry reads Badger's list of encryption keys, which is empty.
func checkRegistry(dir string) error {
	name := filepath.Join(dir, badger.KeyRegistryFileName)
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r, err := badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: dir, ReadOnly: true})
	if err != nil {
		return &CorruptError{Dir: dir, File: filepath.Base(name), Offset: -1, Err: err}
	}
	return r.Close()
}

// checkTable reads a whole table and verifies the checksums of its index and
// of its blocks.
func checkTable(dir string, id uint64) error {
	path := table.NewFilename(id, dir)
	damaged := func(off int, err error) error {
		return &CorruptError{Dir: dir, File: filepath.Base(path), Offset: int64(off), Err: err}
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return damaged(-1, errors.New("the file is missing"))
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if off, err := checkTableEnd(data); err != nil {
		return damaged(off, err)
	}
	if err := readTable(id, data); err != nil {
		return damaged(-1, err)
	}
	return nil
}

// checkTableEnd checks the lengths at the end of a table: index, its length,
// checksum, its length. Badger takes them on trust.
func checkTableEnd(data []byte) (off int, err error) {
	rest := len(data)
	for _, what := range []string{"checksum", "index"} {
		if rest < 4 {
			return rest, fmt.Errorf("the table's %s is cut off", what)
		}
		rest -= 4
		n := binary.BigEndian.Uint32(data[rest:])
		if int64(n) > int64(rest) || (what == "index" && n == 0) {
			return rest, fmt.Errorf("the table's %s has %d bytes, %d are there", what, n, rest)
		}
		rest -= int(n)
	}
	return 0, nil
}

// readTable opens a table from memory and verifies it. Badger panics over
// damage that it does not expect; here that is an error like another.
func readTable(id uint64, data []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("the table cannot be read: its index or a block does not match its checksum")
		}
	}()
	o := badgerOptions("", nil)
	t, err := table.OpenInMemoryTable(data, id, &table.Options{
		BlockSize: o.BlockSize, BloomFalsePositive: o.BloomFalsePositive, Compression: o.Compression,
	})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}

// checkLog looks at a memtable's log. What is not a whole transaction at its
// end is what a kill leaves, and is dropped. Damage before whole transactions
// is damage, unless the machine went down: then unsynced pages of the file
// are gone in no order, and what follows them is dropped with a warning.
func checkLog(dir, name string, crashed bool, l *slog.Logger) error {
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if len(data) == 0 {
		return removeStub(path)
	}
	s := scanLog(data)
	switch {
	case s.tail == 0:
		return nil
	case s.lost == 0:
		l.Debug("journal: an unfinished transaction was dropped", "file", name, "offset", s.end, "bytes", s.tail)
	case crashed:
		l.Warn("journal: the machine went down before these records were synced; they are lost",
			"file", name, "offset", s.end, "transactions", s.lost, "bytes", s.tail)
	default:
		return &CorruptError{Dir: dir, File: name, Offset: int64(s.end),
			Err: fmt.Errorf("%d whole transactions stand behind bytes that are none", s.lost)}
	}
	return cutLog(path, s.end)
}

// cutLog makes Badger's reading end at the given offset: it would trust the
// lengths that stand there, however large.
func cutLog(path string, end int) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(int64(end)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// checkValueLog wants Badger's value log to be empty: no value of ours is
// long enough to go there.
func checkValueLog(dir, name string) error {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if len(data) == 0 {
		return removeStub(filepath.Join(dir, name))
	}
	for i := logHeader; i < len(data); i++ {
		if data[i] != 0 {
			return &CorruptError{Dir: dir, File: name, Offset: int64(i), Err: errors.New("the value log is not empty")}
		}
	}
	return nil
}

// removeStub removes an empty file that a kill between two system calls left:
// Badger would not open with it.
func removeStub(path string) error {
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// openError says what Badger's refusal to open means.
func openError(dir string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fmt.Errorf("journal %s: %w", dir, err)
	}
	return &CorruptError{Dir: dir, Offset: -1, Err: err}
}

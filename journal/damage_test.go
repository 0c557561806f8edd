package journal

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/stretchr/testify/require"
)

// copyDir copies a journal's directory.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(from)))
	return to
}

func glob(t testing.TB, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	require.NoError(t, err)
	require.NotEmpty(t, names, pattern)
	return names[0]
}

// edit changes a file's content.
func edit(t testing.TB, name string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, change(b), 0o600))
}

func flip(off int) func([]byte) []byte {
	return func(b []byte) []byte { b[off] ^= 0x10; return b }
}

// closedJournal makes a journal with tables, cleanly closed.
func closedJournal(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "journal")
	j, err := Open(dir, Options{})
	require.NoError(t, err)
	for i := range 20 {
		id := fmt.Sprintf("%04d", i)
		j.Put(session(id))
		for p := range int64(30) {
			j.PutPart(id, part(p))
		}
	}
	require.NoError(t, j.Close())
	return dir
}

// killedJournal makes a journal with a log of n parts, each in a transaction
// of its own, as a kill leaves it.
func killedJournal(t testing.TB, n int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "journal")
	j := mustOpen(t, dir, Options{})
	require.NoError(t, j.Put(session("a")).Wait(t.Context()))
	for i := range n {
		require.NoError(t, j.PutPart("a", part(int64(i))).Wait(t.Context()))
	}
	return copyDir(t, dir) // the lock is not copied: it belongs to the directory
}

// txnEnds returns the offsets behind each transaction of a log.
func txnEnds(b []byte) (ends []int) {
	for off := logHeader; ; {
		e, ok := readLogEntry(b[off:])
		if !ok {
			return ends
		}
		if off += e.size; e.meta&bitTxnEnd != 0 {
			ends = append(ends, off)
		}
	}
}

func TestDamagedFiles(t *testing.T) {
	closed, killed := closedJournal(t), killedJournal(t, 10)
	const gen = firstGeneration + "/"
	wal := func(t *testing.T, dir string) string { return glob(t, dir, gen+"*"+walSuffix) }
	for name, c := range map[string]struct {
		from   string
		damage func(t *testing.T, dir string)
		file   string
		says   string
	}{
		"CURRENT is gone": {closed, func(t *testing.T, dir string) { require.NoError(t, os.Remove(dir+"/CURRENT")) },
			"CURRENT", "it is missing"},
		"CURRENT is empty": {closed, func(t *testing.T, dir string) { require.NoError(t, os.Truncate(dir+"/CURRENT", 0)) },
			"CURRENT", "does not name"},
		"CURRENT leads out": {closed, func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/CURRENT", []byte("../000001 0\n"), 0o600))
		}, "CURRENT", "does not name"},
		"generation is gone": {closed, func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/CURRENT", []byte("000007 0\n"), 0o600))
		}, "000007", "is missing"},
		"MANIFEST is gone, with tables": {closed, func(t *testing.T, dir string) { require.NoError(t, os.Remove(dir+"/"+gen+"MANIFEST")) },
			"MANIFEST", "it is missing"},
		"MANIFEST is gone, with a log": {killed, func(t *testing.T, dir string) { require.NoError(t, os.Remove(dir+"/"+gen+"MANIFEST")) },
			"MANIFEST", "it is missing"},
		"MANIFEST is empty": {closed, func(t *testing.T, dir string) { require.NoError(t, os.Truncate(dir+"/"+gen+"MANIFEST", 0)) },
			"MANIFEST", "does not begin"},
		"MANIFEST of another program": {closed, func(t *testing.T, dir string) {
			edit(t, dir+"/"+gen+"MANIFEST", func(b []byte) []byte { b[5] = 0; return b })
		}, "MANIFEST", "not of a wholefs journal"},
		"MANIFEST is damaged": {closed, func(t *testing.T, dir string) {
			edit(t, dir+"/"+gen+"MANIFEST", func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
		}, "MANIFEST", "checksum"},
		"table is gone": {closed, func(t *testing.T, dir string) { require.NoError(t, os.Remove(glob(t, dir, gen+"*.sst"))) },
			".sst", "the file is missing"},
		"table is empty": {closed, func(t *testing.T, dir string) { require.NoError(t, os.Truncate(glob(t, dir, gen+"*.sst"), 0)) },
			".sst", "cut off"},
		"table is cut short": {closed, func(t *testing.T, dir string) { require.NoError(t, os.Truncate(glob(t, dir, gen+"*.sst"), 4000)) },
			".sst", ""},
		"table's block": {closed, func(t *testing.T, dir string) { edit(t, glob(t, dir, gen+"*.sst"), flip(100)) },
			".sst", "checksum"},
		"table's end": {closed, func(t *testing.T, dir string) {
			edit(t, glob(t, dir, gen+"*.sst"), func(b []byte) []byte { b[len(b)-4] = 0xff; return b })
		}, ".sst", "bytes"},
		"log before whole transactions": {killed, func(t *testing.T, dir string) {
			edit(t, wal(t, dir), func(b []byte) []byte { return flip(txnEnds(b)[4] + 8)(b) })
		}, walSuffix, "whole transactions stand behind"},
		"log with a length that is none": {killed, func(t *testing.T, dir string) {
			edit(t, wal(t, dir), func(b []byte) []byte { copy(b[txnEnds(b)[4]+3:], "\xff\xff\xff\xff\x0f"); return b })
		}, walSuffix, "whole transactions stand behind"},
		"value log is not empty": {closed, func(t *testing.T, dir string) {
			edit(t, glob(t, dir, gen+"*.vlog"), func(b []byte) []byte { return append(b, 0, 0, 7) })
		}, ".vlog", "not empty"},
		"KEYREGISTRY": {closed, func(t *testing.T, dir string) { edit(t, dir+"/"+gen+"KEYREGISTRY", flip(20)) }, "KEYREGISTRY", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, c.from)
			markBoot(t, dir, bootID())
			c.damage(t, dir)
			for range 2 { // refusing changes nothing
				_, err := Open(dir, Options{})
				var corrupt *CorruptError
				require.ErrorAs(t, err, &corrupt)
				require.ErrorContains(t, err, c.says)
				require.True(t, strings.HasSuffix(corrupt.File, c.file), corrupt.File)
				require.ErrorContains(t, err, `run "wholefs check"`)
				require.ErrorContains(t, err, "staging files are kept")
				require.Error(t, corrupt.Unwrap())
			}
		})
	}
}

// markBoot writes the LOCK that an owner left behind who died.
func markBoot(t *testing.T, dir, boot string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, lockFile), []byte("1\n"+boot+"\n"), 0o600))
}

// What a kill or a power loss leaves is not damage.
func TestTornFiles(t *testing.T) {
	boot := bootID()
	for name, c := range map[string]struct {
		tear func(t *testing.T, gen string)
		boot string
		want int    // parts left of 10
		log  string // what is logged
	}{
		"nothing": {func(*testing.T, string) {}, boot, 10, ""},
		"log cut within its last transaction": {func(t *testing.T, gen string) {
			edit(t, glob(t, gen, "*.mem"), func(b []byte) []byte { e := txnEnds(b); clear(b[e[len(e)-1]-7:]); return b })
		}, boot, 9, "unfinished transaction"},
		"log cut between two transactions": {func(t *testing.T, gen string) {
			edit(t, glob(t, gen, "*.mem"), func(b []byte) []byte { e := txnEnds(b); return b[:e[len(e)-3]] })
		}, boot, 8, ""},
		"log cut to its header": {func(t *testing.T, gen string) { require.NoError(t, os.Truncate(glob(t, gen, "*.mem"), 20)) }, boot, 0, ""},
		"log cut in its header": {func(t *testing.T, gen string) { require.NoError(t, os.Truncate(glob(t, gen, "*.mem"), 7)) }, boot, 0, ""},
		"log is empty":          {func(t *testing.T, gen string) { require.NoError(t, os.Truncate(glob(t, gen, "*.mem"), 0)) }, boot, 0, ""},
		"a new log is empty": {func(t *testing.T, gen string) {
			require.NoError(t, os.WriteFile(gen+"/00007.mem", nil, 0o600))
		}, boot, 10, ""},
		"a new value log is empty": {func(t *testing.T, gen string) {
			require.NoError(t, os.WriteFile(gen+"/000009.vlog", nil, 0o600))
		}, boot, 10, ""},
		"a page is lost with the power": {func(t *testing.T, gen string) {
			edit(t, glob(t, gen, "*.mem"), func(b []byte) []byte { e := txnEnds(b); clear(b[e[6]:e[7]]); return b })
		}, "another boot", 5, "went down before"},
		"lengths are lost with the power": {func(t *testing.T, gen string) {
			edit(t, glob(t, gen, "*.mem"), func(b []byte) []byte { copy(b[txnEnds(b)[6]+3:], "\xff\xff\xff\xff\x0f"); return b })
		}, "another boot", 5, "went down before"},
		"a table that was not finished": {func(t *testing.T, gen string) {
			require.NoError(t, os.WriteFile(gen+"/000099.sst", []byte("half"), 0o600))
		}, boot, 10, ""},
		"MANIFEST cut within its last change": {func(t *testing.T, gen string) {
			edit(t, gen+"/MANIFEST", func(b []byte) []byte { return append(b, 0, 0) })
		}, boot, 10, ""},
		"a generation half copied": {func(t *testing.T, gen string) {
			other := filepath.Join(filepath.Dir(gen), "000002")
			require.NoError(t, os.Mkdir(other, 0o700))
			require.NoError(t, os.WriteFile(other+"/00001.mem", []byte("half"), 0o600))
		}, boot, 10, ""},
		"CURRENT half written": {func(t *testing.T, gen string) {
			require.NoError(t, os.WriteFile(filepath.Dir(gen)+"/CURRENT.new", []byte("0000"), 0o600))
		}, boot, 10, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := killedJournal(t, 10)
			markBoot(t, dir, c.boot)
			c.tear(t, filepath.Join(dir, firstGeneration))
			for i := range 2 {
				var out logBuffer
				j := mustOpen(t, dir, Options{Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))})
				all := mustLoad(t, j)
				if c.want == 0 { // the format and the session went with it
					require.Empty(t, all)
				} else {
					require.Len(t, all, 1)
					require.Len(t, all[0].Parts, c.want)
				}
				if i == 0 {
					require.Contains(t, out.String(), c.log)
				}
				require.NoError(t, j.Close())
			}
		})
	}
}

func TestBeginningIsTorn(t *testing.T) {
	for name, setup := range map[string]func(t *testing.T, dir string){
		"directory only": func(*testing.T, string) {},
		"LOCK only":      func(t *testing.T, dir string) { markBoot(t, dir, "x") },
		"CURRENT only": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/CURRENT", []byte("000001 0\n"), 0o600))
		},
		"empty generation": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/CURRENT", []byte("000001 0\n"), 0o600))
			require.NoError(t, os.Mkdir(dir+"/000001", 0o700))
		},
		"no format record yet": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(dir+"/CURRENT", []byte("000001 0\n"), 0o600))
			require.NoError(t, os.Mkdir(dir+"/000001", 0o700))
			g, err := openGeneration(dir+"/000001", slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			require.NoError(t, g.db.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			setup(t, dir)
			j := mustOpen(t, dir, Options{})
			require.NoError(t, j.Put(session("a")).Wait(t.Context()))
			require.Len(t, mustLoad(t, j), 1)
		})
	}
}

func TestNewerFormat(t *testing.T) {
	for name, c := range map[string]struct {
		at        int
		what      string
		supported int
	}{
		"ours":     {4, "journal format", FormatVersion},
		"Badger's": {6, "Badger's file format", badgerVersion},
	} {
		t.Run(name, func(t *testing.T) {
			dir := closedJournal(t)
			edit(t, dir+"/000001/MANIFEST", func(b []byte) []byte { binary.BigEndian.PutUint16(b[c.at:], 42); return b })
			before := content(t, dir)
			_, err := Open(dir, Options{})
			require.Equal(t, &FormatError{Dir: dir, What: c.what, Found: 42, Supported: c.supported}, err)
			require.ErrorContains(t, err, fmt.Sprintf("has version 42, this wholefs reads up to %d: use the wholefs that wrote it", c.supported))
			require.Equal(t, before, content(t, dir), "nothing was changed")
		})
	}
	t.Run("format record", func(t *testing.T) {
		dir := t.TempDir()
		j := mustOpen(t, dir, Options{})
		raw(t, j, func(txn *badger.Txn) error { return txn.Set(formatKey, encodeFormat(2)) })
		mustClose(t, j)
		_, err := Open(dir, Options{})
		require.Equal(t, &FormatError{Dir: dir, What: "journal format", Found: 2, Supported: 1}, err)
	})
	t.Run("format record is gone", func(t *testing.T) {
		dir := t.TempDir()
		j := mustOpen(t, dir, Options{})
		j.Put(session("a"))
		require.NoError(t, j.Sync(t.Context()))
		raw(t, j, func(txn *badger.Txn) error { return txn.Delete(formatKey) })
		mustClose(t, j)
		_, err := Open(dir, Options{})
		require.ErrorContains(t, err, "the format record is missing")
	})
}

// content is all that is in a journal's directory, but who opened it last.
func content(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || path == lockFile {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		all[path] = string(b)
		return err
	}))
	return all
}

func init() {
	// openmany opens each journal it is told on its input and prints what
	// came of it.
	children["openmany"] = func([]string) error {
		dirs, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		ctx, cancel := newContext()
		defer cancel()
		for _, dir := range strings.Fields(string(dirs)) {
			j, err := Open(dir, Options{})
			if err != nil {
				fmt.Println("refused")
				continue
			}
			all, err := j.Load(ctx)
			parts := 0
			for _, e := range all {
				parts += len(e.Parts)
			}
			if err != nil {
				fmt.Println("refused")
			} else {
				fmt.Println(parts)
			}
			_ = j.Close()
		}
		return nil
	}
}

// One bit flipped anywhere in a table: either the journal is refused or
// nothing is missing. In no case does Badger take the process down.
func TestFlippedBits(t *testing.T) {
	from := closedJournal(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	table := glob(t, from, "000001/*.sst")
	fi, err := os.Stat(table)
	require.NoError(t, err)
	var dirs []string
	var offsets []int
	for i := range 60 {
		off := rnd.IntN(int(fi.Size()))
		if i < 20 { // the end is where the lengths stand
			off = int(fi.Size()) - 1 - i
		}
		dir := copyDir(t, from)
		edit(t, glob(t, dir, "000001/*.sst"), flip(off))
		dirs, offsets = append(dirs, dir), append(offsets, off)
	}
	cmd := child(t, "openmany")
	cmd.Stdin = strings.NewReader(strings.Join(dirs, "\n"))
	out, err := cmd.Output()
	require.NoError(t, err, "the process ended after %s", out)
	lines := strings.Fields(string(out))
	require.Len(t, lines, len(dirs))
	refused := 0
	for i, line := range lines {
		if line == "refused" {
			refused++
			continue
		}
		require.Equal(t, strconv.Itoa(20*30), line, "offset %d of %d", offsets[i], fi.Size())
	}
	require.Greater(t, refused, 40)
}

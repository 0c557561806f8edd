// Package storetest is the suite that every store must pass: what store.Store
// promises, written as tests.
//
// A store's own test makes a Harness and hands it over:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) storetest.Harness { ... })
//	}
//
// The function is called once for each test and gives it a fresh, empty store.
// What a kind of store cannot have (an object store has no hard links) is left
// out of Harness.Features, and the tests of it are then skipped by name: a
// skip is something that a store says, never something that a test finds out.
// What a store has in addition (durability, staging, modes of failure) it
// tests itself.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

// Harness is one fresh store and what the suite needs beside it.
type Harness struct {
	Store store.Store
	// Reopen opens the same place once more, as after a restart of the
	// daemon. The suite closes what it gets.
	Reopen func(t *testing.T) store.Store
	// Stage makes a finished staging file of the content where the store
	// takes it from. NewStaged does it for a store that has no wishes.
	Stage func(t *testing.T, content []byte) store.Staged
	// Owner is whom the suite makes things for.
	Owner store.Owner
	// Host is the directory of this machine that is the store's top, by which
	// the suite meddles behind the store's back; "" if there is none.
	Host string
	// PartSize is used where Limits.EagerParts is set; 0 means 1 MiB.
	PartSize int64

	Features Features
}

// Features is what a store has that not every store can have.
type Features struct {
	HardLinks   bool // Dir.Link
	Symlinks    bool // Dir.Symlink
	Mknod       bool // Dir.Mknod for FIFOs; empty regular files are for all
	Xattrs      bool // user extended attributes
	Attributes  bool // mode, owner and times are kept
	Exchange    bool // RenameExchange
	BinaryNames bool // names that are not UTF-8
	Holes       bool // SeekData and SeekHole tell of holes
	OldVersions bool // an open File goes on showing what was replaced
	SetGID      bool // setgid directories give their group; needs root
}

// All is what a local directory has, for root.
var All = Features{
	HardLinks: true, Symlinks: true, Mknod: true, Xattrs: true, Attributes: true,
	Exchange: true, BinaryNames: true, Holes: true, OldVersions: true, SetGID: true,
}

// Run runs the suite. fresh makes a new and empty store each time, and cleans
// up after it by t.Cleanup; Store is closed by the suite.
func Run(t *testing.T, fresh func(t *testing.T) Harness) {
	for _, group := range []struct {
		name  string
		tests []testCase
	}{
		{"Namespace", namespaceTests},
		{"Node", nodeTests},
		{"Create", createTests},
		{"Rename", renameTests},
		{"List", listTests},
		{"Names", nameTests},
		{"Publish", publishTests},
		{"Resume", resumeTests},
		{"Escape", escapeTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, tc := range group.tests {
				t.Run(tc.name, func(t *testing.T) {
					s := &suite{Harness: fresh(t), t: t}
					t.Cleanup(func() { require.NoError(t, s.Store.Close()) })
					if !tc.needs.within(s) {
						t.Skip("the harness does not declare this feature")
					}
					tc.run(s)
				})
			}
		})
	}
}

type testCase struct {
	name  string
	needs need
	run   func(s *suite)
}

// need tells whether a store has what a test is about; nil: every store has.
type need func(s *suite) bool

func (n need) within(s *suite) bool { return n == nil || n(s) }

func host(s *suite) bool       { return s.Host != "" }
func hardLinks(s *suite) bool  { return s.Features.HardLinks }
func symlinks(s *suite) bool   { return s.Features.Symlinks }
func mknod(s *suite) bool      { return s.Features.Mknod }
func xattrs(s *suite) bool     { return s.Features.Xattrs }
func attributes(s *suite) bool { return s.Features.Attributes }
func exchange(s *suite) bool   { return s.Features.Exchange }
func binary(s *suite) bool     { return s.Features.BinaryNames }
func holes(s *suite) bool      { return s.Features.Holes }
func versions(s *suite) bool   { return s.Features.OldVersions }
func setgid(s *suite) bool     { return s.Features.SetGID }

// both reports whether a store has what all of needs are about.
func both(needs ...need) need {
	return func(s *suite) bool {
		for _, n := range needs {
			if !n(s) {
				return false
			}
		}
		return true
	}
}

// suite is what a test works with.
type suite struct {
	Harness
	t *testing.T
}

var background = context.Background()

// wantErr fails the test unless err carries errno.
func wantErr(t testing.TB, errno syscall.Errno, err error, what ...any) {
	t.Helper()
	var got syscall.Errno
	if !errors.As(err, &got) || got != errno {
		require.FailNow(t, "another error than wanted", "got %v, want %v (%d) %v", err, errno, int(errno), what)
	}
}

func (s *suite) openDir(path string) store.Dir {
	s.t.Helper()
	d, err := s.Store.OpenDir(path)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = d.Close() })
	return d
}

func (s *suite) top() store.Dir { s.t.Helper(); return s.openDir("") }

func (s *suite) mkdir(d store.Dir, name string) store.Dir {
	s.t.Helper()
	_, err := d.Mkdir(name, 0o755, s.Owner)
	require.NoError(s.t, err)
	sub, err := d.OpenDir(name)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = sub.Close() })
	return sub
}

// begin begins an upload and, where the store wants parts, sends them. It
// returns what Complete is to be called with.
func (s *suite) begin(path string, content []byte) (store.Upload, store.Final) {
	s.t.Helper()
	staged := s.Stage(s.t, content)
	size := s.PartSize
	if size == 0 {
		size = 1 << 20
	}
	u, err := s.Store.Begin(background, store.Plan{Path: path, PartSize: size, Staged: staged})
	require.NoError(s.t, err)
	f := store.Final{Path: path, Size: int64(len(content)), Staged: staged}
	if s.Store.Limits().EagerParts {
		f.Receipts = s.send(u, staged, f.Size, size)
	}
	return u, f
}

func (s *suite) send(u store.Upload, r io.ReaderAt, size, partSize int64) []store.Receipt {
	s.t.Helper()
	var receipts []store.Receipt
	for off := int64(0); off < size; off += partSize {
		p := store.Part{Number: off / partSize, Offset: off, Size: min(partSize, size-off)}
		p.CRC = checksum(s.t, r, p)
		receipt, err := u.PutPart(background, p, r)
		require.NoError(s.t, err)
		receipts = append(receipts, receipt)
	}
	return receipts
}

// publish publishes content at path and returns its attributes.
func (s *suite) publish(path string, content []byte) store.Attr {
	s.t.Helper()
	u, f := s.begin(path, content)
	p, err := u.Complete(background, f)
	require.NoError(s.t, err)
	return p.Attr
}

// read returns what is published at path.
func (s *suite) read(path string) []byte {
	s.t.Helper()
	f := s.openFile(path)
	defer f.Close()
	return contentOf(s.t, f)
}

func (s *suite) openFile(path string) store.File {
	s.t.Helper()
	dirPath, name := filepath.Split(path)
	d := s.openDir(filepath.Clean("/" + dirPath)[1:])
	f, err := d.OpenFile(name)
	require.NoError(s.t, err)
	return f
}

func contentOf(t testing.TB, f store.File) []byte {
	t.Helper()
	a, err := f.Stat()
	require.NoError(t, err)
	b, err := io.ReadAll(io.NewSectionReader(f, 0, a.Size+1))
	require.NoError(t, err)
	return b
}

// absent fails the test if name is in d.
func (s *suite) absent(d store.Dir, name string) {
	s.t.Helper()
	_, err := d.Lookup(name)
	wantErr(s.t, syscall.ENOENT, err, name)
}

// names lists d.
func (s *suite) names(d store.Dir) map[string]store.Entry {
	s.t.Helper()
	entries := make(map[string]store.Entry)
	for e, err := range d.List(background) {
		require.NoError(s.t, err)
		require.NotContains(s.t, entries, e.Name, "listed twice")
		entries[e.Name] = e
	}
	return entries
}

// pattern is content that no shifted or shortened copy is equal to.
func pattern(seed byte, n int) []byte {
	var b bytes.Buffer
	b.Grow(n + 8)
	for i := uint32(0); b.Len() < n; i++ {
		x := i*2654435761 + uint32(seed)
		b.Write([]byte{byte(x), byte(x >> 8), byte(x >> 16), seed})
	}
	return b.Bytes()[:n]
}

// NewStaged makes a staging file with the content, and a name of its own, in
// the directory at dir. It lives until the test ends.
func NewStaged(t *testing.T, dir string, content []byte) *Staged {
	t.Helper()
	d, err := os.Open(dir)
	require.NoError(t, err)
	f, err := os.CreateTemp(dir, "staged-")
	require.NoError(t, err)
	_, err = f.Write(content)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = d.Close(), f.Close() })
	return &Staged{dir: d, file: f}
}

// Staged is a staging file made by NewStaged.
type Staged struct{ dir, file *os.File }

var _ store.Staged = (*Staged)(nil)

// ReadAt reads the content.
func (s *Staged) ReadAt(p []byte, off int64) (int, error) { return s.file.ReadAt(p, off) }

// Dir is the directory that the file was made in.
func (s *Staged) Dir() *os.File { return s.dir }

// Name is the name of the file in Dir.
func (s *Staged) Name() string { return filepath.Base(s.file.Name()) }

// Fd is the file, open for reading and writing.
func (s *Staged) Fd() *os.File { return s.file }

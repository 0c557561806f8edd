package localdir

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
)

func topOf(t *testing.T, s *Store) *dir {
	t.Helper()
	d, err := s.openDir("")
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// Library code cannot rely on the umask of the daemon.
func TestModesUnderAnotherUmask(t *testing.T) {
	s := openStore(t)
	top := topOf(t, s)
	defer unix.Umask(unix.Umask(0o077))
	a, err := top.Mkdir("d", 0o2775, store.Owner{})
	require.NoError(t, err)
	require.EqualValues(t, 0o2775, a.Mode&0o7777, "%o", a.Mode)
	a, err = top.Mknod("f", unix.S_IFREG|0o666, 0, store.Owner{})
	require.NoError(t, err)
	require.EqualValues(t, 0o666, a.Mode&0o7777, "%o", a.Mode)
}

// acl encodes a POSIX ACL as the kernel keeps it in an extended attribute.
func acl(entries ...[3]uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

// A default ACL limits what is made; setting the mode afterwards would widen
// its mask again.
func TestDefaultACLIsKept(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	top := topOf(t, s)
	const none = 0xffffffff
	value := acl([3]uint32{1, 7, none}, [3]uint32{2, 7, 1234}, [3]uint32{4, 5, none}, [3]uint32{0x10, 5, none}, [3]uint32{0x20, 0, none})
	if err := top.SetXattr("system.posix_acl_default", value, 0); err != nil {
		t.Skipf("no ACLs here: %v", err)
	}
	o := store.Owner{UID: 4001, GID: 4002}
	a, err := top.Mknod("f", unix.S_IFREG|0o666, 0, o)
	require.NoError(t, err)
	require.EqualValues(t, 0o640, a.Mode&0o7777, "%o", a.Mode)
	a, err = top.Mkdir("d", 0o3777, o)
	require.NoError(t, err)
	require.EqualValues(t, 0o3750, a.Mode&0o7777, "%o", a.Mode)
	d, err := top.OpenDir("d")
	require.NoError(t, err)
	defer d.Close()
	inherited, err := d.GetXattr("system.posix_acl_default")
	require.NoError(t, err)
	require.Equal(t, value, inherited)
}

// What could not be given to its owner is not left behind.
func TestWhatFailsIsRemovedAgain(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may give to anybody; TestSuiteAsOrdinaryUser runs this")
	}
	s := openStore(t)
	top := topOf(t, s)
	other := store.Owner{UID: 1, GID: 1}
	_, err := top.Mkdir("d", 0o755, other)
	require.Equal(t, unix.EPERM, err)
	_, err = top.Mknod("f", unix.S_IFREG|0o644, 0, other)
	require.Equal(t, unix.EPERM, err)
	_, err = top.Symlink("l", "x", other)
	require.Equal(t, unix.EPERM, err)
	for e := range top.List(background) {
		require.Fail(t, "left behind", e.Name)
	}
	// In his own name, and a group that he is not in: made, in his group.
	a, err := top.Mkdir("d", 0o755, store.Owner{UID: uint32(os.Getuid()), GID: 1})
	require.NoError(t, err)
	require.EqualValues(t, os.Getgid(), a.GID)
}

func TestIsFresh(t *testing.T) {
	me := uint32(os.Geteuid())
	file := store.Attr{Mode: unix.S_IFREG | 0o644, UID: me, Nlink: 1}
	with := func(change func(*store.Attr)) store.Attr { a := file; change(&a); return a }
	require.True(t, isFresh(file, unix.S_IFREG))
	require.False(t, isFresh(file, unix.S_IFDIR))
	require.False(t, isFresh(with(func(a *store.Attr) { a.UID++ }), unix.S_IFREG))
	require.False(t, isFresh(with(func(a *store.Attr) { a.Nlink = 2 }), unix.S_IFREG), "a link to another's file")
	require.False(t, isFresh(with(func(a *store.Attr) { a.Size = 1 }), unix.S_IFREG))
	require.True(t, isFresh(store.Attr{Mode: unix.S_IFDIR, UID: me, Nlink: 2, Size: 4096}, unix.S_IFDIR))
	require.True(t, isFresh(store.Attr{Mode: unix.S_IFLNK, UID: me, Nlink: 1, Size: 7}, unix.S_IFLNK))
}

func TestDeviceNumbersSurvive(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	top := topOf(t, s)
	want := unix.Mkdev(1, 3)
	a, err := top.Mknod("null", unix.S_IFCHR|0o666, want, store.Owner{})
	if err == unix.EPERM {
		t.Skip("devices are not to be made here")
	}
	require.NoError(t, err)
	require.Equal(t, want, a.Rdev)
	require.EqualValues(t, unix.S_IFCHR|0o666, a.Mode)
	_, err = top.OpenFile("null")
	require.Equal(t, unix.ENXIO, err)
	big := unix.Mkdev(0xfff, 0xfffff)
	a, err = top.Mknod("big", unix.S_IFBLK|0o600, big, store.Owner{})
	require.NoError(t, err)
	require.Equal(t, big, a.Rdev)
}

func TestNothingIsLeftOpen(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	s := openStore(t)
	require.NoError(t, os.MkdirAll(filepath.Join(s.String(), "a", "b"), 0o755))
	require.NoError(t, os.Symlink("b", filepath.Join(s.String(), "a", "l")))
	staged := stage(t, s, nil)
	u, f := begin(t, s, "a/b", staged) // a directory: Complete fails
	top := topOf(t, s)
	_, _ = top.Lookup("x")
	before := count()
	for range 10 {
		for _, path := range []string{"", "a", "a/b", "a/l", "a/x", "x", "..", StateDirName} {
			if d, err := s.OpenDir(path); err == nil {
				for range d.List(background) {
				}
				require.NoError(t, d.Sync())
				require.NoError(t, d.Close())
			}
		}
		_, err := top.OpenFile("a")
		require.Error(t, err)
		_, err = u.Complete(background, f)
		require.Error(t, err)
		_, _ = top.Mkdir("d", 0o755, store.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())})
		_ = top.Rmdir("d")
		again, err := Open(s.String(), Options{})
		require.NoError(t, err)
		require.NoError(t, again.Close())
		_, err = Open(filepath.Join(s.String(), "a", "l", "x"), Options{})
		require.Error(t, err)
	}
	require.Equal(t, before, count())
	d, err := s.OpenDir("a")
	require.NoError(t, err)
	require.Equal(t, before+1, count(), "a directory costs one descriptor")
	require.NoError(t, d.Close())
}

func TestNextChunk(t *testing.T) {
	tests := []struct {
		path  string
		limit int
		want  []string
	}{
		{"a", 5, []string{"a"}},
		{"abcde", 5, []string{"abcde"}},
		{"abc/de", 5, []string{"abc", "de"}},
		{"a/bcd/e", 5, []string{"a/bcd", "e"}},
		{"abcd/efgh/i", 5, []string{"abcd", "efgh", "i"}},
		{"abcde/fghij", 5, []string{"abcde", "fghij"}},
	}
	for _, tt := range tests {
		var got []string
		for rest := tt.path; rest != ""; {
			var chunk string
			chunk, rest = nextChunk(rest, tt.limit)
			got = append(got, chunk)
		}
		require.Equal(t, tt.want, got, tt.path)
	}
}

func TestNextEntryRefusesNonsense(t *testing.T) {
	for _, b := range [][]byte{
		make([]byte, 5),
		make([]byte, 24), // a length of 0
		append(make([]byte, 16), 0xff, 0xff, 8, 'a', 0),
	} {
		_, _, err := nextEntry(b)
		require.Equal(t, unix.EIO, err)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("1-2")
	f.Add("18446744073709551615-0")
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := parseID(s); ok && formatID(id) != s {
			t.Errorf("%q was read as %v", s, id)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	require.NoError(b, err)
	defer s.Close()
	top, err := s.OpenDir("")
	require.NoError(b, err)
	defer top.Close()
	_, err = top.Mknod("f", unix.S_IFREG|0o644, 0, store.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())})
	require.NoError(b, err)
	b.Run("Lookup", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = top.Lookup("f")
		}
	})
	b.Run("OpenFile", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f, err := top.OpenFile("f")
			if err != nil {
				b.Fatal(err)
			}
			_ = f.Close()
		}
	})
}

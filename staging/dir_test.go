package staging

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestOpenDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := OpenDir(path, Options{Layout: testLayout(t)})
	require.NoError(t, err)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm())
	fd, err := d.Fd().Stat()
	require.NoError(t, err)
	require.True(t, os.SameFile(st, fd))
	require.NoError(t, d.Close())
	require.NoError(t, d.Close())

	require.NoError(t, os.Chmod(path, 0o755))
	d, err = OpenDir(path, Options{Layout: testLayout(t)})
	require.NoError(t, err)
	st, _ = os.Stat(path)
	require.Equal(t, os.FileMode(0o700), st.Mode().Perm(), "what others could read is closed to them")
	require.NoError(t, d.Close())

	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	_, err = OpenDir(link, Options{Layout: testLayout(t)})
	require.ErrorIs(t, err, unix.ENOTDIR, "a symlink may lead anywhere")

	_, err = OpenDir(path, Options{})
	require.ErrorContains(t, err, "no part size")
}

func TestCreateOpenListRemove(t *testing.T) {
	d := newDir(t, Options{})
	f, err := d.Create("b", 0o640)
	require.NoError(t, err)
	require.NoError(t, f.Write(0, []byte("bytes")))
	require.Equal(t, "b", f.Name())
	require.Same(t, d.Fd(), f.Dir())
	_, err = d.Create("b", 0o600)
	require.ErrorIs(t, err, unix.EEXIST)
	a, err := d.Create("a", 0o600)
	require.NoError(t, err)

	for range 2 { // listing moves no position
		names, err := d.List()
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, names)
	}
	require.NoError(t, a.Close())
	require.NoError(t, d.Remove("a"))
	require.NoError(t, d.Remove("a"), "that there is none is success")

	require.NoError(t, f.Close())
	f, err = d.Open("b")
	require.NoError(t, err)
	require.NoError(t, f.Write(5, []byte(" more")))
	require.Equal(t, "bytes more", string(content(t, f)))
	requireSums(t, f, []byte("bytes more"))
	require.NoError(t, f.Remove())
	require.NoError(t, f.Remove())
	require.NoError(t, f.Write(0, []byte("BYTES")), "the descriptor stays usable")
	p := make([]byte, 10)
	_, err = f.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, "BYTES more", string(p))
	require.NoError(t, f.Close())
	_, err = d.Open("b")
	require.ErrorIs(t, err, unix.ENOENT)
}

// The umask is the daemon's own; the mode was made with the program's.
func TestCreateModeIsExact(t *testing.T) {
	d := newDir(t, Options{})
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for name, mode := range map[string]uint32{"a": 0o666, "b": 0o4755, "c": 0, "d": 0o1600} {
		f, err := d.Create(name, mode)
		require.NoError(t, err)
		st, err := f.sys.fstat(f.fd)
		require.NoError(t, err)
		require.Equal(t, mode, st.Mode&0o7777)
		require.NoError(t, f.Close())
	}
}

func TestNamesStayInside(t *testing.T) {
	d := newDir(t, Options{})
	for _, name := range []string{"", ".", "..", "a/b", "/etc/passwd", "../x", "a\x00b"} {
		_, err := d.Create(name, 0o600)
		require.ErrorIs(t, err, unix.EINVAL, "Create(%q)", name)
		_, err = d.Open(name)
		require.ErrorIs(t, err, unix.EINVAL, "Open(%q)", name)
		require.ErrorIs(t, d.Remove(name), unix.EINVAL, "Remove(%q)", name)
	}
}

func TestOpenTakesRegularFilesOnly(t *testing.T) {
	d := newDir(t, Options{})
	path := d.Fd().Name()
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, nil, 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(path, "link")))
	require.NoError(t, os.Mkdir(filepath.Join(path, "dir"), 0o700))
	require.NoError(t, unix.Mkfifo(filepath.Join(path, "fifo"), 0o600))
	_, err := d.Open("link")
	require.ErrorIs(t, err, unix.ELOOP)
	_, err = d.Open("dir")
	require.ErrorIs(t, err, unix.EISDIR)
	_, err = d.Open("fifo")
	require.ErrorIs(t, err, unix.EINVAL)
	_, files := d.Usage()
	require.Zero(t, files)
}

// A daemon that is not root must be able to go on with a file that is to be
// published read-only; the mode survives it.
func TestOpenReadOnlyFile(t *testing.T) {
	var h trap
	d := newDir(t, Options{Hook: h.hook})
	f, err := d.Create("f", 0o444)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	mode := func() os.FileMode {
		st, err := os.Stat(filepath.Join(d.Fd().Name(), "f"))
		require.NoError(t, err)
		return st.Mode().Perm()
	}
	h.set(failOn(OpOpen, 1, unix.EACCES)) // root is never refused
	f, err = d.Open("f")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o444), mode())
	require.NoError(t, f.Write(0, []byte("x")))
	require.NoError(t, f.Close())

	for name, on := range map[string]func(Op, int, int) (int, error){
		"open again":  failOn(OpOpen, 2, unix.EMFILE),
		"stat":        failOn(OpStat, 1, unix.EIO),
		"chmod":       failOn(OpChmod, 1, unix.EROFS),
		"chmod again": failOn(OpChmod, 2, unix.EIO),
		"stat again":  failOn(OpStat, 2, unix.EIO),
	} {
		require.NoError(t, os.Chmod(filepath.Join(d.Fd().Name(), "f"), 0o444))
		h.set(func(op Op, nth, n int) (int, error) {
			if op == OpOpen && nth == 1 {
				return 0, unix.EACCES
			}
			return on(op, nth, n)
		})
		_, err := d.Open("f")
		require.Error(t, err, name)
		require.NotErrorIs(t, err, unix.EACCES, name)
		if name != "chmod again" {
			require.Equal(t, os.FileMode(0o444), mode(), name)
		}
	}
}

func TestUsage(t *testing.T) {
	d := newDir(t, Options{})
	bytes, files := d.Usage()
	require.Zero(t, bytes)
	require.Zero(t, files)
	var all []*File
	for _, name := range []string{"a", "b", "c"} {
		f, err := d.Create(name, 0o600)
		require.NoError(t, err)
		require.NoError(t, f.Truncate(1<<30)) // a hole takes nothing
		all = append(all, f)
	}
	bytes, files = d.Usage()
	require.Less(t, bytes, int64(1<<20))
	require.Equal(t, 3, files)

	empty := bytes
	require.NoError(t, all[0].Allocate(extent(0, 1<<20), false))
	bytes, _ = d.Usage()
	require.InDelta(t, 1<<20, bytes-empty, 64<<10)

	require.NoError(t, all[0].Remove()) // unlinked, and still on the disk
	bytes, files = d.Usage()
	require.GreaterOrEqual(t, bytes, int64(1<<20))
	require.Equal(t, 3, files)

	require.NoError(t, all[0].Close())
	all[1].Detach()
	bytes, files = d.Usage()
	require.Less(t, bytes, int64(1<<20))
	require.Equal(t, 1, files)
	require.NoError(t, all[1].Close())
	require.NoError(t, all[2].Close())
}

// After a publish, the name in the staging directory is nobody's, or another
// file's.
func TestDetachedFileRemovesNothing(t *testing.T) {
	d := newDir(t, Options{})
	f, err := d.Create("f", 0o600)
	require.NoError(t, err)
	require.NoError(t, f.Write(0, []byte("published")))
	published := filepath.Join(filepath.Dir(d.Fd().Name()), "published")
	require.NoError(t, os.Rename(f.Fd().Name(), published))
	f.Detach()
	g, err := d.Create("f", 0o600)
	require.NoError(t, err)
	require.NoError(t, f.Remove())
	names, err := d.List()
	require.NoError(t, err)
	require.Equal(t, []string{"f"}, names)
	p := make([]byte, 9)
	_, err = f.ReadAt(p, 0)
	require.NoError(t, err)
	require.Equal(t, "published", string(p))
	require.NoError(t, f.Close())
	require.NoError(t, g.Close())
}

func TestClosedDirRefuses(t *testing.T) {
	d := newDir(t, Options{})
	f, err := d.Create("f", 0o600)
	require.NoError(t, err)
	require.NoError(t, d.Close())
	_, err = d.Create("g", 0o600)
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorIs(t, f.Remove(), os.ErrClosed)
	require.NoError(t, f.Write(0, []byte("still open")))
	require.NoError(t, f.Close())
}

func TestDirConcurrently(t *testing.T) {
	d := newDir(t, Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				name := string(rune('a'+i)) + string(rune('a'+j))
				f, err := d.Create(name, 0o600)
				if err != nil {
					t.Error(err)
					return
				}
				_ = f.Write(0, []byte(name))
				d.Usage()
				if _, err := d.List(); err != nil {
					t.Error(err)
				}
				_ = f.Remove()
				_ = f.Close()
			}
		})
	}
	wg.Wait()
	names, err := d.List()
	require.NoError(t, err)
	require.Empty(t, names)
	_, files := d.Usage()
	require.Zero(t, files)
}

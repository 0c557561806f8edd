package localdir

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
)

func TestOpenMakesTheStateDirectory(t *testing.T) {
	path := t.TempDir()
	s, err := Open(path, Options{})
	require.NoError(t, err)
	defer s.Close()
	require.Equal(t, path, s.String())
	require.Equal(t, filepath.Join(path, ".wholefs"), s.StateDir())
	require.Equal(t, filepath.Join(path, ".wholefs", "staging"), s.StagingPath())
	info, err := os.Stat(s.StateDir())
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o700, info.Mode())
	require.Zero(t, s.Limits())
}

func TestOpenAgainTightensTheStateDirectory(t *testing.T) {
	path := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(path, StateDirName), 0o777))
	s, err := Open(path, Options{})
	require.NoError(t, err)
	defer s.Close()
	info, err := os.Stat(s.StateDir())
	require.NoError(t, err)
	require.Equal(t, os.ModeDir|0o700, info.Mode())
}

func TestOpenTellsWhereTheDirectoryIs(t *testing.T) {
	base := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(base, "real"), 0o755))
	require.NoError(t, os.Symlink("real", filepath.Join(base, "link")))
	t.Chdir(base)
	for _, path := range []string{"real", "./real/", "link", "link/../real"} {
		s, err := Open(path, Options{})
		require.NoError(t, err)
		require.Equal(t, filepath.Join(base, "real"), s.String())
		require.NoError(t, s.Close())
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name  string
		path  string // beneath the test's directory
		setup func(t *testing.T, path string)
		errno syscall.Errno
		says  string
	}{
		{"what is missing", "x", nil, unix.ENOENT, "no such directory"},
		{"a file", "x", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, nil, 0o644))
		}, unix.ENOTDIR, "has to be a directory"},
		{"a file in place of the state directory", "", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(filepath.Join(path, StateDirName), nil, 0o644))
		}, unix.ENOTDIR, "is reserved for a directory of wholefs"},
		{"a symlink in place of the state directory", "", func(t *testing.T, path string) {
			require.NoError(t, os.Symlink(t.TempDir(), filepath.Join(path, StateDirName)))
		}, unix.ELOOP, "is reserved for a directory of wholefs"},
		{"a state directory of somebody else", "", func(t *testing.T, path string) {
			needRoot(t)
			require.NoError(t, os.Mkdir(filepath.Join(path, StateDirName), 0o700))
			require.NoError(t, os.Chown(filepath.Join(path, StateDirName), 1234, 0))
		}, unix.EPERM, "belongs to user 1234"},
		{"a read-only filesystem", "", func(t *testing.T, path string) {
			mount(t, path, "tmpfs", unix.MS_RDONLY, "")
		}, unix.EROFS, "read-only"},
		{"a mount beneath", "", func(t *testing.T, path string) {
			require.NoError(t, os.MkdirAll(filepath.Join(path, "a dir", "m"), 0o755))
			mount(t, filepath.Join(path, "a dir", "m"), "tmpfs", 0, "")
		}, unix.EXDEV, "a dir/m is mounted beneath it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tt.path)
			if tt.setup != nil {
				tt.setup(t, path)
			}
			s, err := Open(path, Options{})
			require.Nil(t, s)
			require.ErrorIs(t, err, tt.errno)
			require.ErrorContains(t, err, tt.says)
			require.ErrorContains(t, err, "store "+path+": ")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// mount mounts a filesystem for one test, which takes root.
func mount(t *testing.T, path, fstype string, flags uintptr, options string) {
	t.Helper()
	needRoot(t)
	if err := unix.Mount(fstype, path, fstype, flags, options); err != nil {
		t.Skipf("mount %s: %v", fstype, err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(path, unix.MNT_DETACH)) })
}

func TestOpenAllowsMountsElsewhere(t *testing.T) {
	base := t.TempDir()
	for _, name := range []string{"store", "store2", "beside"} {
		require.NoError(t, os.Mkdir(filepath.Join(base, name), 0o755))
	}
	// Beside it, with a name that begins alike, and on the directory itself,
	// hiding what was mounted beneath before.
	mount(t, filepath.Join(base, "beside"), "tmpfs", 0, "")
	mount(t, filepath.Join(base, "store2"), "tmpfs", 0, "")
	require.NoError(t, os.Mkdir(filepath.Join(base, "store", "hidden"), 0o755))
	mount(t, filepath.Join(base, "store", "hidden"), "tmpfs", 0, "")
	mount(t, filepath.Join(base, "store"), "tmpfs", 0, "")
	s, err := Open(filepath.Join(base, "store"), Options{})
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

func TestMountsBeneath(t *testing.T) {
	const table = `22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 0:30 / /data rw - xfs /dev/b rw
31 30 0:31 / /data/a rw shared:1 - tmpfs tmpfs rw
32 31 0:32 / /data/a/deeper rw - tmpfs tmpfs rw
33 22 0:33 / /data/hidden rw - tmpfs tmpfs rw
34 22 0:34 / /database rw - tmpfs tmpfs rw
35 30 0:35 / /data/with\040blank\134and\011tab rw - tmpfs tmpfs rw
not a line
36 30 0:36 /
`
	beneath := func(path string, id uint64) string {
		return strings.Join(mountsBeneath([]byte(table), path, id), "|")
	}
	require.Equal(t, "/data/a|/data/with blank\\and\ttab", beneath("/data", 30))
	require.Equal(t, "/data/a/deeper", beneath("/data/a", 31))
	require.Equal(t, "", beneath("/data/b", 30))
	require.Equal(t, "", beneath("/data/a/deeper", 32))
	require.Equal(t, "/data|/data/hidden|/database", beneath("/", 22))
	require.Equal(t, "/data/a|/data/a/deeper|/data/hidden|/data/with blank\\and\ttab", beneath("/data", 0), "where the kernel does not tell the mount's id")
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "plain": "plain", `\040`: " ", `a\134b`: `a\b`, `\012\011`: "\n\t", `\\040`: `\` + " ", `\04`: `\04`, `\`: `\`, `\999`: `\999`, `\377`: "\xff",
	} {
		require.Equal(t, want, unescape(in), in)
	}
}

// What was mounted after Open is found when it is met.
func TestMountsMadeLaterAreRefused(t *testing.T) {
	s := openStore(t)
	sub := filepath.Join(s.String(), "d", "m")
	require.NoError(t, os.MkdirAll(sub, 0o755))
	mount(t, sub, "tmpfs", 0, "")
	require.NoError(t, os.WriteFile(filepath.Join(sub, "f"), nil, 0o644))

	_, err := s.OpenDir("d/m")
	require.Equal(t, unix.EXDEV, err)
	d, err := s.OpenDir("d")
	require.NoError(t, err)
	defer d.Close()
	_, err = d.OpenDir("m")
	require.Equal(t, unix.EXDEV, err)
	_, err = d.OpenNode("m")
	require.Equal(t, unix.EXDEV, err)

	u, f := begin(t, s, "d/m/new", stage(t, s, []byte("x")))
	_, err = u.Complete(background, f)
	require.ErrorIs(t, err, unix.EXDEV)
	require.ErrorContains(t, err, `"d/m" lies on another filesystem`)
	require.NoFileExists(t, filepath.Join(sub, "new"))
}

// A mount of the store's own filesystem is another mount all the same: rename
// does not cross it.
func TestBindMountsMadeLaterAreRefused(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	from, to := filepath.Join(s.String(), "from"), filepath.Join(s.String(), "to")
	require.NoError(t, os.Mkdir(from, 0o755))
	require.NoError(t, os.Mkdir(to, 0o755))
	require.NoError(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(to, unix.MNT_DETACH)) })
	_, err := s.OpenDir("to")
	require.Equal(t, unix.EXDEV, err)
	u, f := begin(t, s, "to/new", stage(t, s, nil))
	_, err = u.Complete(background, f)
	require.ErrorIs(t, err, unix.EXDEV)
}

// A btrfs subvolume is no mount, but rename does not cross it either: it has a
// device number of its own. Here the store is made to believe in another one.
func TestOtherDeviceNumbersAreRefused(t *testing.T) {
	s := openStore(t)
	require.NoError(t, os.MkdirAll(filepath.Join(s.String(), "d", "sub"), 0o755))
	d, err := s.OpenDir("d")
	require.NoError(t, err)
	defer d.Close()
	s.id.Dev++
	for _, path := range []string{"d", "d/sub"} {
		_, err := s.OpenDir(path)
		require.Equal(t, unix.EXDEV, err, path)
	}
	_, err = d.OpenDir("sub")
	require.Equal(t, unix.EXDEV, err)
	_, err = d.OpenNode("sub")
	require.Equal(t, unix.EXDEV, err)
}

// A full disk is found out before the old content is gone.
func TestInPlaceOnAFullDisk(t *testing.T) {
	base := t.TempDir()
	mount(t, base, "tmpfs", 0, "size=1m")
	s := newStore(t, base)
	defer s.Close()
	path := linked(t, s, "f", []byte("old"))
	staged := stage(t, s, []byte(strings.Repeat("n", 600<<10)))
	u, f := begin(t, s, "f", staged)
	_, err := u.Complete(background, f)
	require.ErrorIs(t, err, unix.ENOSPC)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
}

func TestReservedName(t *testing.T) {
	s := openStore(t)
	top, err := s.OpenDir("")
	require.NoError(t, err)
	defer top.Close()
	const name = StateDirName

	_, err = top.Lookup(name)
	require.Equal(t, unix.ENOENT, err)
	_, err = top.OpenNode(name)
	require.Equal(t, unix.ENOENT, err)
	_, err = top.OpenFile(name)
	require.Equal(t, unix.ENOENT, err)
	_, err = top.OpenDir(name)
	require.Equal(t, unix.ENOENT, err)
	for _, path := range []string{name, name + "/staging", name + "/missing"} {
		_, err = s.OpenDir(path)
		require.Equal(t, unix.ENOENT, err, path)
	}
	require.Equal(t, unix.ENOENT, top.Unlink(name))
	require.Equal(t, unix.ENOENT, top.Rmdir(name))
	for e, err := range top.List(background) {
		require.NoError(t, err)
		require.Fail(t, "listed", e.Name)
	}

	file, err := top.Mknod("f", unix.S_IFREG|0o644, 0, store.Owner{})
	require.NoError(t, err)
	n, err := top.OpenNode("f")
	require.NoError(t, err)
	defer n.Close()
	_, err = top.Mkdir(name, 0o755, store.Owner{})
	require.Equal(t, unix.EPERM, err)
	_, err = top.Mknod(name, unix.S_IFREG, 0, store.Owner{})
	require.Equal(t, unix.EPERM, err)
	_, err = top.Symlink(name, "x", store.Owner{})
	require.Equal(t, unix.EPERM, err)
	_, err = top.Link(name, n)
	require.Equal(t, unix.EPERM, err)
	for _, flags := range []int{0, store.RenameNoReplace, store.RenameExchange} {
		require.Equal(t, unix.EPERM, top.Rename("f", top, name, flags))
		require.Equal(t, unix.ENOENT, top.Rename(name, top, "g", flags))
	}
	u, f := begin(t, s, name, stage(t, s, nil))
	_, err = u.Complete(background, f)
	require.ErrorIs(t, err, unix.EPERM)
	f.Path = name + "/staging/f"
	_, err = u.Complete(background, f)
	require.ErrorIs(t, err, unix.ENOENT)

	got, err := top.Lookup("f")
	require.NoError(t, err)
	require.Equal(t, file.ID, got.ID)
	require.DirExists(t, s.StagingPath())

	// Elsewhere the name is one like any other.
	_, err = top.Mkdir("d", 0o755, store.Owner{})
	require.NoError(t, err)
	d, err := top.OpenDir("d")
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Mkdir(name, 0o755, store.Owner{})
	require.NoError(t, err)
	_, err = s.OpenDir("d/" + name)
	require.NoError(t, err)
}

// A filesystem that ignores case knows the state directory by other names too.
// Here it is made to by changing what the store takes for its state directory.
func TestReservedDirectoryByAnotherName(t *testing.T) {
	s := openStore(t)
	top, err := s.openDir("")
	require.NoError(t, err)
	defer top.Close()
	const alias = ".WholeFS"
	require.NoError(t, os.MkdirAll(filepath.Join(s.String(), alias, "staging"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(s.String(), "f"), nil, 0o644))
	a, err := top.Lookup(alias)
	require.NoError(t, err)
	s.state = a.ID

	_, err = top.Lookup(alias)
	require.Equal(t, unix.ENOENT, err)
	_, err = top.OpenDir(alias)
	require.Equal(t, unix.ENOENT, err)
	_, err = s.OpenDir(alias)
	require.Equal(t, unix.ENOENT, err)
	_, err = s.OpenDir(alias + "/staging")
	require.Equal(t, unix.ENOENT, err)
	require.Equal(t, unix.ENOENT, top.Rmdir(alias))
	require.Equal(t, unix.ENOENT, top.Rename(alias, top, "x", 0))
	require.Equal(t, unix.EPERM, top.Rename("f", top, alias, store.RenameExchange))
	for e, err := range top.List(background) {
		require.NoError(t, err)
		require.Equal(t, "f", e.Name)
	}
	u, f := begin(t, s, alias, stage(t, s, nil))
	_, err = u.Complete(background, f)
	require.ErrorIs(t, err, unix.EPERM)
}

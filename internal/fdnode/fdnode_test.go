package fdnode

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
)

func ptr[T any](v T) *T { return &v }

func openAt(t *testing.T, path string, flags int) Node {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return Node{f}
}

func newFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// ways are the kinds of descriptor that a file can be held by.
var ways = map[string]int{"O_PATH": unix.O_PATH, "O_RDONLY": os.O_RDONLY, "O_WRONLY": os.O_WRONLY, "O_RDWR": os.O_RDWR}

func TestStat(t *testing.T) {
	path := newFile(t, "12345")
	for way, flags := range ways {
		t.Run(way, func(t *testing.T) {
			got, err := openAt(t, path, flags).Stat()
			require.NoError(t, err)
			var st unix.Stat_t
			require.NoError(t, unix.Stat(path, &st))
			require.Equal(t, store.ID{Dev: st.Dev, Ino: st.Ino}, got.ID)
			require.Equal(t, st.Mode, got.Mode)
			require.EqualValues(t, st.Nlink, got.Nlink)
			require.Equal(t, st.Size, got.Size)
			require.Equal(t, st.Blocks, got.Blocks)
			require.True(t, time.Unix(st.Mtim.Unix()).Equal(got.Mtime))
			require.True(t, time.Unix(st.Ctim.Unix()).Equal(got.Ctime))
			require.True(t, got.IsRegular())
			if !got.Btime.IsZero() {
				require.WithinDuration(t, time.Now(), got.Btime, time.Hour)
			}
		})
	}
}

func TestStatAt(t *testing.T) {
	path := newFile(t, "12345")
	require.NoError(t, os.Symlink("f", path+".link"))
	dir := openAt(t, filepath.Dir(path), unix.O_PATH)
	err := With(dir.F, func(fd int) error {
		a, err := StatAt(fd, "f")
		require.NoError(t, err)
		require.EqualValues(t, 5, a.Size)
		a, err = StatAt(fd, "f.link")
		require.NoError(t, err)
		require.EqualValues(t, unix.S_IFLNK, a.Mode&unix.S_IFMT)
		_, err = StatAt(fd, "missing")
		require.Equal(t, unix.ENOENT, err)
		return nil
	})
	require.NoError(t, err)
	_, err = StatFd(1 << 20)
	require.Equal(t, unix.EBADF, err)
}

func TestSetAttrByEveryKindOfDescriptor(t *testing.T) {
	for way, flags := range ways {
		t.Run(way, func(t *testing.T) {
			n := openAt(t, newFile(t, "12345"), flags)
			atime, mtime := time.Unix(11, 12), time.Unix(-13, 14)
			a, err := n.SetAttr(store.Change{Size: ptr(int64(3)), Mode: ptr(uint32(0o100640)), Atime: &atime, Mtime: &mtime})
			require.NoError(t, err)
			require.EqualValues(t, 3, a.Size)
			require.EqualValues(t, 0o640, a.Mode&0o7777, "type bits are not the caller's to set")
			require.True(t, a.IsRegular())
			require.True(t, atime.Equal(a.Atime), "%v", a.Atime)
			require.True(t, mtime.Equal(a.Mtime), "%v", a.Mtime)
			a, err = n.SetAttr(store.Change{Atime: ptr(time.Unix(99, 0))})
			require.NoError(t, err)
			require.True(t, mtime.Equal(a.Mtime), "only what is asked for")
			a, err = n.SetAttr(store.Change{Size: ptr(int64(1 << 40))})
			require.NoError(t, err)
			require.EqualValues(t, 1<<40, a.Size)
			_, err = n.SetAttr(store.Change{Size: ptr(int64(-1))})
			require.Equal(t, unix.EINVAL, err)
		})
	}
}

func TestSetAttrOwner(t *testing.T) {
	needRoot(t)
	n := openAt(t, newFile(t, ""), unix.O_PATH)
	a, err := n.SetAttr(store.Change{UID: ptr(uint32(7)), GID: ptr(uint32(8)), Mode: ptr(uint32(0o6755))})
	require.NoError(t, err)
	require.Equal(t, [3]uint32{7, 8, 0o6755}, [3]uint32{a.UID, a.GID, a.Mode & 0o7777})
	a, err = n.SetAttr(store.Change{GID: ptr(uint32(9))})
	require.NoError(t, err)
	require.Equal(t, [3]uint32{7, 9, 0o755}, [3]uint32{a.UID, a.GID, a.Mode & 0o7777})
}

func TestSizeOfWhatHasNone(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink("missing", filepath.Join(dir, "l")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	size := store.Change{Size: ptr(int64(1))}
	_, err := openAt(t, dir, os.O_RDONLY).SetAttr(size)
	require.Equal(t, unix.EISDIR, err)
	_, err = openAt(t, filepath.Join(dir, "l"), unix.O_PATH|unix.O_NOFOLLOW).SetAttr(size)
	require.Equal(t, unix.EINVAL, err)
	_, err = openAt(t, filepath.Join(dir, "fifo"), unix.O_PATH).SetAttr(size)
	require.Equal(t, unix.EINVAL, err)
}

func TestSymlink(t *testing.T) {
	path := newFile(t, "")
	long := strings.Repeat("x/", 2047) + "x" // 4095 bytes: the longest target
	for _, target := range []string{"f", long, "\xff"} {
		link := filepath.Join(t.TempDir(), "l")
		require.NoError(t, os.Symlink(target, link))
		n := openAt(t, link, unix.O_PATH|unix.O_NOFOLLOW)
		got, err := n.Readlink()
		require.NoError(t, err)
		require.Equal(t, target, got)
		a, err := n.SetAttr(store.Change{Mtime: ptr(time.Unix(5, 0))})
		require.NoError(t, err)
		require.EqualValues(t, 5, a.Mtime.Unix())
		_, err = n.GetXattr("user.a")
		require.Error(t, err)
		_, err = Reopen(n.F, os.O_RDONLY)
		require.Equal(t, unix.ELOOP, err)
		if os.Getuid() == 0 {
			a, err = n.SetAttr(store.Change{UID: ptr(uint32(3))})
			require.NoError(t, err)
			require.EqualValues(t, 3, a.UID)
			if err := n.SetXattr("trusted.a", []byte("1"), 0); err != unix.EOPNOTSUPP {
				require.NoError(t, err)
				value, err := n.GetXattr("trusted.a")
				require.NoError(t, err)
				require.Equal(t, "1", string(value))
				names, err := n.ListXattr()
				require.NoError(t, err)
				require.Contains(t, names, "trusted.a")
				require.NoError(t, n.RemoveXattr("trusted.a"))
			}
		}
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		_, err := openAt(t, p, os.O_RDONLY).Readlink()
		require.Equal(t, unix.EINVAL, err)
	}
}

func TestXattrsByEveryKindOfDescriptor(t *testing.T) {
	for way, flags := range ways {
		t.Run(way, func(t *testing.T) {
			n := openAt(t, newFile(t, ""), flags)
			names, err := n.ListXattr()
			require.NoError(t, err)
			require.NotContains(t, names, "user.a")
			require.NoError(t, n.SetXattr("user.a", []byte("value"), 0))
			value, err := n.GetXattr("user.a")
			require.NoError(t, err)
			require.Equal(t, "value", string(value))
			names, err = n.ListXattr()
			require.NoError(t, err)
			require.Contains(t, names, "user.a")
			require.NoError(t, n.RemoveXattr("user.a"))
			_, err = n.GetXattr("user.a")
			require.Equal(t, unix.ENODATA, err)
			_, err = n.GetXattr("nonsense")
			require.Equal(t, unix.EOPNOTSUPP, err)
		})
	}
}

func TestXattrBuffersGrow(t *testing.T) {
	for have, want := range map[int]error{0: nil, 511: nil, 512: nil, 513: nil, 4096: nil, 4097: nil, 64 << 10: nil, 64<<10 + 1: unix.E2BIG} {
		value, err := openAt(t, newFile(t, ""), os.O_RDONLY).grow(func(_ int, buf []byte) (int, error) {
			if have > len(buf) {
				return 0, unix.ERANGE
			}
			return have, nil
		})
		require.Equal(t, want, err, have)
		if err == nil {
			require.Len(t, value, have)
			require.NotNil(t, value)
		}
	}
}

func TestXattrOf64KiB(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "fdnode-")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
	n := openAt(t, filepath.Join(dir, "f"), unix.O_PATH)
	big := make([]byte, 64<<10)
	big[0], big[len(big)-1] = 1, 2
	if err := n.SetXattr("user.big", big, 0); err != nil {
		t.Skip(err)
	}
	value, err := n.GetXattr("user.big")
	require.NoError(t, err)
	require.Equal(t, big, value)
}

func TestInterruptedCallsAreRepeated(t *testing.T) {
	calls := 0
	require.NoError(t, Retry(func() error {
		if calls++; calls < 5 {
			return unix.EINTR
		}
		return nil
	}))
	require.Equal(t, 5, calls)
	n := openAt(t, newFile(t, ""), os.O_RDONLY)
	calls = 0
	require.Equal(t, unix.EIO, With(n.F, func(int) error {
		if calls++; calls == 1 {
			return unix.EINTR
		}
		return unix.EIO
	}))
}

func TestReopen(t *testing.T) {
	path := newFile(t, "before")
	n := openAt(t, path, unix.O_PATH)
	// Whatever takes the name meanwhile: it is the file that is reopened.
	require.NoError(t, os.Rename(path, path+".moved"))
	require.NoError(t, os.WriteFile(path, []byte("another"), 0o600))
	f, err := Reopen(n.F, os.O_RDWR)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("B"), 0)
	require.NoError(t, err)
	got, err := os.ReadFile(path + ".moved")
	require.NoError(t, err)
	require.Equal(t, "Before", string(got))
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	require.NoError(t, err)
	require.NotZero(t, flags&unix.FD_CLOEXEC)

	require.NoError(t, os.Remove(path+".moved"))
	again, err := Reopen(n.F, os.O_RDONLY)
	require.NoError(t, err, "without a name too")
	require.NoError(t, again.Close())
}

func TestClosed(t *testing.T) {
	n := openAt(t, newFile(t, ""), os.O_RDONLY)
	require.NoError(t, n.Close())
	require.Equal(t, unix.EBADF, n.Close())
	_, err := n.Stat()
	require.Equal(t, unix.EBADF, err)
	_, err = n.SetAttr(store.Change{})
	require.Equal(t, unix.EBADF, err)
	_, err = n.ListXattr()
	require.Equal(t, unix.EBADF, err)
	require.Equal(t, unix.EBADF, n.SetXattr("user.a", nil, 0))
	_, err = Reopen(n.F, os.O_RDONLY)
	require.Equal(t, unix.EBADF, err)
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const someMounts = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /mnt/a\040b rw,nosuid,nodev shared:7 master:1 - fuse.wholefs /srv/back\134slash rw,user_id=0
31 22 0:27 / /mnt/covered rw - fuse.wholefs /srv/c rw
32 31 0:28 / /mnt/covered rw - tmpfs tmpfs rw
33 22 0:29 / /mnt/twice rw - fuse.wholefs /srv/d rw
34 33 0:30 / /mnt/twice rw - fuse.wholefs /srv/e rw
not a line
35 22 0:31 / /mnt/other rw - fuse.sshfs host: rw
`

func TestParseMounts(t *testing.T) {
	mounts, err := parseMounts(strings.NewReader(someMounts))
	require.NoError(t, err)
	require.Len(t, mounts, 7)
	m, ok := mountAt(mounts, "/mnt/a b")
	require.True(t, ok)
	require.Equal(t, mountEntry{"/mnt/a b", fsType, `/srv/back\slash`, "0:26"}, m)
	m, _ = mountAt(mounts, "/mnt/twice")
	require.Equal(t, "/srv/e", m.source)

	var names []string
	for _, m := range ourMounts(mounts) {
		names = append(names, m.mountpoint+" "+m.device)
	}
	require.Equal(t, []string{"/mnt/a b 0:26", "/mnt/twice 0:30"}, names)

	for path, want := range map[string]string{
		"/mnt/a b": "/mnt/a b", "/mnt/a b/dir/file": "/mnt/a b", "/mnt/a bc": "", "/mnt/covered/x": "", "/etc": "", "/": "",
	} {
		m, ok := mountAbove(mounts, path)
		require.Equal(t, want != "", ok, path)
		if ok {
			require.Equal(t, want, m.mountpoint)
		}
	}
}

func TestStateLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "state")
	require.True(t, stateFree(dir), "what does not exist is free")
	l, err := lockState(dir)
	require.NoError(t, err)
	require.Equal(t, owner{}, l.last)
	long := owner{PID: 7, Store: "/srv/" + strings.Repeat("x", 200), StateDir: dir, Mountpoint: "/mnt"}
	require.NoError(t, l.claim(long))
	require.False(t, stateFree(dir))
	require.Equal(t, long, lastOwner(dir))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	start := time.Now()
	_, err = lockState(dir)
	var inUse *inUseError
	require.ErrorAs(t, err, &inUse)
	require.Equal(t, long, inUse.by)
	require.Contains(t, err.Error(), "process 7 for /mnt")
	require.Less(t, time.Since(start), 5*time.Second)

	// A lock that is held for a moment only is waited for.
	first := l
	time.AfterFunc(lockGrace/4, func() { first.unlock() })
	l, err = lockState(dir)
	require.NoError(t, err)
	require.Equal(t, long, l.last)
	require.NoError(t, l.claim(owner{PID: 8, Store: "/s"}))
	require.NoError(t, l.unlock())
	require.True(t, stateFree(dir))
	require.Equal(t, owner{PID: 8, Store: "/s"}, lastOwner(dir), "a shorter text leaves nothing of the longer one")
}

func TestLockIsNoSymlink(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, lockName)))
	_, err := lockState(dir)
	require.Error(t, err)
	require.NoFileExists(t, filepath.Join(dir, "elsewhere"))
}

func TestLiesIn(t *testing.T) {
	dir := tree(t, "a/b/c", "ab")
	require.NoError(t, os.Symlink("a/b", dir+"/link"))
	for _, c := range []struct {
		inner, outer string
		want         bool
	}{
		{"a", "a", true}, {"a/b/c", "a", true}, {"a", "a/b", false}, {"ab", "a", false}, {"link/c", "a", true},
		{"a/none/deeper", "a", true}, {"none", "a", false}, {"a", "none", false}, {"a/b/c", "link", true},
	} {
		got, err := liesIn(filepath.Join(dir, c.inner), filepath.Join(dir, c.outer))
		require.NoError(t, err)
		require.Equal(t, c.want, got, "%s in %s", c.inner, c.outer)
	}
}

func TestWithDeadline(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	err := withDeadline(10*time.Millisecond, func() error { <-release; return nil })
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB", 3 << 29: "1.5 GiB"} {
		require.Equal(t, want, humanBytes(n))
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 3 * time.Hour: "3h0m", 50 * time.Hour: "2d2h",
	} {
		require.Equal(t, want, humanAge(d))
	}
	require.Equal(t, "a b/ö", printable("a b/ö"))
	require.Equal(t, `"a\nb\x1b[2J"`, printable("a\nb\x1b[2J"))
	require.Equal(t, "one two", oneLine("one\ntwo\n"))
}

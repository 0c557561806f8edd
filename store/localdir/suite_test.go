package localdir

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
	"github.com/wholefs/wholefs/store/storetest"
)

// The daemon runs with umask 0, and so do the tests.
func TestMain(m *testing.M) {
	unix.Umask(0)
	os.Exit(m.Run())
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness { return harness(t, t.TempDir()) })
}

// tmpfs differs in what matters here: directory offsets, extended attributes,
// inode numbers that are reused, no blocks.
func TestSuiteOnTmpfs(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness { return harness(t, tmpfs(t)) })
}

// harness is a store in a new directory of base.
func harness(t *testing.T, base string) storetest.Harness {
	s := newStore(t, base)
	owner := store.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	features := storetest.All
	if os.Getuid() == 0 {
		owner = store.Owner{UID: 4001, GID: 4002}
	} else {
		features.SetGID = false
	}
	return storetest.Harness{
		Store: s, Host: s.String(), Owner: owner, Features: features,
		Reopen: func(t *testing.T) store.Store {
			again, err := Open(s.String(), Options{})
			require.NoError(t, err)
			return again
		},
		Stage: func(t *testing.T, content []byte) store.Staged { return stage(t, s, content) },
	}
}

// newStore opens a store in a new directory of base. Whoever calls it closes it.
func newStore(t *testing.T, base string) *Store {
	t.Helper()
	path := filepath.Join(base, "store")
	require.NoError(t, os.Mkdir(path, 0o755))
	s, err := Open(path, Options{})
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(s.StagingPath(), 0o700))
	return s
}

// open opens a store for one test.
func openStore(t *testing.T) *Store {
	t.Helper()
	s := newStore(t, t.TempDir())
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func stage(t *testing.T, s *Store, content []byte) *storetest.Staged {
	t.Helper()
	return storetest.NewStaged(t, s.StagingPath(), content)
}

// tmpfs makes a directory on a tmpfs, or skips the test if there is none.
func tmpfs(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(shm, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		t.Skip("no tmpfs at " + shm)
	}
	dir, err := os.MkdirTemp(shm, "localdir-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

package durable

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// dirs makes two directories and a file "f" with the given content in the first.
func dirs(t *testing.T, content string) (from, to *os.File) {
	t.Helper()
	base := t.TempDir()
	open := func(name string, flags int) *os.File {
		path := filepath.Join(base, name)
		require.NoError(t, os.Mkdir(path, 0o700))
		f, err := os.OpenFile(path, flags|unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	from, to = open("from", os.O_RDONLY), open("to", os.O_RDONLY)
	require.NoError(t, os.WriteFile(filepath.Join(from.Name(), "f"), []byte(content), 0o600))
	return from, to
}

func TestRename(t *testing.T) {
	from, to := dirs(t, "new")
	require.NoError(t, Rename(from, "f", to, "g", 0))
	got, err := os.ReadFile(filepath.Join(to.Name(), "g"))
	require.NoError(t, err)
	require.Equal(t, "new", string(got))
	require.Equal(t, unix.ENOENT, Rename(from, "f", to, "g", 0))
	require.Equal(t, unix.EINVAL, Rename(to, "g", from, "f", 1<<20))

	require.NoError(t, os.WriteFile(filepath.Join(from.Name(), "f"), nil, 0o600))
	require.Equal(t, unix.EEXIST, Rename(from, "f", to, "g", unix.RENAME_NOREPLACE))
	require.NoError(t, Rename(from, "f", to, "g", unix.RENAME_EXCHANGE))
	got, err = os.ReadFile(filepath.Join(from.Name(), "f"))
	require.NoError(t, err)
	require.Equal(t, "new", string(got))
}

func TestRenameWithPathDescriptors(t *testing.T) {
	from, to := dirs(t, "")
	pathOnly := func(f *os.File) *os.File {
		p, err := os.OpenFile(f.Name(), unix.O_PATH|unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	require.NoError(t, Rename(pathOnly(from), "f", pathOnly(to), "f", 0))
	require.Equal(t, unix.EBADF, SyncDir(pathOnly(to)), "syncing takes more")
}

func TestSync(t *testing.T) {
	from, _ := dirs(t, "x")
	require.NoError(t, SyncDir(from))
	f, err := os.Open(filepath.Join(from.Name(), "f"))
	require.NoError(t, err)
	require.NoError(t, SyncFile(f))
	require.NoError(t, f.Close())
	require.Equal(t, unix.EBADF, SyncFile(f), "closed")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	require.Equal(t, unix.EINVAL, SyncFile(w))
	require.NoError(t, SyncDir(w), "what cannot be synced has nothing to wait for")
}

func TestClosedDirectories(t *testing.T) {
	from, to := dirs(t, "x")
	require.NoError(t, to.Close())
	require.Equal(t, unix.EBADF, Rename(from, "f", to, "f", 0))
	require.Equal(t, unix.EBADF, Rename(to, "f", from, "f", 0))
	require.Equal(t, unix.EBADF, SyncDir(to))
	require.FileExists(t, filepath.Join(from.Name(), "f"))
}

func TestRecorder(t *testing.T) {
	from, to := dirs(t, "x")
	f, err := os.Open(filepath.Join(from.Name(), "f"))
	require.NoError(t, err)
	defer f.Close()

	var r Recorder
	stop := Observe(r.Step)
	require.NoError(t, SyncFile(f))
	require.NoError(t, Rename(from, "f", to, "g", 0))
	require.NoError(t, SyncDir(to))
	var lines []string
	for _, s := range r.Steps() {
		lines = append(lines, s.String())
	}
	require.Equal(t, []string{"sync-file f", "rename from/f -> to/g", "sync-dir to"}, lines)
	require.Empty(t, r.Steps(), "once told, forgotten")

	r.Fail(OpRename, unix.EIO)
	require.Equal(t, unix.EIO, Rename(to, "g", from, "f", 0))
	require.FileExists(t, filepath.Join(to.Name(), "g"), "a step that fails is not done")
	require.NoError(t, SyncDir(to), "others are")
	r.Fail(OpRename, nil)
	require.NoError(t, Rename(to, "g", from, "f", 0))

	require.Panics(t, func() { Observe(r.Step) }, "two observers would not know of each other")
	stop()
	r.Steps()
	require.NoError(t, SyncDir(to))
	require.Empty(t, r.Steps())
	Observe(r.Step)() // there is room again
	stop()            // and a second stop does nothing
}

func TestNoAllocationsBeyondTheDescriptors(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() { _ = note(Step{Op: OpSyncDir}) })
	require.Zero(t, allocs, "without an observer")
}

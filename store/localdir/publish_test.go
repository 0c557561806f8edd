package localdir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/durable"
	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
	"github.com/wholefs/wholefs/store/storetest"
)

var background = context.Background()

// begin begins an upload of staged to path.
func begin(t *testing.T, s *Store, path string, staged *storetest.Staged) (store.Upload, store.Final) {
	t.Helper()
	u, err := s.Begin(background, store.Plan{Path: path, Staged: staged})
	require.NoError(t, err)
	info, err := staged.Fd().Stat()
	require.NoError(t, err)
	f := store.Final{Path: path, Size: info.Size(), Staged: staged}
	if a, err := fdnode.StatAt(unix.AT_FDCWD, filepath.Join(s.String(), path)); err == nil {
		f.Base = a.ID // the next version of what is there
	}
	return u, f
}

// record lets the test see what is synced and renamed, in order.
func record(t *testing.T) *durable.Recorder {
	var r durable.Recorder
	t.Cleanup(durable.Observe(r.Step))
	return &r
}

// order renders steps with staging names replaced by "staged".
func order(r *durable.Recorder, staged *storetest.Staged) []string {
	var lines []string
	for _, step := range r.Steps() {
		lines = append(lines, strings.ReplaceAll(step.String(), staged.Name(), "staged"))
	}
	return lines
}

func TestOrderOfADurablePublish(t *testing.T) {
	s := openStore(t)
	require.NoError(t, os.Mkdir(filepath.Join(s.String(), "d"), 0o755))
	r := record(t)
	for _, d := range []store.Durability{store.DurabilityClose, store.DurabilityPart} {
		staged := stage(t, s, []byte("x"))
		u, f := begin(t, s, "d/f", staged)
		f.Durability = d
		_, err := u.Complete(background, f)
		require.NoError(t, err)
		require.Equal(t, []string{
			"sync-file staged",
			"rename staging/staged -> d/f",
			"sync-dir d",
			"sync-dir staging",
		}, order(r, staged))

		// Again, as after a crash between the rename and the syncs.
		_, err = u.Complete(background, f)
		require.NoError(t, err)
		require.Equal(t, []string{"sync-dir d", "sync-dir staging"}, order(r, staged))
		f.Staged = nil
		_, err = u.Complete(background, f)
		require.NoError(t, err)
		require.Equal(t, []string{"sync-dir d"}, order(r, staged))
	}
}

func TestOrderOfAPublishWithoutDurability(t *testing.T) {
	s := openStore(t)
	r := record(t)
	staged := stage(t, s, []byte("x"))
	u, f := begin(t, s, "f", staged)
	_, err := u.Complete(background, f)
	require.NoError(t, err)
	require.Equal(t, []string{"rename staging/staged -> store/f"}, order(r, staged))
}

// A publish in place is only as safe as its redo record, so it syncs always:
// the record before it begins, the content before it says that it is done.
func TestOrderOfAPublishInPlace(t *testing.T) {
	s := openStore(t)
	linked(t, s, "f", []byte("old"))
	r := record(t)
	staged := stage(t, s, []byte("new"))
	u, f := begin(t, s, "f", staged)
	p, err := u.Complete(background, f)
	require.NoError(t, err)
	require.True(t, p.InPlace)
	require.Equal(t, []string{"sync-file staged", "sync-dir staging", "sync-file f"}, order(r, staged))
}

// linked publishes a file with two names, name and name+"2".
func linked(t *testing.T, s *Store, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(s.String(), name)
	require.NoError(t, os.WriteFile(path, content, 0o644))
	require.NoError(t, os.Link(path, path+"2"))
	return path
}

func TestFailedStepsPublishNothing(t *testing.T) {
	for _, op := range []durable.Op{durable.OpSyncFile, durable.OpRename} {
		for _, old := range []string{"", "old"} {
			t.Run(fmt.Sprintf("%s over %q", op, old), func(t *testing.T) {
				s := openStore(t)
				path := filepath.Join(s.String(), "f")
				if old != "" {
					require.NoError(t, os.WriteFile(path, []byte(old), 0o644))
				}
				staged := stage(t, s, []byte("new"))
				u, f := begin(t, s, "f", staged)
				f.Durability = store.DurabilityClose
				r := record(t)
				r.Fail(op, unix.EIO)
				_, err := u.Complete(background, f)
				require.ErrorIs(t, err, unix.EIO)
				require.ErrorContains(t, err, `publish "f"`)
				got, _ := os.ReadFile(path)
				require.Equal(t, old, string(got))
				require.FileExists(t, filepath.Join(s.StagingPath(), staged.Name()))
				done, err := u.Completed(background, f)
				require.NoError(t, err)
				require.False(t, done)

				r.Fail(op, nil)
				_, err = u.Complete(background, f)
				require.NoError(t, err)
				got, err = os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, "new", string(got))
			})
		}
	}
}

func TestFailedDirectorySyncIsAnErrorThatHidesASuccess(t *testing.T) {
	s := openStore(t)
	staged := stage(t, s, []byte("new"))
	u, f := begin(t, s, "f", staged)
	f.Durability = store.DurabilityClose
	r := record(t)
	r.Fail(durable.OpSyncDir, unix.EIO)
	_, err := u.Complete(background, f)
	require.ErrorIs(t, err, unix.EIO)
	done, err := u.Completed(background, f)
	require.NoError(t, err)
	require.True(t, done)
	r.Fail(durable.OpSyncDir, nil)
	_, err = u.Complete(background, f)
	require.NoError(t, err)
}

func TestStagingFileIsVerified(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, path string)
		says string
	}{
		{"gone", func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }, "is gone"},
		{"exchanged", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".new", []byte("bad"), 0o600))
			require.NoError(t, os.Rename(path+".new", path))
		}, "was exchanged"},
		{"a symlink", func(t *testing.T, path string) {
			require.NoError(t, os.Rename(path, path+".moved"))
			require.NoError(t, os.Symlink(path+".moved", path))
		}, "was exchanged"},
		{"longer", func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 4)) }, "has 4 bytes, 3 were expected"},
		{"shorter", func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 2)) }, "has 2 bytes, 3 were expected"},
	}
	for _, tt := range tests {
		for _, way := range []string{"rename", "in place"} {
			t.Run(tt.name+", "+way, func(t *testing.T) {
				s := openStore(t)
				path := filepath.Join(s.String(), "f")
				require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
				if way == "in place" {
					require.NoError(t, os.Link(path, path+"2"))
				}
				staged := stage(t, s, []byte("new"))
				u, f := begin(t, s, "f", staged)
				tt.do(t, filepath.Join(s.StagingPath(), staged.Name()))
				_, err := u.Complete(background, f)
				require.ErrorIs(t, err, unix.EIO)
				require.ErrorContains(t, err, tt.says)
				require.ErrorContains(t, err, staged.Name())
				got, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, "old", string(got))
			})
		}
	}
}

func TestBeginAndResumeKnowTheirStagingFile(t *testing.T) {
	s := openStore(t)
	a, b := stage(t, s, []byte("a")), stage(t, s, []byte("b"))
	u, _ := begin(t, s, "f", a)
	info, err := a.Fd().Stat()
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	require.Equal(t, fmt.Sprintf("%d-%d", st.Dev, st.Ino), u.ID())

	_, err = s.Resume(background, u.ID(), store.Plan{Path: "f", Staged: a})
	require.NoError(t, err)
	_, err = s.Resume(background, u.ID(), store.Plan{Path: "f", Staged: b})
	require.ErrorIs(t, err, unix.EIO)
	_, err = s.Begin(background, store.Plan{Path: "f"})
	require.ErrorIs(t, err, unix.EINVAL)
	_, err = u.PutPart(background, store.Part{}, a)
	require.ErrorIs(t, err, unix.EOPNOTSUPP)
}

// Device numbers are given at mount time: after a reboot the same filesystem
// may have another.
func TestResumeUnderAnotherDeviceNumber(t *testing.T) {
	s := openStore(t)
	staged := stage(t, s, []byte("x"))
	u, f := begin(t, s, "f", staged)
	id, ok := parseID(u.ID())
	require.True(t, ok)
	id.Dev++
	again, err := s.Resume(background, formatID(id), store.Plan{Path: "f", Staged: staged})
	require.NoError(t, err)
	_, err = again.Complete(background, f)
	require.NoError(t, err)
	done, err := again.Completed(background, f)
	require.NoError(t, err)
	require.True(t, done)
}

func TestStagingOnAnotherFilesystemIsRefused(t *testing.T) {
	s := openStore(t)
	staged := storetest.NewStaged(t, tmpfs(t), []byte("x"))
	_, err := s.Begin(background, store.Plan{Path: "f", Staged: staged})
	require.ErrorIs(t, err, unix.EXDEV)
	require.ErrorContains(t, err, "not on the filesystem of "+s.String())
}

// Somebody linked the staging file to its place by hand: rename(2) would do
// nothing and call it a success.
func TestCompleteWhereBothNamesAreTheStagingFile(t *testing.T) {
	s := openStore(t)
	staged := stage(t, s, []byte("x"))
	u, f := begin(t, s, "f", staged)
	name := filepath.Join(s.StagingPath(), staged.Name())
	require.NoError(t, os.Link(name, filepath.Join(s.String(), "f")))
	p, err := u.Complete(background, f)
	require.NoError(t, err)
	require.False(t, p.InPlace)
	require.NoFileExists(t, name)
}

// The look at the target and the rename are two steps: what appears between
// them must not be replaced either.
func TestNoReplaceWhereTheNameAppearsMeanwhile(t *testing.T) {
	s := openStore(t)
	path := filepath.Join(s.String(), "f")
	u, f := begin(t, s, "f", stage(t, s, []byte("new")))
	f.NoReplace = true
	stop := durable.Observe(func(durable.Step) error { return os.WriteFile(path, []byte("first"), 0o644) })
	_, err := u.Complete(background, f)
	stop()
	require.ErrorIs(t, err, unix.EEXIST)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "first", string(got))
}

func TestPublishOverOtherTypes(t *testing.T) {
	s := openStore(t)
	at := func(name string) string { return filepath.Join(s.String(), name) }
	require.NoError(t, os.Symlink("target", at("link")))
	require.NoError(t, os.WriteFile(at("target"), []byte("target"), 0o644))
	require.NoError(t, unix.Mkfifo(at("fifo"), 0o644))
	for _, name := range []string{"link", "fifo"} {
		u, f := begin(t, s, name, stage(t, s, []byte("x")))
		_, err := u.Complete(background, f)
		require.NoError(t, err)
		info, err := os.Lstat(at(name))
		require.NoError(t, err)
		require.True(t, info.Mode().IsRegular(), "the %s itself is replaced", name)
	}
	got, err := os.ReadFile(at("target"))
	require.NoError(t, err)
	require.Equal(t, "target", string(got))
}

// sparse makes a staging file of data and holes.
func sparse(t *testing.T, s *Store, size int64, data map[int64]string) *storetest.Staged {
	t.Helper()
	staged := stage(t, s, nil)
	for off, text := range data {
		_, err := staged.Fd().WriteAt([]byte(text), off)
		require.NoError(t, err)
	}
	require.NoError(t, staged.Fd().Truncate(size))
	return staged
}

func TestInPlaceKeepsHoles(t *testing.T) {
	const size = 64 << 20
	for name, base := range map[string]string{"ext4 or what there is": t.TempDir(), "tmpfs": ""} {
		t.Run(name, func(t *testing.T) {
			if base == "" {
				base = tmpfs(t)
			}
			s := newStore(t, base)
			defer s.Close()
			// The old content is dense where the new one has holes.
			path := linked(t, s, "f", []byte(strings.Repeat("o", 3<<20)))
			staged := sparse(t, s, size, map[int64]string{1 << 20: "middle", size - 5: "tail!"})
			want, err := os.ReadFile(filepath.Join(s.StagingPath(), staged.Name()))
			require.NoError(t, err)
			u, f := begin(t, s, "f", staged)
			p, err := u.Complete(background, f)
			require.NoError(t, err)
			require.True(t, p.InPlace)
			require.EqualValues(t, size, p.Attr.Size)
			got, err := os.ReadFile(path + "2")
			require.NoError(t, err)
			require.True(t, string(want) == string(got))
			require.Less(t, p.Attr.Blocks*512, int64(1<<20), "holes became data")
		})
	}
}

func TestInPlaceTakesOverAttributes(t *testing.T) {
	s := openStore(t)
	path := linked(t, s, "f", []byte("old"))
	staged := stage(t, s, []byte("new"))
	n := fdnode.Node{F: staged.Fd()}
	require.NoError(t, n.SetXattr("user.a", []byte("1"), 0))
	atime, mtime, mode := time.Unix(1000, 1), time.Unix(2000, 2), uint32(0o2710)
	_, err := n.SetAttr(store.Change{Mode: &mode, Atime: &atime, Mtime: &mtime})
	require.NoError(t, err)
	u, f := begin(t, s, "f", staged)
	p, err := u.Complete(background, f)
	require.NoError(t, err)
	require.Equal(t, mode, p.Attr.Mode&0o7777)
	require.True(t, mtime.Equal(p.Attr.Mtime), "%v", p.Attr.Mtime)
	require.True(t, atime.Equal(p.Attr.Atime), "%v", p.Attr.Atime)
	var buf [8]byte
	length, err := unix.Getxattr(path+"2", "user.a", buf[:])
	require.NoError(t, err)
	require.Equal(t, "1", string(buf[:length]))
	require.FileExists(t, filepath.Join(s.StagingPath(), staged.Name()), "the redo record is the caller's to remove")
}

// A crash, or an error, in the middle of a publish in place: Complete again
// makes it whole, on the upload that Resume gives.
func TestInPlaceIsRedone(t *testing.T) {
	s := openStore(t)
	path := linked(t, s, "f", []byte("old and much longer"))
	staged := stage(t, s, []byte("new"))
	u, f := begin(t, s, "f", staged)
	syncs := 0
	stop := durable.Observe(func(step durable.Step) error {
		if step.Op == durable.OpSyncFile {
			if syncs++; syncs == 2 { // the first is that of the redo record
				return unix.EIO
			}
		}
		return nil
	})
	_, err := u.Complete(background, f)
	stop()
	require.ErrorIs(t, err, unix.EIO)
	require.FileExists(t, filepath.Join(s.StagingPath(), staged.Name()))
	require.NoError(t, os.WriteFile(path, []byte("torn by the crash, half"), 0o644))

	u, err = s.Resume(background, u.ID(), store.Plan{Path: "f", Staged: staged})
	require.NoError(t, err)
	done, err := u.Completed(background, f)
	require.NoError(t, err)
	require.False(t, done)
	for range 2 { // once more: replay twice is replay once
		_, err = u.Complete(background, f)
		require.NoError(t, err)
		got, err := os.ReadFile(path + "2")
		require.NoError(t, err)
		require.Equal(t, "new", string(got))
	}
}

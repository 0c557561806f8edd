package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/control"
	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// openTestHouse opens a house as a mount would.
func openTestHouse(t *testing.T, storeDir, stateDir string) *house {
	t.Helper()
	layout, err := chunker.NewLayout(4096)
	require.NoError(t, err)
	h, err := claimHouse(storeDir, stateDir, owner{PartSize: 4096})
	require.NoError(t, err)
	require.NoError(t, h.furnish(t.Context(), session.Options{Layout: layout}, journal.Options{}))
	return h
}

func (h *house) end(t *testing.T) {
	t.Helper()
	require.NoError(t, h.engine.Close(t.Context()))
	require.NoError(t, h.close())
}

// killed leaves a held session at path, as a killed writer does.
func (h *house) killed(t *testing.T, path, content string) {
	t.Helper()
	s, err := h.engine.Create(t.Context(), path, store.Attr{Mode: unix.S_IFREG | 0o644, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	require.NoError(t, err)
	w := s.Writer(1)
	at, err := w.Begin(0, int64(len(content)), session.WriteOptions{})
	require.NoError(t, err)
	w.Finish(at, []byte(content))
	_ = w.Flush(t.Context(), session.Caller{TGID: 1, Killed: true, Signal: 9}) // nobody is there to be told
	require.NoError(t, w.Release(t.Context()))
	require.Equal(t, session.StateHeld, s.State())
}

// listening is a mount without a mount: real sessions behind a real socket.
type listening struct{ sessions }

func (listening) Status(context.Context) (control.Status, error) { return control.Status{}, nil }
func (listening) Unmount(context.Context, control.UnmountRequest) (control.UnmountResult, error) {
	return control.UnmountResult{}, errors.New("no mount")
}

// The session commands do the same to a live daemon and to a state directory
// that nobody holds.
func TestSessionCommands(t *testing.T) {
	for _, live := range []bool{true, false} {
		t.Run(map[bool]string{true: "live", false: "offline"}[live], func(t *testing.T) {
			dir := tree(t, "store")
			storeDir := filepath.Join(dir, "store")
			h := openTestHouse(t, storeDir, "")
			h.killed(t, "one", strings.Repeat("1", 10000))
			h.killed(t, "two words", "22")
			h.killed(t, "three", "333")
			if live {
				l, err := control.Listen(h.stateDir)
				require.NoError(t, err)
				s := control.Serve(l, listening{sessions{h.engine}}, nil)
				defer h.end(t)
				defer s.Close(t.Context())
			} else {
				h.end(t)
			}
			list := func() (l []control.Session) {
				code, out, errs := call(t, nil, "session", "ls", "--json", storeDir)
				require.Equal(t, exitDone, code, errs)
				require.NoError(t, json.Unmarshal([]byte(out), &l))
				return l
			}
			all := list()
			require.Len(t, all, 3)
			require.Equal(t, "held", all[0].State)
			require.Contains(t, all[0].Reason, "SIGKILL")

			code, out, errs := call(t, nil, "session", "ls", filepath.Join(storeDir, stateDirName))
			require.Equal(t, exitDone, code, errs)
			require.Contains(t, out, "two words")
			require.Contains(t, out, "9.8 KiB")

			code, out, errs = call(t, nil, "session", "show", storeDir, "one")
			require.Equal(t, exitDone, code, errs)
			require.Contains(t, out, "10000 bytes")

			code, _, errs = call(t, nil, "session", "publish", storeDir, "four")
			require.Equal(t, exitFailed, code)
			require.Contains(t, errs, "no session four; wholefs session ls")
			oneErrorLine(t, errs)
			code, _, errs = call(t, nil, "session", "publish", storeDir, all[0].ID[:4])
			require.Equal(t, exitFailed, code)
			require.Contains(t, errs, "give more of the id")

			code, out, errs = call(t, nil, "session", "publish", storeDir, "two words")
			require.Equal(t, exitDone, code, errs)
			require.Equal(t, "published two words (2 B)\n", out)
			text, err := os.ReadFile(filepath.Join(storeDir, "two words"))
			require.NoError(t, err)
			require.Equal(t, "22", string(text))

			code, out, errs = call(t, nil, "session", "abort", storeDir, all[0].ID)
			require.Equal(t, exitDone, code, errs)
			require.Equal(t, "aborted one (9.8 KiB)\n", out)
			require.NoFileExists(t, filepath.Join(storeDir, "one"))

			code, _, errs = call(t, nil, "session", "retry", storeDir, "three")
			require.Equal(t, exitDone, code, errs)
			require.FileExists(t, filepath.Join(storeDir, "three"))
			require.Empty(t, list())
		})
	}
}

// Bytes that rotted in staging are missing: publishing is refused with their
// place, until it is forced.
func TestPublishWithMissingBytes(t *testing.T) {
	dir := tree(t, "store")
	storeDir := filepath.Join(dir, "store")
	h := openTestHouse(t, storeDir, "")
	h.killed(t, "rotten", strings.Repeat("x", 3*4096))
	h.end(t)
	staged, err := filepath.Glob(filepath.Join(storeDir, stateDirName, "staging", "*"))
	require.NoError(t, err)
	require.Len(t, staged, 1)
	f, err := os.OpenFile(staged[0], os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("y"), 5000)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	code, _, errs := call(t, nil, "session", "publish", storeDir, "rotten")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "rotten is not whole: its bytes 4096-8191 are missing; with --force they become holes")
	require.NoFileExists(t, filepath.Join(storeDir, "rotten"))
	code, _, errs = call(t, nil, "session", "publish", "--force", storeDir, "rotten")
	require.Equal(t, exitDone, code, errs)
	text, err := os.ReadFile(filepath.Join(storeDir, "rotten"))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", 4096)+strings.Repeat("\x00", 4096)+strings.Repeat("x", 4096), string(text))
}

func TestStateDirInUse(t *testing.T) {
	dir := tree(t, "store", "mnt", "state")
	h := openTestHouse(t, dir+"/store", "")
	defer h.end(t)
	for _, args := range [][]string{
		{"mount", "-f", dir + "/store", dir + "/mnt"},
		{"mount", "-f", "--state-dir=" + dir + "/state", dir + "/store", dir + "/mnt"},
		{"session", "ls", dir + "/store"}, // held, but nobody listens
	} {
		code, _, errs := call(t, nil, args...)
		require.Equal(t, exitFailed, code, errs)
		require.Contains(t, errs, "is in use by process")
		oneErrorLine(t, errs)
	}
}

// Another journal does not know the staging files: it may not have them.
func TestAnotherStateDirIsRefusedWhileFilesAreHeld(t *testing.T) {
	dir := tree(t, "store")
	h := openTestHouse(t, dir+"/store", dir+"/state one")
	h.killed(t, "f", "content")
	h.end(t)
	for _, other := range []string{"", dir + "/state two"} {
		_, err := claimHouse(dir+"/store", other, owner{})
		require.ErrorContains(t, err, "state one")
		require.Equal(t, exitFailed, exitCode(err))
	}
	// The store leads to the state directory that knows them.
	code, out, errs := call(t, nil, "session", "abort", dir+"/store", "f")
	require.Equal(t, exitDone, code, errs)
	require.Contains(t, out, "aborted f")
	h = openTestHouse(t, dir+"/store", dir+"/state two")
	h.end(t)
	h = openTestHouse(t, dir+"/store", "")
	h.end(t)
}

func TestObservedStoreCountsRequests(t *testing.T) {
	o := newMountOptions()
	o.store, o.mountpoint = tree(t), "/nowhere"
	require.NoError(t, o.validate(nil))
	hs, err := claimHouse(o.store, "", owner{})
	require.NoError(t, err)
	d := &daemon{o: o, house: hs, log: &logger{Logger: slog.New(slog.DiscardHandler)}, drained: make(chan struct{})}
	require.NoError(t, d.furnish(t.Context()))
	defer hs.end(t)
	hs.killed(t, "f", "content")
	require.NoError(t, hs.engine.PublishID(t.Context(), "f", false))
	o.watch.metrics = "127.0.0.1:0"
	stop, err := d.startServers()
	require.NoError(t, err)
	defer stop()
	text := get(t, d.url+"/metrics")
	require.Contains(t, text, `wholefs_store_requests_total{code="OK",op="complete"} 1`)
	require.Contains(t, text, `wholefs_sessions{state="held"} 0`)
	require.Regexp(t, `wholefs_buffer_limit_bytes [1-9]`, text)
	require.Contains(t, get(t, d.url+"/healthz"), "not mounted yet")
	client, err := control.Dial(t.Context(), hs.stateDir)
	require.NoError(t, err)
	_, err = client.Unmount(t.Context(), control.UnmountRequest{})
	require.ErrorContains(t, err, "just being made")
	status, err := client.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, d.url, status.Metrics)
	require.Equal(t, os.Getpid(), status.PID)
	require.NoError(t, writeStatus(io.Discard, status, status.Started))
}

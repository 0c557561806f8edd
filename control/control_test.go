package control

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// standing is a Mount that stands still: it tells what it was made with and
// records what it was told. The real one, over the session engine, is tested
// with the commands in cmd/wholefs.
type standing struct {
	status   Status
	sessions []Session
	done     []string
	fail     error
	unmount  func(context.Context, UnmountRequest) (UnmountResult, error)
}

func (s *standing) Status(context.Context) (Status, error)      { return s.status, s.fail }
func (s *standing) Sessions(context.Context) ([]Session, error) { return s.sessions, s.fail }
func (s *standing) Session(_ context.Context, which string) (Session, error) {
	return Match(s.sessions, which)
}

func (s *standing) Act(_ context.Context, which string, a Action, force bool) (Session, error) {
	found, err := Match(s.sessions, which)
	if err != nil {
		return found, err
	}
	word := string(a) + " " + found.Path
	if force {
		word += " by force"
	}
	s.done = append(s.done, word)
	return found, s.fail
}

func (s *standing) Unmount(ctx context.Context, r UnmountRequest) (UnmountResult, error) {
	return s.unmount(ctx, r)
}

// connect serves m on a real socket in dir and dials it.
func connect(t *testing.T, dir string, m Mount) *Client {
	t.Helper()
	l, err := Listen(dir)
	require.NoError(t, err)
	s := Serve(l, m, nil)
	t.Cleanup(func() { require.NoError(t, s.Close(context.Background())) })
	c, err := Dial(context.Background(), dir)
	require.NoError(t, err)
	return c
}

var when = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

var some = []Session{
	{ID: "0192-aa01", Path: "a/b c.bin", State: "held", Reason: "writer killed", Size: 10, PartSize: 4096, Created: when, Updated: when, Missing: []Extent{{2, 4}}},
	{ID: "0192-aa02", Path: "100%/x?y#z", State: "open", Writers: 1, Created: when, Updated: when},
	{ID: "0192-bb03", Path: "0192-aa", State: "open", Created: when, Updated: when},
}

func TestAnswersTravelUnchanged(t *testing.T) {
	ctx := context.Background()
	m := &standing{sessions: some, status: Status{
		State: "mounted", Store: "/srv", Mountpoint: "/mnt", PID: 7, Started: when, Uptime: 1.5,
		Buffers: Buffers{InUse: 1, Limit: 2}, Journal: Journal{Disk: 3}, Sessions: some,
	}}
	c := connect(t, t.TempDir(), m)

	status, err := c.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, m.status, status)
	list, err := c.Sessions(ctx)
	require.NoError(t, err)
	require.Equal(t, some, list)
	for _, want := range some {
		for _, which := range []string{want.ID, want.Path, "/" + want.Path} {
			got, err := c.Session(ctx, which)
			require.NoError(t, err, which)
			require.Equal(t, want, got)
		}
	}

	for _, a := range []Action{Publish, Abort, Retry} {
		_, err = c.Act(ctx, "100%/x?y#z", a, a == Abort)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"publish 100%/x?y#z", "abort 100%/x?y#z by force", "retry 100%/x?y#z"}, m.done)
}

func TestNoSessionsIsAnEmptyList(t *testing.T) {
	dir := t.TempDir()
	c := connect(t, dir, &standing{})
	resp, err := c.http.Get("http://wholefs/v1/sessions")
	require.NoError(t, err)
	defer resp.Body.Close()
	text := make([]byte, 16)
	n, _ := resp.Body.Read(text)
	require.Equal(t, "[]\n", string(text[:n]))
}

func TestErrorsTravelWithTheirParts(t *testing.T) {
	ctx := context.Background()
	m := &standing{sessions: some}
	c := connect(t, t.TempDir(), m)
	var e *Error

	_, err := c.Session(ctx, "nothing/here")
	require.ErrorAs(t, err, &e)
	require.Equal(t, NotFound, e.Code)
	require.Contains(t, e.Message, "nothing/here")

	_, err = c.Act(ctx, "0192-a", Publish, false)
	require.ErrorAs(t, err, &e)
	require.Equal(t, Ambiguous, e.Code)
	require.Contains(t, e.Message, "0192-aa01, 0192-aa02")

	for _, want := range []*Error{
		{Code: Incomplete, Message: "missing", Missing: []Extent{{2, 4}, {8, 9}}},
		{Code: Busy, Message: "busy", Holders: []Process{{PID: 3, Command: "cp", Holds: "/mnt/a"}}},
		{Code: Deadline, Message: "late", Left: some},
	} {
		m.fail = want
		_, err = c.Act(ctx, some[0].ID, Publish, false)
		require.ErrorAs(t, err, &e)
		require.Equal(t, want, e)
	}
	m.fail = errors.New("plain")
	_, err = c.Status(ctx)
	require.ErrorAs(t, err, &e)
	require.Equal(t, &Error{Code: Failed, Message: "plain"}, e)
	m.fail = context.DeadlineExceeded
	_, err = c.Status(ctx)
	require.ErrorAs(t, err, &e)
	require.Equal(t, Deadline, e.Code)
}

func TestUnmount(t *testing.T) {
	var got UnmountRequest
	m := &standing{unmount: func(_ context.Context, r UnmountRequest) (UnmountResult, error) {
		got = r
		return UnmountResult{Left: some[:1]}, nil
	}}
	c := connect(t, t.TempDir(), m)
	res, err := c.Unmount(context.Background(), UnmountRequest{Timeout: 2.5, Lazy: true})
	require.NoError(t, err)
	require.Equal(t, UnmountRequest{Timeout: 2.5, Lazy: true}, got)
	require.Equal(t, some[:1], res.Left)
}

func TestClientDeadline(t *testing.T) {
	release := make(chan struct{})
	m := &standing{unmount: func(ctx context.Context, _ UnmountRequest) (UnmountResult, error) {
		<-release
		return UnmountResult{}, nil
	}}
	c := connect(t, t.TempDir(), m)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Unmount(ctx, UnmountRequest{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	close(release)
}

// A request that is being answered while the server closes still gets its
// answer: unmounting is such a request.
func TestCloseWaitsForAnswers(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	require.NoError(t, err)
	started, release := make(chan struct{}), make(chan struct{})
	s := Serve(l, &standing{unmount: func(context.Context, UnmountRequest) (UnmountResult, error) {
		close(started)
		<-release
		return UnmountResult{Left: some[:2]}, nil
	}}, nil)
	c, err := Dial(context.Background(), dir)
	require.NoError(t, err)
	closed := make(chan error)
	go func() {
		<-started
		go func() { closed <- s.Close(context.Background()) }()
		time.Sleep(20 * time.Millisecond)
		close(release)
	}()
	res, err := c.Unmount(context.Background(), UnmountRequest{})
	require.NoError(t, err)
	require.Len(t, res.Left, 2)
	require.NoError(t, <-closed)
	_, err = os.Lstat(filepath.Join(dir, SocketName))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	_, err := Dial(context.Background(), dir)
	require.ErrorIs(t, err, ErrNoDaemon)
	_, err = Dial(context.Background(), filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, ErrNoDaemon)

	// What a killed daemon leaves.
	old, err := Listen(dir)
	require.NoError(t, err)
	old.(listener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, old.Close())
	_, err = os.Lstat(filepath.Join(dir, SocketName))
	require.NoError(t, err)
	_, err = Dial(context.Background(), dir)
	require.ErrorIs(t, err, ErrNoDaemon)

	c := connect(t, dir, &standing{})
	_, err = c.Status(context.Background())
	require.NoError(t, err)
	info, err := os.Lstat(filepath.Join(dir, SocketName))
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40), strings.Repeat("path", 40))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	c := connect(t, dir, &standing{sessions: some})
	list, err := c.Sessions(context.Background())
	require.NoError(t, err)
	require.Len(t, list, len(some))
	_, err = os.Lstat(filepath.Join(dir, SocketName))
	require.NoError(t, err)
}

func TestUnknownRequests(t *testing.T) {
	c := connect(t, t.TempDir(), &standing{})
	err := c.do(context.Background(), http.MethodGet, "/v2/status", nil, nil)
	require.ErrorContains(t, err, "404")
	err = c.do(context.Background(), http.MethodGet, "/v1/unmount", nil, nil)
	require.ErrorContains(t, err, "405")
	err = c.do(context.Background(), http.MethodPost, "/v1/unmount", "not an object", nil)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, Failed, e.Code)
}

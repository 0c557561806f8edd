package telemetry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestListenTakesTheNextFreePort(t *testing.T) {
	taken, err := Listen("127.0.0.1:0", "")
	require.NoError(t, err)
	defer taken.Close()
	l, err := Listen(taken.Addr().String(), "")
	require.NoError(t, err)
	defer l.Close()
	first, second := taken.Addr().(*net.TCPAddr).Port, l.Addr().(*net.TCPAddr).Port
	require.Greater(t, second, first)
	require.LessOrEqual(t, second, first+portsTried)
}

func TestListenErrors(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "127.0.0.1:nope", "127.0.0.1:70000", "192.0.2.1:0"} {
		_, err := Listen(addr, "token")
		require.Error(t, err, addr)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.invalid:0"} {
		_, err := Listen(addr, "")
		require.ErrorIs(t, err, ErrNeedsToken, addr)
	}
}

func TestServe(t *testing.T) {
	var unhealthy error
	m := New(Build{}, Sources{})
	l, err := Listen("localhost:0", "")
	require.NoError(t, err)
	s := m.Serve(l, ServeOptions{Title: "/srv/<data>", Healthy: func(context.Context) error { return unhealthy }})
	get := func(path string) *http.Response {
		t.Helper()
		resp, err := http.Get(s.URL() + path)
		require.NoError(t, err)
		return resp
	}

	resp := get("/")
	require.Equal(t, 200, resp.StatusCode)
	page := body(t, resp)
	require.Contains(t, page, `href="/metrics"`)
	require.Contains(t, page, `href="/healthz"`)
	require.Contains(t, page, "/srv/&lt;data&gt;")

	resp = get("/metrics")
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, body(t, resp), "wholefs_build_info")

	resp = get("/healthz")
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "ok\n", body(t, resp))

	unhealthy = errors.New("the mount does not answer")
	resp = get("/healthz")
	require.Equal(t, 503, resp.StatusCode)
	require.Contains(t, body(t, resp), unhealthy.Error())

	resp = get("/nothing")
	require.Equal(t, 404, resp.StatusCode)
	resp.Body.Close()

	http.DefaultClient.CloseIdleConnections()
	require.NoError(t, s.Close())
	_, err = net.DialTimeout("tcp", l.Addr().String(), time.Second)
	require.Error(t, err)
}

func TestTokenIsNeededOnEveryPage(t *testing.T) {
	m := New(Build{}, Sources{})
	l, err := Listen("127.0.0.1:0", "secret")
	require.NoError(t, err)
	s := m.Serve(l, ServeOptions{Token: "secret"})
	defer s.Close()
	for _, c := range []struct {
		header string
		want   int
	}{{"", 401}, {"secret", 401}, {"Bearer wrong", 401}, {"Bearer secret2", 401}, {"Bearer secret", 200}} {
		for _, path := range []string{"/", "/metrics", "/healthz"} {
			req, err := http.NewRequest("GET", s.URL()+path, nil)
			require.NoError(t, err)
			if c.header != "" {
				req.Header.Set("Authorization", c.header)
			}
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, c.want, resp.StatusCode, "%q %s", c.header, path)
		}
	}
}

func TestServeProfiles(t *testing.T) {
	l, err := Listen("127.0.0.1:0", "")
	require.NoError(t, err)
	s := ServeProfiles(l, nil)
	defer s.Close()
	resp, err := http.Get(s.URL() + "/debug/pprof/goroutine?debug=1")
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, body(t, resp), "goroutine profile")
}

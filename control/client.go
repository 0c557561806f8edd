package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// dialTimeout is how long a daemon may take to accept a connection: it has a
// queue for them, so one that does not is stopped or dead.
const dialTimeout = 5 * time.Second

// Client asks the daemon that serves a state directory. Its methods wait as
// long as their context allows.
type Client struct {
	http http.Client
}

var _ Mount = (*Client)(nil)

// Dial returns a client for the socket in the state directory dir, after
// trying it once. The error is ErrNoDaemon where nobody listens.
func Dial(ctx context.Context, dir string) (*Client, error) {
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := dial(ctx, dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, ErrNoDaemon
		}
		return conn, err
	}
	conn, err := connect(ctx, "", "")
	if err != nil {
		return nil, err
	}
	conn.Close()
	return &Client{http: http.Client{Transport: &http.Transport{DialContext: connect, DisableKeepAlives: true}}}, nil
}

// Status asks what the mount is and does.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Sessions asks for every unpublished session.
func (c *Client) Sessions(ctx context.Context) (list []Session, err error) {
	return list, c.do(ctx, http.MethodGet, "/v1/sessions", nil, &list)
}

// Session asks for one session, by id, by the beginning of an id, or by path.
func (c *Client) Session(ctx context.Context, which string) (s Session, err error) {
	return s, c.do(ctx, http.MethodGet, sessionURL(which), nil, &s)
}

// Act does a to a session and returns what it was before.
func (c *Client) Act(ctx context.Context, which string, a Action, force bool) (s Session, err error) {
	target := sessionURL(which) + "/" + string(a)
	if force {
		target += "?force=1"
	}
	return s, c.do(ctx, http.MethodPost, target, nil, &s)
}

// Unmount unmounts and drains. When it returns without error the mount is
// gone; the daemon ends right after.
func (c *Client) Unmount(ctx context.Context, r UnmountRequest) (res UnmountResult, err error) {
	return res, c.do(ctx, http.MethodPost, "/v1/unmount", r, &res)
}

func sessionURL(which string) string {
	return "/v1/sessions/" + url.PathEscape(strings.TrimPrefix(which, "/"))
}

// answerMax bounds an answer: a list of sessions, each with a path.
const answerMax = 256 << 20

func (c *Client) do(ctx context.Context, method, target string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	// The host is never looked up: the transport knows only the socket.
	req, err := http.NewRequestWithContext(ctx, method, "http://wholefs"+target, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which means nothing to people
		}
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return fmt.Errorf("the daemon's answer broke off: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return json.Unmarshal(text, out)
	}
	e := new(Error)
	if json.Unmarshal(text, e) != nil || e.Code == "" {
		return fmt.Errorf("the daemon answered %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return e
}

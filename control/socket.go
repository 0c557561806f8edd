package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// SocketName is the name of the socket in the state directory.
const SocketName = "control.sock"

// addressMax is how long the path of a socket may be: sun_path holds 108
// bytes and wants a NUL.
const addressMax = 107

// address returns a name for the socket in dir that fits a socket address.
// It is valid until release is called.
func address(dir string) (name string, release func(), err error) {
	name = filepath.Join(dir, SocketName)
	if len(name) <= addressMax {
		return name, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, SocketName), func() { unix.Close(fd) }, nil
}

// listener is a unix socket that frees what its address needs when closed.
type listener struct {
	net.Listener
	release func()
}

func (l listener) Close() error {
	err := l.Listener.Close() // removes the socket by its name
	l.release()
	return err
}

// Listen makes the socket in dir and listens on it. The caller holds the lock
// of the state directory: a socket that lies there has lost its daemon and is
// removed.
func Listen(dir string) (net.Listener, error) {
	name, release, err := address(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		release()
		return nil, err
	}
	// A socket takes its mode from its descriptor when it is bound, so it
	// never exists with another one.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", name)
	if err != nil {
		release()
		return nil, err
	}
	return listener{l, release}, nil
}

// dial connects to the socket in dir.
func dial(ctx context.Context, dir string) (net.Conn, error) {
	name, release, err := address(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	var d net.Dialer
	return d.DialContext(ctx, "unix", name)
}

package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Deadlines of the daemon.
const (
	readyWithin = 30 * time.Second
	goneWithin  = 30 * time.Second
)

// Options say how to mount. The zero value mounts a new directory.
type Options struct {
	Store      string   // default: a new directory
	Mountpoint string   // default: a new directory
	Flags      []string // added to "wholefs mount"
	Env        []string
	NoMetrics  bool          // --metrics-listen=off
	Watchdog   time.Duration // default 5 minutes: then the daemon is killed
}

// Mnt is a mounted wholefs with its daemon.
type Mnt struct {
	Dir     string // the mountpoint
	Store   string // the directory that files are published to
	Metrics string // base URL, "" without metrics

	opts     Options
	bin      string
	logPath  string
	cmd      *exec.Cmd
	done     chan struct{}
	watchdog *time.Timer

	mu     sync.Mutex
	barked bool
}

// Mount mounts for the length of the test. A log of the daemon that tells of
// a panic or a data race fails the test, whatever else it found.
func Mount(t testing.TB, o Options) *Mnt {
	t.Helper()
	m, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("ending the mount: %v", err)
		}
		log := m.Log()
		if m.Barked() {
			t.Errorf("the mount's watchdog had to kill the daemon")
		}
		for _, bad := range []string{"panic:", "panic in", "WARNING: DATA RACE", "fatal error:"} {
			if strings.Contains(log, bad) {
				t.Errorf("the daemon's log has %q", bad)
			}
		}
		if t.Failed() {
			t.Logf("daemon's log:\n%s", tail(log, 20000))
		}
		os.RemoveAll(filepath.Dir(m.logPath))
	})
	return m
}

// Start mounts for callers without a test; Close ends it.
func Start(o Options) (*Mnt, error) {
	bin, err := Binary()
	if err != nil {
		return nil, err
	}
	dir, err := tempDir()
	if err != nil {
		return nil, err
	}
	m := &Mnt{Dir: o.Mountpoint, Store: o.Store, opts: o, bin: bin, logPath: filepath.Join(dir, "log")}
	for path, name := range map[*string]string{&m.Dir: "mnt", &m.Store: "store"} {
		if *path == "" {
			*path = filepath.Join(dir, name)
			if err := os.Mkdir(*path, 0o755); err != nil {
				return nil, err
			}
		}
	}
	if o.Watchdog == 0 {
		m.opts.Watchdog = 5 * time.Minute
	}
	return m, m.start()
}

// Args is the command line that mounts, without the program.
func (m *Mnt) args() ([]string, error) {
	listen := "off"
	m.Metrics = ""
	if !m.opts.NoMetrics {
		addr, err := freePort()
		if err != nil {
			return nil, err
		}
		listen, m.Metrics = addr, "http://"+addr
	}
	args := append([]string{"mount", "-f", "--metrics-listen=" + listen}, m.opts.Flags...)
	return append(args, m.Store, m.Dir), nil
}

func (m *Mnt) start() error {
	args, err := m.args()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(m.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s %s\n", m.bin, strings.Join(args, " "))
	m.cmd = exec.Command(m.bin, args...)
	m.cmd.Env = append(os.Environ(), m.opts.Env...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	// The daemon must not outlive a test process that panics.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	m.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(m.cmd, m.done)
	m.watchdog = time.AfterFunc(m.opts.Watchdog, func() {
		m.mu.Lock()
		m.barked = true
		m.mu.Unlock()
		m.kill()
	})
	if err := m.waitReady(); err != nil {
		m.Kill()
		return fmt.Errorf("%w\n%s", err, tail(m.Log(), 4000))
	}
	return nil
}

// waitReady waits until the mount is in the table and answers. The question
// is one that the kernel cannot answer from its cache: a mount whose daemon
// died may lie there still, and its attributes with it.
func (m *Mnt) waitReady() error {
	answered := make(chan error, 1)
	go func() {
		end := time.Now().Add(readyWithin)
		for {
			err := alive(m.Dir)
			if err == nil || time.Now().After(end) || !m.Running() {
				answered <- err
				return
			}
			time.Sleep(3 * time.Millisecond)
		}
	}()
	select {
	case err := <-answered:
		if err == nil && !m.Running() {
			err = errors.New("the daemon ended")
		}
		return err
	case <-time.After(readyWithin + 5*time.Second):
		return errors.New("the mount does not answer")
	}
}

func alive(dir string) error {
	var at, above unix.Statx_t
	for path, st := range map[string]*unix.Statx_t{dir: &at, filepath.Dir(dir): &above} {
		if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, st); err != nil {
			return err
		}
	}
	// Between a dead mount and the one that takes its place there is for a
	// moment the bare directory.
	if at.Dev_major == above.Dev_major && at.Dev_minor == above.Dev_minor {
		return errors.New("not mounted")
	}
	return nil
}

// Running reports whether the daemon lives.
func (m *Mnt) Running() bool {
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// Barked reports whether the watchdog had to kill the daemon.
func (m *Mnt) Barked() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.barked
}

// Pid is the daemon's process id.
func (m *Mnt) Pid() int { return m.cmd.Process.Pid }

func (m *Mnt) kill() {
	if m.Running() {
		syscall.Kill(m.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// Kill ends the daemon by SIGKILL and detaches what is left of the mount.
func (m *Mnt) Kill() {
	m.kill()
	select {
	case <-m.done:
	case <-time.After(goneWithin):
	}
	m.watchdog.Stop()
	m.detach()
}

// KillOnly ends the daemon by SIGKILL and leaves the dead mount in place.
func (m *Mnt) KillOnly() {
	m.kill()
	<-m.done
	m.watchdog.Stop()
}

func (m *Mnt) detach() {
	for range 16 {
		if !IsMounted(m.Dir) || unix.Unmount(m.Dir, unix.MNT_DETACH) != nil {
			return
		}
	}
}

// Remount starts the daemon again on the same store and mountpoint.
func (m *Mnt) Remount() error {
	if m.Running() {
		return errors.New("still running")
	}
	return m.start()
}

// MustRemount is Remount for tests.
func (m *Mnt) MustRemount(t testing.TB) {
	t.Helper()
	if err := m.Remount(); err != nil {
		t.Fatal(err)
	}
}

// Umount ends the mount by "wholefs umount" and waits for the daemon.
func (m *Mnt) Umount() Result {
	r := m.Wholefs("umount", m.Dir)
	select {
	case <-m.done:
		m.watchdog.Stop()
	case <-time.After(goneWithin):
		r.TimedOut = true
	}
	return r
}

// Term sends SIGTERM and returns the daemon's exit status, -1 if it stayed.
func (m *Mnt) Term() int {
	syscall.Kill(m.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-m.done:
		m.watchdog.Stop()
		return m.cmd.ProcessState.ExitCode()
	case <-time.After(goneWithin):
		return -1
	}
}

// Close kills the daemon if it still lives and reports a mount that stays.
func (m *Mnt) Close() error {
	m.Kill()
	if m.Running() {
		return fmt.Errorf("daemon %d does not end", m.cmd.Process.Pid)
	}
	if IsMounted(m.Dir) {
		return fmt.Errorf("%s is still mounted", m.Dir)
	}
	return nil
}

// Log is what the daemon wrote.
func (m *Mnt) Log() string {
	b, err := os.ReadFile(m.logPath)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Wholefs runs another verb of the binary.
func (m *Mnt) Wholefs(args ...string) Result {
	return Cmd{Args: append([]string{m.bin}, args...)}.Run()
}

// In is a path inside the mount; Out is the same path in the store.
func (m *Mnt) In(name string) string  { return filepath.Join(m.Dir, name) }
func (m *Mnt) Out(name string) string { return filepath.Join(m.Store, name) }

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func tail(s string, n int) string {
	if len(s) > n {
		return "[...]" + s[len(s)-n:]
	}
	return s
}

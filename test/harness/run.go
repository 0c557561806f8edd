package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Timeout bounds a program that says nothing else.
const Timeout = 60 * time.Second

// Cmd is one program to run. Args[0] is looked up in PATH.
type Cmd struct {
	Args    []string
	Dir     string
	Env     []string // added to the environment
	Stdin   string
	Timeout time.Duration
	UID     uint32 // run as this user and group when not 0
}

// Result is what became of a program.
type Result struct {
	Args     []string
	Out, Err string
	Code     int            // exit status; -1 when a signal ended it
	Signal   syscall.Signal // 0 when it exited
	Took     time.Duration
	TimedOut bool
	CPU      time.Duration // user and system time of the program
}

// OK reports an exit status of 0 in time.
func (r Result) OK() bool { return r.Code == 0 && !r.TimedOut }

func (r Result) String() string {
	s := fmt.Sprintf("%q: exit %d", r.Args, r.Code)
	if r.Signal != 0 {
		s = fmt.Sprintf("%q: %v", r.Args, r.Signal)
	}
	if r.TimedOut {
		s += fmt.Sprintf(" (timed out after %v)", r.Took.Round(time.Millisecond))
	}
	return s + "\nstdout: " + clip(r.Out) + "\nstderr: " + clip(r.Err)
}

func clip(s string) string {
	const most = 4000
	if len(s) > most {
		return s[:most/2] + "\n[...]\n" + s[len(s)-most/2:]
	}
	return s
}

// Process is a program that runs in the background, in its own group.
type Process struct {
	cmd      *exec.Cmd
	out, err bytes.Buffer
	start    time.Time
	done     chan struct{}
	result   Result
	cancel   context.CancelFunc
}

// Start starts c.
func (c Cmd) Start() (*Process, error) {
	if c.Timeout == 0 {
		c.Timeout = Timeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	p := &Process{done: make(chan struct{}), cancel: cancel}
	p.cmd = exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(append(os.Environ(), "LC_ALL=C.UTF-8"), c.Env...)
	if c.Stdin != "" {
		p.cmd.Stdin = strings.NewReader(c.Stdin)
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.UID != 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.UID}
	}
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	p.cmd.WaitDelay = 5 * time.Second
	p.start = time.Now()
	if err := p.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer close(p.done)
		defer cancel()
		err := p.cmd.Wait()
		p.result = p.outcome(c.Args, err, ctx.Err() != nil)
	}()
	return p, nil
}

func (p *Process) outcome(args []string, err error, late bool) Result {
	r := Result{Args: args, Out: p.out.String(), Err: p.err.String(), Took: time.Since(p.start), TimedOut: late, Code: -1}
	if st := p.cmd.ProcessState; st != nil {
		r.CPU = st.UserTime() + st.SystemTime()
		ws := st.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			r.Signal = ws.Signal()
		} else {
			r.Code = ws.ExitStatus()
		}
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		r.Err += "\n" + err.Error()
	}
	return r
}

// Pid is the process id, which is the process group too.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Signal sends sig to the process alone.
func (p *Process) Signal(sig syscall.Signal) error { return syscall.Kill(p.Pid(), sig) }

// Kill ends the whole group and waits.
func (p *Process) Kill() Result {
	syscall.Kill(-p.Pid(), syscall.SIGKILL)
	return p.Wait()
}

// Wait waits for the end, which the command's timeout bounds.
func (p *Process) Wait() Result {
	<-p.done
	return p.result
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Run runs c to its end.
func (c Cmd) Run() Result {
	p, err := c.Start()
	if err != nil {
		return Result{Args: c.Args, Err: err.Error(), Code: -1}
	}
	return p.Wait()
}

// Run runs a program with the default timeout.
func Run(args ...string) Result { return Cmd{Args: args}.Run() }

// MustRun fails the test unless the program exits with status 0.
func MustRun(t testing.TB, args ...string) Result {
	t.Helper()
	return Must(t, Cmd{Args: args})
}

// Must fails the test unless c exits with status 0.
func Must(t testing.TB, c Cmd) Result {
	t.Helper()
	r := c.Run()
	if !r.OK() {
		t.Fatalf("%v", r)
	}
	return r
}

// Shell is a bash script that stops at its first error.
func Shell(dir, script string) Cmd {
	return Cmd{Args: []string{"bash", "-e", "-u", "-o", "pipefail", "-c", script}, Dir: dir}
}

// Background starts c and ends it with the test.
func Background(t testing.TB, c Cmd) *Process {
	t.Helper()
	p, err := c.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	return p
}

// Eventually polls f every few milliseconds until it returns true.
func Eventually(t testing.TB, within time.Duration, what string, f func() bool) {
	t.Helper()
	if !Poll(within, f) {
		t.Fatalf("not within %v: %s", within, what)
	}
}

// Poll is Eventually for callers that decide themselves.
func Poll(within time.Duration, f func() bool) bool {
	end := time.Now().Add(within)
	for {
		if f() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(3 * time.Millisecond)
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wholefs mount goes to the background in two processes. The first, which
// the user started, starts itself again in a session of its own with one end
// of a pipe, and waits. The second mounts, as in the foreground, and says over
// the pipe that the mount answers, or why there is none. Then the first looks
// for itself, and ends.

// readiness is what the daemon says over the pipe.
type readiness struct {
	Error      string `json:"error,omitempty"`
	Code       int    `json:"code,omitempty"`
	Mountpoint string `json:"mountpoint,omitempty"`
	Metrics    string `json:"metrics,omitempty"`
}

// background starts the daemon and waits until its mount answers.
func (p *program) background(ctx context.Context, args []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(ownProgram(), args...)
	cmd.Args[0] = "wholefs"
	cmd.Env = append(append([]string{}, p.environ...), detachedEnv+"=3")
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	// Interrupted while it waits, the first process ends the second.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(unix.SIGTERM) })
	defer stop()

	var said readiness
	text, err := io.ReadAll(r) // until the daemon closes its end, or dies
	if err == nil {
		err = json.Unmarshal(text, &said)
	}
	if err != nil {
		state := "it gave no reason"
		if werr := cmd.Wait(); werr != nil {
			state = werr.Error()
		}
		return fail("try it in the foreground, with -f", "the daemon ended before the mount was ready: %s", state)
	}
	if said.Error != "" {
		_ = cmd.Wait() // its exit status is in what it said
		return &failure{code: said.Code, cause: errors.New(said.Error)}
	}
	if err := checkAnswers(said.Mountpoint); err != nil {
		_ = cmd.Process.Signal(unix.SIGTERM)
		return err
	}
	if said.Metrics != "" {
		fmt.Fprintf(p.stderr, "wholefs: mounted on %s, metrics at %s/metrics\n", said.Mountpoint, said.Metrics)
	}
	return cmd.Process.Release()
}

// checkAnswers makes sure that a wholefs is mounted on path and answers.
func checkAnswers(path string) error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	if m, ok := mountAt(mounts, path); !ok || m.fsType != fsType {
		return fail("", "%s is not mounted: something took it away at once", path)
	}
	if err := answers(path, statDeadline); err != nil {
		return fail("", "the mount on %s does not answer: %w", path, pathCause(err))
	}
	return nil
}

// answers asks the filesystem at path a question that no cache answers.
func answers(path string, d time.Duration) error {
	return withDeadline(d, func() error {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil {
			return &os.PathError{Op: "statfs", Path: path, Err: err}
		}
		_, err := os.Stat(path)
		return err
	})
}

// herald is the daemon's end of the pipe; nil in the foreground.
type herald struct{ w *os.File }

// newHerald takes the pipe over, if this is the background half.
func newHerald(env environment) *herald {
	fd, err := strconv.Atoi(env[detachedEnv])
	if err != nil || fd < 3 {
		return nil
	}
	os.Unsetenv(detachedEnv) // not for the helpers that the daemon runs
	unix.CloseOnExec(fd)
	return &herald{os.NewFile(uintptr(fd), "ready-pipe")}
}

// say tells the first process how it went. It only counts once.
func (h *herald) say(r readiness) {
	if h == nil || h.w == nil {
		return
	}
	// If the first process is gone, there is nobody to tell.
	_ = json.NewEncoder(h.w).Encode(r)
	h.w.Close()
	h.w = nil
}

// ownProgram returns the path of this program. The kernel names a process after
// the file, so /proc/self/exe, which would always do, comes second.
func ownProgram() string {
	path, err := os.Executable()
	if err == nil {
		var here, running os.FileInfo
		if here, err = os.Stat(path); err == nil {
			running, err = os.Stat("/proc/self/exe")
		}
		if err == nil && os.SameFile(here, running) {
			return path
		}
	}
	return "/proc/self/exe"
}

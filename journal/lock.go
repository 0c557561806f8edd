package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// dirLock is Badger's own lock: flock(2) on the directory, and a file LOCK
// that holds the owner's pid for people. It is taken here rather than by
// Badger, so that it covers preflight.
//
// The file's second line is the boot ID of the machine. A LOCK that was left
// behind tells how its owner ended: with the same boot ID it was killed, and
// all it wrote is there; with another one the machine went down.
type dirLock struct {
	dir  *os.File
	path string
	// crashed is set if the machine went down under the owner before, or if
	// that cannot be told: what was not synced may be lost.
	crashed bool
}

const lockFile = "LOCK"

// lockPatience is how long a lock that is held is tried again: a killed
// daemon's lock goes when the kernel has taken its memory apart.
const lockPatience = 250 * time.Millisecond

func lockDir(dir string) (*dirLock, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	path := filepath.Join(dir, lockFile)
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("journal: %w", &fs.PathError{Op: "flock", Path: dir, Err: err})
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, &LockedError{Dir: dir, PID: lockOwner(path)}
		}
	}
	boot := bootID()
	_, before := readLock(path)
	l := &dirLock{dir: f, path: path, crashed: boot == "" || before != boot}
	if err := l.write(before); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// settle notes that the logs were looked at since the machine was started.
func (l *dirLock) settle() error { return l.write(bootID()) }

func (l *dirLock) write(boot string) error {
	if err := os.WriteFile(l.path, fmt.Appendf(nil, "%d\n%s\n", os.Getpid(), boot), 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// bootID names the time since the machine was started, "" if that is not told.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// readLock returns what stands in a LOCK file: 0 and "" where it says nothing.
func readLock(path string) (pid int, boot string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, ""
	}
	first, rest, _ := bytes.Cut(b, []byte("\n"))
	pid, err = strconv.Atoi(string(bytes.TrimSpace(first)))
	if err != nil || pid < 0 {
		pid = 0
	}
	return pid, string(bytes.TrimSpace(rest))
}

// lockOwner reads the pid of the owner, 0 if it is not there or is no more.
func lockOwner(path string) int {
	pid, _ := readLock(path)
	if pid == 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return 0
	}
	return pid
}

// leave gives the lock up when the journal could not be opened: what LOCK
// tells of the owner before is for the next who tries.
func (l *dirLock) leave() { _ = l.dir.Close() }

// release gives the lock up when the journal was closed.
func (l *dirLock) release() error {
	err := os.Remove(l.path) // first, while nobody else can have written it
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.dir.Close())
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store/localdir"
)

// Names in a state directory.
const (
	stateDirName = localdir.StateDirName // at the top of a store, by default
	lockName     = "lock"
	journalName  = "journal"
	logName      = "wholefs.log"
)

// owner is who holds a state directory, or held it last. It is the content of
// the lock file, which stays when the lock is released: so a state directory
// can tell which store it belongs to.
type owner struct {
	PID        int    `json:"pid"`
	Store      string `json:"store"`
	StateDir   string `json:"state_dir"`
	Mountpoint string `json:"mountpoint,omitempty"`
	PartSize   int64  `json:"part_size"`
}

// inUseError says that a state directory has an owner already.
type inUseError struct {
	dir string
	by  owner
}

func (e *inUseError) Error() string {
	who := "another wholefs"
	if e.by.PID != 0 {
		who = fmt.Sprintf("process %d", e.by.PID)
	}
	if e.by.Mountpoint != "" {
		who += " for " + e.by.Mountpoint
	}
	return fmt.Sprintf("state directory %s is in use by %s", e.dir, who)
}

// lockGrace is how long lockState waits for a lock: a daemon that is just
// ending, or a command that looks whether it is free, has it for moments.
const lockGrace = 500 * time.Millisecond

// stateLock is a state directory that belongs to this process.
type stateLock struct {
	f    *os.File
	last owner // who had it before
}

// lockState makes dir the caller's alone. The directory is made if it is not
// there.
func lockState(dir string) (*stateLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return &stateLock{f, readOwner(f)}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Since(start) > lockGrace {
			defer f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, &inUseError{dir, readOwner(f)}
			}
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// claim writes into the lock file who has it now.
func (l *stateLock) claim(by owner) error {
	text, err := json.Marshal(by)
	if err != nil {
		return err
	}
	if _, err := l.f.WriteAt(append(text, '\n'), 0); err != nil {
		return err
	}
	return l.f.Truncate(int64(len(text)) + 1)
}

func (l *stateLock) unlock() error { return l.f.Close() }

func readOwner(r io.ReaderAt) owner {
	var o owner
	text, err := io.ReadAll(io.NewSectionReader(r, 0, 64<<10))
	if err != nil || json.Unmarshal(text, &o) != nil {
		return owner{}
	}
	return o
}

// lastOwner tells who holds or held the state directory dir.
func lastOwner(dir string) owner {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return owner{}
	}
	defer f.Close()
	return readOwner(f)
}

// stateFree reports whether nobody holds the state directory dir. Taking a
// shared lock for a moment tells; lockGrace covers those it disturbs.
func stateFree(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil
}

// isState reports whether dir looks like a state directory.
func isState(dir string) bool { return exists(dir, lockName) && exists(dir, journalName) }

// stateOf returns the state directory that the store at path was mounted with
// the last time, if it ever was.
func stateOf(path string) (dir string, ok bool) {
	dir = filepath.Join(path, stateDirName)
	if last := lastOwner(dir); last.StateDir != "" && isState(last.StateDir) {
		return last.StateDir, true
	}
	return dir, isState(dir)
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

func unwrapErrno(err error) syscall.Errno {
	var errno syscall.Errno
	errors.As(err, &errno)
	return errno
}

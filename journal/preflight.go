package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dirLock is Badger's own lock: flock(2) on the directory, and a file LOCK
// that holds the owner's pid for people. It is taken here rather than by
// Badger, so that it covers preflight.
type dirLock struct {
	dir  *os.File
	path string
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
	if err := os.WriteFile(path, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil {
		f.Close()
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &dirLock{dir: f, path: path}, nil
}

// lockOwner reads the pid of the owner, 0 if it is not there or is no more.
func lockOwner(path string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || pid <= 0 {
		return 0
	}
	if err := unix.Kill(pid, 0); errors.Is(err, unix.ESRCH) {
		return 0
	}
	return pid
}

func (l *dirLock) release() error {
	err := os.Remove(l.path) // first, while nobody else can have written it
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.dir.Close())
}

const manifestFile = "MANIFEST"

// preflight looks at Badger's files before Badger does, because Badger ends
// the process, or goes on without the data, where a file is damaged.
func preflight(dir string, l *slog.Logger) error {
	if err := checkManifest(dir); err != nil {
		return err
	}
	return removeStubs(dir)
}

func checkManifest(dir string) error {
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	var head [8]byte
	if n, _ := f.Read(head[:]); n < len(head) || string(head[:4]) != "Bdgr" {
		return &CorruptError{Dir: dir, File: manifestFile, Offset: 0, Err: errors.New("this is not the head of a manifest")}
	}
	if v := binary.BigEndian.Uint16(head[4:]); v > FormatVersion {
		return &FormatError{Dir: dir, What: "journal format", Found: int(v), Supported: FormatVersion}
	}
	return nil
}

// removeStubs removes the empty files that a kill between two system calls
// leaves: Badger would refuse to open with them.
func removeStubs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), walSuffix) && !strings.HasSuffix(e.Name(), valueSuffix) {
			continue
		}
		fi, err := e.Info()
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if fi.Size() == 0 {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
		}
	}
	return nil
}

// openError says what Badger's refusal to open means.
func openError(dir string, err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fmt.Errorf("journal %s: %w", dir, err)
	}
	return &CorruptError{Dir: dir, Offset: -1, Err: err}
}

package staging

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/chunker"
)

// DefaultInFlight is how many writes of one file may be in flight if Options
// do not say.
const DefaultInFlight = 4

// Options are the settings of a Dir. The zero value is usable except for
// Layout.
type Options struct {
	// Layout is the part size that checksums are kept for.
	Layout chunker.Layout
	// InFlight is how many writes of one file may be in flight; 0 stands for
	// DefaultInFlight. Three or four keep a disk busy, more only cool the
	// caches.
	InFlight int
	// Hook lets tests fail system calls; nil otherwise.
	Hook Hook
}

// Dir is a directory of staging files. It must lie on the filesystem of the
// store if files are to be published by rename. Its methods are safe for
// concurrent use.
type Dir struct {
	options Options
	sys     calls
	dir     *os.File
	fd      int

	mu     sync.Mutex
	live   map[*File]struct{}
	closed bool
}

// OpenDir opens the directory at path. It makes it, and its parents, if
// they do not exist. Other users have no access to it (mode 0700), since what
// is staged has not yet the permissions of its destination.
func OpenDir(path string, o Options) (*Dir, error) {
	if o.Layout.PartSize() == 0 {
		return nil, errors.New("staging: no part size")
	}
	if o.InFlight <= 0 {
		o.InFlight = DefaultInFlight
	}
	sys := calls{hook: o.Hook}
	if err := sys.do(OpMkdir, func() error { return os.MkdirAll(path, 0o700) }); err != nil {
		return nil, err
	}
	fd, err := calls{hook: o.Hook}.openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	d := &Dir{
		options: o,
		sys:     sys,
		dir:     os.NewFile(uintptr(fd), path),
		fd:      fd,
		live:    map[*File]struct{}{},
	}
	st, err := sys.fstat(fd)
	if err == nil && st.Mode&0o077 != 0 {
		err = sys.fchmod(fd, 0o700)
	}
	if err != nil {
		_ = d.dir.Close()
		return nil, err
	}
	return d, nil
}

// Create makes a new, empty staging file with exactly the permission bits
// mode, suid, sgid and sticky included; the process's umask is not applied.
// It is EEXIST if the name is taken.
func (d *Dir) Create(name string, mode uint32) (*File, error) {
	sys, err := d.callsFor(name)
	if err != nil {
		return nil, err
	}
	fd, err := sys.openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	// The umask and a default ACL may have changed the mode; asking is
	// cheaper than setting it each time.
	st, err := sys.fstat(fd)
	if err == nil && st.Mode&0o7777 != mode&0o7777 {
		err = sys.fchmod(fd, mode&0o7777)
	}
	if err != nil {
		_ = sys.unlinkat(d.fd)
		_ = unix.Close(fd)
		return nil, err
	}
	return d.add(sys, fd), nil
}

// Open opens a staging file that exists, which happens after a restart. It is
// EINVAL if the name is not that of a regular file. A file that its owner may
// not write is opened nevertheless: its mode is the one that it will be
// published with, and says nothing about who may go on making it.
func (d *Dir) Open(name string) (*File, error) {
	sys, err := d.callsFor(name)
	if err != nil {
		return nil, err
	}
	fd, err := sys.openat(d.fd, name, unix.O_RDWR, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = d.openReadOnly(sys)
	}
	if err != nil {
		return nil, err
	}
	st, err := sys.fstat(fd)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = sys.wrap(OpOpen, unix.EINVAL)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return d.add(sys, fd), nil
}

// openReadOnly opens a file of ours whose mode does not let us write.
func (d *Dir) openReadOnly(sys calls) (int, error) {
	var st unix.Stat_t
	err := sys.do(OpStat, func() error {
		return unix.Fstatat(d.fd, sys.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG { // fchmodat would follow a symlink
		return -1, sys.wrap(OpOpen, unix.EINVAL)
	}
	mode := st.Mode & 0o7777
	err = sys.do(OpChmod, func() error { return unix.Fchmodat(d.fd, sys.name, mode|0o600, 0) })
	if err != nil {
		return -1, err
	}
	fd, err := sys.openat(d.fd, sys.name, unix.O_RDWR, 0)
	if err != nil {
		_ = sys.do(OpChmod, func() error { return unix.Fchmodat(d.fd, sys.name, mode, 0) })
		return -1, err
	}
	if err := sys.fchmod(fd, mode); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// callsFor returns the system calls of the file called name, which must be a
// single path component: no name leads out of the directory (W10).
func (d *Dir) callsFor(name string) (calls, error) {
	sys := calls{hook: d.options.Hook, name: name}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return sys, sys.wrap(OpOpen, unix.EINVAL)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return sys, sys.wrap(OpOpen, os.ErrClosed)
	}
	return sys, nil
}

// add makes a File of an open descriptor.
func (d *Dir) add(sys calls, fd int) *File {
	f := newFile(d, sys, fd)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live[f] = struct{}{}
	return f
}

// forget takes f out of those that Usage counts.
func (d *Dir) forget(f *File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.live, f)
}

// List returns the names in the directory, sorted. Those that belong to no
// session are orphans.
func (d *Dir) List() ([]string, error) {
	// A descriptor of its own, because reading a directory moves a position.
	fd, err := d.sys.openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), d.dir.Name())
	defer func() { _ = dir.Close() }() // only read from
	var names []string
	err = d.sys.do(OpReadDir, func() (err error) {
		names, err = dir.Readdirnames(-1)
		return err
	})
	slices.Sort(names)
	return names, err
}

// Remove unlinks a name. That it does not exist is success. A File that is
// open under the name stays usable.
func (d *Dir) Remove(name string) error {
	sys, err := d.callsFor(name)
	if err != nil {
		return err
	}
	if err := sys.unlinkat(d.fd); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// Fd is the directory itself, for renameat(2). It is valid until Close.
func (d *Dir) Fd() *os.File { return d.dir }

// Usage is what the open staging files take of the disk, in bytes, and how
// many they are; a hole takes nothing. Detached files are not counted. It asks
// the kernel about each file, which is cheap enough for a scrape but not for
// every write.
func (d *Dir) Usage() (bytes int64, files int) {
	d.mu.Lock()
	live := make([]*File, 0, len(d.live))
	for f := range d.live {
		live = append(live, f)
	}
	d.mu.Unlock()
	for _, f := range live {
		if n, err := f.allocated(); err == nil {
			bytes += n
			files++
		}
	}
	return bytes, files
}

// Close closes the directory. Files that are still open stay usable, except
// that their names cannot be removed any more. Closing it again does nothing.
func (d *Dir) Close() error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	d.mu.Unlock()
	if closed {
		return nil
	}
	return d.dir.Close()
}

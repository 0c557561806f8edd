package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Badger's files, by the end of their names. A memtable's log is a sparse
// file that is mapped and written through the mapping.
const (
	walSuffix   = ".mem"
	tableSuffix = ".sst"
	valueSuffix = ".vlog"
)

// syncFiles makes all that is committed durable. Badger's own Sync reaches
// the newest log only: one that waits to be flushed would be left out, and so
// would the names of new files. What is a table already was synced by Badger.
func syncFiles(dir string, fsync func(*os.File) error) error {
	names, err := filepath.Glob(filepath.Join(dir, "*"+walSuffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it became a table just now
		}
		if err != nil {
			return err
		}
		err = fsync(f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
	return syncDir(dir, fsync)
}

func syncDir(dir string, fsync func(*os.File) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return fsync(d)
}

// minFree is what must be free on the disk, in bytes, before the journal lets
// Badger begin another file.
const minFree = 32 << 20

// minFreeOpen is what must be free to open a journal: its new log and what a
// crash left to be flushed.
const minFreeOpen = 16 << 20

func roomToOpen(dir string, free func(string) (int64, error)) error {
	n, err := free(dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if n < minFreeOpen {
		return fmt.Errorf("journal %s: %d MiB are free on its disk, it needs %d to open: %w",
			dir, n>>20, minFreeOpen>>20, syscall.ENOSPC)
	}
	return nil
}

// space keeps Badger from writing to mapped files that the disk has no room
// for: the kernel answers that with SIGBUS, which ends the daemon, where a
// write(2) would have told. The log that is being filled has its blocks
// allocated ahead; a new one is begun only while the disk has minFree left.
type space struct {
	dir  string
	fid  int   // number of the newest log
	left int64 // what certainly still fits into it
	free func(dir string) (int64, error)
}

func newSpace(dir string) (*space, error) {
	s := &space{dir: dir, free: freeSpace}
	names, err := filepath.Glob(filepath.Join(dir, "*"+walSuffix))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), walSuffix))
		if err == nil && n > s.fid {
			s.fid = n
		}
	}
	s.begin(s.fid)
	return s, nil
}

func (s *space) path(fid int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%05d%s", fid, walSuffix))
}

// begin allocates the blocks of a log. Where that is not possible (a
// filesystem without fallocate), only the check in reserve is left.
func (s *space) begin(fid int) {
	s.fid, s.left = fid, memTable
	f, err := os.OpenFile(s.path(fid), os.O_RDWR, 0)
	if err != nil {
		s.left = 0
		return
	}
	defer f.Close()
	if unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, memTableAlloc) != nil {
		s.left = 0
	}
}

// reserve answers ENOSPC if a commit of n bytes might need disk blocks that
// are not there.
func (s *space) reserve(n int64) error {
	if n < s.left {
		return nil
	}
	free, err := s.free(s.dir)
	if err != nil {
		return err
	}
	if free < minFree {
		return fmt.Errorf("%d MiB are free on the disk of %s, the journal needs %d to go on: %w",
			free>>20, s.dir, minFree>>20, syscall.ENOSPC)
	}
	return nil
}

// used notes that a commit of n bytes was done, and reports whether Badger
// began a new log with it.
func (s *space) used(n int64) (rotated bool) {
	s.left = max(0, s.left-n)
	for {
		if _, err := os.Lstat(s.path(s.fid + 1)); err != nil {
			return rotated
		}
		s.begin(s.fid + 1)
		rotated = true
	}
}

func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// usage is what the journal's files take: allocated blocks, and the sum of
// their sizes, which for sparse files is more.
func usage(dir string) (allocated, apparent int64, logs int, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if path != dir && errors.Is(err, fs.ErrNotExist) {
				return nil // gone meanwhile
			}
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return nil
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			allocated += st.Blocks * 512
		}
		if !fi.IsDir() {
			apparent += fi.Size()
		}
		if strings.HasSuffix(path, walSuffix) {
			logs++
		}
		return nil
	})
	return allocated, apparent, logs, err
}

// evict gives back the memory of mapped tables under dir. Their pages are the
// page cache's and cost a read at most to come back, but they count as the
// daemon's own until then. (MADV_PAGEOUT changes no content, whatever stands
// at an address by then.)
func evict(dir string) {
	dir, err := filepath.EvalSymlinks(dir) // as the kernel names it
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasSuffix(line, tableSuffix) || !strings.Contains(line, " "+dir+"/") {
			continue
		}
		span, _, _ := strings.Cut(line, " ")
		from, to, _ := strings.Cut(span, "-")
		a, err1 := strconv.ParseUint(from, 16, 64)
		b, err2 := strconv.ParseUint(to, 16, 64)
		if err1 == nil && err2 == nil && b > a {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(a), uintptr(b-a), unix.MADV_PAGEOUT)
		}
	}
}

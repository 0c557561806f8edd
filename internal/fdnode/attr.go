package fdnode

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
)

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// StatFd returns the attributes of an open file, with the time of its birth
// where the filesystem keeps it.
func StatFd(fd int) (store.Attr, error) {
	return statx(fd, "", unix.AT_EMPTY_PATH)
}

// StatAt returns the attributes of name in the directory dirfd, not following
// a symlink. name is not checked: it is the caller's to refuse "..".
func StatAt(dirfd int, name string) (store.Attr, error) {
	return statx(dirfd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
}

func statx(fd int, name string, flags int) (store.Attr, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(fd, name, flags, statMask, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return store.Attr{}, err
		}
		return attrOf(&st), nil
	}
}

func attrOf(st *unix.Statx_t) store.Attr {
	a := store.Attr{
		ID:     store.ID{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino},
		Mode:   uint32(st.Mode),
		Nlink:  st.Nlink,
		UID:    st.Uid,
		GID:    st.Gid,
		Rdev:   unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		Size:   int64(st.Size),
		Blocks: int64(st.Blocks),
		Atime:  timeOf(st.Atime),
		Mtime:  timeOf(st.Mtime),
		Ctime:  timeOf(st.Ctime),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		a.Btime = timeOf(st.Btime)
	}
	return a
}

func timeOf(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// Stat returns the attributes of the file.
func (n Node) Stat() (a store.Attr, err error) {
	err = With(n.F, func(fd int) (err error) {
		a, err = StatFd(fd)
		return err
	})
	return a, err
}

// SetAttr changes size, owner, mode and times, in this order: truncating sets
// the times, and a change of owner clears suid and sgid, so that these survive
// only where c asks for the mode too. The first change that fails ends it;
// those before it stay. Size gives EINVAL for what is not a regular file, mode
// EOPNOTSUPP for a symlink.
func (n Node) SetAttr(c store.Change) (a store.Attr, err error) {
	err = With(n.F, func(fd int) (err error) {
		if err = change(fd, c); err != nil {
			return err
		}
		a, err = StatFd(fd)
		return err
	})
	return a, err
}

func change(fd int, c store.Change) error {
	if c.Size != nil {
		if err := resize(fd, *c.Size); err != nil {
			return err
		}
	}
	if c.UID != nil || c.GID != nil {
		uid, gid := -1, -1
		if c.UID != nil {
			uid = int(*c.UID)
		}
		if c.GID != nil {
			gid = int(*c.GID)
		}
		if err := Chown(fd, uid, gid); err != nil {
			return err
		}
	}
	if c.Mode != nil {
		if err := Chmod(fd, *c.Mode); err != nil {
			return err
		}
	}
	if c.Atime != nil || c.Mtime != nil {
		return setTimes(fd, c.Atime, c.Mtime)
	}
	return nil
}

// Chown sets owner and group; -1 leaves one as it is.
func Chown(fd, uid, gid int) error {
	return Retry(func() error { return unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH) })
}

// Chmod sets the permission bits with suid, sgid and sticky; type bits in mode
// are ignored.
func Chmod(fd int, mode uint32) error {
	proc, name, err := Entry(fd)
	if err != nil {
		return err
	}
	return Retry(func() error { return unix.Fchmodat(proc, name, mode&0o7777, 0) })
}

func setTimes(fd int, atime, mtime *time.Time) error {
	proc, name, err := Entry(fd)
	if err != nil {
		return err
	}
	ts := []unix.Timespec{timespec(atime), timespec(mtime)}
	return Retry(func() error { return unix.UtimesNanoAt(proc, name, ts, 0) })
}

// timespec avoids Time.UnixNano, which knows only the years 1678 to 2262.
func timespec(t *time.Time) unix.Timespec {
	if t == nil {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// resize truncates by descriptor if it can be written to, and else through a
// descriptor of its own.
func resize(fd int, size int64) error {
	if size < 0 {
		return unix.EINVAL
	}
	err := Retry(func() error { return unix.Ftruncate(fd, size) })
	if err != unix.EINVAL && err != unix.EBADF {
		return err // done, or refused for a reason; the two say "not by this descriptor"
	}
	a, err := StatFd(fd)
	switch {
	case err != nil:
		return err
	case a.IsDir():
		return unix.EISDIR
	case !a.IsRegular():
		return unix.EINVAL
	}
	return Retry(func() error { return unix.Truncate(entryPath(fd), size) })
}

// Readlink returns the target of a symlink; EINVAL for what is none.
func (n Node) Readlink() (target string, err error) {
	err = With(n.F, func(fd int) error {
		// Targets are shorter than PATH_MAX; one byte more tells a cut from a fit.
		var buf [unix.PathMax + 1]byte
		// An empty path on what is no symlink gives ENOENT.
		length, err := unix.Readlinkat(fd, "", buf[:])
		if err == unix.ENOENT {
			return unix.EINVAL
		}
		if err != nil {
			return err
		}
		if length == len(buf) {
			return unix.ENAMETOOLONG
		}
		target = string(buf[:length])
		return nil
	})
	return target, err
}

package localdir

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
)

// Making something takes several calls: the kernel makes it for us, the
// daemon, and it has to be given to its owner. In between it has fewer rights
// than it is going to have, never more: suid and sgid come last, after chown,
// which would take them away. If one of the calls fails, what was made is
// removed again.
//
// Permission bits are left to the kernel, which reconciles them with a default
// ACL of the directory; the daemon runs with umask 0. They are set once more
// only where they came out different without such an ACL, that is, where the
// umask was not 0 after all.

// Mkdir makes a directory with exactly this mode; S_ISGID in a setgid
// directory comes in addition.
func (d *dir) Mkdir(name string, mode uint32, o store.Owner) (store.Attr, error) {
	mode &= 0o7777
	return d.make(name, unix.S_IFDIR|mode, o, func(fd int) error {
		return unix.Mkdirat(fd, name, mode&0o1777)
	})
}

// Mknod makes an empty regular file, a FIFO, a socket or a device, as the type
// bits in mode say; none at all mean a regular file.
func (d *dir) Mknod(name string, mode uint32, rdev uint64, o store.Owner) (store.Attr, error) {
	if mode&unix.S_IFMT == 0 {
		mode |= unix.S_IFREG
	}
	switch mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK:
	default:
		return store.Attr{}, unix.EINVAL
	}
	return d.make(name, mode, o, func(fd int) error {
		return unix.Mknodat(fd, name, mode&(unix.S_IFMT|0o1777), int(rdev))
	})
}

// Symlink makes a symlink. The target is any text: nothing here follows it.
func (d *dir) Symlink(name, target string, o store.Owner) (store.Attr, error) {
	return d.make(name, unix.S_IFLNK|0o777, o, func(fd int) error {
		return unix.Symlinkat(target, fd, name)
	})
}

// make has create make name, and gives it the owner and the mode.
func (d *dir) make(name string, mode uint32, o store.Owner, create func(fd int) error) (store.Attr, error) {
	if err := d.creatable(name); err != nil {
		return store.Attr{}, err
	}
	parent, err := d.Stat()
	if err != nil {
		return store.Attr{}, err
	}
	if err := fdnode.With(d.F, create); err != nil {
		return store.Attr{}, err
	}
	f, err := openat2(d.F, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return store.Attr{}, err // gone, or another mount came upon it: not ours to remove
	}
	made := &node{Node: fdnode.Node{F: f}, store: d.store}
	defer made.Close()
	fresh, err := made.Stat()
	if err != nil {
		return store.Attr{}, err
	}
	if !isFresh(fresh, mode) {
		return store.Attr{}, unix.ESTALE // somebody put another file there: give nobody's file away
	}
	a, err := d.dress(made, fresh, parent, mode, o)
	if err != nil {
		d.unmake(name, fresh)
		return store.Attr{}, err
	}
	return a, nil
}

// isFresh reports whether a can be what we made a moment ago. Who may write in
// the directory can exchange it for something else before we open it.
func isFresh(a store.Attr, mode uint32) bool {
	return a.Mode&unix.S_IFMT == mode&unix.S_IFMT &&
		a.UID == uint32(os.Geteuid()) &&
		(a.IsDir() || a.Nlink == 1 && (a.Size == 0 || !a.IsRegular()))
}

// dress gives what was made its owner and its mode.
func (d *dir) dress(made *node, now, parent store.Attr, mode uint32, o store.Owner) (store.Attr, error) {
	gid := o.GID
	if inheritsGroup(parent, now) {
		gid = now.GID
	}
	if o.UID != now.UID || gid != now.GID {
		err := fdnode.With(made.F, func(fd int) error { return fdnode.Chown(fd, int(o.UID), int(gid)) })
		// An ordinary user who serves his own directory makes what is his, but
		// may not be in the group.
		if err != nil && !(err == unix.EPERM && os.Geteuid() != 0 && o.UID == now.UID) {
			return now, err
		}
	}
	if mode&unix.S_IFMT != unix.S_IFLNK {
		want := mode&0o7000 | now.Mode&0o777
		if now.IsDir() {
			want |= now.Mode & unix.S_ISGID // from the directory it is in
		}
		if now.Mode&0o777 != mode&0o777 && !d.hasDefaultACL() {
			want = want&^0o777 | mode&0o777
		}
		if want != now.Mode&0o7777 {
			return made.SetAttr(store.Change{Mode: &want})
		}
	}
	return made.Stat()
}

// inheritsGroup reports whether the kernel gave a new entry the group of its
// directory: in a setgid directory, or on a filesystem mounted to do so always.
func inheritsGroup(parent, made store.Attr) bool {
	return parent.Mode&unix.S_ISGID != 0 ||
		made.GID == parent.GID && made.GID != uint32(os.Getegid())
}

func (d *dir) hasDefaultACL() bool {
	_, err := d.GetXattr("system.posix_acl_default")
	return err == nil
}

// unmake removes what was made, if it still is what has that name.
func (d *dir) unmake(name string, made store.Attr) {
	if a, err := d.statAt(name); err != nil || a.ID != made.ID {
		return
	}
	flags := 0
	if made.IsDir() {
		flags = unix.AT_REMOVEDIR
	}
	// The error that led here is the one to tell.
	_ = fdnode.With(d.F, func(fd int) error { return unix.Unlinkat(fd, name, flags) })
}

// Link makes name another name of n, also if n has lost all others but is not
// a file whose last name is gone (ENOENT). EXDEV for a node that is not of
// this store, EPERM for a directory. A symlink is linked itself.
func (d *dir) Link(name string, n store.Node) (store.Attr, error) {
	l, ok := n.(local)
	if !ok || l.self().store != d.store {
		return store.Attr{}, unix.EXDEV
	}
	if err := d.creatable(name); err != nil {
		return store.Attr{}, err
	}
	err := fdnode.With(l.self().F, func(fd int) error {
		// Linking by descriptor needs CAP_DAC_READ_SEARCH; by this way nobody does.
		proc, entry, err := fdnode.Entry(fd)
		if err != nil {
			return err
		}
		return fdnode.With(d.F, func(dirFd int) error {
			return unix.Linkat(proc, entry, dirFd, name, unix.AT_SYMLINK_FOLLOW)
		})
	})
	if err != nil {
		return store.Attr{}, err
	}
	return l.self().Stat()
}

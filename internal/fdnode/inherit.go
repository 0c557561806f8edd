package fdnode

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
)

// Inherit gives dst the owner, the mode and the extended attributes, ACLs
// among them, of src, and removes those that only dst has: dst is going to
// replace src, and nobody shall be able to tell.
//
// What the caller may not set is left out without an error, as cp does: an
// ordinary user cannot give a file away, or set a trusted attribute. Where the
// owner could not be kept, suid goes, and sgid where the group could not: they
// would lend the rights of somebody else. An error means that dst could not be
// made like src although it was allowed: ENOSPC, EIO.
//
// File capabilities are copied too. Writing to dst afterwards takes them away
// again, as it does suid and sgid for a writer without CAP_FSETID.
func Inherit(dst *os.File, src store.Node) error {
	a, err := src.Stat()
	if err != nil {
		return err
	}
	mode := a.Mode & 0o7777

	// The owner first: chown takes suid, sgid and capabilities away. The mode
	// last: an owner may set attributes only while the mode lets him write.
	err = With(dst, func(fd int) error {
		kept, err := giveTo(fd, a.UID, a.GID)
		if !kept.uid {
			mode &^= unix.S_ISUID
		}
		if !kept.gid {
			mode &^= unix.S_ISGID
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := inheritXattrs(Node{dst}, src); err != nil {
		return err
	}
	return With(dst, func(fd int) error { return Chmod(fd, mode) })
}

type keptOwner struct{ uid, gid bool }

// giveTo sets owner and group as far as that is allowed.
func giveTo(fd int, uid, gid uint32) (keptOwner, error) {
	err := Chown(fd, int(uid), int(gid))
	if err == nil {
		return keptOwner{true, true}, nil
	}
	if err != unix.EPERM {
		return keptOwner{}, err
	}
	if err := Chown(fd, -1, int(gid)); err != nil && err != unix.EPERM {
		return keptOwner{}, err
	}
	now, err := StatFd(fd)
	return keptOwner{now.UID == uid, now.GID == gid}, err
}

func inheritXattrs(dst, src store.Node) error {
	names, err := src.ListXattr()
	if notAllowed(err) {
		return nil
	}
	if err != nil {
		return err
	}
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
		value, err := src.GetXattr(name)
		if err == nil {
			err = dst.SetXattr(name, value, 0)
		}
		if err != nil && !notAllowed(err) {
			return err
		}
	}
	mine, err := dst.ListXattr()
	if err != nil && !notAllowed(err) {
		return err
	}
	for _, name := range mine {
		if wanted[name] {
			continue
		}
		if err := dst.RemoveXattr(name); err != nil && !notAllowed(err) {
			return err
		}
	}
	return nil
}

// notAllowed tells the errors that Inherit passes over: no right to, no such
// kind of attribute here, or gone meanwhile.
func notAllowed(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.ENODATA:
		return true
	}
	return false
}

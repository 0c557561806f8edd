package fusefs

import (
	"encoding/binary"
	"errors"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// Access control lists as extended attributes, see acl(5): a version, and
// entries of a tag, permissions and an id, all in little endian.
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"

	aclVersion   = 2
	aclHeader    = 4
	aclEntry     = 8
	aclUserObj   = 0x01
	aclGroupObj  = 0x04
	aclMask      = 0x10
	aclOther     = 0x20
	aclEntryPerm = 2 // offset of the permissions in an entry
)

// inheritedACL returns the default ACL of the directory d, which things made in
// it get in place of the umask; nil if it has none.
func inheritedACL(d store.Dir) []byte {
	acl, err := d.GetXattr(defaultACL)
	if err != nil || len(acl) < aclHeader || (len(acl)-aclHeader)%aclEntry != 0 ||
		binary.LittleEndian.Uint32(acl) != aclVersion {
		return nil
	}
	return acl
}

// masked returns the permission bits of something that is made in d with mode
// under umask. The store does the rest where there is a default ACL.
func masked(d store.Dir, mode, umask uint32) uint32 {
	if inheritedACL(d) == nil {
		mode &^= umask & 0o777
	}
	return mode & 0o7777
}

// applyACL returns what a file made with mode gets from the default ACL of its
// directory: the bits that both allow, and the access ACL; nil if that says no
// more than the mode does.
func applyACL(inherited []byte, mode uint32) (uint32, []byte) {
	acl := slices.Clone(inherited)
	perm := func(tag uint16) []byte {
		for e := acl[aclHeader:]; len(e) > 0; e = e[aclEntry:] {
			if binary.LittleEndian.Uint16(e) == tag {
				return e[aclEntryPerm:]
			}
		}
		return nil
	}
	group := perm(aclMask)
	if group == nil {
		group = perm(aclGroupObj)
	}
	allowed := mode &^ 0o777
	for i, class := range [][]byte{perm(aclOther), group, perm(aclUserObj)} {
		if class == nil {
			return mode, nil // not a whole ACL
		}
		both := binary.LittleEndian.Uint16(class) & uint16(mode>>(3*i)&7)
		binary.LittleEndian.PutUint16(class, both)
		allowed |= uint32(both) << (3 * i)
	}
	if len(acl) == aclHeader+3*aclEntry {
		return allowed, nil
	}
	return allowed, acl
}

// newFileAttr returns the attributes and the ACL of a file that c makes in p.
// In a setgid directory it belongs to the directory's group, as in inode(7).
func (fs *FS) newFileAttr(p *node, mode, umask uint32, c fuse.Caller) (a store.Attr, acl []byte, err error) {
	a = store.Attr{UID: c.Uid, GID: c.Gid}
	err = fs.inDir(p, func(d store.Dir) error {
		dir, err := d.Stat()
		if err != nil {
			return err
		}
		if dir.Mode&syscall.S_ISGID != 0 {
			a.GID = dir.GID
		}
		mode &= 0o7777
		if inherited := inheritedACL(d); inherited != nil {
			mode, acl = applyACL(inherited, mode)
		} else {
			mode &^= umask & 0o777
		}
		return nil
	})
	a.Mode = syscall.S_IFREG | mode
	return a, acl, err
}

// setACL gives the new file of a session its access ACL.
func setACL(s *session.Session, acl []byte) error {
	if acl == nil {
		return nil
	}
	node, err := s.Node()
	if err != nil {
		return err
	}
	err = node.SetXattr(accessACL, acl, 0)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		return nil // staging lies where there are no ACLs: the mode must do
	}
	return err
}

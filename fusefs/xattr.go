package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// stateXattr tells where a regular file stands: open, publishing, held or
// published. It is read-only, and not listed, so that programs that copy
// extended attributes do not stumble over it.
const stateXattr = "user.wholefs.state"

// stateOf returns the value of stateXattr.
func (fs *FS) stateOf(n *node) string {
	if s := fs.sessionOf(n); s != nil && s.Active() {
		return string(s.State())
	}
	return string(session.StatePublished)
}

// GetXAttr reads an extended attribute of what the node shows now.
func (fs *FS) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n, err := fs.get(h.NodeId)
	if err != nil {
		return 0, fs.status("getxattr", err)
	}
	if attr == stateXattr && n.isRegular() {
		return fillXattr([]byte(fs.stateOf(n)), dest)
	}
	var value []byte
	err = fs.onNode(n, func(node store.Node) (err error) {
		value, err = node.GetXattr(attr)
		return err
	})
	if err != nil {
		return 0, fs.status("getxattr", err)
	}
	return fillXattr(value, dest)
}

// fillXattr copies a value to dest; ERANGE and the length if it does not fit.
func fillXattr(value, dest []byte) (uint32, fuse.Status) {
	if len(value) > len(dest) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr lists extended attributes, each name ended by a zero byte.
func (fs *FS) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	n, err := fs.get(h.NodeId)
	if err != nil {
		return 0, fs.status("listxattr", err)
	}
	var names []string
	err = fs.onNode(n, func(node store.Node) (err error) {
		names, err = node.ListXattr()
		return err
	})
	if err != nil {
		return 0, fs.status("listxattr", err)
	}
	var list []byte
	for _, name := range names {
		list = append(append(list, name...), 0)
	}
	return fillXattr(list, dest)
}

// SetXAttr sets an extended attribute; of an unfinished file, the published
// one will have it.
func (fs *FS) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	n, err := fs.get(in.NodeId)
	if err != nil {
		return fs.status("setxattr", err)
	}
	if attr == stateXattr {
		return fuse.EPERM
	}
	if attr == capabilityXattr {
		defer n.unprivileged.Store(false)
	}
	value := append([]byte(nil), data...) // data is the request's
	return fs.status("setxattr", fs.onNode(n, func(node store.Node) error {
		if err := node.SetXattr(attr, value, int(in.Flags)); err != nil {
			return err
		}
		if attr != accessACL || in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID == 0 {
			return nil
		}
		a, err := node.Stat()
		if mode := a.Mode & 0o7777 &^ syscall.S_ISGID; err == nil && mode != a.Mode&0o7777 {
			_, err = node.SetAttr(store.Change{Mode: &mode})
		}
		return err
	}))
}

// RemoveXAttr removes an extended attribute.
func (fs *FS) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	n, err := fs.get(h.NodeId)
	if err != nil {
		return fs.status("removexattr", err)
	}
	if attr == stateXattr {
		return fuse.EPERM
	}
	return fs.status("removexattr", fs.onNode(n, func(node store.Node) error {
		return node.RemoveXattr(attr)
	}))
}

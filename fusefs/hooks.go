package fusefs

import (
	"strings"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// SessionPublished says that the store shows the file of s at path, with the
// attributes a. The engine calls it before it answers the close that caused
// the publish. The node of the file now stands for the new version; open
// readers follow it there.
func (fs *FS) SessionPublished(s *session.Session, path string, a store.Attr) {
	fs.mu.Lock()
	n := fs.bySession[s]
	if n == nil {
		// Nobody in the mount has seen the session, but perhaps the version
		// that it replaced.
		n = fs.atPath(path)
		if n != nil && !n.isRegular() {
			n = nil
		}
	}
	// What the kernel has cached comes from this session if it was written
	// through the mount.
	behind := n != nil && n.writers == 0
	if n != nil {
		fs.setFile(n, a)
	}
	if behind {
		fs.detach(n)
	}
	fs.mu.Unlock()
	if n == nil {
		return
	}
	n.unprivileged.Store(false)
	fs.dropFile(n, true)
	if behind {
		fs.invalInode(n)
	}
}

// SessionEnded says that s was aborted or has expired: its file, last at path,
// is again what the store has there, or nothing.
func (fs *FS) SessionEnded(s *session.Session, path string) {
	fs.mu.Lock()
	n := fs.bySession[s]
	if n == nil {
		fs.mu.Unlock()
		return
	}
	fs.detach(n)
	var gone []link
	if n.fileID == (store.ID{}) {
		for len(n.links) > 0 {
			at := n.links[0]
			gone = append(gone, at)
			fs.cut(at.parent, at.name)
		}
	}
	fs.mu.Unlock()
	for _, at := range gone {
		fs.invalEntry(at)
	}
	fs.invalInode(n)
}

// atPath returns the node at path, as far as names are known. The caller holds
// FS.mu.
func (fs *FS) atPath(path string) *node {
	n := fs.root
	for name := range strings.SplitSeq(path, "/") {
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

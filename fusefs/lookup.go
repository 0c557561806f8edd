package fusefs

import (
	"errors"
	"hash/fnv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// An entry is what a name shows: its node, the attributes, and whether they
// are those of an active session.
type entry struct {
	node   *node
	attr   store.Attr
	active bool
}

// Lookup tells the kernel what name in a directory is.
func (fs *FS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	p, err := fs.get(h.NodeId)
	if err != nil {
		return fs.status("lookup", err)
	}
	e, err := fs.resolve(p, name)
	if errors.Is(err, syscall.ENOENT) && fs.o.NegativeTimeout > 0 {
		out.NodeId = 0
		out.SetEntryTimeout(fs.o.NegativeTimeout)
		return fuse.OK
	}
	if err != nil {
		return fs.status("lookup", err)
	}
	fs.fillEntry(e, out)
	return fuse.OK
}

// resolve finds what name in p shows and counts a lookup of its node, which
// the caller tells the kernel of or takes back with Forget. An active session
// at the name wins over what the store has there.
func (fs *FS) resolve(p *node, name string) (entry, error) {
	if fs.reserved(p, name) {
		return entry{}, syscall.ENOENT
	}
	path, err := fs.pathOf(p, name)
	if err != nil {
		return entry{}, err
	}
	child := fs.child(p, name)
	var s *session.Session
	if child != nil {
		s = fs.sessionOf(child)
	}
	if shown := fs.engine.Get(path); shown != nil {
		s = shown
	}
	if s != nil {
		a, err := s.Attr()
		if err == nil {
			return entry{fs.showSession(p, name, s, a), a, true}, nil
		}
		if !errors.Is(err, session.ErrInactive) {
			return entry{}, err
		}
	}
	a, err := fs.lookIn(p, name)
	if err != nil {
		if errors.Is(err, syscall.ENOENT) {
			fs.vanished(p, name, child)
		}
		return entry{}, err
	}
	n, s := fs.showPublished(p, name, a)
	if s != nil {
		// The session was begun under another name of the file, or just now.
		if sa, err := s.Attr(); err == nil {
			return entry{n, sa, true}, nil
		}
	}
	return entry{n, a, false}, nil
}

// showSession returns the node of the session s at name in p, whose staging
// file has the attributes a, and counts a lookup.
func (fs *FS) showSession(p *node, name string, s *session.Session, a store.Attr) *node {
	fs.mu.Lock()
	if n := fs.bySession[s]; n != nil {
		defer fs.mu.Unlock()
		fs.link(p, name, n)
		n.lookups++
		return n
	}
	fs.mu.Unlock()
	// A session that we have not seen yet, from before a restart or of another
	// face. The node stands for the file that it will replace, if there is one.
	if published, err := fs.lookIn(p, name); err == nil && published.IsRegular() {
		return fs.enterSession(p, name, s, a, &published)
	}
	return fs.enterSession(p, name, s, a, nil)
}

// enterSession makes the node of the session s at name in p, whose staging file
// has the attributes a and which replaces published, if that is not nil. It
// counts a lookup.
func (fs *FS) enterSession(p *node, name string, s *session.Session, a store.Attr, published *store.Attr) *node {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n := fs.bySession[s]
	switch {
	case n != nil:
	case published == nil:
		n = fs.newNode(a)
		fs.setFile(n, store.Attr{Nlink: 1})
	default:
		if n = fs.known(*published); n == nil {
			n = fs.newNode(*published)
		}
	}
	fs.attach(n, s)
	fs.link(p, name, n)
	n.lookups++
	return n
}

// showPublished returns the node of what the store has at name in p, and its
// session if it has one, and counts a lookup.
func (fs *FS) showPublished(p *node, name string, a store.Attr) (*node, *session.Session) {
	fs.mu.Lock()
	n := fs.known(a)
	followed := false
	if n == nil {
		if n = p.children[name]; n != nil && fs.follows(n, a) {
			followed = true
		} else {
			n = fs.newNode(a)
		}
	} else {
		fs.setFile(n, a)
	}
	fs.link(p, name, n)
	n.lookups++
	s := n.session
	fs.mu.Unlock()
	if followed {
		fs.dropFile(n, true)
	}
	return n, s
}

// vanished forgets that name in p is child: the store has nothing there, and
// no session shows anything.
func (fs *FS) vanished(p *node, name string, child *node) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if child != nil && p.children[name] == child {
		fs.cut(p, name)
	}
}

// inoOf returns the backing inode number of a published thing, or a number
// made from its key where the store has none.
func inoOf(id store.ID) uint64 {
	if id.Ino != 0 || id.Key == "" {
		return id.Ino
	}
	h := fnv.New64a()
	h.Write([]byte(id.Key))
	return h.Sum64()
}

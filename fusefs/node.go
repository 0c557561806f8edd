package fusefs

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// A link is one name of a node.
type link struct {
	parent *node
	name   string
}

// A node is one file or directory that the kernel knows. See the package
// documentation for what it stands for.
type node struct {
	// These never change.
	id   uint64
	ino  uint64 // what programs see as st_ino
	kind uint32 // the type bits of the mode

	// opening serialises opens for writing.
	opening sync.Mutex
	// unprivileged says that the file is known to have no suid, sgid or
	// capabilities that a write would have to clear.
	unprivileged atomic.Bool

	// Guarded by FS.mu.
	lookups  uint64           // how often the kernel was told of the node
	handles  int              // open handles, of directories too
	links    []link           // names; a directory has one, the root none
	children map[string]*node // of a directory: the names that are known
	fileID   store.ID         // of the published file; zero if there is none
	btime    time.Time        // when that was made, where the store knows
	nlink    uint32           // of the published file, when last seen
	session  *session.Session // if the file is, or was lately, open for writing
	writers  int              // open handles that write to session
	// late are the writers of a file without a name that are closed, but must
	// not be released while others still read what they wrote.
	late []*handle

	// Guarded by dirCache.mu.
	dir *openDir

	mu sync.Mutex
	// file is the published content, shared by all handles that read it.
	file *openFile
	// fileGen counts how often file was dropped because it was replaced.
	fileGen uint64
	// kept answers for a file whose last name is gone.
	kept *keptNode
	// cached is what the kernel's pages of the file were read from.
	cached contents
}

func (n *node) isDir() bool     { return n.kind == syscall.S_IFDIR }
func (n *node) isRegular() bool { return n.kind == syscall.S_IFREG }

// tables are all that FS.mu guards.
type tables struct {
	nodes     map[uint64]*node
	byID      map[store.ID]*node
	bySession map[*session.Session]*node
	inos      map[uint64]*node // who shows which st_ino
	nextNode  uint64

	handles    map[uint64]*handle
	dirHandles map[uint64]*dirHandle
	nextHandle uint64
}

func newTables() tables {
	return tables{
		nodes:      make(map[uint64]*node),
		byID:       make(map[store.ID]*node),
		bySession:  make(map[*session.Session]*node),
		inos:       make(map[uint64]*node),
		nextNode:   fuse.FUSE_ROOT_ID,
		handles:    make(map[uint64]*handle),
		dirHandles: make(map[uint64]*dirHandle),
		nextHandle: 1,
	}
}

// freeIno returns the number that the next node with the backing inode number
// ino would show: ino itself, or, while another node shows that, ino with
// another top byte. The caller holds FS.mu, for reading at least.
func (t *tables) freeIno(ino uint64) uint64 {
	free := ino
	for i := uint64(1); free == 0 || t.inos[free] != nil; i++ {
		// 0x80, 0x81 ... 0xff, then anything: 128 nodes showing one number
		// is more than happens.
		free = ino ^ (0x80+i-1)<<56 ^ (i>>7)<<48
	}
	return free
}

// newNode makes the node of the thing that a tells of and enters it. The
// caller holds FS.mu and gives it a name or a lookup.
func (t *tables) newNode(a store.Attr) *node {
	n := &node{id: t.nextNode, ino: t.freeIno(inoOf(a.ID)), kind: a.Mode & syscall.S_IFMT}
	t.nextNode++
	t.nodes[n.id] = n
	t.inos[n.ino] = n
	t.setFile(n, a)
	return n
}

// setFile says what is published of n. The caller holds FS.mu.
func (t *tables) setFile(n *node, a store.Attr) {
	if n.fileID != a.ID {
		if t.byID[n.fileID] == n {
			delete(t.byID, n.fileID)
		}
		n.fileID = a.ID
	}
	if a.ID != (store.ID{}) {
		t.byID[a.ID] = n
	}
	n.btime, n.nlink = a.Btime, a.Nlink
}

// known returns the node of the published thing that a tells of, or nil. A
// store may give the identity of a file that is gone to a new one; type and
// birth time tell them apart. The caller holds FS.mu, for reading at least.
func (t *tables) known(a store.Attr) *node {
	n := t.byID[a.ID]
	if n == nil || n.kind != a.Mode&syscall.S_IFMT || !n.btime.IsZero() && !a.Btime.IsZero() && !n.btime.Equal(a.Btime) {
		return nil
	}
	return n
}

// link makes name in p a name of n. The caller holds FS.mu.
func (t *tables) link(p *node, name string, n *node) {
	if p.children[name] == n {
		return
	}
	t.cut(p, name)
	if n.isDir() {
		for len(n.links) > 0 {
			t.cut(n.links[0].parent, n.links[0].name)
		}
		// A directory that was moved behind the mount may turn up beneath one
		// that we still believe to lie in it.
		for up := p; len(up.links) > 0; up = up.links[0].parent {
			if up.links[0].parent == n {
				t.cut(n, up.links[0].name)
				break
			}
		}
	}
	if p.children == nil {
		p.children = make(map[string]*node)
	}
	p.children[name] = n
	n.links = append(n.links, link{p, name})
}

// cut forgets the name in p, if it is known. The caller holds FS.mu.
func (t *tables) cut(p *node, name string) {
	n := p.children[name]
	if n == nil {
		return
	}
	delete(p.children, name)
	n.links = slices.DeleteFunc(n.links, func(l link) bool { return l.parent == p && l.name == name })
}

// attach says that s is the session of n. The caller holds FS.mu.
func (t *tables) attach(n *node, s *session.Session) {
	if n.session == s {
		return
	}
	t.detach(n)
	n.session = s
	t.bySession[s] = n
}

// detach forgets the session of n. The caller holds FS.mu.
func (t *tables) detach(n *node) {
	if n.session != nil && t.bySession[n.session] == n {
		delete(t.bySession, n.session)
	}
	n.session, n.writers = nil, 0
}

// drop takes n out of the tables if neither the kernel nor a handle refers to
// it, and reports whether; then the caller frees it without the lock. The
// caller holds FS.mu.
func (t *tables) drop(n *node) bool {
	if n.lookups > 0 || n.handles > 0 || t.nodes[n.id] != n {
		return false
	}
	delete(t.nodes, n.id)
	delete(t.inos, n.ino)
	if t.byID[n.fileID] == n {
		delete(t.byID, n.fileID)
	}
	t.detach(n)
	for len(n.links) > 0 {
		t.cut(n.links[0].parent, n.links[0].name)
	}
	for name := range n.children {
		t.cut(n, name)
	}
	return true
}

// free closes what a node that was dropped holds open.
func (fs *FS) free(n *node) {
	fs.dirs.drop(n)
	n.mu.Lock()
	file, kept := n.file, n.kept
	n.file, n.kept = nil, nil
	n.mu.Unlock()
	file.release(n)
	kept.release(n)
}

// get returns the node that a request is about. A number that we do not know
// is from before our time: the kernel looks the name up again.
func (fs *FS) get(id uint64) (*node, error) {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	if n := fs.nodes[id]; n != nil {
		return n, nil
	}
	return nil, syscall.ESTALE
}

// Forget takes back nlookup of the lookups that the kernel was told of.
func (fs *FS) Forget(nodeid, nlookup uint64) {
	fs.mu.Lock()
	n := fs.nodes[nodeid]
	dropped := false
	if n != nil && n != fs.root {
		n.lookups -= min(nlookup, n.lookups)
		dropped = fs.drop(n)
	}
	fs.mu.Unlock()
	if dropped {
		fs.free(n)
	}
}

// pathOf returns the path of name in p, or of p itself if name is empty. It
// answers ENOENT for a directory that has been removed.
func (fs *FS) pathOf(p *node, name string) (string, error) {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return fs.pathLocked(p, name)
}

// pathLocked is pathOf for callers that hold FS.mu.
func (fs *FS) pathLocked(p *node, name string) (string, error) {
	size := len(name)
	for n := p; n != fs.root; n = n.links[0].parent {
		if len(n.links) == 0 {
			return "", syscall.ENOENT
		}
		size += len(n.links[0].name) + 1
	}
	if name == "" && size > 0 {
		size-- // no slash behind the last component
	}
	path := make([]byte, size)
	at := size - len(name)
	copy(path[at:], name)
	for n := p; n != fs.root; n = n.links[0].parent {
		if at < size {
			at--
			path[at] = '/'
		}
		at -= len(n.links[0].name)
		copy(path[at:], n.links[0].name)
	}
	return string(path), nil
}

// names returns the names of n.
func (fs *FS) names(n *node) []link {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return slices.Clone(n.links)
}

// child returns the node that name in p is known to be, or nil.
func (fs *FS) child(p *node, name string) *node {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return p.children[name]
}

// sessionOf returns the session of n, or nil.
func (fs *FS) sessionOf(n *node) *session.Session {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return n.session
}

package fusefs

import (
	"container/list"
	"errors"
	"sync"
	"syscall"

	"github.com/wholefs/wholefs/store"
)

// dirCache keeps the directories of the store open that nodes use, and of
// those that nobody uses the last few: a tree of a million directories must
// not cost a million descriptors.
type dirCache struct {
	max int

	mu   sync.Mutex
	idle list.List // of *openDir, the longest unused first
}

// An openDir is an open directory of the store. Its fields are guarded by
// dirCache.mu.
type openDir struct {
	store.Dir
	n    *node
	refs int
	elem *list.Element // in dirCache.idle while refs is 0
	// pinned says that one reference is the node's own; dead that the node
	// has let go of it.
	pinned, dead bool
}

// pin enters d as the directory of n for good.
func (c *dirCache) pin(n *node, d store.Dir) { n.dir = &openDir{Dir: d, n: n, refs: 1, pinned: true} }

// get takes a reference to the open directory of n, if there is one.
func (c *dirCache) get(n *node) *openDir {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.getLocked(n)
}

func (c *dirCache) getLocked(n *node) *openDir {
	d := n.dir
	if d == nil {
		return nil
	}
	if d.elem != nil {
		c.idle.Remove(d.elem)
		d.elem = nil
	}
	d.refs++
	return d
}

// put enters d as the directory of n and takes a reference to it, or to the
// one that somebody else was quicker to enter.
func (c *dirCache) put(n *node, d store.Dir) *openDir {
	c.mu.Lock()
	have := c.getLocked(n)
	if have == nil {
		n.dir = &openDir{Dir: d, n: n}
		have, d = c.getLocked(n), nil
	}
	c.mu.Unlock()
	if d != nil {
		d.Close()
	}
	return have
}

// drop closes the directory of a node that was forgotten, once nobody uses it.
func (c *dirCache) drop(n *node) {
	c.mu.Lock()
	d := n.dir
	n.dir = nil
	unused := false
	if d != nil {
		d.dead = true
		if d.elem != nil {
			c.idle.Remove(d.elem)
			d.elem = nil
		}
		if d.pinned {
			d.refs--
		}
		unused = d.refs == 0
	}
	c.mu.Unlock()
	if unused {
		d.Dir.Close()
	}
}

// release gives a reference back.
func (c *dirCache) release(d *openDir) {
	var closing *openDir
	c.mu.Lock()
	d.refs--
	switch {
	case d.refs > 0:
	case d.dead:
		closing = d
	default:
		d.elem = c.idle.PushBack(d)
		if c.idle.Len() > c.max {
			closing = c.idle.Remove(c.idle.Front()).(*openDir)
			closing.elem = nil
			closing.n.dir = nil
		}
	}
	c.mu.Unlock()
	if closing != nil {
		closing.Dir.Close()
	}
}

// openDir returns the open directory of n. The caller releases it. It answers
// ENOENT for a directory that was removed here, and ESTALE for one that was
// moved or removed behind the mount, so that the kernel looks its name up again.
func (fs *FS) openDir(n *node) (*openDir, error) {
	if !n.isDir() {
		return nil, syscall.ENOTDIR
	}
	if d := fs.dirs.get(n); d != nil {
		return d, nil
	}
	fs.mu.RLock()
	id, removed := n.fileID, len(n.links) == 0
	var at link
	if !removed {
		at = n.links[0]
	}
	fs.mu.RUnlock()
	if removed {
		return nil, syscall.ENOENT
	}
	parent, err := fs.openDir(at.parent)
	if err != nil {
		return nil, err
	}
	defer fs.dirs.release(parent)
	d, err := parent.OpenDir(at.name)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP):
		return nil, errMoved
	case err != nil:
		return nil, err
	}
	if a, err := d.Stat(); err != nil || a.ID != id {
		d.Close()
		if err == nil {
			err = errMoved
		}
		return nil, err
	}
	return fs.dirs.put(n, d), nil
}

// inDir calls f with the open directory of n.
func (fs *FS) inDir(n *node, f func(store.Dir) error) error {
	d, err := fs.openDir(n)
	if err != nil {
		return err
	}
	defer fs.dirs.release(d)
	return f(d.Dir)
}

// lookIn tells of name in the store's directory p.
func (fs *FS) lookIn(p *node, name string) (store.Attr, error) {
	d, err := fs.openDir(p)
	if err != nil {
		return store.Attr{}, err
	}
	defer fs.dirs.release(d)
	return d.Lookup(name)
}

package fusefs

import (
	"errors"
	"os"
	"syscall"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// shared is something in the store that a node holds open for all who use it.
// refs is guarded by the node's mu; one reference is the node's own.
type shared[T store.Node] struct {
	open T
	refs int
}

// release gives a reference to f, which was or is held by n, back.
func (f *shared[T]) release(n *node) {
	if f == nil {
		return
	}
	n.mu.Lock()
	f.refs--
	last := f.refs == 0
	n.mu.Unlock()
	if last {
		f.open.Close()
	}
}

type (
	openFile = shared[store.File]
	keptNode = shared[store.Node]
)

// openFile returns the published content of n. The caller releases it.
func (fs *FS) openFile(n *node) (*openFile, error) {
	for {
		n.mu.Lock()
		f, gen := n.file, n.fileGen
		if f != nil {
			f.refs++
		}
		n.mu.Unlock()
		if f != nil {
			return f, nil
		}
		opened, err := fs.findFile(n)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		if n.file == nil && n.fileGen == gen {
			n.file = &openFile{open: opened, refs: 2}
			f = n.file
		}
		n.mu.Unlock()
		if f != nil {
			return f, nil
		}
		// Somebody was quicker, or has published: have another look.
		opened.Close()
	}
}

// dropFile forgets the open published content of n. replaced says that a new
// version took its place, so that a lookup under way must not bring it back.
func (fs *FS) dropFile(n *node, replaced bool) {
	n.mu.Lock()
	f := n.file
	n.file = nil
	if replaced {
		n.fileGen++
	}
	n.mu.Unlock()
	f.release(n)
}

// errMoved says that none of a file's known names leads to it any more: it was
// renamed, removed or replaced behind the mount. The kernel then looks the
// name up again.
var errMoved error = syscall.ESTALE

// atName calls f with the places where n is published, until one succeeds or
// fails otherwise than by not being n's any more.
func (fs *FS) atName(n *node, f func(d store.Dir, at link) error) error {
	for _, at := range fs.names(n) {
		err := fs.inDir(at.parent, func(d store.Dir) error { return f(d, at) })
		if !errors.Is(err, errMoved) && !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	return errMoved
}

// findFile opens the published content of n by one of its names.
func (fs *FS) findFile(n *node) (store.File, error) {
	var file store.File
	err := fs.atName(n, func(d store.Dir, at link) error {
		f, err := d.OpenFile(at.name)
		if err != nil {
			return err
		}
		if err := fs.check(n, f); err != nil {
			f.Close()
			return err
		}
		file = f
		return nil
	})
	if !errors.Is(err, errMoved) {
		return file, err
	}
	kept := n.keep()
	if kept == nil {
		return nil, err
	}
	defer kept.release(n)
	if r, ok := kept.open.(store.Reopener); ok {
		return r.Reopen()
	}
	return nil, err
}

// check makes sure that opened, found by a name of n, is what n stands for.
func (fs *FS) check(n *node, opened store.Node) error {
	a, err := opened.Stat()
	if err == nil && !fs.standsFor(n, a) {
		err = errMoved
	}
	return err
}

// standsFor reports whether n stands for the published thing that a tells of
// and that was found by a name of n.
//
// A file that is open for writing follows its name: its session may have
// published this very version, and SessionPublished be about to say so.
func (fs *FS) standsFor(n *node, a store.Attr) bool {
	fs.mu.RLock()
	same, open := n.fileID == a.ID, n.session != nil
	fs.mu.RUnlock()
	if same || !open {
		return same
	}
	fs.mu.Lock()
	follows := fs.follows(n, a)
	fs.mu.Unlock()
	if follows {
		fs.dropFile(n, true)
	}
	return follows
}

// follows moves n on to the version that a tells of, if it is a new version of
// a file that is open for writing. The caller holds FS.mu, and drops the open
// file of n without it.
func (t *tables) follows(n *node, a store.Attr) bool {
	if n.session == nil || !a.IsRegular() || t.known(a) != nil && t.known(a) != n {
		return false
	}
	t.setFile(n, a)
	return true
}

// onStore calls f with the published thing behind n, open in whatever way is
// at hand.
func (fs *FS) onStore(n *node, f func(store.Node) error) error {
	if n.isDir() {
		err := fs.inDir(n, func(d store.Dir) error { return f(d) })
		if !errors.Is(err, syscall.ENOENT) || !fs.nameless(n) {
			return err
		}
	}
	n.mu.Lock()
	file := n.file
	if file != nil {
		file.refs++
	}
	n.mu.Unlock()
	if file != nil {
		defer file.release(n)
		return f(file.open)
	}
	err := fs.atName(n, func(d store.Dir, at link) error {
		node, err := d.OpenNode(at.name)
		if err != nil {
			return err
		}
		defer node.Close()
		if err := fs.check(n, node); err != nil {
			return err
		}
		return f(node)
	})
	if !errors.Is(err, errMoved) {
		return err
	}
	kept := n.keep()
	if kept == nil {
		return err
	}
	defer kept.release(n)
	return f(kept.open)
}

// keep returns what was kept of a file whose name went away, or is just going;
// nil if nothing was. The caller releases it.
func (n *node) keep() *keptNode {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.kept != nil {
		n.kept.refs++
	}
	return n.kept
}

// onNode calls f with what holds the attributes of n now: the staging file of
// its active session, or what is published.
func (fs *FS) onNode(n *node, f func(store.Node) error) error {
	if s := fs.sessionOf(n); s != nil {
		node, err := s.Node()
		if err == nil {
			err = f(node)
		}
		// Closed: the session ended between the two calls.
		if !errors.Is(err, session.ErrInactive) && !errors.Is(err, os.ErrClosed) {
			return err
		}
	}
	return fs.onStore(n, f)
}

// nameless reports whether n has lost all names that we know.
func (fs *FS) nameless(n *node) bool {
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return len(n.links) == 0 && n != fs.root
}

// keep makes sure that what name in p shows can still answer fstat, and be
// read and written through open handles, once the name is removed.
func (fs *FS) keep(p *node, name string) {
	fs.mu.RLock()
	n := p.children[name]
	if n == nil || len(n.links) > 1 && n.handles == 0 {
		fs.mu.RUnlock()
		return
	}
	read, s := n.isRegular() && n.handles > 0, n.session
	fs.mu.RUnlock()
	if s != nil {
		s.KeepBase()
	}
	if read {
		if f, err := fs.openFile(n); err == nil {
			f.release(n) // the node keeps its own reference, while it has handles
		}
	}
	err := fs.inDir(p, func(d store.Dir) error {
		node, err := d.OpenNode(name)
		if err != nil {
			return err
		}
		if err := fs.check(n, node); err != nil {
			node.Close()
			return err
		}
		n.mu.Lock()
		old := n.kept
		n.kept = &keptNode{open: node, refs: 1}
		n.mu.Unlock()
		old.release(n)
		return nil
	})
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		fs.log.Debug("a removed file cannot be kept for those who have it open", "name", name, "err", err)
	}
}

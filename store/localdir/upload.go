package localdir

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/durable"
	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
)

// upload is a staging file on its way to its name. The store keeps nothing of
// it: whether it was published can be seen from the inode at its path.
type upload struct {
	store *Store
	// file is the staging file. Its Dev is written down but not compared:
	// many filesystems get another number at each mount, and the file can
	// only lie on the store's.
	file store.ID
}

var _ store.Upload = (*upload)(nil)

func (s *Store) begin(p store.Plan) (*upload, error) {
	if p.Staged == nil {
		return nil, fmt.Errorf("publish %q: an upload begins with a staging file: %w", p.Path, unix.EINVAL)
	}
	a, err := fdnode.Node{F: p.Staged.Fd()}.Stat()
	if err != nil {
		return nil, fmt.Errorf("publish %q: staging file: %w", p.Path, err)
	}
	if a.ID.Dev != s.id.Dev {
		return nil, fmt.Errorf("publish %q: the staging file is not on the filesystem of %s: %w", p.Path, s, unix.EXDEV)
	}
	return &upload{store: s, file: a.ID}, nil
}

func (s *Store) resume(id string, p store.Plan) (*upload, error) {
	file, ok := parseID(id)
	if !ok {
		return nil, fmt.Errorf("resume %q: upload id %q is none of a directory: %w", p.Path, id, unix.EINVAL)
	}
	u := &upload{store: s, file: file}
	if p.Staged == nil {
		return u, nil
	}
	a, err := fdnode.Node{F: p.Staged.Fd()}.Stat()
	if err != nil {
		return nil, fmt.Errorf("resume %q: staging file: %w", p.Path, err)
	}
	if !u.is(a) {
		return nil, fmt.Errorf("resume %q: staging file %s is inode %d, the upload began with %d: %w",
			p.Path, p.Staged.Name(), a.ID.Ino, file.Ino, unix.EIO)
	}
	return u, nil
}

// ID is "dev-ino" of the staging file, in decimal.
func (u *upload) ID() string { return formatID(u.file) }

func formatID(id store.ID) string { return fmt.Sprintf("%d-%d", id.Dev, id.Ino) }

func parseID(s string) (store.ID, bool) {
	var id store.ID
	if _, err := fmt.Sscanf(s, "%d-%d", &id.Dev, &id.Ino); err != nil {
		return store.ID{}, false
	}
	return id, formatID(id) == s // nothing before, after or between
}

// is reports whether a is the file that the upload began with.
func (u *upload) is(a store.Attr) bool {
	return a.IsRegular() && a.ID.Ino == u.file.Ino && a.ID.Dev == u.store.id.Dev
}

// PutPart gives EOPNOTSUPP: the staging file is published as it is.
func (u *upload) PutPart(context.Context, store.Part, io.ReaderAt) (store.Receipt, error) {
	return store.Receipt{}, fmt.Errorf("a directory takes no parts: %w", unix.EOPNOTSUPP)
}

// Parts returns none.
func (u *upload) Parts(context.Context) ([]store.Receipt, error) { return nil, nil }

// Abort has nothing to free: the staging file belongs to the caller.
func (u *upload) Abort(context.Context) error { return nil }

// Complete publishes the staging file under f.Path. Its errno is that of what
// failed: ENOENT where the directory of f.Path is gone, EISDIR where f.Path is
// a directory, EEXIST under NoReplace, EPERM for the reserved name, EXDEV
// where the directory lies on another filesystem, EIO if the staging file is
// gone, was exchanged, or has not f.Size bytes.
//
// The staging file is renamed to f.Path. If what is there has other names too,
// its content is replaced instead, and the staging file stays: see inplace.go.
// A symlink at f.Path is replaced itself.
//
// After a crash Complete may be called again; where the rename was done
// already it only syncs. If the sync of a directory fails, the new file is
// visible although Complete gives an error; Completed tells so.
func (u *upload) Complete(ctx context.Context, f store.Final) (store.Published, error) {
	if err := ctx.Err(); err != nil {
		return store.Published{}, err
	}
	p, err := u.complete(f)
	if err != nil {
		return store.Published{}, fmt.Errorf("publish %q: %w", f.Path, err)
	}
	return p, nil
}

func (u *upload) complete(f store.Final) (store.Published, error) {
	parent, name, err := u.parent(f.Path)
	if err != nil {
		return store.Published{}, err
	}
	defer parent.Close()
	target, err := parent.statAt(name)
	exists := err == nil
	switch {
	case err != nil && err != unix.ENOENT:
		return store.Published{}, err
	case exists && parent.isState(target):
		return store.Published{}, unix.EPERM
	case exists && u.is(target):
		return u.finish(parent, target, f)
	case f.Staged == nil:
		return store.Published{}, fmt.Errorf("the staging file is gone, and what is there is not its content: %w", unix.EIO)
	case exists && target.IsDir():
		return store.Published{}, unix.EISDIR
	case exists && f.NoReplace:
		return store.Published{}, unix.EEXIST
	case exists && target.IsRegular() && target.Nlink > 1 && target.ID == f.Base:
		return u.publishInPlace(parent, name, f)
	}
	return u.publishByRename(parent, name, f)
}

// parent opens the directory of path and returns the last component.
func (u *upload) parent(path string) (*dir, string, error) {
	if path == "" {
		return nil, "", unix.EISDIR
	}
	if err := checkPath(path); err != nil {
		return nil, "", err
	}
	up, name := split(path)
	d, err := u.store.openDir(up)
	if err == unix.EXDEV {
		return nil, "", crossing(up)
	}
	if err != nil {
		return nil, "", err
	}
	if err := d.creatable(name); err != nil {
		d.Close()
		return nil, "", err
	}
	return d, name, nil
}

func crossing(dir string) error {
	return fmt.Errorf("%q lies on another filesystem than the store's top (a mount or subvolume made beneath it): mount wholefs there separately: %w",
		dir, unix.EXDEV)
}

// publishByRename is the way of nearly all files.
func (u *upload) publishByRename(parent *dir, name string, f store.Final) (store.Published, error) {
	if f.Durability >= store.DurabilityClose {
		if err := durable.SyncFile(f.Staged.Fd()); err != nil {
			return store.Published{}, fmt.Errorf("sync staging file: %w", err)
		}
	}
	if _, err := u.verify(f); err != nil {
		return store.Published{}, err
	}
	var flags uint
	if f.NoReplace {
		flags = unix.RENAME_NOREPLACE
	}
	err := u.synced(parent, f, func() error {
		err := durable.Rename(f.Staged.Dir(), f.Staged.Name(), parent.F, name, flags)
		if err == unix.EXDEV {
			return crossing(parent.F.Name())
		}
		return err
	})
	if err != nil {
		return store.Published{}, err
	}
	a, err := fdnode.Node{F: f.Staged.Fd()}.Stat()
	return store.Published{Attr: a}, err
}

// finish does what may have been left undone by an earlier Complete, whose
// rename took place.
func (u *upload) finish(parent *dir, target store.Attr, f store.Final) (store.Published, error) {
	if f.Staged == nil {
		if f.Durability < store.DurabilityClose {
			return store.Published{Attr: target}, nil
		}
		return store.Published{Attr: target}, parent.Sync()
	}
	err := u.synced(parent, f, func() error {
		// Two names of one file, which rename(2) would leave alone.
		if a, err := stagedName(f.Staged); err == nil && u.is(a) {
			return unlinkStaged(f.Staged)
		}
		return nil
	})
	return store.Published{Attr: target}, err
}

// synced does change, and then syncs the directory of the published file and
// that of the staging file, if f asks for it. What is needed for syncing is
// opened before the change, so that a lack of it prevents the change.
func (u *upload) synced(parent *dir, f store.Final, change func() error) error {
	if f.Durability < store.DurabilityClose {
		return change()
	}
	return parent.withReadable(func(to *os.File) error {
		from, err := readDir(f.Staged.Dir())
		if err != nil {
			return fmt.Errorf("staging directory: %w", err)
		}
		defer from.Close()
		if err := change(); err != nil {
			return err
		}
		if err := durable.SyncDir(to); err != nil {
			return fmt.Errorf("sync directory: %w", err)
		}
		if err := durable.SyncDir(from); err != nil {
			return fmt.Errorf("sync staging directory: %w", err)
		}
		return nil
	})
}

// verify gives EIO unless the name of the staging file leads to the file that
// is open and that the upload began with, and has the size it should have.
func (u *upload) verify(f store.Final) (store.Attr, error) {
	opened, err := fdnode.Node{F: f.Staged.Fd()}.Stat()
	if err != nil {
		return opened, fmt.Errorf("staging file: %w", err)
	}
	if !u.is(opened) {
		return opened, fmt.Errorf("staging file %s is inode %d, the upload began with %d: %w",
			f.Staged.Name(), opened.ID.Ino, u.file.Ino, unix.EIO)
	}
	named, err := stagedName(f.Staged)
	if err == unix.ENOENT {
		return opened, fmt.Errorf("staging file %s is gone: %w", f.Staged.Name(), unix.EIO)
	}
	if err != nil {
		return opened, fmt.Errorf("staging file: %w", err)
	}
	if named.ID != opened.ID {
		return opened, fmt.Errorf("staging file %s was exchanged: its name is inode %d, inode %d is open: %w",
			f.Staged.Name(), named.ID.Ino, opened.ID.Ino, unix.EIO)
	}
	if opened.Size != f.Size {
		return opened, fmt.Errorf("staging file %s has %d bytes, %d were expected: %w",
			f.Staged.Name(), opened.Size, f.Size, unix.EIO)
	}
	return opened, nil
}

// stagedName tells what the name of the staging file leads to.
func stagedName(s store.Staged) (a store.Attr, err error) {
	err = fdnode.With(s.Dir(), func(fd int) (err error) {
		a, err = fdnode.StatAt(fd, s.Name())
		return err
	})
	return a, err
}

func unlinkStaged(s store.Staged) error {
	return fdnode.With(s.Dir(), func(fd int) error { return unix.Unlinkat(fd, s.Name(), 0) })
}

// Completed reports whether f.Path is the staging file. A publish in place
// (Published.InPlace) cannot be told so; the staging file is still there then,
// and Complete is to be called again.
func (u *upload) Completed(ctx context.Context, f store.Final) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	parent, name, err := u.parent(f.Path)
	if err == nil {
		defer parent.Close()
		var a store.Attr
		if a, err = parent.statAt(name); err == nil {
			return u.is(a), nil
		}
	}
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return false, nil
	}
	return false, fmt.Errorf("look for %q: %w", f.Path, err)
}

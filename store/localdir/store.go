package localdir

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
)

// StateDirName is the reserved name at the top of the store, under which
// wholefs keeps what is its own.
const StateDirName = ".wholefs"

// stagingName is the directory of staging files in the state directory.
const stagingName = "staging"

// Store is a local directory as a store. It is made by Open.
type Store struct {
	path  string   // absolute, without symlinks
	root  *os.File // O_PATH
	id    store.ID // of root
	state store.ID // of the state directory
}

var _ store.Store = (*Store)(nil)

// String returns the absolute path of the directory.
func (s *Store) String() string { return s.path }

// StateDir returns the path of the directory where wholefs keeps its state;
// it exists, with mode 0700.
func (s *Store) StateDir() string { return filepath.Join(s.path, StateDirName) }

// StagingPath returns the path, inside StateDir, where staging files belong.
// It may not exist yet.
func (s *Store) StagingPath() string { return filepath.Join(s.StateDir(), stagingName) }

// Limits returns no limits: a directory takes the finished staging file.
func (s *Store) Limits() store.Limits { return store.Limits{} }

// OpenDir opens the directory at path; the empty path is the top. Errors, all
// bare: ENOENT, ENOTDIR, EACCES, ELOOP if a component is a symlink, EXDEV if
// one lies on another filesystem or mount, and those of malformed paths.
//
// A path may be longer than PATH_MAX: it is then resolved in pieces, each
// beneath the last.
func (s *Store) OpenDir(path string) (store.Dir, error) {
	d, err := s.openDir(path)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func (s *Store) openDir(path string) (*dir, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if path == "" {
		f, err := reopenDir(s.root)
		if err != nil {
			return nil, err
		}
		return &dir{node: node{Node: fdnode.Node{F: f}, store: s}, top: true}, nil
	}
	// The first component goes alone: it may be the state directory, by
	// whatever name, and then nothing beneath it is to be had.
	first, rest, _ := strings.Cut(path, "/")
	if first == StateDirName {
		return nil, unix.ENOENT
	}
	at, err := s.openBeneath(s.root, first)
	for err == nil && rest != "" {
		var chunk string
		chunk, rest = nextChunk(rest, chunkMax)
		above := at
		at, err = s.openBeneath(above, chunk)
		above.Close()
	}
	if err != nil {
		return nil, err
	}
	return &dir{node: node{Node: fdnode.Node{F: at}, store: s}}, nil
}

// openBeneath opens the directory at path beneath at, following no symlink, and
// refuses one that is on another filesystem, or is our state directory.
func (s *Store) openBeneath(at *os.File, path string) (*os.File, error) {
	f, err := openat2(at, path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	a, err := fdnode.Node{F: f}.Stat()
	if err == nil && a.ID.Dev != s.id.Dev {
		err = unix.EXDEV
	}
	if err == nil && a.ID == s.state {
		err = unix.ENOENT
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Space tells of the filesystem that the directory lies on.
func (s *Store) Space() (store.Space, error) {
	var st unix.Statfs_t
	if err := fdnode.With(s.root, func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return store.Space{}, err
	}
	block := st.Frsize
	if block == 0 {
		block = st.Bsize
	}
	return store.Space{
		BlockSize:   block,
		Blocks:      st.Blocks,
		BlocksFree:  st.Bfree,
		BlocksAvail: st.Bavail,
		Files:       st.Files,
		FilesFree:   st.Ffree,
		NameMax:     uint32(min(st.Namelen, nameMax)),
	}, nil
}

// Begin starts an upload of p.Staged, whose identity is the upload's ID. It
// gives EINVAL without a staging file.
func (s *Store) Begin(ctx context.Context, p store.Plan) (store.Upload, error) {
	return s.begin(p)
}

// Resume finds an upload again by its ID, which is all that it is made of. It
// gives EINVAL for an ID that is none of ours, and EIO if p.Staged is there
// and is another file than the one that the upload began with.
func (s *Store) Resume(ctx context.Context, id string, p store.Plan) (store.Upload, error) {
	return s.resume(id, p)
}

// Close closes the store's own descriptor. What was opened through it stays.
func (s *Store) Close() error { return fdnode.Node{F: s.root}.Close() }

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
)

// Defaults of Options.
const (
	DefaultTimeout      = time.Second
	DefaultBlockSize    = MaxWrite
	DefaultMaxOpenDirs  = 1024
	DefaultReservedName = ".wholefs"
)

// Observer counts what the mount does. Its methods are called on hot paths and
// must not block. The device loop calls Op, once for each request.
type Observer interface {
	Op(op string, errno syscall.Errno, d time.Duration)
	Written(n int)
	Read(n int)
}

type noObserver struct{}

func (noObserver) Op(string, syscall.Errno, time.Duration) {}
func (noObserver) Written(int)                             {}
func (noObserver) Read(int)                                {}

// Options are what an FS is made of. Store and Engine must be set; the rest
// has defaults.
type Options struct {
	Store  store.Store
	Engine *session.Engine
	// AttrTimeout and EntryTimeout say how long the kernel may believe
	// attributes and names without asking; negative means not at all.
	AttrTimeout  time.Duration
	EntryTimeout time.Duration
	// NegativeTimeout is the same for names that do not exist. 0, the
	// default, means not at all.
	NegativeTimeout time.Duration
	// BlockSize is st_blksize, the size in which cp and cat write: that of
	// the largest write request.
	BlockSize uint32
	// MaxOpenDirs bounds the directories that are kept open unused.
	MaxOpenDirs int
	// ReservedName is the name at the top of the store that holds the state
	// of wholefs and does not exist in the mount.
	ReservedName string
	Logger       *slog.Logger
	Observer     Observer
}

func (o *Options) setDefaults() error {
	switch {
	case o.Store == nil:
		return errors.New("fusefs: no store")
	case o.Engine == nil:
		return errors.New("fusefs: no session engine")
	}
	for _, t := range []*time.Duration{&o.AttrTimeout, &o.EntryTimeout} {
		if *t == 0 {
			*t = DefaultTimeout
		}
		*t = max(*t, 0)
	}
	o.NegativeTimeout = max(o.NegativeTimeout, 0)
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
	}
	if o.MaxOpenDirs == 0 {
		o.MaxOpenDirs = DefaultMaxOpenDirs
	}
	if o.ReservedName == "" {
		o.ReservedName = DefaultReservedName
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
	return nil
}

// FS answers the requests of one mount. It implements fuse.RawFileSystem.
type FS struct {
	// What is deliberately unsupported comes from go-fuse; see api_check.go.
	fuse.RawFileSystem

	o      Options
	store  store.Store
	engine *session.Engine
	log    *slog.Logger
	// ctx is the mount's; it ends with Close.
	ctx    context.Context
	cancel context.CancelFunc

	root    *node
	dirs    dirCache
	notices notices

	mu sync.RWMutex
	tables
}

var _ fuse.RawFileSystem = (*FS)(nil)

// New makes the filesystem of a store. The caller passes what the engine's
// hooks tell on to SessionPublished and SessionEnded.
func New(o Options) (*FS, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	fs := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		o:             o,
		store:         o.Store,
		engine:        o.Engine,
		log:           o.Logger,
		tables:        newTables(),
	}
	fs.dirs.max = o.MaxOpenDirs
	top, err := o.Store.OpenDir("")
	if err != nil {
		return nil, fmt.Errorf("fusefs: open the top of the store: %w", err)
	}
	a, err := top.Stat()
	if err != nil {
		top.Close()
		return nil, fmt.Errorf("fusefs: stat the top of the store: %w", err)
	}
	fs.root = fs.newNode(a)
	fs.root.lookups = 1
	fs.dirs.pin(fs.root, top)
	fs.ctx, fs.cancel = context.WithCancel(context.Background())
	fs.notices.start()
	return fs, nil
}

// Close frees what the filesystem holds open. No request may be under way.
func (fs *FS) Close() {
	fs.cancel()
	fs.notices.stop()
	fs.mu.Lock()
	nodes := make([]*node, 0, len(fs.nodes))
	for _, n := range fs.nodes {
		nodes = append(nodes, n)
	}
	dirHandles := make([]*dirHandle, 0, len(fs.dirHandles))
	for _, h := range fs.dirHandles {
		dirHandles = append(dirHandles, h)
	}
	fs.tables = newTables()
	fs.mu.Unlock()
	for _, h := range dirHandles {
		h.close()
	}
	for _, n := range nodes {
		fs.free(n)
	}
}

// String names the filesystem in go-fuse's messages.
func (fs *FS) String() string { return "wholefs " + fs.store.String() }

// reserved reports whether name in p is the one that holds the state of
// wholefs.
func (fs *FS) reserved(p *node, name string) bool {
	return p == fs.root && name == fs.o.ReservedName
}

// making checks that a request may make name in p, and returns its path.
func (fs *FS) making(p *node, name string) (string, error) {
	if fs.reserved(p, name) {
		return "", syscall.EPERM
	}
	return fs.pathOf(p, name)
}

// Package store defines where published files live: the contract that a
// local directory, an S3 bucket and another wholefs server all keep.
//
// A store has two halves. The namespace half (Dir, File, Node) shows and
// changes what is published: the mount serves lookups, listings, reads and
// renames from it. The publishing half (Store.Begin, Upload) makes a staged
// file visible, whole and at once (promises W1 and W2 of docs/SEMANTICS.md).
//
// The contract is shaped for stores that differ in one thing above all: a
// directory takes a finished staging file by rename, a remote store must be
// sent its bytes. Store.Limits says which; the session engine sends parts
// eagerly only where Limits.EagerParts is set, journals the Receipt of each,
// and hands all of them to Complete. Nothing above this package knows which
// kind of store it writes to.
//
// Paths are relative to the store's top, slash-separated, without leading,
// trailing or doubled slashes, and without "." or ".."; the empty path is the
// top itself. Names are arbitrary bytes except '/' and NUL. No path, symlink
// or race may lead outside the store (promise W10): an implementation that
// resolves names in a filesystem does so beneath a directory descriptor.
//
// Errors carry a syscall.Errno in their chain wherever one says what
// happened; faces translate with errors.As. Methods are safe for concurrent
// use unless said otherwise.
package store

import (
	"context"
	"io"
	"iter"
	"os"
	"syscall"
	"time"
)

// ID is the identity of a published file: two names with one ID are one file
// (hard links), and a name whose ID changed was replaced. It is comparable
// and valid until the file is gone. The zero ID identifies nothing.
type ID struct {
	Dev, Ino uint64 // of a file in a local filesystem
	Key      string // of an object in a remote store
}

// Attr is what stat(2) tells of a file. Mode holds the type bits (S_IFMT) and
// the permission bits. Size is in bytes, Blocks in units of 512 bytes.
type Attr struct {
	ID     ID
	Mode   uint32
	Nlink  uint32
	UID    uint32
	GID    uint32
	Rdev   uint64
	Size   int64
	Blocks int64
	Atime  time.Time
	Mtime  time.Time
	Ctime  time.Time
	Btime  time.Time // zero where the store does not know
}

// IsDir reports whether the attributes are those of a directory.
func (a Attr) IsDir() bool { return a.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// IsRegular reports whether the attributes are those of a regular file.
func (a Attr) IsRegular() bool { return a.Mode&syscall.S_IFMT == syscall.S_IFREG }

// Owner is who a newly made file belongs to.
type Owner struct{ UID, GID uint32 }

// Change says which attributes SetAttr changes; nil fields stay.
type Change struct {
	Mode  *uint32 // permission bits, with suid, sgid and sticky
	UID   *uint32
	GID   *uint32
	Size  *int64
	Atime *time.Time
	Mtime *time.Time
}

// Entry is one name in a directory listing. Mode holds only the type bits.
type Entry struct {
	Name string
	Ino  uint64
	Mode uint32
}

// Space is what statfs(2) tells: bytes and inodes, all and free, and the
// longest name. Avail is what an unprivileged writer may still use.
type Space struct {
	BlockSize   int64
	Blocks      uint64
	BlocksFree  uint64
	BlocksAvail uint64
	Files       uint64
	FilesFree   uint64
	NameMax     uint32
}

// Rename flags, as in renameat2(2).
const (
	RenameNoReplace = 1 << 0
	RenameExchange  = 1 << 1
)

// Node is one thing in the store of whatever type, held open: it stays valid
// when its name is renamed or removed. Extended attribute calls have the
// meaning and the errors of the system calls of the same name (ENODATA where
// the attribute is absent).
type Node interface {
	Stat() (Attr, error)
	// SetAttr changes what c names and returns the attributes after it.
	SetAttr(c Change) (Attr, error)
	Readlink() (string, error)
	GetXattr(name string) ([]byte, error)
	SetXattr(name string, value []byte, flags int) error
	ListXattr() ([]string, error)
	RemoveXattr(name string) error
	Close() error
}

// File is a published regular file opened for reading. It goes on showing the
// version that was opened when the name is replaced.
type File interface {
	Node
	io.ReaderAt
	// SeekData and SeekHole have the meaning of lseek(2): the next offset at
	// or after off that holds data, or lies in a hole; ENXIO past the end.
	SeekData(off int64) (int64, error)
	SeekHole(off int64) (int64, error)
}

// Reopener is a Node of a regular file whose content can be read even though
// no name leads to it any more. Stores that find content by name do not have it.
type Reopener interface {
	Node
	// Reopen opens the file for reading.
	Reopen() (File, error)
}

// Dir is a directory of the store, held open. Names are single components.
// Where a method makes something, the caller has checked permissions and
// applied the umask already.
type Dir interface {
	Node
	// Lookup tells of one entry, not following a symlink.
	Lookup(name string) (Attr, error)
	// List yields the entries without "." and "..", in any order. An entry
	// present throughout is yielded exactly once.
	List(ctx context.Context) iter.Seq2[Entry, error]
	// OpenNode, OpenFile and OpenDir open an entry without following it;
	// they answer ELOOP for a symlink (OpenNode opens the link itself),
	// ENOTDIR and EISDIR where the type is another.
	OpenNode(name string) (Node, error)
	OpenFile(name string) (File, error)
	OpenDir(name string) (Dir, error)

	// Mkdir, Mknod and Symlink make an entry that belongs to o. In a setgid
	// directory the group is the directory's, and a new directory is setgid
	// too, as in inode(7).
	Mkdir(name string, mode uint32, o Owner) (Attr, error)
	Mknod(name string, mode uint32, rdev uint64, o Owner) (Attr, error)
	Symlink(name, target string, o Owner) (Attr, error)
	// Link makes name another name of n, which must come from this store.
	Link(name string, n Node) (Attr, error)
	Unlink(name string) error
	Rmdir(name string) error
	// Rename moves name to toName in the directory to, which must come from
	// this store; flags are RenameNoReplace and RenameExchange.
	Rename(name string, to Dir, toName string, flags int) error
	// Sync makes the directory's entries durable.
	Sync() error
}

// Limits is what a store declares so that its callers can refuse early what
// it would refuse late. Zero means no limit.
type Limits struct {
	// EagerParts says that the store wants parts as soon as they are whole,
	// by Upload.PutPart. Where it is false, Complete takes the staging file.
	EagerParts bool
	// MinPartSize applies to all parts but the last; MaxPartSize to all.
	MinPartSize int64
	MaxPartSize int64
	MaxParts    int64
	MaxSize     int64
}

// Part is one fixed-size piece of a file, numbered from 0. CRC is the CRC32C
// of its Size bytes.
type Part struct {
	Number int64
	Offset int64
	Size   int64
	CRC    uint32
}

// Receipt is a store's answer to a part that it keeps. Token is the store's
// own word for it (an ETag); it is journaled and handed back in Complete.
type Receipt struct {
	Part
	Token string
}

// Staged is a finished staging file as a store sees it. A store that takes
// it by rename finds it as Name in the directory Dir; the descriptor stays
// open throughout, so that its identity can be compared.
type Staged interface {
	io.ReaderAt
	Dir() *os.File
	Name() string
	Fd() *os.File
}

// Durability says what has to survive a power loss when a publish returns.
type Durability int

const (
	// DurabilityProcess survives the death of the daemon. A power loss may
	// take the newest publish back, never half of it.
	DurabilityProcess Durability = iota
	// DurabilityClose syncs the file and its directory before Complete returns.
	DurabilityClose
	// DurabilityPart also synced each part before it was journaled.
	DurabilityPart
)

// Plan is what is known of a file when its upload begins.
type Plan struct {
	Path     string // where it will be published
	PartSize int64
	Staged   Staged
}

// Final is a file that is complete: each of its bytes lies in Staged or, where
// parts are sent eagerly, is covered by Receipts in ascending order.
type Final struct {
	Path       string // may differ from Plan.Path: the file was renamed meanwhile
	Size       int64
	Staged     Staged
	Receipts   []Receipt
	Durability Durability
	// Base is the published file that this is the next version of; zero for a
	// new file, which merely takes the name. Where Base has several names it is
	// rewritten in place, to keep them one file.
	Base ID
	// NoReplace makes Complete answer EEXIST if Path exists.
	NoReplace bool
}

// Published is the outcome of Complete.
type Published struct {
	Attr Attr
	// InPlace is set when the content was copied into the existing file, to
	// keep its other hard links, instead of replacing it: the exception to
	// W1 that docs/SEMANTICS.md describes. The staging file is then left
	// under its name, as the redo record: the caller removes it once the
	// session is forgotten.
	InPlace bool
}

// Upload is one file on its way into the store. Its methods may be called
// again after a crash, on the Upload that Store.Resume returns, and then do
// only what is still to do.
type Upload interface {
	// ID is journaled before the first PutPart and before Complete; with it
	// Store.Resume finds the upload again.
	ID() string
	// PutPart sends one part; sending it again replaces it. Only called
	// where Limits.EagerParts is set.
	PutPart(ctx context.Context, p Part, r io.ReaderAt) (Receipt, error)
	// Parts lists what the store has received (for resume). Stores without
	// EagerParts return nothing.
	Parts(ctx context.Context) ([]Receipt, error)
	// Complete makes the file visible at f.Path, whole and at once, in place
	// of what was there. On error nothing is visible and the staging file is
	// untouched, except that an error may hide a success (a lost answer):
	// Completed resolves that.
	Complete(ctx context.Context, f Final) (Published, error)
	// Completed reports whether f.Path already is this upload's outcome.
	Completed(ctx context.Context, f Final) (bool, error)
	// Abort frees what the store keeps of an upload that was not completed.
	Abort(ctx context.Context) error
}

// Store is a place for published files.
type Store interface {
	// String names the store for people: a directory, an URL.
	String() string
	Limits() Limits
	// OpenDir opens the directory at path; the empty path is the top.
	OpenDir(path string) (Dir, error)
	Space() (Space, error)
	// Begin starts an upload. It makes nothing visible.
	Begin(ctx context.Context, p Plan) (Upload, error)
	// Resume finds the upload with the given ID again after a restart. p is
	// the plan as it was journaled; p.Staged is nil when the staging file is
	// gone (a completed upload took it).
	Resume(ctx context.Context, id string, p Plan) (Upload, error)
	Close() error
}

// Package localdir is the store that is a local directory: a file is published
// by renaming its staging file into place.
//
// # Layout
//
// The directory that is served holds the published files, and one directory of
// our own:
//
//	top/                     what the mount shows
//	    .wholefs/            mode 0700; hidden, see below
//	        staging/         unfinished files (package staging)
//	        journal/         their records (package journal)
//
// Staging lies inside, and so on the same filesystem, since only there
// rename(2) can publish. Therefore Open refuses a directory beneath which
// something else is mounted; what Open cannot see (a btrfs subvolume, a mount
// made later) is refused with EXDEV when something is opened in it or
// published to it.
//
// The reserved name exists only at the top, and there it is as if nothing had
// that name: Lookup, the Open methods, Unlink, Rmdir, and Rename from it give
// ENOENT, List leaves it out. What would make it gives EPERM: Mkdir, Mknod,
// Symlink, Link, Rename to it, and Complete.
//
// # No way out
//
// No name is ever resolved as a path of the machine (promise W10). Directories
// are descriptors; each name is a single component, looked up beneath one
// descriptor by openat2(2), which is told to follow no symlink, not to leave
// the directory and not to cross a mount. Whatever somebody does in the
// directory meanwhile, say, swaps a directory for a symlink, the kernel keeps
// these conditions while it resolves. What cannot be kept from happening, and
// needs the right to write on both sides: a directory that is open here is
// moved out of the store by rename(2), and names are then resolved beneath it
// in its new place.
//
// A directory costs one descriptor, opened with O_PATH: it needs only the right
// to search the directory. List and Sync open a readable one for their time.
//
// # Errors
//
// Methods of nodes return the bare syscall.Errno of the call that failed. Open
// and Complete, whose errors reach people, wrap it in a sentence.
//
// A name gives EINVAL if it is empty, ".", "..", or holds '/' or NUL, and
// ENAMETOOLONG beyond 255 bytes; a path gives the same for its components.
package localdir

// Package fusefs is the mount: it shows a store as a filesystem and turns what
// programs write there into sessions. Each method of FS answers one FUSE
// request: it decodes the request, calls the store or the session engine, and
// encodes the answer. Whether and when a file is published is decided in
// package session, never here.
//
// # What a file is
//
// A node stands for one file or directory as long as the kernel knows it. It
// stands for the file, not for the inode that happens to hold its content:
// publishing a new version gives the store's file a new inode, while the
// node, its id and the st_ino that programs see stay what they were, so that
// open readers follow the file and hard links stay one file. Node and handle
// ids are never reused.
//
// What a node shows comes from one of two places. While a session of its file
// is active (open, publishing or held), content, size and attributes come from
// the session. Otherwise they come from the store. A file whose session is
// active and that the store does not have is listed in the mount all the same,
// with its growing size; other observers of the store do not see it (W1).
//
// The st_ino of a node is the inode number of its backing file when the node
// was first seen: of the published file, or of the staging file, which becomes
// the published file when the session is published. A number that the backing
// filesystem gives to another file later, while the node still shows it, is
// altered in its top byte for that other file. Once the kernel has forgotten a
// node whose file was replaced, the file shows its new number.
//
// # Caching
//
// Programs read through the kernel's page cache and write around it
// (FOPEN_DIRECT_IO), in requests of up to the mount's write size, which is
// also the st_blksize that cp and cat use. An open for reading keeps the cached
// pages of a published file that is, by identity, size and times, the one they
// were read from, and drops those of any other, since the store may have
// changed behind the mount. Attributes of a file with an active session
// are not cached; those of other files are, for Options.AttrTimeout, which
// also bounds how long a change made behind the mount goes unseen.
//
// Notifications to the kernel are queued and sent by a goroutine of their own,
// because the kernel may hold, for the request that we are answering, the very
// lock that the notification needs.
//
// # Contexts
//
// No request cancels anything. The kernel interrupts a request whenever its
// process gets a signal, and Go programs send themselves signals all the time;
// a write or a publish that ended for that would lose data. Work runs on the
// context of the mount.
//
// # Bounds
//
// An open directory costs a descriptor; at most Options.MaxOpenDirs are kept
// open while nobody uses them. A published file that is open for reading costs
// one, however many handles it has. A listing is kept in memory while its
// handle is open, so that seekdir(3) works.
//
// # Locks
//
// FS.mu guards the tables: nodes, their names, sessions, handles. node.mu
// guards the open file of one node, dirCache.mu the open directories,
// notices.mu the queue of notifications. All of these are leaves: whoever
// holds one takes no other lock and calls neither the store nor a session.
// That is what lets the engine call SessionPublished and SessionEnded from
// anywhere.
//
// Two locks are held over I/O. node.opening serialises opens for writing of
// one file, so that a file has one session whatever its names. dirHandle.mu
// serialises the listing of one directory handle. They are taken before any
// leaf, and never together. Freezing a path in the engine comes last: while it
// is frozen nothing may wait for a session to settle.
//
// The kernel serialises requests that change one directory, and locks both
// directories of a rename. Lookups of names that it has cached before run
// beside them, and the store changes behind the mount at any time: a name is
// believed only together with the identity of the file behind it.
package fusefs

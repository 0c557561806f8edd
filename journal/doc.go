// Package journal is the durable record of sessions and parts: what a daemon
// reads at its start to find again every file that was being made when the
// last one ended, however it ended (promise W7).
//
// # Concepts
//
// A Session is one file being made, a Part one piece of it that is complete.
// The journal keeps the latest record of each session and of each of its
// parts, and forgets both when the session is deleted. It knows nothing of
// what they mean: the session engine decides what is put when.
//
//	j, err := journal.Open(dir, journal.Options{Logger: log})
//	j.Put(s)                      // queued; no need to wait
//	j.PutPart(s.ID, p)
//	err = j.PutPart(s.ID, q).Wait(ctx) // in the journal, with all that came before
//	err = j.Sync(ctx)             // and safe from a power loss
//	entries, err := j.Load(ctx)   // after the next Open
//
// # Writing
//
// Put, PutPart, DropParts and Delete queue a change and return a Commit. One
// goroutine, the writer, takes all that is queued and commits it to Badger as
// one group: what arrives meanwhile makes the next. Changes are applied in
// the order of the calls. The queue is bounded: a caller waits while it is
// full. A group that is larger than one Badger transaction becomes several; a
// kill between them keeps a beginning of the group, in order.
//
// A change that cannot be written ends all writing: its error comes back from
// its own Wait and from every later Wait and Sync, and from Close, so that
// callers that never wait lose nothing in silence (W6). It is logged once.
// The same happens when the disk does not answer within Options.StallTimeout:
// nobody waits for ever. A record that is refused (ErrInvalid) changes
// nothing and is told by its own Commit and in the log.
//
// # What survives what
//
// Badger writes its log through a shared mapping. What Wait has answered for
// is in the page cache and survives any death of the process; Sync, or
// Options.SyncWrites, makes it survive a power loss. After a power loss
// without either, a beginning of what was written is there.
//
// # Reading
//
// Load, Walk, Check and Get read a snapshot of what was committed when they
// began. They stay usable after writing has ended with an error. Records that
// belong to no session (parts put before their session, remains of a Delete
// that a crash cut off) are left out by Load, counted and deleted.
//
// # Hazards
//
//   - Put a session before its parts: parts alone are garbage to Load.
//   - Do not call Close from a function that Walk calls: it waits for it.
//   - A Walk that takes long keeps the files that it reads on disk.
//   - Keep 32 MiB free on the journal's disk. The log that is open has its
//     blocks, but Badger writes new tables through mappings, and a mapping
//     that meets a full disk is a SIGBUS, not an error. The journal answers
//     ENOSPC before it lets Badger begin a file on a disk that is nearly full;
//     who fills the disk faster than that still wins.
//
// # Files
//
// docs/FORMAT.md describes the directory, keys and records. In short: CURRENT
// names a directory with a Badger database, a generation. It is never
// compacted: when half of it may be garbage, the writer copies the records
// into a new generation. Before Badger opens one, preflight checks its files,
// because Badger would end the process over some kinds of damage and pass
// over others.
package journal

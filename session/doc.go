// Package session is the heart of wholefs: one file being made whole.
//
// A Session is the unpublished life of one path. While it is active its bytes
// lie in a sparse staging file, its finished parts are recorded in the
// journal, and the store still shows the previous version, or nothing. When
// the writing ends, the session is published: the whole file becomes visible
// in the store in one step (W1, W2). When the writing ends badly it is held:
// kept with all its data, out of the store, until somebody decides (W4).
// Numbers such as W4 are the promises of docs/SEMANTICS.md.
//
// A session belongs to a path, not to a descriptor: several write handles may
// feed one file. Each handle is a Writer. Faces (the mount, the HTTP API) call
// Writer methods; the Engine finds, moves, lists and recovers sessions.
//
// # States
//
// One function, (*Session).step, changes the state, and only as the table
// says. A cell names the next state; "-" is an event that cannot happen there
// and is refused. A session in state published has nothing that the store
// does not have: it exists as long as write handles do, since the next write
// through one of them begins the next version.
//
//	event \ state  open        publishing  published  held        aborted
//	write          open        -           open       open        -
//	publish        publishing  -           -          publishing  -
//	done           -           published   -          -           -
//	fail           -           held        -          -           -
//	hold           held        -           -          held        -
//	abort          aborted     -           aborted    aborted     -
//	unname         -           open        -          -           -
//
// What each step leaves in the journal before the next effect, and what
// recovery does when it finds that:
//
//	state       in the journal                          recovery
//	open        nothing; or, from the first whole part  held ("daemon ended"), parts believed
//	            or fsync on, an open record and parts   if their checksums match; without a
//	                                                    record the staging file is removed
//	publishing  nothing, if the session was never       completed already: record dropped;
//	            journaled; else a publishing record     else verified and published, or held
//	            with size and all checksums
//	published   nothing                                 -
//	held        a held record with its reason, size,    held as before
//	            coverage and checksums
//	aborted     nothing                                 the staging file is removed
//
// A part that is rewritten loses its record before its bytes change, so that
// a record never vouches for bytes it has not seen. It gets a new one when the
// session is synced, held or published, not at each small change.
//
// # Which close publishes
//
// Flush and Release in close.go decide (W3). A flush publishes when it comes
// from the thread group that opened the handle, something was written through
// it, each process that wrote has since closed, and every other write handle
// was closed the same way. What is still unpublished at the last release is published
// then. A writer that dies by a signal publishes nothing (W4).
//
// # Writes
//
// A write is acknowledged before it is stored: Begin reserves its range in
// the staging file and the session, the face answers the program, Finish
// stores the bytes. Reads, flushes, syncs and truncations wait for what is in
// flight. The first failure poisons the session: it comes back from every
// later write, sync and close, and nothing is published (W6).
//
// # Locks
//
// Engine.mu guards the tables and every session's path; Session.mu guards the
// rest of a session. A goroutine that holds a Session.mu may take Engine.mu,
// never the other way round. Neither is held over store calls or over staging
// I/O, except that dropping the record of a rewritten part waits for the
// journal under Session.mu, since nobody may write to that part meanwhile.
package session

// Package control lets other processes ask a running mount what it is doing
// and tell it what to do: HTTP with JSON bodies over a unix socket in the
// state directory. The command line is its only intended client, but curl
// works too:
//
//	curl --unix-socket STATE/control.sock http://wholefs/v1/status
//
// # Requests
//
//	GET  /v1/status                       what the mount is and does
//	GET  /v1/sessions                     every unpublished session
//	GET  /v1/sessions/{session}           one of them
//	POST /v1/sessions/{session}/publish   publish a held session; ?force=1 makes what is missing holes
//	POST /v1/sessions/{session}/abort     drop a session and its data
//	POST /v1/sessions/{session}/retry     try again to publish a session whose publish failed; ?force=1
//	POST /v1/unmount                      unmount, drain and end
//
// {session} is an id, the beginning of an id that fits no other, or a path in
// the store (with its slashes escaped, %2F). A request that fails is answered
// with an Error as its body.
//
// # Who may ask
//
// The socket has mode 0600 from the moment it exists, in a directory of mode
// 0700: root and the user who mounted. There is no other check.
//
// # Long paths
//
// A socket's address holds 107 bytes. Where the path is longer, both sides
// open the state directory and name the socket through the descriptor
// (/proc/self/fd/N/control.sock).
//
// The package knows nothing of sessions: the server is given a Mount, and
// cmd/wholefs makes one of the session engine. The same words (Sessions,
// Session, Act) are spoken by the Client, so that the commands work alike on
// a live mount and on a state directory that nobody serves.
package control

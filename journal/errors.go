package journal

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrClosed is the answer to every call on a journal after Close.
	ErrClosed = errors.New("journal: closed")
	// ErrNotFound is Get's answer for a session that is not in the journal.
	ErrNotFound = errors.New("journal: no such session")
	// ErrInvalid is in the chain of errors about a record that the journal
	// refuses to keep (a negative size, a session ID with a NUL, extents out
	// of order). Nothing was written, and the journal goes on working.
	ErrInvalid = errors.New("journal: record refused")
	// ErrStalled is in the chain when Badger did not finish a commit within
	// Options.StallTimeout. The journal takes no more writes after that.
	ErrStalled = errors.New("journal: the disk does not answer")
)

// LockedError says that another process has the journal open.
type LockedError struct {
	Dir string
	PID int // of the process that holds the lock, 0 if it cannot be told
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("journal %s is in use by %s: stop the other wholefs, or mount with another --state-dir", e.Dir, who)
}

// FormatError says that the journal, or one record in it, was made by a newer
// wholefs. Nothing in the journal was changed.
type FormatError struct {
	Dir       string
	What      string // what is newer: "journal format", "session record", ...
	Found     int    // its version
	Supported int    // the newest version that this wholefs reads
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("journal %s: %s has version %d, this wholefs reads up to %d: "+
		"use the wholefs that wrote it, or a newer one (nothing was changed)", e.Dir, e.What, e.Found, e.Supported)
}

// CorruptError says that the journal, or one record in it, cannot be trusted.
// Staging files are not touched by any such error.
type CorruptError struct {
	Dir    string
	File   string // name of the damaged file in Dir, "" if it is one record
	Offset int64  // in File, -1 if not known
	Key    string // key of the damaged record, printable, "" if it is a file
	Err    error  // the cause
}

func (e *CorruptError) Error() string {
	var where strings.Builder
	if e.File != "" {
		fmt.Fprintf(&where, ", file %s", e.File)
		if e.Offset >= 0 {
			fmt.Fprintf(&where, " at offset %d", e.Offset)
		}
	}
	if e.Key != "" {
		fmt.Fprintf(&where, ", record %s", e.Key)
	}
	return fmt.Sprintf("journal %s is damaged%s: %v: run \"wholefs check\" on the state directory to see what is left; "+
		"staging files are kept", e.Dir, where.String(), e.Err)
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

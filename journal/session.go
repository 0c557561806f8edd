package journal

import (
	"fmt"
	"time"
)

// State is where a session stands. Sessions that were published or aborted
// are not in the journal at all.
type State string

// The states that a journaled session can have.
const (
	// StateOpen is a session that has, or had when the daemon died, a writer.
	StateOpen State = "open"
	// StatePublishing is a session whose publish was begun.
	StatePublishing State = "publishing"
	// StateHeld is a session that nobody writes and that must not be
	// published by itself; Session.Reason says why.
	StateHeld State = "held"
)

func (s State) valid() bool {
	return s == StateOpen || s == StatePublishing || s == StateHeld
}

// Extent is a half-open byte range: [0] is its first byte, [1] the one after
// its last.
type Extent = [2]int64

// Session is what the journal keeps of one file being made. Its parts are
// kept beside it, see Part.
type Session struct {
	// ID names the session: 1 to 255 bytes without NUL, never used again for
	// another one.
	ID string
	// Path is where the file will be published, relative to the store's top.
	// It may hold any bytes that a path can.
	Path  string
	State State
	// Reason says why a session is held, for people; "" otherwise.
	Reason string
	// Killed is set when a writer of the session was killed by a signal.
	Killed bool
	// PartSize is the size of a part in bytes, Size that of the file.
	PartSize, Size int64
	// Created and Updated are kept to the nanosecond, in UTC.
	Created, Updated time.Time
	// UploadID is the store's name for the upload, "" before it was begun.
	UploadID string
	// StagingName is the name of the staging file in the staging directory.
	StagingName string
	// Holes and Written are the explicit holes and the written bytes, each
	// ascending and without overlaps. They are the whole truth when Exact is
	// set; otherwise what is written follows from the parts.
	Holes, Written []Extent
	Exact          bool
	// Replaces is set when a published file stood at Path at the beginning.
	Replaces bool
}

// Part is the journal's record of one complete part of a session.
type Part struct {
	// Number counts from 0.
	Number int64
	// Size is the part's length in bytes: the part size, or less for the tail.
	Size int64
	// CRC is the CRC32C (Castagnoli) of the part's bytes.
	CRC uint32
	// Token is the store's receipt (an ETag), "" while it has none.
	Token string
}

// Entry is a session with its parts, in ascending order of Number.
type Entry struct {
	Session Session
	Parts   []Part
}

// maxID is the longest session ID in bytes.
const maxID = 255

func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("%w: session id of %d bytes, want 1 to %d", ErrInvalid, len(id), maxID)
	}
	for i := range len(id) {
		if id[i] == 0 {
			return fmt.Errorf("%w: session id %q holds a NUL", ErrInvalid, id)
		}
	}
	return nil
}

// check reports what keeps s from being recorded.
func (s *Session) check() error {
	if err := checkID(s.ID); err != nil {
		return err
	}
	switch {
	case !s.State.valid():
		return fmt.Errorf("%w: session %s has the unknown state %q", ErrInvalid, s.ID, s.State)
	case s.Size < 0 || s.PartSize < 0:
		return fmt.Errorf("%w: session %s has size %d, part size %d", ErrInvalid, s.ID, s.Size, s.PartSize)
	}
	if err := checkExtents(s.Holes); err != nil {
		return fmt.Errorf("%w: holes of session %s: %w", ErrInvalid, s.ID, err)
	}
	if err := checkExtents(s.Written); err != nil {
		return fmt.Errorf("%w: written extents of session %s: %w", ErrInvalid, s.ID, err)
	}
	return nil
}

func (p *Part) check(id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	if p.Number < 0 || p.Size < 0 {
		return fmt.Errorf("%w: part %d of session %s has size %d", ErrInvalid, p.Number, id, p.Size)
	}
	if len(p.Token) > maxToken {
		return fmt.Errorf("%w: token of part %d of session %s has %d bytes, at most %d are kept",
			ErrInvalid, p.Number, id, len(p.Token), maxToken)
	}
	return nil
}

// checkExtents wants extents that ascend and do not overlap; they may touch.
func checkExtents(list []Extent) error {
	var end int64
	for i, e := range list {
		if e[0] < end || e[1] <= e[0] {
			return fmt.Errorf("extent %d is [%d,%d), after %d", i, e[0], e[1], end)
		}
		end = e[1]
	}
	return nil
}

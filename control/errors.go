package control

import (
	"errors"
	"net/http"
	"strings"
)

// ErrNoDaemon says that nobody answers on the socket: nothing is mounted, or
// the daemon has died.
var ErrNoDaemon = errors.New("no daemon answers on the control socket")

// Code says what kind of error it is, for programs.
type Code string

// The codes.
const (
	NotFound   Code = "not_found"  // no such session
	Ambiguous  Code = "ambiguous"  // the beginning of several ids
	Busy       Code = "busy"       // something is in use
	Incomplete Code = "incomplete" // ranges of the file are missing
	Deadline   Code = "deadline"   // it took too long; it may still happen
	Failed     Code = "failed"     // anything else
)

var httpStatus = map[Code]int{
	NotFound:   http.StatusNotFound,
	Ambiguous:  http.StatusConflict,
	Busy:       http.StatusConflict,
	Incomplete: http.StatusUnprocessableEntity,
	Deadline:   http.StatusGatewayTimeout,
	Failed:     http.StatusInternalServerError,
}

// Error is a refusal or a failure as it travels over the socket.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// Missing comes with Incomplete: which bytes nobody wrote.
	Missing []Extent `json:"missing,omitempty"`
	// Holders comes with Busy where a mount is meant: who uses it.
	Holders []Process `json:"holders,omitempty"`
	// Left comes with Deadline where a mount was drained: what it left.
	Left []Session `json:"left,omitempty"`
}

func (e *Error) Error() string { return e.Message }

// Match picks the session that which names: an id, a path, or the beginning
// of an id that fits no other.
func Match(sessions []Session, which string) (Session, error) {
	which = strings.TrimPrefix(which, "/")
	var begins []Session
	for _, s := range sessions {
		if s.ID == which || s.Path == which {
			return s, nil
		}
		if which != "" && strings.HasPrefix(s.ID, which) {
			begins = append(begins, s)
		}
	}
	switch len(begins) {
	case 0:
		return Session{}, &Error{Code: NotFound, Message: "no session " + which}
	case 1:
		return begins[0], nil
	default:
		ids := make([]string, len(begins))
		for i, s := range begins {
			ids[i] = s.ID
		}
		return Session{}, &Error{Code: Ambiguous, Message: which + " begins several ids: " + strings.Join(ids, ", ")}
	}
}

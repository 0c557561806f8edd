package session

import (
	"fmt"
	"syscall"
)

// State is where a session stands; see the package documentation.
type State string

// The states of a session.
const (
	StateOpen       State = "open"       // being written; unpublished
	StatePublishing State = "publishing" // the store is taking it over
	StatePublished  State = "published"  // the store has everything
	StateHeld       State = "held"       // unpublished and kept until someone decides
	StateAborted    State = "aborted"    // gone
)

// event is what happens to a session.
type event string

const (
	eventWrite   event = "write"   // bytes or the size are about to change
	eventPublish event = "publish" // the writing has ended, or a command says so
	eventDone    event = "done"    // the store shows the file
	eventFail    event = "fail"    // the store refused it
	eventHold    event = "hold"    // the writing has ended badly
	eventAbort   event = "abort"   // the data is not wanted
	eventUnname  event = "unname"  // the name went away while publishing had to wait for it
)

var (
	allStates = []State{StateOpen, StatePublishing, StatePublished, StateHeld, StateAborted}
	allEvents = []event{eventWrite, eventPublish, eventDone, eventFail, eventHold, eventAbort, eventUnname}
)

// transitions is the table of the package documentation; a test reads both.
var transitions = map[event]map[State]State{
	eventWrite:   {StateOpen: StateOpen, StatePublished: StateOpen, StateHeld: StateOpen},
	eventPublish: {StateOpen: StatePublishing, StateHeld: StatePublishing},
	eventDone:    {StatePublishing: StatePublished},
	eventFail:    {StatePublishing: StateHeld},
	eventHold:    {StateOpen: StateHeld, StateHeld: StateHeld},
	eventAbort:   {StateOpen: StateAborted, StatePublished: StateAborted, StateHeld: StateAborted},
	eventUnname:  {StatePublishing: StateOpen},
}

// next returns the state that ev leads to from from.
func next(from State, ev event) (State, error) {
	if to, ok := transitions[ev][from]; ok {
		return to, nil
	}
	return from, fmt.Errorf("session: event %s in state %s", ev, from)
}

// step is the one place where a session's state changes. The caller holds
// s.mu.
func (s *Session) step(ev event) error {
	to, err := next(s.state, ev)
	if err != nil {
		return newError(string(ev), s.Path(), syscall.ESTALE, "the session is %s", s.state)
	}
	s.state = to
	return nil
}

// active reports whether a session in this state holds the newest content of
// its file, so that the mount must show it instead of the store's.
func (st State) active() bool {
	return st == StateOpen || st == StatePublishing || st == StateHeld
}

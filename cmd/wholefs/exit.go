package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/wholefs/wholefs/control"
)

// Exit codes. They are part of the interface: a number never changes its
// meaning, and one that falls out of use is not given away again.
const (
	exitDone       = 0 // done
	exitFailed     = 1 // something went wrong
	exitUsage      = 2 // the command line or the environment is wrong
	exitNotMounted = 3 // nothing is mounted there
	exitDeadline   = 4 // a deadline passed; what was asked for may still happen
	exitUnfinished = 5 // done, but unfinished sessions are left in the journal
)

// failure is an error that knows its exit code and the way out of it. It is
// printed as one line, "wholefs: cause; way out".
type failure struct {
	code   int
	cause  error
	wayOut string
}

func (f *failure) Error() string {
	if f.wayOut == "" {
		return f.cause.Error()
	}
	return f.cause.Error() + "; " + f.wayOut
}

func (f *failure) Unwrap() error { return f.cause }

// usage is a failure of the command line; fail one of the environment.
func usage(wayOut, format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...), wayOut}
}

func fail(wayOut, format string, args ...any) error {
	return &failure{exitFailed, fmt.Errorf(format, args...), wayOut}
}

func notMounted(wayOut, format string, args ...any) error {
	return &failure{exitNotMounted, fmt.Errorf(format, args...), wayOut}
}

// errUnfinished ends a command with exitUnfinished and prints nothing: the
// command has listed what is left.
var errUnfinished = &failure{code: exitUnfinished, cause: errors.New("unfinished sessions are left in the journal")}

// exitCode picks the exit code of an error.
func exitCode(err error) int {
	var f *failure
	var refused *control.Error
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &f):
		return f.code
	case errors.As(err, &refused) && refused.Code == control.Deadline, errors.Is(err, context.DeadlineExceeded):
		return exitDeadline
	case errors.Is(err, control.ErrNoDaemon):
		return exitNotMounted
	default:
		return exitFailed
	}
}

// report prints an error as one line and returns its exit code.
func report(stderr io.Writer, err error) int {
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil && err != error(errUnfinished) {
		fmt.Fprintln(stderr, "wholefs: "+oneLine(err.Error()))
	}
	return exitCode(err)
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

package main

import (
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// logOptions say where the daemon's log goes and what is in it.
type logOptions struct {
	level  choice
	format choice
	file   string // empty: standard error
	strict bool   // the last component of file must not be a symlink
}

// logger is the daemon's log. Its level can be changed and its file opened
// again while it is in use.
type logger struct {
	*slog.Logger
	level slog.LevelVar
	out   *logFile // nil on standard error
}

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

func newLogger(o logOptions, stderr io.Writer) (*logger, error) {
	l := &logger{}
	l.level.Set(levels[o.level.word])
	to := stderr
	if o.file != "" {
		l.out = &logFile{path: o.file, strict: o.strict}
		if err := l.out.reopen(); err != nil {
			return nil, err
		}
		to = l.out
	}
	options := &slog.HandlerOptions{Level: &l.level}
	if o.format.word == "json" {
		l.Logger = slog.New(slog.NewJSONHandler(to, options))
	} else {
		l.Logger = slog.New(slog.NewTextHandler(to, options))
	}
	return l, nil
}

// cycle goes to the next level: error, warn, info, debug, and error again.
func (l *logger) cycle() slog.Level {
	next := l.level.Level() - 4
	if next < slog.LevelDebug {
		next = slog.LevelError
	}
	l.level.Set(next)
	return next
}

// reopen opens the log file again, which a rotation has moved away.
func (l *logger) reopen() error {
	if l.out == nil {
		return nil
	}
	return l.out.reopen()
}

func (l *logger) close() {
	if l.out != nil {
		l.out.mu.Lock()
		defer l.out.mu.Unlock()
		l.out.f.Close()
	}
}

// logFile is a file that is appended to and can be opened again.
type logFile struct {
	path   string
	strict bool
	// also are descriptors that follow the file: standard output and error
	// of a daemon, where the runtime writes why it died.
	also []int

	mu sync.Mutex
	f  *os.File
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(p)
}

func (l *logFile) reopen() error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if l.strict {
		flags |= unix.O_NOFOLLOW
	}
	f, err := os.OpenFile(l.path, flags, 0o600)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
	}
	l.f = f
	return l.redirect()
}

func (l *logFile) redirect() error {
	for _, fd := range l.also {
		if err := unix.Dup3(int(l.f.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return nil
}

// follow makes fds follow the file from now on.
func (l *logFile) follow(fds ...int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.also = fds
	return l.redirect()
}

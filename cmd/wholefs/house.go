package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/control"
	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/staging"
	"github.com/wholefs/wholefs/store"
	"github.com/wholefs/wholefs/store/localdir"
)

// house is a store with its sessions: everything of a mount but the mount.
// The session commands open one when no daemon holds the state directory.
type house struct {
	store   store.Store
	staging *staging.Dir
	journal *journal.Journal
	engine  *session.Engine

	stateDir, stagingPath string

	closers []func() error // in the order of opening
}

// refuseScheme says of a store that is an URL that it is none yet.
func refuseScheme(path string) error {
	scheme, _, ok := strings.Cut(path, "://")
	if !ok || scheme == "" || strings.ContainsRune(scheme, '/') {
		return nil
	}
	return usage("use a directory", "%s: stores of the kind %s:// are not in this version yet", path, scheme)
}

// claimHouse opens a store and makes its state directory the caller's alone.
// stateDir is empty where it lies in the store.
func claimHouse(storePath, stateDir string, by owner) (_ *house, err error) {
	h := &house{stateDir: stateDir}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	st, err := localdir.Open(storePath, localdir.Options{})
	if err != nil {
		return nil, err
	}
	h.store, h.stagingPath = st, st.StagingPath()
	h.closers = append(h.closers, st.Close)
	if h.stateDir == "" {
		h.stateDir = st.StateDir()
	}
	by.PID, by.Store, by.StateDir = syscall.Getpid(), st.String(), h.stateDir
	// The staging directory lies in the store whatever --state-dir says. So
	// the store's own state directory is locked too: two daemons there would
	// remove each other's staging files as orphans.
	own, err := h.lock(st.StateDir())
	if err != nil {
		return nil, err
	}
	if err := h.checkJournal(own.last); err != nil {
		return nil, err
	}
	if same, err := sameFile(h.stateDir, st.StateDir()); err != nil {
		return nil, err
	} else if !same {
		other, err := h.lock(h.stateDir)
		if err != nil {
			return nil, err
		}
		if err := other.claim(by); err != nil {
			return nil, err
		}
	}
	return h, own.claim(by)
}

func (h *house) lock(dir string) (*stateLock, error) {
	l, err := lockState(dir)
	if err != nil {
		return nil, wayOutOfLock(err)
	}
	h.closers = append(h.closers, l.unlock)
	return l, nil
}

// checkJournal refuses a state directory whose journal does not know the
// staging files that lie in the store: they would be removed as orphans,
// though the journal that the store was mounted with before knows them.
func (h *house) checkJournal(last owner) error {
	if last.StateDir == "" {
		return nil
	}
	if same, err := sameFile(h.stateDir, last.StateDir); err == nil && same {
		return nil
	}
	names, err := os.ReadDir(h.stagingPath)
	if err != nil || len(names) == 0 {
		return nil
	}
	return fail("mount it with --state-dir="+last.StateDir+", or end them with wholefs session",
		"%s has unfinished files, which the journal in %s knows", h.store, last.StateDir)
}

func sameFile(a, b string) (bool, error) {
	ia, err := os.Stat(a)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ib, err := os.Stat(b)
	return err == nil && os.SameFile(ia, ib), err
}

// furnish opens staging and journal and brings back the sessions that the
// journal knows. The rest of o is the caller's.
func (h *house) furnish(ctx context.Context, o session.Options, jo journal.Options) (err error) {
	if h.staging, err = staging.OpenDir(h.stagingPath, staging.Options{Layout: o.Layout}); err != nil {
		return fmt.Errorf("staging directory: %w", err)
	}
	h.closers = append(h.closers, h.staging.Close)
	if h.journal, err = journal.Open(filepath.Join(h.stateDir, journalName), jo); err != nil {
		return err
	}
	h.closers = append(h.closers, h.journal.Close)
	o.Staging, o.Journal = h.staging, h.journal
	if o.Store == nil {
		o.Store = h.store
	}
	if h.engine, err = session.New(o); err != nil {
		return err
	}
	_, err = h.engine.Recover(ctx)
	return err
}

func wayOutOfLock(err error) error {
	var inUse *inUseError
	if errors.As(err, &inUse) {
		way := "end that process first"
		if inUse.by.Mountpoint != "" {
			way = "wholefs umount " + inUse.by.Mountpoint + " ends it"
		}
		return fail(way, "%w", inUse)
	}
	return fmt.Errorf("state directory: %w", err)
}

// close closes everything, the last opened first, so that the lock is given
// back when nothing is in use any more.
func (h *house) close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	h.closers = nil
	return errors.Join(errs...)
}

// openState opens the house that the state directory belongs to, without a
// mount.
func openState(ctx context.Context, stateDir string, log *slog.Logger) (*house, error) {
	last := lastOwner(stateDir)
	if last.Store == "" {
		if filepath.Base(stateDir) != stateDirName {
			return nil, fail("mount its store with --state-dir once", "%s does not say which store it belongs to", stateDir)
		}
		last.Store = filepath.Dir(stateDir)
	}
	if last.PartSize == 0 {
		last.PartSize = defaultPartSize
	}
	layout, err := chunker.NewLayout(last.PartSize)
	if err != nil {
		return nil, err
	}
	h, err := claimHouse(last.Store, stateDir, owner{PartSize: last.PartSize})
	if err != nil {
		return nil, err
	}
	// Looking must not end what the next mount may still hold.
	o := session.Options{Layout: layout, HoldTTL: -1, Logger: log}
	if err := h.furnish(ctx, o, journal.Options{Logger: log}); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// sessions speaks of the engine's sessions in the words of package control.
type sessions struct{ engine *session.Engine }

var _ control.Sessions = sessions{}

// Sessions lists the unpublished sessions, the oldest first.
func (s sessions) Sessions(context.Context) ([]control.Session, error) {
	infos := s.engine.List()
	list := make([]control.Session, len(infos))
	for i, info := range infos {
		list[i] = describeSession(info)
	}
	return list, nil
}

// Session finds one session.
func (s sessions) Session(ctx context.Context, which string) (control.Session, error) {
	list, err := s.Sessions(ctx)
	if err != nil {
		return control.Session{}, err
	}
	return control.Match(list, which)
}

// Act publishes, aborts or retries a session.
func (s sessions) Act(ctx context.Context, which string, a control.Action, force bool) (control.Session, error) {
	found, err := s.Session(ctx, which)
	if err != nil {
		return found, err
	}
	switch a {
	case control.Abort:
		err = s.engine.AbortID(ctx, found.ID)
	case control.Publish:
		err = s.engine.PublishID(ctx, found.ID, force)
	case control.Retry:
		err = s.engine.RetryID(ctx, found.ID, force)
	default:
		err = fmt.Errorf("unknown action %q", a)
	}
	if err != nil && a != control.Abort && unwrapErrno(err) != syscall.EBUSY {
		// What is missing may only be known since the checksums were compared.
		if now, ferr := s.Session(ctx, found.ID); ferr == nil && len(now.Missing) > 0 {
			return now, &control.Error{
				Code:    control.Incomplete,
				Message: fmt.Sprintf("%s is not whole: its bytes %s are missing", printable(now.Path), extents(now.Missing)),
				Missing: now.Missing,
			}
		}
	}
	return found, sessionError(err)
}

// sessionError gives an error of the engine its code.
func sessionError(err error) error {
	if err == nil {
		return nil
	}
	code := control.Failed
	switch unwrapErrno(err) {
	case syscall.EBUSY:
		code = control.Busy
	case syscall.ENOENT:
		code = control.NotFound
	case syscall.ETIMEDOUT:
		code = control.Deadline
	}
	return &control.Error{Code: code, Message: err.Error()}
}

func describeSession(i session.Info) control.Session {
	s := control.Session{
		ID: i.ID, Path: i.Path, State: string(i.State), Reason: i.Reason, Error: i.Error,
		Size: i.Size, PartSize: i.PartSize, Parts: i.Parts, PartsComplete: i.PartsComplete,
		Writers: i.Writers, Created: i.Created, Updated: i.Updated, Expires: i.Expires,
	}
	for _, e := range i.Missing {
		s.Missing = append(s.Missing, control.Extent{Off: e.Off, End: e.End})
	}
	return s
}

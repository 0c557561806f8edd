package main

import (
	"context"
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/wholefs/wholefs/control"
	"github.com/wholefs/wholefs/session"
)

// The end of a mount. In which order things happen decides who is told what:
//
//  1. The mount is taken away while everything still works. As long as
//     programs have files open the kernel refuses (EBUSY). wholefs umount
//     passes that on and nothing has changed; --timeout tries again until the
//     time is over. SIGTERM does not take no for an answer: it waits for
//     writers up to --drain-timeout and then goes on.
//  2. The sessions are drained: publishes under way finish, so that the
//     closes that wait for them are answered, and what still has a writer is
//     held. That writer's next write fails.
//  3. A mount that is still there goes, lazily. Programs that have files open
//     there get errors from then on.
//  4. Only then do the control socket (which still had to answer), the
//     journal and the lock go, in this order. Who waits for the lock knows
//     that everything is over.

// Pauses of the end.
const (
	busyPoll  = 50 * time.Millisecond
	busyGrace = 300 * time.Millisecond // for programs that are just ending
)

// wait returns when the mount is gone and drained.
func (d *daemon) wait(ctx context.Context) error {
	trim := time.NewTicker(time.Minute)
	defer trim.Stop()
	for {
		select {
		case <-trim.C:
			d.buffers.Trim()
			continue
		case <-d.mount.Done(): // unmounted, by us or by umount(8)
		case <-d.drained: // unmounted lazily, and the time is over
		case <-ctx.Done():
			d.terminate()
		}
		break
	}
	d.drain()
	if err := d.mountError(); err != nil {
		d.log.Error("mount ended", "error", err)
	}
	switch {
	case len(d.left) > 0:
		return errUnfinished
	case d.drainErr != nil:
		return &failure{code: exitDeadline, cause: d.drainErr}
	}
	return d.mountError()
}

// mountError is why the mount ended by itself, if it did.
func (d *daemon) mountError() error {
	select {
	case <-d.mount.Done():
		return d.mount.Wait()
	default:
		return nil
	}
}

// terminate ends the mount whoever uses it.
func (d *daemon) terminate() {
	d.unmounting.Lock()
	defer d.unmounting.Unlock()
	d.draining.Store(true)
	d.log.Info("ending", "drain_timeout", d.o.sessions.drainTimeout.String())
	_, _ = systemd.SdNotify(false, systemd.SdNotifyStopping) // nobody may listen
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(d.o.sessions.drainTimeout))
	defer cancel()
	err := d.unmountWhileBusy(ctx, d.hasWriters)
	if err == nil {
		d.waitGone(ctx)
	} else {
		d.log.Warn("unmounting although it is in use", "by", holderList(holders(d.o.mountpoint)), "error", err)
	}
	d.drain()
}

// Unmount unmounts and drains, for the control socket.
func (d *daemon) Unmount(_ context.Context, r control.UnmountRequest) (control.UnmountResult, error) {
	if !d.ready.Load() {
		return control.UnmountResult{}, &control.Error{Code: control.Busy, Message: "the mount is just being made"}
	}
	d.unmounting.Lock()
	defer d.unmounting.Unlock()
	timeout := time.Duration(r.Timeout * float64(time.Second))
	limit := timeout
	if limit <= 0 {
		limit = time.Duration(d.o.sessions.drainTimeout)
	}
	// Who asked may go away; what was begun is finished.
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	d.log.Info("unmount asked for", "timeout", timeout.String(), "lazy", r.Lazy)
	if r.Lazy {
		if err := d.mount.Unmount(true); err != nil {
			return control.UnmountResult{}, fmt.Errorf("unmount %s: %w", d.o.mountpoint, err)
		}
	} else {
		again := d.isPublishing
		if timeout > 0 {
			again = func() bool { return true }
		}
		if err := d.unmountWhileBusy(ctx, again); err != nil {
			return control.UnmountResult{}, d.busy(err, timeout > 0)
		}
	}
	d.waitGone(ctx)
	d.drain()
	if d.drainErr != nil {
		return control.UnmountResult{}, &control.Error{
			Code: control.Deadline, Message: "the drain took too long; what is unfinished is in the journal", Left: d.left,
		}
	}
	return control.UnmountResult{Left: d.left}, nil
}

// unmountWhileBusy unmounts. While it is refused it tries again, for a moment
// at least, as long as again says so and ctx allows.
func (d *daemon) unmountWhileBusy(ctx context.Context, again func() bool) error {
	start := time.Now()
	for {
		err := d.mount.Unmount(false)
		if err == nil {
			return nil
		}
		if time.Since(start) > busyGrace && !again() {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(busyPoll):
		}
	}
}

func (d *daemon) busy(err error, waited bool) error {
	list := holders(d.o.mountpoint)
	code, word := control.Busy, "is"
	if waited {
		code, word = control.Deadline, "is still"
	}
	d.log.Warn("unmount refused", "by", holderList(list), "error", err)
	return &control.Error{Code: code, Message: fmt.Sprintf("%s %s in use by %s", d.o.mountpoint, word, holderList(list)), Holders: list}
}

// hasWriters reports whether somebody still makes a file.
func (d *daemon) hasWriters() bool {
	for _, s := range d.engine.List() {
		if s.Writers > 0 {
			return true
		}
	}
	return d.isPublishing()
}

func (d *daemon) isPublishing() bool {
	return d.engine.Counts()[session.StatePublishing] > 0
}

// waitGone waits until the kernel has let go of a mount that was taken away:
// programs may have files open behind a lazy one, and other mount namespaces
// may have copies of it.
func (d *daemon) waitGone(ctx context.Context) {
	select {
	case <-d.mount.Done():
	case <-ctx.Done():
		d.log.Warn("the mount is out of sight but still in use")
	}
}

// drain finishes and holds the sessions, once.
func (d *daemon) drain() {
	d.drainOnce.Do(func() {
		d.draining.Store(true)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(d.o.sessions.drainTimeout))
		defer cancel()
		d.drainErr = d.engine.Close(ctx)
		d.left, _ = d.Sessions(ctx) // never fails here: it reads from memory
		for _, s := range d.left {
			d.log.Warn("left in the journal", "session", s.ID, "path", s.Path, "state", s.State, "reason", s.Reason)
		}
		if d.drainErr != nil {
			d.log.Error("drain", "error", d.drainErr)
		}
		d.log.Info("drained", "left", len(d.left))
		close(d.drained)
	})
	<-d.drained
}

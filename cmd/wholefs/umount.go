package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/wholefs/wholefs/control"
	"github.com/wholefs/wholefs/journal"
)

// endDeadline is how long a daemon that has drained may take to end.
const endDeadline = 30 * time.Second

type umountOptions struct {
	timeout duration
	lazy    bool
}

func (p *program) umountCommand() *cobra.Command {
	var o umountOptions
	cmd := &cobra.Command{
		Use:     "umount MOUNTPOINT",
		Aliases: []string{"unmount"},
		Short:   "Drain and unmount",
		Long: `Unmount MOUNTPOINT, wait until publishes under way are finished, and until
the daemon has ended. Files that stay unfinished are listed; they are in the
journal, and the next mount has them again (exit code 5).

While programs have files open there, the mount stays, and they are named.
With --timeout the command waits for them; with --lazy the mount disappears
at once, and they may go on until the timeout, or for the mount's
--drain-timeout. A mount whose daemon has died is cleared away.`,
		Args:              argCount(1, 1),
		ValidArgsFunction: completeMountpoints,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.umount(cmd.Context(), args[0], o)
		},
	}
	cmd.Flags().Var(&o.timeout, "timeout", "how long to wait for programs to close their files")
	cmd.Flags().BoolVarP(&o.lazy, "lazy", "l", false, "unmount at once, even if it is in use")
	return cmd
}

func (p *program) umount(ctx context.Context, arg string, o umountOptions) error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	m, _, ok := findMount(mounts, arg)
	if !ok {
		return notMounted("", "no wholefs is mounted on %s", arg)
	}
	at := mountPlace(m)
	client, drain, err := p.askDrain(ctx, at)
	if errors.Is(err, control.ErrNoDaemon) || err != nil && o.lazy {
		return p.umountDead(at, o.lazy)
	}
	if err != nil {
		return &failure{exitCode(err), fmt.Errorf("the daemon of %s does not answer: %w", arg, err), "with --lazy the mount is taken away without it"}
	}
	// The daemon keeps to its own deadlines; this one is for a daemon that
	// does not get to run any more.
	ctx, cancel := context.WithTimeout(ctx, time.Duration(o.timeout)+2*drain+endDeadline)
	defer cancel()
	res, err := client.Unmount(ctx, control.UnmountRequest{Timeout: time.Duration(o.timeout).Seconds(), Lazy: o.lazy})
	if err != nil {
		return p.umountRefused(err)
	}
	if err := waitEnded(ctx, at); err != nil {
		return err
	}
	return p.listLeft(res.Left)
}

// askDrain connects to the daemon of a mount and asks how long its drain may
// take.
func (p *program) askDrain(ctx context.Context, at place) (*control.Client, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, statDeadline)
	defer cancel()
	client, err := at.live(ctx)
	if err != nil {
		return nil, 0, err
	}
	s, err := client.Status(ctx)
	return client, time.Duration(s.DrainTimeout * float64(time.Second)), err
}

// umountRefused explains why the daemon did not unmount, or not in time.
func (p *program) umountRefused(err error) error {
	var e *control.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("unmount: %w", err)
	}
	switch {
	case len(e.Left) > 0:
		_ = p.listLeft(e.Left) // the deadline is the worse news
		return err
	case e.Code == control.Deadline:
		return &failure{exitDeadline, err, "close the files, or use --lazy"}
	case e.Code == control.Busy:
		return fail("close the files, or wait with --timeout, or use --lazy", "%w", err)
	}
	return err
}

// waitEnded waits until the mount is gone and the daemon has given its state
// directory back, so that the same can be mounted again.
func waitEnded(ctx context.Context, at place) error {
	ctx, cancel := context.WithTimeout(ctx, endDeadline)
	defer cancel()
	for {
		mounts, err := readMounts()
		if err != nil {
			return err
		}
		m, there := mountAt(mounts, at.mountpoint)
		there = there && m.fsType == fsType && registered(m) == at.stateDir
		if !there && stateFree(at.stateDir) {
			return nil
		}
		select {
		case <-ctx.Done():
			return &failure{exitDeadline, errors.New("the daemon drained but does not end"), "see its log in " + at.stateDir}
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// umountDead clears a mount away that no daemon answers for.
func (p *program) umountDead(at place, lazy bool) error {
	_, err := statFor(at.mountpoint, statDeadline)
	if !isStale(err) && !lazy {
		return fail("with --lazy the mount is taken away without it", "no daemon answers for %s", at.mountpoint)
	}
	if err := detach(at.mountpoint); err != nil {
		return fmt.Errorf("unmount %s: %w", at.mountpoint, err)
	}
	if !stateFree(at.stateDir) {
		return &failure{exitDeadline, fmt.Errorf("%s is out of sight, but its daemon, process %d, does not answer",
			at.mountpoint, lastOwner(at.stateDir).PID), "it drains when it runs again; SIGKILL ends it, and the next mount recovers"}
	}
	fmt.Fprintf(p.stderr, "wholefs: the daemon of %s had died, the mount is cleared away\n", at.mountpoint)
	left, err := recorded(at.stateDir)
	if err != nil {
		return err
	}
	return p.listLeft(left)
}

// recorded reads what the journal in a state directory has, and changes
// nothing.
func recorded(stateDir string) ([]control.Session, error) {
	if !isState(stateDir) {
		return nil, nil
	}
	lock, err := lockState(stateDir)
	if err != nil {
		return nil, wayOutOfLock(err)
	}
	defer lock.unlock()
	j, err := journal.Open(stateDir+"/"+journalName, journal.Options{})
	if err != nil {
		return nil, err
	}
	defer j.Close()
	entries, err := j.Load(context.Background())
	if err != nil {
		return nil, err
	}
	var list []control.Session
	for _, e := range entries {
		s := e.Session
		list = append(list, control.Session{
			ID: s.ID, Path: s.Path, State: string(s.State), Reason: s.Reason, Size: s.Size, PartSize: s.PartSize,
			PartsComplete: int64(len(e.Parts)), Created: s.Created, Updated: s.Updated,
		})
	}
	return list, nil
}

// listLeft tells what a mount left in its journal.
func (p *program) listLeft(left []control.Session) error {
	if len(left) == 0 {
		return nil
	}
	fmt.Fprintf(p.stdout, "%d unfinished in the journal:\n", len(left))
	if err := sessionTable(p.stdout, left, time.Now()); err != nil {
		return err
	}
	return errUnfinished
}

// detachByHelper takes a mount of an ordinary user out of sight.
func detachByHelper(mountpoint string) error {
	said, err := exec.Command("fusermount3", "-u", "-z", "--", mountpoint).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fusermount3 -u -z: %w: %s", err, bytes.TrimSpace(said))
	}
	return nil
}

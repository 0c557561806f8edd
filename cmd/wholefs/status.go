package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/control"
)

const (
	askDeadline = 30 * time.Second // for one answer of a daemon
	watchPeriod = time.Second
)

type statusOptions struct{ json, watch bool }

func (p *program) statusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [MOUNTPOINT]",
		Short: "Say what a mount is doing",
		Long: `Say what the mount on MOUNTPOINT is doing: its unfinished files with their
progress, where its metrics are, and what it takes of memory and disk.
Without MOUNTPOINT, all mounts.`,
		Args:              argCount(0, 1),
		ValidArgsFunction: completeMountpoints,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !o.watch {
				return p.status(cmd.Context(), args, o, p.stdout)
			}
			return p.watchStatus(cmd.Context(), args, o)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON, one object for each mount")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "print it again every second, until the mount is gone")
	return cmd
}

// status prints the status of the mount that args names, or of all mounts.
func (p *program) status(ctx context.Context, args []string, o statusOptions, out io.Writer) error {
	places, err := statusPlaces(args)
	if err != nil {
		return err
	}
	for i, at := range places {
		s, err := askStatus(ctx, at)
		if err != nil && i < len(places)-1 {
			report(p.stderr, err) // the others are told of all the same
			continue
		}
		if err != nil {
			return err
		}
		if o.json {
			err = writeJSON(out, s)
		} else {
			if i > 0 {
				fmt.Fprintln(out)
			}
			err = writeStatus(out, s, time.Now())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func statusPlaces(args []string) ([]place, error) {
	if len(args) == 1 {
		at, err := findPlace(args[0])
		return []place{at}, err
	}
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	var places []place
	for _, m := range ourMounts(mounts) {
		places = append(places, mountPlace(m))
	}
	if len(places) == 0 {
		return nil, notMounted("", "no wholefs is mounted")
	}
	return places, nil
}

func askStatus(ctx context.Context, at place) (control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	client, err := at.live(ctx)
	switch {
	case errors.Is(err, control.ErrNoDaemon) && at.mountpoint != "":
		return control.Status{}, notMounted("wholefs umount "+at.mountpoint+" clears the mount away", "the daemon of %s does not live any more", at.mountpoint)
	case errors.Is(err, control.ErrNoDaemon):
		return control.Status{}, notMounted("wholefs session ls "+at.stateDir+" lists what is left there", "no wholefs is mounted with the state directory %s", at.stateDir)
	case err != nil:
		return control.Status{}, fmt.Errorf("control socket in %s: %w", at.stateDir, err)
	}
	return client.Status(ctx)
}

// watchStatus prints the status until the mount is gone or the user has seen
// enough.
func (p *program) watchStatus(ctx context.Context, args []string, o statusOptions) error {
	const home = "\x1b[H\x1b[2J" // the top left corner, and all blank
	clear := ""
	if isTerminal(p.stdout) && !o.json {
		clear = home
	}
	for {
		var screen bytes.Buffer
		screen.WriteString(clear)
		if err := p.status(ctx, args, o, &screen); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if _, err := screen.WriteTo(p.stdout); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPeriod):
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func writeStatus(w io.Writer, s control.Status, now time.Time) error {
	metrics := "off"
	if s.Metrics != "" {
		metrics = s.Metrics + "/metrics"
	}
	counts := map[string]int{}
	for _, one := range s.Sessions {
		counts[one.State]++
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("mountpoint", "%s (%s)", printable(s.Mountpoint), s.State)
	line("store", "%s", printable(s.Store))
	line("state", "%s", printable(s.StateDir))
	line("daemon", "wholefs %s, pid %d, up %s", s.Version, s.PID, humanAge(time.Duration(s.Uptime*float64(time.Second))))
	line("policy", "durability %s, killed writers %s", s.Durability, s.OnKill)
	line("metrics", "%s", metrics)
	line("sessions", "%d open, %d publishing, %d held", counts["open"], counts["publishing"], counts["held"])
	line("staging", "%s in %d files", humanBytes(s.Staging.Bytes), s.Staging.Files)
	line("buffers", "%s of %s in use", humanBytes(s.Buffers.InUse), humanBytes(s.Buffers.Limit))
	line("journal", "%s on disk, %d sessions", humanBytes(s.Journal.Disk), s.Journal.Sessions)
	if err := t.Flush(); err != nil || len(s.Sessions) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return sessionTable(w, s.Sessions, now)
}

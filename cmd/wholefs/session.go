package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/wholefs/wholefs/control"
)

// actDeadline bounds a publish that was asked for; the store may have to copy
// a large file.
const actDeadline = time.Hour

func (p *program) sessionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "session",
		Aliases: []string{"sessions"},
		Short:   "List unfinished files and decide about them",
		Long: `A session is a file that is not published yet: one that is being written, or
one that is held because its writer was killed, the daemon ended, or
publishing it failed.

WHERE is a mountpoint, a store or a state directory; without it, the only
mount there is. Where no daemon holds the state directory the commands open
it themselves. SESSION is an id, the beginning of one, or a path in the
store; a path that begins with / and lies in a mount names its file.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("wholefs session --help lists the commands", "unknown command %q", "session "+args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usage("wholefs session --help lists them", "session needs a command")
		},
	}
	cmd.AddCommand(p.sessionLsCommand(), p.sessionShowCommand(),
		p.actCommand(control.Publish, "Publish a held file",
			`Publish a held file although nobody finished it. A file with ranges that
nobody wrote is refused; with --force they become holes.`, "published"),
		p.actCommand(control.Abort, "Drop an unfinished file and its data",
			`Drop an unfinished file and its data. What was published under its path
before, if anything, is the file again.`, "aborted"),
		p.actCommand(control.Retry, "Try again to publish a file that could not be published",
			`Try again to publish a file whose publishing failed, when the cause is gone.
With --force, ranges that nobody wrote become holes.`, "published"),
	)
	return cmd
}

// openSessions finds the sessions of a place: its daemon's, or those that the
// state directory has when no daemon holds it.
func openSessions(ctx context.Context, at place, log *slog.Logger) (control.Sessions, func() error, error) {
	client, err := at.live(ctx)
	if err == nil {
		return client, func() error { return nil }, nil
	}
	if !errors.Is(err, control.ErrNoDaemon) {
		return nil, nil, fmt.Errorf("control socket in %s: %w", at.stateDir, err)
	}
	if !isState(at.stateDir) {
		return nil, nil, notMounted("name a mountpoint, a store or a state directory", "no daemon answers in %s", at.stateDir)
	}
	h, err := openState(ctx, at.stateDir, log)
	if err != nil {
		return nil, nil, err
	}
	return sessions{h.engine}, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), defaultDrainTimeout)
		defer cancel()
		return errors.Join(h.engine.Close(ctx), h.close())
	}, nil
}

// withSessions runs do on the sessions of a place.
func (p *program) withSessions(ctx context.Context, at place, do func(control.Sessions) error) error {
	// Warnings of an engine that is opened just for this command are for the
	// user; a daemon has its own log.
	log := slog.New(slog.NewTextHandler(p.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	s, done, err := openSessions(ctx, at, log)
	if err != nil {
		return err
	}
	err = do(s)
	if cerr := done(); err == nil {
		err = cerr
	}
	return err
}

func (p *program) sessionLsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "ls [WHERE]",
		Aliases:           []string{"list"},
		Short:             "List unfinished files",
		Args:              argCount(0, 1),
		ValidArgsFunction: completeMountpoints,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := findPlace(first(args))
			if err != nil {
				return err
			}
			return p.withSessions(cmd.Context(), at, func(s control.Sessions) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askDeadline)
				defer cancel()
				list, err := s.Sessions(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return writeJSON(p.stdout, list)
				}
				if len(list) == 0 {
					return nil
				}
				return sessionTable(p.stdout, list, time.Now())
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) sessionShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show [WHERE] SESSION",
		Short: "Tell all about one unfinished file",
		Args:  argCount(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, which, err := whereAndWhich(args)
			if err != nil {
				return err
			}
			return p.withSessions(cmd.Context(), at, func(s control.Sessions) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), askDeadline)
				defer cancel()
				one, err := s.Session(ctx, which)
				if err != nil {
					return whichWayOut(err)
				}
				if asJSON {
					return writeJSON(p.stdout, one)
				}
				return p.showSession(one)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) actCommand(a control.Action, short, long, done string) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   string(a) + " [WHERE] SESSION",
		Short: short,
		Long:  long,
		Args:  argCount(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, which, err := whereAndWhich(args)
			if err != nil {
				return err
			}
			return p.withSessions(cmd.Context(), at, func(s control.Sessions) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), actDeadline)
				defer cancel()
				one, err := s.Act(ctx, which, a, force)
				if err != nil {
					return whichWayOut(err)
				}
				_, err = fmt.Fprintf(p.stdout, "%s %s (%s)\n", done, printable(one.Path), humanBytes(one.Size))
				return err
			})
		},
	}
	if a != control.Abort {
		cmd.Flags().BoolVar(&force, "force", false, "publish even if ranges are missing: they become holes")
	}
	return cmd
}

// whereAndWhich understands [WHERE] SESSION.
func whereAndWhich(args []string) (at place, which string, err error) {
	which = args[len(args)-1]
	in, inside, isPath := within(which)
	if isPath {
		which = inside
	}
	if len(args) == 1 && isPath {
		return in, which, nil
	}
	at, err = findPlace(first(args[:len(args)-1]))
	return at, which, err
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// whichWayOut adds the way out to a refusal.
func whichWayOut(err error) error {
	var e *control.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case control.NotFound:
		return fail("wholefs session ls lists them", "%w", err)
	case control.Ambiguous:
		return fail("give more of the id", "%w", err)
	case control.Incomplete:
		return fail("with --force they become holes", "%w", err)
	}
	return err
}

func (p *program) showSession(s control.Session) error {
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	now := time.Now()
	at := func(when time.Time) string {
		return when.Local().Format(time.RFC3339) + " (" + humanAge(now.Sub(when)) + " ago)"
	}
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	line("id", s.ID)
	line("path", printable(s.Path))
	line("state", s.State)
	line("reason", oneLine(s.Reason))
	line("error", oneLine(s.Error))
	line("size", fmt.Sprintf("%s (%d bytes)", humanBytes(s.Size), s.Size))
	line("parts", fmt.Sprintf("%d of %d complete, %s each", s.PartsComplete, s.Parts, humanBytes(s.PartSize)))
	line("writers", fmt.Sprint(s.Writers))
	line("created", at(s.Created))
	line("updated", at(s.Updated))
	if !s.Expires.IsZero() {
		line("expires", s.Expires.Local().Format(time.RFC3339)+" (in "+humanAge(s.Expires.Sub(now))+")")
	}
	line("missing", extents(s.Missing))
	return t.Flush()
}

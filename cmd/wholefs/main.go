package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	code := run(ctx, os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// program is what the verbs share: where they read and write.
type program struct {
	env            environment
	args, environ  []string // as given, for the background half of mount
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run is the whole program: args as in os.Args, env as in os.Environ. It
// returns the exit code.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{env: newEnvironment(env), environ: env, stdin: stdin, stdout: stdout, stderr: stderr}
	rest := args[1:]
	if filepath.Base(args[0]) == helperName {
		var err error
		if rest, err = helperArgs(rest); err != nil {
			return report(stderr, err)
		}
		if rest == nil {
			return exitDone
		}
	}
	p.args = rest
	root := p.root()
	root.SetArgs(rest)
	err := root.ExecuteContext(ctx)
	return report(p.stderr, err)
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "wholefs",
		Short: "A filesystem on which a file appears whole or not at all",
		Long: `wholefs mounts a store. Programs write into the mount as they always do;
in the store each file appears whole when it is closed, or not at all.

Every flag can be set in the environment: WHOLEFS_PART_SIZE=32M means
--part-size=32M. A flag on the command line wins.

Exit codes: 0 done, 1 failed, 2 usage, 3 not mounted, 4 deadline passed,
5 unfinished sessions are left in the journal.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("wholefs --help lists the commands", "unknown command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("wholefs --help lists them", "no command given")
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return applyEnv(cmd, p.env)
		},
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if errors.As(err, new(*failure)) {
			return err
		}
		return usage(cmd.CommandPath()+" --help lists the flags", "%w", err)
	})
	root.AddCommand(p.mountCommand(), p.umountCommand(), p.statusCommand(), p.sessionCommand(), p.versionCommand())
	return root
}

// argCount checks how many arguments a verb got.
func argCount(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		what := "missing argument"
		if len(args) > most {
			what = "too many arguments: " + strings.Join(args[most:], " ")
		}
		return usage("usage: "+cmd.UseLine(), "%s", what)
	}
}

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/store"
	"github.com/wholefs/wholefs/telemetry"
)

// Defaults of the flags of wholefs mount that no package has.
const (
	defaultPartSize      = 16 << 20
	defaultBufferSize    = 64 << 20
	leastBufferSize      = 8 << 20
	defaultDrainTimeout  = 20 * time.Second
	defaultMetricsListen = "127.0.0.1:9570"
	off                  = "off"
)

var durabilities = map[string]store.Durability{
	"process": store.DurabilityProcess, "close": store.DurabilityClose, "part": store.DurabilityPart,
}

// mountOptions are the flags of wholefs mount.
type mountOptions struct {
	store, mountpoint string // absolute
	stateDir          string // absolute; empty: in the store
	foreground        bool
	allowOther        bool
	fsName            string

	sessions sessionFlags
	kernel   kernelFlags
	watch    watchFlags
	log      logOptions
}

// sessionFlags say how files are made whole.
type sessionFlags struct {
	partSize, bufferSize       size
	durability, onKill         choice
	holdTTL                    duration
	flushTimeout, drainTimeout duration
	maxSessions                int
	layout                     chunker.Layout // of partSize, set by validate
}

// kernelFlags say what the kernel may remember.
type kernelFlags struct{ attrTimeout, entryTimeout duration }

// watchFlags say where the daemon can be watched.
type watchFlags struct{ metrics, pprof, token string }

func newMountOptions() *mountOptions {
	return &mountOptions{
		allowOther: os.Geteuid() == 0,
		sessions: sessionFlags{
			partSize:     defaultPartSize,
			bufferSize:   defaultBufferSize,
			durability:   choice{"process", []string{"process", "close", "part"}},
			onKill:       choice{"hold", []string{"hold", "publish", "abort"}},
			holdTTL:      duration(session.DefaultHoldTTL),
			flushTimeout: duration(session.DefaultFlushTimeout),
			drainTimeout: duration(defaultDrainTimeout),
			maxSessions:  session.DefaultMaxSessions,
		},
		kernel: kernelFlags{duration(time.Second), duration(time.Second)},
		watch:  watchFlags{metrics: defaultMetricsListen},
		log: logOptions{
			level:  choice{"info", []string{"debug", "info", "warn", "error"}},
			format: choice{"text", []string{"text", "json"}},
		},
	}
}

func (o *mountOptions) flags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.BoolVarP(&o.foreground, "foreground", "f", false, "stay in the foreground and log to standard error")
	s := &o.sessions
	f.Var(&s.partSize, "part-size", "size of a part, the unit in which progress is recorded")
	f.Var(&s.bufferSize, "buffer-size", "memory for requests on their way, for the whole mount")
	f.StringVar(&o.stateDir, "state-dir", "", "directory of the journal, the control socket and the log (default STORE/"+stateDirName+")")
	f.Var(&s.durability, "durability", "what a publish survives: the end of the daemon; with close, or part, also a power loss")
	f.Var(&s.onKill, "on-kill", "what becomes of a file whose writer was killed")
	f.Var(&s.holdTTL, "hold-ttl", "how long a held file is kept; 0 means for ever")
	f.IntVar(&s.maxSessions, "max-sessions", s.maxSessions, "most files that may be unpublished at once")
	f.Var(&s.flushTimeout, "flush-timeout", "how long a close may wait for the store")
	f.Var(&s.drainTimeout, "drain-timeout", "how long the end of the mount may wait for writers and publishes")
	f.Var(&o.kernel.attrTimeout, "attr-timeout", "how long the kernel may remember attributes")
	f.Var(&o.kernel.entryTimeout, "entry-timeout", "how long the kernel may remember names")
	f.BoolVar(&o.allowOther, "allow-other", o.allowOther, "let other users use the mount")
	f.StringVar(&o.fsName, "fsname", "", "source shown in the mount table (default: the store's path)")
	f.StringVar(&o.watch.metrics, "metrics-listen", o.watch.metrics, "address for Prometheus, or its next free port; off for none")
	f.StringVar(&o.watch.pprof, "pprof", "", "loopback address for Go's profiler")
	f.Var(&o.log.level, "log-level", "least severe log lines that are written")
	f.Var(&o.log.format, "log-format", "form of the log lines")
	f.StringVar(&o.log.file, "log-file", "", "log file (default: in the background "+logName+" in the state directory)")
}

// validate checks what can be checked without looking at anything, and makes
// paths absolute.
func (o *mountOptions) validate(env environment) (err error) {
	s := &o.sessions
	if s.layout, err = chunker.NewLayout(int64(s.partSize)); err != nil {
		return usage("choose a multiple of 4K from 4K to 5G", "--part-size=%s: %w", s.partSize.String(), err)
	}
	if s.bufferSize < leastBufferSize {
		return usage("choose at least 8M", "--buffer-size=%s is too small", s.bufferSize.String())
	}
	if s.maxSessions < 1 {
		return usage("choose at least 1", "--max-sessions=%d", s.maxSessions)
	}
	for name, d := range map[string]duration{"flush-timeout": s.flushTimeout, "drain-timeout": s.drainTimeout} {
		if d == 0 {
			return usage("choose how long to wait at most", "--%s=0", name)
		}
	}
	o.watch.token = env[metricsTokenEnv]
	if err := checkListen("metrics-listen", o.watch.metrics, o.watch.token); o.watch.metrics != off && err != nil {
		return err
	}
	if err := checkListen("pprof", o.watch.pprof, ""); o.watch.pprof != "" && err != nil {
		return err
	}
	if err := refuseScheme(o.store); err != nil {
		return err
	}
	for _, path := range []*string{&o.store, &o.mountpoint, &o.stateDir, &o.log.file} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

// checkListen checks an address to listen on, without listening.
func checkListen(flag, addr, token string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return usage("use HOST:PORT", "--%s=%s: %w", flag, addr, err)
	}
	err := telemetry.CheckAddress(addr, token)
	switch {
	case errors.Is(err, telemetry.ErrNeedsToken) && flag == "pprof":
		return usage("use 127.0.0.1", "--%s=%s: the profiler is for loopback only", flag, addr)
	case errors.Is(err, telemetry.ErrNeedsToken):
		return usage("set one in "+metricsTokenEnv+", or use 127.0.0.1", "--%s=%w", flag, err)
	case err != nil:
		return usage("use HOST:PORT", "--%s=%s: %w", flag, addr, err)
	}
	return nil
}

func (p *program) mountCommand() *cobra.Command {
	o := newMountOptions()
	cmd := &cobra.Command{
		Use:   "mount STORE MOUNTPOINT",
		Short: "Mount a store",
		Long: `Mount the directory STORE on the empty directory MOUNTPOINT.

The command returns when the mount answers; the daemon goes on in the
background and ends when MOUNTPOINT is unmounted. With --foreground the
command is the daemon, and SIGTERM ends it: it waits for writers and
publishes for at most --drain-timeout, holds what is unfinished, and
unmounts. A second SIGTERM ends it at once. SIGHUP reopens the log file,
SIGUSR1 writes the status to the log, SIGUSR2 goes to the next log level.

Sizes take K, M, G and T; durations take s, m, h and d.
Metrics beyond loopback need a bearer token in ` + metricsTokenEnv + `.`,
		Example: `  wholefs mount /srv/data /mnt/data
  wholefs mount -f --durability=close --part-size=64M /srv/data /mnt/data

As mount.wholefs it is a mount(8) helper, so /etc/fstab may say
  /srv/data  /mnt/data  wholefs  part_size=32M,nofail  0 0`,
		Args: argCount(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.store, o.mountpoint = args[0], args[1]
			return p.mount(cmd.Context(), o)
		},
	}
	o.flags(cmd.Flags())
	return cmd
}

func (p *program) mount(ctx context.Context, o *mountOptions) error {
	h := newHerald(p.env)
	err := o.validate(p.env)
	if err == nil {
		if !o.foreground && h == nil {
			return p.background(ctx, p.args)
		}
		err = p.serve(ctx, o, h)
	}
	if err != nil && h != nil {
		h.say(readiness{Error: oneLine(err.Error()), Code: exitCode(err)})
		p.stderr = io.Discard // by now that is the log, which has it already
	}
	return err
}

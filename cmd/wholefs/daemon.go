package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/control"
	"github.com/wholefs/wholefs/fusefs"
	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/session"
	"github.com/wholefs/wholefs/staging"
	"github.com/wholefs/wholefs/store"
	"github.com/wholefs/wholefs/telemetry"
)

// daemon is a mount and everything around it. It is what the control socket
// speaks to.
type daemon struct {
	sessions
	o       *mountOptions
	log     *logger
	house   *house
	metrics *telemetry.Metrics
	buffers *staging.Buffers
	fs      atomic.Pointer[fusefs.FS]
	mount   *fusefs.Mount
	started time.Time
	url     string // of the metrics; empty when they are off
	health  prober
	ready   atomic.Bool // mount is set and answers

	unmounting sync.Mutex // one at a time
	draining   atomic.Bool
	drainOnce  sync.Once
	drained    chan struct{} // closed when left and drainErr are final
	left       []control.Session
	drainErr   error
}

var _ control.Mount = (*daemon)(nil)

// serve mounts, serves until the mount is gone, and cleans up. It is the
// daemon, in the foreground or in the background half.
func (p *program) serve(ctx context.Context, o *mountOptions, h *herald) (err error) {
	unix.Umask(0) // modes come from the programs that use the mount
	setProcessors()
	cleared, err := o.check()
	if err != nil {
		return err
	}
	by := owner{Mountpoint: o.mountpoint, PartSize: int64(o.sessions.partSize)}
	hs, err := claimHouse(o.store, o.stateDir, by)
	if err != nil {
		return err
	}
	d := &daemon{o: o, house: hs, started: time.Now(), drained: make(chan struct{})}
	defer func() {
		if cerr := withDeadline(closeDeadline, hs.close); cerr != nil && err == nil {
			err = cerr
		}
		if d.log != nil {
			if err != nil && err != error(errUnfinished) {
				d.log.Error("daemon failed", "error", err)
			}
			d.log.Info("daemon ends", "exit", exitCode(err))
			d.log.close()
		}
	}()
	if err := d.openLog(p, h); err != nil {
		return err
	}
	if cleared {
		d.log.Warn("a dead mount was cleared", "mountpoint", o.mountpoint)
	}
	stopSignals := d.handleSignals()
	defer stopSignals()
	if err := d.furnish(ctx); err != nil {
		return err
	}
	stopServers, err := d.startServers()
	if err != nil {
		return err
	}
	defer stopServers()
	if err := d.attach(); err != nil {
		return err
	}
	defer d.detach()
	forget, err := d.register()
	if err != nil {
		d.log.Info("not in the register of mounts", "error", err)
	}
	defer forget()
	if h == nil {
		// Without systemd, or of another kind of unit, there is nobody to tell.
		_, _ = systemd.SdNotify(false, systemd.SdNotifyReady)
	}
	h.say(readiness{Mountpoint: o.mountpoint, Metrics: d.url})
	return d.wait(ctx)
}

// closeDeadline is how long the journal and the staging directory may take to
// close before the process ends regardless.
const closeDeadline = 10 * time.Second

// check makes sure that the mount makes sense, before anything is made.
func (o *mountOptions) check() (cleared bool, err error) {
	if err := checkStore(o.store); err != nil {
		return false, err
	}
	if o.store, err = filepath.EvalSymlinks(o.store); err != nil {
		return false, err
	}
	if o.mountpoint, cleared, err = checkMountpoint(o.mountpoint); err != nil {
		return cleared, err
	}
	if err := checkApart(o.mountpoint, "store", o.store); err != nil {
		return cleared, err
	}
	if o.stateDir != "" {
		if err := o.checkStateDir(); err != nil {
			return cleared, err
		}
	}
	if o.fsName == "" {
		o.fsName = o.store
	}
	return cleared, checkEmpty(o.mountpoint)
}

func (o *mountOptions) checkStateDir() error {
	if err := checkApart(o.mountpoint, "state directory", o.stateDir); err != nil {
		return err
	}
	in, err := liesIn(o.stateDir, o.store)
	if err != nil {
		return err
	}
	if own := filepath.Join(o.store, stateDirName); in && filepath.Clean(o.stateDir) != own {
		return usage("choose one outside of it, or leave it out for "+own,
			"the state directory %s would be seen among the files of the store", o.stateDir)
	}
	return nil
}

// setProcessors gives the runtime more processors than the machine has, unless
// GOMAXPROCS says otherwise. The goroutines that read requests sit in read(2)
// and keep theirs until the runtime notices; with as many as the machine has, a
// write that waits to be stored waits for that too (a tenth of a copy's time).
func setProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(4, 2*runtime.NumCPU()))
	}
}

// openLog starts the log. In the background whatever the runtime says last
// goes there too.
func (d *daemon) openLog(p *program, h *herald) (err error) {
	o := d.o.log
	if o.file == "" && h != nil {
		o.file, o.strict = filepath.Join(d.house.stateDir, logName), true
	}
	if d.log, err = newLogger(o, p.stderr); err != nil {
		return fail("choose another --log-file", "log file %s: %w", o.file, pathCause(err))
	}
	if h != nil {
		if err := os.Chdir("/"); err != nil { // not to keep the directory of the user busy
			return err
		}
		if err := d.log.out.follow(1, 2); err != nil {
			return fmt.Errorf("log file: %w", err)
		}
	}
	d.log.Info("daemon starts", "version", thisVersion().String(), "store", d.o.store, "mountpoint", d.o.mountpoint,
		"state", d.house.stateDir)
	return nil
}

// furnish builds metrics and sessions.
func (d *daemon) furnish(ctx context.Context) error {
	v := thisVersion()
	d.metrics = telemetry.New(telemetry.Build{Version: v.Version, Revision: v.Revision, GoVersion: v.Go}, d.sources())
	s := d.o.sessions
	ttl := time.Duration(s.holdTTL)
	if ttl == 0 {
		ttl = -1
	}
	err := d.house.furnish(ctx, session.Options{
		Store:        observedStore{d.house.store, d.metrics},
		Layout:       s.layout,
		Durability:   durabilities[s.durability.word],
		OnKill:       session.KillPolicy(s.onKill.word),
		HoldTTL:      ttl,
		MaxSessions:  s.maxSessions,
		FlushTimeout: time.Duration(s.flushTimeout),
		Observer:     d.metrics,
		Logger:       d.log.Logger,
		Hooks: session.Hooks{
			Published: func(s *session.Session, path string, a store.Attr) {
				if fs := d.fs.Load(); fs != nil {
					fs.SessionPublished(s, path, a)
				}
			},
			Ended: func(s *session.Session, path string) {
				if fs := d.fs.Load(); fs != nil {
					fs.SessionEnded(s, path)
				}
			},
		},
	}, journal.Options{Logger: d.log.Logger, Observer: d.metrics.Journal(), SyncWrites: s.durability.word == "part"})
	if err != nil {
		return err
	}
	d.sessions = sessions{d.house.engine}
	d.buffers = staging.NewBuffers(fusefs.BufferSize, int(s.bufferSize/fusefs.BufferSize))
	return nil
}

// attach mounts and makes sure that the mount answers.
func (d *daemon) attach() error {
	k := d.o.kernel
	fs, err := fusefs.New(fusefs.Options{
		Store:        d.house.store,
		Engine:       d.house.engine,
		AttrTimeout:  kernelTimeout(k.attrTimeout),
		EntryTimeout: kernelTimeout(k.entryTimeout),
		Logger:       d.log.Logger,
		Observer:     d.metrics,
	})
	if err != nil {
		return err
	}
	d.fs.Store(fs)
	d.mount, err = fusefs.NewMount(d.o.mountpoint, fusefs.MountOptions{
		FS: fs, Buffers: d.buffers, AllowOther: d.o.allowOther, FsName: d.o.fsName,
		Logger: d.log.Logger, Observer: d.metrics,
	})
	if err != nil {
		d.fs.Store(nil)
		fs.Close()
		return err
	}
	d.health.path = d.o.mountpoint
	if err := answers(d.o.mountpoint, statDeadline); err != nil {
		d.detach()
		return fail("", "the mount on %s does not answer: %w", d.o.mountpoint, pathCause(err))
	}
	d.ready.Store(true)
	d.log.Info("mounted", "mountpoint", d.o.mountpoint, "metrics", d.url)
	return nil
}

// register makes the state directory findable from the mountpoint.
func (d *daemon) register() (forget func(), err error) {
	mounts, err := readMounts()
	if err != nil {
		return func() {}, err
	}
	m, ok := mountAt(mounts, d.o.mountpoint)
	if !ok {
		return func() {}, fmt.Errorf("%s is not in the mount table", d.o.mountpoint)
	}
	return register(m.device, d.house.stateDir)
}

// kernelTimeout translates a flag, where 0 means never, to an option, where 0
// means the default.
func kernelTimeout(d duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

// detach takes the mount away if it is still there, and frees what served it.
func (d *daemon) detach() {
	select {
	case <-d.mount.Done():
	default:
		if err := d.mount.Unmount(true); err != nil {
			d.log.Error("unmount", "error", err)
		}
		select {
		case <-d.mount.Done():
		case <-time.After(200 * time.Millisecond):
			return // programs still have files open: the end of the process tells them
		}
	}
	d.fs.Load().Close()
}

// Status tells what the mount is and does.
func (d *daemon) Status(ctx context.Context) (control.Status, error) {
	s := control.Status{
		State: "mounted", Store: d.o.store, Mountpoint: d.o.mountpoint, StateDir: d.house.stateDir,
		Version: thisVersion().Version, PID: os.Getpid(), Started: d.started, Uptime: time.Since(d.started).Seconds(),
		Metrics: d.url, Durability: d.o.sessions.durability.word, OnKill: d.o.sessions.onKill.word,
		DrainTimeout: time.Duration(d.o.sessions.drainTimeout).Seconds(), OldestAge: d.engine.OldestAge().Seconds(),
	}
	if d.draining.Load() {
		s.State = "draining"
	}
	s.Staging.Bytes, s.Staging.Files = d.house.staging.Usage()
	b, j := d.buffers.Stats(), d.house.journal.Stats()
	s.Buffers = control.Buffers{InUse: b.InUse, Allocated: b.Allocated, Limit: b.Limit, Wait: b.WaitSeconds}
	s.Journal = control.Journal{Disk: j.DiskBytes, Memory: j.MemoryBytes, Sessions: j.Sessions}
	var err error
	s.Sessions, err = d.Sessions(ctx)
	return s, err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/control"
	"github.com/wholefs/wholefs/telemetry"
)

// How a daemon can be watched from outside: metrics, health, the control
// socket, the profiler, and signals.

// sources tells the metrics where to look.
func (d *daemon) sources() telemetry.Sources {
	return telemetry.Sources{
		Sessions: func() map[string]int {
			counts := make(map[string]int)
			for state, n := range d.house.engine.Counts() {
				counts[string(state)] = n
			}
			return counts
		},
		OldestAge:    func() time.Duration { return d.house.engine.OldestAge() },
		StagingBytes: func() int64 { bytes, _ := d.house.staging.Usage(); return bytes },
		StagingLimit: func() int64 { return 0 }, // the disk's
		Buffers: func() telemetry.Buffers {
			b := d.buffers.Stats()
			return telemetry.Buffers{
				InUse: b.InUse, Allocated: b.Allocated, Limit: b.Limit,
				Wait: time.Duration(b.WaitSeconds * float64(time.Second)),
			}
		},
		Journal: func() telemetry.Journal {
			j := d.house.journal.Stats()
			return telemetry.Journal{DiskBytes: j.DiskBytes, MemoryBytes: j.MemoryBytes}
		},
	}
}

// startServers opens the metrics, the profiler and the control socket. It is
// called before the mount is made, so that a mount never lacks them.
func (d *daemon) startServers() (stop func(), err error) {
	var closers []func()
	stop = func() {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	if addr := d.o.watch.metrics; addr != off {
		l, err := telemetry.Listen(addr, d.o.watch.token)
		if err != nil {
			return nil, fail("choose another --metrics-listen, or off", "metrics on %s: %w", addr, err)
		}
		s := d.metrics.Serve(l, telemetry.ServeOptions{
			Title: d.o.store + " on " + d.o.mountpoint, Healthy: d.health.ask, Token: d.o.watch.token, Logger: d.log.Logger,
		})
		d.url = s.URL()
		closers = append(closers, func() { s.Close() })
	}
	if addr := d.o.watch.pprof; addr != "" {
		l, err := telemetry.Listen(addr, "")
		if err != nil {
			return nil, fail("choose another --pprof", "profiler on %s: %w", addr, err)
		}
		s := telemetry.ServeProfiles(l, d.log.Logger)
		d.log.Info("profiler", "url", s.URL()+"/debug/pprof/")
		closers = append(closers, func() { s.Close() })
	}
	l, err := control.Listen(d.house.stateDir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := control.Serve(l, d, d.log.Logger)
	closers = append(closers, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			d.log.Warn("control socket", "error", err)
		}
	})
	return stop, nil
}

// prober asks the mount whether it answers. One question at a time is under
// way: a mount that hangs must not gather goroutines.
type prober struct {
	path string

	mu     sync.Mutex
	asking chan struct{} // closed when the question under way is answered
	err    error         // of the last answer
}

// ask returns nil if the mount answers before ctx ends.
func (p *prober) ask(ctx context.Context) error {
	p.mu.Lock()
	if p.path == "" {
		p.mu.Unlock()
		return errors.New("not mounted yet")
	}
	if p.asking == nil {
		p.asking = make(chan struct{})
		go func(done chan struct{}) {
			var st unix.Statfs_t
			err := unix.Statfs(p.path, &st)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.err, p.asking = err, nil
			close(done)
		}(p.asking)
	}
	done := p.asking
	p.mu.Unlock()
	select {
	case <-done:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-ctx.Done():
		return errors.New("the mount does not answer")
	}
}

// handleSignals does what signals ask for while the daemon runs. The first
// SIGTERM or SIGINT ends the context of main; here the second one counts.
func (d *daemon) handleSignals() (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	signal.Ignore(unix.SIGPIPE) // a reader of the log that went away
	done := make(chan struct{})
	go func() {
		ends := 0
		for {
			select {
			case s := <-signals:
				if s == unix.SIGINT || s == unix.SIGTERM {
					if ends++; ends == 2 {
						d.endNow()
					}
					continue
				}
				d.signal(s)
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

func (d *daemon) signal(s os.Signal) {
	switch s {
	case unix.SIGHUP:
		if err := d.log.reopen(); err != nil {
			d.log.Error("log file cannot be opened again", "error", err)
		}
	case unix.SIGUSR1:
		if !d.ready.Load() {
			d.log.Info("status", "state", "starting")
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		status, err := d.Status(ctx)
		if err != nil {
			d.log.Error("status", "error", err)
			return
		}
		d.log.Info("status", "status", status)
	case unix.SIGUSR2:
		level := d.log.cycle()
		d.log.Log(context.Background(), level, "log level", "level", level.String())
	}
}

// endNow is for those who do not wait for the drain. The journal is made for
// it: the next start finds everything again.
func (d *daemon) endNow() {
	d.log.Warn("second signal: ending without drain")
	if d.ready.Load() {
		_ = d.mount.Unmount(true) // the process ends anyway
	}
	os.Exit(exitFailed)
}

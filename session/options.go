package session

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/wholefs/wholefs/chunker"
	"github.com/wholefs/wholefs/journal"
	"github.com/wholefs/wholefs/staging"
	"github.com/wholefs/wholefs/store"
)

// KillPolicy says what becomes of a session whose writer died by a signal.
type KillPolicy string

// The kill policies. KillHold is the default; the others are for those who
// know that a killed writer's file is wanted, or never is.
const (
	KillHold    KillPolicy = "hold"
	KillPublish KillPolicy = "publish"
	KillAbort   KillPolicy = "abort"
)

// Defaults of Options.
const (
	DefaultHoldTTL      = 7 * 24 * time.Hour
	DefaultMaxSessions  = 4096
	DefaultFlushTimeout = 10 * time.Minute
)

// Hooks tell a face what happened to a session outside its own calls. They
// run without locks and must not call back into the session.
type Hooks struct {
	// Published runs when the store shows the file and before the close that
	// caused it is answered; a tells the published file.
	Published func(s *Session, path string, a store.Attr)
	// Ended runs when a session was aborted or expired: its file is again
	// what the store has, or nothing.
	Ended func(s *Session, path string)
}

// Observer counts what sessions do. Its methods are called on hot paths and
// must not block. Results and decisions are short constant words.
type Observer interface {
	SessionEnded(result string)
	PublishDone(result string, d time.Duration)
	FlushDecision(decision string)
	PartCompleted()
	PartRewritten()
	IntegrityFailure(stage string)
	SessionRecovered(result string)
}

type noObserver struct{}

func (noObserver) SessionEnded(string)               {}
func (noObserver) PublishDone(string, time.Duration) {}
func (noObserver) FlushDecision(string)              {}
func (noObserver) PartCompleted()                    {}
func (noObserver) PartRewritten()                    {}
func (noObserver) IntegrityFailure(string)           {}
func (noObserver) SessionRecovered(string)           {}

// Options are what an Engine is made of. Store, Staging, Journal and Layout
// must be set; the rest has defaults.
type Options struct {
	Store      store.Store
	Staging    *staging.Dir
	Journal    *journal.Journal
	Layout     chunker.Layout
	Durability store.Durability
	OnKill     KillPolicy
	// HoldTTL ends held sessions that nobody asked for; negative means never.
	HoldTTL time.Duration
	// MaxSessions bounds the sessions that are open, publishing or held; one
	// more is refused with ENFILE.
	MaxSessions int
	// FlushTimeout bounds how long a close waits for the store; then it
	// answers ETIMEDOUT and the publish goes on behind.
	FlushTimeout time.Duration
	Observer     Observer
	Logger       *slog.Logger
	Hooks        Hooks
	// Now is the clock, for tests.
	Now func() time.Time
}

func (o *Options) setDefaults() error {
	switch {
	case o.Store == nil:
		return errors.New("session: no store")
	case o.Staging == nil:
		return errors.New("session: no staging directory")
	case o.Journal == nil:
		return errors.New("session: no journal")
	case o.Layout.PartSize() == 0:
		return errors.New("session: no part size")
	}
	switch o.OnKill {
	case "":
		o.OnKill = KillHold
	case KillHold, KillPublish, KillAbort:
	default:
		return fmt.Errorf("session: unknown kill policy %q: use hold, publish or abort", o.OnKill)
	}
	if o.HoldTTL == 0 {
		o.HoldTTL = DefaultHoldTTL
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = DefaultMaxSessions
	}
	if o.FlushTimeout == 0 {
		o.FlushTimeout = DefaultFlushTimeout
	}
	if o.Observer == nil {
		o.Observer = noObserver{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return checkLimits(o.Layout, o.Store.Limits())
}

// checkLimits refuses early a part size that the store would refuse late.
func checkLimits(l chunker.Layout, lim store.Limits) error {
	if lim.MinPartSize > 0 && l.PartSize() < lim.MinPartSize {
		return fmt.Errorf("session: part size %d is below the store's least, %d bytes", l.PartSize(), lim.MinPartSize)
	}
	if lim.MaxPartSize > 0 && l.PartSize() > lim.MaxPartSize {
		return fmt.Errorf("session: part size %d is above the store's most, %d bytes", l.PartSize(), lim.MaxPartSize)
	}
	return nil
}

// maxSize returns the largest file that fits the store's limits, at most the
// largest that Linux knows.
func maxSize(l chunker.Layout, lim store.Limits) int64 {
	size := int64(1<<63 - 1)
	if lim.MaxSize > 0 {
		size = min(size, lim.MaxSize)
	}
	if lim.MaxParts > 0 && lim.MaxParts <= size/l.PartSize() {
		size = min(size, lim.MaxParts*l.PartSize())
	}
	return size
}

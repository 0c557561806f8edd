package durable

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Op is the label of one kind of step.
type Op string

// The steps that this package does.
const (
	OpSyncFile Op = "sync-file"
	OpSyncDir  Op = "sync-dir"
	OpRename   Op = "rename"
)

// Step is one call of this package, as an observer sees it before it is done.
// File is the name under which the descriptor was opened; Name, To and ToName
// are set for OpRename only.
type Step struct {
	Op     Op
	File   string
	Name   string
	To     string
	ToName string
}

// String tells the step in short, with the last component of each directory:
// "sync-file 0a1b", "rename staging/0a1b -> top/model.bin", "sync-dir top".
func (s Step) String() string {
	if s.Op == OpRename {
		return fmt.Sprintf("%s %s/%s -> %s/%s", s.Op, filepath.Base(s.File), s.Name, filepath.Base(s.To), s.ToName)
	}
	return fmt.Sprintf("%s %s", s.Op, filepath.Base(s.File))
}

// observer is nil except in tests.
var observer atomic.Pointer[func(Step) error]

// Observe has fn called before each step of this process until stop is
// called. What fn returns, unless nil, becomes the outcome of the step, which
// is then not done. fn must be safe for concurrent use. There is one observer
// at a time: a second Observe panics. For tests; without one a step pays for a
// single load.
func Observe(fn func(Step) error) (stop func()) {
	if !observer.CompareAndSwap(nil, &fn) {
		panic("durable: Observe while another observer is installed")
	}
	return func() { observer.CompareAndSwap(&fn, nil) }
}

func note(s Step) error {
	if fn := observer.Load(); fn != nil {
		return (*fn)(s)
	}
	return nil
}

// Recorder keeps the steps it sees, and fails those it is told to. The zero
// value is ready: stop := durable.Observe(r.Step).
type Recorder struct {
	mu    sync.Mutex
	steps []Step
	fail  map[Op]error
}

// Step records s; it is the function to give to Observe.
func (r *Recorder) Step(s Step) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, s)
	return r.fail[s.Op]
}

// Fail makes each later step of the kind op fail with err, undone; a nil err
// lets them be done again.
func (r *Recorder) Fail(op Op, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail == nil {
		r.fail = make(map[Op]error)
	}
	r.fail[op] = err
}

// Steps returns what was seen since the last call, in order.
func (r *Recorder) Steps() []Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	steps := r.steps
	r.steps = nil
	return steps
}

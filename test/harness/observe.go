package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Event is one thing that happened to a name in a watched directory, in the
// words of inotify(7).
type Event struct {
	Mask uint32
	Name string
	Sum  string // content right after the name appeared, "" otherwise
}

func (e Event) String() string {
	for mask, word := range map[uint32]string{
		unix.IN_CREATE: "create", unix.IN_MOVED_TO: "moved to", unix.IN_MOVED_FROM: "moved from",
		unix.IN_DELETE: "delete", unix.IN_MODIFY: "modify",
	} {
		if e.Mask&mask != 0 {
			return word + " " + e.Name + " " + e.Sum
		}
	}
	return fmt.Sprintf("%#x %s", e.Mask, e.Name)
}

// Appeared reports whether the event put a file under the name.
func (e Event) Appeared() bool { return e.Mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 }

// Watch records what an observer of the store's directory sees: when names
// appear, vanish, or, which must never happen, change under their name.
type Watch struct {
	dir  string
	fd   int
	done chan struct{}

	mu     sync.Mutex
	events []Event
	stop   bool
}

// NewWatch watches a directory for the length of the test.
func NewWatch(t testing.TB, dir string) *Watch {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	const mask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_MODIFY
	if _, err := unix.InotifyAddWatch(fd, dir, mask); err != nil {
		t.Fatal(err)
	}
	w := &Watch{dir: dir, fd: fd, done: make(chan struct{})}
	go w.loop()
	t.Cleanup(func() {
		w.mu.Lock()
		w.stop = true
		w.mu.Unlock()
		<-w.done
		unix.Close(fd)
	})
	return w
}

func (w *Watch) loop() {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	for {
		w.mu.Lock()
		stop := w.stop
		w.mu.Unlock()
		if stop {
			return
		}
		// Woken at once: the kernel merges equal events that wait to be read.
		unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 50)
		n, err := unix.Read(w.fd, buf)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		w.take(buf[:n])
	}
}

func (w *Watch) take(buf []byte) {
	for len(buf) >= unix.SizeofInotifyEvent {
		raw := (*unix.InotifyEvent)(unsafe.Pointer(&buf[0]))
		end := unix.SizeofInotifyEvent + int(raw.Len)
		name := string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00"))
		buf = buf[end:]
		if name == Hidden {
			continue
		}
		e := Event{Mask: raw.Mask, Name: name}
		if e.Appeared() {
			if sum, err := Sum(filepath.Join(w.dir, name)); err == nil {
				e.Sum = sum
			}
		}
		w.mu.Lock()
		w.events = append(w.events, e)
		w.mu.Unlock()
	}
}

// Events is what was seen of a name so far.
func (w *Watch) Events(name string) []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var some []Event
	for _, e := range w.events {
		if e.Name == name {
			some = append(some, e)
		}
	}
	return some
}

// Saw fails the test unless whatever appeared under the name was one of the
// known contents. It is for many publishes in a row, of which the kernel may
// merge some into one event.
func (w *Watch) Saw(t testing.TB, name string, known func(sum string) bool) {
	t.Helper()
	events := w.Events(name)
	if len(events) == 0 {
		t.Errorf("nothing was seen of %s", name)
	}
	for _, e := range events {
		if !e.Appeared() || !known(e.Sum) {
			t.Errorf("seen of %s: %v", name, e)
		}
	}
}

// Published waits until the name has appeared as often as there are sums,
// gives a surplus one a moment to show, and fails the test unless the name
// held exactly these contents in this order and was never touched otherwise.
func (w *Watch) Published(t testing.TB, name string, sums ...string) {
	t.Helper()
	count := func() (n int) {
		for _, e := range w.Events(name) {
			if e.Appeared() {
				n++
			}
		}
		return n
	}
	Poll(10*time.Second, func() bool { return count() >= len(sums) })
	time.Sleep(50 * time.Millisecond)
	var seen []string
	for _, e := range w.Events(name) {
		switch {
		case e.Appeared():
			seen = append(seen, e.Sum)
		default:
			t.Errorf("%s was touched under its name: %v", name, e)
		}
	}
	if strings.Join(seen, " ") != strings.Join(sums, " ") {
		t.Errorf("%s was published %d times, want %d\ngot  %v\nwant %v", name, len(seen), len(sums), seen, sums)
	}
}

// Hashing opens, reads and hashes a file in a loop until stop is called,
// which returns how often each content was seen. The errors of a name that
// is not there are counted under "absent".
func Hashing(path string) (stop func() map[string]int) {
	seen := map[string]int{}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			sum, err := Sum(path)
			switch {
			case errors.Is(err, os.ErrNotExist):
				sum = "absent"
			case err != nil:
				sum = err.Error()
			}
			seen[sum]++
		}
	}()
	return func() map[string]int {
		close(quit)
		<-done
		return seen
	}
}

package mount

import (
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/wholefs/wholefs/test/harness"
)

// posixExceptions are the cases of go-fuse's posixtest that wholefs fails,
// each with its reason. A case that is listed and passes is an error too.
var posixExceptions = map[string]string{
	"FcntlFlockLocksFile": "it wants two fcntl locks of one process to conflict; they never do, on a local disk either",
}

const posixCase, posixDir = "WHOLEFS_POSIX_CASE", "WHOLEFS_POSIX_DIR"

// TestPosix runs each case in a process of its own, so that one that hangs
// can be killed and one that fails can be expected.
func TestPosix(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp(m.Dir, name)
			if err != nil {
				t.Fatal(err)
			}
			r := harness.Cmd{
				Args:    []string{os.Args[0], "-test.run=^TestPosixCase$", "-test.v", "-test.count=1"},
				Env:     []string{posixCase + "=" + name, posixDir + "=" + dir},
				Timeout: time.Minute,
			}.Run()
			reason, listed := posixExceptions[name]
			switch {
			case !r.OK() && !listed:
				t.Errorf("%v", r)
			case r.OK() && listed:
				t.Errorf("listed as an exception (%s), and passes", reason)
			}
		})
	}
	m.NoSessions(t)
	m.NoStaging(t)
}

// TestPosixCase is one case, for the process that TestPosix starts.
func TestPosixCase(t *testing.T) {
	name := os.Getenv(posixCase)
	if name == "" {
		return // TestPosix runs it
	}
	posixtest.All[name](t, os.Getenv(posixDir))
}

package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const scratchPrefix = "wholefs-test-"

// scratch is the directory under which this process makes all it needs. Its
// name carries the process id, so that a later run can tell what is stale.
var scratch = sync.OnceValues(func() (string, error) {
	base := os.Getenv("WHOLEFS_TEST_DIR")
	if base == "" {
		base = os.TempDir()
	}
	dir, err := os.MkdirTemp(base, scratchPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return "", err
	}
	// Other users take part in some tests: they must be able to pass.
	return dir, os.Chmod(dir, 0o755)
})

// TempDir makes a new directory on the real filesystem that the tests use.
// Unlike testing's own it is passable for every user.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := tempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func tempDir() (string, error) {
	base, err := scratch()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(base, "d")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// ScratchDir makes a directory that lives as long as the process, for what
// several tests share and for programs that have no testing.TB.
func ScratchDir() (string, error) { return tempDir() }

// Main runs the tests of a package that mounts. It fails the package when the
// machine cannot mount (unless WHOLEFS_ALLOW_SKIP=1) and when a mount of ours
// is left behind at the end.
func Main(m *testing.M) {
	if why := cannotMount(); why != "" {
		fmt.Fprintln(os.Stderr, "wholefs tests need a machine that can mount:", why)
		if os.Getenv("WHOLEFS_ALLOW_SKIP") != "1" {
			os.Exit(1)
		}
		fmt.Fprintln(os.Stderr, "WHOLEFS_ALLOW_SKIP=1: every test of this package is skipped")
		os.Exit(0)
	}
	syscall.Umask(0o022)
	clearStale()
	code := m.Run()
	if left := ours(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "mounts left behind:", left)
		for _, dir := range left {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
		if code == 0 {
			code = 1
		}
	}
	Cleanup()
	os.Exit(code)
}

// Cleanup removes everything this process made. Main calls it.
func Cleanup() {
	if dir, err := scratch(); err == nil {
		os.RemoveAll(dir)
	}
}

func cannotMount() string {
	if os.Geteuid() != 0 {
		return "not root"
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return err.Error()
	}
	return ""
}

// ours lists the mountpoints below this process's scratch directory.
func ours() []string {
	dir, err := scratch()
	if err != nil {
		return nil
	}
	var left []string
	for _, m := range mounts() {
		if strings.HasPrefix(m.dir, dir+"/") {
			left = append(left, m.dir)
		}
	}
	return left
}

// clearStale detaches the mounts of test processes that are gone.
func clearStale() {
	for _, m := range mounts() {
		_, rest, ok := strings.Cut(m.dir, "/"+scratchPrefix)
		if !ok {
			continue
		}
		pid, _, _ := strings.Cut(rest, "-")
		if n, err := strconv.Atoi(pid); err == nil && syscall.Kill(n, 0) == syscall.ESRCH {
			unix.Unmount(m.dir, unix.MNT_DETACH)
		}
	}
}

type mountEntry struct{ dir, fstype string }

// mounts reads the mount table, which never waits for a filesystem.
func mounts() []mountEntry {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var all []mountEntry
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		fields, types := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(types) < 1 {
			continue
		}
		all = append(all, mountEntry{filepath.Clean(unescape.Replace(fields[4])), types[0]})
	}
	return all
}

// IsMounted reports whether a FUSE filesystem is mounted at dir.
func IsMounted(dir string) bool {
	for _, m := range mounts() {
		if m.dir == dir && strings.HasPrefix(m.fstype, "fuse") {
			return true
		}
	}
	return false
}

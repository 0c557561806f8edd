package mount

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/test/harness"
)

// Exit codes of the command line.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotMounted = 3
	exitUnfinished = 5
)

// What cannot be mounted gets one clear line and its exit code.
func TestMountErrors(t *testing.T) {
	bin, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := harness.TempDir(t)
	harness.Must(t, harness.Shell(dir, "mkdir -p store mnt full store/inside outer/store nested/sub; touch full/f file; mount -t tmpfs -o size=1m none nested/sub"))
	t.Cleanup(func() { unix.Unmount(filepath.Join(dir, "nested/sub"), unix.MNT_DETACH) })
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name, store, mnt string
		code             int
		says             string
	}{
		{"non-empty mountpoint", "store", "full", exitFailed, "not empty"},
		{"missing mountpoint", "store", "nosuch", exitFailed, "nosuch"},
		{"missing store", "nosuch", "mnt", exitFailed, "nosuch"},
		{"mountpoint is a file", "store", "file", exitFailed, "not a directory"},
		{"store is a file", "file", "mnt", exitFailed, "not a directory"},
		{"mountpoint inside the store", "store", "store/inside", 0, "inside"},
		{"store inside the mountpoint", "outer/store", "outer", 0, ""},
		{"something is mounted inside the store", "nested", "mnt", exitFailed, "nested/sub"},
		{"store is the mountpoint", "store", "store", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := harness.Cmd{Args: []string{bin, "mount", "-f", "--metrics-listen=off", at(c.store), at(c.mnt)}, Timeout: 10 * time.Second}.Run()
			unix.Unmount(at(c.mnt), unix.MNT_DETACH)
			if r.TimedOut || r.Code < exitFailed || r.Code > exitUsage || (c.code != 0 && r.Code != c.code) {
				t.Fatalf("want exit %d: %v", c.code, r)
			}
			if !strings.Contains(r.Err, c.says) || strings.Count(strings.TrimSpace(r.Err), "\n") != 0 || !strings.HasPrefix(r.Err, "wholefs: ") {
				t.Errorf("want one line with %q: %v", c.says, r)
			}
			if _, err := os.Stat(filepath.Join(at(c.mnt), harness.Hidden)); err == nil && c.mnt != "store" {
				t.Error("it left its directory in the mountpoint")
			}
		})
	}
	for _, args := range [][]string{{"mount"}, {"mount", at("store")}, {"mount", "--no-such-flag", at("store"), at("mnt")}, {"nosuchverb"},
		{"mount", "--part-size=17", at("store"), at("mnt")}, {"mount", "--on-kill=perhaps", at("store"), at("mnt")}} {
		if r := (harness.Cmd{Args: append([]string{bin}, args...), Timeout: 10 * time.Second}).Run(); r.Code != exitUsage || r.Err == "" {
			t.Errorf("want exit %d: %v", exitUsage, r)
		}
	}
	for _, args := range [][]string{{"umount", at("mnt")}, {"status", at("mnt")}, {"session", "ls", at("mnt")}} {
		if r := (harness.Cmd{Args: append([]string{bin}, args...), Timeout: 10 * time.Second}).Run(); r.Code != exitNotMounted {
			t.Errorf("want exit %d: %v", exitNotMounted, r)
		}
	}
}

// One state directory, one daemon.
func TestStoreInUse(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	bin, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	other := harness.TempDir(t)
	r := harness.Cmd{Args: []string{bin, "mount", "-f", "--metrics-listen=off", m.Store, other}, Timeout: 20 * time.Second}.Run()
	unix.Unmount(other, unix.MNT_DETACH)
	if r.Code != exitFailed || strings.Count(strings.TrimSpace(r.Err), "\n") != 0 {
		t.Errorf("a second mount of the store: %v", r)
	}
	if _, err := os.ReadDir(m.Dir); err != nil {
		t.Errorf("the first one suffered: %v", err)
	}
}

// In the background: mount returns when the mount answers, umount when it is
// gone.
func TestBackground(t *testing.T) {
	bin, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := harness.TempDir(t)
	harness.Must(t, harness.Shell(dir, "mkdir store mnt"))
	mnt := filepath.Join(dir, "mnt")
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	for i := range 3 {
		r := harness.Cmd{Args: []string{bin, "mount", "--metrics-listen=off", filepath.Join(dir, "store"), mnt}}.Run()
		if !r.OK() || !harness.IsMounted(mnt) {
			t.Fatalf("mount %d: %v", i, r)
		}
		harness.Must(t, harness.Shell(mnt, "echo x >> f; cat f"))
		if r := harness.Run(bin, "umount", mnt); !r.OK() || harness.IsMounted(mnt) {
			t.Fatalf("umount %d: %v", i, r)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "store", "f")); err != nil || string(b) != "x\nx\nx\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// A mount whose daemon died ("transport endpoint is not connected") is
// cleared by the next one.
func TestStaleMountIsCleared(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	harness.Must(t, harness.Shell(m.Dir, "echo x > f"))
	m.KillOnly()
	if _, err := os.Stat(m.Dir); err == nil {
		t.Fatal("the mount survived its daemon: this tests nothing")
	}
	m.MustRemount(t)
	harness.Must(t, harness.Shell(m.Dir, "cat f"))
	if r := m.Umount(); !r.OK() {
		t.Error(r)
	}
	if harness.IsMounted(m.Dir) {
		t.Error("a mount is left below")
	}
}

// Mount again within milliseconds, many times.
func TestUmountAndMountAgain(t *testing.T) {
	m := harness.Mount(t, harness.Options{NoMetrics: true})
	for i := range 10 {
		harness.Must(t, harness.Shell(m.Dir, "echo x >> f"))
		if r := m.Umount(); !r.OK() {
			t.Fatalf("umount %d: %v", i, r)
		}
		m.MustRemount(t)
	}
	if st, err := os.Stat(m.In("f")); err != nil || st.Size() != 20 {
		t.Errorf("%v, %v", st, err)
	}
}

// Unmounting with a held session says so, and the session is there again.
func TestUmountWithHeldSession(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	killWriter(t, m, "f", syscall.SIGKILL)
	s := m.HeldAt(t, "f")
	sum := harness.MustSum(t, m.In("f"))
	r := m.Umount()
	if r.Code != exitUnfinished || !strings.Contains(r.Out+r.Err, "f") {
		t.Errorf("want exit %d and the session named: %v", exitUnfinished, r)
	}
	m.MustRemount(t)
	again := m.HeldAt(t, "f")
	if again.ID != s.ID || again.Size != s.Size {
		t.Errorf("was %+v, is %+v", s, again)
	}
	if got := harness.MustSum(t, m.In("f")); got != sum {
		t.Error("the held bytes changed over the remount")
	}
	if r := m.Wholefs("session", "publish", m.Dir, "f"); !r.OK() {
		t.Error(r)
	}
	if got := harness.MustSum(t, m.Out("f")); got != sum {
		t.Error("published otherwise than held")
	}
	m.NoStaging(t)
}

// SIGTERM publishes what is closed, holds what is open, and unmounts.
func TestTermDrains(t *testing.T) {
	m := harness.Mount(t, harness.Options{Flags: []string{"--drain-timeout=1s"}})
	src, sum := harness.Source(t, "whole", 20<<20)
	harness.MustRun(t, "cp", src, m.In("whole"))
	writer := harness.Background(t, harness.Shell(m.Dir, "exec > open; echo unfinished; exec sleep 50"))
	harness.Eventually(t, 10e9, "the writer wrote", func() bool {
		st, err := os.Stat(m.In("open"))
		return err == nil && st.Size() > 0
	})
	code := m.Term()
	if code != exitUnfinished && code != 0 {
		t.Errorf("exit %d", code)
	}
	if harness.IsMounted(m.Dir) {
		t.Error("still mounted")
	}
	writer.Kill()
	if got := harness.MustSum(t, m.Out("whole")); got != sum {
		t.Error("the finished file is not whole")
	}
	if _, err := os.Stat(m.Out("open")); err == nil {
		t.Error("the unfinished file was published")
	}
	m.MustRemount(t)
	if s := m.HeldAt(t, "open"); s.Size != int64(len("unfinished\n")) {
		t.Errorf("%+v", s)
	}
}

func TestVersion(t *testing.T) {
	bin, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if r := harness.Run(bin, "version"); !r.OK() || !strings.HasPrefix(r.Out, "wholefs ") {
		t.Error(r)
	}
}

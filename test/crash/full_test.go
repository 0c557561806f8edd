package crash

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/test/harness"
)

// smallDisk is a directory on an ext4 of its own, of so many MiB.
func smallDisk(t *testing.T, mib string, mkfs ...string) string {
	t.Helper()
	dir := harness.TempDir(t)
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	harness.MustRun(t, "truncate", "-s", mib+"M", image)
	harness.MustRun(t, append(append([]string{"mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal"}, mkfs...), image)...)
	if err := os.Mkdir(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	harness.MustRun(t, "mount", "-o", "loop", image, mnt)
	t.Cleanup(func() {
		// The daemon is gone by then: cleanups run backwards.
		if err := unix.Unmount(mnt, 0); err != nil {
			unix.Unmount(mnt, unix.MNT_DETACH)
		}
	})
	store := filepath.Join(mnt, "store")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	return store
}

// No space left during a copy: cp is told, nothing is published, the old
// file stays, and after space is freed the next copy works (W1, W6).
func TestNoSpaceLeft(t *testing.T) {
	store := smallDisk(t, "160")
	m := harness.Mount(t, harness.Options{Store: store, Flags: []string{"--part-size=1M"}})
	old, oldSum := harness.Source(t, "old", 10<<20)
	fits, fitsSum := harness.Source(t, "fits", 40<<20)
	tooBig, _ := harness.Source(t, "too-big", 300<<20)
	harness.MustRun(t, "cp", old, m.In("f"))

	for i, end := range []string{"abort", "rm", "overwrite"} {
		t.Run(end, func(t *testing.T) {
			name := "f"
			if i > 0 {
				name = "new-" + end
			}
			r := harness.Cmd{Args: []string{"cp", tooBig, m.In(name)}}.Run()
			if r.Code != 1 || !strings.Contains(r.Err, "No space left on device") {
				t.Fatalf("cp is not told: %v", r)
			}
			if sum, err := harness.Sum(m.Out("f")); err != nil || sum != oldSum {
				t.Fatalf("the old file suffered: %v", err)
			}
			if _, err := os.Stat(m.Out(name)); name != "f" && !os.IsNotExist(err) {
				t.Fatalf("published: %v", err)
			}
			if s := m.HeldAt(t, name); s.Size == 0 || s.Error == "" && !strings.Contains(s.Reason, "space") {
				t.Errorf("held as %+v", s)
			}
			switch end {
			case "abort":
				if r := m.Wholefs("session", "abort", m.Dir, name); !r.OK() {
					t.Fatal(r)
				}
			case "rm":
				harness.MustRun(t, "rm", m.In(name))
			case "overwrite":
				// Truncating the held file frees its space.
				harness.MustRun(t, "cp", fits, m.In(name))
			}
			harness.Eventually(t, 10*time.Second, "the space is free again", func() bool {
				var st unix.Statfs_t
				return unix.Statfs(store, &st) == nil && int64(st.Bavail)*st.Bsize > 60<<20
			})
			harness.MustRun(t, "cp", fits, m.In("next"))
			if got := harness.MustSum(t, m.Out("next")); got != fitsSum {
				t.Error("the next copy is not whole")
			}
			harness.MustRun(t, "rm", "-f", m.In("next"), m.In("new-"+end))
			m.NoSessions(t)
			m.NoStaging(t)
		})
	}
}

// A write through dd, which sees errors of write(2), and one through a shell
// redirection, which often sees none but close's.
func TestNoSpaceLeftIsTold(t *testing.T) {
	store := smallDisk(t, "96")
	m := harness.Mount(t, harness.Options{Store: store})
	for _, script := range []string{
		"dd if=/dev/zero of=f bs=1M count=300 status=none",
		"dd if=/dev/zero of=f bs=10k count=30000 status=none",
		"dd if=/dev/zero of=f bs=4M count=80 conv=fsync status=none",
		"head -c 300000000 /dev/zero > f",
		"python3 -c \"f = open('f', 'wb'); f.write(bytes(300 << 20)); f.close()\"",
	} {
		r := harness.Shell(m.Dir, script).Run()
		if r.OK() || r.TimedOut || !strings.Contains(r.Err, "No space left on device") {
			t.Errorf("not told: %v", r)
		}
		if seen := m.Visible(t); len(seen) != 0 && !(len(seen) == 1 && seen[0] == "lost+found") {
			t.Errorf("%s: the directory shows %v", script, seen)
		}
		m.HeldAt(t, "f")
		harness.MustRun(t, "rm", m.In("f"))
		m.NoStaging(t)
	}
}

// Out of inodes: creating fails, nothing else does.
func TestNoInodesLeft(t *testing.T) {
	store := smallDisk(t, "64", "-N", "128")
	m := harness.Mount(t, harness.Options{Store: store})
	r := harness.Shell(m.Dir, "for i in $(seq 300); do echo $i > f$i; done").Run()
	if r.OK() || !strings.Contains(r.Err, "No space left on device") {
		t.Fatalf("not told: %v", r)
	}
	for _, name := range m.Visible(t) {
		if st, err := os.Stat(m.Out(name)); err == nil && st.Mode().IsRegular() && st.Size() == 0 {
			t.Errorf("%s is empty", name)
		}
	}
	harness.Must(t, harness.Shell(m.Dir, "rm f1 f2 f3; echo again > g; cat g"))
	if b, err := os.ReadFile(m.Out("g")); err != nil || string(b) != "again\n" {
		t.Errorf("%q, %v", b, err)
	}
}

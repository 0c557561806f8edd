package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/control"
)

// Tests with a daemon in a process of its own, for what its command line
// promises. What files do in a mount is tested in test/.

// spawn runs the program, under the name argv0, and waits for it.
func spawn(t *testing.T, argv0 string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = argv0
	cmd.Env = append(os.Environ(), "WHOLEFS_BE_MAIN=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func wholefs(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return spawn(t, "wholefs", args...)
}

// mountDirs makes a store and a mountpoint, and takes away at the end
// whatever is mounted there.
func mountDirs(t *testing.T) (storeDir, mnt string) {
	t.Helper()
	dir := tree(t, "store", "mnt")
	storeDir, mnt = filepath.Join(dir, "store"), filepath.Join(dir, "mnt")
	t.Cleanup(func() {
		if pid := lastOwner(filepath.Join(storeDir, stateDirName)).PID; t.Failed() && pid != 0 && pid != os.Getpid() &&
			!stateFree(filepath.Join(storeDir, stateDirName)) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for unix.Unmount(mnt, unix.MNT_DETACH) == nil {
		}
		if log, err := os.ReadFile(filepath.Join(storeDir, stateDirName, logName)); err == nil && t.Failed() {
			t.Logf("daemon's log:\n%s", log)
		}
	})
	return storeDir, mnt
}

func statusOf(t *testing.T, at string) (s control.Status) {
	t.Helper()
	code, out, errs := wholefs(t, "status", "--json", at)
	require.Equal(t, exitDone, code, errs)
	require.NoError(t, json.Unmarshal([]byte(out), &s))
	return s
}

// open writes a file of the mount in another process, which keeps it open
// until it is told to end. A shell that redirects anything while it has the
// file open would close a descriptor of it, and that publishes (W3).
func open(t *testing.T, path string) (end func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `exec > "$0"; echo some; read -r _`, path)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() == 5
	}, 10*time.Second, 10*time.Millisecond)
	end = sync.OnceFunc(func() {
		in.Close()
		cmd.Wait()
	})
	t.Cleanup(end)
	return end
}

func TestBackgroundMount(t *testing.T) {
	storeDir, mnt := mountDirs(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	code, out, errs := wholefs(t, "mount", "--metrics-listen="+taken.Addr().String(), storeDir, mnt)
	require.Equal(t, exitDone, code, errs)
	require.Empty(t, out)
	s := statusOf(t, mnt)
	require.Equal(t, mnt, s.Mountpoint)
	require.NotContains(t, s.Metrics, taken.Addr().String())
	require.Contains(t, errs, s.Metrics)
	require.Equal(t, s, func() control.Status {
		again := statusOf(t, storeDir)
		again.Uptime = s.Uptime
		again.Buffers = s.Buffers
		return again
	}())
	require.Equal(t, "ok\n", get(t, s.Metrics+"/healthz"))

	// The state directory has an owner now.
	code, _, errs = wholefs(t, "mount", storeDir, mnt)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "is mounted already")
	oneErrorLine(t, errs)

	link := filepath.Join(filepath.Dir(mnt), "link")
	require.NoError(t, os.Symlink(mnt, link))
	code, out, errs = wholefs(t, "umount", link)
	require.Equal(t, exitDone, code, errs)
	require.Empty(t, out+errs)
	require.True(t, stateFree(filepath.Join(storeDir, stateDirName)))
	code, _, _ = wholefs(t, "umount", mnt)
	require.Equal(t, exitNotMounted, code)
}

func TestBackgroundMountFails(t *testing.T) {
	storeDir, mnt := mountDirs(t)
	require.NoError(t, os.WriteFile(filepath.Join(mnt, "in the way"), nil, 0o644))
	code, _, errs := wholefs(t, "mount", storeDir, mnt)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "is not empty; choose an empty directory")
	oneErrorLine(t, errs)
}

func TestUmountWhileInUse(t *testing.T) {
	storeDir, mnt := mountDirs(t)
	code, _, errs := wholefs(t, "mount", "--metrics-listen=off", storeDir, mnt)
	require.Equal(t, exitDone, code, errs)
	end := open(t, filepath.Join(mnt, "f"))

	code, _, errs = wholefs(t, "umount", mnt)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "in use by sh (process ")
	oneErrorLine(t, errs)
	code, _, errs = wholefs(t, "umount", "--timeout=500ms", mnt)
	require.Equal(t, exitDeadline, code)
	require.Contains(t, errs, "still in use by sh")
	oneErrorLine(t, errs)
	require.Len(t, statusOf(t, mnt).Sessions, 1, "nothing has changed")

	// With enough time it waits for the writer, whose file is published.
	time.AfterFunc(500*time.Millisecond, end)
	code, _, errs = wholefs(t, "umount", "--timeout=30s", mnt)
	require.Equal(t, exitDone, code, errs)
	text, err := os.ReadFile(filepath.Join(storeDir, "f"))
	require.NoError(t, err)
	require.Equal(t, "some\n", string(text))
}

func TestLazyUmountHoldsWhatIsOpen(t *testing.T) {
	storeDir, mnt := mountDirs(t)
	code, _, errs := wholefs(t, "mount", "--metrics-listen=off", storeDir, mnt)
	require.Equal(t, exitDone, code, errs)
	end := open(t, filepath.Join(mnt, "f"))
	code, out, errs := wholefs(t, "umount", "--lazy", "--timeout=500ms", mnt)
	require.Equal(t, exitUnfinished, code, errs)
	require.Contains(t, out, "1 unfinished in the journal")
	end()
	require.NoFileExists(t, filepath.Join(storeDir, "f"))
	code, out, errs = wholefs(t, "session", "publish", storeDir, "f")
	require.Equal(t, exitDone, code, errs)
	require.Equal(t, "published f (5 B)\n", out)
}

// A daemon that was killed: everything says so, and umount clears the mount
// away and tells what the journal has.
func TestUmountAfterTheDaemonDied(t *testing.T) {
	storeDir, mnt := mountDirs(t)
	code, _, errs := wholefs(t, "mount", "--metrics-listen=off", storeDir, mnt)
	require.Equal(t, exitDone, code, errs)
	err := exec.Command("sh", "-c", `exec > "$0/f"; echo some; kill -9 $$`, mnt).Run()
	require.Error(t, err)
	require.Eventually(t, func() bool {
		s := statusOf(t, mnt).Sessions
		return len(s) == 1 && s[0].State == "held"
	}, 10*time.Second, 20*time.Millisecond)
	code, out, errs := wholefs(t, "session", "ls", "--json", mnt)
	require.Equal(t, exitDone, code, errs)
	require.Contains(t, out, `"path": "f"`)

	pid := statusOf(t, mnt).PID
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	require.Eventually(t, func() bool { return stateFree(filepath.Join(storeDir, stateDirName)) }, 10*time.Second, 10*time.Millisecond)
	code, _, errs = wholefs(t, "status", mnt)
	require.Equal(t, exitNotMounted, code)
	require.Contains(t, errs, "does not live any more")
	code, out, errs = wholefs(t, "umount", mnt)
	require.Equal(t, exitUnfinished, code, errs)
	require.Contains(t, errs, "had died")
	require.Contains(t, out, "SIGKILL")
}

func TestHelperMounts(t *testing.T) {
	storeDir, mnt := mountDirs(t)
	state := filepath.Join(filepath.Dir(storeDir), "state")
	code, _, errs := spawn(t, "/sbin/mount.wholefs", storeDir, mnt, "-n", "-o",
		"rw,nofail,_netdev,x-systemd.automount,metrics_listen=off,part_size=32M,fsname=elsewhere,state_dir="+state)
	require.Equal(t, exitDone, code, errs)
	// Neither the source nor the store's directory leads to the state.
	s := statusOf(t, mnt)
	require.Equal(t, state, s.StateDir)
	require.Equal(t, s.PID, statusOf(t, storeDir).PID)
	require.Equal(t, s.PID, statusOf(t, state).PID)
	code, _, errs = wholefs(t, "umount", mnt)
	require.Equal(t, exitDone, code, errs)
}

func TestSignals(t *testing.T) {
	storeDir, mnt := mountDirs(t)
	log := filepath.Join(filepath.Dir(storeDir), "log")
	cmd := exec.Command("/proc/self/exe", "mount", "-f", "--metrics-listen=off", "--drain-timeout=1s", "--log-file="+log, "--log-format=json", storeDir, mnt)
	cmd.Env = append(os.Environ(), "WHOLEFS_BE_MAIN=1")
	require.NoError(t, cmd.Start())
	logged := func(want string) {
		t.Helper()
		require.Eventually(t, func() bool {
			text, err := os.ReadFile(log)
			return err == nil && strings.Contains(string(text), want)
		}, 10*time.Second, 10*time.Millisecond, want)
	}
	logged(`"msg":"mounted"`)
	require.NoError(t, cmd.Process.Signal(unix.SIGUSR1))
	logged(`"state_dir"`)
	require.NoError(t, cmd.Process.Signal(unix.SIGUSR2))
	logged(`"msg":"log level"`)
	require.NoError(t, os.Rename(log, log+".1"))
	require.NoError(t, cmd.Process.Signal(unix.SIGHUP))
	require.Eventually(t, func() bool { _, err := os.Stat(log); return err == nil }, 10*time.Second, 10*time.Millisecond)

	open(t, filepath.Join(mnt, "f"))
	require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
	err := cmd.Wait()
	require.Error(t, err)
	require.Equal(t, exitUnfinished, cmd.ProcessState.ExitCode())
	logged(`"msg":"daemon ends"`)
	mounts, err := readMounts()
	require.NoError(t, err)
	_, there := mountAt(mounts, mnt)
	require.False(t, there)
}

package procstate

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play the programs that Of is asked about.
func TestMain(m *testing.M) {
	switch os.Getenv("PROCSTATE_ROLE") {
	case "":
		os.Exit(m.Run())
	case "wait":
		select {}
	case "exit3":
		os.Exit(3)
	case "exit0":
		os.Exit(0)
	case "exit0-other-thread":
		go func() { syscall.Exit(0) }()
		select {}
	}
}

// init keeps the main goroutine on the thread that leads the group. When
// another thread calls exit, the kernel ends this one by a signal, so that it
// carries PF_SIGNALED although nobody was killed.
func init() {
	if os.Getenv("PROCSTATE_ROLE") == "exit0-other-thread" {
		runtime.LockOSThread()
	}
}

// start runs the test binary in a role; its end is not waited for, so that it
// stays a zombie, which has let go of its descriptors as one in FLUSH has.
func start(t testing.TB, role string) *os.Process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	if role == "crash" {
		// Not the test binary: the Go runtime turns SIGABRT into an exit code.
		cmd = exec.Command("/bin/sh", "-c", "ulimit -c 0; kill -ABRT $$")
	}
	cmd.Env = append(os.Environ(), "PROCSTATE_ROLE="+role, "GOTRACEBACK=none", "GORACE=atexit_sleep_ms=0")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
	})
	return cmd.Process
}

// untilZombie waits for the process to end, without reaping it.
func untilZombie(t testing.TB, pid int) {
	t.Helper()
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		require.ErrorIs(t, err, unix.EINTR)
	}
}

func TestOfSelf(t *testing.T) {
	got, err := Of(os.Getpid())
	require.NoError(t, err)
	require.Equal(t, Caller{TGID: os.Getpid(), Exit: Alive}, got)
}

func TestOfAThreadIsItsProcess(t *testing.T) {
	tasks, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	others := 0
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		require.NoError(t, err)
		if got, err := Of(tid); tid != os.Getpid() && got.Exit == Alive {
			require.NoError(t, err)
			require.Equal(t, os.Getpid(), got.TGID)
			others++
		}
	}
	require.Positive(t, others, "the Go runtime has several threads")
}

func TestOfNobody(t *testing.T) {
	for _, pid := range []int{0, -1, 1 << 30} {
		got, err := Of(pid)
		require.NoError(t, err)
		require.Equal(t, Caller{}, got)
	}
}

func TestOfReaped(t *testing.T) {
	p := start(t, "exit0")
	_, err := p.Wait()
	require.NoError(t, err)
	got, err := Of(p.Pid)
	require.NoError(t, err)
	require.Equal(t, Caller{}, got)
}

func TestOfEnded(t *testing.T) {
	tests := []struct {
		role string
		kill syscall.Signal
		want Caller
	}{
		{role: "exit0", want: Caller{Exit: Exited}},
		{role: "exit3", want: Caller{Exit: Exited}},
		{role: "exit0-other-thread", want: Caller{Exit: Exited}},
		{role: "wait", kill: unix.SIGKILL, want: Caller{Exit: Killed, Signal: 9}},
		{role: "wait", kill: unix.SIGTERM, want: Caller{Exit: Killed, Signal: 15}},
		{role: "crash", want: Caller{Exit: Killed, Signal: 6}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %d", tt.role, int(tt.kill)), func(t *testing.T) {
			p := start(t, tt.role)
			if tt.kill != 0 {
				got, err := Of(p.Pid)
				require.NoError(t, err)
				require.Equal(t, Caller{TGID: p.Pid, Exit: Alive}, got)
				require.NoError(t, p.Signal(tt.kill))
			}
			untilZombie(t, p.Pid)
			if tt.role == "exit0-other-thread" {
				require.NotZero(t, flagsOf(t, p.Pid)&pfSignaled, "the case that this is about")
			}
			got, err := Of(p.Pid)
			require.NoError(t, err)
			tt.want.TGID = p.Pid
			require.Equal(t, tt.want, got, "stat: %s", statLine(t, p.Pid))
		})
	}
}

func statLine(t testing.TB, pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/stat", pid))
	require.NoError(t, err)
	return string(b)
}

func flagsOf(t testing.TB, pid int) int {
	line := statLine(t, pid)
	fields := strings.Fields(line[strings.LastIndex(line, ")")+1:])
	flags, err := strconv.Atoi(fields[fieldFlags])
	require.NoError(t, err)
	return flags
}

// A reader without rights is shown exit code 0 for a killed process: that must
// not pass for a good end.
func TestOfHiddenExitCodeIsUnknown(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	p := start(t, "wait")
	require.NoError(t, p.Kill())
	untilZombie(t, p.Pid)

	var got Caller
	var err error
	asNobody(t, func() { got, err = Of(p.Pid) })
	require.NoError(t, err)
	require.Equal(t, Caller{TGID: p.Pid, Exit: Unknown}, got)

	got, err = Of(p.Pid)
	require.NoError(t, err)
	require.Equal(t, Killed, got.Exit)
}

// asNobody runs fn on a thread with the rights of user 65534. The thread ends
// with it.
func asNobody(t *testing.T, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is thrown away
		_, _, e1 := unix.RawSyscall(unix.SYS_SETRESGID, 65534, 65534, 65534)
		_, _, e2 := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534)
		if e1|e2 != 0 {
			t.Errorf("become nobody: %v %v", e1, e2)
			return
		}
		fn()
	}()
	<-done
}

// A user may judge his own processes without being root.
func TestOfOwnProcessAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("covered by TestOfEnded")
	}
	cmd := exec.Command("/bin/sleep", "100")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	require.NoError(t, cmd.Start())
	defer func() { _, _ = cmd.Process.Wait() }()
	p := cmd.Process
	require.NoError(t, p.Kill())
	untilZombie(t, p.Pid)
	var got Caller
	var err error
	asNobody(t, func() { got, err = Of(p.Pid) })
	require.NoError(t, err)
	// Whether the code of a zombie is shown depends on whether the program
	// could be traced while it lived; what matters is that it never reads as
	// a good end.
	require.Contains(t, []Exit{Killed, Unknown}, got.Exit)
	t.Logf("judged %v", got.Exit)
}

func TestOfAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	pid := os.Getpid()
	zombie := start(t, "exit0")
	untilZombie(t, zombie.Pid)
	for _, pid := range []int{pid, zombie.Pid} {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if c, err := Of(pid); err != nil || c.TGID != pid {
				t.Errorf("%+v %v", c, err)
			}
		}))
	}
}

func TestOfLeaksNoDescriptor(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	before := count()
	for range 100 {
		_, _ = Of(os.Getpid())
		_, _ = Of(1 << 30)
	}
	require.Equal(t, before, count())
}

func TestPaths(t *testing.T) {
	for _, pid := range []int{1, 42, 4194304, 1<<31 - 1} {
		require.Equal(t, fmt.Sprintf("/proc/%d/status\x00", pid), string(statusPath(nil, pid)))
		path := statPath(make([]byte, 0, 64), pid)
		require.Equal(t, fmt.Sprintf("/proc/%d/task/%[1]d/stat\x00", pid), string(path))
		require.Equal(t, 64, cap(path), "fits the buffer of Of")
	}
}

// The process may choose its name, and with it try to forge fields.
func TestOfWithAForgedName(t *testing.T) {
	for _, name := range []string{"a) Z (b", "x\nTgid:\t1", ") R 1 1 1 1", "\nFDSize:\t0\n"} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			require.NoError(t, os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", unix.Gettid()), []byte(name), 0))
			got, err := Of(unix.Gettid())
			require.NoError(t, err)
			require.Equal(t, Caller{TGID: os.Getpid(), Exit: Alive}, got, name)
		}()
		<-done
	}
}

// A process in execve must be judged without delay: nothing here may read a
// file that waits for the exec. This cannot be shown without a FUSE mount;
// what can is that many execs in a row never make Of wait.
func TestOfDuringExec(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "i=0; while [ $i -lt 50 ]; do i=$((i+1)); /bin/true; done")
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			require.NoError(t, err)
			return
		default:
			begun := time.Now()
			_, err := Of(cmd.Process.Pid)
			require.NoError(t, err)
			require.Less(t, time.Since(begun), 5*time.Second)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	b.Run("alive", func(b *testing.B) {
		pid := os.Getpid()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Of(pid); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ended", func(b *testing.B) {
		p := start(b, "exit0")
		untilZombie(b, p.Pid)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Of(p.Pid); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse", func(b *testing.B) {
		status := []byte(statusOf("sh", "42", "64"))
		b.ReportAllocs()
		for b.Loop() {
			parseStatus(status)
		}
	})
}

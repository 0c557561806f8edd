package mount

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wholefs/wholefs/test/harness"
)

// shares are programs in which several processes, or several descriptors,
// share one open file. Each publishes once, whole, at the right close (W3);
// where more than one version is listed, each is published, in this order.
var shares = []struct {
	name   string
	script string   // bash; $F is the file, in the mount
	want   []string // contents published
}{
	{"one command", `echo a > "$F"`, []string{"a\n"}},
	{"subshell of builtins", `(echo a; sleep 1; echo b) > "$F"`, []string{"a\nb\n"}},
	{"subshell of programs", `(/bin/echo a; sleep 0.3; /bin/echo b; true) > "$F"`, []string{"a\nb\n"}},
	{"group", `{ echo a; /bin/echo b; sleep 0.3; echo c; } > "$F"`, []string{"a\nb\nc\n"}},
	{"pipeline", `seq 1 20000 | sort -n | tail -n 3 > "$F"`, []string{"19998\n19999\n20000\n"}},
	{"tee", `printf 'a\nb\n' | tee "$F" > /dev/null`, []string{"a\nb\n"}},
	{"dd", `printf abc | dd of="$F" bs=1 status=none`, []string{"abc"}},
	{"xargs", `seq 1 5 | xargs -n 1 echo > "$F"`, []string{"1\n2\n3\n4\n5\n"}},
	{"append", `echo a > "$F"; sleep 0.1; echo b >> "$F"`, []string{"a\n", "a\nb\n"}},
	// The builtin borrows descriptor 1 and gives it back: a close by the
	// opener, after something was written.
	{"exec redirection", `exec 5> "$F"; echo a >&5; sleep 0.3; /bin/echo b >&5; exec 5>&-`, []string{"a\n", "a\nb\n"}},
	// The opener ends first; what its child writes later is one more version.
	{"background child writes last", `(echo a; (sleep 0.5; echo b) &) > "$F"; sleep 1`, []string{"a\n", "a\nb\n"}},
	// A handle through which nothing is written holds the others back.
	{"a handle held by the shell", `
exec 7<> "$F"
printf AAAA | dd of="$F" bs=1 seek=0 conv=notrunc status=none &
(sleep 0.2; printf BBBB | dd of="$F" bs=1 seek=4 conv=notrunc status=none) &
wait; exec 7>&-`, []string{"AAAABBBB"}},
	{"several handles", `
(printf AAAA; sleep 0.6) | dd of="$F" bs=1 seek=0 conv=notrunc status=none &
(sleep 0.2; printf BBBB; sleep 0.1) | dd of="$F" bs=1 seek=4 conv=notrunc status=none &
wait`, []string{"AAAABBBB"}},
}

func TestSharedDescriptors(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	for _, c := range shares {
		t.Run(c.name, func(t *testing.T) { share(t, m, c.script, c.want) })
	}
}

// pythons is the same for what takes a programming language.
var pythons = []struct {
	name   string
	script string
	want   []string
}{
	{"child inherits, parent closes first", `
f = open(F, "w")
p = subprocess.Popen(["sh", "-c", "sleep 0.2; echo a; sleep 0.3; echo b"], stdout=f)
f.close()
p.wait()`, []string{"a\nb\n"}},
	{"child inherits, parent closes last", `
f = open(F, "w")
subprocess.run(["sh", "-c", "echo a; sleep 0.3; echo b"], stdout=f, check=True)
f.close()
assert open(OUT).read() == "a\nb\n", "not published when close returned"`, []string{"a\nb\n"}},
	{"both write, parent closes first", `
f = open(F, "w"); f.write("parent\n"); f.flush()
p = subprocess.Popen(["sh", "-c", "sleep 0.1; echo child; sleep 0.3; echo more"], stdout=f)
time.sleep(0.3)
f.close()
p.wait()`, []string{"parent\nchild\nmore\n"}},
	{"dup closed before the first write", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
d = os.dup(fd); os.close(d)
os.write(fd, b"one"); time.sleep(0.1); os.write(fd, b"two"); os.close(fd)
assert open(OUT).read() == "onetwo"`, []string{"onetwo"}},
	{"dup2 over", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.dup2(fd, 20); os.close(fd)
os.write(20, b"one"); os.close(20)
assert open(OUT).read() == "one"`, []string{"one"}},
	{"dup closed after a write, then more", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
d = os.dup(fd)
os.write(fd, b"one"); os.close(d)
assert open(OUT).read() == "one"
os.write(fd, b"two"); time.sleep(0.1)
assert open(OUT).read() == "one"
os.close(fd)
assert open(OUT).read() == "onetwo"`, []string{"one", "onetwo"}},
	{"fork, child exits first", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
pid = os.fork()
if pid == 0:
    os.write(fd, b"child"); os._exit(0)
os.waitpid(pid, 0)
assert not os.path.exists(OUT)
os.write(fd, b"parent"); os.close(fd)
assert open(OUT).read() == "childparent"`, []string{"childparent"}},
	{"fork, child exits last", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
r, w = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(fd, b"a"); os.write(w, b"."); time.sleep(0.4); os.write(fd, b"b"); os._exit(0)
os.read(r, 1); os.close(fd)
assert not os.path.exists(OUT)
os.waitpid(pid, 0)`, []string{"ab"}},
	{"posix_spawn with a close-on-exec file", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
for i in range(20):
    os.write(fd, b"x")
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    assert os.waitpid(pid, 0)[1] == 0
assert not os.path.exists(OUT)
os.close(fd)
assert os.path.getsize(OUT) == 20`, []string{strings.Repeat("x", 20)}},
	{"exec with a close-on-exec file", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC)
os.write(fd, b"before the exec")
os.execv("/bin/sleep", ["sleep", "0.2"])`, []string{"before the exec"}},
	{"exec keeps the file", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(fd, b"before\n"); os.dup2(fd, 1)
os.set_inheritable(fd, False)
os.execv("/bin/sh", ["sh", "-c", "sleep 0.2; echo after"])`, []string{"before\n", "before\nafter\n"}}, // exec closes one descriptor
	{"threads", `
import threading
f = open(F, "wb", buffering=0)
f.truncate(8 << 10)
def put(i): os.pwrite(f.fileno(), bytes([65 + i]) * 1024, i * 1024)
ts = [threading.Thread(target=put, args=(i,)) for i in range(8)]
[x.start() for x in ts]; [x.join() for x in ts]
threading.Thread(target=f.close).start(); time.sleep(0.3)
assert os.path.exists(OUT)`, []string{eightBlocks()}},
	{"mapped", `
fd = os.open(F, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
os.ftruncate(fd, 8192)
m = mmap.mmap(fd, 8192)
m[0:5] = b"hello"; m[8187:8192] = b"world"
m.flush(); m.close(); os.close(fd)`, []string{"hello" + strings.Repeat("\x00", 8182) + "world"}},
	{"passed over a socket", `
import socket, array
a, b = socket.socketpair()
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
pid = os.fork()
if pid == 0:
    os.close(fd)
    fds = socket.recv_fds(b, 1, 1)[1]
    time.sleep(0.3); os.write(fds[0], b"from the other"); os._exit(0)
socket.send_fds(a, [b"x"], [fd]); os.close(fd)
os.waitpid(pid, 0)`, []string{"from the other"}},
	{"exit without close", `
fd = os.open(F, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(fd, b"left open"); os._exit(0)`, []string{"left open"}},
	{"renamed while open", `
f = open(F + ".tmp", "w"); f.write("renamed"); f.flush()
os.rename(F + ".tmp", F)
assert not os.path.exists(OUT)
f.close()
assert open(OUT).read() == "renamed"`, []string{"renamed"}},
	{"removed while open", `
f = open(F, "w+"); f.write("gone"); f.flush()
os.unlink(F); f.seek(0)
assert f.read() == "gone" and not os.path.exists(F)
f.close()`, nil},
}

func eightBlocks() string {
	var b strings.Builder
	for i := range 8 {
		b.WriteString(strings.Repeat(string(rune('A'+i)), 1024))
	}
	return b.String()
}

func TestSharedDescriptorsPython(t *testing.T) {
	m := harness.Mount(t, harness.Options{})
	const head = "import os, sys, time, subprocess, mmap\nF, OUT = os.environ['F'], os.environ['OUT']\n"
	for _, c := range pythons {
		t.Run(c.name, func(t *testing.T) {
			script := "python3 - <<'PYTHON'\n" + head + c.script + "\nPYTHON"
			share(t, m, script, c.want)
		})
	}
}

// share runs a script in its own directory and compares what was published.
func share(t *testing.T, m *harness.Mnt, script string, want []string) {
	t.Helper()
	dir, err := os.MkdirTemp(m.Dir, "case")
	if err != nil {
		t.Fatal(err)
	}
	dir = strings.TrimPrefix(dir, m.Dir+"/")
	watch := harness.NewWatch(t, m.Out(dir))
	r := harness.Cmd{
		Args:    []string{"bash", "-e", "-c", script},
		Env:     []string{"F=" + m.In(dir+"/f"), "OUT=" + m.Out(dir+"/f")},
		Timeout: 20 * time.Second,
	}.Run()
	if !r.OK() {
		t.Fatal(r)
	}
	var sums []string
	for _, content := range want {
		sums = append(sums, harness.SumOf(content))
	}
	watch.Published(t, "f", sums...)
	m.NoSessions(t)
	m.NoStaging(t)
	if t.Failed() {
		b, err := os.ReadFile(m.Out(dir + "/f"))
		t.Logf("published last: %.200q, %v; events %v", b, err, watch.Events("f"))
	}
}

// A Go program that runs commands while it writes.
func TestGoProgramRunsCommandsWhileWriting(t *testing.T) {
	bin, err := harness.Program("spawner")
	if err != nil {
		t.Fatal(err)
	}
	m := harness.Mount(t, harness.Options{})
	var want strings.Builder
	const lines = 30
	for i := range lines {
		fmt.Fprintf(&want, "line %d\nchild %d\n", i, i)
	}
	watch := harness.NewWatch(t, m.Store)
	harness.MustRun(t, bin, m.In("f"), fmt.Sprint(lines))
	if b, err := os.ReadFile(m.Out("f")); err != nil || string(b) != want.String() {
		t.Errorf("not published when the program ended: %.80q, %v", b, err)
	}
	watch.Published(t, "f", harness.SumOf(want.String()))
	m.NoSessions(t)
}

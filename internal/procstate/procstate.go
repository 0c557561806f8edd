// Package procstate tells, at a FLUSH, who closes a file and whether it does so
// because it is dying (promises W3 and W4 of docs/SEMANTICS.md).
//
// A FLUSH names its caller by a number that is a thread id: two threads of one
// program flush under two numbers. What has to be compared is the thread
// group. And a program that is killed flushes its files from the exit path of
// the kernel, exactly as if it had closed them: only /proc tells a finished
// writer from a killed one.
//
// # Which files of /proc may be read
//
// The FLUSH that we are answering may have been sent from inside execve(2), by
// a descriptor that is closed on exec. The kernel then holds a lock of that
// process that /proc/PID/stat (also exe, maps, fd, stack, environ) takes too:
// reading it waits for the exec, which waits for the FLUSH, which waits for
// us. The mount hangs, and with it each ps on the machine.
//
// /proc/PID/status takes no such lock, and a process that is in the exit path
// shows there "FDSize: 0", since it lets go of its descriptor table before it
// closes the files in it. A process that is exiting is not in execve, so then,
// and only then, stat is read: it holds the exit code.
//
// # How the exit code is judged
//
// The exit code is that of wait(2): its low seven bits are the signal that
// killed the process, and 0 if it exited by itself. The flag PF_SIGNALED of
// the thread is no evidence: when one thread calls exit(0), the others are
// ended by a signal and carry that flag.
//
// The kernel shows 0 for the exit code to a reader that may not trace the
// process (another user, another user namespace). A killed process then looks
// like one that ended well, and its torn file would be published. So where
// exit code 0 meets PF_SIGNALED, it is believed only if the kernel proves in
// the same line that it hid nothing: the field wchan is 1 for a thread that
// waits, which the caller of FLUSH does, and 0 if the reader is not trusted.
// For that field /proc/PID/task/PID/stat is read, which, unlike /proc/PID/stat,
// fills it in for processes of several threads. Without the proof the answer
// is Unknown.
package procstate

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exit says whether a process is ending, and how.
type Exit int

const (
	// Unknown: the process is gone, hidden from us, or in another pid
	// namespace. The zero value.
	Unknown Exit = iota
	// Alive: the process goes on; it closed the file itself, or by exec.
	Alive
	// Exited: the process is ending because it called exit, with any code.
	Exited
	// Killed: the process is ending by a signal.
	Killed
)

// String returns the name of e in lower case.
func (e Exit) String() string {
	switch e {
	case Alive:
		return "alive"
	case Exited:
		return "exited"
	case Killed:
		return "killed"
	default:
		return "unknown"
	}
}

// Caller is who sent a request.
type Caller struct {
	// TGID is the process id, which all threads of a program share; 0 if it
	// cannot be known.
	TGID int
	Exit Exit
	// Signal is what killed the process; 0 unless Exit is Killed.
	Signal int
}

// Of tells about the process that the thread pid belongs to. A pid of 0 (the
// caller lives in another pid namespace) and a thread that is gone give the
// zero Caller, without an error: nothing can be known. An error means that
// /proc could not be read although the thread is there (EACCES under hidepid,
// EMFILE); the Caller then holds what was learned before, and Exit is Unknown.
//
// The thread must be waiting for the caller of Of, as the sender of a FLUSH
// is: otherwise it may end, and its number be given to another thread, while
// Of reads.
//
// Of makes three system calls for a living process and as a rule six for a
// dying one, and allocates nothing.
func Of(pid int) (Caller, error) {
	if pid <= 0 {
		return Caller{}, nil
	}
	var path [64]byte
	var buf [1024]byte

	n, err := readProc(statusPath(path[:0], pid), buf[:])
	if err != nil || n == 0 {
		return Caller{}, gone(err)
	}
	tgid, exiting, ok := parseStatus(buf[:n])
	if !ok {
		return Caller{}, errStatus
	}
	if !exiting {
		return Caller{TGID: tgid, Exit: Alive}, nil
	}

	for attempt := 0; ; attempt++ {
		n, err = readProc(statPath(path[:0], pid), buf[:])
		if err != nil || n == 0 {
			return Caller{TGID: tgid}, gone(err)
		}
		exit, signal, again := parseStat(buf[:n])
		if !again || attempt == attempts {
			return Caller{TGID: tgid, Exit: exit, Signal: signal}, nil
		}
		// The FLUSH was read before its sender had gone to sleep.
		time.Sleep(pause)
	}
}

// How often, and after how long, a thread is looked at again that is about to
// wait for us.
const (
	attempts = 20
	pause    = 50 * time.Microsecond
)

// errStatus is what a status file gives that has no Tgid or no FDSize line.
var errStatus = errors.New("procstate: /proc/PID/status has no Tgid or FDSize line")

// gone turns the errors of a thread that has ended into nil.
func gone(err error) error {
	if err == unix.ENOENT || err == unix.ESRCH {
		return nil
	}
	return err
}

// readProc reads the beginning of the file at path, which ends in a NUL.
func readProc(path, buf []byte) (int, error) {
	var fd int
	for {
		r, _, errno := unix.Syscall6(unix.SYS_OPENAT, atFdcwd,
			uintptr(unsafe.Pointer(&path[0])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		fd = int(r)
		break
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// atFdcwd is AT_FDCWD as a system call takes it.
const atFdcwd = ^uintptr(0) - 99

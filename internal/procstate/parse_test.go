package procstate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// statusOf is the beginning of a status file as the kernel writes it.
func statusOf(name, tgid, fdSize string) string {
	return "Name:\t" + name + "\nUmask:\t0022\nState:\tD (disk sleep)\nTgid:\t" + tgid +
		"\nNgid:\t0\nPid:\t43\nPPid:\t1\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t" + fdSize +
		"\nGroups:\t0 \nNStgid:\t42\n"
}

// statOf is a line of stat with the given name and fields.
func statOf(name string, flags, wchan, code int) string {
	f := make([]string, 53)
	for i := range f {
		f[i] = "0"
	}
	f[1], f[2], f[3] = "42", "("+name+")", "D"
	f[8] = "-1" // tpgid of a process without a terminal
	f[9], f[35], f[52] = fmt.Sprint(flags), fmt.Sprint(wchan), fmt.Sprint(code)
	return strings.Join(f[1:], " ") + "\n"
}

// running turns the state of a line by statOf into that of a running thread.
func running(line string) string { return strings.Replace(line, ") D", ") R", 1) }

func TestParseStatus(t *testing.T) {
	tests := []struct {
		name    string
		in      string
		tgid    int
		exiting bool
		ok      bool
	}{
		{"alive", statusOf("sh", "42", "64"), 42, false, true},
		{"exiting", statusOf("sh", "42", "0"), 42, true, true},
		{"pid in an inner namespace", statusOf("sh", "0", "64"), 0, false, true},
		{"name with an escaped newline", statusOf(`x\nTgid:\t7`, "42", "0"), 42, true, true},
		{"name that begins like a key", statusOf("Tgid:\t7", "42", "64"), 42, false, true},
		{"largest pid", statusOf("sh", "4194304", "256"), 4194304, false, true},
		{"cut off behind FDSize", strings.SplitAfter(statusOf("sh", "42", "0"), "FDSize:\t0\n")[0], 42, true, true},
		{"cut off inside FDSize", "Tgid:\t42\nFDSize:\t1", 0, false, false},
		{"no FDSize", "Tgid:\t42\nGroups:\t\n", 0, false, false},
		{"no Tgid", "Name:\tsh\nFDSize:\t0\n", 0, true, false},
		{"Tgid is no number", statusOf("sh", "4x", "0"), 0, false, false},
		{"Tgid is negative", statusOf("sh", "-4", "0"), 0, false, false},
		{"FDSize is empty", statusOf("sh", "42", ""), 42, true, false},
		{"empty", "", 0, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tgid, exiting, ok := parseStatus([]byte(tt.in))
			require.Equal(t, tt.ok, ok)
			if ok {
				require.Equal(t, tt.tgid, tgid)
				require.Equal(t, tt.exiting, exiting)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	const exiting, signaled = pfExiting | 0x400000, pfExiting | pfSignaled | 0x400000
	tests := []struct {
		name   string
		in     string
		exit   Exit
		signal int
		again  bool
	}{
		{"exit 0", statOf("sh", exiting, 1, 0), Exited, 0, false},
		{"exit 3", statOf("sh", exiting, 1, 3<<8), Exited, 0, false},
		{"exit 255", statOf("sh", exiting, 0, 255<<8), Exited, 0, false},
		{"exit 0 by another thread", statOf("sh", signaled, 1, 0), Exited, 0, false},
		{"exit 3 by another thread", statOf("sh", signaled, 1, 3<<8), Exited, 0, false},
		{"SIGINT", statOf("sh", signaled, 1, 2), Killed, 2, false},
		{"SIGKILL", statOf("sh", signaled, 1, 9), Killed, 9, false},
		{"SIGSEGV and a core", statOf("sh", signaled, 1, 11|0x80), Killed, 11, false},
		{"last real-time signal", statOf("sh", signaled, 1, 64), Killed, 64, false},
		{"killed thread without the flag", statOf("sh", exiting, 1, 31), Killed, 31, false},
		{"code hidden", statOf("sh", signaled, 0, 0), Unknown, 0, false},
		{"code hidden, or not asleep yet", running(statOf("sh", signaled, 0, 0)), Unknown, 0, true},
		{"not asleep, but the code is shown", running(statOf("sh", signaled, 0, 9)), Killed, 9, false},
		{"not asleep, by itself", running(statOf("sh", exiting, 0, 0)), Exited, 0, false},
		{"not exiting", statOf("sh", 0x400000, 1, 0), Unknown, 0, false},
		{"not exiting, with a code", statOf("sh", pfSignaled, 1, 9), Unknown, 0, false},
		{"name with parentheses", statOf("a) Z 1 (b", signaled, 1, 9), Killed, 9, false},
		{"name with a newline", statOf("a\n1 (x) D 0\n", exiting, 1, 0), Exited, 0, false},
		{"name is all of a line", statOf(") D 1 1 1 1 1 4 0", signaled, 1, 15), Killed, 15, false},
		{"empty name", statOf("", exiting, 1, 0), Exited, 0, false},
		{"cut off", strings.TrimSuffix(statOf("sh", exiting, 1, 9), " 9\n"), Unknown, 0, false},
		{"flags are no number", strings.Replace(statOf("sh", 77777, 1, 0), "77777", "x", 1), Unknown, 0, false},
		{"no name", "42 sh D 1", Unknown, 0, false},
		{"nothing behind the name", "42 (sh)", Unknown, 0, false},
		{"empty", "", Unknown, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exit, signal, again := parseStat([]byte(tt.in))
			require.Equal(t, tt.again, again)
			require.Equal(t, tt.exit, exit)
			require.Equal(t, tt.signal, signal)
		})
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[string]int{"0": 0, "7": 7, "4294967295": 4294967295} {
		n, ok := number([]byte(in))
		require.True(t, ok, in)
		require.Equal(t, want, n)
	}
	for _, in := range []string{"", "-1", "+1", "1 ", "0x1", "99999999999"} {
		_, ok := number([]byte(in))
		require.False(t, ok, in)
	}
}

func TestExitString(t *testing.T) {
	require.Equal(t, "unknown alive exited killed", fmt.Sprint(Unknown, Alive, Exited, Killed))
}

// Whatever the file holds: no panic, and a signal if and only if killed.
func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statOf("sh", pfExiting, 1, 0)))
	f.Add([]byte(statOf(") (", pfExiting|pfSignaled, 0, 9)))
	f.Add([]byte("1 ()"))
	f.Fuzz(func(t *testing.T, b []byte) {
		exit, signal, _ := parseStat(b)
		if (exit == Killed) != (signal != 0) || signal < 0 || signal > 127 || exit == Alive {
			t.Errorf("%q: %v, signal %d", b, exit, signal)
		}
	})
}

// The name cannot change the verdict.
func FuzzParseStatName(f *testing.F) {
	f.Add("sh", uint8(9), false)
	f.Add("a) D 1 1 1 1 1 4 ", uint8(0), true)
	f.Fuzz(func(t *testing.T, name string, code uint8, hidden bool) {
		wchan := 1
		if hidden {
			wchan = 0
		}
		wantExit, wantSignal, _ := parseStat([]byte(statOf("sh", pfExiting|pfSignaled, wchan, int(code))))
		exit, signal, _ := parseStat([]byte(statOf(name, pfExiting|pfSignaled, wchan, int(code))))
		if exit != wantExit || signal != wantSignal {
			t.Errorf("name %q turns %v %d into %v %d", name, wantExit, wantSignal, exit, signal)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(statusOf("sh", "42", "0")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tgid, _, ok := parseStatus(b); ok && tgid < 0 {
			t.Errorf("%q: tgid %d", b, tgid)
		}
	})
}

package procstate

import "bytes"

// Flags of a thread in /proc/PID/stat, as in include/linux/sched.h.
const (
	pfExiting  = 0x4
	pfSignaled = 0x400
)

// Fields of /proc/PID/stat, counted from 0 at the one after the name, which is
// field 3 in proc_pid_stat(5).
const (
	fieldState    = 0
	fieldFlags    = 9 - 3
	fieldWchan    = 35 - 3
	fieldExitCode = 52 - 3
)

// parseStatus reads what Of needs from the beginning of /proc/PID/status: the
// thread group, and whether the descriptor table is gone. Each line is "Key:",
// a tab, and a value; the name of the process, which it may choose, is on the
// first line with its newlines escaped. ok is false if a line is missing.
func parseStatus(b []byte) (tgid int, exiting, ok bool) {
	haveTgid := false
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			return 0, false, false // cut off: not to be believed
		}
		if v, found := bytes.CutPrefix(line, []byte("Tgid:")); found {
			if tgid, haveTgid = number(bytes.TrimSpace(v)); !haveTgid {
				return 0, false, false
			}
		} else if v, found := bytes.CutPrefix(line, []byte("FDSize:")); found {
			size, valid := number(bytes.TrimSpace(v))
			return tgid, size == 0, valid && haveTgid
		}
	}
	return 0, false, false
}

// parseStat judges the line of /proc/PID/task/PID/stat of a thread whose
// descriptor table is gone. A line that makes no sense gives Unknown. again is
// set where the thread does not wait yet, but is about to, and the proof that
// nothing was hidden can only be had then.
func parseStat(b []byte) (exit Exit, signal int, again bool) {
	// The name stands in parentheses, unescaped: it may hold blanks, newlines
	// and parentheses of its own, but no field after it does.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return Unknown, 0, false
	}
	var running bool
	var flags, wchan, code int
	rest := b[i+1:]
	for field := 0; field <= fieldExitCode; field++ {
		var word []byte
		if word, rest = nextWord(rest); len(word) == 0 {
			return Unknown, 0, false
		}
		ok := true
		switch field {
		case fieldState:
			running = string(word) == "R"
		case fieldFlags:
			flags, ok = number(word)
		case fieldWchan:
			wchan, ok = number(word)
		case fieldExitCode:
			code, ok = number(word)
		}
		if !ok {
			return Unknown, 0, false
		}
	}
	switch {
	case flags&pfExiting == 0:
		return Unknown, 0, false // no descriptors, and yet not ending: nothing we know
	case code&0x7f != 0:
		return Killed, code & 0x7f, false
	case code == 0 && flags&pfSignaled != 0 && wchan == 0:
		return Unknown, 0, running // the code may be hidden: see the package documentation
	default:
		return Exited, 0, false
	}
}

// nextWord returns the first run of non-blanks in b and what follows it.
func nextWord(b []byte) (word, rest []byte) {
	start := 0
	for start < len(b) && isBlank(b[start]) {
		start++
	}
	end := start
	for end < len(b) && !isBlank(b[end]) {
		end++
	}
	return b[start:end], b[end:]
}

func isBlank(c byte) bool { return c == ' ' || c == '\n' || c == '\t' }

// number reads a decimal number without a sign that fits an int32 or uint32.
func number(b []byte) (n int, ok bool) {
	if len(b) == 0 || len(b) > 10 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// statusPath appends "/proc/PID/status" and a NUL to b, statPath likewise
// "/proc/PID/task/PID/stat".
func statusPath(b []byte, pid int) []byte {
	b = appendInt(append(b, "/proc/"...), pid)
	return append(b, "/status\x00"...)
}

func statPath(b []byte, pid int) []byte {
	b = appendInt(append(b, "/proc/"...), pid)
	b = appendInt(append(b, "/task/"...), pid)
	return append(b, "/stat\x00"...)
}

// appendInt appends the digits of n, which is not negative.
func appendInt(b []byte, n int) []byte {
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(b, digits[i:]...)
		}
	}
}

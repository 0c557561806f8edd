package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wholefs/wholefs/control"
)

// holdersMax bounds the list of processes that keep a mount busy.
const holdersMax = 16

// holders finds the processes that keep a mount busy, as far as this process
// may look. Reading the links of a process that is just in exec can wait for
// a FLUSH, so this runs with a deadline and never while a request is answered.
func holders(mountpoint string) []control.Process {
	var found []control.Process
	done := make(chan []control.Process, 1)
	go func() { done <- scanHolders(mountpoint) }()
	select {
	case found = <-done:
	case <-time.After(2 * time.Second):
	}
	return found
}

func scanHolders(mountpoint string) []control.Process {
	var found []control.Process
	pids, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, entry := range pids {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if what := heldBy(pid, mountpoint); what != "" {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // it may just have ended
			found = append(found, control.Process{PID: pid, Command: strings.TrimSpace(string(comm)), Holds: what})
		}
		if len(found) == holdersMax {
			break
		}
	}
	return found
}

// heldBy tells by what a process keeps the mount busy, or nothing.
func heldBy(pid int, mountpoint string) string {
	dir := fmt.Sprintf("/proc/%d", pid)
	inside := func(link string) (string, bool) {
		to, err := os.Readlink(link)
		to = strings.TrimSuffix(to, " (deleted)")
		return to, err == nil && (to == mountpoint || strings.HasPrefix(to, mountpoint+"/"))
	}
	for _, name := range []string{"cwd", "root"} {
		if _, in := inside(filepath.Join(dir, name)); in {
			return name
		}
	}
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if to, in := inside(filepath.Join(dir, "fd", fd.Name())); in {
			return to
		}
	}
	return ""
}

func holderList(list []control.Process) string {
	if len(list) == 0 {
		return "something"
	}
	var words []string
	for i, p := range list {
		if i == 3 {
			words = append(words, fmt.Sprintf("%d more", len(list)-i))
			break
		}
		holds := printable(p.Holds)
		switch p.Holds {
		case "cwd":
			holds = "as working directory"
		case "root":
			holds = "as root directory"
		}
		words = append(words, fmt.Sprintf("%s (process %d, %s)", p.Command, p.PID, holds))
	}
	return strings.Join(words, ", ")
}

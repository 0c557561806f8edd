package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fsType is how the kernel names a wholefs mount.
const fsType = "fuse.wholefs"

// mountEntry is one line of /proc/self/mountinfo, see proc(5).
type mountEntry struct {
	mountpoint string
	fsType     string
	source     string
	device     string // major:minor
}

// readMounts returns all mounts that this process sees, the topmost of those
// that share a mountpoint last.
func readMounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

func parseMounts(r io.Reader) ([]mountEntry, error) {
	var list []mountEntry
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS [TAG]... - TYPE SOURCE SUPER
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 2 {
			continue
		}
		list = append(list, mountEntry{
			mountpoint: unescapeMount(left[4]),
			device:     left[2],
			fsType:     right[0],
			source:     unescapeMount(right[1]),
		})
	}
	return list, lines.Err()
}

// unescapeMount undoes the kernel's writing of blanks, tabs, newlines and
// backslashes as three octal digits.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountAt returns the topmost mount whose mountpoint is exactly path.
func mountAt(mounts []mountEntry, path string) (mountEntry, bool) {
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].mountpoint == path {
			return mounts[i], true
		}
	}
	return mountEntry{}, false
}

// ourMounts returns the wholefs mounts that are not covered by another mount.
func ourMounts(mounts []mountEntry) []mountEntry {
	var ours []mountEntry
	for _, m := range mounts {
		if top, _ := mountAt(mounts, m.mountpoint); m.fsType == fsType && top == m {
			ours = append(ours, m)
		}
	}
	return ours
}

// mountAbove returns the wholefs mount that path lies in.
func mountAbove(mounts []mountEntry, path string) (mountEntry, bool) {
	for at := path; ; at = filepath.Dir(at) {
		if m, ok := mountAt(mounts, at); ok {
			return m, m.fsType == fsType
		}
		if at == "/" {
			return mountEntry{}, false
		}
	}
}

// plainPath returns path absolute and with the symlinks of its parent
// resolved. The last component is not looked at: a mountpoint whose daemon is
// dead answers nothing.
func plainPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return abs, nil // whoever uses it will say what is wrong with it
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// The register: for each mount a symlink from its device number to its state
// directory, so that the control socket of a mount with --state-dir or
// --fsname is found by its mountpoint. It is a convenience: a mount that
// cannot write it is still found by its source, the path of its store.

func registerDirs() []string {
	dirs := []string{"/run/wholefs"}
	if os.Geteuid() == 0 {
		users, _ := filepath.Glob("/run/user/*/wholefs") // the pattern is well formed
		return append(dirs, users...)
	}
	return append([]string{fmt.Sprintf("/run/user/%d/wholefs", os.Geteuid())}, dirs...)
}

// register writes the link of a mount and returns how to remove it.
func register(device, stateDir string) (remove func(), err error) {
	dir := registerDirs()[0]
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return func() {}, err
	}
	// Of mounts whose daemon was killed, and whose state is gone or idle since.
	links, _ := filepath.Glob(filepath.Join(dir, "*")) // the pattern is well formed
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to != stateDir && stateFree(to) {
			_ = os.Remove(link)
		}
	}
	link := filepath.Join(dir, device)
	_ = os.Remove(link)
	if err := os.Symlink(stateDir, link); err != nil {
		return func() {}, err
	}
	return func() {
		if to, err := os.Readlink(link); err == nil && to == stateDir {
			_ = os.Remove(link)
		}
	}, nil
}

// registered returns the state directory of a mount. A link may be left of a
// daemon that was killed, and its device number may belong to another mount
// by now: the state directory has to say that it is this mount's.
func registered(m mountEntry) string {
	var candidates []string
	for _, dir := range registerDirs() {
		if to, err := os.Readlink(filepath.Join(dir, m.device)); err == nil {
			candidates = append(candidates, to)
		}
	}
	bySource, _ := stateOf(m.source)
	candidates = slices.DeleteFunc(append(candidates, bySource), func(dir string) bool {
		return lastOwner(dir).Mountpoint != m.mountpoint
	})
	for _, dir := range candidates {
		if !stateFree(dir) {
			return dir
		}
	}
	return append(candidates, bySource)[0] // of a dead daemon
}

// isStale reports whether the error of a stat means that the daemon of a
// mount is gone.
func isStale(err error) bool { return unwrapErrno(err) == unix.ENOTCONN }

package localdir

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/fdnode"
)

// refuseMounts gives an error if something is mounted beneath the directory
// top, which is at path: nothing could be published there by rename.
func refuseMounts(top *os.File, path string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var mount uint64
	err = fdnode.With(top, func(fd int) error {
		var st unix.Statx_t
		if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
			return err
		}
		if st.Mask&unix.STATX_MNT_ID != 0 {
			mount = st.Mnt_id
		}
		return nil
	})
	if err != nil {
		return err
	}
	beneath := mountsBeneath(table, path, mount)
	if len(beneath) == 0 {
		return nil
	}
	more := ""
	if len(beneath) > 1 {
		more = fmt.Sprintf(" (and %d more)", len(beneath)-1)
	}
	return fmt.Errorf("%s%s is mounted beneath it, where files could not be published by rename; unmount it, or mount wholefs on that directory separately: %w",
		beneath[0], more, unix.EXDEV)
}

// mountsBeneath returns the mount points beneath path in a table as in
// proc_pid_mountinfo(5). mount is the id of the mount that path lies on; unless
// it is 0, a mount counts only if it is mounted on that one: the others lie
// hidden beneath it.
func mountsBeneath(table []byte, path string, mount uint64) []string {
	prefix := strings.TrimSuffix(path, "/") + "/"
	var points []string
	for line := range bytes.Lines(table) {
		// id, parent, major:minor, root, mount point, ...
		fields := strings.SplitN(string(line), " ", 6)
		if len(fields) < 6 {
			continue
		}
		if parent, err := strconv.ParseUint(fields[1], 10, 64); err == nil && mount != 0 && parent != mount {
			continue
		}
		if point := unescape(fields[4]); strings.HasPrefix(point, prefix) && point != prefix {
			points = append(points, point)
		}
	}
	return points
}

// unescape turns the \ooo of mountinfo, with which it writes blanks, newlines
// and backslashes, into the bytes they stand for.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TreeOptions say what Tree leaves out.
type TreeOptions struct {
	Mtime bool // also compare modification times
	Owner bool // also compare uid and gid
}

// Tree describes everything below dir, one line an entry, as a program sees
// it: type, mode, links, size, content, target and extended attributes. The
// directory that wholefs keeps for itself at the top is left out.
func Tree(dir string, o TreeOptions) (map[string]string, error) {
	tree := map[string]string{}
	firstName := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel == Hidden {
			return fs.SkipDir
		}
		if rel == "." {
			return nil
		}
		line, err := describe(p, rel, o, firstName)
		tree[rel] = line
		return err
	})
	return tree, err
}

func describe(p, rel string, o TreeOptions, firstName map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); err != nil {
		return "", fmt.Errorf("lstat %s: %w", p, err)
	}
	line := fmt.Sprintf("mode %o", st.Mode)
	if o.Owner {
		line += fmt.Sprintf(" owner %d:%d", st.Uid, st.Gid)
	}
	if o.Mtime {
		line += fmt.Sprintf(" mtime %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum, err := Sum(p)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" nlink %d size %d sha256 %s", st.Nlink, st.Size, sum[:16])
		if st.Nlink > 1 {
			if firstName[st.Ino] == "" {
				firstName[st.Ino] = rel
			}
			line += " same as " + firstName[st.Ino]
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(p)
		if err != nil {
			return "", err
		}
		return "symlink to " + target, nil
	case unix.S_IFCHR, unix.S_IFBLK:
		line += fmt.Sprintf(" device %d", st.Rdev)
	}
	return line + xattrs(p), nil
}

func xattrs(p string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(p, buf)
	if err != nil || n == 0 {
		return ""
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		// What the mount tells of a session is no attribute of the file.
		if strings.HasPrefix(name, "user.wholefs.") || strings.HasPrefix(name, "trusted.wholefs") {
			continue
		}
		n, err := unix.Lgetxattr(p, name, buf)
		if err != nil {
			fmt.Fprintf(&b, " %s: %v", name, err)
			continue
		}
		fmt.Fprintf(&b, " %s=%x", name, buf[:n])
	}
	return b.String()
}

// Differences compares two trees.
func Differences(a, b map[string]string) []string {
	var diff []string
	for name, line := range a {
		if other, ok := b[name]; !ok {
			diff = append(diff, fmt.Sprintf("%q only in the first: %s", name, line))
		} else if other != line {
			diff = append(diff, fmt.Sprintf("%q:\n  %s\n  %s", name, line, other))
		}
	}
	for name, line := range b {
		if _, ok := a[name]; !ok {
			diff = append(diff, fmt.Sprintf("%q only in the second: %s", name, line))
		}
	}
	slices.Sort(diff)
	return diff
}

// SameTrees fails the test if two directories differ.
func SameTrees(t testing.TB, a, b string, o TreeOptions) {
	t.Helper()
	ta, err := Tree(a, o)
	if err != nil {
		t.Fatal(err)
	}
	tb, err := Tree(b, o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := Differences(ta, tb); len(diff) > 0 {
		t.Errorf("%s and %s differ:\n%s", a, b, strings.Join(diff, "\n"))
	}
}

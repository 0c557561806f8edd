package localdir

import (
	"strings"

	"golang.org/x/sys/unix"
)

// nameMax is the longest name that Linux has, in bytes.
const nameMax = 255

// checkName refuses what is not a single component.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return unix.EINVAL
	case strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	case len(name) > nameMax:
		return unix.ENAMETOOLONG
	}
	return nil
}

// checkPath refuses what is not a store path. The empty path is one.
func checkPath(path string) error {
	if path == "" {
		return nil
	}
	for name := range strings.SplitSeq(path, "/") {
		if err := checkName(name); err != nil {
			return err
		}
	}
	return nil
}

// split cuts a checked path, which is not empty, before its last component.
func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// chunkMax is the longest path that is given to the kernel at once; PATH_MAX
// counts the NUL at its end.
const chunkMax = unix.PathMax - 1

// nextChunk cuts off the longest prefix of path that ends at a component and
// is not longer than limit, which is at least nameMax.
func nextChunk(path string, limit int) (chunk, rest string) {
	if len(path) <= limit {
		return path, ""
	}
	i := strings.LastIndexByte(path[:limit+1], '/')
	return path[:i], path[i+1:]
}

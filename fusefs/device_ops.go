package fusefs

// opNames are the requests by opcode (linux/fuse.h), as metrics name them.
var opNames = [...]string{
	1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", opReadlink: "readlink", 6: "symlink",
	8: "mknod", 9: "mkdir", 10: "unlink", 11: "rmdir", 12: "rename", 13: "link",
	14: "open", opRead: "read", opWrite: "write", 17: "statfs", 18: "release", 20: "fsync",
	21: "setxattr", opGetxattr: "getxattr", opListxattr: "listxattr", 24: "removexattr", 25: "flush",
	26: "init", 27: "opendir", opReaddir: "readdir", 29: "releasedir", 30: "fsyncdir",
	31: "getlk", 32: "setlk", 33: "setlkw", 34: "access", 35: "create",
	36: "interrupt", 37: "bmap", 38: "destroy", 39: "ioctl", 40: "poll",
	41: "notify_reply", 42: "batch_forget", 43: "fallocate", opReaddirplus: "readdirplus",
	45: "rename", 46: "lseek", 47: "copy_file_range", 50: "syncfs", 51: "tmpfile", 52: "statx",
	53: "copy_file_range",
}

// opName returns the name of an opcode for metrics and logs.
func opName(op uint32) string {
	if op < uint32(len(opNames)) && opNames[op] != "" {
		return opNames[op]
	}
	return "other"
}

// OpNames returns the names that Observer.Op is called with, so that metrics
// can be made for them beforehand.
func OpNames() []string {
	seen := map[string]bool{"other": true}
	names := []string{"other"}
	for _, name := range opNames {
		if name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

package main

import "strings"

// helperName is the name under which mount(8) calls the program for the
// filesystem type wholefs:
//
//	/sbin/mount.wholefs STORE MOUNTPOINT [-sfnv] [-N NS] [-o OPTIONS] [-t TYPE]
const helperName = "mount.wholefs"

// ignoredOptions are mount options that other programs read from fstab, or
// that are true of a wholefs mount anyway.
var ignoredOptions = map[string]bool{
	"_netdev": true, "nofail": true, "noauto": true, "auto": true, "defaults": true, "rw": true,
	"user": true, "nouser": true, "users": true, "owner": true, "group": true, "comment": true,
	"async": true, "nosuid": true, "nodev": true, "exec": true, "silent": true, "loud": true,
	"atime": true, "noatime": true, "relatime": true, "norelatime": true, "strictatime": true, "diratime": true, "nodiratime": true,
}

// refusedOptions would be promises that a wholefs mount does not keep.
var refusedOptions = map[string]string{
	"ro":      "wholefs has no read-only mounts yet",
	"noexec":  "programs on a wholefs mount can be run",
	"suid":    "set-user-ID programs are not honoured on a wholefs mount",
	"dev":     "device files are not honoured on a wholefs mount",
	"remount": "a mount keeps the options that it began with",
	"sync":    "use durability=close",
	"bind":    "mount the store, then bind the mount",
}

// helperArgs turns the arguments of mount.wholefs into those of wholefs
// mount. It returns nil for a fake mount, which does nothing.
func helperArgs(args []string) ([]string, error) {
	out := []string{"mount"}
	var places []string
	fake := false
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			places = append(places, arg)
			continue
		}
		// Letters may be bundled; o, N and t take the rest, or the next
		// argument, as their value.
	letters:
		for j := 1; j < len(arg); j++ {
			switch arg[j] {
			case 'f':
				fake = true
			case 's', 'n', 'v', 'w':
			case 'o', 'N', 't':
				value := arg[j+1:]
				if value == "" {
					if i++; i == len(args) {
						return nil, usage("usage: mount.wholefs STORE MOUNTPOINT [-o OPTIONS]", "-%c needs a value", arg[j])
					}
					value = args[i]
				}
				if arg[j] == 'o' {
					flags, err := optionFlags(value)
					if err != nil {
						return nil, err
					}
					out = append(out, flags...)
				}
				break letters
			default:
				return nil, usage("usage: mount.wholefs STORE MOUNTPOINT [-o OPTIONS]", "unknown flag -%c", arg[j])
			}
		}
	}
	if fake {
		return nil, nil
	}
	return append(append(out, "--"), places...), nil
}

// optionFlags turns "part_size=32M,allow_other" into flags.
func optionFlags(options string) ([]string, error) {
	var flags []string
	for option := range strings.SplitSeq(options, ",") {
		name, value, valued := strings.Cut(option, "=")
		if option == "" || ignoredOptions[name] || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") {
			continue
		}
		if why, refused := refusedOptions[name]; refused {
			return nil, usage("leave it out", "mount option %s: %s", name, why)
		}
		flag := "--" + strings.ReplaceAll(name, "_", "-")
		if valued {
			flag += "=" + value
		}
		flags = append(flags, flag)
	}
	return flags, nil
}

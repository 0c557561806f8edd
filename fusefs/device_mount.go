package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mountDevice opens /dev/fuse, mounts it on mountpoint and returns the
// descriptor. Root mounts directly; anyone else through fusermount3, which is
// setuid root.
func mountDevice(mountpoint string, o MountOptions) (int, error) {
	options := []string{"default_permissions", fmt.Sprintf("max_read=%d", MaxWrite)}
	if o.AllowOther {
		options = append(options, "allow_other")
	}
	if os.Geteuid() != 0 {
		return mountByHelper(mountpoint, o.FsName, options)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/fuse: %w: is the fuse module there?", err)
	}
	options = append(options, fmt.Sprintf("fd=%d", fd), "rootmode=40000",
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()))
	err = unix.Mount(o.FsName, mountpoint, "fuse.wholefs", unix.MS_NOSUID|unix.MS_NODEV, strings.Join(options, ","))
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("mount %s: %w", mountpoint, err)
	}
	return fd, nil
}

// mountByHelper runs fusermount3, which mounts and sends the descriptor back
// over a socket (fusermount3(1), _FUSE_COMMFD).
func mountByHelper(mountpoint, fsName string, options []string) (int, error) {
	helper, err := exec.LookPath("fusermount3")
	if err != nil {
		return -1, errors.New("mounting as an ordinary user needs fusermount3 (Debian package fuse3): install it, or mount as root")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fusermount-socket"), os.NewFile(uintptr(pair[1]), "fusermount-socket")
	defer ours.Close()
	options = append(options, "subtype=wholefs", "fsname="+strings.ReplaceAll(fsName, ",", `\,`))
	cmd := exec.Command(helper, "-o", strings.Join(options, ","), "--", mountpoint)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return -1, fmt.Errorf("fusermount3: %w: %s", err, strings.TrimSpace(said.String()))
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, oobn, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fusermount3 sent no descriptor: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("fusermount3 sent no descriptor: %v", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("fusermount3 sent no descriptor: %v", err)
	}
	return fds[0], nil
}

// Unmount takes the mount off its mountpoint. Unless lazy is set it answers
// EBUSY while programs use it; a lazy one disappears from the tree at once and
// ends when the last user is gone.
func (m *Mount) Unmount(lazy bool) error {
	flags := 0
	if lazy {
		flags = unix.MNT_DETACH
	}
	if os.Geteuid() == 0 {
		err := unix.Unmount(m.mountpoint, flags|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, syscall.EINVAL) {
			return nil // not mounted any more
		}
		return err
	}
	args := []string{"-u", "--", m.mountpoint}
	if lazy {
		args = append([]string{"-z"}, args...)
	}
	if said, err := exec.Command("fusermount3", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("fusermount3 -u: %w: %s", err, bytes.TrimSpace(said))
	}
	return nil
}

package fdnode

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
)

func TestInherit(t *testing.T) {
	needRoot(t)
	src, dst := openAt(t, newFile(t, "old"), unix.O_PATH), openAt(t, newFile(t, "new"), os.O_RDWR)
	_, err := src.SetAttr(store.Change{UID: ptr(uint32(11)), GID: ptr(uint32(12)), Mode: ptr(uint32(0o6751))})
	require.NoError(t, err)
	acl := accessACL(7, 13, 5, 4, 0)
	capability := []byte{0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	want := map[string][]byte{"user.a": []byte("1"), "user.empty": {}, "trusted.b": []byte("2")}
	for name, value := range map[string][]byte{"system.posix_acl_access": acl, "security.capability": capability} {
		if err := src.SetXattr(name, value, 0); err == nil {
			want[name] = value
		}
	}
	for _, name := range []string{"user.a", "user.empty", "trusted.b"} {
		require.NoError(t, src.SetXattr(name, want[name], 0))
	}
	require.NoError(t, dst.SetXattr("user.mine", []byte("x"), 0))
	require.NoError(t, dst.SetXattr("user.a", []byte("other"), 0))

	require.NoError(t, Inherit(dst.F, src))
	before, err := src.Stat()
	require.NoError(t, err)
	after, err := dst.Stat()
	require.NoError(t, err)
	require.Equal(t, [3]uint32{before.UID, before.GID, before.Mode}, [3]uint32{after.UID, after.GID, after.Mode})
	for name, value := range want {
		got, err := dst.GetXattr(name)
		require.NoError(t, err, name)
		require.Equal(t, value, got, name)
	}
	_, err = dst.GetXattr("user.mine")
	require.Equal(t, unix.ENODATA, err, "what only dst has goes")
	require.Equal(t, "new", contentOf(t, dst))
	require.NoError(t, Inherit(dst.F, src), "again")
}

func contentOf(t *testing.T, n Node) string {
	t.Helper()
	b := make([]byte, 100)
	length, _ := n.F.ReadAt(b, 0)
	return string(b[:length])
}

// accessACL is one that grants user uid something besides owner, group and others.
func accessACL(owner uint16, uid uint32, perm, group, other uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	add := func(tag, perm uint16, id uint32) {
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	const none = 1<<32 - 1
	add(1, owner, none)
	add(2, perm, uid)
	add(4, group, none)
	add(0x10, perm|group, none)
	add(0x20, other, none)
	return b
}

// An owner may set attributes only while the mode lets him write, so the mode
// has to come last.
func TestInheritReadOnlyMode(t *testing.T) {
	src, dst := openAt(t, newFile(t, ""), os.O_RDONLY), openAt(t, newFile(t, ""), os.O_RDWR)
	require.NoError(t, src.SetXattr("user.a", []byte("1"), 0))
	_, err := src.SetAttr(store.Change{Mode: ptr(uint32(0o400))})
	require.NoError(t, err)
	require.NoError(t, Inherit(dst.F, src))
	value, err := dst.GetXattr("user.a")
	require.NoError(t, err)
	require.Equal(t, "1", string(value))
	a, err := dst.Stat()
	require.NoError(t, err)
	require.EqualValues(t, 0o400, a.Mode&0o7777)
}

// An error that is not about rights is one: the replacement would be another
// file than the one replaced.
func TestInheritReportsWhatIsNotAboutRights(t *testing.T) {
	dst := openAt(t, newFile(t, ""), os.O_RDWR)
	for _, tt := range []struct {
		err  error
		want bool
	}{{unix.EIO, true}, {unix.ENOSPC, true}, {unix.EOPNOTSUPP, false}, {unix.EACCES, false}, {os.NewSyscallError("x", unix.EPERM), false}} {
		err := Inherit(dst.F, brokenXattrs{openAt(t, newFile(t, ""), os.O_RDONLY), tt.err})
		if tt.want {
			require.ErrorIs(t, err, tt.err)
		} else {
			require.NoError(t, err)
		}
	}
}

type brokenXattrs struct {
	Node
	err error
}

func (b brokenXattrs) ListXattr() ([]string, error) { return nil, b.err }

// An ordinary user cannot keep another's ownership, and must not end up with a
// file that lends rights under his own name.
func TestInheritAsOrdinaryUser(t *testing.T) {
	if os.Getenv("FDNODE_SRC") != "" {
		src, dst := openAt(t, os.Getenv("FDNODE_SRC"), unix.O_PATH), openAt(t, newFile(t, "new"), os.O_RDWR)
		require.NoError(t, Inherit(dst.F, src))
		a, err := dst.Stat()
		require.NoError(t, err)
		require.EqualValues(t, os.Getuid(), a.UID)
		require.EqualValues(t, 0o755, a.Mode&0o7777, "%o", a.Mode)
		value, err := dst.GetXattr("user.a")
		require.NoError(t, err)
		require.Equal(t, "1", string(value))
		return
	}
	needRoot(t)
	const nobody = 65534
	dir, err := os.MkdirTemp("", "fdnode-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.Chmod(dir, 0o777))
	self, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(self)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "test"), program, 0o755))
	src := filepath.Join(dir, "src")
	require.NoError(t, os.WriteFile(src, nil, 0o755))
	n := openAt(t, src, os.O_RDWR)
	require.NoError(t, n.SetXattr("user.a", []byte("1"), 0))
	_, err = n.SetAttr(store.Change{Mode: ptr(uint32(0o6755))})
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "test"), "-test.run", "^TestInheritAsOrdinaryUser$")
	cmd.Env = append(os.Environ(), "FDNODE_SRC="+src, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

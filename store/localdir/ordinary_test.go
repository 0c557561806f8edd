package localdir

import (
	"context"
	"fmt"
	"io"
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

// The whole suite once more as an ordinary user, who serves a directory of his
// own without privileges.
func TestSuiteAsOrdinaryUser(t *testing.T) {
	needRoot(t)
	const nobody = 65534
	dir, err := os.MkdirTemp("", "localdir-nobody-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o700))
	require.NoError(t, os.Chown(filepath.Join(dir, "tmp"), nobody, nobody))
	program := filepath.Join(dir, "localdir.test")
	copyProgram(t, program)

	ctx, cancel := context.WithTimeout(background, 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-test.run", "^(TestSuite|TestOpen.*|TestInPlace.*|TestDirectory.*|TestUnreadable.*|TestWhatFails.*)$", "-test.count=1")
	cmd.Dir = filepath.Join(dir, "tmp")
	cmd.Env = append(os.Environ(), "TMPDIR="+cmd.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	in, err := os.Open(self)
	require.NoError(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(out, in)
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

func TestUnreadableAndUnwritableDirectories(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may everything; TestSuiteAsOrdinaryUser runs this")
	}
	for mode, says := range map[os.FileMode]string{0o300: "cannot be read by user", 0o500: "cannot be written by user"} {
		dir := filepath.Join(t.TempDir(), "d")
		require.NoError(t, os.Mkdir(dir, mode))
		t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
		_, err := Open(dir, Options{})
		require.ErrorIs(t, err, unix.EACCES)
		require.ErrorContains(t, err, fmt.Sprint(says, " ", os.Getuid()))
	}
}

// A directory that may be searched but not read is opened; only what reads it
// is refused.
func TestDirectoryThatCannotBeListed(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may everything; TestSuiteAsOrdinaryUser runs this")
	}
	s := openStore(t)
	closed := filepath.Join(s.String(), "d")
	require.NoError(t, os.Mkdir(closed, 0o300))
	t.Cleanup(func() { _ = os.Chmod(closed, 0o700) })
	d, err := s.OpenDir("d")
	require.NoError(t, err)
	defer d.Close()
	for _, err := range d.List(background) {
		require.Equal(t, unix.EACCES, err)
	}
	require.Equal(t, unix.EACCES, d.Sync())
	u, f := begin(t, s, "d/f", stage(t, s, []byte("x")))
	f.Durability = store.DurabilityClose
	_, err = u.Complete(background, f)
	require.ErrorIs(t, err, unix.EACCES)
	done, err := u.Completed(background, f)
	require.NoError(t, err)
	require.False(t, done, "what cannot be synced is not published")
	f.Durability = store.DurabilityProcess
	_, err = u.Complete(background, f)
	require.NoError(t, err)
}

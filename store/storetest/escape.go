package storetest

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/store"
)

const secret = "what lies outside"

// outside makes a directory beside the store, with a file and a directory in
// it, and returns its path. Nothing may be read, made or changed in it.
func (s *suite) outside() string {
	s.t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(s.Host), "outside-")
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, "f"), []byte(secret), 0o600))
	require.NoError(s.t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, "sub", "f"), []byte(secret), 0o600))
	return dir
}

// untouched fails the test if anything in outside is not as it was made.
func (s *suite) untouched(dir string) {
	s.t.Helper()
	for _, d := range []string{dir, filepath.Join(dir, "sub")} {
		entries, err := os.ReadDir(d)
		require.NoError(s.t, err)
		for _, e := range entries {
			require.Contains(s.t, []string{"f", "sub"}, e.Name(), "made outside")
		}
		got, err := os.ReadFile(filepath.Join(d, "f"))
		require.NoError(s.t, err)
		require.Equal(s.t, secret, string(got))
		info, err := os.Stat(filepath.Join(d, "f"))
		require.NoError(s.t, err)
		require.EqualValues(s.t, 0o600, info.Mode())
	}
}

// swap exchanges two names in the store's top behind its back, as fast as it
// can, until stop is called.
func (s *suite) swap(a, b string) (stop func()) {
	done := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(s.Host, a), unix.AT_FDCWD, filepath.Join(s.Host, b), unix.RENAME_EXCHANGE)
			if err != nil && err != unix.ENOENT {
				s.t.Errorf("swap: %v", err)
				return
			}
		}
	})
	return func() { close(done); swapping.Wait() }
}

// attack calls try until each of its outcomes, success and failure, was seen a
// number of times: a race that one side always wins proves nothing.
func (s *suite) attack(try func() bool) {
	s.t.Helper()
	const enough, atMost = 100, 200_000
	var won, lost int
	for range atMost {
		if try() {
			won++
		} else {
			lost++
		}
		if won >= enough && lost >= enough {
			return
		}
	}
	s.t.Logf("the race was won %d times and lost %d times", won, lost)
}

var escapeTests = []testCase{
	{"a symlink that was planted leads nowhere", both(host, symlinks), func(s *suite) {
		out := s.outside()
		require.NoError(s.t, os.Symlink(out, filepath.Join(s.Host, "link")))
		require.NoError(s.t, os.Symlink(filepath.Join(out, "f"), filepath.Join(s.Host, "file")))
		for _, path := range []string{"link", "link/sub"} {
			_, err := s.Store.OpenDir(path)
			wantErr(s.t, syscall.ELOOP, err)
		}
		_, err := s.top().OpenFile("file")
		wantErr(s.t, syscall.ELOOP, err)
		u, f := s.begin("link/new", []byte("x"))
		_, err = u.Complete(background, f)
		wantErr(s.t, syscall.ELOOP, err)
		s.untouched(out)
	}},
	{"a directory that becomes a symlink while it is opened", both(host, symlinks), func(s *suite) {
		out := s.outside()
		top := s.top()
		s.mkdir(s.mkdir(top, "d"), "sub")
		s.publish("d/sub/f", []byte("inside"))
		s.publish("d/f", []byte("inside"))
		require.NoError(s.t, os.Symlink(out, filepath.Join(s.Host, "evil")))
		defer s.swap("d", "evil")()

		see := func(d store.Dir, err error) bool {
			if err != nil {
				wantErr(s.t, syscall.ELOOP, err)
				return false
			}
			defer d.Close()
			f, err := d.OpenFile("f")
			require.NoError(s.t, err)
			defer f.Close()
			require.Equal(s.t, "inside", string(contentOf(s.t, f)))
			return true
		}
		s.attack(func() bool { return see(s.Store.OpenDir("d/sub")) })
		s.attack(func() bool { return see(top.OpenDir("d")) })
		s.untouched(out)
	}},
	{"publishing into a directory that becomes a symlink", both(host, symlinks), func(s *suite) {
		out := s.outside()
		s.mkdir(s.mkdir(s.top(), "d"), "sub")
		require.NoError(s.t, os.Symlink(out, filepath.Join(s.Host, "evil")))
		defer s.swap("d", "evil")()
		tries := 0
		s.attack(func() bool {
			if tries++; tries > 2000 {
				return tries%2 == 0 // staging files cost more than the race is worth
			}
			u, f := s.begin("d/sub/new", []byte("x"))
			_, err := u.Complete(background, f)
			if err != nil {
				wantErr(s.t, syscall.ELOOP, err)
			}
			return err == nil
		})
		s.untouched(out)
	}},
	{"a file that becomes a symlink while it is opened", both(host, symlinks), func(s *suite) {
		out := s.outside()
		top := s.top()
		s.publish("f", []byte("inside"))
		require.NoError(s.t, os.Symlink(filepath.Join(out, "f"), filepath.Join(s.Host, "evil")))
		defer s.swap("f", "evil")()
		s.attack(func() bool {
			f, err := top.OpenFile("f")
			if err != nil {
				wantErr(s.t, syscall.ELOOP, err)
				return false
			}
			defer f.Close()
			require.Equal(s.t, "inside", string(contentOf(s.t, f)))
			return true
		})
		s.attack(func() bool {
			n, err := top.OpenNode("f")
			require.NoError(s.t, err)
			defer n.Close()
			if _, err := n.SetAttr(store.Change{Mode: ptr(uint32(0o666)), UID: &s.Owner.UID}); err != nil {
				wantErr(s.t, syscall.EOPNOTSUPP, err) // the mode of the link itself
				return false
			}
			return true
		})
		s.untouched(out)
	}},
	{"a new directory that is exchanged for a symlink", both(host, symlinks), func(s *suite) {
		out := s.outside()
		d := s.mkdir(s.top(), "d")
		require.NoError(s.t, os.Symlink(filepath.Join(out, "sub"), filepath.Join(s.Host, "evil")))
		defer s.swap("d/new", "evil")()
		for range 3000 {
			// Whichever of the two it hits: the owner and the mode of what lies
			// outside stay, and what was not made is not removed.
			_, _ = d.Mkdir("new", 0o777, s.Owner)
			_ = d.Rmdir("new")
			_ = d.Unlink("new")
			if _, err := os.Lstat(filepath.Join(s.Host, "evil")); err != nil {
				_ = os.Symlink(filepath.Join(out, "sub"), filepath.Join(s.Host, "evil"))
			}
		}
		info, err := os.Stat(filepath.Join(out, "sub"))
		require.NoError(s.t, err)
		require.EqualValues(s.t, os.ModeDir|0o700, info.Mode())
		require.EqualValues(s.t, os.Geteuid(), info.Sys().(*syscall.Stat_t).Uid)
		s.untouched(out)
	}},
	{"a descriptor stays with its directory", host, func(s *suite) {
		out := s.outside()
		d := s.mkdir(s.top(), "d")
		require.NoError(s.t, os.Rename(filepath.Join(s.Host, "d"), filepath.Join(s.Host, "moved")))
		require.NoError(s.t, os.Symlink(out, filepath.Join(s.Host, "d")))
		_, err := d.Mkdir("x", 0o755, s.Owner)
		require.NoError(s.t, err)
		require.DirExists(s.t, filepath.Join(s.Host, "moved", "x"))
		s.untouched(out)
	}},
}

package storetest

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

// operations calls everything that takes a name with it, and returns what each
// answered.
func operations(s *suite, d store.Dir, name string) map[string]error {
	answers := make(map[string]error)
	_, answers["Lookup"] = d.Lookup(name)
	_, answers["OpenNode"] = d.OpenNode(name)
	_, answers["OpenFile"] = d.OpenFile(name)
	_, answers["OpenDir"] = d.OpenDir(name)
	_, answers["Mkdir"] = d.Mkdir(name, 0o755, s.Owner)
	_, answers["Mknod"] = d.Mknod(name, syscall.S_IFREG|0o644, 0, s.Owner)
	if s.Features.Symlinks {
		_, answers["Symlink"] = d.Symlink(name, "target", s.Owner)
	}
	if s.Features.HardLinks {
		n, err := d.OpenNode("present")
		require.NoError(s.t, err)
		defer n.Close()
		_, answers["Link"] = d.Link(name, n)
	}
	answers["Unlink"] = d.Unlink(name)
	answers["Rmdir"] = d.Rmdir(name)
	answers["Rename from"] = d.Rename(name, d, "new", 0)
	answers["Rename to"] = d.Rename("present", d, name, 0)
	return answers
}

var nameTests = []testCase{
	{"what is no name", nil, func(s *suite) {
		top := s.top()
		s.mkdir(top, "dir")
		s.publish("present", nil)
		for _, name := range []string{"", ".", "..", "/", "a/b", "/a", "a/", "../present", "dir/../present", "a\x00b", "\x00"} {
			for op, err := range operations(s, top, name) {
				wantErr(s.t, syscall.EINVAL, err, op, fmt.Sprintf("%q", name))
			}
		}
		require.Len(s.t, s.names(top), 2)
	}},
	{"what is no path", nil, func(s *suite) {
		s.mkdir(s.mkdir(s.top(), "a"), "b")
		for _, path := range []string{"/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../a", "a/./b", "./a", "a\x00b", "a/\x00"} {
			_, err := s.Store.OpenDir(path)
			wantErr(s.t, syscall.EINVAL, err, path)
			u, f := s.begin("f", []byte("x"))
			f.Path = path
			_, err = u.Complete(background, f)
			wantErr(s.t, syscall.EINVAL, err, path)
		}
	}},
	{"255 bytes and one more", nil, func(s *suite) {
		top := s.top()
		long := strings.Repeat("n", 255)
		s.publish(long, []byte("x"))
		require.Equal(s.t, "x", string(s.read(long)))
		require.Contains(s.t, s.names(top), long)
		require.NoError(s.t, top.Unlink(long))
		s.mkdir(s.mkdir(top, long), long)
		s.publish(long+"/"+long+"/"+long, []byte("y"))
		require.Equal(s.t, "y", string(s.read(long+"/"+long+"/"+long)))

		s.publish("present", nil)
		for op, err := range operations(s, top, long+"n") {
			wantErr(s.t, syscall.ENAMETOOLONG, err, op)
		}
		_, err := s.Store.OpenDir(long + "/" + long + "n")
		wantErr(s.t, syscall.ENAMETOOLONG, err)
		u, f := s.begin("f", nil)
		f.Path = long + "n"
		_, err = u.Complete(background, f)
		wantErr(s.t, syscall.ENAMETOOLONG, err)
	}},
	{"any byte but two", binary, func(s *suite) {
		top := s.top()
		var all []byte
		for b := 1; b < 256; b++ {
			if b != '/' {
				all = append(all, byte(b))
			}
		}
		for _, name := range []string{
			"\xff\xfe", "a\xc3", string(all[:127]), string(all[127:]), " ", "\n", "-rf", "...", "..a", "*", `\`, "%2e%2e", "~", "\u202e", "é", "e\u0301",
		} {
			s.publish(name, []byte(name))
			require.Equal(s.t, name, string(s.read(name)))
			require.Contains(s.t, s.names(top), name)
		}
	}},
	{"paths longer than PATH_MAX", nil, func(s *suite) {
		const depth = 60 // of names of 200 bytes: three times PATH_MAX
		d := s.top()
		var path []string
		for i := range depth {
			name := fmt.Sprintf("%03d-%s", i, strings.Repeat("d", 196))
			path = append(path, name)
			sub := s.mkdir(d, name)
			_ = d.Close()
			d = sub
		}
		deep := strings.Join(path, "/")
		want, err := d.Stat()
		require.NoError(s.t, err)
		got, err := s.openDir(deep).Stat()
		require.NoError(s.t, err)
		require.Equal(s.t, want.ID, got.ID)
		s.publish(deep+"/file", []byte("deep"))
		require.Equal(s.t, "deep", string(s.read(deep+"/file")))
		_, err = s.Store.OpenDir(deep + "/missing")
		wantErr(s.t, syscall.ENOENT, err)
	}},
	{"paths cut at every length", nil, func(s *suite) {
		// Around each multiple of PATH_MAX a piece ends before, at or after a slash.
		d := s.top()
		var path []string
		for range 17 {
			name := strings.Repeat("d", 255)
			path = append(path, name)
			sub := s.mkdir(d, name)
			_ = d.Close()
			d = sub
		}
		base := strings.Join(path, "/") // 17 * 256 - 1
		for n := 1; n <= 255; n += 2 {
			name := strings.Repeat("x", n)
			made, err := d.Mkdir(name, 0o755, s.Owner)
			require.NoError(s.t, err)
			got, err := s.openDir(base + "/" + name).Stat()
			require.NoError(s.t, err)
			require.Equal(s.t, made.ID, got.ID)
		}
	}},
}

package storetest

import (
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

func ptr[T any](v T) *T { return &v }

var nodeTests = []testCase{
	{"attributes of a file", nil, func(s *suite) {
		made := s.publish("f", pattern(1, 12345))
		require.True(s.t, made.IsRegular())
		require.EqualValues(s.t, 12345, made.Size)
		require.NotZero(s.t, made.ID)
		found, err := s.top().Lookup("f")
		require.NoError(s.t, err)
		require.Equal(s.t, made.ID, found.ID)
		require.Equal(s.t, made.Size, found.Size)
		require.WithinDuration(s.t, time.Now(), found.Mtime, time.Hour)
		f := s.openFile("f")
		defer f.Close()
		opened, err := f.Stat()
		require.NoError(s.t, err)
		require.Equal(s.t, found.ID, opened.ID)
	}},
	{"set mode, owner and times", attributes, func(s *suite) {
		s.publish("f", []byte("x"))
		s.mkdir(s.top(), "d")
		for _, name := range []string{"f", "d"} {
			n, err := s.top().OpenNode(name)
			require.NoError(s.t, err)
			defer n.Close()
			// Before 1970, with nanoseconds, and beyond what 64 bits of them hold.
			atime, mtime := time.Unix(-100, 5), time.Unix(1<<32, 123456789)
			a, err := n.SetAttr(store.Change{Mode: ptr(uint32(0o1751)), Atime: &atime, Mtime: &mtime})
			require.NoError(s.t, err)
			require.EqualValues(s.t, 0o1751, a.Mode&0o7777)
			require.True(s.t, atime.Equal(a.Atime), "%v", a.Atime)
			require.True(s.t, mtime.Equal(a.Mtime), "%v", a.Mtime)
			a, err = n.SetAttr(store.Change{UID: &s.Owner.UID, GID: &s.Owner.GID})
			require.NoError(s.t, err)
			require.Equal(s.t, s.Owner, store.Owner{UID: a.UID, GID: a.GID})
			require.True(s.t, mtime.Equal(a.Mtime), "what was not asked for stays")
			a, err = n.SetAttr(store.Change{})
			require.NoError(s.t, err)
			require.EqualValues(s.t, 0o1751, a.Mode&0o7777)
		}
	}},
	{"mode survives a change of owner made together", attributes, func(s *suite) {
		s.publish("f", nil)
		n, err := s.top().OpenNode("f")
		require.NoError(s.t, err)
		defer n.Close()
		a, err := n.SetAttr(store.Change{Mode: ptr(uint32(0o6755)), UID: &s.Owner.UID, GID: &s.Owner.GID})
		require.NoError(s.t, err)
		require.EqualValues(s.t, 0o6755, a.Mode&0o7777)
		a, err = n.SetAttr(store.Change{UID: &s.Owner.UID})
		require.NoError(s.t, err)
		require.EqualValues(s.t, 0o755, a.Mode&0o7777, "chown alone takes suid and sgid away")
	}},
	{"set size", attributes, func(s *suite) {
		s.publish("f", []byte("0123456789"))
		n, err := s.top().OpenNode("f")
		require.NoError(s.t, err)
		defer n.Close()
		mtime := time.Unix(1_000_000, 0)
		a, err := n.SetAttr(store.Change{Size: ptr(int64(4)), Mtime: &mtime})
		require.NoError(s.t, err)
		require.EqualValues(s.t, 4, a.Size)
		require.True(s.t, mtime.Equal(a.Mtime), "the time asked for, not that of truncating")
		a, err = n.SetAttr(store.Change{Size: ptr(int64(6))})
		require.NoError(s.t, err)
		require.EqualValues(s.t, 6, a.Size)
		require.Equal(s.t, "0123\x00\x00", string(s.read("f")))
		f := s.openFile("f") // opened for reading, and yet
		defer f.Close()
		a, err = f.SetAttr(store.Change{Size: ptr(int64(1))})
		require.NoError(s.t, err)
		require.EqualValues(s.t, 1, a.Size)
		_, err = n.SetAttr(store.Change{Size: ptr(int64(-1))})
		wantErr(s.t, syscall.EINVAL, err)
		_, err = s.top().SetAttr(store.Change{Size: ptr(int64(1))})
		wantErr(s.t, syscall.EISDIR, err)
	}},
	{"attributes of a symlink are its own", both(symlinks, attributes), func(s *suite) {
		top := s.top()
		s.publish("f", nil)
		_, err := top.Symlink("l", "f", s.Owner)
		require.NoError(s.t, err)
		before, err := top.Lookup("f")
		require.NoError(s.t, err)
		n, err := top.OpenNode("l")
		require.NoError(s.t, err)
		defer n.Close()
		mtime := time.Unix(77, 7)
		a, err := n.SetAttr(store.Change{UID: &s.Owner.UID, Mtime: &mtime})
		require.NoError(s.t, err)
		require.True(s.t, mtime.Equal(a.Mtime))
		_, err = n.SetAttr(store.Change{Size: ptr(int64(1))})
		wantErr(s.t, syscall.EINVAL, err)
		after, err := top.Lookup("f")
		require.NoError(s.t, err)
		require.Equal(s.t, before, after)
	}},
	{"a node outlives rename and unlink", both(attributes, versions), func(s *suite) {
		top := s.top()
		made := s.publish("f", []byte("x"))
		n, err := top.OpenNode("f")
		require.NoError(s.t, err)
		defer n.Close()
		require.NoError(s.t, top.Rename("f", top, "g", 0))
		s.publish("f", []byte("another"))
		a, err := n.SetAttr(store.Change{Mode: ptr(uint32(0o600))})
		require.NoError(s.t, err)
		require.Equal(s.t, made.ID, a.ID)
		require.NoError(s.t, top.Unlink("g"))
		a, err = n.Stat()
		require.NoError(s.t, err)
		require.Equal(s.t, made.ID, a.ID)
		require.Zero(s.t, a.Nlink)
	}},
	{"a closed node answers with an error", nil, func(s *suite) {
		s.publish("f", []byte("x"))
		d, err := s.Store.OpenDir("")
		require.NoError(s.t, err)
		f, err := d.OpenFile("f")
		require.NoError(s.t, err)
		require.NoError(s.t, f.Close())
		_, err = f.Stat()
		wantErr(s.t, syscall.EBADF, err)
		_, err = f.ReadAt(make([]byte, 1), 0)
		wantErr(s.t, syscall.EBADF, err)
		require.NoError(s.t, d.Close())
		_, err = d.Lookup("f")
		wantErr(s.t, syscall.EBADF, err)
		for _, err := range d.List(background) {
			wantErr(s.t, syscall.EBADF, err)
		}
	}},
	{"extended attributes", xattrs, func(s *suite) {
		s.publish("f", nil)
		s.mkdir(s.top(), "d")
		f := s.openFile("f")
		defer f.Close()
		node, err := s.top().OpenNode("f")
		require.NoError(s.t, err)
		defer node.Close()
		for _, n := range []store.Node{f, node, s.openDir("d")} {
			_, err := n.GetXattr("user.a")
			wantErr(s.t, syscall.ENODATA, err)
			wantErr(s.t, syscall.ENODATA, n.RemoveXattr("user.a"))
			wantErr(s.t, syscall.ENODATA, n.SetXattr("user.a", []byte("1"), 2)) // XATTR_REPLACE
			require.NoError(s.t, n.SetXattr("user.a", []byte("1"), 1))          // XATTR_CREATE
			wantErr(s.t, syscall.EEXIST, n.SetXattr("user.a", []byte("2"), 1))
			require.NoError(s.t, n.SetXattr("user.empty", nil, 0))
			value, err := n.GetXattr("user.a")
			require.NoError(s.t, err)
			require.Equal(s.t, "1", string(value))
			value, err = n.GetXattr("user.empty")
			require.NoError(s.t, err)
			require.NotNil(s.t, value)
			require.Empty(s.t, value)
			names, err := n.ListXattr()
			require.NoError(s.t, err)
			require.Subset(s.t, names, []string{"user.a", "user.empty"})
			require.NoError(s.t, n.RemoveXattr("user.a"))
			require.NoError(s.t, n.RemoveXattr("user.empty"))
		}
	}},
	{"long values and many names", xattrs, func(s *suite) {
		s.publish("f", nil)
		n, err := s.top().OpenNode("f")
		require.NoError(s.t, err)
		defer n.Close()
		for _, size := range []int{1, 511, 512, 513, 1500} {
			require.NoError(s.t, n.SetXattr("user.v", pattern(3, size), 0))
			value, err := n.GetXattr("user.v")
			require.NoError(s.t, err)
			require.Equal(s.t, pattern(3, size), value)
		}
		require.NoError(s.t, n.RemoveXattr("user.v"))
		var want []string
		for i := range 12 {
			name := "user." + strings.Repeat(string(rune('a'+i)), 100)
			require.NoError(s.t, n.SetXattr(name, nil, 0))
			want = append(want, name)
		}
		names, err := n.ListXattr()
		require.NoError(s.t, err)
		require.Subset(s.t, names, want)
	}},
}

package storetest

import (
	"syscall"

	"github.com/stretchr/testify/require"

	"github.com/wholefs/wholefs/store"
)

var createTests = []testCase{
	{"what is made has its owner and all bits of its mode", attributes, func(s *suite) {
		top := s.top()
		for name, mode := range map[string]uint32{
			"none": 0, "open": 0o777, "private": 0o700, "sticky": 0o1777, "suid": 0o4755, "sgid": 0o2755, "all": 0o7777,
		} {
			a, err := top.Mkdir("dir-"+name, mode, s.Owner)
			require.NoError(s.t, err)
			require.EqualValues(s.t, syscall.S_IFDIR|mode, a.Mode, "dir %s: %o", name, a.Mode)
			require.Equal(s.t, s.Owner, store.Owner{UID: a.UID, GID: a.GID})
			found, err := top.Lookup("dir-" + name)
			require.NoError(s.t, err)
			require.Equal(s.t, a, found, "Mkdir returns what Lookup tells")

			a, err = top.Mknod("file-"+name, syscall.S_IFREG|mode, 0, s.Owner)
			require.NoError(s.t, err)
			require.EqualValues(s.t, syscall.S_IFREG|mode, a.Mode, "file %s: %o", name, a.Mode)
			require.Equal(s.t, s.Owner, store.Owner{UID: a.UID, GID: a.GID})
		}
	}},
	{"a symlink has its owner", both(symlinks, attributes), func(s *suite) {
		a, err := s.top().Symlink("l", "x", s.Owner)
		require.NoError(s.t, err)
		require.Equal(s.t, s.Owner, store.Owner{UID: a.UID, GID: a.GID})
	}},
	{"a setgid directory gives its group", both(setgid, attributes), func(s *suite) {
		const group = 4242
		top := s.top()
		d := s.mkdir(top, "shared")
		_, err := d.SetAttr(store.Change{GID: ptr(uint32(group)), Mode: ptr(uint32(0o2775))})
		require.NoError(s.t, err)

		sub, err := d.Mkdir("dir", 0o755, s.Owner)
		require.NoError(s.t, err)
		require.EqualValues(s.t, group, sub.GID)
		require.Equal(s.t, s.Owner.UID, sub.UID)
		require.EqualValues(s.t, 0o2755, sub.Mode&0o7777, "and its setgid bit: %o", sub.Mode)
		deeper, err := s.openDir("shared/dir").Mkdir("deeper", 0o1700, s.Owner)
		require.NoError(s.t, err)
		require.EqualValues(s.t, group, deeper.GID)
		require.EqualValues(s.t, 0o3700, deeper.Mode&0o7777, "%o", deeper.Mode)

		file, err := d.Mknod("file", syscall.S_IFREG|0o644, 0, s.Owner)
		require.NoError(s.t, err)
		require.EqualValues(s.t, group, file.GID)
		require.EqualValues(s.t, 0o644, file.Mode&0o7777, "a file gets the group, not the bit")
		if s.Features.Symlinks {
			link, err := d.Symlink("link", "x", s.Owner)
			require.NoError(s.t, err)
			require.EqualValues(s.t, group, link.GID)
		}
		if s.Features.Mknod {
			fifo, err := d.Mknod("fifo", syscall.S_IFIFO|0o600, 0, s.Owner)
			require.NoError(s.t, err)
			require.EqualValues(s.t, group, fifo.GID)
		}
	}},
	{"a directory is no node to make", nil, func(s *suite) {
		_, err := s.top().Mknod("d", syscall.S_IFDIR|0o755, 0, s.Owner)
		wantErr(s.t, syscall.EINVAL, err)
		s.absent(s.top(), "d")
	}},
	{"a symlink needs a target that fits", symlinks, func(s *suite) {
		_, err := s.top().Symlink("l", "", s.Owner)
		wantErr(s.t, syscall.ENOENT, err)
		_, err = s.top().Symlink("l", "a\x00b", s.Owner)
		wantErr(s.t, syscall.EINVAL, err)
	}},
}

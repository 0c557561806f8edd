package storetest

import (
	"io"
	"syscall"

	"github.com/stretchr/testify/require"
)

var namespaceTests = []testCase{
	{"a fresh store is empty", nil, func(s *suite) {
		require.Empty(s.t, s.names(s.top()))
		a, err := s.top().Stat()
		require.NoError(s.t, err)
		require.True(s.t, a.IsDir())
		require.NotEmpty(s.t, s.Store.String())
	}},
	{"mkdir, lookup, open, rmdir", nil, func(s *suite) {
		top := s.top()
		made, err := top.Mkdir("d", 0o755, s.Owner)
		require.NoError(s.t, err)
		require.True(s.t, made.IsDir())
		found, err := top.Lookup("d")
		require.NoError(s.t, err)
		require.Equal(s.t, made.ID, found.ID)
		d, err := top.OpenDir("d")
		require.NoError(s.t, err)
		defer d.Close()
		opened, err := d.Stat()
		require.NoError(s.t, err)
		require.Equal(s.t, made.ID, opened.ID)
		require.NoError(s.t, top.Rmdir("d"))
		s.absent(top, "d")
	}},
	{"directories in directories, opened by path", nil, func(s *suite) {
		c := s.mkdir(s.mkdir(s.mkdir(s.top(), "a"), "b"), "c")
		want, err := c.Stat()
		require.NoError(s.t, err)
		got, err := s.openDir("a/b/c").Stat()
		require.NoError(s.t, err)
		require.Equal(s.t, want.ID, got.ID)
		_, err = s.Store.OpenDir("a/x/c")
		wantErr(s.t, syscall.ENOENT, err)
	}},
	{"what is missing is ENOENT", nil, func(s *suite) {
		top := s.top()
		s.absent(top, "x")
		_, err := top.OpenNode("x")
		wantErr(s.t, syscall.ENOENT, err)
		_, err = top.OpenFile("x")
		wantErr(s.t, syscall.ENOENT, err)
		_, err = top.OpenDir("x")
		wantErr(s.t, syscall.ENOENT, err)
		_, err = s.Store.OpenDir("x")
		wantErr(s.t, syscall.ENOENT, err)
		wantErr(s.t, syscall.ENOENT, top.Unlink("x"))
		wantErr(s.t, syscall.ENOENT, top.Rmdir("x"))
		wantErr(s.t, syscall.ENOENT, top.Rename("x", top, "y", 0))
	}},
	{"the wrong type is an error of its own", nil, func(s *suite) {
		top := s.top()
		s.mkdir(top, "d")
		s.publish("f", []byte("x"))
		_, err := top.OpenFile("d")
		wantErr(s.t, syscall.EISDIR, err)
		_, err = top.OpenDir("f")
		wantErr(s.t, syscall.ENOTDIR, err)
		_, err = s.Store.OpenDir("f")
		wantErr(s.t, syscall.ENOTDIR, err)
		_, err = s.Store.OpenDir("f/x")
		wantErr(s.t, syscall.ENOTDIR, err)
		wantErr(s.t, syscall.EISDIR, top.Unlink("d"))
		wantErr(s.t, syscall.ENOTDIR, top.Rmdir("f"))
	}},
	{"what is there is not made again", nil, func(s *suite) {
		top := s.top()
		s.mkdir(top, "d")
		s.publish("f", []byte("x"))
		for _, name := range []string{"d", "f"} {
			_, err := top.Mkdir(name, 0o755, s.Owner)
			wantErr(s.t, syscall.EEXIST, err)
			_, err = top.Mknod(name, syscall.S_IFREG|0o644, 0, s.Owner)
			wantErr(s.t, syscall.EEXIST, err)
		}
		require.Equal(s.t, "x", string(s.read("f")))
	}},
	{"a directory with something in it stays", nil, func(s *suite) {
		top := s.top()
		d := s.mkdir(top, "d")
		s.publish("d/f", nil)
		wantErr(s.t, syscall.ENOTEMPTY, top.Rmdir("d"))
		require.NoError(s.t, d.Unlink("f"))
		require.NoError(s.t, top.Rmdir("d"))
	}},
	{"unlink", nil, func(s *suite) {
		top := s.top()
		s.publish("f", []byte("x"))
		require.NoError(s.t, top.Unlink("f"))
		s.absent(top, "f")
		wantErr(s.t, syscall.ENOENT, top.Unlink("f"))
	}},
	{"an open file outlives its name", versions, func(s *suite) {
		s.publish("f", []byte("content"))
		f := s.openFile("f")
		defer f.Close()
		require.NoError(s.t, s.top().Unlink("f"))
		require.Equal(s.t, "content", string(contentOf(s.t, f)))
	}},
	{"an open directory follows its rename", nil, func(s *suite) {
		top := s.top()
		d := s.mkdir(top, "d")
		require.NoError(s.t, top.Rename("d", top, "e", 0))
		s.publish("e/f", []byte("x"))
		a, err := d.Lookup("f")
		require.NoError(s.t, err)
		require.EqualValues(s.t, 1, a.Size)
	}},
	{"an open directory that was removed takes nothing", nil, func(s *suite) {
		top := s.top()
		d := s.mkdir(top, "d")
		require.NoError(s.t, top.Rmdir("d"))
		s.absent(d, "x")
		_, err := d.Mkdir("x", 0o755, s.Owner)
		wantErr(s.t, syscall.ENOENT, err)
	}},
	{"link", hardLinks, func(s *suite) {
		top := s.top()
		made := s.publish("f", []byte("x"))
		n, err := top.OpenNode("f")
		require.NoError(s.t, err)
		defer n.Close()
		linked, err := s.mkdir(top, "d").Link("g", n)
		require.NoError(s.t, err)
		require.Equal(s.t, made.ID, linked.ID)
		require.EqualValues(s.t, 2, linked.Nlink)
		_, err = top.Link("f", n)
		wantErr(s.t, syscall.EEXIST, err)
		f, err := top.OpenFile("f") // a File is a Node
		require.NoError(s.t, err)
		defer f.Close()
		_, err = top.Link("h", f)
		require.NoError(s.t, err)
		require.NoError(s.t, top.Unlink("f"))
		require.Equal(s.t, "x", string(s.read("d/g")))
	}},
	{"no link to a directory", hardLinks, func(s *suite) {
		d := s.mkdir(s.top(), "d")
		_, err := s.top().Link("e", d)
		wantErr(s.t, syscall.EPERM, err)
	}},
	{"no link to what has no name any more", hardLinks, func(s *suite) {
		top := s.top()
		s.publish("f", nil)
		f := s.openFile("f")
		defer f.Close()
		require.NoError(s.t, top.Unlink("f"))
		_, err := top.Link("g", f)
		wantErr(s.t, syscall.ENOENT, err)
	}},
	{"link and rename take only what is of this store", nil, func(s *suite) {
		other := s.Reopen(s.t)
		defer other.Close()
		foreign, err := other.OpenDir("")
		require.NoError(s.t, err)
		defer foreign.Close()
		s.publish("f", nil)
		wantErr(s.t, syscall.EXDEV, s.top().Rename("f", foreign, "g", 0))
		if s.Features.HardLinks {
			n, err := foreign.OpenNode("f")
			require.NoError(s.t, err)
			defer n.Close()
			_, err = s.top().Link("g", n)
			wantErr(s.t, syscall.EXDEV, err)
		}
	}},
	{"symlink", symlinks, func(s *suite) {
		top := s.top()
		for name, target := range map[string]string{"dangling": "nowhere", "out": "../../etc", "absolute": "/etc/passwd", "binary": "a\xffb"} {
			a, err := top.Symlink(name, target, s.Owner)
			require.NoError(s.t, err)
			require.EqualValues(s.t, syscall.S_IFLNK, a.Mode&syscall.S_IFMT)
			found, err := top.Lookup(name)
			require.NoError(s.t, err)
			require.Equal(s.t, a.ID, found.ID)
			n, err := top.OpenNode(name)
			require.NoError(s.t, err)
			got, err := n.Readlink()
			require.NoError(s.t, err)
			require.Equal(s.t, target, got)
			require.NoError(s.t, n.Close())
		}
	}},
	{"a symlink is not followed", symlinks, func(s *suite) {
		top := s.top()
		s.mkdir(top, "d")
		s.publish("f", []byte("x"))
		for link, target := range map[string]string{"toDir": "d", "toFile": "f", "loop": "loop"} {
			_, err := top.Symlink(link, target, s.Owner)
			require.NoError(s.t, err)
			_, err = top.OpenFile(link)
			wantErr(s.t, syscall.ELOOP, err)
			_, err = top.OpenDir(link)
			wantErr(s.t, syscall.ELOOP, err)
			_, err = s.Store.OpenDir(link)
			wantErr(s.t, syscall.ELOOP, err)
			_, err = s.Store.OpenDir(link + "/x")
			wantErr(s.t, syscall.ELOOP, err)
		}
		require.NoError(s.t, top.Unlink("toFile"))
		require.Equal(s.t, "x", string(s.read("f")), "the link goes, not its target")
	}},
	{"readlink of what is none", nil, func(s *suite) {
		s.publish("f", nil)
		f := s.openFile("f")
		defer f.Close()
		_, err := f.Readlink()
		wantErr(s.t, syscall.EINVAL, err)
		_, err = s.top().Readlink()
		wantErr(s.t, syscall.EINVAL, err)
	}},
	{"a fifo is no file and blocks nobody", mknod, func(s *suite) {
		top := s.top()
		a, err := top.Mknod("fifo", syscall.S_IFIFO|0o644, 0, s.Owner)
		require.NoError(s.t, err)
		require.EqualValues(s.t, syscall.S_IFIFO, a.Mode&syscall.S_IFMT)
		_, err = top.OpenFile("fifo")
		wantErr(s.t, syscall.ENXIO, err)
		_, err = top.OpenDir("fifo")
		wantErr(s.t, syscall.ENOTDIR, err)
		n, err := top.OpenNode("fifo")
		require.NoError(s.t, err)
		require.NoError(s.t, n.Close())
	}},
	{"an empty regular file by mknod", nil, func(s *suite) {
		a, err := s.top().Mknod("f", syscall.S_IFREG|0o640, 0, s.Owner)
		require.NoError(s.t, err)
		require.True(s.t, a.IsRegular())
		require.Empty(s.t, s.read("f"))
	}},
	{"space", nil, func(s *suite) {
		sp, err := s.Store.Space()
		require.NoError(s.t, err)
		require.Positive(s.t, sp.BlockSize)
		require.GreaterOrEqual(s.t, sp.Blocks, sp.BlocksFree)
		require.GreaterOrEqual(s.t, sp.BlocksFree, sp.BlocksAvail)
		require.GreaterOrEqual(s.t, sp.Files, sp.FilesFree)
		require.NotZero(s.t, sp.NameMax)
	}},
	{"sync", nil, func(s *suite) {
		require.NoError(s.t, s.top().Sync())
		require.NoError(s.t, s.mkdir(s.top(), "d").Sync())
	}},
	{"reading", nil, func(s *suite) {
		content := pattern(1, 100_000)
		s.publish("f", content)
		f := s.openFile("f")
		defer f.Close()
		buf := make([]byte, 1000)
		n, err := f.ReadAt(buf, 50_000)
		require.NoError(s.t, err)
		require.Equal(s.t, content[50_000:51_000], buf[:n])
		n, err = f.ReadAt(buf, 99_500)
		require.Equal(s.t, io.EOF, err)
		require.Equal(s.t, content[99_500:], buf[:n])
		n, err = f.ReadAt(buf, 100_000)
		require.Equal(s.t, io.EOF, err)
		require.Zero(s.t, n)
		_, err = f.ReadAt(buf, -1)
		wantErr(s.t, syscall.EINVAL, err)
	}},
	{"data and holes", nil, func(s *suite) {
		s.publish("f", pattern(2, 5000))
		f := s.openFile("f")
		defer f.Close()
		off, err := f.SeekData(100)
		require.NoError(s.t, err)
		require.EqualValues(s.t, 100, off)
		off, err = f.SeekHole(100)
		require.NoError(s.t, err)
		require.EqualValues(s.t, 5000, off, "one hole at the end")
		_, err = f.SeekData(5000)
		wantErr(s.t, syscall.ENXIO, err)
		_, err = f.SeekHole(5001)
		wantErr(s.t, syscall.ENXIO, err)
	}},
}

package fusefs

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/wholefs/wholefs/store"
)

func TestUnlinkOfAnUnfinishedFile(t *testing.T) {
	r := newRig(t, "")
	f := r.create("a")
	f.write(0, "data")
	r.ok(r.unlink("a"))
	r.absent("a")
	equal(t, "listed", r.names(root), "")
	f.write(4, " more")
	equal(t, "read through the handle", f.read(), "data more")
	equal(t, "links", f.stat().Nlink, 0)
	equal(t, "size", f.stat().Size, 9)
	f.close()
	equal(t, "store", r.stored("a"), "-")
}

func TestUnlinkOfAnUpdatedFile(t *testing.T) {
	r := newRig(t, "")
	r.put("a", "old")
	reader, w := r.open("a", syscall.O_RDONLY), r.open("a", syscall.O_RDWR)
	w.write(0, "new")
	r.ok(r.unlink("a"))
	equal(t, "store", r.stored("a"), "-")
	w.close()
	equal(t, "store after the close", r.stored("a"), "-")
	// The writer has gone, the reader has not.
	equal(t, "reader", reader.read(), "new")
	equal(t, "size", reader.stat().Size, 3)
	reader.close()
	r.put("a", "another")
	equal(t, "store", r.stored("a"), "another")
}

func TestWriteAfterUnlink(t *testing.T) {
	r := newRig(t, "")
	r.put("a", "old")
	w := r.open("a", syscall.O_RDWR)
	r.ok(r.unlink("a"))
	r.put("a", "other")
	w.write(0, "O")
	equal(t, "read back", w.read(), "Old")
	w.close()
	equal(t, "store", r.stored("a"), "other")
}

func TestUnlinkedFileCanStillBeUsed(t *testing.T) {
	r := newRig(t, "")
	f := r.put("a", "content")
	reader := r.open("a", syscall.O_RDONLY)
	g := r.put("b", "closed, but a process sits on the inode")
	r.ok(r.unlink("a"))
	r.ok(r.unlink("b"))
	r.is(r.unlink("a"), syscall.ENOENT)
	equal(t, "read", reader.read(), "content")
	equal(t, "links of a", f.stat().Nlink, 0)
	equal(t, "links of b", g.stat().Nlink, 0)
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(g.node), Valid: fuse.FATTR_MODE, Mode: 0o600}}
	var out fuse.AttrOut
	r.ok(r.fs.SetAttr(nil, &in, &out))
	equal(t, "mode", out.Mode, syscall.S_IFREG|0o600)
	reader.close()
}

func TestHardLinksAreOneNode(t *testing.T) {
	r := newRig(t, "")
	f := r.put("a", "content")
	e, status := r.link("a", "b")
	r.ok(status)
	equal(t, "node", e.NodeId, f.node)
	equal(t, "links", e.Nlink, 2)
	r.must(os.Link(filepath.Join(r.dir, "a"), filepath.Join(r.dir, "c")))
	equal(t, "node of c, made outside", r.find("c").NodeId, f.node)

	w := r.open("b", syscall.O_WRONLY)
	w.write(0, "CON")
	equal(t, "through the other name, unfinished", r.content("a"), "CONtent")
	equal(t, "links, unfinished", w.stat().Nlink, 3)
	w.close()
	for _, name := range []string{"a", "b", "c"} {
		equal(t, "store "+name, r.stored(name), "CONtent")
		equal(t, "node of "+name, r.find(name).NodeId, f.node)
	}
	// The name that the session was begun under goes; the file stays.
	w = r.open("a", syscall.O_WRONLY)
	w.write(0, "con")
	r.ok(r.unlink("a"))
	equal(t, "links", w.stat().Nlink, 2)
	w.close()
	equal(t, "store b", r.stored("b"), "content")
	equal(t, "store a", r.stored("a"), "-")
}

func TestLinkRefusals(t *testing.T) {
	r := newRig(t, "")
	r.mkdir("dir")
	f := r.create("unfinished")
	f.write(0, "x")
	_, status := r.link("unfinished", "b")
	r.is(status, syscall.EBUSY)
	r.put("a", "x")
	_, status = r.link("a", "unfinished")
	r.is(status, syscall.EEXIST)
	_, status = r.link("dir", "c")
	r.is(status, syscall.EPERM)
	_, status = r.link("a", "dir")
	r.is(status, syscall.EEXIST)
	f.close()
	_, status = r.link("unfinished", "b")
	r.ok(status)
}

func TestRename(t *testing.T) {
	const (
		none       = "-"
		published  = "published"  // in the store
		unfinished = "unfinished" // session only
		updated    = "updated"    // both
		directory  = "directory"
		full       = "full" // a directory with an unfinished file
	)
	for _, c := range []struct {
		from, to string
		flags    uint32
		errno    syscall.Errno
		// What the names show in the mount, and in the store before and after
		// everything is closed.
		a, b                     string
		storeA, storeB           string
		storeAClosed, storeBLate string
	}{
		{from: none, to: none, errno: syscall.ENOENT},
		{from: published, to: none, a: "-", b: "A", storeA: "-", storeB: "A", storeAClosed: "-", storeBLate: "A"},
		{from: published, to: published, a: "-", b: "A", storeA: "-", storeB: "A", storeAClosed: "-", storeBLate: "A"},
		{from: published, to: unfinished, a: "-", b: "A", storeA: "-", storeB: "A", storeAClosed: "-", storeBLate: "A"},
		{from: published, to: updated, a: "-", b: "A", storeA: "-", storeB: "A", storeAClosed: "-", storeBLate: "A"},
		{from: unfinished, to: none, a: "-", b: "A+", storeA: "-", storeB: "-", storeAClosed: "-", storeBLate: "A+"},
		{from: unfinished, to: published, a: "-", b: "A+", storeA: "-", storeB: "B", storeAClosed: "-", storeBLate: "A+"},
		{from: unfinished, to: unfinished, a: "-", b: "A+", storeA: "-", storeB: "-", storeAClosed: "-", storeBLate: "A+"},
		{from: updated, to: none, a: "-", b: "A+", storeA: "-", storeB: "A", storeAClosed: "-", storeBLate: "A+"},
		{from: updated, to: updated, a: "-", b: "A+", storeA: "-", storeB: "A", storeAClosed: "-", storeBLate: "A+"},

		{from: published, to: directory, errno: syscall.EISDIR},
		{from: unfinished, to: directory, errno: syscall.EISDIR},
		{from: directory, to: published, errno: syscall.ENOTDIR},
		{from: directory, to: unfinished, errno: syscall.ENOTDIR},
		{from: directory, to: full, errno: syscall.ENOTEMPTY},

		{from: published, to: published, flags: store.RenameNoReplace, errno: syscall.EEXIST},
		{from: published, to: unfinished, flags: store.RenameNoReplace, errno: syscall.EEXIST},
		{from: unfinished, to: published, flags: store.RenameNoReplace, errno: syscall.EEXIST},
		{from: unfinished, to: unfinished, flags: store.RenameNoReplace, errno: syscall.EEXIST},
		{from: published, to: none, flags: store.RenameNoReplace, a: "-", b: "A", storeA: "-", storeB: "A", storeAClosed: "-", storeBLate: "A"},
		{from: unfinished, to: none, flags: store.RenameNoReplace, a: "-", b: "A+", storeA: "-", storeB: "-", storeAClosed: "-", storeBLate: "A+"},

		{from: published, to: none, flags: store.RenameExchange, errno: syscall.ENOENT},
		{from: published, to: published, flags: store.RenameExchange, a: "B", b: "A", storeA: "B", storeB: "A", storeAClosed: "B", storeBLate: "A"},
		{from: published, to: unfinished, flags: store.RenameExchange, a: "B+", b: "A", storeA: "-", storeB: "A", storeAClosed: "B+", storeBLate: "A"},
		{from: unfinished, to: updated, flags: store.RenameExchange, a: "B+", b: "A+", storeA: "B", storeB: "-", storeAClosed: "B+", storeBLate: "A+"},
		{from: unfinished, to: unfinished, flags: store.RenameExchange, a: "B+", b: "A+", storeA: "-", storeB: "-", storeAClosed: "B+", storeBLate: "A+"},

		{from: published, to: none, flags: 4, errno: syscall.EINVAL}, // RENAME_WHITEOUT
		{from: published, to: none, flags: 3, errno: syscall.EINVAL},
	} {
		t.Run(c.from+" to "+c.to, func(t *testing.T) {
			r := newRig(t, "")
			r.mkdir("x")
			r.mkdir("y")
			var files []file
			prepare := func(kind, path, content string) {
				switch kind {
				case published:
					r.put(path, content)
				case updated:
					r.put(path, content)
					w := r.open(path, syscall.O_WRONLY)
					w.write(0, content+"+")
					files = append(files, w)
				case unfinished:
					w := r.create(path)
					w.write(0, content+"+")
					files = append(files, w)
				case directory:
					r.mkdir(path)
				case full:
					r.mkdir(path)
					files = append(files, r.create(path+"/file"))
				}
			}
			prepare(c.from, "x/a", "A")
			prepare(c.to, "y/b", "B")
			before, _ := r.lookup("x/a")
			r.is(r.rename("x/a", "y/b", c.flags), c.errno)
			show := func(path string) string {
				if _, status := r.lookup(path); !status.Ok() {
					return "-"
				}
				return r.content(path)
			}
			if c.errno == 0 {
				equal(t, "a in the mount", show("x/a"), c.a)
				equal(t, "b in the mount", show("y/b"), c.b)
				equal(t, "a in the store", r.stored("x/a"), c.storeA)
				equal(t, "b in the store", r.stored("y/b"), c.storeB)
				equal(t, "node that moved", r.find("y/b").NodeId, before.NodeId)
				equal(t, "ino that moved", r.find("y/b").Ino, before.Ino)
			}
			for _, f := range files {
				f.close()
			}
			if c.errno == 0 {
				equal(t, "a in the store after the closes", r.stored("x/a"), c.storeAClosed)
				equal(t, "b in the store after the closes", r.stored("y/b"), c.storeBLate)
				equal(t, "b in the mount after the closes", show("y/b"), c.storeBLate)
				equal(t, "node after the closes", r.find("y/b").NodeId, before.NodeId)
			}
		})
	}
}

func TestRenameOfADirectoryTakesUnfinishedFilesAlong(t *testing.T) {
	r := newRig(t, "")
	r.mkdir("old")
	r.mkdir("old/sub")
	f := r.create("old/sub/f")
	f.write(0, "x")
	r.ok(r.rename("old", "new", 0))
	r.absent("old")
	equal(t, "node", r.find("new/sub/f").NodeId, f.node)
	equal(t, "listed", r.names(r.find("new/sub").NodeId), "f")
	f.close()
	equal(t, "store", r.stored("new/sub/f"), "x")
	r.is(r.rename("new", "new/sub/below", 0), syscall.EINVAL)
}

func TestRenameOverAnOpenFileKeepsItsReaders(t *testing.T) {
	r := newRig(t, "")
	r.put("a", "new")
	r.put("b", "old")
	reader := r.open("b", syscall.O_RDONLY)
	r.ok(r.rename("a", "b", 0))
	equal(t, "reader", reader.read(), "old")
	equal(t, "links", reader.stat().Nlink, 0)
	equal(t, "name", r.content("b"), "new")
	reader.close()
}

func TestUnfinishedFileTakesTheNameOfAnOpenOne(t *testing.T) {
	r := newRig(t, "")
	old := r.put("b", "old")
	reader := r.open("b", syscall.O_RDONLY)
	f := r.create("a")
	f.write(0, "new")
	r.ok(r.rename("a", "b", 0))
	equal(t, "mount", r.content("b"), "new")
	equal(t, "store", r.stored("b"), "old")
	equal(t, "reader", reader.read(), "old")
	equal(t, "old inode", old.stat().Size, 3)
	f.close()
	equal(t, "store", r.stored("b"), "new")
	equal(t, "reader", reader.read(), "old")
	reader.close()
}

func TestRmdirWithUnfinishedFiles(t *testing.T) {
	r := newRig(t, "")
	r.mkdir("dir")
	f := r.create("dir/f")
	r.is(r.rmdir("dir"), syscall.ENOTEMPTY)
	r.is(r.unlink("dir"), syscall.EISDIR)
	r.is(r.rmdir("dir/f"), syscall.ENOTDIR)
	r.ok(r.unlink("dir/f"))
	r.ok(r.rmdir("dir"))
	r.absent("dir")
	f.close()
}

func TestNamesOfUnfinishedFilesAreTaken(t *testing.T) {
	r := newRig(t, "")
	f := r.create("a")
	h := header(root)
	r.is(r.fs.Mkdir(nil, &fuse.MkdirIn{InHeader: h}, "a", &fuse.EntryOut{}), syscall.EEXIST)
	r.is(r.fs.Symlink(nil, &h, "x", "a", &fuse.EntryOut{}), syscall.EEXIST)
	r.is(r.fs.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: syscall.S_IFIFO | 0o600}, "a", &fuse.EntryOut{}), syscall.EEXIST)
	r.is(r.fs.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: syscall.S_IFREG | 0o600}, "a", &fuse.EntryOut{}), syscall.EEXIST)
	r.is(r.fs.Create(nil, &fuse.CreateIn{InHeader: h, Flags: syscall.O_EXCL}, "a", &fuse.CreateOut{}), syscall.EEXIST)
	// Without O_EXCL it is opened.
	var out fuse.CreateOut
	r.ok(r.fs.Create(nil, &fuse.CreateIn{InHeader: h, Flags: syscall.O_WRONLY}, "a", &out))
	equal(t, "node", out.NodeId, f.node)
	g := file{r, out.NodeId, out.Ino, out.Fh}
	g.write(0, "by the second")
	r.ok(f.flush())
	equal(t, "store while the second has it open", r.stored("a"), "-")
	f.release()
	g.close()
	equal(t, "store", r.stored("a"), "by the second")
}

func TestMknodAndSymlink(t *testing.T) {
	r := newRig(t, "")
	h := header(root)
	var out fuse.EntryOut
	r.ok(r.fs.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: syscall.S_IFREG | 0o640}, "file", &out))
	equal(t, "store", r.stored("file"), "")
	equal(t, "mode", out.Mode, syscall.S_IFREG|0o640)
	equal(t, "ino", r.find("file").Ino, out.Ino)
	r.ok(r.fs.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: syscall.S_IFIFO | 0o600}, "pipe", &out))
	equal(t, "mode", out.Mode, syscall.S_IFIFO|0o600)
	r.ok(r.fs.Symlink(nil, &h, "no/where", "link", &out))
	lh := header(out.NodeId)
	target, status := r.fs.Readlink(nil, &lh)
	r.ok(status)
	equal(t, "target", string(target), "no/where")
	equal(t, "listed", r.names(root), "file link pipe")
}

func TestSetgidDirectoryGivesItsGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to give files away")
	}
	r := newRig(t, "")
	r.must(os.Mkdir(filepath.Join(r.dir, "dir"), 0o755))
	r.must(os.Chown(filepath.Join(r.dir, "dir"), 0, 1234))
	r.must(syscall.Chmod(filepath.Join(r.dir, "dir"), 0o2755))
	in := fuse.CreateIn{InHeader: header(r.find("dir").NodeId), Flags: syscall.O_WRONLY, Mode: 0o644}
	in.Uid, in.Gid = 4321, 4321
	var out fuse.CreateOut
	r.ok(r.fs.Create(nil, &in, "f", &out))
	equal(t, "owner", out.Owner, fuse.Owner{Uid: 4321, Gid: 1234})
	f := file{r, out.NodeId, out.Ino, out.Fh}
	f.close()
	equal(t, "owner in the store", r.find("dir/f").Owner, fuse.Owner{Uid: 4321, Gid: 1234})
}

func TestDefaultACLIsInherited(t *testing.T) {
	// d:u::rwx,d:u:1002:rwx,d:g::r-x,d:m::rwx,d:o::r-x
	acl := []byte("\x02\x00\x00\x00" +
		"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xea\x03\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff")
	r := newRig(t, "")
	for _, path := range []string{"plain", "mount"} {
		r.must(os.Mkdir(filepath.Join(r.dir, path), 0o755))
		r.must(syscall.Setxattr(filepath.Join(r.dir, path), defaultACL, acl, 0))
	}
	old := syscall.Umask(0o027)
	f, err := os.OpenFile(filepath.Join(r.dir, "plain/f"), os.O_CREATE, 0o666)
	r.must(err)
	f.Close()
	r.must(os.Mkdir(filepath.Join(r.dir, "plain/d"), 0o777))
	syscall.Umask(0)
	defer syscall.Umask(old)

	h := header(r.find("mount").NodeId)
	var out fuse.CreateOut
	r.ok(r.fs.Create(nil, &fuse.CreateIn{InHeader: h, Flags: syscall.O_WRONLY, Mode: syscall.S_IFREG | 0o666, Umask: 0o027}, "f", &out))
	file{r, out.NodeId, out.Ino, out.Fh}.close()
	r.ok(r.fs.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o777, Umask: 0o027}, "d", &fuse.EntryOut{}))
	for _, name := range []string{"f", "d"} {
		var want, got [100]byte
		n, err := syscall.Getxattr(filepath.Join(r.dir, "plain", name), accessACL, want[:])
		r.must(err)
		m, err := syscall.Getxattr(filepath.Join(r.dir, "mount", name), accessACL, got[:])
		r.must(err)
		equal(t, "ACL of "+name, string(got[:m]), string(want[:n]))
		equal(t, "mode of "+name, r.find("mount/"+name).Mode, r.find("plain/"+name).Mode)
	}

	// Without a default ACL it is the umask that counts.
	h = header(root)
	r.ok(r.fs.Create(nil, &fuse.CreateIn{InHeader: h, Flags: syscall.O_WRONLY, Mode: syscall.S_IFREG | 0o666, Umask: 0o027}, "f", &out))
	equal(t, "mode", out.Attr.Mode, syscall.S_IFREG|0o640)
}

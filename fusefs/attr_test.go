package fusefs

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func (r *rig) setAttr(path string, change func(in *fuse.SetAttrIn)) fuse.Attr {
	r.Helper()
	in := fuse.SetAttrIn{}
	in.InHeader = header(r.find(path).NodeId)
	change(&in)
	var out fuse.AttrOut
	r.ok(r.fs.SetAttr(nil, &in, &out))
	return out.Attr
}

func TestAttributesSetWhileOpenArePublished(t *testing.T) {
	r := newRig(t, "")
	f := r.create("a")
	f.write(0, "x")
	a := r.setAttr("a", func(in *fuse.SetAttrIn) {
		in.Valid = fuse.FATTR_MODE | fuse.FATTR_MTIME | fuse.FATTR_ATIME
		in.Mode, in.Mtime, in.Mtimensec, in.Atime = syscall.S_IFREG|0o604, 1_000_000, 5, 2_000_000
	})
	equal(t, "mode", a.Mode, syscall.S_IFREG|0o604)
	f.close()
	info, err := os.Stat(filepath.Join(r.dir, "a"))
	r.must(err)
	equal(t, "published mode", info.Mode().Perm(), 0o604)
	equal(t, "published mtime", info.ModTime().Equal(time.Unix(1_000_000, 5)), true)
	e := r.find("a")
	equal(t, "mtime", e.Mtime, 1_000_000)
	equal(t, "atime", e.Atime, 2_000_000)
	equal(t, "block size", e.Blksize, DefaultBlockSize)
}

func TestUpdateKeepsModeAndXattrs(t *testing.T) {
	r := newRig(t, "")
	r.put("a", "x")
	r.setAttr("a", func(in *fuse.SetAttrIn) { in.Valid, in.Mode = fuse.FATTR_MODE, 0o751 })
	n := r.find("a").NodeId
	r.ok(r.fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: header(n)}, "user.colour", []byte("blue")))
	w := r.open("a", syscall.O_WRONLY)
	w.write(0, "y")
	w.close()
	equal(t, "mode", r.find("a").Mode, syscall.S_IFREG|0o751)
	h := header(n)
	buf := make([]byte, 100)
	size, status := r.fs.GetXAttr(nil, &h, "user.colour", buf)
	r.ok(status)
	equal(t, "xattr", string(buf[:size]), "blue")
}

func TestTimeouts(t *testing.T) {
	r := newRig(t, "", func(o *Options) {
		o.AttrTimeout, o.EntryTimeout, o.NegativeTimeout = 2*time.Second, 3*time.Second, 4*time.Second
	})
	f := r.create("a")
	e := r.find("a")
	equal(t, "attributes of an unfinished file", e.AttrTimeout(), 0)
	equal(t, "entry of an unfinished file", e.EntryTimeout(), 3*time.Second)
	f.close()
	e = r.find("a")
	equal(t, "attributes of a published file", e.AttrTimeout(), 2*time.Second)
	h := header(root)
	var out fuse.EntryOut
	r.ok(r.fs.Lookup(nil, &h, "absent", &out))
	equal(t, "node of an absent name", out.NodeId, 0)
	equal(t, "entry of an absent name", out.EntryTimeout(), 4*time.Second)
}

func TestPrivilegesAreCleared(t *testing.T) {
	const privileged = 0o6775
	for _, c := range []struct {
		name string
		do   func(r *rig)
		want uint32
	}{
		{"nothing", func(r *rig) {}, privileged},
		{"write by root", func(r *rig) {
			w := r.open("a", syscall.O_WRONLY)
			w.write(0, "x")
			w.close()
		}, privileged},
		{"write", func(r *rig) {
			w := r.open("a", syscall.O_WRONLY)
			r.ok(w.tryWrite(0, "x", 0, fuse.WRITE_KILL_SUIDGID))
			w.close()
		}, 0o775},
		{"write, chmod, write", func(r *rig) {
			w := r.open("a", syscall.O_WRONLY)
			r.ok(w.tryWrite(0, "x", 0, fuse.WRITE_KILL_SUIDGID))
			r.setAttr("a", func(in *fuse.SetAttrIn) { in.Valid, in.Mode = fuse.FATTR_MODE, privileged })
			r.ok(w.tryWrite(1, "x", 0, fuse.WRITE_KILL_SUIDGID))
			w.close()
		}, 0o775},
		{"truncate", func(r *rig) {
			r.setAttr("a", func(in *fuse.SetAttrIn) { in.Valid = fuse.FATTR_SIZE | fuse.FATTR_KILL_SUIDGID })
		}, 0o775},
		{"write that the kernel did itself", func(r *rig) {
			r.setAttr("a", func(in *fuse.SetAttrIn) { in.Valid = fuse.FATTR_LOCKOWNER })
		}, 0o775},
		{"chown", func(r *rig) {
			r.setAttr("a", func(in *fuse.SetAttrIn) { in.Valid = fuse.FATTR_UID; in.Owner.Uid = uint32(os.Getuid()) })
		}, 0o775},
		{"open with O_TRUNC", func(r *rig) {
			in := fuse.OpenIn{InHeader: header(r.find("a").NodeId), Flags: syscall.O_WRONLY | syscall.O_TRUNC, Mode: fuse.OPEN_KILL_SUIDGID}
			var out fuse.OpenOut
			r.ok(r.fs.Open(nil, &in, &out))
			file{r: r, node: in.NodeId, fh: out.Fh}.close()
		}, 0o775},
		{"fallocate by a stranger", func(r *rig) {
			w := r.open("a", syscall.O_WRONLY)
			in := fuse.FallocateIn{InHeader: header(w.node), Fh: w.fh, Length: 10}
			in.Uid = 4321
			r.ok(r.fs.Fallocate(nil, &in))
			w.close()
		}, 0o775},
		{"sgid without execution stays", func(r *rig) {
			r.setAttr("a", func(in *fuse.SetAttrIn) { in.Valid, in.Mode = fuse.FATTR_MODE, 0o6644 })
			w := r.open("a", syscall.O_WRONLY)
			r.ok(w.tryWrite(0, "x", 0, fuse.WRITE_KILL_SUIDGID))
			w.close()
		}, 0o2644},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "")
			r.put("a", "content")
			r.setAttr("a", func(in *fuse.SetAttrIn) { in.Valid, in.Mode = fuse.FATTR_MODE, privileged })
			c.do(r)
			equal(t, "mode", r.find("a").Mode&0o7777, c.want)
			info, err := os.Stat(filepath.Join(r.dir, "a"))
			r.must(err)
			equal(t, "mode in the store", info.Sys().(*syscall.Stat_t).Mode&0o7777, c.want)
		})
	}
}

func TestCapabilitiesAreCleared(t *testing.T) {
	// struct vfs_cap_data, revision 2: cap_net_raw permitted and effective.
	value := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	r := newRig(t, "")
	f := r.put("a", "content")
	h := header(f.node)
	in := fuse.SetXAttrIn{InHeader: h}
	if status := r.fs.SetXAttr(nil, &in, capabilityXattr, []byte(value)); syscall.Errno(status) == syscall.EPERM {
		t.Skip("needs the right to set file capabilities")
	} else {
		r.ok(status)
	}
	w := r.open("a", syscall.O_WRONLY)
	r.ok(w.tryWrite(0, "x", 0, fuse.WRITE_KILL_SUIDGID))
	w.close()
	_, status := r.fs.GetXAttr(nil, &h, capabilityXattr, make([]byte, 100))
	r.is(status, syscall.ENODATA)
}

func TestXattrs(t *testing.T) {
	r := newRig(t, "")
	for _, path := range []string{"unfinished", "published", "dir"} {
		switch path {
		case "unfinished":
			r.create(path).write(0, "x")
		case "published":
			r.put(path, "x")
		case "dir":
			r.mkdir(path)
		}
		h := header(r.find(path).NodeId)
		_, status := r.fs.GetXAttr(nil, &h, "user.a", nil)
		r.is(status, syscall.ENODATA)
		r.ok(r.fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h}, "user.a", []byte("12345")))
		r.is(r.fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h, Flags: unix.XATTR_CREATE}, "user.a", nil), syscall.EEXIST)
		n, status := r.fs.GetXAttr(nil, &h, "user.a", nil)
		r.is(status, syscall.ERANGE)
		equal(t, "size of the value", n, 5)
		buf := make([]byte, 100)
		n, status = r.fs.ListXAttr(nil, &h, buf)
		r.ok(status)
		equal(t, "listed", strings.Contains(string(buf[:n]), "user.a\x00"), true)
		equal(t, "state is not listed", strings.Contains(string(buf[:n]), stateXattr), false)
		r.ok(r.fs.RemoveXAttr(nil, &h, "user.a"))
		r.is(r.fs.RemoveXAttr(nil, &h, "user.a"), syscall.ENODATA)
		r.is(r.fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h}, stateXattr, []byte("held")), syscall.EPERM)
		r.is(r.fs.RemoveXAttr(nil, &h, stateXattr), syscall.EPERM)
	}
	equal(t, "state", r.state("unfinished"), "open")
	equal(t, "state", r.state("published"), "published")
}

func TestStatx(t *testing.T) {
	r := newRig(t, "")
	f := r.put("a", "12345")
	var out fuse.StatxOut
	r.ok(r.fs.Statx(nil, &fuse.StatxIn{InHeader: header(f.node)}, &out))
	equal(t, "size", out.Size, 5)
	equal(t, "ino", out.Ino, f.ino)
	equal(t, "type", out.Mode&syscall.S_IFMT, uint16(syscall.S_IFREG))
	if out.Mask&unix.STATX_BTIME != 0 {
		equal(t, "birth is recent", time.Since(time.Unix(int64(out.Btime.Sec), 0)) < time.Hour, true)
	}
}

func TestStatFs(t *testing.T) {
	r := newRig(t, "")
	h := header(root)
	var out fuse.StatfsOut
	r.ok(r.fs.StatFs(nil, &h, &out))
	var want unix.Statfs_t
	r.must(unix.Statfs(r.dir, &want))
	equal(t, "blocks", out.Blocks*uint64(out.Bsize), want.Blocks*uint64(want.Bsize))
	equal(t, "name length", out.NameLen, 255)
}

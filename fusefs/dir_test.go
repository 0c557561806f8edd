package fusefs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// openDir opens the directory for listing.
func (r *rig) openDir(node uint64) uint64 {
	r.Helper()
	var out fuse.OpenOut
	r.ok(r.fs.OpenDir(nil, &fuse.OpenIn{InHeader: header(node)}, &out))
	return out.Fh
}

func (r *rig) closeDir(fh uint64) { r.fs.ReleaseDir(&fuse.ReleaseIn{Fh: fh}) }

// readDir lists from off on, into a reply of size bytes.
func (r *rig) readDir(fh, off uint64, size int) []fuse.DirEntry {
	r.Helper()
	list := fuse.NewDirEntryList(make([]byte, size), off)
	r.ok(r.fs.ReadDir(nil, &fuse.ReadIn{Fh: fh, Offset: off}, list))
	entries, err := fuse.ParseDirEntries(list.Bytes())
	r.must(err)
	return entries
}

// list returns the inode numbers of a directory by name, without "." and "..",
// read in replies of few entries; a name that comes twice fails the test.
func (r *rig) list(node uint64) map[string]uint64 {
	r.Helper()
	fh := r.openDir(node)
	defer r.closeDir(fh)
	found := map[string]uint64{}
	for off := uint64(0); ; {
		entries := r.readDir(fh, off, 128)
		if len(entries) == 0 {
			return found
		}
		for _, e := range entries {
			off = e.Off
			if e.Name == "." || e.Name == ".." {
				continue
			}
			if _, twice := found[e.Name]; twice {
				r.Fatalf("%s is listed twice", e.Name)
			}
			found[e.Name] = e.Ino
		}
	}
}

func (r *rig) names(node uint64) string {
	r.Helper()
	return strings.Join(slices.Sorted(maps.Keys(r.list(node))), " ")
}

func TestListingMergesUnfinishedFiles(t *testing.T) {
	r := newRig(t, "")
	r.mkdir("dir")
	r.mkdir("dir/sub")
	r.put("dir/published", "x")
	r.put("dir/updated", "x")
	w := r.open("dir/updated", syscall.O_WRONLY)
	w.write(0, "y")
	f := r.create("dir/unfinished")
	f.write(0, "z")
	g := r.create("dir/sub/deeper")
	r.outside("dir/outside", "o")

	dir := r.find("dir").NodeId
	equal(t, "names", r.names(dir), "outside published sub unfinished updated")
	inos := r.list(dir)
	for name, ino := range inos {
		equal(t, "listed ino of "+name, ino, r.find("dir/"+name).Ino)
	}
	equal(t, "again, now that all are known", maps.Equal(inos, r.list(dir)), true)
	for _, f := range []file{w, f, g} {
		f.close()
	}
	equal(t, "after the closes", maps.Equal(inos, r.list(dir)), true)
}

func TestReservedNameIsHidden(t *testing.T) {
	r := newRig(t, "")
	equal(t, "names", r.names(root), "")
	r.absent(DefaultReservedName)
	h := header(root)
	r.is(r.fs.Create(nil, &fuse.CreateIn{InHeader: h}, DefaultReservedName, &fuse.CreateOut{}), syscall.EPERM)
	r.is(r.fs.Mkdir(nil, &fuse.MkdirIn{InHeader: h}, DefaultReservedName, &fuse.EntryOut{}), syscall.EPERM)
	r.is(r.fs.Symlink(nil, &h, "x", DefaultReservedName, &fuse.EntryOut{}), syscall.EPERM)
	r.is(r.fs.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: syscall.S_IFREG}, DefaultReservedName, &fuse.EntryOut{}), syscall.EPERM)
	r.is(r.fs.Unlink(nil, &h, DefaultReservedName), syscall.ENOENT)
	r.is(r.fs.Rmdir(nil, &h, DefaultReservedName), syscall.ENOENT)
	r.put("a", "x")
	r.is(r.rename("a", DefaultReservedName, 0), syscall.EPERM)
	r.is(r.rename(DefaultReservedName, "b", 0), syscall.ENOENT)
	r.mkdir("dir")
	r.put("dir/"+DefaultReservedName, "elsewhere it is a name like any other")
}

func TestListingOffsets(t *testing.T) {
	r := newRig(t, "")
	for i := range 20 {
		r.outside(fmt.Sprintf("file%02d", i), "x")
	}
	f := r.create("unfinished")
	fh := r.openDir(root)
	all := r.readDir(fh, 0, 1<<16)
	equal(t, "entries", len(all), 23)
	equal(t, "first", all[0].Name, ".")
	equal(t, "second", all[1].Name, "..")
	for i, e := range all { // seekdir to each place that telldir gave
		rest := r.readDir(fh, e.Off, 1<<16)
		equal(t, "entries after "+e.Name, len(rest), len(all)-i-1)
		if len(rest) > 0 {
			equal(t, "entry after "+e.Name, rest[0], all[i+1])
		}
	}
	r.outside("new", "x")
	f.close()
	equal(t, "after rewinddir", len(r.readDir(fh, 0, 1<<16)), 24)
	r.closeDir(fh)

	fresh := r.openDir(root)
	equal(t, "a fresh handle, from an offset on", len(r.readDir(fresh, 2, 1<<16)), 22)
	r.closeDir(fresh)
}

func TestFilePublishedWhileListingIsListedOnce(t *testing.T) {
	r := newRig(t, "")
	for i := range 5 {
		r.outside(fmt.Sprintf("file%d", i), "x")
	}
	f, gone := r.create("unfinished"), r.create("gone")
	fh := r.openDir(root)
	first := r.readDir(fh, 0, 64)
	f.write(0, "x")
	f.close()
	r.ok(r.unlink("gone"))
	seen := map[string]int{}
	for _, e := range append(first, r.readDir(fh, first[len(first)-1].Off, 1<<16)...) {
		seen[e.Name]++
	}
	equal(t, "unfinished", seen["unfinished"], 1)
	equal(t, "gone", seen["gone"], 0)
	r.closeDir(fh)
	gone.close()
}

func TestReadDirPlusLooksUp(t *testing.T) {
	r := newRig(t, "")
	r.outside("published", "12345")
	r.create("unfinished").write(0, "123")
	fh := r.openDir(root)
	list := fuse.NewDirEntryList(make([]byte, 1<<16), 0)
	r.ok(r.fs.ReadDirPlus(nil, &fuse.ReadIn{Fh: fh}, list))
	entries, outs, err := fuse.ParseDirLookupEntries(list.Bytes())
	r.must(err)
	equal(t, "entries", len(entries), 4)
	for i, e := range entries {
		if e.Name == "." || e.Name == ".." {
			equal(t, "node of "+e.Name, outs[i].NodeId, 0)
			continue
		}
		found := r.find(e.Name)
		equal(t, "node of "+e.Name, outs[i].NodeId, found.NodeId)
		equal(t, "ino of "+e.Name, outs[i].Ino, e.Ino)
		equal(t, "size of "+e.Name, outs[i].Size, found.Size)
		n, err := r.fs.get(found.NodeId)
		r.must(err)
		want := uint64(2)
		if e.Name == "unfinished" {
			want = 3 // CREATE counts too
		}
		equal(t, "lookups of "+e.Name, n.lookups, want)
	}
	// An entry for which there is no room is not counted.
	small := fuse.NewDirEntryList(make([]byte, 200), 2)
	r.ok(r.fs.ReadDirPlus(nil, &fuse.ReadIn{Fh: fh, Offset: 2}, small))
	entries, _, err = fuse.ParseDirLookupEntries(small.Bytes())
	r.must(err)
	equal(t, "entries", len(entries), 1)
	n, err := r.fs.get(r.find(entries[0].Name).NodeId)
	r.must(err)
	other := r.fs.child(r.fs.root, map[string]string{"published": "unfinished", "unfinished": "published"}[entries[0].Name])
	equal(t, "lookups", n.lookups+other.lookups, 2+3+1+1)
	r.closeDir(fh)
}

func TestRemovedDirectoryIsEmpty(t *testing.T) {
	r := newRig(t, "")
	dir := r.mkdir("dir")
	fh := r.openDir(dir)
	r.ok(r.rmdir("dir"))
	equal(t, "entries", len(r.readDir(fh, 0, 4096)), 2)
	equal(t, "links", r.stat(dir).Nlink, 0)
	h := header(dir)
	r.is(r.fs.Create(nil, &fuse.CreateIn{InHeader: h}, "x", &fuse.CreateOut{}), syscall.ENOENT)
	r.closeDir(fh)
	equal(t, "links, by the kept node", r.stat(dir).Nlink, 0)
}

package fusefs

import "github.com/hanwen/go-fuse/v2/fuse"

// StatFs tells of the space of the store. Both block sizes are the store's:
// many programs multiply f_blocks with the wrong one.
func (fs *FS) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	space, err := fs.store.Space()
	if err != nil {
		return fs.status("statfs", err)
	}
	*out = fuse.StatfsOut{
		Blocks: space.Blocks, Bfree: space.BlocksFree, Bavail: space.BlocksAvail,
		Files: space.Files, Ffree: space.FilesFree,
		Bsize: uint32(space.BlockSize), Frsize: uint32(space.BlockSize), NameLen: space.NameMax,
	}
	return fuse.OK
}

package localdir

import (
	"bytes"
	"context"
	"encoding/binary"
	"iter"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/internal/fdnode"
	"github.com/wholefs/wholefs/store"
)

// listBuffers keeps the buffers that directories are read into.
var listBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// List yields the entries, straight from getdents(2): each entry that is there
// from beginning to end exactly once, whatever is made and removed meanwhile.
// An error ends the listing; the context's is among them.
func (d *dir) List(ctx context.Context) iter.Seq2[store.Entry, error] {
	return func(yield func(store.Entry, error) bool) {
		if err := d.list(ctx, yield); err != nil {
			yield(store.Entry{}, err)
		}
	}
}

// list returns nil when yield has had enough.
func (d *dir) list(ctx context.Context, yield func(store.Entry, error) bool) error {
	f, err := readDir(d.F)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := listBuffers.Get().(*[32 << 10]byte)
	defer listBuffers.Put(buf)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var n int
		err := fdnode.With(f, func(fd int) (err error) {
			n, err = unix.Getdents(fd, buf[:])
			return err
		})
		if err != nil || n == 0 {
			return err
		}
		for rest := buf[:n]; len(rest) > 0; {
			var e store.Entry
			if e, rest, err = nextEntry(rest); err != nil {
				return err
			}
			if e.Name == "." || e.Name == ".." || d.top && (e.Name == StateDirName || e.Ino == d.store.state.Ino) {
				continue
			}
			if e.Mode == 0 { // DT_UNKNOWN: this filesystem does not tell
				a, err := d.statAt(e.Name)
				if err != nil {
					continue // gone meanwhile
				}
				e.Mode = a.Mode & unix.S_IFMT
			}
			if !yield(e, nil) {
				return nil
			}
		}
	}
}

// The layout of struct linux_dirent64: inode, offset, length of the record,
// type, and the name up to a NUL.
const (
	direntLen  = 16
	direntType = 18
	direntName = 19
)

// nextEntry takes one record off what getdents(2) returned.
func nextEntry(b []byte) (e store.Entry, rest []byte, err error) {
	if len(b) < direntName {
		return e, nil, unix.EIO
	}
	length := int(binary.NativeEndian.Uint16(b[direntLen:]))
	if length < direntName || length > len(b) {
		return e, nil, unix.EIO
	}
	name, _, _ := bytes.Cut(b[direntName:length], []byte{0})
	return store.Entry{
		Name: string(name),
		Ino:  binary.NativeEndian.Uint64(b),
		Mode: uint32(b[direntType]) << 12, // DT_* are the type bits of the mode
	}, b[length:], nil
}

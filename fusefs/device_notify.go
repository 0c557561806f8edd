package fusefs

import (
	"log/slog"
	"os"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// kernelNotifier writes notifications to /dev/fuse. The kernel takes the
// directory's lock for them, which a request under way may hold, so they are
// written by the goroutine of notify.go and never by a handler.
type kernelNotifier struct {
	dev *os.File
	log *slog.Logger
}

var _ Notifier = kernelNotifier{}

// notify lays out a notification and sends it: the header, with the code in
// place of a status and unique 0 (linux/fuse.h), its body, and a name that ends
// with a zero byte.
func notify[T any](n kernelNotifier, code int32, body T, name string) {
	size := readHeader + int(unsafe.Sizeof(body))
	total := size
	if name != "" {
		total += len(name) + 1
	}
	b := make([]byte, total)
	*(*fuse.OutHeader)(unsafe.Pointer(&b[0])) = fuse.OutHeader{Length: uint32(total), Status: code}
	copy(b[readHeader:size], unsafe.Slice((*byte)(unsafe.Pointer(&body)), unsafe.Sizeof(body)))
	copy(b[size:], name)
	if _, err := n.dev.Write(b); err != nil {
		// ENOENT and ENOTDIR: the kernel does not know the node or the name.
		n.log.Debug("notification not taken by the kernel", "code", code, "name", name, "err", err)
	}
}

// InvalEntry makes the kernel look name in the directory parent up again.
func (n kernelNotifier) InvalEntry(parent uint64, name string) {
	notify(n, -fuse.NOTIFY_INVAL_ENTRY, fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}, name)
}

// InvalInode makes the kernel forget a node's attributes and its cached
// content in [off, off+length).
func (n kernelNotifier) InvalInode(node uint64, off, length int64) {
	notify(n, -fuse.NOTIFY_INVAL_INODE, fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: length}, "")
}

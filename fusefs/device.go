package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/wholefs/wholefs/staging"
)

// The device loop. wholefs reads /dev/fuse itself: a WRITE is answered as soon
// as it is read and its range is reserved, then stored from the very buffer it
// arrived in, while the program copies its next piece into another one. All
// other requests go through go-fuse's protocol layer to the methods of FS.
//
// Readers are goroutines that block in read(2). When the last idle one picks a
// request up, another is started; one that finds enough idle ones ends. Each
// holds one buffer of the mount's budget while it waits and while it stores a
// write; any other request is copied out and gives its buffer back at once, so
// that requests that take long (a close that publishes) hold nothing.

const (
	// MaxWrite is the largest request: the most that the kernel sends with its
	// default fs.fuse.max_pages_limit of 256 pages.
	MaxWrite = 1 << 20
	// BufferSize is what a Buffer must hold: a page for the request's headers,
	// so that its payload begins on a page, and the payload.
	BufferSize = MaxWrite + pageSize

	pageSize    = 4096
	writeHeader = int(unsafe.Sizeof(fuse.WriteIn{}))
	readHeader  = int(unsafe.Sizeof(fuse.OutHeader{}))
	maxIdle     = 2

	// handOver is the size from which a write is worth another goroutine: the
	// reader then waits for the program's next request while it is stored. A
	// smaller one is stored sooner than handed over.
	handOver   = 64 << 10
	smallReply = 4096
)

// Opcodes that the loop treats itself; values from linux/fuse.h.
const (
	opReadlink    = 5
	opRead        = 15
	opWrite       = 16
	opGetxattr    = 22
	opListxattr   = 23
	opReaddir     = 28
	opReaddirplus = 44
)

// MountOptions are what Mount needs besides the filesystem.
type MountOptions struct {
	FS *FS
	// Buffers is the mount's memory budget; each buffer holds BufferSize bytes.
	Buffers *staging.Buffers
	// AllowOther lets other users than the one who mounts use the mount; the
	// kernel checks permissions either way.
	AllowOther bool
	// FsName is shown as the source of the mount.
	FsName   string
	Logger   *slog.Logger
	Observer Observer
}

// Mount is a mounted filesystem and the loop that serves it.
type Mount struct {
	o          MountOptions
	mountpoint string
	dev        *os.File
	fd         int
	proto      *fuse.ProtocolServer
	small      sync.Pool // *[smallReply]byte: requests and replies without payload

	ctx    context.Context
	cancel context.CancelFunc
	idle   atomic.Int32
	loops  sync.WaitGroup
	done   chan struct{}
	err    atomic.Pointer[error]
}

// capabilities that the kernel is asked for beyond go-fuse's defaults. Each is
// relied on: OPEN with O_TRUNC in one request, suid and sgid cleared by us,
// shared mappings of files opened with direct I/O, the umask left to us since a
// default ACL takes its place, and setxattr telling when an ACL clears sgid.
const capabilities = fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 |
	fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ASYNC_DIO |
	fuse.CAP_DONT_MASK | fuse.CAP_SETXATTR_EXT

// NewMount mounts the filesystem on mountpoint and starts to serve it.
func NewMount(mountpoint string, o MountOptions) (*Mount, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	fd, err := mountDevice(mountpoint, o)
	if err != nil {
		return nil, err
	}
	m := &Mount{
		o: o, mountpoint: mountpoint, fd: fd, dev: os.NewFile(uintptr(fd), "/dev/fuse"),
		done: make(chan struct{}),
		proto: fuse.NewProtocolServer(o.FS, &fuse.MountOptions{
			MaxWrite:          MaxWrite,
			MaxReadAhead:      MaxWrite,
			MaxBackground:     64,
			ExtraCapabilities: capabilities,
			EnableAcl:         true,
			Name:              "wholefs",
			Logger:            slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		}),
	}
	m.small.New = func() any { return new([smallReply]byte) }
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := m.handshake(); err != nil {
		unix.Unmount(mountpoint, unix.MNT_DETACH)
		m.dev.Close()
		return nil, fmt.Errorf("fuse handshake: %w", err)
	}
	o.FS.SetNotifier(kernelNotifier{dev: m.dev, log: o.Logger})
	m.startReader()
	go m.wait()
	return m, nil
}

// handshake answers INIT, which the kernel sends first.
func (m *Mount) handshake() error {
	buf := make([]byte, BufferSize)
	n, err := m.read(buf)
	if err != nil {
		return err
	}
	out := make([]byte, smallReply)
	n, status := m.proto.HandleRequest([][]byte{buf[:n]}, [][]byte{out})
	if !status.Ok() {
		return syscall.Errno(status)
	}
	if errno := (*fuse.OutHeader)(unsafe.Pointer(&out[0])).Status; errno != 0 {
		return syscall.Errno(-errno)
	}
	return m.reply(out[:n])
}

// startReader starts one more reader; it counts as idle at once.
func (m *Mount) startReader() {
	m.idle.Add(1)
	m.loops.Add(1)
	go m.serve()
}

// serve reads and handles requests until there are readers enough, or none is
// needed any more.
func (m *Mount) serve() {
	defer m.loops.Done()
	for {
		buf, err := m.o.Buffers.Get(m.ctx)
		if err != nil {
			m.idle.Add(-1)
			return
		}
		b := buf.Bytes()[pageSize-writeHeader:]
		n, err := m.read(b)
		if m.idle.Add(-1) == 0 && err == nil {
			m.startReader()
		}
		if err != nil {
			buf.Release()
			if !errors.Is(err, syscall.ENODEV) {
				err = fmt.Errorf("read /dev/fuse: %w", err)
				m.err.CompareAndSwap(nil, &err)
			}
			return
		}
		m.dispatch(buf, b, n)
		if !m.becomeIdle() {
			return
		}
	}
}

// becomeIdle counts a reader as idle again, unless there are enough. It never
// counts one that then ends: another might end too because of it, and nobody
// would read any more.
func (m *Mount) becomeIdle() bool {
	for {
		idle := m.idle.Load()
		if idle >= maxIdle {
			return false
		}
		if m.idle.CompareAndSwap(idle, idle+1) {
			return true
		}
	}
}

// read reads one request. ENODEV says that the mount is gone.
func (m *Mount) read(b []byte) (int, error) {
	for {
		n, err := unix.Read(m.fd, b)
		switch err {
		case nil:
			if n < int(unsafe.Sizeof(fuse.InHeader{})) {
				return 0, fmt.Errorf("request of %d bytes", n)
			}
			return n, nil
		case syscall.EINTR, syscall.EAGAIN, syscall.ENOENT:
			// ENOENT: the request was withdrawn before it was read.
		default:
			return 0, err
		}
	}
}

// reply answers one request. The kernel says ENOENT when nobody waits for the
// answer any more, which is no failure of ours.
func (m *Mount) reply(b []byte) error {
	for {
		_, err := unix.Write(m.fd, b)
		switch err {
		case nil, syscall.ENOENT, syscall.ENODEV:
			return nil
		case syscall.EINTR, syscall.EAGAIN:
		default:
			h := (*fuse.OutHeader)(unsafe.Pointer(&b[0]))
			m.o.Logger.Error("reply refused by the kernel", "unique", h.Unique, "length", h.Length, "status", h.Status, "err", err)
			if h.Status == 0 {
				// Whoever waits for it must not wait for ever.
				b = b[:replyError(b, h.Unique, syscall.EIO)]
				continue
			}
			return err
		}
	}
}

// dispatch handles the request of n bytes in b, which lies in buf, and gives
// buf back.
func (m *Mount) dispatch(buf *staging.Buffer, b []byte, n int) {
	in := (*fuse.InHeader)(unsafe.Pointer(&b[0]))
	start := time.Now()
	var errno syscall.Errno
	op, unique := in.Opcode, in.Unique
	switch {
	case op == opWrite:
		m.guard(unique, func() syscall.Errno { return m.write(buf, b[:n], start) })
		return // counted when it was answered
	case op == opRead:
		errno = m.guard(unique, func() syscall.Errno { return m.readFile(b, buf) })
		buf.Release()
	case op == opReaddir || op == opReaddirplus || op == opGetxattr || op == opListxattr || op == opReadlink:
		// A small request with a reply that may be large: swap the buffers.
		request := m.small.Get().(*[smallReply]byte)
		copy(request[:], b[:n])
		errno = m.handle(request[:n], buf.Bytes())
		m.small.Put(request)
		buf.Release()
	case n <= smallReply:
		request := m.small.Get().(*[smallReply]byte)
		copy(request[:], b[:n])
		buf.Release()
		out := m.small.Get().(*[smallReply]byte)
		errno = m.handle(request[:n], out[:])
		m.small.Put(request)
		m.small.Put(out)
	default:
		out := m.small.Get().(*[smallReply]byte)
		errno = m.handle(b[:n], out[:])
		m.small.Put(out)
		buf.Release()
	}
	m.observe(op, errno, start)
}

// observe counts an answered request.
func (m *Mount) observe(op uint32, errno syscall.Errno, start time.Time) {
	if m.o.Observer != nil {
		m.o.Observer.Op(opName(op), errno, time.Since(start))
	}
}

// guard turns a panic into EIO for the one request that met it, as go-fuse does
// for those that it handles. An answer that was sent already is not sent again:
// the kernel refuses it.
func (m *Mount) guard(unique uint64, serve func() syscall.Errno) (errno syscall.Errno) {
	defer func() {
		if r := recover(); r != nil {
			m.o.Logger.Error("panic while serving a request", "panic", r, "stack", string(debug.Stack()))
			var out [unsafe.Sizeof(fuse.OutHeader{})]byte
			m.reply(out[:replyError(out[:], unique, syscall.EIO)])
			errno = syscall.EIO
		}
	}()
	return serve()
}

// handle passes a request to go-fuse and sends the reply, if there is one.
func (m *Mount) handle(request, out []byte) syscall.Errno {
	clear(out[:readHeader])
	unique := (*fuse.InHeader)(unsafe.Pointer(&request[0])).Unique
	n, status := m.proto.HandleRequest([][]byte{request}, [][]byte{out})
	if !status.Ok() {
		n = replyError(out, unique, syscall.Errno(status))
	}
	if n == 0 {
		return 0
	}
	errno := syscall.Errno(-(*fuse.OutHeader)(unsafe.Pointer(&out[0])).Status)
	m.reply(out[:n])
	return errno
}

// replyError writes a reply without payload into out and returns its length.
func replyError(out []byte, unique uint64, errno syscall.Errno) int {
	*(*fuse.OutHeader)(unsafe.Pointer(&out[0])) = fuse.OutHeader{
		Length: uint32(readHeader), Status: -int32(errno), Unique: unique,
	}
	return readHeader
}

type writeReply struct {
	fuse.OutHeader
	fuse.WriteOut
}

// write serves a WRITE: it reserves the range, answers, and has the bytes stored
// from the buffer that they came in, which goes back to the budget then. With
// O_SYNC or O_DSYNC it stores and syncs first.
func (m *Mount) write(buf *staging.Buffer, b []byte, start time.Time) syscall.Errno {
	in := (*fuse.WriteIn)(unsafe.Pointer(&b[0]))
	data := b[writeHeader:]
	if int(in.Size) != len(data) {
		defer buf.Release()
		return m.answerWrite(in, syscall.EIO, start)
	}
	w, at, status := m.o.FS.beginWrite(in)
	if !status.Ok() {
		defer buf.Release()
		return m.answerWrite(in, syscall.Errno(status), start)
	}
	synced := in.Flags&(unix.O_SYNC|unix.O_DSYNC) != 0
	if !synced {
		m.answerWrite(in, 0, start)
		if len(data) >= handOver {
			w.FinishLater(at, data, buf)
			return 0
		}
	}
	defer buf.Release()
	w.Finish(at, data)
	if !synced {
		return 0
	}
	var errno syscall.Errno
	if err := w.Sync(m.ctx); err != nil {
		errno = syscall.Errno(m.o.FS.status("write", err))
	}
	return m.answerWrite(in, errno, start)
}

// answerWrite answers a WRITE and counts it.
func (m *Mount) answerWrite(in *fuse.WriteIn, errno syscall.Errno, start time.Time) syscall.Errno {
	var out writeReply
	reply := unsafe.Slice((*byte)(unsafe.Pointer(&out)), unsafe.Sizeof(out))
	if errno != 0 {
		reply = reply[:replyError(reply, in.Unique, errno)]
	} else {
		out.OutHeader = fuse.OutHeader{Length: uint32(len(reply)), Unique: in.Unique}
		out.WriteOut.Size = in.Size
		if m.o.Observer != nil {
			m.o.Observer.Written(int(in.Size))
		}
	}
	m.reply(reply)
	m.observe(opWrite, errno, start)
	return errno
}

// readFile serves a READ: the bytes go straight behind the reply's header.
func (m *Mount) readFile(b []byte, buf *staging.Buffer) syscall.Errno {
	in := *(*fuse.ReadIn)(unsafe.Pointer(&b[0]))
	out := buf.Bytes()[pageSize-readHeader:]
	if int64(in.Size) > int64(len(out)-readHeader) {
		m.reply(out[:replyError(out, in.Unique, syscall.EINVAL)])
		return syscall.EINVAL
	}
	n, status := m.o.FS.readInto(&in, out[readHeader:readHeader+int(in.Size)])
	if !status.Ok() {
		m.reply(out[:replyError(out, in.Unique, syscall.Errno(status))])
		return syscall.Errno(status)
	}
	*(*fuse.OutHeader)(unsafe.Pointer(&out[0])) = fuse.OutHeader{Length: uint32(readHeader + n), Unique: in.Unique}
	m.reply(out[:readHeader+n])
	if m.o.Observer != nil {
		m.o.Observer.Read(n)
	}
	return 0
}

// wait ends the mount when its readers have ended.
func (m *Mount) wait() {
	m.loops.Wait()
	m.o.FS.SetNotifier(nil)
	m.cancel()
	m.dev.Close()
	close(m.done)
}

// Wait blocks until the mount is gone: unmounted, or its connection aborted.
// The error says why the loop ended, if not by that.
func (m *Mount) Wait() error {
	<-m.done
	if err := m.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Done is closed when the mount is gone.
func (m *Mount) Done() <-chan struct{} { return m.done }

package proxy

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is an epoll instance, edge-triggered, and an eventfd that rings it. One goroutine at a time polls and waits.
//
// It is asked without waiting, in raw system calls that the scheduler does not hear of; to wait, the instance itself
// is given to the runtime's poller, so a goroutine waits for its sockets as for any one connection.
type poller struct {
	fd    int
	file  *os.File
	sleep syscall.RawConn
	look  func(fd uintptr) bool

	bell   int
	events [256]unix.EpollEvent
	n      int // how many of events poll found
}

// bellID is the id with which the eventfd is registered.
const bellID = ^uint64(0)

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &poller{fd: fd, bell: bell}
	p.look = func(uintptr) bool { return p.poll() > 0 }
	err = unix.SetNonblock(fd, true) // what makes os.NewFile take it for one that can be waited for
	if err == nil {
		err = p.add(bell, bellID)
	}
	p.file = os.NewFile(uintptr(fd), "epoll")
	if err == nil {
		p.sleep, err = p.file.SyscallConn()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// add registers a socket once and for all: for bytes to read, room to write, and the end. Closing it takes it out.
func (p *poller) add(fd int, id uint64) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET}
	event.Fd, event.Pad = int32(uint32(id)), int32(uint32(id>>32))
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &event))
}

// remove takes a socket out that goes on to live in another process.
func (p *poller) remove(fd int) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil))
}

// poll finds what is ready and does not wait.
func (p *poller) poll() int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])),
		uintptr(len(p.events)), 0, 0, 0)
	p.n = int(n)
	if errno != 0 {
		p.n = 0
	}
	return p.n
}

// wait returns when poll has found something, or with an error once the poller is closed.
func (p *poller) wait() error { return p.sleep.Read(p.look) }

// event is the i-th of what poll found; rung reports the bell, which is silent again.
func (p *poller) event(i int) (id uint64, r readiness, rung bool) {
	e := &p.events[i]
	id = uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
	if id == bellID {
		var count [8]byte
		_, _ = unix.Read(p.bell, count[:])
		return id, 0, true
	}
	if e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r = readable
	}
	if e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r |= ended
	}
	if e.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		r |= writable
	}
	return id, r, false
}

// ring makes wait return, from any goroutine.
func (p *poller) ring() {
	one := [8]byte{1}
	_, _ = unix.Write(p.bell, one[:])
}

func (p *poller) close() {
	_ = p.file.Close()
	_ = unix.Close(p.bell)
}

// rawRead and rawWrite are read and write on sockets that do not block. The scheduler is not told: it would hand the
// processor of a call that takes its twenty microseconds, because it wakes the other side, to another thread, and
// waking that one takes as long again.
func rawRead(fd int, b []byte) (int, error) {
	return result(syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b))))
}

func rawWrite(fd int, b []byte) (int, error) {
	return result(syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b))))
}

func result(n, _ uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// giveWay lets another thread have the processor, if one wants it.
func giveWay() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

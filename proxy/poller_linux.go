package proxy

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is an epoll instance, edge-triggered, and an eventfd that rings it. One goroutine at a time polls and waits.
//
// It is asked without waiting, in raw system calls that the scheduler does not hear of. To wait, the runtime's poller
// is given another instance, the gate, in which this one is the only member, and armed for one event: a goroutine waits
// for all the sockets as for any one connection, and while it is awake nothing that happens to them gets through to the
// runtime, which would wake a thread for each. Measured with 50 clients without pipelining, that lifts the rate from
// 0.82 to 0.99 of a direct connection.
type poller struct {
	fd    int
	gate  int
	file  *os.File // of the gate
	sleep syscall.RawConn
	look  func(fd uintptr) bool

	bell   int
	events [256]unix.EpollEvent
	n      int // how many of events poll found
}

// bellID is the id with which the eventfd is registered.
const bellID = ^uint64(0)

func newPoller() (_ *poller, err error) {
	p := &poller{fd: -1, gate: -1, bell: -1}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if p.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err = p.add(p.bell, bellID); err != nil {
		return nil, err
	}
	if p.gate, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err = unix.EpollCtl(p.gate, unix.EPOLL_CTL_ADD, p.fd, &unix.EpollEvent{}); err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	// What makes os.NewFile take it for one that can be waited for.
	if err = unix.SetNonblock(p.gate, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	p.file = os.NewFile(uintptr(p.gate), "epoll")
	p.look = func(uintptr) bool { return p.opened() }
	p.sleep, err = p.file.SyscallConn()
	return p, err
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
func (p *poller) wait() error {
	for p.poll() == 0 {
		if err := p.arm(); err != nil {
			return err
		}
		if err := p.sleep.Read(p.look); err != nil {
			return err
		}
	}
	return nil
}

// arm lets the next event through the gate, or one that is there already.
func (p *poller) arm() error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.gate), unix.EPOLL_CTL_MOD, uintptr(p.fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	if errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

// opened reports whether an event has come through the gate, which is closed again then.
func (p *poller) opened() bool {
	var event unix.EpollEvent
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.gate), uintptr(unsafe.Pointer(&event)), 1, 0, 0, 0)
	return errno == 0 && n > 0
}

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
	if p.file != nil {
		_ = p.file.Close()
	} else {
		_ = unix.Close(p.gate)
	}
	_ = unix.Close(p.fd)
	_ = unix.Close(p.bell)
}

// giveWay lets another thread have the processor, if one wants it.
func giveWay() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }

package proxy

import (
	"net"
	"sync/atomic"
	"syscall"

	"keyrow/rawio"
)

// endpoint is a connection that a loop watches. Neither reading nor writing waits.
type endpoint struct {
	fd   int
	loop *loop
	id   uint64 // of its slot; guarded by the loop's mu
	// users counts those within a system call on fd, so that fd is not closed, and given to the next connection, under
	// their hands; shut is added once it is to be closed.
	users atomic.Int64
}

const shut = 1 << 62

// unwatched is the id of an endpoint that has no slot.
const unwatched = ^uint64(0)

// adopt takes conn from the runtime's poller, which would be woken by whatever arrives there. It returns nil for
// connections that are more than a socket, and then leaves conn as it is.
func (l *loop) adopt(conn net.Conn) *endpoint {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	own, failed := -1, error(nil)
	err = raw.Control(func(fd uintptr) { own, failed = dup(int(fd)) })
	if err != nil || failed != nil {
		return nil
	}
	_ = conn.Close()
	return &endpoint{fd: own, loop: l, id: unwatched}
}

func dup(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	own, err := syscall.Dup(fd)
	if err == nil {
		syscall.CloseOnExec(own)
	}
	return own, err
}

// read reads what is there. It fails with errNothing if that is nothing, and with io.EOF at the end.
func (p *endpoint) read(b []byte) (int, error) {
	if !p.use() {
		return 0, net.ErrClosed
	}
	defer p.leave()
	n, err := rawio.Read(p.fd, b)
	if err == syscall.EAGAIN {
		err = errNothing
	}
	return n, err
}

// write writes as much of b as the socket takes.
func (p *endpoint) write(b []byte) (n int, err error) {
	if !p.use() {
		return 0, net.ErrClosed
	}
	defer p.leave()
	if n, err = rawio.Write(p.fd, b); err == syscall.EAGAIN {
		err = nil
	}
	return n, err
}

func (p *endpoint) use() bool {
	for {
		users := p.users.Load()
		if users&shut != 0 {
			return false
		}
		if p.users.CompareAndSwap(users, users+1) {
			return true
		}
	}
}

func (p *endpoint) leave() {
	if p.users.Add(-1) == shut {
		_ = syscall.Close(p.fd)
	}
}

// close ends the connection. The loop does not tell of it any more.
func (p *endpoint) close() {
	for {
		users := p.users.Load()
		if users&shut != 0 {
			return
		}
		if p.users.CompareAndSwap(users, users|shut) {
			p.loop.forget(p)
			if users == 0 {
				_ = syscall.Close(p.fd)
			}
			return
		}
	}
}

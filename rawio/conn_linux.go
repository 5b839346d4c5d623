package rawio

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// Wrap makes c, if it is a TCP or a Unix socket, one that reads and writes in raw system calls and waits as it did. Any
// other connection is returned as it is.
func Wrap(c net.Conn) net.Conn {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return c
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return c
	}
	w := &conn{Conn: c, raw: raw}
	w.reader.try = func(fd uintptr) bool {
		r := &w.reader
		r.n, r.err = Read(int(fd), r.b)
		return r.err != syscall.EAGAIN
	}
	w.writer.try = func(fd uintptr) bool {
		r := &w.writer
		n, err := Write(int(fd), r.b[r.n:])
		r.n, r.err = r.n+n, err
		return err != syscall.EAGAIN
	}
	return w
}

// Unwrap returns the connection of which Wrap made c, or c.
func Unwrap(c net.Conn) net.Conn {
	if w, ok := c.(*conn); ok {
		return w.Conn
	}
	return c
}

// conn is a connection whose Read and Write are raw system calls.
type conn struct {
	net.Conn
	raw            syscall.RawConn
	reader, writer direction
}

// direction is what is being read, or written.
type direction struct {
	mu  sync.Mutex
	try func(fd uintptr) (done bool)
	b   []byte
	n   int
	err error
}

func (c *conn) Read(b []byte) (int, error)  { return c.run(&c.reader, c.raw.Read, "read", b) }
func (c *conn) Write(b []byte) (int, error) { return c.run(&c.writer, c.raw.Write, "write", b) }

// run has wait try to read or write b until it is done.
func (c *conn) run(d *direction, wait func(func(uintptr) bool) error, op string, b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.b, d.n, d.err = b, 0, nil
	err := wait(d.try)
	d.b = nil
	if err == nil {
		err = d.err
	}
	return d.n, c.named(op, err)
}

// named is err as package net has it. The end of what is read stays io.EOF.
func (c *conn) named(op string, err error) error {
	var waiting *net.OpError
	var failed syscall.Errno
	switch {
	case errors.As(err, &waiting): // past the deadline, or closed
		err = waiting.Err
	case !errors.As(err, &failed):
		return err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// SyscallConn is for drivers that look whether the server has closed a connection before they use it again. They read
// from it, which fails if all is well.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return peeked{c.raw}, nil }

// peeked spares those who read a look where there is nothing to be seen.
type peeked struct{ syscall.RawConn }

func (p peeked) Read(f func(fd uintptr) (done bool)) error {
	return p.RawConn.Read(func(fd uintptr) bool { return silent(int(fd)) || f(fd) })
}

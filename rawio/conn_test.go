//go:build linux

package rawio_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrow/rawio"
)

// pairs are connections over TCP and a Unix socket: both ends, the first of them wrapped.
func pairs(t *testing.T) map[string][2]net.Conn {
	t.Helper()
	made := map[string][2]net.Conn{}
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "socket")} {
		l, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		a, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		if rawio.Unwrap(rawio.Wrap(a)) != a || rawio.Unwrap(a) != a {
			t.Errorf("%s: what was wrapped does not come back", network)
		}
		made[network] = [2]net.Conn{rawio.Wrap(a), b}
	}
	return made
}

// More than a socket holds goes both ways at a time, whole.
func TestBothWays(t *testing.T) {
	for network, p := range pairs(t) {
		data := make([]byte, 16<<20)
		_, _ = rand.Read(data)
		var all sync.WaitGroup
		for i, c := range p {
			all.Go(func() {
				if n, err := c.Write(data); n != len(data) || err != nil {
					t.Errorf("%s: end %d wrote %d bytes, %v", network, i, n, err)
				}
			})
			all.Go(func() {
				got := make([]byte, len(data))
				if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: end %d read something else, %v", network, i, err)
				}
			})
		}
		all.Wait()
	}
}

// Who waits is told of the end, of a deadline and of being closed as by package net.
func TestEnds(t *testing.T) {
	read := func(c net.Conn) error {
		_, err := c.Read(make([]byte, 10))
		return err
	}
	for network, p := range pairs(t) {
		c, other := p[0], p[1]
		if n, err := c.Read(nil); n != 0 || err != nil {
			t.Errorf("%s: a read of nothing is %d, %v", network, n, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(-time.Second))
		var timeout net.Error
		if err := read(c); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: past the deadline, a read is %v", network, err)
		}
		_ = c.SetReadDeadline(time.Time{})

		_, _ = other.Write([]byte("last"))
		_ = other.Close()
		if err := read(c); err != nil {
			t.Errorf("%s: what was sent before the end is %v", network, err)
		}
		if err := read(c); err != io.EOF {
			t.Errorf("%s: the end is %v", network, err)
		}
		var err error
		for err == nil { // the first one may be taken
			_, err = c.Write([]byte("x"))
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "write" || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: a write behind the end is %v", network, err)
		}
	}
	for network, p := range pairs(t) {
		waited := make(chan error, 1)
		go func() { waited <- read(p[0]) }()
		_ = p[0].Close()
		if err := <-waited; !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: on a connection that is closed, a read is %v", network, err)
		}
	}
}

// A driver that looks at a connection by reading from it does so only if there is something to be seen.
func TestPeeked(t *testing.T) {
	for network, p := range pairs(t) {
		raw, err := p[0].(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		looked := func() (was bool) {
			if err := raw.Read(func(uintptr) bool { was = true; return true }); err != nil {
				t.Errorf("%s: %v", network, err)
			}
			return was
		}
		if looked() {
			t.Errorf("%s: a silent connection is read from", network)
		}
		_, _ = p[1].Write([]byte("x"))
		await(t, looked)
		_, _ = p[0].Read(make([]byte, 1))
		if looked() {
			t.Errorf("%s: a connection that was read to the end is read from", network)
		}
		_ = p[1].Close()
		await(t, looked)
	}
}

func await(t *testing.T, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !cond() {
		if ctx.Err() != nil {
			t.Fatal("a connection with something to be read is taken for silent")
		}
	}
}

// Whatever is not a socket is left as it is.
func TestOthers(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if rawio.Wrap(a) != a {
		t.Error("a pipe is wrapped")
	}
}

//go:build compat

package compat

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay passes bytes between clients and a server, until it is told to cut: whoever connects to its second port cuts
// every connection of the first, and is let go when that is done.
type relay struct {
	addr, cutAddr string
	to            string

	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu; nil once closed
}

func newRelay(t testing.TB, to string) *relay {
	t.Helper()
	r := &relay{to: to, conns: map[net.Conn]struct{}{}}
	listen := func(serve func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		r.wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				r.wg.Go(func() { serve(c) })
			}
		})
		return l.Addr().String()
	}
	t.Cleanup(func() { r.wg.Wait() }) // the last to run
	t.Cleanup(func() { r.cut(true) })
	r.addr = listen(r.pass)
	r.cutAddr = listen(func(c net.Conn) {
		r.cut(false)
		c.Close()
	})
	return r
}

// pass carries one connection.
func (r *relay) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer server.Close()
	r.mu.Lock()
	closed := r.conns == nil
	if !closed {
		r.conns[client] = struct{}{}
	}
	r.mu.Unlock()
	if closed {
		return
	}
	back := make(chan struct{})
	go func() {
		io.Copy(client, server) //nolint:errcheck // either end may go at any time
		client.Close()
		close(back)
	}()
	io.Copy(server, client) //nolint:errcheck // as above
	server.Close()
	<-back
	r.mu.Lock()
	delete(r.conns, client)
	r.mu.Unlock()
}

// cut closes all connections, as a network does that resets them.
func (r *relay) cut(forGood bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.(*net.TCPConn).SetLinger(0) //nolint:errcheck // it is closed next
		c.Close()
		delete(r.conns, c)
	}
	if forGood {
		r.conns = nil
	}
}

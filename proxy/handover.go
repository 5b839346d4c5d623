package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync/atomic"
)

// Clients are handed over to the next process where they stand between two commands: what they sent was answered, and
// what they send next waits in the socket or goes along. So they notice nothing. Those that have a connection to Redis of
// their own, in a transaction, a subscription or a blocking command, cannot be taken from it, and those over TLS not from
// their keys; they stay, and go over once they can, or end here.

// maxAlong is how many bytes of a command that has not come to its end go along.
const maxAlong = 32 << 10

// client is a client as it is handed over. What may be no UTF-8, which JSON would change, is bytes.
type client struct {
	ID     int64  `json:"id"`
	Name   string `json:"name,omitempty"`
	User   []byte `json:"user,omitempty"`
	Pass   []byte `json:"pass,omitempty"`
	Authed bool   `json:"authed,omitempty"`
	DB     int    `json:"db,omitempty"`
	Proto  int8   `json:"proto,omitempty"`
	Silent bool   `json:"silent,omitempty"` // CLIENT REPLY OFF
	Addr   string `json:"addr"`             // as the PROXY header has it, if there was one
	LAddr  string `json:"laddr"`
	Sent   []byte `json:"sent,omitempty"` // the beginning of a command
}

// successor is the process that takes over.
type successor struct {
	send  func(state []byte, fd int) error
	moved atomic.Int64
}

// Listeners calls yield for everything that the server listens on, with the setting it is of and what that says.
func (s *Server) Listeners(yield func(key, addr string, l net.Listener) error) error {
	for _, l := range s.listeners {
		if err := yield(l.key, l.addr, l.Listener); err != nil {
			return err
		}
	}
	return nil
}

// Leave stops accepting clients, and leaves what the server listens on to others who have it too.
func (s *Server) Leave() {
	for _, l := range s.listeners {
		if unix, ok := l.Listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false)
		}
	}
	s.closeListeners()
	s.accepting.Wait()
}

// HandOver passes clients on, after Leave, until none is left and adopted is closed, which says that Adopt is not called any
// more, or until ctx ends. send is given what Adopt takes: it keeps neither state nor fd longer than the call, and a client
// for which it fails is closed. Shutdown ends the clients that are left.
func (s *Server) HandOver(ctx context.Context, adopted <-chan struct{}, send func(state []byte, fd int) error) (moved, left int) {
	next := &successor{send: send}
	s.mu.Lock()
	s.successor.Store(next)
	for client := range s.sessions {
		client.mu.Lock()
		if client.point != nil {
			client.nudge()
		}
		client.mu.Unlock()
	}
	s.mu.Unlock()
	select {
	case <-adopted:
	case <-ctx.Done():
	}
	empty := make(chan struct{})
	s.mu.Lock()
	if s.empty = empty; len(s.sessions) == 0 {
		close(empty)
		s.empty = nil
	}
	s.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(next.moved.Load()), len(s.sessions)
}

var errHandOver = errors.New("the client is to be handed over")

// portable reports whether the session, which waits for its client, can be handed over once it is owed nothing.
func (s *session) portable() bool {
	if s.srv.successor.Load() == nil || s.stream.on || s.skip || s.in.unread() > maxAlong {
		return false
	}
	s.mu.Lock() // the lane's reader may unpin the session just now
	defer s.mu.Unlock()
	return !s.pinned()
}

// handOver passes the client on. If that fails, the session has to be finished with the error.
func (s *session) handOver() error {
	s.stepAside()
	s.fold()
	s.settle()
	if !s.await(func() bool { return s.pending.Load() == 0 && !s.writing }) {
		return net.ErrClosed
	}
	next := s.srv.successor.Load()
	addr, laddr := s.addrs()
	state, err := json.Marshal(client{
		ID: s.id, Name: s.called(), User: []byte(s.key.user), Pass: []byte(s.key.pass), Authed: s.key.authed, DB: s.key.db, Proto: s.key.proto,
		Silent: s.silent, Addr: addr, LAddr: laddr, Sent: s.in.held(),
	})
	if err == nil {
		err = s.point.pass(func(fd int) error { return next.send(state, fd) })
	}
	if err != nil {
		return err
	}
	next.moved.Add(1)
	s.kill(errHandOver)
	s.giveBack()
	s.srv.upstream.release(s.lanes)
	s.srv.left(s)
	return nil
}

// pass lets send give the connection to another process, and forgets it if that was done.
func (p *endpoint) pass(send func(fd int) error) error {
	if !p.use() {
		return net.ErrClosed
	}
	defer p.leave()
	if err := send(p.fd); err != nil {
		return err
	}
	// It lives on, so closing it here would leave it with the poller.
	return p.loop.poller.remove(p.fd)
}

// Adopt takes in a client that another process has handed over, whatever max_clients says. It takes conn, and does not
// keep state. It waits for Serve.
func (s *Server) Adopt(state []byte, conn net.Conn) error {
	select {
	case <-s.serving:
	case <-s.done:
		_ = conn.Close()
		return nil
	}
	var c client
	if err := json.Unmarshal(state, &c); err != nil {
		_ = conn.Close()
		return err
	}
	one := newSession(s, conn, c.ID)
	one.key = laneKey{identity: identity{string(c.User), string(c.Pass)}, authed: c.Authed, db: c.DB, proto: c.Proto}
	one.silent, one.muted = c.Silent, c.Silent
	if c.Name != "" {
		one.name.Store(&c.Name)
	}
	one.peers.Store(&peers{c.Addr, c.LAddr})
	for sent := c.Sent; len(sent) > 0; {
		one.borrow()
		n := copy(one.in.more(), sent)
		one.in.read(n)
		sent = sent[n:]
	}
	s.clients.Add(1)
	if !s.joins(one) {
		s.clients.Add(-1)
		_ = conn.Close()
		return nil
	}
	if !one.board() {
		one.kill(net.ErrClosed)
		s.left(one)
		return errors.New("a client that was handed over could not be taken in")
	}
	one.nudge()
	return nil
}

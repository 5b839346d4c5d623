package proxy

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestForward(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	a, b := r.client(), r.client()
	a.send("GET x", "INCR y", "NOSUCH z")
	for _, want := range []string{"GET x", "INCR y", "NOSUCH z"} {
		up.expect(want)
	}
	b.send("PING")
	up.expect("PING")
	// In pieces, with two clients' replies in one of them.
	up.send("$1\r\n")
	up.send("1\r\n:2\r")
	up.send("\n-ERR unknown command 'NOSUCH'\r\n+PONG\r\n")
	a.expect("$1\r\n1\r\n:2\r\n-ERR unknown command 'NOSUCH'\r\n")
	b.expect("+PONG\r\n")
}

// A session that asks Redis something on a connection of its own keeps nobody waiting, whatever loop they share.
func TestTriesAside(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	a, b := r.client(), r.client()
	served := func() {
		t.Helper()
		b.send("PING")
		up.expect("PING")
		up.send("+PONG\r\n")
		b.expect("+PONG\r\n")
	}
	a.send("HELLO 2 AUTH u p")
	tried := r.upstream()
	tried.expect("HELLO 2 AUTH u p")
	served()
	tried.send("-WRONGPASS\r\n")
	a.expect("-WRONGPASS\r\n")

	a.send("STRLEN user:1")
	tried = r.upstream()
	tried.expect("MULTI")
	served()
	tried.send("+OK\r\n")
	up.expect("STRLEN user:1")
	up.send(":1\r\n")
	a.expect(":1\r\n")

	a.send("MULTI")
	own := r.upstream()
	own.expect("CLIENT ID")
	own.send(":7\r\n")
	own.expect("MULTI")
	own.send("+OK\r\n")
	a.expect("+OK\r\n")
	a.send("SELECT 1")
	tried = r.upstream()
	tried.expect("SELECT 1")
	served()
	tried.send("+OK\r\n")
	own.expect("SELECT 1")
	own.send("+QUEUED\r\n")
	a.expect("+QUEUED\r\n")
}

// A loaded row comes in its place among replies that were there earlier.
func TestMissKeepsOrder(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("GET user:1", "GET x", "GET user:2", "INCR y", "GET user:3")
	for _, want := range []string{"GET user:1", "GET x", "GET user:2", "INCR y", "GET user:3"} {
		up.expect(want)
	}
	up.send("$-1\r\n$1\r\nx\r\n$-1\r\n:1\r\n$5\r\nthree\r\n")
	first, second := <-r.loader.loads, <-r.loader.loads
	second.done(nil, nil)
	c.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	first.done([]byte("one"), nil)
	c.expect("$3\r\none\r\n$1\r\nx\r\n$-1\r\n:1\r\n$5\r\nthree\r\n+PONG\r\n")
}

// A write waits for the reads of its session that went before, so that a row still being loaded cannot be answered
// with what is written behind it.
func TestWriteWaitsForReads(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("GET user:1", `SET user:1 {"name":"b"}`)
	up.expect("GET user:1")
	up.send("$-1\r\n")
	l := <-r.loader.loads
	l.done([]byte("old"), nil) // the write is sent only now
	r.writing()
	up.expect("MULTI")
	c.expect("$3\r\nold\r\n")
	up.expect(`SET user:1 {"id":1,"name":"b"}`)
}

// Commands behind one that blocks wait on the connection of the client's own as others do, and the client is read meanwhile.
// What it sends then must not take the place of what waits to be sent on.
func TestReadBehindBlocking(t *testing.T) {
	r := newRig(t, nil)
	_ = r.upstream()
	c := r.client()
	c.send("BLPOP list 0", "GET user:1", "GET x", "MULTI")
	own := r.own()
	own.expect("BLPOP list 0")
	own.send("*2\r\n$4\r\nlist\r\n$1\r\na\r\n")
	own.expect("GET user:1")
	own.expect("GET x")
	own.send("$3\r\nrow\r\n") // for which MULTI waits
	own.expect("MULTI")       // behind GET x, which is not answered
	c.send("INCR y", "INCR z")
	own.send("$1\r\nx\r\n+OK\r\n")
	c.expect("*2\r\n$4\r\nlist\r\n$1\r\na\r\n$3\r\nrow\r\n$1\r\nx\r\n+OK\r\n")
	own.expect("INCR y")
}

// A client that does not read is closed at its limit, and nobody waits for it.
func TestOutputLimit(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Config.OutputLimit = 1 << 20 })
	up := r.upstream()
	slow, other := r.client(), r.client()
	slow.send("GET x")
	up.expect("GET x")
	other.send("PING")
	up.expect("PING")
	up.send("$67108864\r\n")
	up.send(strings.Repeat("x", 64<<20) + "\r\n")
	up.send("+PONG\r\n")
	other.expect("+PONG\r\n")
	_ = slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, _ := io.Copy(io.Discard, slow); n >= 64<<20 {
		t.Errorf("the slow client got all %d bytes, so the limit was not at work", n)
	}
}

// A client that sends without reading is not read from any more; what it sent is answered once it reads.
func TestBackpressure(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	const n = 20000
	go func() {
		_, _ = c.Write(bytes.Repeat(appendCommand(nil, []byte("PING")), n))
	}()
	for range maxOwed + 1 {
		up.expect("PING")
	}
	// At most one more read's worth of commands may follow while nothing is answered.
	most := maxOwed + 2*readChunk/len(appendCommand(nil, []byte("PING")))
	s := r.srv.client(func(*session) bool { return true })
	var owed int64
	for waiting := false; !waiting; runtime.Gosched() {
		s.mu.Lock()
		if waiting = s.waiting; waiting {
			owed = s.owed
		}
		s.mu.Unlock()
	}
	if owed > int64(most) {
		t.Errorf("%d commands were taken in, want at most %d", owed, most)
	}
	go func() {
		for range maxOwed + 1 {
			_, _ = up.Write([]byte("+PONG\r\n"))
		}
		for range n - maxOwed - 1 {
			up.expect("PING")
			_, _ = up.Write([]byte("+PONG\r\n"))
		}
	}()
	c.expect(strings.Repeat("+PONG\r\n", n))
}

// Commands before a bad frame are run and answered, then the error, then the connection ends.
func TestProtocolError(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("PING")
	_, _ = c.Write([]byte("*1\r\n$-5\r\n"))
	up.expect("PING")
	up.send("+PONG\r\n")
	c.expect("+PONG\r\n-ERR Protocol error: invalid bulk length\r\n")
	c.ended()
}

// Draining answers what was sent and closes.
func TestShutdown(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("PING")
	up.expect("PING")
	done := make(chan struct{})
	go func() { r.srv.Shutdown(context.Background()); close(done) }()
	up.send("+PONG\r\n")
	c.expect("+PONG\r\n")
	c.ended()
	<-done
	r.srv.mu.Lock()
	defer r.srv.mu.Unlock()
	if n := len(r.srv.sessions); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A session that is only starting when the server gives up waiting opens no connections that nobody closes.
func TestShutdownBeforeASession(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	r.srv.Shutdown(context.Background())
	set := r.srv.upstream.acquire(laneKey{})
	if err := set.pick(nil).submit(new(session), []byte("x"), nil); err == nil || !strings.Contains(err.Error(), errClosed.Error()) {
		t.Errorf("a command is taken after the end: %v", err)
	}
	r.srv.upstream.release(set)
	if err := r.srv.Serve(); err != nil {
		t.Error(err)
	}
}

// A read of a row is sent again once the row is loaded. On a connection of the client's own no MULTI comes before that,
// of which it would be a part.
func TestReadIsNoPartOfTransaction(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	c := r.client()
	c.send("MULTI", "STRLEN user:1", "MULTI")
	own := r.upstream()
	for _, step := range []struct{ command, reply string }{
		{"CLIENT ID", ":7"}, {"MULTI", "-ERR not now"}, {"STRLEN user:1", ":0"}, {"STRLEN user:1", ":0"}, {"EXISTS user:1", ":0"},
	} {
		own.expect(step.command)
		own.send(step.reply + "\r\n")
	}
	(<-r.loader.loads).done(nil, nil)
	for _, step := range []struct{ command, reply string }{{"STRLEN user:1", ":0"}, {"EXISTS user:1", ":0"}, {"MULTI", "+OK"}} {
		own.expect(step.command)
		own.send(step.reply + "\r\n")
	}
	c.expect("-ERR not now\r\n:0\r\n+OK\r\n")
}

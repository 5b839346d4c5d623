package proxy

import (
	"net"
	"testing"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// Once nothing is subscribed any more an array is a reply, whatever stands in it.
func TestArrayBehindUnsubscribe(t *testing.T) {
	for _, reply := range []string{"*0\r\n", "*2\r\n$7\r\nmessage\r\n$1\r\ny\r\n"} {
		r := newRig(t, nil)
		r.upstream()
		c := r.client()
		c.send("SUBSCRIBE a", "UNSUBSCRIBE a", "MGET x y", "MULTI")
		own := r.own()
		confirmed := "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
		own.expect("SUBSCRIBE a")
		own.expect("PING")
		own.send(confirmed + "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
		c.expect(confirmed)
		confirmed = "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"
		own.expect("UNSUBSCRIBE a")
		own.expect("PING")
		own.send(confirmed + "+PONG\r\n")
		c.expect(confirmed)
		own.expect("MGET x y")
		own.send(reply)
		own.expect("MULTI")
		own.send("+OK\r\n")
		c.expect(reply + "+OK\r\n")
		c.send("SELECT 1") // which waits until the client is owed nothing
		r.upstream().expect("SELECT 1")
	}
}

// Who has subscribed to something may send commands one behind the other as everybody may, and end behind the last one.
func TestPipelineBehindSubscribe(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	c := r.client()
	c.send("WATCH k", "UNSUBSCRIBE", "INCR x", "INCR y")
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	own := r.own()
	confirmed := "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
	own.expect("WATCH k")
	own.send("+OK\r\n")
	own.expect("UNSUBSCRIBE")
	own.expect("PING")
	own.send(confirmed + "+PONG\r\n")
	own.expect("INCR x")
	own.expect("INCR y")
	own.send(":1\r\n:2\r\n")
	c.expect("+OK\r\n" + confirmed + ":1\r\n:2\r\n")
	c.ended()
}

// What a shared lane brings comes behind a message of which the client's own connection has brought a part.
func TestReplyBehindHalfMessage(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	c := r.client()
	c.send("HELLO 3 AUTH u p")
	tried := r.upstream()
	tried.expect("HELLO 3 AUTH u p")
	tried.send("%0\r\n")
	c.expect("%0\r\n")
	connected := func() *upstreamConn {
		up := r.accept()
		up.expect("AUTH u p")
		up.send("+OK\r\n")
		up.expect("HELLO 3")
		up.send("%0\r\n")
		return up
	}
	shared := connected()
	c.send("SUBSCRIBE a")
	own := connected()
	own.expect("CLIENT ID")
	own.send(":7\r\n")
	confirmed := ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
	own.expect("SUBSCRIBE a")
	own.expect("PING")
	own.send(confirmed + "+PONG\r\n")
	c.expect(confirmed)

	c.send(`SET user:1 {"name":"b"}`)
	tried = connected()
	tried.expect("MULTI")
	tried.send("+OK\r\n")
	for _, want := range []string{"MULTI", "SET", "HDEL", "ZADD", "DEL", "EXEC"} {
		shared.command(want)
	}
	half := ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nab"
	own.send(half)
	c.expect(half)
	shared.send("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n:0\r\n:1\r\n:0\r\n")
	s := r.srv.client(func(*session) bool { return true })
	// What keyrow answers by itself does not count.
	harness.Until(t, "the reply to SET is delivered", func() bool { return s.answered.Load() == 2 })
	own.send("cd\r\n" + half)
	c.expect("cd\r\n" + half)
	own.send("ef\r\n")
	c.expect("ef\r\n+OK\r\n")
}

// Of what MONITOR shows the client gets whole lines, whatever it sends meanwhile.
func TestResetBehindHalfLine(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	c := r.client()
	c.send("MONITOR")
	own := r.own()
	own.expect("MONITOR")
	own.send("+OK\r\n+1 [0 a] \"GE")
	c.expect("+OK\r\n+1 [0 a] \"GE")
	c.send("RESET")
	own.send("T\"\r\n")
	c.expect("T\"\r\n+RESET\r\n")
}

// A client that has a part of what Redis pushed cannot be told anything any more, and those who come after it on the lane
// are answered as ever.
func TestLostWithinPush(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("GET x")
	up.expect("GET x")
	half := ">2\r\n$3\r\nfoo\r\n$5\r\nab"
	up.send(half)
	c.expect(half)
	_ = up.Close()
	c.ended()
	up = r.upstream()
	c = r.client()
	c.send("GET x", "GET y")
	up.expect("GET x")
	up.expect("GET y")
	up.send("$1\r\nx\r\n$1\r\ny\r\n")
	c.expect("$1\r\nx\r\n$1\r\ny\r\n")
}

// Which primary is at the other end of a client's own connection is asked again where that is no part of a transaction.
func TestDoubtIsNoPartOfTransaction(t *testing.T) {
	replicas := make(testReplicas, 1)
	r := newRig(t, func(o *Options) {
		o.Replicas = replicas
		o.Mappings = testMappings(t, func(m *mapping.Config) { m.Delete, m.Durability, m.Replicas = "row", "replicas", 1 })
	})
	told := func(c *upstreamConn) {
		t.Helper()
		c.expect("INFO replication")
		c.send("$19\r\n\r\nmaster_replid:a\r\n\r\n")
	}
	told(r.upstream())
	c := r.client()
	c.send("WATCH k")
	own := r.own()
	told(own)
	own.expect("WATCH k")
	own.send("+OK\r\n")
	c.expect("+OK\r\n")
	c.send("DEL user:1", "MULTI")
	told(r.upstream()) // whether the client may know
	own.command("the script of DEL")
	own.send("*2\r\n:1\r\n:1\r\n")
	done := <-replicas
	own.expect("MULTI")
	own.send("+OK\r\n")
	done(mapping.ErrOtherPrimary)
	c.line()
	c.expect("+OK\r\n")
	c.send("INCR x")
	own.expect("INCR x")
	own.send("+QUEUED\r\n")
	c.expect("+QUEUED\r\n")
	c.send("EXEC", "WATCH k", "MULTI")
	own.expect("EXEC")
	own.send("*1\r\n:1\r\n")
	own.expect("WATCH k")
	own.send("+OK\r\n")
	told(own)
	own.expect("MULTI")
	own.send("+OK\r\n")
	c.expect("*1\r\n:1\r\n+OK\r\n+OK\r\n")
}

// What a client sent behind a command that blocked is run, and answered, although the client sends nothing more.
func TestEndBehindBlocking(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	c := r.client()
	c.send("BLPOP list 0", "INCR y")
	own := r.own()
	own.expect("BLPOP list 0")
	popped := "*2\r\n$4\r\nlist\r\n$1\r\na\r\n"
	own.send(popped)
	c.expect(popped)
	own.expect("INCR y")
	s := r.srv.client(func(*session) bool { return true })
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, "the session waits, or is gone", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.waiting || s.gone.Load()
	})
	own.send(":1\r\n")
	c.expect(":1\r\n")
	c.ended()
}

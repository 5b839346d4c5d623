package proxy

import (
	"strings"
	"testing"
	"time"
)

// A lane that is lost answers everything on it, in order, sends nothing twice, and is there again.
func TestLaneLost(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	a, b := r.client(), r.client()
	a.send("INCR x", "INCR x", "INCR x")
	up.expect("INCR x")
	up.expect("INCR x")
	up.expect("INCR x")
	b.send("GET user:2")
	up.expect("GET user:2")
	up.send(":1\r\n")
	a.expect(":1\r\n")
	_ = up.Close()
	for range 2 {
		if line := a.line(); !strings.HasPrefix(line, "-UPSTREAM keyrow: connection to redis lost, so it is unknown") {
			t.Errorf("got %q", line)
		}
	}
	if line := b.line(); !strings.HasPrefix(line, "-UPSTREAM keyrow: ") {
		t.Errorf("got %q", line)
	}
	up = r.upstream()
	a.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	a.expect("+PONG\r\n")
}

// When half of a reply is with the client no error can follow it: the client is closed, the others are not. A little of it
// is not with the client yet.
func TestLaneLostInReply(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	a, b := r.client(), r.client()
	a.send("GET x")
	up.expect("GET x")
	b.send("GET y")
	up.expect("GET y")
	half := "$1000000\r\n" + strings.Repeat("x", laneWhole)
	up.send(half)
	a.expect(half)
	_ = up.Close()
	a.ended()
	if line := b.line(); !strings.HasPrefix(line, "-UPSTREAM keyrow: ") {
		t.Errorf("got %q", line)
	}

	up = r.upstream()
	b.send("GET x", "GET y")
	up.expect("GET x")
	up.expect("GET y")
	up.send("$1\r\nx\r\n$10\r\nabc")
	b.expect("$1\r\nx\r\n")
	_ = up.Close()
	if line := b.line(); !strings.HasPrefix(line, "-UPSTREAM keyrow: connection to redis lost, so it is unknown") {
		t.Errorf("got %q", line)
	}
}

// While Redis cannot be reached commands are answered at once.
func TestUpstreamDown(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	c.expect("+PONG\r\n")
	_ = r.listener.Close()
	_ = up.Close()
	for {
		c.send("INCR x")
		line := c.line()
		if strings.Contains(line, "was not sent: redis at "+r.listener.Addr().String()+" is not available") {
			return
		}
		if !strings.HasPrefix(line, "-UPSTREAM keyrow: ") {
			t.Fatalf("got %q", line)
		}
	}
}

func TestUpstreamSilent(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Upstream.Timeout = 50 * time.Millisecond })
	up := r.upstream()
	c := r.client()
	c.send("PING")
	up.expect("PING")
	if line := c.line(); !strings.Contains(line, "no reply within 50ms") {
		t.Errorf("got %q", line)
	}
}

func TestUpstreamTalksNonsense(t *testing.T) {
	for name, reply := range map[string]string{
		"unasked": "+PONG\r\n+PONG\r\n", "unknown type": "?\r\n", "bad length": "$x\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			up := r.upstream()
			c := r.client()
			c.send("PING")
			up.expect("PING")
			up.send(reply)
			c.line()
			r.upstream() // a new connection
		})
	}
}

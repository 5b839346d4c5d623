package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"keyrow/test/harness"
)

// head is the beginning of a command, up to where its last argument, of n bytes, begins.
func head(n int, args ...string) []byte {
	wire := encode(append(args, "")...)
	return append(wire[:len(wire)-len("$0\r\n\r\n")], fmt.Sprintf("$%d\r\n", n)...)
}

// Large values on their way to keys that are no rows are never held whole, whatever the command.
func TestLargeValuesFlow(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Lean: true})
	s.want("PONG", "PING")
	before := memory(t, s.PID(), "VmHWM")
	const mib = 1 << 20
	chunk := []byte(strings.Repeat("x", mib))
	p := dial(t, s.Addr)
	p.patient()
	for _, c := range []struct {
		args  []string
		n     int
		reply string
	}{
		{[]string{"SET", "large"}, 200, "+OK\r\n"},
		{[]string{"APPEND", "large"}, 40, fmt.Sprintf(":%d\r\n", 240*mib)},
		{[]string{"SETEX", "large:short", "1000"}, 20, "+OK\r\n"},
		{[]string{"HSET", "large:hash", "field"}, 20, ":1\r\n"},
		{[]string{"LPUSH", "large"}, 20, "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"},
		{[]string{"ECHO"}, 4, ""},
	} {
		p.send(head(c.n*mib, c.args...))
		for range c.n {
			p.send(chunk)
		}
		p.send([]byte("\r\n*2\r\n$3\r\nGET\r\n$5\r\nsmall\r\n"))
		want := c.reply
		if want == "" {
			want = fmt.Sprintf("$%d\r\n%s\r\n", c.n*mib, strings.Repeat(string(chunk), c.n))
		}
		if got := p.reply(); got != want {
			t.Fatalf("%v of %d MiB is answered %.80q, want %.80q", c.args, c.n, got, want)
		}
		if got := p.reply(); got != "$-1\r\n" {
			t.Fatalf("behind %v a GET is answered %.80q", c.args, got)
		}
	}
	s.grown("large requests", before, 100*mib)
	// Rows and keyrow's own keys are looked at whole, and refused as ever.
	s.refused([]string{"SETRANGE", "not supported"}, "SETRANGE", "user:1", "0", strings.Repeat("x", 2*mib))
	s.refused([]string{"keyrow's own"}, "SET", s.prefix+":x", strings.Repeat("x", 2*mib))
	harness.Until(t, "the session is back on a shared connection", func() bool {
		return p.do("PING") == "+PONG\r\n" && s.upstream() <= ownUpstream
	})
	s.rest()
}

// A large value that does not come to its end is not there, and costs nothing that lasts.
func TestHalfALargeValue(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Lean: true, Set: map[string]string{"redis.timeout": "2s"}})
	s.want("OK", "SET", "half", "before")
	before := s.upstream()
	part := []byte(strings.Repeat("x", 2<<20))
	var peers []*peer
	for range 100 { // more than flow at a time: the rest is held
		p := dial(t, s.Addr)
		p.send(head(4<<20, "SET", "half"))
		p.send(part)
		peers = append(peers, p)
	}
	// Redis is not waited for while the client has not sent all: timeouts pass, and others are served.
	beside := newBystanders(s)
	for start := time.Now(); time.Since(start) < 5*time.Second && !t.Failed(); {
		beside.work()
	}
	s.want("before", "GET", "half")
	for i, p := range peers[1:] {
		if i%2 == 0 {
			_ = p.SetLinger(0)
		}
		_ = p.Close()
	}
	harness.Until(t, "the connections are gone", func() bool { return s.upstream() <= before+10 && s.info("clients") <= 6 })
	s.want("before", "GET", "half")
	peers[0].send(part)
	peers[0].send([]byte("\r\n"))
	if got := peers[0].reply(); got != "+OK\r\n" {
		t.Errorf("the value that came to its end is answered %q", got)
	}
	s.want(fmt.Sprint(4<<20), "STRLEN", "half")
	s.rest()
}

// What stands wrong behind a large argument is answered as by Redis.
func TestBadFrameBehindALargeValue(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	large := strings.Repeat("x", 2<<20)
	wire := append(encode("PING"), fmt.Sprintf("*4\r\n$5\r\nRPUSH\r\n$4\r\nlist\r\n$%d\r\n%s\r\n#3\r\n", len(large), large)...)
	answers := func(addr string) string {
		p := dial(t, addr)
		p.send(wire)
		return p.rest()
	}
	want, got := answers(s.Redis.Addr), answers(s.Addr)
	if got != want || !strings.Contains(want, "Protocol error") {
		t.Errorf("answered %q, by redis %q", got, want)
	}
	s.want("0", "EXISTS", "list")
}

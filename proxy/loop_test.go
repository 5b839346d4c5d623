package proxy

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// heldGate holds who asks it, and with that the loop: a session does not step aside for it.
type heldGate struct{ asked, open chan struct{} }

func (g heldGate) Admit() error {
	g.asked <- struct{}{}
	<-g.open
	return nil
}

func (heldGate) Marked(int) {}

// The end of a connection may be seen together with the last replies on it, and is not told of again.
func TestLaneEndsBehindReplies(t *testing.T) {
	gate := heldGate{make(chan struct{}), make(chan struct{})}
	r := newRig(t, func(o *Options) { o.Gate, o.Upstream.Timeout = gate, time.Hour })
	up := r.upstream()
	c, writer := r.client(), r.client()
	c.send("INCR x", "INCR y")
	up.expect("INCR x")
	up.expect("INCR y")
	writer.send(`SET user:1 {"name":"x"}`)
	<-gate.asked
	up.send(":1\r\n")
	_ = up.Close()
	close(gate.open)
	c.expect(":1\r\n")
	if got := c.line(); !strings.HasPrefix(got, "-UPSTREAM keyrow: connection to redis lost") {
		t.Errorf("what Redis did not answer is answered %q", got)
	}
}

// A session that connects to Redis for itself keeps nobody waiting.
func TestConnectAside(t *testing.T) {
	for _, commands := range [][]string{{"HELLO 2 AUTH user pass"}, {"MULTI", "SELECT 1"}} {
		t.Run(commands[0], func(t *testing.T) {
			dialed, open := make(chan struct{}), make(chan struct{})
			var held atomic.Bool
			r := newRig(t, func(o *Options) {
				dial := o.Upstream.Dial
				o.Upstream.Dial = func(ctx context.Context) (net.Conn, error) {
					if held.CompareAndSwap(true, false) {
						close(dialed)
						<-open
					}
					return dial(ctx)
				}
			})
			defer close(open)
			up := r.upstream()
			c, other := r.client(), r.client()
			if commands[0] == "MULTI" {
				c.send("MULTI")
				own := r.upstream()
				own.expect("CLIENT ID")
				own.send(":7\r\n")
				own.expect("MULTI")
				own.send("+OK\r\n")
				c.expect("+OK\r\n")
			} else {
				other.send("PING")
				up.expect("PING")
				up.send("+PONG\r\n")
				other.expect("+PONG\r\n")
			}
			held.Store(true)
			c.send(commands[len(commands)-1])
			<-dialed
			other.send("PING")
			up.expect("PING")
			up.send("+PONG\r\n")
			other.expect("+PONG\r\n")
		})
	}
}

// The addresses of lanes are how CLIENT LIST finds out whose connections Redis lists.
func TestLaneAddress(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	c.expect("+PONG\r\n")
	if users := r.srv.users(); len(users[up.RemoteAddr().String()]) != 1 {
		t.Errorf("the users of the connection from %s: %v", up.RemoteAddr(), users)
	}
}

// Clients and lanes of several loops, and a lane that another loop leads, get in nobody's way.
func TestLoops(t *testing.T) {
	for _, lanes := range []int{1, 3} {
		t.Run(fmt.Sprint(lanes), func(t *testing.T) {
			r := newRig(t, func(o *Options) { o.Upstream.Lanes = lanes })
			go echoArguments(r.listener)
			var clients errgroup.Group
			for i := range 8 {
				c := r.client()
				clients.Go(func() error {
					in := bufio.NewReader(c)
					_ = c.SetDeadline(time.Now().Add(30 * time.Second))
					for n := range 100 {
						var out []byte
						var want strings.Builder
						for depth := range 1 + n%17 {
							word := fmt.Sprint(i, ":", n, ":", depth)
							if n%50 == 49 && depth == 0 {
								word += strings.Repeat("x", 300<<10)
							}
							out = appendCommand(out, []byte("GET"), []byte(word))
							fmt.Fprintf(&want, "$%d\r\n%s\r\n", len(word), word)
						}
						go c.Write(out) //nolint:errcheck // what is missing is missed below
						got := make([]byte, want.Len())
						if _, err := io.ReadFull(in, got); err != nil || string(got) != want.String() {
							return fmt.Errorf("client %d, round %d: %w", i, n, err)
						}
					}
					return nil
				})
			}
			if err := clients.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Commands that Redis does not take for a while go there in their order, although some of them were written at once and
// only in part, and the clients are let on one after the other.
func TestStalledLane(t *testing.T) {
	r := newRig(t, nil)
	const clients, depth, size = 12, 100, 20 << 10
	word := func(client, n int) string { return fmt.Sprint(client, ":", n, ":", strings.Repeat("x", size)) }
	var all errgroup.Group
	for i := range clients {
		c := r.client()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		all.Go(func() error {
			var out []byte
			for n := range depth {
				out = appendCommand(out, []byte("GET"), []byte(word(i, n)))
			}
			go c.Write(out) //nolint:errcheck // what is missing is missed below
			in := bufio.NewReader(c)
			for n := range depth {
				want := fmt.Sprintf("$%d\r\n%s\r\n", len(word(i, n)), word(i, n))
				got := make([]byte, len(want))
				if _, err := io.ReadFull(in, got); err != nil || string(got) != want {
					return fmt.Errorf("client %d, reply %d: %w", i, n, err)
				}
			}
			return nil
		})
	}
	for r.srv.Snapshot().Backlog == 0 { // somebody waits for room
		runtime.Gosched()
	}
	go echoArguments(r.listener)
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}

// echoArguments plays a Redis that answers every command with its last argument.
func echoArguments(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
			var args, size int
			for {
				if _, err := fmt.Fscanf(in, "*%d\r\n", &args); err != nil {
					return
				}
				var last []byte
				for range args {
					if _, err := fmt.Fscanf(in, "$%d\r\n", &size); err != nil {
						return
					}
					last = make([]byte, size+2)
					if _, err := io.ReadFull(in, last); err != nil {
						return
					}
				}
				if bytes.Equal(last, []byte("PING\r\n")) {
					_, _ = out.WriteString("+PONG\r\n")
				} else {
					fmt.Fprintf(out, "$%d\r\n%s", size, last)
				}
				if in.Buffered() == 0 {
					_ = out.Flush()
				}
			}
		}()
	}
}

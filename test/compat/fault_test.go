//go:build compat

package compat

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"keyrow/test/harness"
)

// TestRedisDiesUnderLoad kills Redis under INCRs of 20 clients and starts it again, three times. What was acknowledged
// is there afterwards, nothing is applied twice, replies stay in their order, and the clients never reconnect.
func TestRedisDiesUnderLoad(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	k := keyrowFor(t, harness.Options{Redis: r}, "behind")

	const clients = 20
	var acked, issued [clients]atomic.Int64
	var round atomic.Int64 // changed after every restart
	var served [clients]atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for i := range clients {
		p := dial(t, k.Addr)
		load.Go(func() {
			key, last := fmt.Sprint("n:", i), int64(0)
			for seq := 0; ; seq++ {
				select {
				case <-stop:
					return
				default:
				}
				now := round.Load()
				mark := fmt.Sprint(i, ":", seq)
				issued[i].Add(2)
				if err := p.write(bytes.Join([][]byte{encode("INCR", key), encode("ECHO", mark), encode("INCR", key)}, nil)); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				for at := range 3 {
					b, err := p.frame()
					if err != nil {
						t.Errorf("client %d: after %q: %v", i, b, err)
						return
					}
					switch {
					case b[0] == '-':
						if at != 1 && !strings.HasPrefix(string(b), "-UPSTREAM") && !strings.HasPrefix(string(b), "-LOADING") {
							t.Errorf("client %d: %s", i, b)
						}
					case at == 1 && payload(b) != mark, at != 1 && b[0] != ':':
						t.Errorf("client %d: reply %d of %s is %q", i, at, mark, b)
						return
					case at != 1:
						n, _ := strconv.ParseInt(payload(b), 10, 64)
						if n <= last {
							t.Errorf("client %d: INCR gave %d after %d", i, n, last)
						}
						last = n
						acked[i].Add(1)
						served[i].Store(now)
					}
				}
			}
		})
	}
	everybody := func() bool {
		for i := range clients {
			if served[i].Load() < round.Load() {
				return false
			}
		}
		return true
	}
	end := sync.OnceFunc(func() { close(stop); load.Wait() })
	defer end()
	round.Store(1)
	for range 3 {
		harness.Until(t, "every client is served", everybody)
		r.Kill()
		r.Restart()
		round.Add(1)
	}
	harness.Until(t, "every client is served again", everybody)
	end()
	for i := range clients {
		low, high := acked[i].Load(), issued[i].Load()
		text, _ := r.Do("GET", fmt.Sprint("n:", i)).(string)
		if n, _ := strconv.ParseInt(text, 10, 64); n < low || n > high {
			t.Errorf("client %d: the counter is %d; %d were acknowledged and %d issued", i, n, low, high)
		}
	}
}

// TestRedisDiesUnderState closes the clients whose state was on the connection that is lost, and those only.
func TestRedisDiesUnderState(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t)
	k := keyrowFor(t, harness.Options{Redis: r}, "behind")
	plain := dial(t, k.Addr)
	plain.must(t, "SELECT", "3")
	plain.must(t, "CLIENT", "SETNAME", "me")
	var held []*peer
	for _, commands := range [][]string{
		{"MULTI", "SET k v"}, {"WATCH k"}, {"SUBSCRIBE ch"}, {"MONITOR"}, {"BLPOP l 0"}, {"HELLO 3", "CLIENT TRACKING on"},
	} {
		p := dial(t, k.Addr)
		for _, c := range commands {
			if strings.HasPrefix(c, "BLPOP") {
				ok(t, p.write(encode(strings.Fields(c)...)))
				control := dial(t, r.Addr)
				ok(t, until(control, "blocked_clients:1", "INFO", "clients"))
				continue
			}
			p.must(t, strings.Fields(c)...)
		}
		held = append(held, p)
	}
	r.Kill()
	for i, p := range held {
		left, err := p.rest()
		if err != nil {
			t.Errorf("client %d was not closed: %v", i, err)
		}
		if i != 3 && len(left) > 0 { // MONITOR has seen things
			t.Errorf("client %d was sent %q", i, left)
		}
	}
	r.Restart()
	harness.Until(t, "the other client is served again", func() bool {
		return plain.must(t, "SET", "k", "v") == "+OK\r\n"
	})
	same(t, plain.must(t, "CLIENT", "GETNAME"), "$2\r\nme\r\n")
	control := dial(t, r.Addr)
	control.must(t, "SELECT", "3")
	same(t, control.must(t, "GET", "k"), "$1\r\nv\r\n")
}

// TestDeadInBLPOP has clients die while they wait in BLPOP, in every way a client can. What is pushed afterwards is
// nobody's but whoever asks next.
func TestDeadInBLPOP(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t)
	k := keyrowFor(t, harness.Options{Redis: r}, "behind")
	control := dial(t, r.Addr)
	other := dial(t, k.Addr)
	die := []func(p *peer){
		func(p *peer) { p.Close() },
		func(p *peer) { p.SetLinger(0); p.Close() },                    //nolint:errcheck // it is closed next
		func(p *peer) { p.CloseWrite() },                               //nolint:errcheck // it is closed next
		func(p *peer) { p.write(encode("PING")); p.Close() },           //nolint:errcheck // it is closed next
		func(p *peer) { p.write([]byte("*2\r\n$3\r\nGE")); p.Close() }, //nolint:errcheck // it is closed next
	}
	for i := range 100 {
		p := dial(t, k.Addr)
		ok(t, p.write(encode("BLPOP", "q", "0")))
		ok(t, until(control, "blocked_clients:1", "INFO", "clients"))
		die[i%len(die)](p)
		ok(t, until(control, "blocked_clients:0", "INFO", "clients"))
		other.must(t, "RPUSH", "q", strconv.Itoa(i))
		if got, want := other.must(t, "LPOP", "q"), fmt.Sprintf("$%d\r\n%d\r\n", len(strconv.Itoa(i)), i); got != want {
			t.Fatalf("push %d: popped %q", i, got)
		}
		p.Close()
	}
	// All at once.
	var waiting []*peer
	for range 100 {
		p := dial(t, k.Addr)
		ok(t, p.write(encode("BLPOP", "q", "0")))
		waiting = append(waiting, p)
	}
	ok(t, until(control, "blocked_clients:100", "INFO", "clients"))
	for i, p := range waiting {
		die[i%len(die)](p)
	}
	ok(t, until(control, "blocked_clients:0", "INFO", "clients"))
	for range 100 {
		other.must(t, "RPUSH", "q", "x")
	}
	same(t, other.must(t, "LLEN", "q"), ":100\r\n")
}

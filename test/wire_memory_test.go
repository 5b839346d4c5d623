package test

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrow/test/harness"
)

// upstream is how many connections Redis has.
func (s *shop) upstream() int {
	s.t.Helper()
	return strings.Count(fmt.Sprint(s.Redis.Do("CLIENT", "LIST")), "\n")
}

// ownUpstream is how many connections to Redis keyrow may hold for itself and keep for sessions to come, besides those
// that it has when it starts.
const ownUpstream = 45

// 10,000 clients that have said something and then wait cost 100 MB at most, and no connection to Redis.
func TestIdleClients(t *testing.T) {
	t.Parallel()
	const clients, most = 10000, 100e6
	harness.OpenFiles(t, clients+5000) // other tests run beside it
	s := openShop(t, harness.Options{Lean: true, Set: map[string]string{"proxy.max_clients": strconv.Itoa(clients + 10)}})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.want(ada, "GET", "user:42")
	before := s.upstream()

	said := append(encode("SET", "plain", "x"), encode("GET", "user:42")...)
	answer := fmt.Sprintf("+OK\r\n$%d\r\n%s\r\n", len(ada), ada)
	conns := make([]net.Conn, clients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	say := func(i int) error {
		if conns[i] == nil {
			// From addresses of their own: one has too few ports if others were used a short time ago.
			d := net.Dialer{Timeout: harness.Patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%8))}}
			c, err := d.Dial("tcp", s.Addr)
			if err != nil {
				return err
			}
			conns[i] = c
		}
		conns[i].SetDeadline(time.Now().Add(harness.Patience))
		if _, err := conns[i].Write(said); err != nil {
			return err
		}
		got := make([]byte, len(answer))
		n, err := io.ReadFull(conns[i], got)
		if err == nil && string(got[:n]) != answer {
			err = fmt.Errorf("answered %q", got[:n])
		}
		return err
	}
	everybody := func() {
		var all sync.WaitGroup
		for w := range 8 {
			all.Go(func() {
				for i := w; i < clients; i += 8 {
					if err := say(i); err != nil {
						t.Errorf("client %d: %v", i, err)
						return
					}
				}
			})
		}
		all.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	everybody()
	everybody() // they are all there, and speak once more
	if n := s.info("clients"); n != clients+1 {
		t.Errorf("there are %d clients", n)
	}
	harness.Until(t, "they take 100 MB at most", func() bool { return memory(t, s.PID(), "VmRSS") <= most })
	now := s.upstream()
	t.Logf("%d idle clients: %d MB, %d at most while they came; %d connections to redis, %d before",
		clients, memory(t, s.PID(), "VmRSS")/1e6, memory(t, s.PID(), "VmHWM")/1e6, now, before)
	if now > before+ownUpstream {
		t.Errorf("redis has %d connections, %d before the clients came", now, before)
	}
	s.rest()
}

// Clients that have sent 20 MiB each, and stay, leave no memory behind: neither with them, nor as garbage.
func TestMemoryComesBack(t *testing.T) {
	t.Parallel()
	const clients, atOnce, size = 50, 5, 20 << 20
	s := openShop(t, harness.Options{Lean: true})
	s.want("PONG", "PING")
	before := memory(t, s.PID(), "VmRSS")
	value := strings.Repeat("x", size)
	answer := fmt.Sprintf("+OK\r\n$%d\r\n%s\r\n", size, value)
	var all sync.WaitGroup
	for w := range atOnce {
		var peers []*peer
		for range clients / atOnce {
			peers = append(peers, dial(t, s.Addr))
		}
		all.Go(func() {
			key := fmt.Sprint("large:", w)
			wire := append(encode("SET", key, value), encode("GET", key)...)
			got := make([]byte, len(answer))
			for _, p := range peers {
				p.patient()
				if _, err := p.Write(wire); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(p.in, got); err != nil || string(got) != answer {
					t.Errorf("20 MiB were answered with %.20q… %v", got, err)
					return
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d MiB before; with %d clients, %d at a time: %d MiB, %d at most", before>>20, clients, atOnce,
		memory(t, s.PID(), "VmRSS")>>20, memory(t, s.PID(), "VmHWM")>>20)
	if n := s.info("clients"); n != clients+1 {
		t.Errorf("there are %d clients", n)
	}
	start := time.Now()
	harness.Until(t, "the memory is back", func() bool { return memory(t, s.PID(), "VmRSS") <= before+64<<20 })
	t.Logf("%d MiB after %.1f s", memory(t, s.PID(), "VmRSS")>>20, time.Since(start).Seconds())
	s.rest()
}

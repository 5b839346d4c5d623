package test

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"keyrow/test/harness"
)

// grown fails the test if keyrow took more memory than before and most bytes at any time.
func (s *shop) grown(what string, before, most int64) {
	s.t.Helper()
	grown := memory(s.t, s.PID(), "VmHWM") - before
	s.t.Logf("%s took %d MiB at most", what, grown>>20)
	if grown > most {
		s.t.Errorf("%s took %d MiB, more than %d", what, grown>>20, most>>20)
	}
}

// gets is how many GETs Redis has had.
func (s *shop) gets() int64 {
	s.t.Helper()
	stats := fmt.Sprint(s.Redis.Do("INFO", "commandstats"))
	found := regexp.MustCompile(`cmdstat_get:calls=(\d+)`).FindStringSubmatch(stats)
	if found == nil {
		return 0
	}
	n, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// endless are commands that do not come to an end: how they start, and what follows byte by byte.
var endless = []struct{ start, drip string }{
	{"", "*3\r\n$3\r\nSET\r\n$4\r\nslow"},
	{"*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$1000000\r\n", "and it will take a while"},
	{"*1048576\r\n$3\r\nDEL\r\n", "$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"},
	{"*2\r\n$3\r\nGET\r\n$536870912\r\n", "abcdefghijklmnopqrstuvwx"},
	{"*1048576\r\n$536870912\r\n", "abcdefghijklmnopqrstuvwx"},
	{"GET inline", " without a line feed for ever"},
}

// Thousands of clients that send a byte of a command now and then, or claim to send much, take memory for what they
// sent, and nobody's time.
func TestSlowloris(t *testing.T) {
	t.Parallel()
	const clients, rounds = 2000, 20
	harness.OpenFiles(t, clients+5000)
	s := openShop(t, harness.Options{Lean: true})
	beside := newBystanders(s)
	quiet := beside.work()
	before := memory(t, s.PID(), "VmHWM")

	peers := make([]*peer, clients)
	for i := range peers {
		peers[i] = dial(t, s.Addr)
		peers[i].send([]byte(endless[i%len(endless)].start))
	}
	var dripping sync.WaitGroup
	defer dripping.Wait()
	dripping.Go(func() {
		for n := range rounds {
			for i, p := range peers {
				p.patient()
				if _, err := p.Write([]byte(endless[i%len(endless)].drip[n : n+1])); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		}
	})
	beside.during(fmt.Sprint(clients, " clients that send byte by byte"), quiet)
	dripping.Wait()
	harness.Until(t, "it has read all of it", func() bool { return unread(t, s.Addr) == 0 })
	if n := s.info("clients"); n != int64(clients+1+len(beside.peers)) {
		t.Errorf("there are %d clients", n)
	}
	s.grown(fmt.Sprint(clients, " of them"), before, clients*48<<10)
	for _, p := range peers {
		p.Close()
	}
	harness.Until(t, "they are gone", func() bool { return s.info("clients") == int64(1+len(beside.peers)) })
	s.rest()
}

// Clients that ask for much and read nothing are closed at output_limit.
func TestNeverRead(t *testing.T) {
	t.Parallel()
	const clients, replies, size, limit = 10, 64, 1 << 20, 4 << 20
	s := openShop(t, harness.Options{Lean: true, Set: map[string]string{"proxy.output_limit": strconv.Itoa(limit)}})
	s.Redis.Do("SET", "large", strings.Repeat("x", size))
	beside := newBystanders(s)
	quiet := beside.work()
	before := memory(t, s.PID(), "VmHWM")
	var peers []*peer
	for range clients {
		p := dial(t, s.Addr)
		p.send(bytes.Repeat(encode("GET", "large"), replies))
		peers = append(peers, p)
	}
	beside.during("clients that do not read", quiet)
	harness.Until(t, "they are closed", func() bool { return s.info("clients") == int64(1+len(beside.peers)) })
	if !strings.Contains(s.Log(), "output_limit") {
		t.Error("the log does not say why")
	}
	for _, p := range peers {
		p.patient()
		if got := len(p.rest()); got >= replies*size {
			t.Errorf("one of them got all of its %d bytes", got)
		}
	}
	s.grown(fmt.Sprint(clients, " clients that asked for ", replies*size>>20, " MiB each"), before, clients*limit*4)
	s.rest()
}

// One client writes a GiB of commands and is answered with a GiB. Whether it reads meanwhile or not until it can write
// no more, keyrow holds little of it, and others are served.
func TestGiBPipeline(t *testing.T) {
	t.Parallel()
	const size, pairs, limit = 4096, 1 << 30 / 4096, 32 << 20
	for _, reads := range []bool{true, false} {
		t.Run(map[bool]string{true: "reading", false: "not reading at first"}[reads], func(t *testing.T) {
			s := openShop(t, harness.Options{Lean: true, Set: map[string]string{"proxy.output_limit": strconv.Itoa(limit)}})
			beside := newBystanders(s)
			quiet := beside.work()
			before := memory(t, s.PID(), "VmHWM")

			greedy := dial(t, s.Addr)
			var all sync.WaitGroup
			defer all.Wait()
			defer greedy.Close()
			all.Go(func() {
				value := strings.Repeat("x", size)
				some := bytes.Repeat(append(encode("SET", "value", value), encode("GET", "value")...), 64)
				for range pairs / 64 {
					greedy.patient()
					if _, err := greedy.Write(some); err != nil {
						t.Errorf("writing: %v", err)
						return
					}
				}
			})
			read := func() {
				pair := fmt.Sprintf("+OK\r\n$%d\r\n%s\r\n", size, strings.Repeat("x", size))
				got := make([]byte, len(pair))
				greedy.patient()
				for i := range pairs {
					if _, err := io.ReadFull(greedy.in, got); err != nil || string(got) != pair {
						t.Errorf("SET and GET %d are answered %.50q, %v", i, got, err)
						greedy.Close()
						return
					}
				}
			}
			if reads {
				all.Go(read)
			} else {
				// More replies than fit anywhere: half of the limit is where the client is not read any more.
				harness.Until(t, "much waits for the client", func() bool { return s.gets() >= limit/2/size })
			}
			beside.during("a client that writes a GiB", quiet)
			if !reads {
				all.Go(read)
			}
			all.Wait()
			s.grown("a GiB in and out", before, 4*limit)
			s.rest()
		})
	}
}

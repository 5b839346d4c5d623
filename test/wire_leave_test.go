package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrow/test/harness"
)

// leavings are the points at which clients leave: what they have said by then, and how many replies they have taken.
var leavings = []struct {
	name    string
	said    func(i int) []byte
	replies int
}{
	{"connected", func(int) []byte { return nil }, 0},
	{"greeted", func(int) []byte { return encode("PING") }, 1},
	{"served", func(i int) []byte { return append(encode("SET", fmt.Sprint("k", i%100), "x"), encode("GET", "k1")...) }, 2},
	{"served, unread", func(i int) []byte { return append(encode("SET", fmt.Sprint("k", i%100), "x"), encode("GET", "k1")...) }, 0},
	{"in a count", func(int) []byte { return []byte("*3\r") }, 0},
	{"in a value", func(int) []byte { return []byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nhalf") }, 0},
	{"in a large value", func(int) []byte {
		return append([]byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n"), make([]byte, 100000)...)
	}, 0},
	{"after nonsense", func(int) []byte { return []byte("*1\r\n!4\r\n") }, 0},
	{"in a transaction", func(int) []byte { return append(encode("MULTI"), encode("SET", "k", "x")...) }, 2},
	{"in a transaction on a row", func(i int) []byte {
		key, image := account(i%100, int64(i))
		return bytes.Join([][]byte{encode("MULTI"), encode("SET", key, image), encode("EXEC")}, nil)
	}, 1},
	{"watching", func(int) []byte { return encode("WATCH", "k", "user:1") }, 1},
	{"subscribed", func(int) []byte { return encode("SUBSCRIBE", "c") }, 1},
	{"subscribing", func(int) []byte { return encode("PSUBSCRIBE", "c*") }, 0},
	{"monitoring", func(int) []byte { return encode("MONITOR") }, 1},
	{"tracking", func(int) []byte { return append(encode("HELLO", "3"), encode("CLIENT", "TRACKING", "ON")...) }, 0},
	{"elsewhere", func(int) []byte { return append(encode("SELECT", "3"), encode("GET", "k")...) }, 2},
	{"blocked", func(int) []byte { return encode("BLPOP", "nolist", "0") }, 0},
	{"blocked with more to do", func(int) []byte { return append(encode("BLPOP", "nolist", "0"), encode("PING")...) }, 0},
	{"with large replies unread", func(int) []byte { return bytes.Repeat(encode("GET", "large"), 16) }, 0},
	{"loading a row", func(i int) []byte { return encode("GET", fmt.Sprint("user:", i)) }, 0},
	{"loading rows", func(i int) []byte { return encode("MGET", "k", fmt.Sprint("user:", i), fmt.Sprint("user:", i+1)) }, 0},
	{"writing a row", func(i int) []byte {
		key, image := account(i%100, int64(i))
		return append(encode("SET", key, image), encode("DEL", key)...)
	}, 0},
}

// Thousands of clients that come, do little and go at odd points, half of them with a reset, leave nothing: no
// connection, no file, no goroutine, no memory.
func TestClientsComeAndGo(t *testing.T) {
	t.Parallel()
	const clients, atOnce = 5000, 16
	s := openShop(t, harness.Options{Lean: true})
	s.sql("INSERT INTO users SELECT seq, 'x', NULL, 1, 1 FROM seq_0_to_5000")
	s.owns()
	fresh := goroutines(s)
	s.Start()
	s.owns()
	s.Redis.Do("SET", "large", strings.Repeat("x", 256<<10))
	files, upstream, rss := filesOf(t, s.PID()), s.upstream(), memory(t, s.PID(), "VmRSS")

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	start := time.Now()
	var all sync.WaitGroup
	for w := range atOnce {
		random := rand.New(rand.NewPCG(seed, uint64(w)))
		all.Go(func() {
			for i := w; i < clients; i += atOnce {
				leaving := leavings[random.IntN(len(leavings))]
				if err := visit(s.Addr, leaving.said(i), leaving.replies, random.IntN(2) == 0); err != nil {
					t.Errorf("a client that leaves %s: %v", leaving.name, err)
					return
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d clients came and went, %.0f a second", clients, clients/time.Since(start).Seconds())

	harness.Until(t, "they are gone", func() bool { return s.info("clients") == 1 })
	s.blocked(0)
	harness.Until(t, "redis has no connections of theirs", func() bool { return s.upstream() <= upstream+ownUpstream })
	harness.Until(t, "the files are closed", func() bool { return filesOf(t, s.PID()) <= files+ownUpstream })
	harness.Until(t, "the memory is back", func() bool { return memory(t, s.PID(), "VmRSS") <= rss+64<<20 })
	s.rest()
	const each = 3 // goroutines of a connection to redis
	if n := goroutines(s); n > fresh+each*ownUpstream {
		t.Errorf("%d goroutines are left, %d are there without clients", n, fresh)
	}
}

// visit connects, says something, takes some replies, and leaves.
func visit(addr string, said []byte, replies int, reset bool) error {
	c, err := connect(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(said); err != nil {
		return err
	}
	for range replies {
		if got, err := c.next(); err != nil || got[0] == '-' {
			return fmt.Errorf("answered %q, %w", got, err)
		}
	}
	if reset {
		return c.SetLinger(0)
	}
	return nil
}

// filesOf counts the open files of a process.
func filesOf(t *testing.T, pid int) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

var goroutine = regexp.MustCompile(`(?m)^goroutine \d+ .*\[`)

// goroutines ends keyrow with the signal at which a Go program prints its goroutines, and counts them.
func goroutines(s *shop) int {
	s.t.Helper()
	before := len(s.Log())
	if err := syscall.Kill(s.PID(), syscall.SIGQUIT); err != nil {
		s.t.Fatal(err)
	}
	s.WaitExit()
	n := len(goroutine.FindAllString(s.Log()[before:], -1))
	if n == 0 {
		s.t.Fatal("keyrow printed no goroutines")
	}
	return n
}

// deaths are the ways in which a client that waits can end.
var deaths = []struct {
	name string
	die  func(p *peer)
}{
	{"closing", func(p *peer) { p.Close() }},
	{"resetting", func(p *peer) { p.SetLinger(0); p.Close() }}, //nolint:errcheck // it is closed next
	{"closing one half", func(p *peer) { p.CloseWrite() }},     //nolint:errcheck // the test's end closes it
	{"asking and closing", func(p *peer) { p.send(encode("PING")); p.Close() }},
	{"closing within a command", func(p *peer) { p.send([]byte("*2\r\n$")); p.Close() }},
}

// A client that dies while it waits for something takes nothing with it of what comes afterwards.
func TestDeadWhileBlocked(t *testing.T) {
	t.Parallel()
	const times, many = 5, 100
	s := openShop(t, harness.Options{})
	s.Redis.Do("XGROUP", "CREATE", "stream", "group", "$", "MKSTREAM")
	other := dial(t, s.Addr)
	for _, wait := range []struct{ command, push, take string }{
		{"BLPOP list 0", "RPUSH list pushed", "LPOP list"},
		{"BLMOVE list other LEFT RIGHT 0", "RPUSH list pushed", "LPOP list"},
		{"BRPOPLPUSH list other 0", "RPUSH list pushed", "LPOP list"},
		{"BLMPOP 0 2 list list2 LEFT", "RPUSH list2 pushed", "LPOP list2"},
		{"BZPOPMIN zset 0", "ZADD zset 1 pushed", "ZPOPMIN zset"},
		{"XREADGROUP GROUP group dead BLOCK 0 STREAMS stream >", "XADD stream * f pushed", "XREADGROUP GROUP group alive STREAMS stream >"},
	} {
		command := encode(strings.Fields(wait.command)...)
		// pushed is what somebody else pushes afterwards, and then takes.
		pushed := func(what string) {
			t.Helper()
			if _, err := other.ask(strings.Fields(wait.push)...); err != nil {
				t.Fatal(err)
			}
			if got, err := other.ask(strings.Fields(wait.take)...); err != nil || strings.Count(got, "pushed") != 1 {
				t.Fatalf("after %s in %s, %s is answered %q, %v", what, wait.command, wait.take, got, err)
			}
		}
		for i := range times * len(deaths) {
			death := deaths[i%len(deaths)]
			p := dial(t, s.Addr)
			p.send(command)
			s.blocked(1)
			death.die(p)
			s.blocked(0)
			pushed("a client died by " + death.name)
		}
		var waiting []*peer
		for range many {
			p := dial(t, s.Addr)
			p.send(command)
			waiting = append(waiting, p)
		}
		s.blocked(many)
		for i, p := range waiting {
			deaths[i%len(deaths)].die(p)
		}
		s.blocked(0)
		for range many {
			pushed("many clients died")
		}
	}
	s.rest()
}

// Connections that end at any byte of what they send: what was sent whole may be applied, nothing else is, and a client
// beside them notices nothing.
func TestCutConnections(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := openShop(t, harness.Options{})
	beside := newBystanders(s)
	var working sync.WaitGroup
	defer working.Wait()
	working.Go(func() { beside.work() })

	before := [][]string{
		nil, {"MULTI"}, {"SUBSCRIBE", "ch"}, {"WATCH", "w"}, {"HELLO", "3"}, {"SELECT", "0"}, {"BLPOP", "absent", "0"},
		{"SET", "user:7", `{"name":"n"}`}, {"GET", "user:8"},
	}
	whole := map[string]int{} // commands that were sent whole, by key
	for i := range 300 {
		var wire []byte
		if first := before[i%len(before)]; first != nil {
			wire = encode(first...)
		}
		key := fmt.Sprint("cut:", i)
		one := encode("APPEND", key, "x")
		start := len(wire)
		wire = append(wire, bytes.Repeat(one, 5)...)
		at := random.IntN(len(wire) + 1)
		whole[key] = max(0, at-start) / len(one)
		p := dial(t, s.Addr)
		for sent := 0; sent < at; {
			n := min(at-sent, 1+random.IntN(len(wire)))
			p.send(wire[sent : sent+n])
			sent += n
		}
		if random.IntN(2) == 0 {
			p.SetLinger(0) //nolint:errcheck // it is closed next
		}
		p.Close()
	}
	harness.Until(t, "they are gone", func() bool { return s.info("clients") == int64(1+len(beside.peers)) })
	for key, most := range whole {
		if n := s.Redis.Do("STRLEN", key).(int64); n > int64(most) {
			t.Errorf("%s: %d commands were applied, %d were sent whole", key, n, most)
		}
	}
	working.Wait()
	s.rest()
}

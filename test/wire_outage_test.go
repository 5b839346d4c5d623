package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"keyrow/test/harness"
)

// Redis is killed under INCRs of many clients, half of which pipeline, and started again, three times. What was
// acknowledged is there afterwards, nothing is applied twice, every reply is that to its command, and the clients go on
// over the connections they have.
func TestRedisDiesUnderLoad(t *testing.T) {
	t.Parallel()
	const clients, kills = 32, 3
	s := openShop(t, harness.Options{Redis: harness.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")})

	counters := make([]*counter, clients)
	var round atomic.Int64 // how often Redis was started
	quit := make(chan struct{})
	var load sync.WaitGroup
	end := sync.OnceFunc(func() { close(quit); load.Wait() })
	defer end()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range counters {
		c := &counter{peer: dial(t, s.Addr), key: fmt.Sprint("counter:", i), random: rand.New(rand.NewPCG(seed, uint64(i)))}
		c.most = 1
		if i%2 == 1 {
			c.most = 50
		}
		counters[i] = c
		load.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				now := round.Load()
				served, err := c.count()
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				if served {
					c.round.Store(now)
				}
			}
		})
	}
	served := func() {
		t.Helper()
		round.Add(1)
		harness.Until(t, "every client is served", func() bool {
			for _, c := range counters {
				if c.round.Load() < round.Load() {
					return t.Failed()
				}
			}
			return true
		})
	}
	served()
	for range kills {
		s.Redis.Kill()
		s.Redis.Restart()
		served()
	}
	end()
	acked, issued, failed := 0, 0, 0
	for i, c := range counters {
		text, _ := s.Redis.Do("GET", c.key).(string)
		if n, _ := strconv.Atoi(text); n < c.acked || n > c.issued {
			t.Errorf("client %d: the counter is %d; %d were acknowledged and %d issued", i, n, c.acked, c.issued)
		}
		acked, issued, failed = acked+c.acked, issued+c.issued, failed+c.issued-c.acked
	}
	t.Logf("%d acknowledged of %d", acked, issued)
	if failed == 0 {
		t.Error("the kills hit nobody")
	}
	s.rest()
}

// counter is a client that counts in a key of its own.
type counter struct {
	*peer
	key    string
	random *rand.Rand
	most   int // INCRs in one pipeline

	issued, acked, last, marks int
	round                      atomic.Int64
}

// count sends one pipeline, in which every INCR stands before an ECHO, and looks at the replies. It reports whether
// none of them was an error.
func (c *counter) count() (served bool, err error) {
	n := 1 + c.random.IntN(c.most)
	var wire bytes.Buffer
	for i := range n {
		wire.Write(encode("INCR", c.key))
		if c.most > 1 {
			wire.Write(encode("ECHO", strconv.Itoa(c.marks+i)))
		}
	}
	c.issued += n
	c.patient()
	if _, err := c.Write(wire.Bytes()); err != nil {
		return false, err
	}
	served = true
	for range n {
		got, err := c.next()
		if err != nil {
			return false, err
		}
		if failed, err := outage(got); err != nil {
			return false, err
		} else if failed {
			served = false
		} else if v, err := strconv.Atoi(strings.TrimSpace(got[1:])); err != nil || got[0] != ':' || v <= c.last {
			return false, fmt.Errorf("INCR is answered %q after %d", got, c.last)
		} else {
			c.acked++
			c.last = v
		}
		if c.most == 1 {
			continue
		}
		mark := strconv.Itoa(c.marks)
		c.marks++
		if got, err = c.next(); err != nil {
			return false, err
		}
		if failed, err := outage(got); err != nil {
			return false, err
		} else if failed {
			served = false
		} else if want := fmt.Sprintf("$%d\r\n%s\r\n", len(mark), mark); got != want {
			return false, fmt.Errorf("ECHO %s is answered %q", mark, got)
		}
	}
	return served, nil
}

// outage reports whether a reply says that Redis is away or has not loaded its data yet; another error is an error.
func outage(reply string) (bool, error) {
	switch {
	case reply[0] != '-':
		return false, nil
	case strings.HasPrefix(reply, "-UPSTREAM "), strings.HasPrefix(reply, "-LOADING "):
		return true, nil
	}
	return true, fmt.Errorf("answered %q", reply)
}

// A client whose state went with the connection that is lost is closed; one that has none goes on where it was.
func TestRedisDiesUnderState(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Redis: harness.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")})
	plain := dial(t, s.Addr)
	plain.do("SELECT", "3")
	plain.do("CLIENT", "SETNAME", "me")
	tests := []struct {
		name  string
		said  []string
		waits bool // the last command is not answered
	}{
		{"a transaction", []string{"MULTI", "SET k v"}, false},
		{"WATCH", []string{"WATCH k"}, false},
		{"a subscription", []string{"SUBSCRIBE ch"}, false},
		{"MONITOR", []string{"MONITOR"}, false},
		{"BLPOP", []string{"BLPOP l 0"}, true},
		{"tracking", []string{"CLIENT TRACKING ON"}, false},
	}
	var peers []*peer
	for _, test := range tests {
		p := dial(t, s.Addr)
		peers = append(peers, p)
		for _, command := range test.said {
			p.send(encode(strings.Fields(command)...))
			if test.waits {
				continue
			}
			if got := p.reply(); got[0] == '-' {
				t.Fatalf("%s is answered %q", command, got)
			}
		}
	}
	s.blocked(1)
	s.Redis.Kill()
	for i, p := range peers {
		p.patient()
		if got := p.rest(); got != "" && tests[i].name != "MONITOR" { // which has seen things
			t.Errorf("with %s a client is told %q", tests[i].name, got)
		}
	}
	s.Redis.Restart()
	plain.patient()
	harness.Until(t, "the other client is served again", func() bool { return plain.do("SET", "k", "v") == "+OK\r\n" })
	if got := plain.do("CLIENT", "GETNAME"); got != "$2\r\nme\r\n" {
		t.Errorf("its name is %q", got)
	}
	direct := dial(t, s.Redis.Addr)
	direct.do("SELECT", "3")
	if got := direct.do("GET", "k"); got != "$1\r\nv\r\n" {
		t.Errorf("it wrote elsewhere: %q", got)
	}
	s.rest()
}

// A transaction that cannot begin does not leave its commands to run without it: MULTI and WATCH that do not reach Redis
// are the last a client is told.
func TestRedisIsAwayBeforeMulti(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.Redis.Kill()
	for _, first := range []string{"MULTI", "WATCH"} {
		p := dial(t, s.Addr)
		key, image := account(1, 1)
		args := []string{first}
		if first == "WATCH" {
			args = append(args, key)
		}
		p.send(slices.Concat(encode(args...), encode("SET", key, image), encode("EXEC")))
		if got := p.reply(); !strings.HasPrefix(got, "-UPSTREAM keyrow: ") {
			t.Errorf("%s is answered %q", first, got)
		}
		if got := p.rest(); got != "" {
			t.Errorf("behind a %s that failed, the client is told %q", first, got)
		}
	}
	s.Redis.Restart()
	s.rest()
}

// A command that Redis had when it was killed may have been applied, and the client is told so, whatever keyrow tries
// afterwards.
func TestRedisDiesUnderAScript(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	key, image := account(1, 1)
	for _, name := range []string{"DEL", "PERSIST", "GETDEL"} {
		harness.Until(t, "rows are written again", func() bool { return s.show("SET", key, image) == "OK" })
		s.Settled()
		s.Redis.Do("CLIENT", "PAUSE", 60_000, "WRITE")
		p := dial(t, s.Addr)
		p.send(encode(name, key))
		harness.Until(t, "redis has it", func() bool {
			for line := range strings.Lines(fmt.Sprint(s.Redis.Do("CLIENT", "LIST"))) {
				if strings.Contains(line, "cmd=evalsha ") && strings.Contains(line, "flags=b ") {
					return true
				}
			}
			return false
		})
		s.Redis.Kill()
		if got := p.reply(); !strings.HasPrefix(got, "-UPSTREAM keyrow: ") || !strings.Contains(got, "it is unknown whether") {
			t.Errorf("%s is answered %q", name, got)
		}
		s.Redis.Restart()
	}
	s.rest()
}

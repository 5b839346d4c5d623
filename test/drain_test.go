package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"keyrow/test/harness"
)

// SIGTERM under load: what was asked is answered, what was acknowledged is in MySQL, and the exit status is 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, interval := range []string{"1ms", "1h"} {
		t.Run(interval, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, harness.Options{Set: map[string]string{"journal.interval": interval}})
			w := newTraffic(t, 8, 80)
			w.start(s.Addr)
			w.more(500)
			if code := s.Term(); code != 0 {
				t.Errorf("exit status %d", code)
			}
			w.stop()
			w.check(s)
			s.rest()
			if w.refused.Load() > 0 {
				t.Errorf("%d commands were refused", w.refused.Load())
			}
			if last := lastLine(s.Log()); !strings.Contains(last, `"remaining":0`) {
				t.Errorf("the last line is %s", last)
			}
		})
	}
}

// Without MySQL the writes stay in Redis: they are counted, the exit status says so, and the next keyrow flushes them.
func TestDrainWithoutMySQL(t *testing.T) {
	t.Parallel()
	for _, test := range []string{"killed", "paused"} {
		t.Run(test, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, harness.Options{MySQL: harness.StartMySQL(t),
				Set: map[string]string{"journal.drain": "300ms", "mysql.timeout": "1s"}})
			if test == "killed" {
				s.MySQL.Kill()
			} else {
				s.MySQL.Pause()
			}
			const n = 100
			for i := range n {
				key, image := account(i, int64(i))
				s.want("OK", "SET", key, image)
			}
			s.want("1", "DEL", "acct:99")
			// A mark is a key's and says what was done to it, so the last has two.
			if code := s.Term(); code != 3 {
				t.Errorf("exit status %d", code)
			}
			if last := lastLine(s.Log()); !strings.Contains(last, fmt.Sprint(n+1)) {
				t.Errorf("the last line does not tell that %d writes remain: %s", n+1, last)
			}
			if !strings.Contains(s.Log(), fmt.Sprintf(`"remaining":%d`, n+1)) {
				t.Errorf("the log does not tell that %d writes remain", n+1)
			}
			if test == "killed" {
				s.MySQL.Restart()
			} else {
				s.MySQL.Resume()
			}
			s.Start()
			s.rest()
			if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(n)) FROM accounts"); got != fmt.Sprint(n-1, " ", 98*99/2) {
				t.Errorf("mysql has %s rows and sum", got)
			}
			if code := s.Term(); code != 0 {
				t.Errorf("exit status %d", code)
			}
		})
	}
}

// A command that was sent before SIGTERM is answered, also if its row is being read just then.
func TestDrainAnswersWhatWasAsked(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "load.granted")
	s := openShop(t, harness.Options{Hooks: hooks})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	p := dial(t, s.Addr)
	p.send(encode("GET", "user:42"))
	held := hooks.Wait("load.granted")
	idle := dial(t, s.Addr)
	if got := idle.do("PING"); got != "+PONG\r\n" {
		t.Fatal(got)
	}
	ended := make(chan int)
	go func() { ended <- s.Term() }()
	if got := idle.rest(); got != "" { // closed: the process is draining
		t.Errorf("an idle client gets %q", got)
	}
	held.Release()
	if got, want := p.rest(), fmt.Sprintf("$%d\r\n%s\r\n", len(ada), ada); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.rest()
}

// A second SIGTERM ends the drain: what is not in MySQL yet stays in Redis and is told.
func TestDrainAskedTwice(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{MySQL: harness.StartMySQL(t), Set: map[string]string{"journal.drain": "1h", "mysql.timeout": "1s"}})
	s.MySQL.Kill()
	key, image := account(1, 1)
	s.want("OK", "SET", key, image)
	s.Signal(syscall.SIGTERM)
	harness.Until(t, "it drains", func() bool { return strings.Contains(s.Log(), "draining") })
	if code := s.Term(); code != 3 {
		t.Errorf("exit status %d", code)
	}
	if log := s.Log(); !strings.Contains(log, `"remaining":1`) || !strings.Contains(log, "asked to stop a second time") {
		t.Error("the log does not tell what remains and why")
	}
	s.MySQL.Restart()
	s.Start()
	s.rest()
}

// Clients that do not read their replies cannot keep the process: it ends within journal.drain, and what was written is
// counted all the same.
func TestDrainPastItsTime(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{MySQL: harness.StartMySQL(t), Set: map[string]string{"journal.drain": "1s", "mysql.timeout": "1s"}})
	s.MySQL.Kill()
	key, image := account(1, 1)
	s.want("OK", "SET", key, image)
	blocked := dial(t, s.Addr)
	blocked.send(encode("BLPOP", "queue", "0"))
	s.want("OK", "SET", "large", strings.Repeat("x", 1<<20))
	deaf := dial(t, s.Addr)
	for range 64 {
		deaf.send(encode("GET", "large"))
	}
	if code := s.Term(); code != 3 {
		t.Errorf("exit status %d", code)
	}
	if log := s.Log(); !strings.Contains(log, `"remaining":1`) || !strings.Contains(log, "journal.drain of 1s is over") {
		t.Error("the log does not tell what remains and why")
	}
	s.MySQL.Restart()
	s.Start()
	s.rest()
}

// Without Redis nobody knows what remains, and nobody waits for it.
func TestDrainWithoutRedis(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"journal.drain": "300ms", "redis.timeout": "1h"}})
	s.Redis.Pause()
	if code := s.Term(); code != 3 {
		t.Errorf("exit status %d", code)
	}
	if last := lastLine(s.Log()); !strings.Contains(last, "stopped without knowing") {
		t.Errorf("the last line is %s", last)
	}
	s.Redis.Resume()
	s.Start()
	s.rest()
}

// What was sent before SIGTERM is answered, also where keyrow has not read it by then.
func TestDrainReadsWhatWasSent(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	var peers []*peer
	for range 20 {
		p := dial(t, s.Addr)
		p.want("+PONG\r\n", "PING")
		peers = append(peers, p)
	}
	s.Pause()
	for _, p := range peers {
		p.send(encode("ECHO", "there"))
	}
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for i, p := range peers {
		if got := p.rest(); got != "$5\r\nthere\r\n" {
			t.Errorf("client %d gets %q", i, got)
		}
	}
	s.rest()
}

func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return lines[len(lines)-1]
}

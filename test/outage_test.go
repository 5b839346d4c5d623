package test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"keyrow/test/harness"
)

// MySQL goes away under load and comes back: writes and reads of what is cached never notice, reads of anything else
// are told so, and everything acknowledged is in MySQL afterwards.
func TestMySQLOutage(t *testing.T) {
	t.Parallel()
	for _, outage := range []string{"killed", "paused"} {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, harness.Options{MySQL: harness.StartMySQL(t), Set: map[string]string{"mysql.timeout": "1s"}})
			s.sql("INSERT INTO users SELECT seq, 'x', NULL, 1, 1 FROM seq_0_to_9")
			s.sql("INSERT INTO codes VALUES ('cold', 'x')")
			for i := range 10 {
				s.Must("GET", fmt.Sprint("user:", i))
			}
			cached, stop := context.WithCancel(t.Context())
			var readers errgroup.Group
			for i := range 2 {
				p := dial(t, s.Addr)
				readers.Go(func() error {
					want := fmt.Sprintf(`{"id":%d,"name":"x","email":null,"age":1,"balance":1.00}`, i)
					want = fmt.Sprintf("$%d\r\n%s\r\n", len(want), want)
					for cached.Err() == nil {
						if got := p.do("GET", fmt.Sprint("user:", i)); got != want {
							return fmt.Errorf("a cached key is answered %q", got)
						}
					}
					return nil
				})
			}
			w := newTraffic(t, 4, 40)
			w.start(s.Addr)
			w.more(200)
			if outage == "killed" {
				s.MySQL.Kill()
			} else {
				s.MySQL.Pause()
			}
			s.refused([]string{"DBDOWN keyrow: ", "nothing was read"}, "GET", "code:cold")
			s.refused([]string{"DBDOWN keyrow: "}, "MGET", "user:1", "code:cold", "plain")
			s.refused([]string{"DBDOWN keyrow: "}, "DEL", "acct:1000")
			if got := s.Redis.Do("EXISTS", s.prefix+":aux:{code:cold}"); got != int64(0) {
				t.Error("the lease of a row that could not be read was not given back")
			}
			w.more(1000)
			if outage == "killed" {
				s.MySQL.Restart()
			} else {
				s.MySQL.Resume()
			}
			harness.Until(t, "rows are read again", func() bool { return s.show("GET", "code:cold") == `{"code":"cold","text":"x"}` })
			w.more(200)
			w.stop()
			stop()
			if err := readers.Wait(); err != nil {
				t.Error(err)
			}
			s.rest()
			w.check(s)
			if w.dbdown.Load()+w.aborted.Load() != w.refused.Load() {
				t.Errorf("%d commands were refused, but only %d with DBDOWN and %d with EXECABORT", w.refused.Load(), w.dbdown.Load(), w.aborted.Load())
			}
		})
	}
}

// Redis, which writes everything to disk before it answers, is killed under load and comes back.
func TestRedisOutage(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{
		Redis: harness.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always"),
		Set:   map[string]string{"mysql.timeout": "1s"},
	})
	w := newTraffic(t, 4, 40)
	w.start(s.Addr)
	client := dial(t, s.Addr)
	for range 3 {
		w.more(200)
		s.Redis.Kill()
		refused := w.refused.Load()
		harness.Until(t, "the clients are told", func() bool { return w.refused.Load() > refused+10 })
		for _, args := range [][]string{{"GET", "user:1"}, {"SET", "user:1", `{"name":"x"}`}, {"GET", "plain"}, {"DEL", "acct:1"}, {"MGET", "user:1"}} {
			if got := client.do(args...); !strings.HasPrefix(got, "-UPSTREAM keyrow: ") {
				t.Errorf("without redis %v is answered %q", args, got)
			}
		}
		s.Redis.Restart()
	}
	w.more(200)
	w.stop()
	if got := client.do("GET", "plain"); got != "$-1\r\n" {
		t.Errorf("after the outage a client that stayed is answered %q", got)
	}
	s.rest()
	w.check(s)
	if w.dbdown.Load() > 0 {
		t.Errorf("%d commands were refused with DBDOWN", w.dbdown.Load())
	}
}

// A row that MySQL will not have does not keep the 999 beside it from landing. It is kept, with what MySQL said, and
// lands once it is written anew.
func TestRowThatMySQLRefuses(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	pipe := s.Client().Pipeline()
	for i := range 1000 {
		n := int64(i)
		if i == 500 {
			n = -5000 // keyrow does not know CHECK constraints
		}
		key, image := account(i, n)
		pipe.Do(t.Context(), "SET", key, image)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	const key, image = "acct:500", `{"id":500,"n":-5000,"twin":"-5000"}`
	s.rest(key)
	if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(n)) FROM accounts"); got != "999 499000" {
		t.Errorf("mysql has %s rows and sum", got)
	}
	var why struct {
		Mark, Table, Error string
		Code               int
	}
	for p := range 4 {
		if entry := s.Redis.Do("HGET", fmt.Sprintf("%s:{%d}:parked", s.prefix, p), key); entry != nil {
			if err := json.Unmarshal([]byte(entry.(string)), &why); err != nil {
				t.Error(err)
			}
		}
	}
	if why.Mark != "+" || why.Code != 4025 || !strings.Contains(why.Table, "accounts") || !strings.Contains(why.Error, "CONSTRAINT `solvent` failed") {
		t.Errorf("it is parked as %+v", why)
	}
	harness.Until(t, "it is counted", func() bool { return s.info("parked") == 1 })
	s.want(image, "GET", key)
	if got := s.Redis.Do("PTTL", key); got != int64(-1) {
		t.Errorf("PTTL of the parked key is %v", got)
	}
	if log := s.Log(); !strings.Contains(log, key) || !strings.Contains(log, "solvent") {
		t.Error("the log does not say why it is parked")
	}

	// Another try with a bad value, then a good one.
	s.want("OK", "SET", key, `{"n":-6000,"twin":"x"}`)
	s.Settled(key)
	s.want(`{"id":500,"n":-6000,"twin":"x"}`, "GET", key)
	s.want("OK", "SET", key, `{"n":500,"twin":"500"}`)
	s.rest()
	if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(n)) FROM accounts"); got != "1000 499500" {
		t.Errorf("mysql has %s rows and sum", got)
	}
	harness.Until(t, "none is counted", func() bool { return s.info("parked") == 0 })

	// A parked row can be deleted, too.
	s.want("OK", "SET", key, image)
	s.Settled(key)
	s.want("1", "DEL", key)
	s.want("nil", "GET", key)
	s.rest()
	s.want("nil", "GET", key)
	if got := s.row("SELECT COUNT(*) FROM accounts"); got != "999" {
		t.Errorf("mysql has %s rows", got)
	}
}

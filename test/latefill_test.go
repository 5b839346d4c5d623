package test

import (
	"fmt"
	"testing"

	"keyrow/test/harness"
)

// A row that was read from MySQL before the key was written, deleted or dropped never gets into Redis after it, and
// whoever asked for it gets what is there now.
func TestLateFill(t *testing.T) {
	t.Parallel()
	const row, next = `{"id":1,"n":1,"twin":"1"}`, `{"id":1,"n":2,"twin":"2"}`
	tests := []struct {
		name, key   string
		row         bool // MySQL has row
		meanwhile   func(s *shop)
		answer      string // to the reader whose fill is late
		inRedis     string
		selectAgain bool // nothing tells what became of the row, so it is read again
	}{
		{name: "SET of a row", key: "acct:1", row: true, answer: next, inRedis: next,
			meanwhile: func(s *shop) { s.want("OK", "SET", "acct:1", next) }},
		{name: "SET of no row", key: "acct:1", answer: next, inRedis: next,
			meanwhile: func(s *shop) { s.want("OK", "SET", "acct:1", next) }},
		{name: "MSET", key: "acct:1", row: true, answer: next, inRedis: next,
			meanwhile: func(s *shop) { s.want("OK", "MSET", "plain", "x", "acct:1", next) }},
		{name: "SET that has reached MySQL", key: "acct:1", row: true, answer: next, inRedis: next,
			meanwhile: func(s *shop) { s.want("OK", "SET", "acct:1", next); s.Settled() }},
		{name: "SET that has reached MySQL and left Redis", key: "acct:1", row: true, answer: next, inRedis: next,
			meanwhile:   func(s *shop) { s.want("OK", "SET", "acct:1", next, "PXAT", 1); s.Settled() },
			selectAgain: true},
		{name: "SET that has reached MySQL and was evicted", key: "acct:1", row: true, answer: next, inRedis: next,
			meanwhile: func(s *shop) {
				s.want("OK", "SET", "acct:1", next)
				s.Settled()
				s.Redis.Do("DEL", "acct:1")
			}, selectAgain: true},
		{name: "DEL of the row", key: "acct:1", row: true, answer: "nil", inRedis: "nil",
			meanwhile: func(s *shop) { s.want("OK", "SET", "acct:1", next); s.want("1", "DEL", "acct:1") }},
		{name: "DEL of the row that has reached MySQL", key: "acct:1", row: true, answer: "nil", inRedis: "nil",
			meanwhile: func(s *shop) {
				s.want("OK", "SET", "acct:1", next)
				s.want("1", "DEL", "acct:1")
				s.Settled()
			}, selectAgain: true},
		{name: "DEL and SET", key: "acct:1", row: true, answer: next, inRedis: next,
			meanwhile: func(s *shop) {
				s.want("OK", "SET", "acct:1", row)
				s.want("1", "DEL", "acct:1")
				s.want("OK", "SET", "acct:1", next)
			}},
		{name: "DEL of the copy", key: "user:1", answer: "nil", inRedis: "nil",
			meanwhile: func(s *shop) { s.want("0", "DEL", "user:1") }, selectAgain: true},
	}
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, "load.selected")
			s := openShop(t, harness.Options{Hooks: hooks})
			writer := s
			if processes == 2 {
				writer = s.second(nil)
			}
			reader := dial(t, s.Addr)
			rejected := int64(0)
			for _, test := range tests {
				for range 3 {
					s.sql("DELETE FROM accounts")
					if test.row {
						s.sql("INSERT INTO accounts VALUES (1, 1, '1')")
					}
					s.Redis.Do("DEL", "acct:1", s.prefix+":aux:{acct:1}", s.prefix+":aux:{user:1}")
					reader.send(encode("GET", test.key))
					held := hooks.Wait("load.selected")
					test.meanwhile(writer)
					held.Release()
					if test.selectAgain {
						hooks.Wait("load.selected").Release()
					}
					want := "$-1\r\n"
					if test.answer != "nil" {
						want = fmt.Sprintf("$%d\r\n%s\r\n", len(test.answer), test.answer)
					}
					answer := make(chan string, 1)
					go func() {
						got, err := reader.next()
						if err != nil {
							got += err.Error()
						}
						answer <- got
					}()
					var got string
					harness.Until(t, test.name+": the reader is answered", func() bool {
						// On a slow machine what was deleted may be in MySQL already; then nothing tells of it, as above.
						if again := hooks.Try("load.selected"); again != nil {
							again.Release()
						}
						select {
						case got = <-answer:
							return true
						default:
							return false
						}
					})
					if got != want {
						t.Errorf("%s: the reader gets %q, want %q", test.name, got, want)
					}
					if got := show(s.Redis.Do("GET", test.key), nil); got != test.inRedis {
						t.Errorf("%s: redis has %s, want %s", test.name, got, test.inRedis)
					}
					rejected++
					if n := s.info("rejected_fills"); n != rejected {
						t.Fatalf("%s: %d fills were rejected, want %d", test.name, n, rejected)
					}
					s.Settled()
				}
				s.rest()
			}
		})
	}
}

// A row that is read by one process and deleted through another, which has to wait for the first one's lease to learn
// whether there is a row at all.
func TestDeleteDuringLoad(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "load.selected")
	s := openShop(t, harness.Options{Hooks: hooks, Set: map[string]string{"mysql.timeout": "30s"}}) // leases last longer
	other := s.second(nil)
	const image = `{"id":1,"n":1,"twin":"1"}`
	for range 5 {
		s.sql("INSERT INTO accounts VALUES (1, 1, '1')")
		s.Redis.Do("DEL", s.prefix+":aux:{acct:1}")
		waits := other.info("lease_waits")
		reader, deleter := dial(t, s.Addr), dial(t, other.Addr)
		reader.send(encode("GET", "acct:1"))
		held := hooks.Wait("load.selected")
		deleter.send(encode("DEL", "acct:1"))
		harness.Until(t, "the other process waits", func() bool { return other.info("lease_waits") > waits })
		held.Release()
		if got := reader.reply(); got != fmt.Sprintf("$%d\r\n%s\r\n", len(image), image) {
			t.Errorf("the reader gets %q", got)
		}
		if got := deleter.reply(); got != ":1\r\n" {
			t.Errorf("the DEL is answered %q", got)
		}
		if got := s.Redis.Do("EXISTS", "acct:1"); got != int64(0) {
			t.Error("redis has an image of the row")
		}
		other.want("nil", "GET", "acct:1")
		s.Settled()
		other.want("nil", "GET", "acct:1")
		if got := s.row("SELECT COUNT(*) FROM accounts"); got != "0" {
			t.Error("mysql still has the row")
		}
	}
	s.rest()
}

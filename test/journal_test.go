package test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// cli runs keyrow journal with the configuration of s.
func (s *shop) cli(args ...string) (code int, stdout, stderr string) {
	s.t.Helper()
	return command(s.t, filepath.Dir(s.Conf), nil, append([]string{"journal"}, args...)...)
}

// parks writes a row that MySQL refuses, over one that it has.
func (s *shop) parks(id int) (key string) {
	s.t.Helper()
	key, image := account(id, 1)
	s.want("OK", "SET", key, image)
	s.Settled()
	_, image = account(id, -5000) // keyrow does not know CHECK constraints
	s.want("OK", "SET", key, image)
	s.Settled(key)
	return key
}

// A parked row is listed, tried again and given up by command, from the shell and over RESP alike.
func TestJournalCommands(t *testing.T) {
	t.Parallel()
	for _, over := range []struct {
		name   string
		parked func(*shop) map[string]string
		do     func(s *shop, what, key string) string
	}{
		{"shell", func(s *shop) map[string]string {
			code, stdout, stderr := s.cli("parked", "--json")
			var rows []map[string]any
			if err := json.Unmarshal([]byte(stdout), &rows); err != nil || code != 0 || len(rows) != 1 {
				s.t.Fatalf("parked is %d rows: %v, exit status %d: %s%s", len(rows), err, code, stdout, stderr)
			}
			fields := map[string]string{}
			for name, v := range rows[0] {
				fields[name] = fmt.Sprint(v)
			}
			return fields
		}, func(s *shop, what, key string) string {
			code, stdout, stderr := s.cli(what, key)
			if code != 0 {
				s.t.Errorf("%s: exit status %d: %s", what, code, stderr)
			}
			return strings.TrimSpace(strings.TrimLeft(stdout, "abcdefghijklmnopqrstuvwxyz"))
		}},
		{"resp", func(s *shop) map[string]string {
			rows, ok := s.Must("KEYROW", "JOURNAL", "PARKED", 10).([]any)
			if !ok || len(rows) != 1 {
				s.t.Fatalf("parked is %v", rows)
			}
			fields := map[string]string{}
			for row := rows[0].([]any); len(row) > 1; row = row[2:] {
				fields[row[0].(string)] = row[1].(string)
			}
			return fields
		}, func(s *shop, what, key string) string { return s.show("KEYROW", "JOURNAL", what, key) }},
	} {
		t.Run(over.name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, harness.Options{})
			key := s.parks(1)
			first := over.parked(s)
			for name, want := range map[string]string{
				"key": key, "mark": "+", "table": "`accounts`", "code": "4025", "error": "solvent", "since": "T", "tries": "1",
			} {
				if !strings.Contains(first[name], want) {
					t.Errorf("%s is %q, want %q", name, first[name], want)
				}
			}
			// It fails again, and is known for as long as before.
			if got := over.do(s, "retry", key); got != "1" {
				t.Errorf("retry is %s", got)
			}
			s.Settled(key)
			if again := over.parked(s); again["tries"] != "2" || again["since"] != first["since"] {
				t.Errorf("tried again it is %v", again)
			}
			s.want("0", "KEYROW", "FLUSH", 30000, key)
			// The cause is gone.
			s.sql("ALTER TABLE accounts DROP CONSTRAINT solvent")
			if got := over.do(s, "retry", key); got != "1" {
				t.Errorf("retry is %s", got)
			}
			s.rest()
			if got := s.row("SELECT n FROM accounts"); got != "-5000" {
				t.Errorf("n is %s", got)
			}
			s.sql("ALTER TABLE accounts ADD CONSTRAINT solvent CHECK (n > -10000)")
			_, image := account(1, -50000)
			s.want("OK", "SET", key, image)
			s.Settled(key)
			// Given up: the row is as MySQL has it.
			if got := over.do(s, "drop", key); got != "1" {
				t.Errorf("drop is %s", got)
			}
			_, image = account(1, -5000)
			s.want(image, "GET", key)
			s.rest()
			if got := over.do(s, "drop", key) + over.do(s, "retry", "nobody:1"); got != "00" {
				t.Errorf("for keys that are not parked they are %s", got)
			}
		})
	}
}

// What waits cannot be dropped: it may be another write than the one that was parked.
func TestDropOfWhatWaits(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.swept")
	s := openShop(t, harness.Options{})
	key := s.parks(1)
	s.Term()
	s = openShop(t, harness.Options{Redis: s.Redis, DB: s.DB, Set: s.opened.Set, Hooks: hooks})
	_, image := account(1, 7)
	s.want("OK", "SET", key, image)
	s.refused([]string{"written again", "0 keys were dropped"}, "KEYROW", "JOURNAL", "DROP", key)
	if code, _, stderr := s.cli("drop", "--all"); code != 1 || !strings.Contains(stderr, "written again") {
		t.Errorf("exit status %d: %s", code, stderr)
	}
	hooks.ReleaseAll()
	s.rest()
	if got := s.row("SELECT n FROM accounts"); got != "7" {
		t.Errorf("n is %s", got)
	}
}

// FLUSH waits for what is in the journal, and says how much of it is left when time runs out.
func TestJournalFlush(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"journal.interval": "1h"}})
	s.owns()
	s.want("OK", "SET", "user:1", `{"name":"x"}`)
	s.want("0", "KEYROW", "FLUSH", 30000, "user:1")
	if got := s.row("SELECT name FROM users WHERE id = 1"); got != "x" {
		t.Errorf("mysql has %q", got)
	}
	s.want("0", "KEYROW", "FLUSH", 0, "user:2")
	for i := range 20 {
		s.want("OK", "SET", fmt.Sprint("user:", i), `{"name":"y"}`)
	}
	s.want("0", "KEYROW", "FLUSH")
	if got := s.row("SELECT COUNT(*) FROM users WHERE name = 'y'"); got != "20" {
		t.Errorf("mysql has %s rows", got)
	}
	// Nobody flushes: the command does it itself, for all or for one key.
	s.rest()
	s.Kill()
	journal := mapping.Journal{Prefix: s.prefix, Partitions: 4}
	for i := range 3 {
		k := fmt.Sprint("user:", 100+i)
		s.Redis.Do("SET", k, fmt.Sprintf(`{"id":%d,"name":"z","email":null,"age":18,"balance":0.00}`, 100+i))
		s.Redis.Do("ZADD", string(journal.AppendDirty(nil, journal.Partition([]byte(k)))), 1, "+"+k)
	}
	if code, stdout, stderr := s.cli("status", "--json"); code != 0 || !strings.Contains(stdout, `"pending": 3`) {
		t.Errorf("exit status %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := s.cli("flush"); code != 0 {
		t.Errorf("exit status %d: %s%s", code, stdout, stderr)
	}
	if got := s.row("SELECT COUNT(*) FROM users WHERE name = 'z'"); got != "3" {
		t.Errorf("mysql has %s rows", got)
	}
	if code, stdout, _ := s.cli("status"); code != 0 || !strings.Contains(stdout, "0 writes wait") {
		t.Errorf("exit status %d: %s", code, stdout)
	}
	s.same()
}

// Time runs out while MySQL is held up; nothing is lost by that.
func TestJournalFlushTimesOut(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.before-commit")
	s := openShop(t, harness.Options{Hooks: hooks})
	s.want("OK", "SET", "user:1", `{"name":"x"}`)
	hooks.Wait("flush.before-commit")
	s.want("1", "KEYROW", "FLUSH", 500)
	s.want("1", "KEYROW", "FLUSH", 500, "user:1")
	s.want("0", "KEYROW", "FLUSH", 500, "user:2")
	if code, stdout, stderr := s.cli("flush", "--timeout", "50ms", "--json", "user:1"); code == 0 {
		t.Errorf("exit status %d: %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := s.cli("flush", "--timeout", "3s", "--json", "user:1"); code != 3 || !strings.Contains(stdout, `"remaining": 1`) {
		t.Errorf("exit status %d: %s%s", code, stdout, stderr)
	}
	hooks.ReleaseAll()
	s.rest()
}

// INVALIDATE drops what is cached, whatever DEL does, and never what is not in MySQL yet.
func TestInvalidate(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.swept")
	s := openShop(t, harness.Options{})
	s.want("OK", "SET", "acct:1", `{"n":1,"twin":"1"}`) // delete = "row"
	s.rest()
	s.sql("UPDATE accounts SET n = 2")
	s.want(`{"id":1,"n":1,"twin":"1"}`, "GET", "acct:1")
	s.want("nil", "GET", "acct:9") // remembered
	s.sql("INSERT INTO accounts VALUES (9, 9, '9')")
	s.want("1", "KEYROW", "INVALIDATE", "acct:1", "acct:9")
	s.want(`{"id":1,"n":2,"twin":"1"}`, "GET", "acct:1")
	s.want(`{"id":9,"n":9,"twin":"9"}`, "GET", "acct:9")
	s.refused([]string{"plain:1", "no key of a mapping"}, "KEYROW", "INVALIDATE", "acct:1", "plain:1")
	s.rest()
	s.Term()

	s = openShop(t, harness.Options{Redis: s.Redis, DB: s.DB, Set: s.opened.Set, Hooks: hooks})
	s.want("OK", "SET", "acct:1", `{"n":3,"twin":"1"}`)
	hooks.Wait("flush.swept")
	s.want("1", "KEYROW", "INVALIDATE", "acct:1")
	s.want(`{"id":1,"n":3,"twin":"1"}`, "GET", "acct:1")
	hooks.ReleaseAll()
	s.rest()
	if got := s.Redis.Do("EXISTS", "acct:1"); got != int64(0) {
		t.Error("it is still cached")
	}
	s.want(`{"id":1,"n":3,"twin":"1"}`, "GET", "acct:1")
	s.rest()
}

// Who may do what about the journal follows from the rights to its keys.
func TestJournalRights(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	key := s.parks(1)
	for _, test := range []struct {
		rules                       string
		look, change, clear, outsid bool
	}{
		{"", false, false, false, true},
		{"~acct:* +@all", false, false, false, false},
		{"~acct:* %R~" + s.prefix + ":* +@all", true, false, false, false},
		{"~user:* ~" + s.prefix + ":* +@all", true, false, false, false},
		{"~acct:* ~" + s.prefix + ":* +@all -hget", false, true, false, false},
		{"~acct:* ~" + s.prefix + ":* +@all", true, true, true, false},
	} {
		client := dial(t, s.Addr)
		if test.outsid {
			s.Redis.Do("ACL", "SETUSER", "default", "off")
			harness.Until(t, "redis lets nobody in", func() bool { return strings.HasPrefix(dial(t, s.Addr).do("PING"), "-NOAUTH") })
		} else {
			args := []any{"ACL", "SETUSER", "somebody", "reset", "on", ">pw"}
			for _, rule := range strings.Fields(test.rules) {
				args = append(args, rule)
			}
			s.Redis.Do(args...)
			client.do("AUTH", "somebody", "pw")
		}
		for _, c := range []struct {
			may  bool
			args string
		}{
			{test.look, "KEYROW JOURNAL"}, {test.look, "KEYROW JOURNAL PARKED"}, {test.look, "KEYROW FLUSH 0"},
			{test.look, "KEYROW FLUSH 0 " + key}, {test.change, "KEYROW JOURNAL RETRY " + key},
			{test.clear, "KEYROW INVALIDATE " + key},
		} {
			s.Settled(key)
			got := client.do(strings.Fields(c.args)...)
			if denied := strings.HasPrefix(got, "-NOPERM") || strings.HasPrefix(got, "-NOAUTH") ||
				strings.Contains(got, "can't run this command") || strings.Contains(got, "can't access at least one of the keys"); denied == c.may {
				t.Errorf("with %q %s is answered %q", test.rules, c.args, got)
			}
		}
		if test.outsid {
			s.Redis.Do("ACL", "SETUSER", "default", "on")
		}
	}
	s.Settled(key)
	s.want("1", "KEYROW", "JOURNAL", "DROP", key)
	s.rest()
}

// FLUSHALL and its likes wait for the flush of what was written, and run without losing what is written meanwhile.
func TestFlushAllWaits(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"FLUSHALL", "FLUSHDB ASYNC", "SWAPDB 0 1"} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, "flush.swept")
			s := openShop(t, harness.Options{Hooks: hooks})
			s.want("OK", "SET", "user:1", `{"name":"x"}`)
			hooks.Wait("flush.swept")
			p := dial(t, s.Addr)
			p.send(encode(strings.Fields(args)...))
			s.want("OK", "SET", "user:2", `{"name":"y"}`)
			if got := s.Redis.Do("EXISTS", "user:1", "user:2"); got != int64(2) {
				t.Fatalf("%v of the rows are in redis", got)
			}
			hooks.ReleaseAll()
			if got := p.reply(); got != "+OK\r\n" {
				t.Fatalf("it is answered %q", got)
			}
			if got := s.Redis.Do("EXISTS", "user:1", "user:2"); got != int64(0) {
				t.Errorf("%v of the rows are in redis", got)
			}
			if got := s.row("SELECT COUNT(*) FROM users"); got != "2" {
				t.Errorf("mysql has %s rows", got)
			}
			s.want("OK", "SET", "user:3", `{"name":"z"}`)
			s.rest()
			if n := s.info("journal_losses"); n != 0 {
				t.Errorf("the journal was lost %d times", n)
			}
			if got := s.Redis.Do("HGET", s.prefix+":meta", "format"); got != "1" {
				t.Errorf("format is %v", got)
			}
			if strings.Contains(s.Log(), "fenced") {
				t.Error("an owner was fenced off")
			}
		})
	}
}

// However FLUSHALL and writes mix, nothing that was acknowledged is lost.
func TestFlushAllUnderWrites(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"journal.interval": "1ms"}})
	const writers, each = 2, 60
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			c := redis.NewClient(&redis.Options{Addr: s.Addr, Protocol: 2, MaxRetries: -1})
			defer c.Close()
			for i := range each {
				key, image := account(w*each+i, int64(i))
				if err := c.Do(context.Background(), "SET", key, image).Err(); err != nil {
					done <- err
					return
				}
				if err := c.Do(context.Background(), "KEYROW", "FLUSH", 30000, key).Err(); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for flushed, left := 0, writers; left > 0; flushed++ {
		s.want("OK", "FLUSHALL")
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			left--
		default:
		}
	}
	s.rest()
	if got := s.row("SELECT COUNT(*) FROM accounts"); got != fmt.Sprint(writers*each) {
		t.Errorf("mysql has %s rows", got)
	}
	if n := s.info("lost"); n != 0 {
		t.Errorf("%d writes are lost", n)
	}
}

// Parked rows are nowhere else, so FLUSHALL does not pass them.
func TestFlushAllAndParked(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	key := s.parks(1)
	for _, args := range [][]any{{"FLUSHALL"}, {"FLUSHDB"}, {"SWAPDB", 0, 3}} {
		s.unchanged(fmt.Sprint(args...), func() { s.refused([]string{"1 rows that are parked", "KEYROW JOURNAL PARKED"}, args...) })
	}
	p := dial(t, s.Addr)
	for _, c := range [][2]string{{"MULTI", "+OK"}, {"FLUSHALL", "-ERR keyrow: FLUSHALL inside MULTI"}, {"EXEC", "-EXECABORT"}} {
		if got := p.do(c[0]); !strings.HasPrefix(got, c[1]) {
			t.Errorf("%s is answered %q", c[0], got)
		}
	}
	s.want("1", "KEYROW", "JOURNAL", "DROP", key)
	s.want("OK", "FLUSHALL")
	s.rest()
}

// A Redis that comes back empty is noticed and said.
func TestJournalLost(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.want("OK", "SET", "user:1", `{"name":"x"}`)
	s.rest()
	s.Redis.Do("FLUSHALL")
	harness.Until(t, "it is counted", func() bool { return s.info("journal_losses") == 1 })
	if !strings.Contains(s.Log(), "redis has lost the journal") {
		t.Error("the log does not say so")
	}
	s.want("OK", "SET", "user:1", `{"name":"y"}`)
	s.rest()
	if n := s.info("journal_losses"); n != 1 {
		t.Errorf("it is counted %d times", n)
	}
}

package test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// A value that cannot be a row is refused with the name of the column, and nothing is changed by it.
func TestRefusedValues(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.want(ada, "GET", "user:42")
	s.want("OK", "SET", "user:43", `{"name":"Bea"}`)
	s.want("OK", "SET", "plain", "x")
	s.Settled()
	long := strings.Repeat("é", 21)
	for _, test := range []struct {
		what, value string
		words       []string
	}{
		{"no JSON", `Ada`, []string{"not JSON"}},
		{"nothing", ``, []string{"not JSON"}},
		{"half an object", `{"name":"Ada"`, []string{"not JSON"}},
		{"two objects", `{"name":"Ada"} {}`, []string{"not JSON"}},
		{"an array", `[1]`, nil},
		{"null", `null`, nil},
		{"not UTF-8", "{\"name\":\"\xff\"}", []string{"UTF-8"}},
		{"a lone surrogate", `{"name":"\ud800"}`, []string{"surrogate"}},
		{"deep", strings.Repeat(`{"name":`, 5000), nil},
		{"an unknown field", `{"name":"Ada","mail":"a@b"}`, []string{`"mail"`}},
		{"a field twice", `{"name":"Ada","name":"Bea"}`, []string{`"name"`, "twice"}},
		{"the case of a field", `{"Name":"Ada"}`, []string{`"Name"`}},
		{"no name", `{"email":"a@b"}`, []string{`"name"`}},
		{"name null", `{"name":null}`, []string{`"name"`}},
		{"name too long", `{"name":"` + long + `"}`, []string{`"name"`, "21 characters", "20"}},
		{"name a number", `{"name":1}`, []string{`"name"`}},
		{"age too high", `{"name":"Ada","age":256}`, []string{`"age"`, "256"}},
		{"age negative", `{"name":"Ada","age":-1}`, []string{`"age"`}},
		{"age a fraction", `{"name":"Ada","age":1.5}`, []string{`"age"`}},
		{"age a text", `{"name":"Ada","age":"36"}`, []string{`"age"`}},
		{"age null", `{"name":"Ada","age":null}`, []string{`"age"`}},
		{"balance too precise", `{"name":"Ada","balance":1.005}`, []string{`"balance"`, "fraction digits"}},
		{"balance too large", `{"name":"Ada","balance":100000000}`, []string{`"balance"`}},
		{"balance beyond float64", `{"name":"Ada","balance":1e400}`, []string{`"balance"`}},
		{"another key", `{"id":41,"name":"Ada"}`, []string{`"id"`, "41"}},
		{"the key as text", `{"id":"42","name":"Ada"}`, []string{`"id"`}},
	} {
		s.unchanged(test.what, func() {
			for _, key := range []string{"user:42", "user:44"} {
				words := append([]string{"ERR keyrow: "}, test.words...)
				s.refused(words, "SET", key, test.value)
				s.refused(words, "SETEX", key, 100, test.value)
				s.refused(words, "MSET", "plain", "y", key, test.value)
			}
		})
	}
	s.want(ada, "GET", "user:42")
	s.rest()
}

// What SET has besides a value and an expiry, and expiries that are none, are refused too.
func TestRefusedSets(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.want(ada, "GET", "user:42")
	const value = `{"name":"x"}`
	for _, test := range []struct {
		error string // "": Redis's own, whatever it is
		args  []any
	}{
		{"", []any{"SET", "user:42"}},
		{"", []any{"SET", "user:42", value, "EX"}},
		{"", []any{"SET", "user:42", value, "EX", 0}},
		{"", []any{"SET", "user:42", value, "EX", -1}},
		{"", []any{"SET", "user:42", value, "EX", "x"}},
		{"", []any{"SET", "user:42", value, "EX", "1.5"}},
		{"", []any{"SET", "user:42", value, "EX", "9223372036854775807"}},
		{"", []any{"SET", "user:42", value, "PX", "9223372036854775807"}},
		{"", []any{"SET", "user:42", value, "EX", 10, "PX", 10}},
		{"", []any{"SET", "user:42", value, "FOO"}},
		{"", []any{"SET", "user:42", value, "NX", "XX"}},
		{"", []any{"SET", "user:42", value, "KEEPTTL", "PX", 10}},
		{"", []any{"SET", "user:42", value, "EXAT", 99, "KEEPTTL"}},
		{"", []any{"SET", "user:42", value, "GET", "EX"}},
		{`no field "x"`, []any{"SET", "user:42", `{"x":1}`, "XX", "GET"}},
		{"", []any{"SET", "user:42", value, "EXTRALONGOPTION", 1}},
		{"", []any{"SETEX", "user:42", 0, value}},
		{"", []any{"SETEX", "user:42", "x", value}},
		{"", []any{"SETEX", "user:42", value}},
		{"", []any{"PSETEX", "user:42", -5, value}},
		{"", []any{"MSET", "user:42"}},
	} {
		want := test.error
		if want == "" {
			// The same words as for a key that is not mapped.
			_, err := s.Redis.Client().Do(t.Context(), test.args...).Result()
			if err == nil {
				t.Fatalf("redis takes %v", test.args)
			}
			want = err.Error()
		}
		s.unchanged(fmt.Sprint(test.args), func() { s.refused([]string{want}, test.args...) })
	}
	s.unchanged("a write to a mapping that denies them", func() {
		s.refused([]string{"deny", `"audit"`}, "SET", "audit:1", `{"text":"x"}`)
		s.refused([]string{"deny", `"audit"`}, "SETEX", "audit:1", 5, `{"text":"x"}`)
	})
	s.rest()
}

// Every other command that would write a mapped key is refused by its name.
func TestRefusedCommands(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.want(ada, "GET", "user:42")
	s.Redis.Do("MSET", "plain", "10", "other", "x")
	s.Redis.Do("RPUSH", "list", "1", "2")
	s.Redis.Do("SADD", "set", "1")
	s.Redis.Do("ZADD", "zset", 1, "a")
	s.Redis.Do("GEOADD", "geo", 1, 1, "a")
	s.Redis.Do("PFADD", "hll", "a")
	s.Redis.Do("SET", "dumped", "x")
	dump := s.Redis.Do("DUMP", "dumped")

	for _, args := range [][]any{
		{"INCR", "MAPPED"}, {"INCRBY", "MAPPED", 1}, {"INCRBYFLOAT", "MAPPED", 1}, {"DECR", "MAPPED"}, {"DECRBY", "MAPPED", 1},
		{"APPEND", "MAPPED", "x"}, {"SETRANGE", "MAPPED", 0, "x"},
		{"SETBIT", "MAPPED", 1, 1}, {"BITFIELD", "MAPPED", "SET", "u8", 0, 1},
		{"BITOP", "NOT", "MAPPED", "plain"}, {"BITOP", "NOT", "new", "MAPPED"},
		{"RENAME", "MAPPED", "new"}, {"RENAME", "plain", "MAPPED"}, {"RENAMENX", "plain", "MAPPED"}, {"RENAMENX", "MAPPED", "new"},
		{"COPY", "plain", "MAPPED"}, {"COPY", "plain", "MAPPED", "REPLACE"}, {"COPY", "MAPPED", "new"}, {"MOVE", "MAPPED", 1},
		{"RESTORE", "MAPPED", 0, dump, "REPLACE"}, {"MIGRATE", "127.0.0.1", 1, "MAPPED", 0, 10},
		{"MIGRATE", "127.0.0.1", 1, "", 0, 10, "KEYS", "plain", "MAPPED"},
		{"SORT", "list", "STORE", "MAPPED"}, {"SORT", "list", "BY", "nosort", "STORE", "plain", "STORE", "MAPPED"},
		{"LPUSH", "MAPPED", "x"}, {"RPUSH", "MAPPED", "x"}, {"LPUSHX", "MAPPED", "x"}, {"LINSERT", "MAPPED", "BEFORE", "a", "b"},
		{"LSET", "MAPPED", 0, "x"}, {"LREM", "MAPPED", 0, "x"}, {"LTRIM", "MAPPED", 0, 1}, {"LPOP", "MAPPED"},
		{"LMOVE", "list", "MAPPED", "LEFT", "LEFT"}, {"RPOPLPUSH", "list", "MAPPED"}, {"LMPOP", 2, "list", "MAPPED", "LEFT"},
		{"SADD", "MAPPED", "x"}, {"SREM", "MAPPED", "x"}, {"SPOP", "MAPPED"}, {"SMOVE", "set", "MAPPED", "1"},
		{"SUNIONSTORE", "MAPPED", "set"}, {"SINTERSTORE", "MAPPED", "set"}, {"SDIFFSTORE", "MAPPED", "set"},
		{"ZADD", "MAPPED", 1, "x"}, {"ZINCRBY", "MAPPED", 1, "x"}, {"ZREM", "MAPPED", "x"}, {"ZPOPMIN", "MAPPED"},
		{"ZUNIONSTORE", "MAPPED", 1, "zset"}, {"ZINTERSTORE", "MAPPED", 1, "zset"}, {"ZDIFFSTORE", "MAPPED", 1, "zset"},
		{"ZRANGESTORE", "MAPPED", "zset", 0, 1}, {"ZMPOP", 2, "zset", "MAPPED", "MIN"}, {"ZREMRANGEBYRANK", "MAPPED", 0, 1},
		{"HSET", "MAPPED", "a", "b"}, {"HSETNX", "MAPPED", "a", "b"}, {"HDEL", "MAPPED", "a"}, {"HINCRBY", "MAPPED", "a", 1},
		{"HINCRBYFLOAT", "MAPPED", "a", 1}, {"HMSET", "MAPPED", "a", "b"},
		{"XADD", "MAPPED", "*", "a", "b"}, {"XDEL", "MAPPED", "1-1"}, {"XTRIM", "MAPPED", "MAXLEN", 0},
		{"XGROUP", "CREATE", "MAPPED", "g", "$", "MKSTREAM"}, {"XACK", "MAPPED", "g", "1-1"}, {"XSETID", "MAPPED", "1-1"},
		{"XREADGROUP", "GROUP", "g", "c", "STREAMS", "MAPPED", ">"}, {"XCLAIM", "MAPPED", "g", "c", 0, "1-1"},
		{"PFADD", "MAPPED", "x"}, {"PFMERGE", "MAPPED", "hll"},
		{"GEOADD", "MAPPED", 1, 1, "x"}, {"GEOSEARCHSTORE", "MAPPED", "geo", "FROMMEMBER", "a", "BYRADIUS", 1, "km"},
		{"GEORADIUS", "geo", 1, 1, 1, "km", "STORE", "MAPPED"}, {"GEORADIUSBYMEMBER", "geo", "a", 1, "km", "STOREDIST", "MAPPED"},
		{"incr", "MAPPED"}, {"hSeT", "MAPPED", "a", "b"},
	} {
		s.unchanged(fmt.Sprint(args), func() {
			// A key that is cached, one that is not, one that has no row, one whose mapping denies writes.
			for _, key := range []string{"user:42", "user:43", "user:x", "audit:1"} {
				args := slices.Clone(args)
				for i := range args {
					if args[i] == "MAPPED" {
						args[i] = key
					}
				}
				s.refused([]string{"ERR keyrow: " + strings.ToUpper(args[0].(string)), "nothing was changed"}, args...)
			}
		})
	}
	s.want(ada, "GET", "user:42")
	s.rest()
}

// Nobody but keyrow touches keyrow's keys.
func TestReservedKeys(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.want(ada, "GET", "user:42")
	s.want("nil", "GET", "user:7")
	own := func(name string) string { return s.prefix + ":" + name }
	for _, args := range [][]any{
		{"GET", own("aux:{user:7}")}, {"SET", own("aux:{user:7}"), "x"}, {"DEL", own("aux:{user:7}")}, {"UNLINK", "plain", own("meta")},
		{"HGETALL", own("meta")}, {"HSET", own("meta"), "partitions", 1}, {"TYPE", own("meta")}, {"EXISTS", "plain", own("meta")},
		{"ZADD", own("{0}:dirty"), 1, "+user:1"}, {"ZADD", own("{3}:flushing"), 1, "-user:42"}, {"ZRANGE", own("{0}:dirty"), 0, -1},
		{"MGET", "user:42", own("meta")}, {"MSET", "user:42", `{"name":"x"}`, own("x"), "y"}, {"MSET", "plain", "x", own("x"), "y"},
		{"RENAME", own("meta"), "x"}, {"RENAME", "plain", own("meta")}, {"COPY", own("meta"), "x"}, {"SORT", "list", "STORE", own("x")},
		{"EVAL", "return redis.call('GET', KEYS[1])", 1, own("meta")}, {"DUMP", own("meta")}, {"INCR", own("{0}:fence")},
		{"OBJECT", "ENCODING", own("meta")}, {"DEL", "user:42", own("meta")}, {"EXPIRE", own("meta"), 1}, {"SETEX", own("x"), 1, "x"},
	} {
		s.unchanged(fmt.Sprint(args), func() { s.refused([]string{"ERR keyrow: ", `"` + s.prefix + `:"`}, args...) })
	}
	// What only looks like them is anybody's.
	s.want("OK", "SET", s.prefix, "x")
	s.want("OK", "SET", s.prefix+"x:meta", "x")
	s.rest()
}

// What would drop writes that are not in MySQL yet is refused, also from the side.
func TestOtherDatabases(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.swept")
	s := openShop(t, harness.Options{Hooks: hooks})
	s.want("OK", "SET", "user:1", `{"name":"x"}`)
	hooks.Wait("flush.swept")
	p := dial(t, s.Addr)
	refused := func(args ...string) {
		t.Helper()
		s.unchanged(strings.Join(args, " "), func() {
			if got := p.do(args...); !strings.HasPrefix(got, "-ERR keyrow: "+args[0]) {
				t.Errorf("%v is answered %q", args, got)
			}
		})
	}
	// In another database there are no mapped keys; nothing gets from there into the one that has them.
	if got := p.do("SELECT", "1"); got != "+OK\r\n" {
		t.Fatal(got)
	}
	for _, want := range []struct {
		reply string
		args  []string
	}{
		{"+OK\r\n", []string{"SET", "user:1", "anything"}}, {"$8\r\nanything\r\n", []string{"GET", "user:1"}},
		{":8\r\n", []string{"STRLEN", "user:1"}}, {"$-1\r\n", []string{"GET", "user:2"}}, {"*2\r\n$8\r\nanything\r\n$-1\r\n", []string{"MGET", "user:1", "user:2"}},
		{"+OK\r\n", []string{"MSET", "user:1", "1", "user:3", "x"}}, {":2\r\n", []string{"INCR", "user:1"}},
		{":1\r\n", []string{"DEL", "user:3"}}, {"+OK\r\n", []string{"SET", s.prefix + ":meta", "x"}},
	} {
		if got := p.do(want.args...); got != want.reply {
			t.Errorf("in another database %v is answered %q, want %q", want.args, got, want.reply)
		}
	}
	refused("COPY", "user:1", "user:1", "DB", "0", "REPLACE")
	refused("MOVE", "user:1", "0")
	for _, args := range [][]string{{"SWAPDB", "1", "2"}, {"SWAPDB", "2", "1"}, {"FLUSHDB"}} {
		if got := p.do(args...); got != "+OK\r\n" {
			t.Errorf("%v of other databases is answered %q", args, got)
		}
	}
	hooks.ReleaseAll()
	s.rest()
	if got := s.row("SELECT name FROM users"); got != "x" {
		t.Errorf("mysql has %q", got)
	}
}

// At max_pending marks a write is refused and changes nothing; reads and unmapped keys go on.
func TestJournalFull(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"journal.max_pending": "5", "journal.interval": "1h"}})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.sql("INSERT INTO accounts VALUES (1, 1, '1')")
	s.owns() // they have swept once, and will not for an hour
	for i := range 5 {
		s.want("OK", "SET", fmt.Sprint("user:", i), `{"name":"x"}`)
	}
	s.unchanged("writes to a full journal", func() {
		for _, args := range [][]any{
			{"SET", "user:0", `{"name":"y"}`}, {"SET", "user:5", `{"name":"y"}`}, {"SETEX", "user:5", 1, `{"name":"y"}`},
			{"MSET", "plain", "x", "user:5", `{"name":"y"}`}, {"DEL", "acct:1"}, {"DEL", "plain", "acct:1"},
		} {
			s.refused([]string{"JOURNALFULL keyrow: ", "max_pending", "nothing was"}, args...)
		}
	})
	s.want(ada, "GET", "user:42")
	s.want(`{"id":0,"name":"x","email":null,"age":18,"balance":0.00}`, "GET", "user:0")
	s.want("OK", "SET", "plain", "x")
	s.want("1", "DEL", "user:42") // the cached copy
	if n := s.info("pending"); n != 5 {
		t.Errorf("%d marks are pending", n)
	}
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.rest()
	if got := s.row("SELECT COUNT(*) FROM users"); got != "6" {
		t.Errorf("mysql has %s users", got)
	}
	s.Start()
	s.want("OK", "SET", "user:5", `{"name":"y"}`)
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.rest()
}

// Whatever a client has made of its connection: rows and keyrow's own keys are reached only as on any other.
func TestNoWayAround(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.want(ada, "GET", "user:42")
	s.Redis.Do("SET", "plain", "x")
	for _, before := range [][]string{
		{}, {"MONITOR"}, {"MONITOR x"}, {"SCRIPT DEBUG YES"}, {"SCRIPT DEBUG SYNC"}, {"SCRIPT DEBUG NO"}, {"SCRIPT DEBUG x"},
		{"SELECT 1", "SCRIPT DEBUG YES", "SELECT 0"}, {"SELECT 1", "MONITOR x", "SELECT 0"}, {"SELECT 1", "MONITOR", "SELECT 0"},
		{"SYNC x"}, {"PSYNC"}, {"PSYNC x"}, {"REPLCONF listening-port 1"}, {"CLIENT REPLY OFF"}, {"CLIENT REPLY SKIP"}, {"CLIENT REPLY x"},
		{"CLIENT TRACKING ON"}, {"CLIENT NO-EVICT ON"}, {"CLIENT SETNAME x"}, {"HELLO 3"}, {"HELLO 4"}, {"READONLY"}, {"READWRITE"}, {"ASKING"}, {"RESET"},
		{"SUBSCRIBE c"}, {"HELLO 3", "SUBSCRIBE c"}, {"SUBSCRIBE c", "UNSUBSCRIBE c"}, {"SUBSCRIBE"}, {"SSUBSCRIBE c"},
		{"MULTI"}, {"MULTI", "MULTI"}, {"MULTI x"}, {"MULTI", "EXEC"}, {"MULTI", "DISCARD"}, {"MULTI", "DISCARD x"}, {"MULTI", "EXEC x"}, {"MULTI", "NOSUCH"},
		{"MULTI", "SELECT 0"}, {"MULTI", "SELECT x"}, {"SELECT 1", "MULTI", "SELECT 0"}, {"SELECT 1", "SELECT 0"}, {"SELECT 1", "SELECT x", "SELECT 0"}, {"MULTI", "RESET"},
		{"WATCH plain"}, {"WATCH user:42"}, {"WATCH plain", "UNWATCH"}, {"WATCH plain", "MULTI"}, {"WATCH"},
		{"BLPOP nolist 0.001"}, {"XREAD BLOCK 1 STREAMS nostream $"}, {"WAIT 0 0"}, {"AUTH x"}, {"AUTH default x"}, {"EXEC"}, {"DISCARD"},
	} {
		s.want(ada, "GET", "user:42") // some commands load it
		s.unchanged(strings.Join(before, ", "), func() {
			for _, attempt := range [][]string{
				{"SET", "user:42", "junk"}, {"INCR", "user:42"}, {"LPUSH", "user:43", "x"}, {"RENAME", "plain", "user:44"},
				{"DEL", s.prefix + ":meta"}, {"HSET", s.prefix + ":meta", "partitions", "1"},
			} {
				p := dial(t, s.Addr)
				for _, line := range before {
					p.send(encode(strings.Fields(line)...))
				}
				p.send(encode(attempt...))
				p.send(encode("EXEC"))
				p.send(encode("CLIENT", "REPLY", "ON"))
				// Redis says so of an unknown command in any state.
				p.send(encode("end-of-it"))
				for line, err := "", error(nil); err == nil && !strings.Contains(line, "end-of-it"); {
					if line, err = p.in.ReadString('\n'); err != nil && !closed(err) {
						t.Errorf("%q, %q: no answer: %v", before, attempt, err)
					}
				}
				p.Close()
			}
		})
	}
	s.want(ada, "GET", "user:42")
	s.rest()
}

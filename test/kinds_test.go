package test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyrow/test/harness"
)

const kindsConfig = `
[[mapping]]
name = "profile"
key = "profile:{id}"
table = "users"
value = "hash"
fields = { email = "mail" }
write = "deny"

[[mapping]]
name = "name"
key = "name:{id}"
table = "users"
value = "string"
column = "name"
write = "deny"

[[mapping]]
name = "email"
key = "email:{id}"
table = "users"
value = "string"
column = "email"
write = "deny"

[[query]]
name = "ranking"
key = "rank:{least}"
sql = "SELECT name, balance FROM users WHERE age >= {least} ORDER BY balance DESC"
variables = { least = "users.age" }
value = "zset"

[[query]]
name = "ages"
key = "ages"
sql = "SELECT name, age FROM users"
value = "hash"

[[query]]
name = "names"
key = "names"
sql = "SELECT name FROM users ORDER BY name"
value = "list"

[[query]]
name = "ids"
key = "ids"
sql = "SELECT id FROM users"
value = "set"

[[query]]
name = "list"
key = "all:{least}"
sql = "SELECT id, email FROM users WHERE age >= {least} ORDER BY id"
variables = { least = "integer" }
`

var kindsRows = []harness.Rows{
	{Pattern: "profile:{id}", Table: "users", Value: "hash", Fields: map[string]string{"email": "mail"}},
	{Pattern: "name:{id}", Table: "users", Value: "string", Column: "name"},
	{Pattern: "email:{id}", Table: "users", Value: "string", Column: "email"},
}

// openKinds is a shop whose rows are hashes and strings, beside results of queries.
func openKinds(t *testing.T, o harness.Options) *shop {
	t.Helper()
	o.Config = kindsConfig
	s := openShop(t, o)
	s.sql("INSERT INTO users VALUES (1, 'Ada', 'ada@example.com', 36, 12.5), (2, 'Bo', NULL, 40, -3), (3, 'Cy', '', 36, 0)")
	return s
}

// restKinds is rest for the mappings of kindsConfig.
func (s *shop) restKinds() {
	s.t.Helper()
	s.Settled()
	s.Equal(kindsRows...)
}

// readsOfKinds are commands about %, the first of two keys, and %2, the other.
var readsOfKinds = map[string][]string{
	"profile:1 profile:2": {
		"HGET % name", "HGET % nothing", "HGET % mail", "HMGET % name nothing", "HMGET % nothing", "HGETALL %", "HLEN %", "HEXISTS % name", "HEXISTS % mail",
		"HEXISTS % nothing", "HKEYS %", "HVALS %", "HSTRLEN % name", "HSTRLEN % nothing", "HSCAN % 0", "HSCAN % 0 MATCH x*", "HRANDFIELD % 100", "HGET % id",
		"GET %", "STRLEN %", "SMEMBERS %", "SORT_RO % BY nosort",
	},
	"name:1 name:2": {
		"GET %", "STRLEN %", "GETRANGE % 0 1", "GETRANGE % 100 200", "SUBSTR % 0 0", "GETBIT % 1", "GETBIT % 7", "GETBIT % 10000", "BITCOUNT %", "BITPOS % 1", "BITPOS % 0",
		"BITFIELD_RO % GET u8 0", "BITFIELD_RO % GET u8 10000", "HGET % name", "LLEN %", "LCS % %2", "LCS % missing", "MGET % %2 missing",
	},
	"rank:18 rank:40": {
		"ZRANGE % 0 -1", "ZRANGE % 0 -1 WITHSCORES", "ZREVRANGE % 0 10 WITHSCORES", "ZRANGE % 5 6", "ZRANGEBYSCORE % 0 100", "ZREVRANGEBYSCORE % 100 0 LIMIT 0 1", "ZCARD %",
		"ZCOUNT % 0 1000", "ZCOUNT % 5000 6000", "ZSCORE % Ada", "ZSCORE % Cy", "ZSCORE % nobody", "ZRANK % Ada", "ZRANK % Bo", "ZREVRANK % nobody", "ZMSCORE % nobody", "ZMSCORE % Bo nobody",
		"ZSCAN % 0", "ZRANGEBYLEX % - +", "ZLEXCOUNT % - +", "ZINTER 2 % %2", "ZUNION 3 % %2 missing WITHSCORES", "ZDIFF 2 % %2", "ZINTERCARD 2 % %2", "ZDIFF 2 missing %",
		"ZRANDMEMBER % 100", "GET %", "LRANGE % 0 -1", "GEOPOS % Ada",
	},
	"ages missing:1": {"HGETALL %", "HGET % Ada", "HLEN %"},
	"names missing:1": {
		"LRANGE % 0 -1", "LRANGE % 1 1", "LRANGE % 50 60", "LLEN %", "LINDEX % 0", "LINDEX % -1", "LINDEX % 50", "LPOS % Bo", "LPOS % nobody", "LPOS % nobody COUNT 0", "SORT_RO % ALPHA DESC", "GET %",
	},
	"ids missing:1": {
		"SMEMBERS %", "SCARD %", "SISMEMBER % 1", "SISMEMBER % 9", "SMISMEMBER % 1 9", "SMISMEMBER % 9", "SSCAN % 0", "SUNION % %2", "SINTER % %2", "SDIFF % %2", "SINTERCARD 1 %", "SORT_RO %",
		"SRANDMEMBER % 100", "GET %",
	},
	"all:18 all:40": {"GET %", "STRLEN %", "GETRANGE % 0 10", "MGET % %2"},
	// None of these has a row or a result.
	"profile:9 profile:01":  {"HGET % name", "HGETALL %", "HLEN %", "TYPE %", "TTL %", "EXISTS % %2", "OBJECT ENCODING %", "DUMP %", "GET %"},
	"email:2 email:9":       {"GET %", "STRLEN %", "EXISTS % %2", "TYPE %", "LCS % %2", "MGET % %2"},
	"rank:200 rank:x":       {"ZRANGE % 0 -1", "ZCARD %", "ZSCORE % Ada", "ZUNION 2 % %2", "PTTL %", "EXPIRETIME %"},
	"rank:036 rank:256":     {"ZRANGE % 0 -1", "ZCARD %", "ZUNION 2 % %2"},
	"profile:3 email:3":     {"TYPE %", "EXISTS %", "EXISTS % %2 missing %", "OBJECT ENCODING %", "TOUCH % %2", "HGET % mail"},
	"email:3 profile:1":     {"GET %", "STRLEN %", "TYPE %", "TYPE %2", "EXISTS % %2", "OBJECT ENCODING %", "OBJECT REFCOUNT %", "MGET % %2"},
	"names rank:18":         {"TYPE %", "TYPE %2", "OBJECT ENCODING %2", "EXISTS % %2", "MEMORY USAGE %"},
	"name:1 profile:1":      {"EVAL_RO return{redis.call('get',KEYS[1]),redis.call('hget',KEYS[2],'name')} 2 % %2", "EVAL_RO return{redis.call('exists',KEYS[2])} 2 % %2"},
	"plain:1 profile:1":     {"EXISTS % %2", "SUNION % missing", "EXISTS %", "TYPE %", "LCS % name:1"},
	"profile:1 nosuch-type": {"XRANGE % - +", "XLEN %", "XINFO STREAM %", "PFCOUNT %", "HGET %", "HGET", "HMGET % ", "HSCAN % x", "ZADD"},
}

// Every command that reads gets from keyrow, for a key that Redis does not have, the very bytes that Redis answers with
// when it has it.
func TestReadsOfKinds(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"2", "3"} {
		t.Run("RESP"+proto, func(t *testing.T) {
			t.Parallel()
			s := openKinds(t, harness.Options{})
			s.Redis.Do("SET", "plain:1", "xAy")
			client, direct := dial(t, s.Addr), dial(t, s.Redis.Addr)
			for _, p := range []*peer{client, direct} {
				if got := p.do("HELLO", proto); got[0] == '-' {
					t.Fatal(got)
				}
			}
			var all []string // but plain:1, which has no row
			for keys := range readsOfKinds {
				all = append(all, strings.Fields(strings.TrimPrefix(keys, "plain:1 "))...)
			}
			drop := append([]any{"DEL"}, anys(all)...)
			for keys, commands := range readsOfKinds {
				names := strings.Fields(keys)
				for _, text := range commands {
					args := strings.Fields(strings.ReplaceAll(strings.ReplaceAll(text, "%2", names[1]), "%", names[0]))
					// Everything is there.
					warm := dial(t, s.Addr)
					for _, key := range all {
						warm.do("TYPE", key)
					}
					want := direct.do(args...)
					if got := client.do(args...); got != want && !volatile(args) {
						t.Errorf("%q\n got %q\nwant %q", args, got, want)
					}
					s.Redis.Do(drop...)
					if got := client.do(args...); !volatile(args) && got != want || len(got) == 0 {
						t.Errorf("%q, when redis has nothing\n got %q\nwant %q", args, got, want)
					}
					// The same again in a transaction, and beside others of a pipeline.
					s.Redis.Do(drop...)
					client.send(slices.Concat(encode("PING"), encode(args...), encode("MULTI"), encode(args...), encode("EXEC"), encode("ECHO", "x")))
					got := []string{client.reply(), client.reply(), client.reply(), client.reply(), client.reply(), client.reply()}
					if got[0] != "+PONG\r\n" || !volatile(args) && got[1] != want || got[2] != "+OK\r\n" || got[5] != "$1\r\nx\r\n" ||
						got[3] == "+QUEUED\r\n" && !volatile(args) && got[4] != "*1\r\n"+want || got[3] != "+QUEUED\r\n" && got[3] != want {
						t.Errorf("%q in a pipeline\n got %q\nwant %q", args, got, want)
					}
				}
			}
			s.restKinds()
		})
	}
}

func anys(texts []string) []any {
	list := make([]any, len(texts))
	for i, s := range texts {
		list[i] = s
	}
	return list
}

// volatile tells which replies differ each time.
func volatile(args []string) bool {
	return slices.Contains([]string{"HRANDFIELD", "ZRANDMEMBER", "SRANDMEMBER", "MEMORY", "DUMP"}, args[0])
}

// A row or result costs one SELECT, and the next reads none; so does the absence of one.
func TestKindsAreCached(t *testing.T) {
	t.Parallel()
	s := openKinds(t, harness.Options{})
	for _, test := range []struct {
		args []any
		want string
	}{
		{[]any{"HGET", "profile:1", "mail"}, "ada@example.com"},
		{[]any{"HGETALL", "profile:2"}, "[id 2 name Bo age 40 balance -3.00]"},
		{[]any{"HGET", "profile:9", "name"}, "nil"},
		{[]any{"GET", "name:2"}, "Bo"},
		{[]any{"GET", "email:2"}, "nil"},
		{[]any{"GET", "email:3"}, ""},
		{[]any{"ZREVRANGE", "rank:18", "0", "0", "WITHSCORES"}, "[Ada 12.5]"},
		{[]any{"ZCARD", "rank:100"}, "0"},
		{[]any{"GET", "all:40"}, `[{"id":2,"email":null}]`},
		{[]any{"GET", "all:200"}, `[]`},
	} {
		before := s.info("selects")
		for range 3 {
			s.want(test.want, test.args...)
		}
		if n := s.info("selects") - before; n != 1 {
			t.Errorf("%v: %d SELECTs", test.args, n)
		}
	}
	hits, misses := s.info("hits"), s.info("misses")
	s.want("3", "ZCARD", "rank:18")
	s.want("[Ada 36]", "HMGET", "profile:1", "name", "age")
	s.want("36", "HGET", "profile:3", "age")
	if h, m := s.info("hits")-hits, s.info("misses")-misses; h != 2 || m != 1 {
		t.Errorf("%d hits and %d misses", h, m)
	}
	s.want("1", "DEL", "profile:1")
	s.sql("UPDATE users SET name = 'Eve' WHERE id = 1")
	s.want("Eve", "HGET", "profile:1", "name")
	s.restKinds()
}

// Writes to what can only be read are refused, and nothing changes.
func TestKindsRefuseWrites(t *testing.T) {
	t.Parallel()
	s := openKinds(t, harness.Options{})
	for _, key := range []string{"profile:1", "name:1", "rank:18", "names", "ids", "ages", "all:18"} {
		s.want("1", "EXISTS", key)
	}
	s.unchanged("refused writes", func() {
		for _, test := range []struct {
			word string
			args []any
		}{
			{`mapping "profile" is write = "deny"`, []any{"HSET", "profile:1", "name", "x"}},
			{`mapping "profile" is write = "deny"`, []any{"HINCRBY", "profile:1", "age", 1}},
			{`mapping "profile" is write = "deny"`, []any{"SET", "profile:1", "x"}},
			{`mapping "name" is write = "deny"`, []any{"SET", "name:1", "x"}},
			{`mapping "name" is write = "deny"`, []any{"APPEND", "name:1", "x"}},
			{`mapping "name" is write = "deny"`, []any{"MSET", "plain", "x", "name:1", "x"}},
			{`query "ranking" can only be read`, []any{"ZADD", "rank:18", 1, "x"}},
			{`query "names" can only be read`, []any{"LPUSH", "names", "x"}},
			{`query "list" can only be read`, []any{"SET", "all:18", "x"}},
			{`query "ids" can only be read`, []any{"SUNIONSTORE", "ids", "other"}},
			{`query "ages" can only be read`, []any{"EVAL", "return 1", 1, "ages"}},
		} {
			s.refused([]string{"-ERR keyrow: ", test.word, "nothing was changed"}, test.args...)
		}
	})
	// What is cached can be dropped.
	s.want("3", "DEL", "profile:1", "rank:18", "names", "rank:99", "plain")
	s.want("3", "ZCARD", "rank:18")
	s.restKinds()
}

// An image that leaves Redis between its fill and the command is filled again, a few times.
func TestViewVanishes(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "load.filled")
	s := openKinds(t, harness.Options{Hooks: hooks})
	p := dial(t, s.Addr)
	for times, want := range map[int]string{1: "*2\r\n$3\r\nAda\r\n$2\r\n36\r\n", 4: "-ERR keyrow: the value of a key leaves redis as soon as it is there; nothing was read, try again\r\n"} {
		s.Redis.Do("DEL", "profile:1")
		p.send(encode("HMGET", "profile:1", "name", "age"))
		for range times {
			stop := hooks.Wait("load.filled")
			s.Redis.Do("DEL", "profile:1")
			stop.Release()
		}
		if times == 1 {
			hooks.Wait("load.filled").Release()
		}
		if got := p.reply(); got != want {
			t.Errorf("after %d times: %q", times, got)
		}
	}
	hooks.ReleaseAll()
	s.restKinds()
}

// A write behind a read in one pipeline is not seen by the read, whenever that is answered.
func TestViewBeforeWrite(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "load.granted")
	s := openKinds(t, harness.Options{Hooks: hooks})
	p := dial(t, s.Addr)
	p.send(slices.Concat(encode("SUNION", "ids", "mine"), encode("SADD", "mine", "77"), encode("SMEMBERS", "mine")))
	hooks.Wait("load.granted").Release()
	for _, want := range []string{"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n", ":1\r\n", "*1\r\n$2\r\n77\r\n"} {
		if got := p.reply(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	s.restKinds()
}

// While MySQL is away, what Redis has is answered, and what it has not is an error, never nothing.
func TestKindsWithoutMySQL(t *testing.T) {
	t.Parallel()
	s := openKinds(t, harness.Options{MySQL: harness.StartMySQL(t)})
	s.want("Ada", "HGET", "profile:1", "name")
	s.want("3", "ZCARD", "rank:18")
	s.MySQL.Stop()
	s.want("Ada", "HGET", "profile:1", "name")
	s.want("nil", "HGET", "profile:1", "nothing")
	s.want("3", "ZCARD", "rank:18")
	for _, args := range [][]any{{"HGET", "profile:2", "name"}, {"HGETALL", "profile:2"}, {"ZCARD", "rank:19"}, {"EXISTS", "profile:2", "profile:1"}, {"TTL", "name:1"}, {"LRANGE", "names", 0, -1}} {
		if got := s.show(args...); !strings.HasPrefix(got, "-DBDOWN keyrow: ") {
			t.Errorf("%v: %s", args, got)
		}
	}
	s.MySQL.Restart()
	harness.Until(t, "mysql is found again", func() bool { return s.show("HGET", "profile:2", "name") == "Bo" })
	s.restKinds()
}

// Clients that Redis does not let do everything: what it lets them read is read, and nothing else is loaded.
func TestKindsAndRights(t *testing.T) {
	t.Parallel()
	s := openKinds(t, harness.Options{})
	for _, acl := range []string{"nomulti on >x ~* +@all -multi", "noexists on >x ~* +@all -exists", "nohash on >x ~* +@all -hgetall -hget", "nokeys on >x ~plain +@all"} {
		s.Redis.Do(append([]any{"ACL", "SETUSER"}, anys(strings.Fields(acl))...)...)
	}
	const all = "*8\r\n$2\r\nid\r\n$1\r\n2\r\n$4\r\nname\r\n$2\r\nBo\r\n$3\r\nage\r\n$2\r\n40\r\n$7\r\nbalance\r\n$5\r\n-3.00\r\n"
	for user, want := range map[string]string{
		"nomulti": all, "noexists": all,
		"nohash": "-NOPERM this user has no permissions to run the 'hgetall' command\r\n",
		"nokeys": "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n",
	} {
		s.Redis.Do("DEL", "profile:2")
		p := dial(t, s.Addr)
		if got := p.do("AUTH", user, "x"); got != "+OK\r\n" {
			t.Fatal(got)
		}
		loads := s.info("loads")
		if got := p.do("HGETALL", "profile:2"); got != want {
			t.Errorf("%s\n got %q\nwant %q", user, got, want)
		}
		if want[0] == '-' && s.info("loads") != loads {
			t.Errorf("%s: something was loaded", user)
		}
		want := map[bool]string{true: "*2\r\n$1\r\n2\r\n:0\r\n", false: want}[want == all]
		if want[0] != '-' {
			s.Redis.Do("DEL", "profile:2")
			if got := p.do("EVAL_RO", "return {redis.call('hget', KEYS[1], 'id'), redis.call('hlen', KEYS[2])}", "2", "profile:2", "profile:9"); got != want {
				t.Errorf("%s: %q", user, got)
			}
		}
	}
	// A client that watches something goes on watching it.
	p := dial(t, s.Addr)
	p.do("WATCH", "plain")
	s.Redis.Do("DEL", "profile:2")
	if got := p.do("HGETALL", "profile:2"); got != all {
		t.Errorf("while watching: %q", got)
	}
	s.Redis.Do("SET", "plain", "x")
	p.do("MULTI")
	p.do("PING")
	if got := p.do("EXEC"); got != "*-1\r\n" {
		t.Errorf("EXEC after a watched key has changed: %q", got)
	}
	s.restKinds()
}

// A command that is no read is sent once, whatever its arguments look like.
func TestViewRepeatsReadsOnly(t *testing.T) {
	t.Parallel()
	s := openKinds(t, harness.Options{})
	listener := dial(t, s.Redis.Addr)
	listener.do("SSUBSCRIBE", "profile:1")
	p := dial(t, s.Addr)
	if got := p.do("SPUBLISH", "profile:1", "once"); got != ":1\r\n" {
		t.Errorf("%q", got)
	}
	p.do("SPUBLISH", "profile:1", "twice")
	for _, want := range []string{"once", "twice"} {
		if got := listener.reply(); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if n := s.info("loads"); n != 0 {
		t.Errorf("%d loads", n)
	}
	s.restKinds()
}

// Large results, and rows with large values, come through.
func TestLargeKinds(t *testing.T) {
	t.Parallel()
	s := newShop(t, harness.Options{Config: kindsConfig})
	s.sql("INSERT INTO users SELECT seq, CONCAT('n', seq), REPEAT('é', 100), 20, seq FROM seq_1_to_20000")
	s.Start()
	s.want("20000", "ZCARD", "rank:18")
	s.want("20000", "LLEN", "names")
	s.Redis.Do("DEL", "names")
	if got := s.Must("LRANGE", "names", 0, -1).([]any); len(got) != 20000 || got[0] != "n1" {
		t.Errorf("%d names", len(got))
	}
	s.Redis.Do("DEL", "rank:18")
	s.want(fmt.Sprint([]string{"n20000", "20000"}), "ZREVRANGE", "rank:18", 0, 0, "WITHSCORES")
	var list []struct {
		ID    int
		Email string
	}
	if err := json.Unmarshal([]byte(s.Must("GET", "all:18").(string)), &list); err != nil || len(list) != 20000 || list[19999].ID != 20000 || len(list[0].Email) != 200 {
		t.Errorf("%d rows, %v", len(list), err)
	}
	s.restKinds()
}

// A command that is too large to be held for long is run again all the same.
func TestLargeReadsOfKinds(t *testing.T) {
	t.Parallel()
	s := openKinds(t, harness.Options{})
	client := dial(t, s.Addr)
	for range 2 { // names is a list, whether Redis has it already or not
		if got := client.do("HGET", "names", strings.Repeat("x", 2<<20)); !strings.HasPrefix(got, "-WRONGTYPE") {
			t.Errorf("HGET of a list: %.100q", got)
		}
	}
	s.restKinds()
}

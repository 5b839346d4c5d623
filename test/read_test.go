package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"keyrow/test/harness"
)

const (
	ada   = `{"id":42,"name":"Ada","email":null,"age":36,"balance":12.50}`
	stays = 10 * time.Minute // the default ttl
)

func TestGetFillsRedis(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{MySQL: harness.StartMySQL(t)})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.owns()
	selects := s.MySQL.Status("Com_select")

	from := time.Now()
	s.want(ada, "GET", "user:42")
	to := time.Now()
	if got := s.Redis.Do("GET", "user:42"); got != ada {
		t.Errorf("redis has %v", got)
	}
	deadline := time.UnixMilli(s.Redis.Do("PEXPIRETIME", "user:42").(int64))
	if deadline.Before(from.Add(stays*9/10-time.Millisecond)) || deadline.After(to.Add(stays*11/10)) {
		t.Errorf("it stays for %v, want %v and at most a tenth more or less", deadline.Sub(from), stays)
	}
	for range 10 {
		s.want(ada, "GET", "user:42")
	}
	if n := s.MySQL.Status("Com_select") - selects; n != 1 {
		t.Errorf("mysql counts %d SELECTs", n)
	}
	if hits, misses := s.info("hits"), s.info("misses"); hits != 10 || misses != 1 {
		t.Errorf("%d hits and %d misses", hits, misses)
	}

	// A mapping without ttl leaves the image there.
	s.sql("INSERT INTO tickets VALUES (1, '4b')")
	s.want(`{"id":1,"seat":"4b"}`, "GET", "ticket:1")
	if got := s.Redis.Do("PTTL", "ticket:1"); got != int64(-1) {
		t.Errorf("PTTL of an image without ttl is %v", got)
	}
	s.rest()
}

// The absence of a row is asked for once in negative_ttl, and no longer than that.
func TestGetMissingRow(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	for range 10 {
		s.want("nil", "GET", "user:7")
	}
	if n := s.info("selects"); n != 1 {
		t.Errorf("%d SELECTs for a row that is not there", n)
	}
	if got := s.Redis.Do("EXISTS", "user:7"); got != int64(0) {
		t.Error("redis has an image of it")
	}
	s.want("nil", "GET", "ticket:7")
	s.sql("INSERT INTO tickets VALUES (7, '1a')")
	harness.Until(t, "the row is found", func() bool { return s.show("GET", "ticket:7") != "nil" })
	s.want(`{"id":7,"seat":"1a"}`, "GET", "ticket:7")

	// A write ends it at once.
	s.want("OK", "SET", "user:7", `{"name":"Bo"}`)
	s.want(`{"id":7,"name":"Bo","email":null,"age":18,"balance":0.00}`, "GET", "user:7")
	s.rest()
}

func TestMGet(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	want := map[string]string{
		"plain":    "text",
		"absent":   "nil",
		"list":     "nil",
		"user:042": "nil", // names no row
		"user:x":   "nil",
		"user:999": "nil", // has no row
		"acct:999": "nil",
		"acct:5":   "nil", // is a list in Redis, although there is a row
	}
	for i := range 200 {
		s.sql("INSERT INTO users VALUES (?, ?, NULL, 20, 0)", i, fmt.Sprint("u", i))
		want[fmt.Sprint("user:", i)] = fmt.Sprintf(`{"id":%d,"name":"u%d","email":null,"age":20,"balance":0.00}`, i, i)
	}
	s.sql("INSERT INTO accounts VALUES (5, 5, '5')")
	s.Redis.Do("SET", "plain", "text")
	s.Redis.Do("RPUSH", "list", "a")
	s.Redis.Do("RPUSH", "acct:5", "a")
	for i := 0; i < 200; i += 2 {
		s.want(want[fmt.Sprint("user:", i)], "GET", fmt.Sprint("user:", i))
	}
	selects := s.info("selects")

	var keys []string
	for key := range want {
		keys = append(keys, key)
	}
	keys = append(keys, "user:3", "plain", "user:3") // some more than once
	random.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	args := []any{"MGET"}
	for _, key := range keys {
		args = append(args, key)
	}
	got := s.Must(args...).([]any)
	if len(got) != len(keys) {
		t.Fatalf("%d values for %d keys", len(got), len(keys))
	}
	for i, key := range keys {
		if show(got[i], nil) != want[key] {
			t.Errorf("%s is %v, want %s", key, got[i], want[key])
		}
	}
	// One mapping may need a round for the first key and one for the others; there are two mappings.
	if n := s.info("selects") - selects; n > 4 {
		t.Errorf("100 missing rows cost %d SELECTs", n)
	}
	s.Redis.Do("DEL", "acct:5")
	s.rest()
}

// A spelling that is not the one of a value names no row: neither the row of that value nor any other.
func TestSpellings(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5), (0, 'Nil', NULL, 0, 0)")
	s.sql("INSERT INTO stock VALUES (3, 'blue', 7)")
	s.sql("INSERT INTO codes VALUES ('AB', 'short')")
	for _, test := range []struct{ key, value, column string }{
		{"user:042", `{"name":"x"}`, "id"},
		{"user:+42", `{"name":"x"}`, "id"},
		{"user:4 2", `{"name":"x"}`, "id"},
		{"user: 42", `{"name":"x"}`, "id"},
		{"user:42 ", `{"name":"x"}`, "id"},
		{"user:42\n", `{"name":"x"}`, "id"},
		{"user:42\x00", `{"name":"x"}`, "id"},
		{"user:42.0", `{"name":"x"}`, "id"},
		{"user:4.2e1", `{"name":"x"}`, "id"},
		{"user:0x2a", `{"name":"x"}`, "id"},
		{"user:-0", `{"name":"x"}`, "id"},
		{"user:00", `{"name":"x"}`, "id"},
		{"user:4\u0662", `{"name":"x"}`, "id"}, // an arabic digit
		{"user:42;", `{"name":"x"}`, "id"},
		{"user:42' OR '1'='1", `{"name":"x"}`, "id"},
		{"user:9223372036854775808", `{"name":"x"}`, "id"},
		{"user:-9223372036854775809", `{"name":"x"}`, "id"},
		{"user:" + strings.Repeat("9", 5000), `{"name":"x"}`, "id"},
		{"stock:03:blue", `{"amount":1}`, "warehouse"},
		{"stock:-3:blue", `{"amount":1}`, "warehouse"},
		{"stock:65536:blue", `{"amount":1}`, "warehouse"},
		{"stock:3:" + strings.Repeat("b", 31), `{"amount":1}`, "article"},
		{"stock:3:\xff\xfe", `{"amount":1}`, "article"},
		{"code:AB ", `{"text":"x"}`, "code"}, // MySQL would take it for AB
		{"code:ABCDEFG", `{"text":"x"}`, "code"},
		{"code:\xc3", `{"text":"x"}`, "code"},
	} {
		s.want("nil", "GET", test.key)
		s.want("[nil]", "MGET", test.key)
		s.unchanged(test.key, func() {
			s.refused([]string{"ERR keyrow: ", test.column}, "SET", test.key, test.value)
			s.refused([]string{"ERR keyrow: ", test.column}, "MSET", "plain", "x", test.key, test.value)
			s.want("0", "DEL", test.key)
		})
	}
	if n := s.info("selects"); n != 0 {
		t.Errorf("%d SELECTs for keys that name no row", n)
	}
	// The canonical ones, and what has not the shape of a key.
	s.want(ada, "GET", "user:42")
	s.want(`{"id":0,"name":"Nil","email":null,"age":0,"balance":0.00}`, "GET", "user:0")
	s.want(`{"code":"AB","text":"short"}`, "GET", "code:AB")
	s.want("OK", "SET", "user:", "plain")
	s.want("plain", "GET", "user:")
	s.want("OK", "SET", "User:42", "plain")
	s.want("OK", "SET", "user:-9223372036854775808", `{"name":"first"}`)
	s.want("OK", "SET", "user:9223372036854775807", `{"name":"last"}`)
	s.rest()
	if got := s.row("SELECT GROUP_CONCAT(id ORDER BY id) FROM users"); got != "-9223372036854775808,0,42,9223372036854775807" {
		t.Errorf("mysql has the rows %s", got)
	}
}

// Keys of several columns, and of characters that MySQL's collations take for equal.
func TestCharacterKeys(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql(`INSERT INTO stock VALUES (3, 'blue', 7), (3, 'a:b', 8), (33, 'Blue', 9), (3, 'käse "1" \\', 10), (3, 'pad ', 11);
		INSERT INTO nicks VALUES ('Bob', 1), ('émile', 2), ('Straße', 3)`)
	for _, test := range []struct{ key, want string }{
		{"stock:3:blue", `{"warehouse":3,"article":"blue","amount":7}`},
		{"stock:3:a:b", `{"warehouse":3,"article":"a:b","amount":8}`},
		{"stock:33:Blue", `{"warehouse":33,"article":"Blue","amount":9}`},
		{`stock:3:käse "1" \`, `{"warehouse":3,"article":"käse \"1\" \\","amount":10}`},
		{"stock:3:pad ", `{"warehouse":3,"article":"pad ","amount":11}`},
		{"stock:3:pad", "nil"},
		{"stock:3:Blue", "nil"},
		{"stock:3:blue ", "nil"},
		{"stock:3", "nil"},
		{"nick:Bob", `{"nick":"Bob","owner":1}`},
		{"nick:bob", "nil"},
		{"nick:BOB", "nil"},
		{"nick:Bob ", "nil"},
		{"nick:Bób", "nil"},
		{"nick:émile", `{"nick":"émile","owner":2}`},
		{"nick:emile", "nil"},
		{"nick:e\u0301mile", "nil"},
		{"nick:Straße", `{"nick":"Straße","owner":3}`},
		{"nick:strasse", "nil"},
		{"nick:Bo_", "nil"},
		{"nick:%", "nil"},
	} {
		s.want(test.want, "GET", test.key)
	}
	// All aliases in one MGET, so in one SELECT.
	s.Redis.Do("DEL", "nick:Bob")
	s.want(`[nil {"nick":"Bob","owner":1} nil nil]`, "MGET", "nick:bOb", "nick:Bob", "nick:boB", "nick:bob ")
	s.Redis.Do("DEL", "stock:3:a:b") // harness.Equal cuts it at the last colon
	s.rest()
}

// The replies of one connection stay in order, and a write waits for the reads before it.
func TestPipelineOrder(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO accounts SELECT seq, seq, seq FROM seq_0_to_99")
	pipe := s.Client().Pipeline()
	var want []string
	add := func(reply string, args ...any) {
		pipe.Do(context.Background(), args...)
		want = append(want, reply)
	}
	for i := range 100 {
		key, old := account(i, int64(i))
		_, next := account(i, int64(1000+i))
		add(old, "GET", key)
		add("OK", "SET", key, next)
		add(next, "GET", key)
		add("hello", "ECHO", "hello")
		switch i % 4 {
		case 0:
			add("1", "DEL", key)
			add("nil", "GET", key)
		case 1:
			add("["+next+" nil]", "MGET", key, "plain")
		case 2:
			add("nil", "GET", fmt.Sprint("acct:", 1000+i))
			add("OK", "SET", key, old)
		}
	}
	commands, _ := pipe.Exec(context.Background())
	for i, c := range commands {
		type result interface{ Result() (any, error) }
		v, err := c.(result).Result()
		if v == nil && err != nil && err.Error() == "redis: nil" {
			err = nil
		}
		if got := show(v, err); got != want[i] {
			t.Errorf("%v is answered %s, want %s", c.Args(), got, want[i])
		}
	}
	s.rest()
}

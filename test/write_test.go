package test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyrow/test/harness"
)

// A SET is answered while MySQL does not, whatever MySQL is at, and what was set is there for every reader.
func TestSetWithoutMySQL(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{MySQL: harness.StartMySQL(t)})
	s.sql("INSERT INTO users VALUES (1, 'old', 'old@example.com', 1, 1)")
	s.owns()
	s.want(`{"id":1,"name":"old","email":"old@example.com","age":1,"balance":1.00}`, "GET", "user:1")
	s.MySQL.Pause()

	s.want("OK", "SET", "user:1", `{"balance": 2.5, "name": "n\u00e9w"}`) // a row replaces a row
	s.want("OK", "SET", "user:2", `{"id":2,"name":"two","email":"","age":0}`)
	const one, two = `{"id":1,"name":"néw","email":null,"age":18,"balance":2.50}`, `{"id":2,"name":"two","email":"","age":0,"balance":0.00}`
	s.want(one, "GET", "user:1")
	s.want("["+one+" "+two+"]", "MGET", "user:1", "user:2")
	s.want("1", "EXISTS", "user:2")
	for _, key := range []string{"user:1", "user:2"} {
		if got := s.Redis.Do("PTTL", key); got != int64(-1) {
			t.Errorf("PTTL of %s, which is not in mysql yet, is %v", key, got)
		}
	}
	// Marks that come while the journal is counted are counted twice until the next time.
	harness.Until(t, "2 writes are pending", func() bool { return s.info("pending") == 2 })

	s.MySQL.Resume()
	s.rest()
	if got := fmt.Sprint(s.table("SELECT * FROM users ORDER BY id")); got != "[[1 néw NULL 18 2.50] [2 two  0 0.00]]" {
		t.Errorf("mysql has %s", got)
	}
	for _, key := range []string{"user:1", "user:2"} {
		if got := s.Redis.Do("PTTL", key).(int64); got <= 0 {
			t.Errorf("PTTL of %s, which is in mysql, is %v", key, got)
		}
	}
}

// What SET stores is what a fill of the row gives, byte for byte.
func TestSetEqualsFill(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	for key, value := range map[string]string{
		"user:1":        ` { "name" : "a\/b\t\"", "id":1, "balance":-0.5 } `,
		"user:2":        `{"name":"\ud83d\ude00","email":"x","age":255,"balance":99999999.99}`,
		"user:-3":       `{"balance":1e2,"name":""}`,
		"acct:4":        `{"twin":"  x  ","n":-1}`,
		"stock:65535:ö": `{"amount":-2147483648}`,
		"nick:Zoë":      `{"owner":null}`,
		"code:a b":      `{"text":"null"}`,
		"ticket:6":      `{}`,
	} {
		s.want("OK", "SET", key, value)
		set := s.show("GET", key)
		s.Settled()
		s.Redis.Do("DEL", key)
		if filled := s.show("GET", key); filled != set || set == "nil" {
			t.Errorf("%s was %s when it was set and is %s when it is read from mysql", key, set, filled)
		}
	}
	s.rest()
}

// A residency is kept aside until the row is in MySQL, and then runs to the moment that was asked for.
func TestSetResidency(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.swept")
	s := openShop(t, harness.Options{Hooks: hooks})
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	unset := time.Time{}
	tests := []struct {
		key  string
		args []any // before or behind the value, which is VALUE
		from time.Time
	}{
		{"acct:1", []any{"SET", "acct:1", "VALUE", "EX", 3600}, unset},
		{"acct:2", []any{"SET", "acct:2", "VALUE", "px", 3600_000}, unset},
		{"acct:3", []any{"SET", "acct:3", "VALUE", "EXAT", at.Unix()}, at},
		{"acct:4", []any{"SET", "acct:4", "VALUE", "PXAT", at.UnixMilli()}, at},
		{"acct:5", []any{"SETEX", "acct:5", 3600, "VALUE"}, unset},
		{"acct:6", []any{"PSETEX", "acct:6", 3600_000, "VALUE"}, unset},
		{"acct:7", []any{"set", "acct:7", "VALUE", "exat", at.Unix()}, at},
	}
	from := time.Now()
	for i, test := range tests {
		_, image := account(i+1, 1)
		for j := range test.args {
			if test.args[j] == "VALUE" {
				test.args[j] = image
			}
		}
		s.want("OK", test.args...)
		s.want(image, "GET", test.key)
	}
	to := time.Now()
	_, image := account(8, 1)
	s.want("OK", "SET", "acct:8", image, "PXAT", 1) // over before it reaches MySQL
	s.want(image, "GET", "acct:8")
	// A later residency is in place of the one that was asked for before.
	_, image = account(9, 1)
	s.want("OK", "SET", "acct:9", image, "EX", 10)
	s.want("OK", "SET", "acct:9", image, "EXAT", at.Unix())
	hooks.Wait("flush.swept")
	for i := range 9 {
		key, _ := account(i+1, 0)
		if got := s.Redis.Do("PTTL", key); got != int64(-1) {
			t.Errorf("PTTL of %s, which is not in mysql yet, is %v", key, got)
		}
	}

	hooks.ReleaseAll()
	s.Settled()
	for _, test := range append(tests, tests[2]) {
		got := time.UnixMilli(s.Redis.Do("PEXPIRETIME", test.key).(int64))
		if test.from == at && !got.Equal(at) {
			t.Errorf("%v: it stays until %v, want %v", test.args, got, at)
		}
		if test.from == unset && (got.Before(from.Add(time.Hour-time.Millisecond)) || got.After(to.Add(time.Hour))) {
			t.Errorf("%v: it stays for %v, want an hour", test.args, got.Sub(from))
		}
	}
	if got := s.Redis.Do("PEXPIRETIME", "acct:9"); got != at.UnixMilli() {
		t.Errorf("the second residency of acct:9 is %v, want %v", got, at.UnixMilli())
	}
	if got := s.Redis.Do("EXISTS", "acct:8"); got != int64(0) {
		t.Error("acct:8 is still in redis, though its residency is over")
	}
	s.want(`{"id":8,"n":1,"twin":"1"}`, "GET", "acct:8")
	for p := range 4 {
		if left := s.Redis.Do("HGETALL", fmt.Sprintf("%s:{%d}:expire", s.prefix, p)); len(left.([]any)) != 0 {
			t.Errorf("residencies are left: %v", left)
		}
	}
	s.rest()
	if got := s.row("SELECT COUNT(*) FROM accounts"); got != "9" {
		t.Errorf("mysql has %s rows", got)
	}
}

// An MSET is applied as a whole, unmapped keys too, or not at all.
func TestMSet(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	const good, bad = `{"name":"x"}`, `{"nam":"x"}`
	s.want(ada, "GET", "user:42")
	s.unchanged("MSETs with one value that cannot be", func() {
		s.refused([]string{"nam"}, "MSET", "user:1", good, "user:42", bad)
		s.refused([]string{"nam"}, "MSET", "user:42", bad, "user:1", good)
		s.refused([]string{"nam"}, "MSET", "plain", "x", "user:1", good, "other", "y", "user:2", bad)
		s.refused([]string{"audit", "deny"}, "MSET", "user:1", good, "audit:1", `{"text":"x"}`)
		s.refused([]string{s.prefix + ":"}, "MSET", "user:1", good, s.prefix+":x", "y")
		s.refused([]string{"wrong number of arguments"}, "MSET", "user:1", good, "user:2")
		s.refused([]string{"nam"}, "MSETNX", "plain", "x", "user:1", bad)
		s.refused([]string{s.prefix + ":"}, "MSETNX", s.prefix+":x", "y", "user:1", good)
		s.want("0", "MSETNX", "plain", "x", "user:1", good, "user:42", good)
	})
	s.want("OK", "MSET", "plain", "a", "user:1", `{"name":"one"}`, "user:42", `{"name":"new"}`, "acct:1", `{"n":1,"twin":"1"}`,
		"plain", "b", "user:1", `{"name":"uno"}`)
	s.want(`[{"id":1,"name":"uno","email":null,"age":18,"balance":0.00} b {"id":42,"name":"new","email":null,"age":18,"balance":0.00}]`,
		"MGET", "user:1", "plain", "user:42")
	var pairs []any
	for i := range 1000 {
		key, image := account(i, 5)
		pairs = append(pairs, key, image)
	}
	s.want("OK", append([]any{"MSET"}, pairs...)...)
	s.rest()
	if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(n)) FROM accounts"); got != "1000 5000" {
		t.Errorf("accounts are %s", got)
	}
	if got := fmt.Sprint(s.table("SELECT id, name FROM users ORDER BY id")); got != "[[1 uno] [42 new]]" {
		t.Errorf("users are %s", got)
	}
}

// Rows are written in a client's transaction like everything else in it: all of it or nothing.
func TestSetInTransaction(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5); INSERT INTO accounts VALUES (1, 1, '1'), (2, 2, '2')")
	const image = `{"id":1,"name":"x","email":null,"age":18,"balance":0.00}`
	p := dial(t, s.Addr)
	queue := func(want string, args ...string) {
		t.Helper()
		if got := p.do(args...); got != want {
			t.Errorf("%q is answered %q, want %q", args, got, want)
		}
	}
	const queued = "+QUEUED\r\n"
	bulk := func(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }
	s.want(`{"id":1,"n":1,"twin":"1"}`, "GET", "acct:1")
	s.unchanged("transactions that are not executed", func() {
		queue("+OK\r\n", "MULTI")
		queue(queued, "SET", "user:1", `{"name":"x"}`)
		queue(queued, "DEL", "acct:1")
		queue("+OK\r\n", "DISCARD")
		for _, bad := range [][]string{
			{"SET", "user:2", `{"nam":"x"}`}, {"SET", "user:02", `{"name":"x"}`}, {"INCR", "user:1"}, {"MSET", "plain", "x", "user:1", "x"},
			{"FLUSHALL"}, {"DEL", s.prefix + ":meta"}, {"NOSUCH"}, {"SET", "audit:1", `{}`},
		} {
			queue("+OK\r\n", "MULTI")
			queue(queued, "SET", "user:1", `{"name":"x"}`)
			queue(queued, "SET", "plain", "x")
			if got := p.do(bad...); !strings.HasPrefix(got, "-") {
				t.Errorf("%q is answered %q", bad, got)
			}
			queue("-EXECABORT Transaction discarded because of previous errors.\r\n", "EXEC")
		}
	})
	queue("+OK\r\n", "MULTI")
	queue(queued, "SET", "user:1", ` { "name" : "x" } `)
	queue(queued, "GET", "user:1")
	queue(queued, "GET", "user:42")
	queue(queued, "MSET", "plain", "5", "acct:2", `{"n":3,"twin":"3"}`)
	queue(queued, "INCR", "plain")
	queue(queued, "DEL", "acct:1", "acct:9", "plain")
	queue(queued, "SETEX", "acct:4", "1000", `{"n":4,"twin":"4"}`)
	queue(queued, "GET", "acct:1")
	queue("*8\r\n+OK\r\n"+bulk(image)+bulk(ada)+"+OK\r\n:6\r\n:2\r\n+OK\r\n$-1\r\n", "EXEC")

	// What is watched changes when a row is written, and not when it is read.
	queue("+OK\r\n", "WATCH", "user:43", "user:42")
	s.want("nil", "GET", "user:43")
	queue("+OK\r\n", "MULTI")
	queue(queued, "SET", "user:44", `{"name":"y"}`)
	queue("*1\r\n+OK\r\n", "EXEC")
	queue("+OK\r\n", "WATCH", "user:43")
	s.want("OK", "SET", "user:43", `{"name":"first"}`)
	queue("+OK\r\n", "MULTI")
	queue(queued, "SET", "user:43", `{"name":"second"}`)
	queue("*-1\r\n", "EXEC")
	s.rest()
	if got := fmt.Sprint(s.table("SELECT id, name FROM users ORDER BY id")); got != "[[1 x] [42 Ada] [43 first] [44 y]]" {
		t.Errorf("users are %s", got)
	}
	if got := fmt.Sprint(s.table("SELECT id, n FROM accounts ORDER BY id")); got != "[[2 3] [4 4]]" {
		t.Errorf("accounts are %s", got)
	}
}

// A SELECT inside a transaction does not lead its marks away from the journal, nor its writes past it.
func TestSetAndSelectInTransaction(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	p := dial(t, s.Addr)
	for _, commands := range [][]string{
		{"SET user:1 {\"name\":\"a\"}", "SELECT 1", "SET user:1 plain"},
		{"SELECT 1", "SET user:2 plain", "SELECT 0", "SET user:2 {\"name\":\"a\"}"},
		{"SELECT 99", "SET user:3 {\"name\":\"a\"}"},
		{"SELECT 1", "SELECT 0", "SET user:4 {\"name\":\"a\"}", "SELECT 1"},
	} {
		p.do("SELECT", "0")
		p.do("MULTI")
		for _, command := range commands {
			if got := p.do(strings.Fields(command)...); got != "+QUEUED\r\n" {
				t.Errorf("%s is answered %q", command, got)
			}
		}
		if got := p.do("EXEC"); !strings.HasPrefix(got, fmt.Sprintf("*%d\r\n", len(commands))) {
			t.Errorf("%q are answered %q", commands, got)
		}
	}
	// The client is where the last SELECT led it.
	if got := p.do("GET", "user:2"); got != "$5\r\nplain\r\n" {
		t.Errorf("GET in database 1 is answered %q", got)
	}
	s.rest()
	if got := fmt.Sprint(s.table("SELECT id, name FROM users ORDER BY id")); got != "[[1 a] [2 a] [3 a] [4 a]]" {
		t.Errorf("users are %s", got)
	}
}

// Writes to one key cost MySQL one write for each flush, not for each SET.
func TestSetsCoalesce(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"journal.interval": "100ms"}})
	const n = 10_000
	pipe := s.Client().Pipeline()
	for i := range n {
		key, image := account(1, int64(i))
		pipe.Do(context.Background(), "SET", key, image)
		if i%100 == 99 {
			if _, err := pipe.Exec(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.rest()
	if got := s.row("SELECT n FROM accounts WHERE id = 1"); got != fmt.Sprint(n-1) {
		t.Errorf("mysql has %s, the last SET was of %d", got, n-1)
	}
	if writes, upserts := s.info("writes"), s.info("upserts"); writes != n || upserts > n/10 {
		t.Errorf("%d SETs were counted and cost %d upserts", writes, upserts)
	}
}

// Many rows share a statement.
func TestSetsBatch(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.swept")
	s := openShop(t, harness.Options{Hooks: hooks, Set: map[string]string{"journal.partitions": "1"}})
	s.want("OK", "SET", "acct:0", `{"n":0,"twin":"0"}`)
	hooks.Wait("flush.swept") // what is written now goes into the next sweep as a whole
	for i := 1; i < 1000; i++ {
		key, image := account(i, int64(i))
		s.want("OK", "SET", key, image)
	}
	hooks.ReleaseAll()
	s.rest()
	if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(n)) FROM accounts"); got != "1000 499500" {
		t.Errorf("accounts are %s", got)
	}
	if n := s.info("upserts"); n > 5 {
		t.Errorf("1,000 rows cost %d upserts", n)
	}
}

// A key that MySQL takes for the one of another row never reaches that row.
func TestSetOfAnAlias(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO nicks VALUES ('Bob', 1)")
	s.want("OK", "SET", "nick:bob", `{"owner":2}`)
	s.want("OK", "SET", "nick:Eve", `{"owner":3}`)
	s.want(`{"nick":"bob","owner":2}`, "GET", "nick:bob")
	s.want(`{"nick":"Bob","owner":1}`, "GET", "nick:Bob")
	s.Settled("nick:bob")
	s.want("0", "DEL", "nick:EVE") // there is no such row
	s.want("0", "DEL", "nick:Eve ")
	s.rest("nick:bob")
	if got := fmt.Sprint(s.table("SELECT * FROM nicks ORDER BY nick")); got != "[[Bob 1] [Eve 3]]" {
		t.Errorf("mysql has %s", got)
	}
	if n := s.info("parked"); n != 1 {
		t.Errorf("%d keys are parked", n)
	}
	// Once the other is out of the way the row can be.
	s.want("1", "DEL", "nick:Bob")
	s.Settled("nick:bob")
	s.want("OK", "SET", "nick:bob", `{"owner":4}`)
	s.rest()
	if got := fmt.Sprint(s.table("SELECT * FROM nicks ORDER BY nick")); got != "[[bob 4] [Eve 3]]" {
		t.Errorf("mysql has %s", got)
	}
}

// Long values go the whole way too.
func TestSetLongValues(t *testing.T) {
	t.Parallel()
	s := newShop(t, harness.Options{Config: shopConfig + `
		[[mapping]]
		name = "text"
		key = "text:{id}"
		table = "texts"`})
	s.sql("CREATE TABLE texts (id INT PRIMARY KEY, body LONGTEXT)")
	s.Start()
	for i, size := range []int{0, 1, 16 << 10, 64 << 10, 1 << 20} {
		key := fmt.Sprint("text:", i)
		body := strings.Repeat("ab\u00e9\U0001F600", size/8)
		image := fmt.Sprintf(`{"id":%d,"body":"%s"}`, i, body)
		s.want("OK", "SET", key, image)
		if got := s.show("GET", key); got != image {
			t.Errorf("a value of %d bytes comes back as %d bytes", len(image), len(got))
		}
		s.Settled()
		s.Redis.Do("DEL", key)
		if got := s.show("GET", key); got != image {
			t.Errorf("a value of %d bytes comes back from mysql as %d bytes", len(image), len(got))
		}
	}
	s.Settled()
	s.Equal(append(shopRows, harness.Rows{Pattern: "text:{id}", Table: "texts"})...)
}

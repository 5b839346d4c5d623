package test

import (
	"fmt"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// readings are commands that read key, of which keyrow makes a row's image if Redis has none.
func readings(key string) [][]string {
	var list [][]string
	for _, command := range []string{
		"GET %s", "MGET %s", "MGET other:1 %s", "STRLEN %s", "GETRANGE %s 0 3", "SUBSTR %s 0 3", "EXISTS %s", "TYPE %s", "TTL %s", "PTTL %s",
		"TOUCH %s", "OBJECT ENCODING %s", "DUMP %s", "GETBIT %s 7", "BITCOUNT %s", "LCS %s other:1", "HGETALL %s", "SORT_RO %s",
		"EVAL_RO return(redis.call('GET',KEYS[1])) 1 %s", "EVAL return(redis.call('GET',KEYS[1])) 1 %s", "WATCH %s",
	} {
		list = append(list, strings.Fields(fmt.Sprintf(command, key)))
	}
	return list
}

// watchedMySQL is a MySQL that counts by itself which rows are read.
func watchedMySQL(t testing.TB) *harness.MySQL { return harness.StartMySQL(t, "--userstat=1") }

// rowsRead is how many rows were read from the tables of the shop's mappings.
func (s *shop) rowsRead() string {
	s.t.Helper()
	return s.row("SELECT COALESCE(SUM(rows_read), 0) FROM information_schema.table_statistics WHERE table_schema = ?", s.DB)
}

// Somebody whom Redis does not let in has no row read, however it is asked for, and is told what Redis tells.
func TestRowsOfTheUnauthenticated(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{
		MySQL: watchedMySQL(t), Redis: harness.StartRedis(t, "--requirepass", "s3cret"), Set: map[string]string{"redis.password": "s3cret"},
	})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.sql("FLUSH TABLE_STATISTICS")
	direct, client := dial(t, s.Redis.Addr), dial(t, s.Addr)
	for _, args := range readings("user:42") {
		if want, got := direct.until(args...), client.until(args...); got != want {
			t.Errorf("%q\n got %q\nwant %q", args, got, want)
		}
	}
	if n := s.rowsRead(); n != "0" {
		t.Errorf("mysql has read %s rows", n)
	}
	for _, p := range []*peer{direct, client} {
		if got := p.do("AUTH", "s3cret"); got != "+OK\r\n" {
			t.Errorf("AUTH is answered %q", got)
		}
	}
	if got := direct.do("EXISTS", "user:42"); got != ":0\r\n" {
		t.Error("the row is in redis")
	}
	if got := client.do("GET", "user:42"); got != bulk(ada) {
		t.Errorf("after AUTH it is answered %q", got)
	}
	if n := s.rowsRead(); n != "1" {
		t.Errorf("mysql has read %s rows for who may", n)
	}
}

// A user of Redis's ACL reads rows with exactly the rights it has to their keys: what it may not is refused by Redis
// before a row is read, what it may is answered from the row.
func TestRowsOfUsers(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{MySQL: watchedMySQL(t)})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.sql("FLUSH TABLE_STATISTICS")
	s.Redis.Do("SET", "other:1", "x")
	login := func(rules string) (direct, client *peer) {
		t.Helper()
		args := []any{"ACL", "SETUSER", "somebody", "reset", "on", ">pw"}
		for _, rule := range strings.Fields(rules) {
			args = append(args, rule)
		}
		s.Redis.Do(args...)
		direct, client = dial(t, s.Redis.Addr), dial(t, s.Addr)
		for _, p := range []*peer{direct, client} {
			if got := p.do("AUTH", "somebody", "pw"); got != "+OK\r\n" {
				t.Fatalf("AUTH with %s is answered %q", rules, got)
			}
		}
		return direct, client
	}
	for _, rules := range []string{"~other:* +@all", "~acct:* ~other:* +@all", "~* +@connection +@transaction +@write -@read -watch"} {
		direct, client := login(rules)
		for _, args := range readings("user:42") {
			want, got := direct.until(args...), client.until(args...)
			if got != want || !strings.HasPrefix(got, "-NOPERM ") {
				t.Errorf("with %s %q\n got %q\nwant %q", rules, args, got, want)
			}
		}
	}
	// Nor is it told what keyrow has against a write, also where it has a connection of its own.
	direct, client := login("~other:* +@all")
	for _, opening := range [][]string{nil, {"WATCH", "other:1"}, {"MULTI"}} {
		for _, args := range [][]string{{"SET", "user:42", "nonsense"}, {"LPUSH", "user:42", "x"}, {"GETSET", "user:42", "nonsense"}} {
			if opening != nil {
				direct.do(opening...)
				client.do(opening...)
			}
			if want, got := direct.do(args...), client.do(args...); got != want {
				t.Errorf("after %q %q\n got %q\nwant %q", opening, args, got, want)
			}
			if want, got := direct.do("EXEC"), client.do("EXEC"); got != want {
				t.Errorf("EXEC after %q %q\n got %q\nwant %q", opening, args, got, want)
			}
		}
	}
	direct, client = login("~user:* +mget")
	if got := client.do("GET", "user:42"); !strings.HasPrefix(got, "-NOPERM ") {
		t.Errorf("who may not GET is answered %q", got)
	}
	if n := s.rowsRead(); n != "0" || s.Redis.Do("EXISTS", "user:42") != int64(0) {
		t.Errorf("mysql has read %s rows for those who may not", n)
	}
	if got := client.do("MGET", "user:42"); got != "*1\r\n"+bulk(ada) {
		t.Errorf("who may MGET is answered %q", got)
	}
	if n := s.rowsRead(); n != "1" {
		t.Errorf("mysql has read %s rows for who may", n)
	}
	if want, got := direct.do("GET", "user:42"), client.do("GET", "user:42"); got != want {
		t.Errorf("who may not GET what is cached is answered %q", got)
	}
	_, client = login("%R~user:* +@all")
	s.unchanged("writing with rights to read", func() {
		for _, args := range [][]string{{"SET", "user:42", `{"name":"x"}`}, {"DEL", "user:42"}, {"EXPIRE", "user:42", "1"}} {
			if got := client.until(args...); !strings.HasPrefix(got, "-NOPERM ") {
				t.Errorf("%q of who may read is answered %q", args, got)
			}
		}
	})
	s.Redis.Do("DEL", "user:42")
	if got := client.do("GET", "user:42"); got != bulk(ada) {
		t.Errorf("who may read is answered %q", got)
	}
	s.rest()
}

// A write that runs as a script and may not mark the row changes nothing: what nobody flushes would never be in MySQL, and
// what waits to be flushed is nowhere else.
func TestScriptsOfThoseWhoMayNotMark(t *testing.T) {
	t.Parallel()
	s := openThrough(t, harness.Options{})
	s.Redis.Do("ACL", "SETUSER", "somebody", "on", ">pw", "~*", "+@all", "-zadd")
	client := dial(t, s.Addr)
	if got := client.do("AUTH", "somebody", "pw"); got != "+OK\r\n" {
		t.Fatalf("AUTH is answered %q", got)
	}
	for _, args := range [][]string{
		{"DEL", "nick:a"}, {"UNLINK", "nick:a", "other"}, {"SET", "nick:a", `{"id":1,"no":11,"age":41}`}, {"GETDEL", "nick:a"},
		{"GETSET", "nick:a", `{"id":1,"no":11,"age":41}`}, {"EVAL", "return redis.call('DEL', KEYS[1])", "1", "nick:a"},
	} {
		s.want(`{"id":1,"nick":"a","no":11,"age":40}`, "GET", "nick:a")
		s.unchanged(args[0], func() {
			if got := client.until(args...); !strings.HasPrefix(got, "-NOPERM ") && !strings.Contains(got, "The user executing the script can't run this") {
				t.Errorf("%q is answered %q", args, got)
			}
		})
	}
	s.restThrough()
}

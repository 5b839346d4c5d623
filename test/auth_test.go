package test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

// vault is a shop whose Redis wants a password, and a client of that Redis.
func vault(t *testing.T) (*shop, *redis.Client) {
	t.Helper()
	s := openShop(t, harness.Options{
		Redis: harness.StartRedis(t, "--requirepass", "s3cret"),
		Set:   map[string]string{"redis.password": "s3cret"},
	})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	r := redis.NewClient(&redis.Options{Addr: s.Redis.Addr, Password: "s3cret", Protocol: 2, MaxRetries: -1, DisableIdentity: true})
	t.Cleanup(func() { r.Close() })
	return s, r
}

// restOf is shop.rest with a client of its own.
func (s *shop) restOf(r *redis.Client) {
	s.t.Helper()
	harness.Settled(s.t, r, s.prefix)
	harness.Equal(s.t, r, s.MySQL.DB(s.DB), shopRows...)
}

// Who has not logged in gets from keyrow what Redis itself would say, to every command, and nothing happens.
func TestUnauthenticated(t *testing.T) {
	t.Parallel()
	s, r := vault(t)
	direct, client := dial(t, s.Redis.Addr), dial(t, s.Addr)
	for _, args := range [][]string{
		{"GET", "user:42"}, {"GET", "plain"}, {"MGET", "user:42", "user:43"}, {"SET", "user:42", `{"name":"x"}`}, {"SET", "user:42", `{"nam":1}`},
		{"SET", "user:42", "x", "NX"}, {"SET", "plain", "x"}, {"SETEX", "user:42", "1", `{"name":"x"}`}, {"MSET", "user:42", `{"name":"x"}`, "plain", "x"},
		{"DEL", "user:42"}, {"DEL", "acct:1"}, {"DEL", "plain"}, {"UNLINK", "acct:042"}, {"INCR", "user:42"}, {"INCR", "plain"}, {"EXPIRE", "user:42", "1"},
		{"EVAL", "return 1", "1", "user:42"}, {"EVAL", "return 1", "0"}, {"FLUSHALL"}, {"FLUSHDB"}, {"SWAPDB", "0", "1"}, {"SELECT", "0"}, {"SELECT", "1"}, {"SELECT", "99"},
		{"PING"}, {"ECHO", "x"}, {"CLIENT", "SETNAME", "x"}, {"CLIENT", "GETNAME"}, {"CLIENT", "ID"}, {"CLIENT", "SETINFO", "LIB-NAME", "x"}, {"CLIENT", "LIST"},
		{"CLIENT", "REPLY", "ON"}, {"CLIENT", "INFO"}, {"CLIENT", "TRACKING", "ON"}, {"CLIENT", "UNBLOCK", "1"},
		{"MULTI"}, {"EXEC"}, {"DISCARD"}, {"WATCH", "user:42"}, {"UNWATCH"}, {"SUBSCRIBE", "c"}, {"PSUBSCRIBE", "c"}, {"UNSUBSCRIBE"}, {"MONITOR"}, {"WAIT", "0", "0"},
		{"BLPOP", "list", "1"}, {"XREAD", "BLOCK", "1", "STREAMS", "s", "$"}, {"INFO"}, {"CONFIG", "GET", "requirepass"}, {"DEBUG", "SLEEP", "0"}, {"SYNC"}, {"PSYNC", "?", "-1"},
		{"COMMAND", "COUNT"}, {"SCRIPT", "DEBUG", "YES"}, {"SHUTDOWN", "NOSAVE"}, {"ACL", "WHOAMI"},
		{"GET", s.prefix + ":meta"}, {"HGETALL", s.prefix + ":meta"},
		{"GET"}, {"SET", "user:42"}, {"AUTH"}, {"NOSUCH"}, {"NOSUCH", "user:42"}, {"get", "user:x"}, {"SET", "user:x", "{}"},
		{"AUTH", "wrong"}, {"AUTH", "default", "wrong"}, {"AUTH", "keyrow", "s3cret"}, {"AUTH", ""}, {"AUTH", "s3cret", "x", "y"},
		{"HELLO"}, {"HELLO", "2"}, {"HELLO", "3"}, {"HELLO", "2", "AUTH", "default", "wrong"}, {"HELLO", "3", "AUTH", "default", "wrong"},
	} {
		want, got := direct.until(args...), client.until(args...)
		if got != want {
			t.Errorf("%q\n got %q\nwant %q", args, got, want)
		}
	}
	if got := client.do("KEYROW", "INFO"); got != direct.do("PING") {
		t.Errorf("KEYROW INFO is answered %q", got)
	}
	// Nothing was read, let alone written.
	if n := r.DBSize(context.Background()).Val(); n != 1 { // keyrow's own note of its layout
		keys := r.Keys(context.Background(), "*").Val()
		for _, key := range keys {
			if !strings.HasSuffix(key, "}:fence") && key != s.prefix+":meta" {
				t.Errorf("redis has %s", key)
			}
		}
	}
	if got := client.do("AUTH", "s3cret"); got != "+OK\r\n" {
		t.Errorf("AUTH is answered %q", got)
	}
	info := client.do("KEYROW", "INFO")
	if !strings.Contains(info, "\r\nloads:0\r\n") || !strings.Contains(info, "\r\nwrites:0\r\n") {
		t.Errorf("rows were read or written:\n%s", info)
	}
	if got := client.do("GET", "user:42"); got != fmt.Sprintf("$%d\r\n%s\r\n", len(ada), ada) {
		t.Errorf("after AUTH: %q", got)
	}
	// A failed AUTH leaves the client who it was; RESET makes it nobody.
	if got := client.do("AUTH", "wrong"); !strings.HasPrefix(got, "-WRONGPASS") {
		t.Errorf("a wrong AUTH is answered %q", got)
	}
	if got := client.do("SET", "user:43", `{"name":"Bea"}`); got != "+OK\r\n" {
		t.Errorf("after a wrong AUTH: %q", got)
	}
	if got := client.do("RESET"); got != "+RESET\r\n" {
		t.Errorf("RESET is answered %q", got)
	}
	for _, args := range [][]string{{"GET", "user:42"}, {"SET", "user:43", `{"name":"x"}`}, {"PING"}} {
		if got := client.do(args...); !strings.HasPrefix(got, "-NOAUTH ") {
			t.Errorf("%q after RESET is answered %q", args, got)
		}
	}
	// Somebody else's AUTH is nobody's but his.
	if got := dial(t, s.Addr).do("GET", "user:42"); !strings.HasPrefix(got, "-NOAUTH ") {
		t.Errorf("a new client is answered %q", got)
	}
	s.restOf(r)
}

// What keyrow makes of the commands of a client that has not logged in must not break the connection that it shares
// with others: Redis closes those that send many arguments, or long ones, before AUTH.
func TestUnauthenticatedPipeline(t *testing.T) {
	t.Parallel()
	s, r := vault(t)
	other := dial(t, s.Addr)
	p := dial(t, s.Addr)
	long := `{"name":"x","email":"` + strings.Repeat("e", 90) + `"}`
	for range 10 {
		n := 0
		for i := range 200 {
			p.send(encode("SET", fmt.Sprint("user:", i), long))
			p.send(encode("DEL", fmt.Sprint("acct:", i), fmt.Sprint("user:", i)))
			p.send(encode("MSET", "user:1", long, "user:2", long, "user:3", long))
			p.send(encode("MGET", "user:1", "user:2", "user:3"))
			n += 4
		}
		for range n {
			if got := p.reply(); got != "-NOAUTH Authentication required.\r\n" {
				t.Fatalf("got %q", got)
			}
		}
		if got := other.do("GET", "user:42"); got != "-NOAUTH Authentication required.\r\n" {
			t.Errorf("somebody else is answered %q", got)
		}
	}
	if log := s.Log(); strings.Contains(log, "connection to redis lost") {
		t.Error("the connection to redis was lost")
	}
	s.restOf(r)
}

// Frames of clients that have not logged in have Redis's tighter limits.
func TestUnauthenticatedFrames(t *testing.T) {
	t.Parallel()
	s, r := vault(t)
	for _, test := range []struct {
		frame string
		reaction
	}{
		{"*11\r\n", closes},
		{"*10\r\n", waits},
		{"*1\r\n$16385\r\n", closes},
		{"*1\r\n$16384\r\n", waits},
		{"*2\r\n$4\r\nAUTH\r\n$16385\r\n", closes},
	} {
		want := exchange(t, s.Redis.Addr, test.reaction, test.frame)
		if got := exchange(t, s.Addr, test.reaction, test.frame); got != want {
			t.Errorf("%q: keyrow answers %q, redis %q", test.frame, got, want)
		}
	}
	s.restOf(r)
}

// A user of Redis's ACL has the rights it has there, on mapped keys too: Redis's refusal reaches the client in Redis's
// words, no row is read for it, and nothing is written in part.
func TestUserWithRights(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.sql("INSERT INTO accounts VALUES (1, 1, '1')")
	for _, rule := range [][]any{
		{"reader", ">pw", "~app:*", "+get", "+mget"},
		{"rowreader", ">pw", "~user:*", "+get", "+mget"},
		{"writer", ">pw", "~*", "+@all"},
		{"nojournal", ">pw", "~user:*", "~acct:*", "~plain", "+@all"},
		{"notx", ">pw", "~*", "+@all", "-multi"},
		{"noexec", ">pw", "~*", "+@all", "-exec"},
		{"nozadd", ">pw", "~*", "+@all", "-zadd"},
		{"nodel", ">pw", "~*", "+@all", "-del"},
		{"noset", ">pw", "~*", "+@all", "-set"},
		{"noeval", ">pw", "~*", "+@all", "-eval", "-evalsha"},
		{"setonly", ">pw", "~*", "+set", "+get"},
	} {
		s.Redis.Do(append([]any{"ACL", "SETUSER"}, append(rule, "on")...)...)
	}
	s.Redis.Do("SET", "app:1", "x")
	s.Redis.Do("SET", "plain", "x")
	login := func(user string) (direct, client *peer) {
		direct, client = dial(t, s.Redis.Addr), dial(t, s.Addr)
		for _, p := range []*peer{direct, client} {
			if got := p.do("AUTH", user, "pw"); got != "+OK\r\n" {
				t.Fatalf("AUTH of %s is answered %q", user, got)
			}
		}
		return direct, client
	}

	direct, client := login("reader")
	s.unchanged("commands of a user without rights", func() {
		for _, args := range [][]string{
			{"GET", "user:42"}, {"GET", "user:43"}, {"MGET", "app:1", "user:42"}, {"GET", "plain"}, {"GET", "app:1"}, {"MGET", "app:1", "app:2"},
			{"SET", "app:1", "y"}, {"DEL", "app:1"}, {"SELECT", "1"}, {"PING"}, {"INFO"}, {"INCR", "app:1"}, {"MULTI"}, {"SUBSCRIBE", "c"}, {"BLPOP", "app:l", "1"},
		} {
			want, got := direct.until(args...), client.until(args...)
			if got != want {
				t.Errorf("%q\n got %q\nwant %q", args, got, want)
			}
		}
		for _, args := range [][]string{{"SET", "user:42", `{"name":"x"}`}, {"MSET", "user:42", `{"name":"x"}`}, {"DEL", "user:42"}, {"DEL", "acct:1"}} {
			if got := client.do(args...); !strings.HasPrefix(got, "-NOPERM ") {
				t.Errorf("%q is answered %q", args, got)
			}
		}
	})
	if n := s.info("loads"); n != 0 {
		t.Errorf("%d rows were read for a user who may not", n)
	}

	// Rights on the rows' keys are enough to read rows: keyrow fills them in its own name.
	_, client = login("rowreader")
	if got := client.do("GET", "user:42"); got != fmt.Sprintf("$%d\r\n%s\r\n", len(ada), ada) {
		t.Errorf("a user with rights to the key is answered %q", got)
	}

	// What lacks one of the rights that a write takes is refused as a whole, in Redis's words.
	for _, user := range []string{"nojournal", "notx", "noexec", "nozadd", "nodel", "noset", "setonly"} {
		_, client := login(user)
		s.unchanged("writes of "+user, func() {
			for _, args := range [][]string{
				{"SET", "user:42", `{"name":"x"}`}, {"SET", "user:43", `{"name":"x"}`}, {"SETEX", "user:43", "10", `{"name":"x"}`},
				{"MSET", "plain", "y", "user:43", `{"name":"x"}`},
			} {
				if got := client.do(args...); !strings.HasPrefix(got, "-NOPERM ") {
					t.Errorf("%q of %s is answered %q", args, user, got)
				}
			}
			// … several at once too.
			client.send(append(encode("SET", "user:42", `{"name":"x"}`), encode("SET", "user:43", `{"name":"x"}`)...))
			for range 2 {
				if got := client.reply(); !strings.HasPrefix(got, "-NOPERM ") {
					t.Errorf("a SET of %s in a pipeline is answered %q", user, got)
				}
			}
		})
	}
	for _, user := range []string{"nojournal", "noeval"} {
		_, client := login(user)
		s.unchanged("deletions of "+user, func() {
			for _, args := range [][]string{{"DEL", "plain", "user:42"}, {"DEL", "user:42"}, {"DEL", "acct:1"}, {"UNLINK", "plain", "acct:1"}} {
				if got := client.do(args...); !strings.HasPrefix(got, "-") {
					t.Errorf("%q of %s is answered %q", args, user, got)
				}
			}
		})
	}

	_, client = login("writer")
	if got := client.do("SET", "user:42", `{"name":"new"}`); got != "+OK\r\n" {
		t.Errorf("a user with all rights is answered %q", got)
	}
	if got := client.do("DEL", "acct:1"); got != ":1\r\n" {
		t.Errorf("a user with all rights is answered %q", got)
	}
	// Rights that are taken away are gone for the connections there are.
	s.Redis.Do("ACL", "SETUSER", "writer", "-multi")
	s.Settled()
	if got := client.do("SET", "user:42", `{"name":"no"}`); !strings.HasPrefix(got, "-") {
		t.Errorf("a user who may not any more is answered %q", got)
	}
	s.Redis.Do("ACL", "SETUSER", "writer", "+multi")
	if got := client.do("SET", "user:42", `{"name":"newer"}`); got != "+OK\r\n" {
		t.Errorf("a user who may again is answered %q", got)
	}
	s.Redis.Do("ACL", "DELUSER", "writer")
	if got := dial(t, s.Addr).do("AUTH", "writer", "pw"); !strings.HasPrefix(got, "-WRONGPASS") {
		t.Errorf("AUTH of a deleted user is answered %q", got)
	}
	client.send(encode("GET", "user:42"))
	if got, err := client.in.ReadString('\n'); err == nil && !strings.HasPrefix(got, "-") {
		t.Errorf("a deleted user is answered %q", got)
	}
	s.rest()
	if got := s.row("SELECT name FROM users WHERE id = 42"); got != "newer" {
		t.Errorf("mysql has %q", got)
	}
}

// A default user who is shut out later is shut out at keyrow too.
func TestPasswordSetLater(t *testing.T) {
	t.Parallel()
	redisServer := harness.StartRedis(t)
	redisServer.Do("ACL", "SETUSER", "keyrow", "on", ">own", "~*", "&*", "+@all")
	s := openShop(t, harness.Options{Redis: redisServer, Set: map[string]string{"redis.username": "keyrow", "redis.password": "own"}})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.want(ada, "GET", "user:42")
	s.Redis.Do("ACL", "SETUSER", "default", "off")
	harness.Until(t, "new clients are shut out", func() bool {
		p := dial(t, s.Addr)
		defer p.Close()
		return strings.HasPrefix(p.do("GET", "user:42"), "-NOAUTH ")
	})
	r := redis.NewClient(&redis.Options{Addr: s.Redis.Addr, Username: "keyrow", Password: "own", Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { r.Close() })
	s.restOf(r)
}

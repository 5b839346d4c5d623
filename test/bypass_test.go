package test

import (
	"strings"
	"testing"

	"keyrow/test/harness"
)

const bypassConfig = `
[[mapping]]
name = "card"
key = "card:{id}"
table = "users"
columns = ["id", "name"]
write = "deny"
on_redis_down = "mysql"

[[mapping]]
name = "profile"
key = "profile:{id}"
table = "users"
value = "hash"
columns = ["id", "name", "email"]
write = "deny"
on_redis_down = "mysql"

[[mapping]]
name = "user"
key = "user:{id}"
table = "users"

[[query]]
name = "names"
key = "names:{least}"
sql = "SELECT name FROM users WHERE age >= {least} ORDER BY name"
variables = { least = "users.age" }
on_redis_down = "mysql"
`

// While Redis cannot be reached, rows are read from MySQL, for those whom Redis let read them while it was there.
func TestRedisDownReadsMySQL(t *testing.T) {
	t.Parallel()
	for _, outage := range []string{"killed", "paused"} {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, harness.Options{Config: bypassConfig, Set: map[string]string{"redis.timeout": "1s"}, Redis: harness.StartRedis(t,
				strings.Fields("--user default on nopass ~* &* +@all "+
					"--user some on >pw ~card:1* ~profile:*9 +@all --user cards on >pw ~card:* +@all -mget")...)})
			s.sql("INSERT INTO users VALUES (1, 'Ada', NULL, 36, 0), (2, 'Bob', 'b@x', 20, 0)")
			anyone, resp3, some, cards := dial(t, s.Addr), dial(t, s.Addr), dial(t, s.Addr), dial(t, s.Addr)
			resp3.do("HELLO", "3")
			some.do("AUTH", "some", "pw")
			cards.do("AUTH", "cards", "pw")
			for _, p := range []*peer{anyone, resp3, some, cards} {
				if got := p.do("GET", "card:1"); got != "$21\r\n{\"id\":1,\"name\":\"Ada\"}\r\n" {
					t.Fatalf("%q", got)
				}
			}

			if outage == "killed" {
				s.Redis.Kill()
			} else {
				s.Redis.Pause()
			}
			s.sql("UPDATE users SET name = 'Eve' WHERE id = 1")
			const eve = "$21\r\n{\"id\":1,\"name\":\"Eve\"}\r\n"
			for _, p := range []*peer{anyone, resp3, cards} {
				harness.Until(t, "the row comes from MySQL", func() bool { return p.do("GET", "card:1") == eve })
			}
			for _, test := range []struct {
				p    *peer
				want string
				args []string
			}{
				{anyone, "$-1\r\n", []string{"GET", "card:3"}},
				{resp3, "_\r\n", []string{"GET", "card:3"}},
				{anyone, "*4\r\n" + eve + "$-1\r\n" + eve + "$21\r\n{\"id\":2,\"name\":\"Bob\"}\r\n", []string{"MGET", "card:1", "card:3", "card:1", "card:2"}},
				{anyone, "*4\r\n$2\r\nid\r\n$1\r\n1\r\n$4\r\nname\r\n$3\r\nEve\r\n", []string{"HGETALL", "profile:1"}},
				{resp3, "%3\r\n$2\r\nid\r\n$1\r\n2\r\n$4\r\nname\r\n$3\r\nBob\r\n$5\r\nemail\r\n$3\r\nb@x\r\n", []string{"HGETALL", "profile:2"}},
				{anyone, "*0\r\n", []string{"HGETALL", "profile:3"}},
				{resp3, "%0\r\n", []string{"HGETALL", "profile:3"}},
				{anyone, "$16\r\n[{\"name\":\"Eve\"}]\r\n", []string{"GET", "names:30"}},
				{dial(t, s.Addr), eve, []string{"GET", "card:1"}}, // Redis lets in anyone

				{anyone, "-UPSTREAM", []string{"GET", "user:1"}},
				{anyone, "-UPSTREAM", []string{"GET", "plain"}},
				{anyone, "-UPSTREAM", []string{"STRLEN", "card:1"}},
				{anyone, "-UPSTREAM", []string{"MGET", "card:1", "user:1"}},
				{anyone, "-UPSTREAM", []string{"MGET", "card:1", "plain"}},
				{anyone, "-UPSTREAM", []string{"GET", "profile:1"}},
				{anyone, "-UPSTREAM", []string{"SET", "user:1", "{}"}},
				{some, "-UPSTREAM", []string{"GET", "card:1"}}, // may be allowed to, for all that is known
				{some, "-UPSTREAM", []string{"GET", "card:2"}},
				{some, "-UPSTREAM", []string{"HGETALL", "profile:9"}},
				{cards, "-UPSTREAM", []string{"MGET", "card:1"}},
				{cards, "-UPSTREAM", []string{"HGETALL", "profile:1"}},
				{cards, "-UPSTREAM", []string{"GET", "names:30"}},
				{dial(t, s.Addr), "-UPSTREAM", []string{"AUTH", "cards", "pw"}},
			} {
				if got := test.p.do(test.args...); got != test.want && (test.want[0] != '-' || !strings.HasPrefix(got, test.want)) {
					t.Errorf("%q\n got %q\nwant %q", test.args, got, test.want)
				}
			}
			var pipeline []byte
			for range 100 {
				pipeline = append(pipeline, encode("GET", "card:1")...)
				pipeline = append(pipeline, encode("GET", "plain")...)
			}
			anyone.send(pipeline)
			for i := range 100 {
				if got := anyone.reply(); got != eve {
					t.Fatalf("reply %d: %q", 2*i, got)
				}
				if got := anyone.reply(); !strings.HasPrefix(got, "-UPSTREAM") {
					t.Fatalf("reply %d: %q", 2*i+1, got)
				}
			}
			if n := s.info("bypasses"); n < 100 {
				t.Errorf("bypasses:%d", n)
			}
			s.MySQL.Exec(s.DB, "RENAME TABLE users TO gone")
			if got := anyone.do("GET", "card:1"); !strings.HasPrefix(got, "-DBDOWN keyrow: mysql failed: Error 1146") {
				t.Error(got)
			}
			s.MySQL.Exec(s.DB, "RENAME TABLE gone TO users")

			if outage == "killed" {
				s.Redis.Restart()
			} else {
				s.Redis.Resume()
			}
			for _, p := range []*peer{anyone, some} {
				harness.Until(t, "Redis answers again", func() bool { return p.do("PING") == "+PONG\r\n" })
			}
			s.Redis.Do("DEL", "card:1")
			for _, p := range []*peer{anyone, some} {
				harness.Until(t, "the row is cached again", func() bool { return p.do("GET", "card:1") == eve })
			}
			if got := s.Redis.Do("GET", "card:1"); got != `{"id":1,"name":"Eve"}` {
				t.Errorf("redis has %v", got)
			}
			s.Settled()
		})
	}
}

// Where Redis wants a login, only who has logged in before is answered without it.
func TestRedisDownKeepsOthersOut(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{
		Config: bypassConfig, Redis: harness.StartRedis(t, "--requirepass", "s3cret"), Set: map[string]string{"redis.password": "s3cret"},
	})
	s.sql("INSERT INTO users VALUES (1, 'Ada', NULL, 36, 0)")
	in, out := dial(t, s.Addr), dial(t, s.Addr)
	in.do("AUTH", "s3cret")
	if got := out.do("GET", "card:1"); !strings.HasPrefix(got, "-NOAUTH") {
		t.Fatal(got)
	}
	const ada = "$21\r\n{\"id\":1,\"name\":\"Ada\"}\r\n"
	if got := in.do("GET", "card:1"); got != ada {
		t.Fatal(got)
	}
	s.Redis.Kill()
	harness.Until(t, "the row comes from MySQL", func() bool { return in.do("GET", "card:1") == ada })
	late := dial(t, s.Addr)
	for _, p := range []*peer{out, late} {
		for _, args := range [][]string{{"GET", "card:1"}, {"MGET", "card:1"}, {"HGETALL", "profile:1"}, {"AUTH", "s3cret"}, {"AUTH", "wrong"},
			{"HELLO", "2", "AUTH", "default", "s3cret"}, {"GET", "card:1"}} {
			if got := p.do(args...); !strings.HasPrefix(got, "-UPSTREAM") {
				t.Errorf("%q: %q", args, got)
			}
		}
	}
	if got := in.do("GET", "card:1"); got != ada {
		t.Error(got)
	}
	s.Redis.Restart()
	harness.Until(t, "the other one can log in", func() bool { return out.do("AUTH", "s3cret") == "+OK\r\n" })
	harness.Until(t, "and read", func() bool { return out.do("GET", "card:1") == ada })
}

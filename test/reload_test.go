package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keyrow/test/harness"
)

// section is a [[mapping]] of users with more lines.
func section(name, key string, lines ...string) string {
	return fmt.Sprintf("[[mapping]]\nname = %q\nkey = %q\ntable = \"users\"\n%s\n", name, key, strings.Join(lines, "\n"))
}

// Columns of users.
const (
	twoColumns   = `columns = ["id", "name"]`
	threeColumns = `columns = ["id", "name", "email"]`
)

// openUsers starts keyrow with a configuration, for a table of users with ann and bob.
func openUsers(t *testing.T, config string, o harness.Options) *shop {
	t.Helper()
	o.Config = config
	s := openShop(t, o)
	s.sql("INSERT INTO users (id, name, email, age) VALUES (1, 'ann', 'a@x', 30), (2, 'bob', 'b@x', 40)")
	return s
}

// reload has keyrow read another configuration, and returns what it answers.
func (s *shop) reload(config string, more ...string) string {
	s.t.Helper()
	s.configure(config, more...)
	return s.show("KEYROW", "RELOAD")
}

// configure writes another configuration; more are settings and their values, in turn.
func (s *shop) configure(config string, more ...string) {
	s.t.Helper()
	set := map[string]string{}
	for name, value := range s.opened.Set {
		set[name] = value
	}
	for i := 0; i < len(more); i += 2 {
		set[more[i]] = more[i+1]
	}
	if err := s.Configure(config, set); err != nil {
		s.t.Fatal(err)
	}
}

// reloaded is reload where it has to succeed.
func (s *shop) reloaded(config string, more ...string) {
	s.t.Helper()
	if got := s.reload(config, more...); !strings.HasPrefix(got, "[") {
		s.t.Fatalf("reload: %s", got)
	}
}

// metric is the value of a line of /metrics.
func (s *shop) metric(name string) string {
	s.t.Helper()
	r, err := http.Get("http://" + s.Admin + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

const namesQuery = "[[query]]\nname = \"names\"\nkey = \"names\"\nvalue = \"list\"\nsql = \"SELECT name FROM users ORDER BY id\"\n"

func TestReload(t *testing.T) {
	t.Parallel()
	s := openUsers(t, section("user", "user:{id}", twoColumns)+section("age", "age:{id}", `value = "string"`, `column = "age"`, `write = "deny"`)+namesQuery,
		harness.Options{Set: map[string]string{"proxy.max_clients": "50"}})
	s.want(`{"id":1,"name":"ann"}`, "GET", "user:1")
	s.want("nil", "GET", "user:9")
	s.want("30", "GET", "age:1")
	s.want("[ann bob]", "LRANGE", "names", 0, -1)
	if got := s.show("KEYROW", "RELOAD"); got != "[]" {
		t.Errorf("a reload of nothing: %s", got)
	}

	s.sql("INSERT INTO users (id, name) VALUES (9, 'new')")
	got := s.reload(section("user", "user:{id}", threeColumns, `ttl = "5m"`)+section("mail", "mail:{id}", `value = "string"`, `column = "email"`, `write = "deny"`)+
		strings.Replace(namesQuery, "BY id", "BY id DESC", 1), "log.level", "debug", "proxy.max_clients", "60", "mysql.max_open", "8",
		"mysql.max_waiting", "1000", "journal.max_pending", "500")
	want := `[proxy.max_clients = 60, was 50 mysql.max_open = 8, was 32 mysql.max_waiting = 1000, was 100000 ` +
		`journal.max_pending = 500, was 1000000 log.level = "debug", was "info" mapping "age": removed ` +
		`mapping "user": columns = ["id" "name" "email"], was ["id" "name"] mapping "user": ttl = "5m0s", was "10m0s" mapping "mail": added ` +
		`query "names": sql = "SELECT name FROM users ORDER BY id DESC", was "SELECT name FROM users ORDER BY id"]`
	if got != want {
		t.Errorf("reload\n got %s\nwant %s", got, want)
	}
	s.want(`{"id":1,"name":"ann","email":"a@x"}`, "GET", "user:1")
	s.want(`{"id":9,"name":"new","email":null}`, "GET", "user:9")
	s.want("a@x", "GET", "mail:1")
	s.want("nil", "GET", "age:2")   // a plain key now
	s.want("OK", "SET", "age:2", 7) // which clients write
	s.want("7", "GET", "age:2")
	s.want("[new bob ann]", "LRANGE", "names", 0, -1)
	for name, value := range map[string]string{
		"keyrow_max_clients": "60", "keyrow_journal_max_pending": "500", `keyrow_reloads_total{outcome="applied"}`: "1",
		`keyrow_reloads_total{outcome="unchanged"}`: "1", `keyrow_reloads_total{outcome="refused"}`: "0",
		`keyrow_misses_total{mapping="user"}`: "4",
	} {
		harness.Until(t, name+" is "+value, func() bool { return s.metric(name) == value })
	}
	if !strings.Contains(s.Log(), "the configuration was reloaded") {
		t.Error("nothing in the log")
	}
	s.want("OK", "SET", "user:1", `{"name":"eve","email":"e@x"}`)

	// What comes back counts on, and no copy from before shows what it was.
	s.reloaded(section("user", "u:{id}", twoColumns))
	s.reloaded(section("user", "user:{id}", twoColumns))
	s.Settled() // until then it is served as it was written
	s.want(`{"id":1,"name":"eve"}`, "GET", "user:1")
	harness.Until(t, "misses go on", func() bool { return s.metric(`keyrow_misses_total{mapping="user"}`) == "5" })
	s.Settled()
	s.Equal(harness.Rows{Pattern: "user:{id}", Table: "users", Columns: []string{"id", "name"}})
}

func TestReloadRefused(t *testing.T) {
	t.Parallel()
	const config = "[[mapping]]\nname = \"user\"\nkey = \"user:{id}\"\ntable = \"users\"\ncolumns = [\"id\", \"name\"]\n"
	s := openUsers(t, config, harness.Options{})
	s.want(`{"id":1,"name":"ann"}`, "GET", "user:1")
	file := func(text string) {
		if err := os.WriteFile(s.Conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.configure(config)
	whole, err := os.ReadFile(s.Conf)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		what, want string
		change     func()
	}{
		{"no file", "no such file", func() { os.Remove(s.Conf) }},
		{"not TOML", "conf.toml", func() { file("[proxy\n") }},
		{"two things wrong", `mapping "user": nonsense: there is no such key`, func() { s.configure(config + "nonsense = 1\nttl = \"-1s\"\n") }},
		{"no table", `mapping "other": table: there is no table "nowhere"`, func() {
			s.configure(config + "[[mapping]]\nname = \"other\"\nkey = \"other:{id}\"\ntable = \"nowhere\"\n")
		}},
		{"no column", `mapping "user": columns: the table users has no column "nme"`, func() { s.configure(strings.Replace(config, `"name"]`, `"name", "nme"]`, 1)) }},
		{"a restart", `redis.password, journal.prefix: a change of these takes a restart; restart keyrow, or take the change back`, func() {
			s.configure(config+"ttl = \"1s\"\n", "journal.prefix", "other", "redis.password", "opensesame", "proxy.listen", "127.0.0.1:1")
		}},
		{"another table", `mapping "user": table: it cannot change while mapping "user" is write = "behind"`, func() {
			s.configure(strings.ReplaceAll(strings.Replace(config, "users", "tickets", 1), `"name"`, `"seat"`))
		}},
		{"a query in its place", `query "q": key: it cannot change while`, func() {
			s.configure(strings.NewReplacer(`name = "names"`, `name = "q"`, `key = "names"`, `key = "user:7"`).Replace(namesQuery))
		}},
	} {
		test.change()
		s.refused([]string{"ERR keyrow: nothing was reloaded: ", test.want}, "KEYROW", "RELOAD")
		if got := s.show("KEYROW", "RELOAD"); strings.Contains(got, "opensesame") || strings.Contains(got, "\n") {
			t.Errorf("%s: %s", test.what, got)
		}
		s.want(`{"id":1,"name":"ann"}`, "GET", "user:1")
		s.want(`{"id":2,"name":"bob"}`, "GET", "user:2")
		s.want("1", "KEYROW", "INVALIDATE", "user:2")
	}
	if strings.Contains(s.Log(), "opensesame") || !strings.Contains(s.Log(), "nothing was changed") {
		t.Error(s.Log())
	}
	harness.Until(t, "the refusals are counted", func() bool { return s.metric(`keyrow_reloads_total{outcome="refused"}`) == "16" })

	file(string(whole))
	if got := s.show("KEYROW", "RELOAD"); got != "[]" {
		t.Errorf("the first configuration again: %s", got)
	}
	s.refused([]string{"KEYROW knows"}, "KEYROW", "RELOAD", "now")

	// Write-behind on a Redis that may evict what was written.
	s.reloaded(config + "write = \"deny\"\n")
	s.Redis.Do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	if got := s.reload(config); !strings.Contains(got, "allkeys-lru") {
		t.Error(got)
	}
	s.refused([]string{`write = "deny"`}, "SET", "user:1", `{"name":"x"}`)
	s.Redis.Do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	s.reloaded(config)
	s.want("OK", "SET", "user:1", `{"name":"x"}`)
	s.Settled()
}

// TestReloadSignal: signals that come at once, and beside commands, leave the last configuration in force.
func TestReloadSignal(t *testing.T) {
	t.Parallel()
	s := openUsers(t, section("user", "user:{id}", twoColumns), harness.Options{})
	s.want(`{"id":1,"name":"ann"}`, "GET", "user:1")
	s.configure(section("user", "user:{id}", threeColumns))
	s.Signal(syscall.SIGHUP)
	s.Signal(syscall.SIGHUP)
	harness.Until(t, "the configuration is in force", func() bool { return s.show("GET", "user:1") == `{"id":1,"name":"ann","email":"a@x"}` })
	s.configure(section("user", "user:{id}"))
	done := make(chan string, 4)
	for range cap(done) {
		go func() { done <- s.show("KEYROW", "RELOAD") }()
		s.Signal(syscall.SIGHUP)
	}
	for range cap(done) {
		if got := <-done; !strings.HasPrefix(got, "[") {
			t.Error(got)
		}
	}
	s.want(`{"id":1,"name":"ann","email":"a@x","age":30,"balance":0.00}`, "GET", "user:1")

	if err := os.WriteFile(s.Conf, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGHUP)
	harness.Until(t, "the log says what is wrong", func() bool {
		return strings.Contains(s.Log(), "the configuration was not reloaded; nothing was changed")
	})
	s.want("PONG", "PING")
}

// TestReloadLateFill: what was read by a mapping that is not in force any more is not cached, and who asked gets what the
// configuration says now.
func TestReloadLateFill(t *testing.T) {
	t.Parallel()
	deny := `write = "deny"`
	for _, test := range []struct {
		what, before, after string
		command             []any
		answers             []string // one of these; the last one from then on
		inRedis             string   // the type
	}{
		{"columns", section("user", "k:{id}", twoColumns), section("user", "k:{id}", threeColumns),
			[]any{"GET", "k:1"}, []string{`{"id":1,"name":"ann","email":"a@x"}`}, "string"},
		{"fields of a hash", section("user", "k:{id}", twoColumns, deny, `value = "hash"`), section("user", "k:{id}", threeColumns, deny, `value = "hash"`),
			[]any{"HGET", "k:1", "email"}, []string{"a@x"}, "hash"},
		{"kind", section("user", "k:{id}", twoColumns, deny), section("user", "k:{id}", twoColumns, deny, `value = "hash"`),
			[]any{"GET", "k:1"}, []string{"-WRONGTYPE Operation against a key holding the wrong kind of value"}, "hash"},
		{"kind of a hash", section("user", "k:{id}", twoColumns, deny, `value = "hash"`), section("user", "k:{id}", twoColumns, deny),
			[]any{"HGET", "k:1", "name"}, []string{"-WRONGTYPE Operation against a key holding the wrong kind of value"}, "string"},
		{"removed", section("user", "k:{id}", twoColumns), section("user", "other:{id}", twoColumns),
			[]any{"GET", "k:1"}, []string{`{"id":1,"name":"ann"}`, "nil"}, "none"},
		{"removed hash", section("user", "k:{id}", twoColumns, deny, `value = "hash"`), section("user", "other:{id}", twoColumns),
			[]any{"HGET", "k:1", "name"}, []string{"nil"}, "none"},
		{"ttl alone", section("user", "k:{id}", twoColumns), section("user", "k:{id}", twoColumns, `ttl = "1h"`),
			[]any{"GET", "k:1"}, []string{`{"id":1,"name":"ann"}`}, "string"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, "load.selected")
			s := openUsers(t, test.before, harness.Options{Hooks: hooks})
			answer := make(chan string, 1)
			go func() { answer <- s.show(test.command...) }()
			held := hooks.Wait("load.selected")
			s.reloaded(test.after)
			hooks.Arm()
			held.Release()
			if got := <-answer; !slices.Contains(test.answers, got) {
				t.Errorf("got %s, want %s", got, test.answers)
			}
			if got := s.Redis.Do("TYPE", "k:1"); got != test.inRedis {
				t.Errorf("redis has a %s", got)
			}
			s.want(test.answers[len(test.answers)-1], test.command...)
			s.Settled()
		})
	}
}

// TestReloadLateWrite: a write that was under way when its mapping changed is not lost, nor is one that waits in the
// journal, in whatever way it was changed; and readers get what the mapping says now once it is flushed.
func TestReloadLateWrite(t *testing.T) {
	t.Parallel()
	const image = `{"id":1,"name":"eve","email":"e@x"}`
	three := section("user", "user:{id}", threeColumns)
	for _, test := range []struct {
		what, after, get string
		all              bool // at every point
	}{
		{"fewer columns", section("user", "user:{id}", twoColumns), `{"id":1,"name":"eve"}`, true},
		{"more columns", section("user", "user:{id}"), `{"id":1,"name":"eve","email":"e@x","age":30,"balance":0.00}`, false},
		{"order", section("user", "user:{id}", `columns = ["email", "name"]`), `{"id":1,"email":"e@x","name":"eve"}`, false},
		{"ttl", section("user", "user:{id}", threeColumns, `ttl = "1h"`), image, false},
		{"name", section("person", "user:{id}", threeColumns), image, true},
		{"deny", section("user", "user:{id}", twoColumns, `write = "deny"`), `{"id":1,"name":"eve"}`, false},
		{"through", section("user", "user:{id}", twoColumns, `write = "through"`), `{"id":1,"name":"eve"}`, false},
		{"removed", section("user", "other:{id}", twoColumns), image, true},
	} {
		points := []string{"waiting"}
		if test.all {
			points = append(points, "set.before-exec", "flush.read", "flush.committed", "queued")
		}
		for _, point := range points {
			t.Run(test.what+"/"+point, func(t *testing.T) {
				t.Parallel()
				hooks := harness.NewHooks(t, "set.before-exec", "flush.read", "flush.committed", "flush.swept")
				hooks.Arm()
				s := openUsers(t, three, harness.Options{Hooks: hooks})
				s.owns()
				client := dial(t, s.Addr)
				switch point {
				case "waiting":
					hooks.Arm("flush.swept")
				case "queued":
					client.send(encode("MULTI"))
					client.send(encode("SET", "user:1", image))
					client.reply()
					client.reply()
				default:
					hooks.Arm(point)
				}
				if point != "queued" {
					client.send(encode("SET", "user:1", image))
				}
				var held *harness.Stop
				switch point {
				case "waiting":
					held = hooks.Wait("flush.swept")
				case "queued":
				default:
					held = hooks.Wait(point)
				}
				s.reloaded(test.after)
				hooks.Arm()
				if point == "queued" {
					client.send(encode("EXEC"))
					if got := client.reply(); got != "*1\r\n$2\r\nOK\r\n" && got != "*1\r\n+OK\r\n" {
						t.Errorf("EXEC: %q", got)
					}
				} else {
					held.Release()
					if got := client.reply(); got != "+OK\r\n" {
						t.Errorf("SET: %q", got)
					}
				}
				s.Settled()
				if got := s.row("SELECT CONCAT_WS(',', name, email, age) FROM users WHERE id = 1"); got != "eve,e@x,30" {
					t.Errorf("the row is %s", got)
				}
				s.want(test.get, "GET", "user:1")
			})
		}
	}
}

// TestReloadEmptied: what would make the journal mean something else waits until it has nothing of it.
func TestReloadEmptied(t *testing.T) {
	t.Parallel()
	s := openUsers(t, section("name", "k:{id}", `value = "string"`, `column = "name"`), harness.Options{})
	s.owns()
	hash := section("name", "k:{id}", `value = "hash"`, twoColumns)
	if got := s.reload(hash); !strings.Contains(got, `mapping "name": value: it cannot change while mapping "name" is write = "behind"`) {
		t.Error(got)
	}
	s.want("OK", "SET", "k:7", "eve") // no row, and no email
	s.want("OK", "SET", "k:1", "eve")
	s.Settled()
	s.sql("CREATE TRIGGER no BEFORE UPDATE ON users FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'")
	s.want("OK", "SET", "k:1", "ida")
	s.Settled("k:1")
	s.reloaded(section("name", "k:{id}", `value = "string"`, `column = "name"`, `write = "deny"`))
	if got := s.reload(hash); !strings.Contains(got, `mapping "name": value: 1 keys that were written before wait for MySQL or are parked`) {
		t.Error(got)
	}
	s.want("ida", "GET", "k:1")
	s.want("1", "KEYROW", "JOURNAL", "DROP", "k:1")
	s.sql("DROP TRIGGER no")
	s.reloaded(hash)
	s.want("eve", "HGET", "k:1", "name")
	s.want("0", "HSET", "k:7", "name", "eva")
	s.Settled()
	s.Equal(harness.Rows{Pattern: "k:{id}", Table: "users", Value: "hash", Columns: []string{"id", "name"}})
}

// TestReloadRolling: two processes, one of which has the configuration before for a while and flushes what the other
// writes. Nothing that was written is lost, and a column that one of them does not know keeps what it has.
func TestReloadRolling(t *testing.T) {
	t.Parallel()
	two, three := section("user", "user:{id}", twoColumns), section("user", "user:{id}", threeColumns)
	s := openUsers(t, three, harness.Options{})
	s.owns()
	other := s.second(nil)
	email := func(id int) string { return s.row("SELECT CONCAT_WS(',', name, email) FROM users WHERE id = ?", id) }

	// Fewer columns: the owner knows one more than what was written says.
	other.reloaded(two)
	other.want("OK", "SET", "user:1", `{"name":"ida"}`)
	s.Settled()
	if got := email(1); got != "ida,a@x" {
		t.Errorf("the row is %s", got)
	}
	s.reloaded(two)

	// More columns: the owner does not know one of them, so the row is parked and served until it does.
	four := section("user", "user:{id}", `columns = ["id", "name", "email", "age"]`)
	other.reloaded(four)
	other.want("OK", "SET", "user:2", `{"name":"bo","email":"b@y","age":50}`)
	s.Settled("user:2")
	s.want(`{"id":2,"name":"bo","email":"b@y","age":50}`, "GET", "user:2")
	s.reloaded(four)
	harness.Until(t, "the row is tried again", func() bool { return email(2) == "bo,b@y" })
	s.Settled()

	// A new mapping.
	other.reloaded(four + section("name", "name:{id}", `value = "string"`, `column = "name"`))
	other.want("OK", "SET", "name:1", "eve")
	s.Settled("name:1")
	s.reloaded(four + section("name", "name:{id}", `value = "string"`, `column = "name"`))
	harness.Until(t, "the row is tried again", func() bool { return email(1) == "eve,a@x" })
	s.Settled()
	s.Equal(harness.Rows{Pattern: "user:{id}", Table: "users", Columns: []string{"id", "name", "email", "age"}})
}

package test

import (
	"fmt"
	"strings"
	"testing"

	"keyrow/test/harness"
)

const throughConfig = `
[[mapping]]
name = "person"
key = "person:{id}"
table = "people"
write = "through"
delete = "row"

[[mapping]]
name = "nick"
key = "nick:{nick}"
table = "people"
on_absent = "through"
delete = "row"

[[mapping]]
name = "age"
key = "age:{no}"
table = "people"
value = "string"
column = "age"
write = "cache"
`

func openThrough(t *testing.T, o harness.Options) *shop {
	t.Helper()
	return openPeople(t, throughConfig, o)
}

// restThrough is restKin for what reads and writes of rows have left; age:{no} is what clients make it.
func (s *shop) restThrough() {
	s.t.Helper()
	s.Settled()
	s.Equal(kinRows[:2]...)
}

// write = "through": MySQL has the row when the client has its answer, and every key of the row shows it.
func TestThrough(t *testing.T) {
	t.Parallel()
	s := openThrough(t, harness.Options{})
	other := s.second(nil)
	s.want("nil", "GET", "person:3") // a negative entry
	s.want(`{"id":1,"nick":"a","no":11,"age":40}`, "GET", "person:1")
	s.want(`{"id":1,"nick":"a","no":11,"age":40}`, "GET", "nick:a")
	s.want("nil", "GET", "nick:z")

	s.want("OK", "SET", "person:1", ` {"nick":"z", "no":19} `)
	if got := fmt.Sprint(s.table("SELECT * FROM people WHERE id = 1")); got != "[[1 z 19 0]]" {
		t.Errorf("mysql has %s", got)
	}
	if n := s.info("pending"); n != 0 {
		t.Errorf("%d writes are pending", n)
	}
	const z = `{"id":1,"nick":"z","no":19,"age":0}`
	if got := s.Redis.Do("GET", "person:1"); got != z {
		t.Errorf("redis has %v", got)
	}
	for _, reader := range []*shop{s, other} {
		reader.want(z, "GET", "person:1")
		reader.want("nil", "GET", "nick:a")
		reader.want(z, "GET", "nick:z")
	}
	s.want("OK", "SET", "person:3", `{"nick":"c","no":13}`, "EX", 500)
	s.left("person:3", 500)
	s.want("OK", "SETEX", "person:3", 400, `{"nick":"c","no":13}`)
	s.left("person:3", 400)
	s.want("1", "EXPIRE", "person:3", 300)
	s.left("person:3", 300)
	s.want("OK", "MSET", "person:4", `{"nick":"d","no":14}`, "person:5", `{"nick":"e","no":15}`)
	if got := s.row("SELECT GROUP_CONCAT(nick ORDER BY id) FROM people"); got != "z,b,c,d,e" {
		t.Errorf("mysql has %s", got)
	}
	s.want("2", "DEL", "person:4", "person:9", "person:5", "absent")
	s.want("0", "DEL", "person:4")
	s.want("nil", "GET", "nick:d")
	if got := s.row("SELECT GROUP_CONCAT(nick ORDER BY id) FROM people"); got != "z,b,c" {
		t.Errorf("mysql has %s", got)
	}

	s.unchanged("what cannot be", func() {
		s.refused([]string{`"nick"`, "missing"}, "SET", "person:1", `{"no":1}`)
		s.refused([]string{"ERR keyrow: mysql refused it", "Duplicate", "nothing was applied"}, "SET", "person:7", `{"nick":"b","no":17}`)
		s.refused([]string{"nothing was applied"}, "MSET", "person:7", `{"nick":"g","no":17}`, "person:8", `{"nick":"b","no":18}`)
		s.refused([]string{"MSET", "plain", "nothing was changed"}, "MSET", "person:7", `{"nick":"g","no":17}`, "plain", "x")
		s.refused([]string{"spelled"}, "SET", "person:01", `{"nick":"g","no":17}`)
		for _, args := range [][]string{{"SET", "person:1", `{"nick":"g","no":17}`}, {"MSET", "person:1", `{"nick":"g","no":17}`}, {"DEL", "person:1"}} {
			p := dial(t, s.Addr)
			p.do("MULTI")
			p.do("SET", "plain", "x")
			if got := p.do(args...); !strings.Contains(got, "inside MULTI is not supported") {
				t.Errorf("%q in MULTI is answered %q", args, got)
			}
			if got := p.do("EXEC"); !strings.HasPrefix(got, "-EXECABORT ") {
				t.Errorf("EXEC is answered %q", got)
			}
		}
		s.Redis.Do("ACL", "SETUSER", "reader", ">pw", "~*", "+@all", "-set", "-del", "on")
		for _, watching := range []bool{false, true} {
			p := dial(t, s.Addr)
			p.do("AUTH", "reader", "pw")
			if watching {
				p.do("WATCH", "plain")
			}
			for _, args := range [][]string{{"SET", "person:1", `{"nick":"g","no":17}`}, {"SET", "nick:y", `{"id":7,"no":17}`}, {"DEL", "person:1"}} {
				if got := p.do(args...); !strings.HasPrefix(got, "-NOPERM ") {
					t.Errorf("%q of who may not is answered %q", args, got)
				}
			}
		}
	})
	p := dial(t, s.Addr)
	p.do("WATCH", "plain")
	if got := p.do("SET", "person:2", `{"nick":"b","no":12,"age":9}`); got != "+OK\r\n" {
		t.Errorf("a SET of who watches is answered %q", got)
	}
	s.want(`{"id":2,"nick":"b","no":12,"age":9}`, "GET", "person:2")
	s.restThrough()

	_, metrics := get(t, s.Keyrow, "/metrics")
	for name, want := range map[string]float64{
		"keyrow_through_duration_seconds_count": 7, "keyrow_through_rows_sum": 10, `keyrow_through_statements_total{kind="delete"}`: 4,
		`keyrow_through_failures_total{class="row"}`: 2, `keyrow_through_failures_total{class="mysql"}`: 0, "keyrow_through_retries_total": 0,
	} {
		if got := metric(t, metrics, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// A MySQL that does not answer costs no image, and nobody is told that something was written that was not.
func TestThroughWithoutMySQL(t *testing.T) {
	t.Parallel()
	s := openThrough(t, harness.Options{MySQL: harness.StartMySQL(t), Set: map[string]string{"mysql.timeout": "1s"}})
	const a = `{"id":1,"nick":"a","no":11,"age":40}`
	s.want(a, "GET", "person:1")
	s.MySQL.Kill()
	s.refused([]string{"DBDOWN keyrow: ", "not applied"}, "SET", "person:1", `{"nick":"z","no":19}`)
	s.refused([]string{"DBDOWN keyrow: ", "not applied"}, "DEL", "person:1")
	s.refused([]string{"DBDOWN keyrow: ", "not applied"}, "SET", "nick:y", `{"id":7,"no":17}`)
	s.want(a, "GET", "person:1")
	_, metrics := get(t, s.Keyrow, "/metrics")
	if got := metric(t, metrics, `keyrow_through_failures_total{class="mysql"}`); got != 3 {
		t.Errorf("%v failures of mysql are counted", got)
	}
	s.MySQL.Restart()
	harness.Until(t, "the row is written", func() bool { return s.show("SET", "person:1", `{"nick":"z","no":19}`) == "OK" })
	s.want("0", "DEL", "person:7")
	s.restThrough()
}

// At every point of a write others read, write and delete the row: there is never an image older than the row, and who
// reads after an answer finds what was answered, or later.
func TestThroughRaces(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"through.written", "through.withdrawn", "through.committed", "through.shown"} {
		for _, key := range []string{"person:1", "nick:a"} {
			t.Run(point+" "+key, func(t *testing.T) {
				t.Parallel()
				hooks := harness.NewHooks(t, point, "load.selected")
				s := openThrough(t, harness.Options{Hooks: hooks})
				other := s.second(nil)
				// Somebody has read the row as it was, and not cached it yet.
				late := dial(t, s.Addr)
				late.send(encode("GET", "person:1"))
				read := hooks.Wait("load.selected")

				writer := dial(t, s.Addr)
				writer.send(encode("SET", key, `{"id":1,"nick":"a","no":11,"age":41}`))
				held := hooks.Wait(point)
				second, reader := dial(t, other.Addr), dial(t, other.Addr)
				second.send(encode("SET", "person:1", `{"nick":"a","no":11,"age":42}`))
				reader.send(encode("GET", "person:1"))
				read.Release()
				held.Release()
				hooks.ReleaseAll()
				for _, p := range []*peer{writer, second} {
					if got := p.reply(); got != "+OK\r\n" {
						t.Errorf("a SET is answered %q", got)
					}
				}
				late.reply()
				reader.reply()
				s.Settled()
				age := s.row("SELECT age FROM people WHERE id = 1")
				want := `{"id":1,"nick":"a","no":11,"age":` + age + `}`
				for _, reader := range []*shop{s, other} {
					reader.want(want, "GET", "person:1")
					reader.want(want, "GET", "nick:a")
				}
				s.restThrough()
			})
		}
	}
}

// Whoever is killed while it writes leaves no image of what the row was.
func TestThroughCrash(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ point, age string }{
		{"through.written", "40"}, {"through.withdrawn", "40"}, {"through.committed", "41"}, {"through.shown", "41"},
	} {
		t.Run(test.point, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, test.point)
			s := openThrough(t, harness.Options{Hooks: hooks, Set: map[string]string{"mysql.timeout": "1s", "journal.session_timeout": "1s"}})
			other := s.second(nil)
			other.want("nil", "GET", "nick:z")
			other.want(`{"id":1,"nick":"a","no":11,"age":40}`, "GET", "nick:a")
			other.want(`{"id":1,"nick":"a","no":11,"age":40}`, "GET", "person:1")
			p := dial(t, s.Addr)
			p.send(encode("SET", "person:1", `{"nick":"z","no":11,"age":41}`))
			hooks.Wait(test.point)
			s.Kill()
			hooks.ReleaseAll()
			other.Settled()
			nick := map[string]string{"40": "a", "41": "z"}[test.age]
			want := fmt.Sprintf(`{"id":1,"nick":"%s","no":11,"age":%s}`, nick, test.age)
			other.want(want, "GET", "person:1") // waits for the lease if it has to
			other.want(want, "GET", "nick:"+nick)
			other.want("nil", "GET", map[string]string{"a": "nick:z", "z": "nick:a"}[nick])
			harness.Until(t, "the row can be cached again", func() bool {
				other.show("GET", "person:1")
				return other.Redis.Do("GET", "person:1") == want
			})
			other.restThrough()
		})
	}
}

// on_absent = "through": what is in Redis is written behind, what is not goes to MySQL first.
func TestOnAbsent(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.swept")
	s := openThrough(t, harness.Options{Hooks: hooks, Set: map[string]string{"journal.partitions": "1"}})
	s.want("OK", "SET", "nick:a", `{"id":1,"no":11,"age":41}`) // not there
	s.want("OK", "SET", "nick:c", `{"id":3,"no":13,"age":1}`)  // nowhere
	if got := s.row("SELECT GROUP_CONCAT(age ORDER BY id) FROM people"); got != "41,50,1" {
		t.Errorf("mysql has %s", got)
	}
	if n := s.info("pending"); n != 0 {
		t.Errorf("%d writes are pending", n)
	}
	s.want("OK", "SET", "nick:a", `{"id":1,"no":11,"age":42}`, "EX", 500) // there
	hooks.Wait("flush.swept")
	s.want("OK", "SETEX", "nick:c", 400, `{"id":3,"no":13,"age":2}`)
	s.want(`{"id":1,"nick":"a","no":11,"age":42}`, "GET", "nick:a")
	s.left("nick:a", 500)
	if got := s.row("SELECT GROUP_CONCAT(age ORDER BY id) FROM people"); got != "41,50,1" {
		t.Errorf("mysql has %s", got)
	}
	// What is deleted behind must not be deleted after it is written through.
	s.want("1", "DEL", "nick:c")
	s.want("OK", "SET", "nick:c", `{"id":3,"no":13,"age":3}`)
	// What waits cannot be overtaken under another key, nor lost.
	s.refused([]string{"Duplicate"}, "SET", "nick:y", `{"id":2,"no":12}`)
	p := dial(t, s.Addr)
	p.do("MULTI")
	p.do("SET", "nick:b", `{"id":2,"no":12,"age":51}`) // in a transaction it is behind in any case
	if got := p.do("EXEC"); got != "*1\r\n+OK\r\n" {
		t.Errorf("EXEC is answered %q", got)
	}
	hooks.ReleaseAll()
	s.restThrough()
	if got := s.row("SELECT GROUP_CONCAT(age ORDER BY id) FROM people"); got != "42,51,3" {
		t.Errorf("mysql has %s", got)
	}
	s.left("nick:a", 500)
}

// write = "cache": what clients write is theirs, and where there is nothing reads see the row.
func TestWriteCache(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "load.selected")
	s := openThrough(t, harness.Options{Hooks: hooks})
	read := func(key, want string) {
		t.Helper()
		p := dial(t, s.Addr)
		p.send(encode("GET", key))
		hooks.Wait("load.selected").Release()
		if got := p.reply(); got != bulk(want) {
			t.Errorf("GET %s is %q, want %q", key, got, want)
		}
	}
	read("age:11", "40")
	direct, client := dial(t, s.Redis.Addr), dial(t, s.Addr)
	s.Redis.Do("DEL", "age:11")
	for _, text := range []string{
		"SET % x EX 100 NX", "SET % y NX", "SET % y XX GET", "TTL %", "APPEND % z", "GETEX % EX 50", "TTL %", "PERSIST %", "TTL %", "STRLEN %", "GETDEL %",
		"SETNX % 5", "INCRBY % 7", "EXPIRE % 100", "TTL %", "GETSET % a", "SETEX % 10 b", "MSET % c %2 d", "MGET % %2", "RENAME % %2",
		"DEL %2", "HSET % a 1", "HINCRBY % a 2", "HGETALL %", "GET %", "TYPE %", "DEL %", "RPUSH % a b", "LRANGE % 0 -1", "LMOVE % %2 LEFT LEFT",
		"DEL % %2", "EVAL return{redis.call('set',KEYS[1],'x'),redis.call('get',KEYS[1])} 1 %", "SET % x y", "INCR %", "SET %", "MSET %", "DEL %",
	} {
		args := strings.Fields(strings.ReplaceAll(strings.ReplaceAll(text, "%2", "plain2"), "%", "plain1"))
		want := direct.do(args...)
		args = strings.Fields(strings.ReplaceAll(strings.ReplaceAll(text, "%2", "age:98"), "%", "age:99")) // no such rows
		if got := client.do(args...); got != want {
			t.Errorf("%q is answered %q, want %q", args, got, want)
		}
	}
	client.do("MULTI")
	client.do("SET", "age:12", "mine")
	client.do("INCR", "plain")
	client.do("MSET", "age:98", "x", "plain", "9")
	if got, want := client.do("EXEC"), "*3\r\n+OK\r\n:1\r\n+OK\r\n"; got != want {
		t.Errorf("EXEC is answered %q, want %q", got, want)
	}
	s.want("mine", "GET", "age:12")
	s.refused([]string{"BLPOP is not supported"}, "BLPOP", "age:12", 1)
	for _, command := range []string{"MSET", "MSETNX"} {
		s.refused([]string{command + " of rows and of", "age:12", "nothing was changed"}, command, "nick:a", `{"id":1,"no":11}`, "age:12", "x")
		s.refused([]string{command, "nothing was changed"}, command, "person:1", `{"nick":"a","no":11}`, "age:12", "x")
	}
	s.refused([]string{"EVAL of rows and of", "age:12", "nothing was changed"}, "EVAL", "return 1", 2, "nick:a", "age:12")
	s.refused([]string{"EVAL is not supported", "through"}, "EVAL", "return 1", 1, "person:1")
	if got := s.row("SELECT age FROM people WHERE no = 12"); got != "50" {
		t.Errorf("mysql has %s", got)
	}

	// A row that was read before a write does not get into Redis after it, not even when what was written is gone again.
	for _, write := range [][]string{{"SET", "age:11", "mine", "PX", "1"}, {"APPEND", "age:11", "mine"}, {"RPUSH", "age:11", "mine"}, {"COPY", "age:12", "age:11"},
		{"SET", "age:11", strings.Repeat("x", 4<<20)}} {
		s.Redis.Do("DEL", "age:11", s.prefix+":aux:{age:11}")
		s.sql("UPDATE people SET age = 40 WHERE no = 11")
		reader := dial(t, s.Addr)
		reader.send(encode("GET", "age:11"))
		held := hooks.Wait("load.selected")
		if got := client.do(write...); got[0] == '-' {
			t.Fatalf("%.100q is answered %q", write, got)
		}
		s.sql("UPDATE people SET age = 41 WHERE no = 11")
		s.Redis.Do("DEL", "age:11")
		held.Release()
		hooks.Wait("load.selected").Release() // the row is read again
		if got := reader.reply(); got != bulk("41") {
			t.Errorf("after %.100q the reader gets %q", write, got)
		}
		if got := s.Redis.Do("GET", "age:11"); got != "41" {
			t.Errorf("after %.100q redis has %v", write, got)
		}
	}
	hooks.ReleaseAll()
	s.Settled()
}

package test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"keyrow/test/harness"
)

// throughChangeConfig is changeConfig without hashes, and with rows that are written to MySQL first.
var throughChangeConfig = strings.ReplaceAll(`
[[mapping]]
name = "doc"
key = "doc:{id}"
table = "things"
columns = ["id", "name", "n"]
delete = "row"

[[mapping]]
name = "name"
key = "name:{id}"
table = "things"
value = "string"
column = "name"

[[mapping]]
name = "n"
key = "n:{id}"
table = "things"
value = "string"
column = "n"
delete = "row"

[[mapping]]
name = "small"
key = "small:{id}"
table = "things"
value = "string"
column = "small"

[[mapping]]
name = "price"
key = "price:{id}"
table = "things"
value = "string"
column = "price"

[[mapping]]
name = "ratio"
key = "ratio:{id}"
table = "things"
value = "string"
column = "ratio"
`, "table =", "write = \"through\"\ntable =")

func openThroughChanges(t *testing.T, o harness.Options) *shop {
	t.Helper()
	return openTables(t, changeTables, throughChangeConfig, o)
}

// Commands that need what is there have Redis's replies on rows that are written to MySQL first, and MySQL has what came
// of them when the client has its answer.
func TestThroughChanges(t *testing.T) {
	t.Parallel()
	s := openThroughChanges(t, harness.Options{})
	s.sql("INSERT INTO things (id, name, n, small, price) VALUES (1, 'a', 10, 250, 1.50), (2, NULL, NULL, 7, NULL)")
	for _, step := range []struct{ reply, command, rows string }{
		{"nil", "SET name:1 x NX", "1 a 10 250 1.50"},
		{"OK", "SET name:1 x XX", "1 x 10 250 1.50"},
		{"x", "SET name:1 y GET", "1 y 10 250 1.50"},
		{"nil", "SET name:2 z XX", "2 NULL NULL 7 NULL"},
		{"OK", "SET name:2 z NX KEEPTTL", "2 z NULL 7 NULL"},
		{"nil", "SET name:3 c GET", "3 c NULL 7 NULL"},
		{"0", "SETNX name:1 q", "1 y 10 250 1.50"},
		{"1", "SETNX name:4 d", "4 d NULL 7 NULL"},
		{"y", "GETSET name:1 b", "1 b 10 250 1.50"},
		{"3", "APPEND name:1 cd", "1 bcd 10 250 1.50"},
		{"2", "APPEND name:5 ef", "5 ef NULL 7 NULL"},
		{"11", "INCR n:1", "1 bcd 11 250 1.50"},
		{"1", "INCR n:2", "2 z 1 7 NULL"},
		{"-9", "DECRBY n:6 9", "6 NULL -9 7 NULL"},
		{"16", "INCRBY n:1 5", "1 bcd 16 250 1.50"},
		{"255", "INCRBY small:1 5", "1 bcd 16 255 1.50"},
		{"1.75", "INCRBYFLOAT price:1 0.25", "1 bcd 16 255 1.75"},
		{"-0.10", "INCRBYFLOAT price:2 -0.1", "2 z 1 7 -0.10"},
		{"18", "INCRBYFLOAT n:1 2", "1 bcd 18 255 1.75"},
		{`{"id":5,"name":"ef","n":null}`, "GETDEL doc:5", ""},
		{"nil", "GETDEL doc:5", ""},
		{"-9", "GETDEL n:6", ""},
		{`{"id":4,"name":"d","n":null}`, `GETSET doc:4 {"n":4}`, "4 NULL 4 7 NULL"},
		{"0", `SETNX doc:4 {"n":5}`, "4 NULL 4 7 NULL"},
		{"1", `SETNX doc:7 {"n":5}`, "7 NULL 5 7 NULL"},
		{"OK", `SET name:7 "" XX`, "7 NULL 5 7 NULL"},
		{"bcd", "GETDEL name:1", "1 bcd 18 255 1.75"}, // delete = "cache"
		{"bcd", "GET name:1", "1 bcd 18 255 1.75"},
	} {
		var args []any
		for arg := range strings.FieldsSeq(step.command) {
			args = append(args, strings.Trim(arg, `"`))
		}
		if strings.HasPrefix(step.command, `SET name:7 `) { // there is no name yet, which is what a missing key is
			step.reply = "nil"
		}
		if strings.Contains(step.command, "{") {
			args[2] = strings.Fields(step.command)[2]
		}
		s.want(step.reply, args...)
		id := strings.Split(fmt.Sprint(args[1]), ":")[1]
		if got := strings.Trim(fmt.Sprint(s.table("SELECT id, name, n, small, price FROM things WHERE id = "+id)), "[]"); got != step.rows {
			t.Errorf("after %s mysql has %q, want %q", step.command, got, step.rows)
		}
	}
	s.want("OK", "SET", "name:7", "")
	s.want("0", "APPEND", "name:7", "")
	if got := fmt.Sprint(s.table("SELECT id, name FROM things WHERE id = 7")); got != "[[7 ]]" {
		t.Errorf("the row with an empty name is %s", got)
	}
	s.want("OK", "SET", "n:1", "1", "EX", 500)
	s.want("2", "INCR", "n:1")
	s.left("n:1", 500)
	s.want("OK", "SET", "n:1", "3", "XX", "KEEPTTL")
	s.left("n:1", 500)
	s.want("3", "SET", "n:1", "2", "GET", "EX", 400)
	s.left("n:1", 400)

	s.unchanged("what cannot be", func() {
		s.refused([]string{"ERR value is not an integer"}, "INCR", "name:1")
		s.refused([]string{"ERR value is not an integer"}, "INCRBY", "n:1", "x")
		s.refused([]string{"ERR decrement would overflow"}, "DECRBY", "n:1", "-9223372036854775808")
		s.refused([]string{"ERR increment or decrement would overflow"}, "INCRBY", "n:1", "9223372036854775807")
		s.refused([]string{"ERR value is not a valid float"}, "INCRBYFLOAT", "n:1", "x")
		s.refused([]string{"small", "out of range"}, "INCR", "small:1")
		s.refused([]string{"would be 100000001.75", "99999999.99"}, "INCRBYFLOAT", "price:1", "1e8")
		s.refused([]string{"name"}, "APPEND", "name:1", "0123456789")
		s.refused([]string{"syntax"}, "SET", "name:1", "x", "NX", "XX")
		s.Redis.Do("ACL", "SETUSER", "reader", ">pw", "~*", "+@all", "-incr", "-set", "on")
		p := dial(t, s.Addr)
		p.do("AUTH", "reader", "pw")
		for _, args := range [][]string{{"INCR", "n:1"}, {"SET", "name:1", "x", "XX"}} {
			if got := p.do(args...); !strings.HasPrefix(got, "-NOPERM ") {
				t.Errorf("%q of who may not is answered %q", args, got)
			}
		}
	})
	s.restChanges()
}

// Of two changes of a row neither is lost, wherever the first one is when the second comes: the row is locked from when it is
// read, and one that is not there is made by one of them only.
func TestThroughChangesMeet(t *testing.T) {
	t.Parallel()
	points := []string{"through.read", "through.written", "through.withdrawn", "through.committed"}
	for _, isolation := range []string{"REPEATABLE-READ", "READ-COMMITTED"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			my, hooks := harness.SharedMySQL(t), harness.NewHooks(t, points...)
			hooks.Arm()
			o := harness.Options{MySQL: my, DB: my.NewDB(t), Redis: harness.StartRedis(t), Config: throughChangeConfig, Hooks: hooks}
			my.Exec(o.DB, changeTables)
			o.Set = map[string]string{"mysql.dsn": "root@tcp(" + my.Addr + ")/" + o.DB + "?tx_isolation=%27" + isolation + "%27"}
			s := openShop(t, o)
			other := s.second(nil)
			p, q := dial(t, s.Addr), dial(t, other.Addr)
			for i, point := range append(points, points...) {
				key, row, want := fmt.Sprint("n:", i), fmt.Sprint("SELECT n FROM things WHERE id = ", i), 3
				if there := i < len(points); there {
					s.sql("INSERT INTO things (id, n) VALUES (?, 10)", i)
					want = 13
				}
				hooks.Arm(point)
				p.send(encode("INCR", key))
				hooks.Wait(point)
				q.send(encode("INCRBY", key, "2"))
				if point != "through.committed" {
					harness.Until(t, "the other one waits for mysql, or is through", func() bool {
						return s.row("SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND "+
							"info LIKE '%things%' AND info NOT LIKE '%processlist%'") != "0" || s.row(row) == "2"
					})
				}
				hooks.ReleaseAll()
				sum := 0
				for _, got := range []string{p.reply(), q.reply()} {
					var n int
					if _, err := fmt.Sscanf(got, ":%d\r\n", &n); err != nil {
						t.Fatalf("%d: answered %q", i, got)
					}
					sum = max(sum, n)
				}
				if got := s.row(row); got != fmt.Sprint(want) || sum != want {
					t.Errorf("%d, held at %s: mysql has %s, and the later client was told %d; want %d", i, point, got, sum, want)
				}
				s.want(fmt.Sprint(want), "GET", key)
			}
		})
	}
}

// Many clients change rows that are not there at first, and nothing of it is lost.
func TestThroughChangesRace(t *testing.T) {
	t.Parallel()
	s := openThroughChanges(t, harness.Options{})
	other := s.second(nil)
	const clients, times = 8, 10
	var done sync.WaitGroup
	for c := range clients {
		p := dial(t, []*shop{s, other}[c%2].Addr)
		done.Go(func() {
			for range times {
				for _, args := range [][]string{{"INCR", "n:1"}, {"INCRBYFLOAT", "ratio:2", "0.25"}, {"SETRANGE", "name:3", fmt.Sprint(c), string(rune('a' + c))}} {
					if got := p.do(args...); got[0] == '-' {
						t.Errorf("%q is answered %q", args, got)
					}
				}
			}
		})
	}
	done.Wait()
	s.want(fmt.Sprintf("[%d %d abcdefgh]", clients*times, clients*times/4), "MGET", "n:1", "ratio:2", "name:3")
	s.restChanges()
}

package test

import (
	"fmt"
	"testing"

	"keyrow/test/harness"
)

// delete = "cache": DEL drops the cached copy and never a row; of what is not in MySQL yet the copy stays until it is.
func TestDeleteCache(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.swept")
	s := openShop(t, harness.Options{Hooks: hooks})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5), (43, 'Bea', NULL, 1, 1)")
	for _, command := range []string{"DEL", "UNLINK"} {
		s.want("0", command, "user:42") // nothing is cached
		s.want(ada, "GET", "user:42")
		s.Redis.Do("SET", "plain", "x")
		s.want("2", command, "user:42", "user:43", "plain", "absent", "user:7")
		if got := s.Redis.Do("EXISTS", "user:42", "plain"); got != int64(0) {
			t.Errorf("after %s redis still has %v of the keys", command, got)
		}
		s.sql("UPDATE users SET age = age + 1 WHERE id = 42")
		s.sql("UPDATE users SET age = 36 WHERE id = 42")
	}
	// A negative entry goes too.
	s.want("nil", "GET", "user:8")
	s.sql("INSERT INTO users VALUES (8, 'Cy', NULL, 1, 1)")
	s.want("nil", "GET", "user:8")
	s.want("0", "DEL", "user:8")
	s.want(`{"id":8,"name":"Cy","email":null,"age":1,"balance":1.00}`, "GET", "user:8")

	s.want("OK", "SET", "user:42", `{"name":"new"}`)
	hooks.Wait("flush.swept")
	const image = `{"id":42,"name":"new","email":null,"age":18,"balance":0.00}`
	s.want("1", "DEL", "user:42")
	s.want("1", "DEL", "user:42")
	s.want(image, "GET", "user:42")
	hooks.ReleaseAll()
	s.Settled()
	if got := s.Redis.Do("EXISTS", "user:42"); got != int64(0) {
		t.Error("the copy that was deleted is still there after the flush")
	}
	s.want(image, "GET", "user:42")
	s.rest()
	if got := s.row("SELECT GROUP_CONCAT(name ORDER BY id) FROM users"); got != "Cy,new,Bea" {
		t.Errorf("mysql has %s", got)
	}
}

// delete = "row": the row is gone for every reader from the reply on, whatever MySQL has still.
func TestDeleteRow(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "flush.swept")
	s := openShop(t, harness.Options{Hooks: hooks, Set: map[string]string{"journal.partitions": "1"}})
	s.sql("INSERT INTO accounts VALUES (1, 1, '1'), (2, 2, '2'), (3, 3, '3'), (4, 4, '4'), (5, 5, '5')")
	s.Redis.Do("MSET", "plain", "x", "other", "y")
	s.want(`{"id":1,"n":1,"twin":"1"}`, "GET", "acct:1")
	s.want("nil", "GET", "acct:9")

	s.unchanged("DELs of no row", func() {
		s.want("0", "DEL", "acct:9")
		s.refused([]string{`"id"`, "spelled 42"}, "UNLINK", "plain", "acct:042")
	})
	s.want("0", "DEL", "acct:8", "acct:7", "absent")
	s.want("1", "DEL", "acct:1") // cached
	hooks.Wait("flush.swept")
	s.want("1", "DEL", "acct:2") // only in MySQL
	s.want("3", "UNLINK", "acct:3", "acct:4", "acct:9", "plain", "acct:1", "acct:2")
	for i := range 4 {
		s.want("nil", "GET", fmt.Sprint("acct:", i+1))
		s.want("0", "DEL", fmt.Sprint("acct:", i+1)) // again
	}
	s.want("[nil nil {\"id\":5,\"n\":5,\"twin\":\"5\"} y]", "MGET", "acct:1", "acct:3", "acct:5", "other")
	if got := s.row("SELECT COUNT(*) FROM accounts"); got != "5" {
		t.Errorf("mysql has %s rows while the flush is held", got)
	}

	// What is written after a DEL stays, what is deleted after a SET goes.
	s.want("OK", "SET", "acct:2", `{"n":22,"twin":"22"}`)
	s.want("OK", "SET", "acct:6", `{"n":6,"twin":"6"}`)
	s.want("1", "DEL", "acct:6")
	s.want("OK", "SET", "acct:3", `{"n":33,"twin":"33"}`)
	s.want("1", "DEL", "acct:3")
	s.want("OK", "SET", "acct:4", `{"n":43,"twin":"43"}`)
	s.want("1", "DEL", "acct:4")
	s.want("OK", "SET", "acct:4", `{"n":44,"twin":"44"}`)
	s.want("1", "DEL", "acct:5", "acct:5")
	s.want(`[nil {"id":2,"n":22,"twin":"22"} nil {"id":4,"n":44,"twin":"44"} nil nil]`,
		"MGET", "acct:1", "acct:2", "acct:3", "acct:4", "acct:5", "acct:6")
	hooks.ReleaseAll()
	s.Settled()
	s.want(`[nil {"id":2,"n":22,"twin":"22"} nil {"id":4,"n":44,"twin":"44"} nil nil]`,
		"MGET", "acct:1", "acct:2", "acct:3", "acct:4", "acct:5", "acct:6")
	s.rest()
	if got := fmt.Sprint(s.table("SELECT * FROM accounts ORDER BY id")); got != "[[2 22 22] [4 44 44]]" {
		t.Errorf("mysql has %s", got)
	}
}

// A DEL and a SET on either side of every point of a flush: the last one wins.
func TestDeleteAndSetDuringFlush(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"flush.swept", "flush.read", "flush.before-commit", "flush.committed", "flush.settled"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, point)
			s := openShop(t, harness.Options{Hooks: hooks, Set: map[string]string{"journal.partitions": "1"}})
			s.sql("INSERT INTO accounts VALUES (3, 1, '1'), (4, 1, '1')")
			set := func(n int, keys ...string) {
				for _, key := range keys {
					s.want("OK", "SET", key, fmt.Sprintf(`{"n":%d,"twin":"%d"}`, n, n))
				}
			}
			_, old := account(3, 1)
			s.want(old, "GET", "acct:3")
			s.want("OK", "MSET", "acct:1", `{"n":1,"twin":"1"}`, "acct:2", `{"n":1,"twin":"1"}`, "acct:5", `{"n":1,"twin":"1"}`)
			s.want("2", "DEL", "acct:3", "acct:4")
			held := hooks.Wait(point)
			s.want("1", "DEL", "acct:1")
			set(2, "acct:2", "acct:3", "acct:4")
			s.want("1", "DEL", "acct:4")
			s.want("1", "DEL", "acct:5")
			set(2, "acct:5")
			held.Release()
			// … and once more at the next arrival.
			held = hooks.Wait(point)
			set(3, "acct:1")
			s.want("1", "DEL", "acct:2")
			held.Release()
			hooks.ReleaseAll()
			s.rest()
			if got := fmt.Sprint(s.table("SELECT id, n FROM accounts ORDER BY id")); got != "[[1 3] [3 2] [5 2]]" {
				t.Errorf("mysql has %s", got)
			}
			s.want(`[{"id":1,"n":3,"twin":"3"} nil {"id":3,"n":2,"twin":"2"} nil {"id":5,"n":2,"twin":"2"}]`,
				"MGET", "acct:1", "acct:2", "acct:3", "acct:4", "acct:5")
		})
	}
}

// Of two clients who delete a row that only MySQL has, one is told that it was there: also if one of them learned that it
// was, and the deletion of the other was through, flush and all, before it could go on.
func TestDeleteRowTwice(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "del.asked")
	s := openShop(t, harness.Options{Hooks: hooks})
	other := s.second(nil)
	s.sql("INSERT INTO accounts VALUES (1, 1, '1'), (2, 2, '2')")
	p := dial(t, s.Addr)
	p.send(encode("DEL", "acct:1", "acct:2"))
	hooks.Wait("del.asked")
	other.want("1", "DEL", "acct:1")
	other.Settled()
	s.Redis.Do("DEL", "acct:2") // evicted, say
	hooks.ReleaseAll()
	if got := p.reply(); got != ":1\r\n" {
		t.Errorf("DEL of both is answered %q", got)
	}
	s.rest()
	if n := s.row("SELECT COUNT(*) FROM accounts"); n != "0" {
		t.Errorf("%s rows are left", n)
	}
}

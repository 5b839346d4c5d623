package backend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// staleKinds are mappings and a query of each kind whose images may be served for an hour after their ttl.
func staleKinds(t *testing.T) (*loading, *harness.MySQL) {
	my := harness.StartMySQL(t)
	s := loaderSetup{mysql: my, timeout: 5 * time.Second, tables: usersTable + "INSERT INTO users VALUES (1, 'n1'), (2, 'n2');"}
	for _, kind := range []string{"json", "string", "hash"} {
		c := usersMapping()
		c.Name, c.Key, c.Value, c.Write, c.Stale = kind, kind+":{id}", kind, "deny", time.Hour
		if kind == "string" {
			c.Column = "name"
		}
		s.mappings = append(s.mappings, c)
	}
	plain := usersMapping()
	plain.Name, plain.Key = "plain", "plain:{id}"
	s.mappings = append(s.mappings, plain)
	for kind, sql := range map[string]string{"zset": "SELECT name, id FROM users", "list": "SELECT name FROM users ORDER BY id"} {
		q := mapping.DefaultQuery()
		q.Name, q.Key, q.Value, q.SQL, q.Stale = kind, kind, kind, sql, time.Hour
		s.queries = append(s.queries, q)
	}
	lg := newLoading(t, s)
	lg.staleFor = time.Minute // so that a slow machine finds it there
	return lg, my
}

// expire does what the end of its ttl does to an image.
func (lg *loading) expire(keys ...string) {
	lg.t.Helper()
	if n := lg.rdb.Del(lg.t.Context(), keys...).Val(); n != int64(len(keys)) {
		lg.t.Errorf("%d of %v were there", n, keys)
	}
}

func (lg *loading) down(key string) {
	lg.t.Helper()
	if got := lg.load(key).String(); !strings.HasPrefix(got, "DBDOWN keyrow: mysql ") {
		lg.t.Errorf("load %s: %s, want DBDOWN", key, got)
	}
}

// While MySQL is down the last image is served past its ttl, of every kind, and once it is back it is read again.
func TestStale(t *testing.T) {
	lg, my := staleKinds(t)
	keys := []string{"json:1", "string:1", "hash:1", "zset", "list"}
	before := map[string]string{}
	for _, key := range append(keys, "plain:1") {
		lg.load(key)
		before[key] = lg.shown(key)
	}
	lg.expire(append(keys, "plain:1")...)
	my.Kill()
	for _, key := range keys {
		if got := lg.load(key); got.err != nil || got.image == nil {
			t.Errorf("%s: %v", key, got)
		}
		if got := lg.shown(key); got != before[key] {
			t.Errorf("%s is %s, was %s", key, got, before[key])
		}
		if ttl := lg.rdb.PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > time.Minute {
			t.Errorf("%s stays for %v", key, ttl)
		}
	}
	lg.down("plain:1")
	lg.down("json:2") // was never read
	lg.expire(keys...)
	lg.want("json:1", `{"id":1,"name":"n1"}`)
	if s := lg.Stats(); s.Stale != 6 {
		t.Errorf("%+v", s)
	}

	lg.expire("json:1")
	my.Restart()
	my.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id = 1")
	harness.Until(t, "the row is read again", func() bool {
		lg.rdb.Del(t.Context(), "json:1")
		return lg.load("json:1").String() == `{"id":1,"name":"new"}`
	})
	if s := lg.Stats(); s.Stale < 6 || s.Silent {
		t.Errorf("%+v", s)
	}
}

// Keys that have a copy and keys that have none go through a round together.
func TestStaleTogether(t *testing.T) {
	lg, my := staleKinds(t)
	my.Exec(lg.db, "INSERT INTO users SELECT seq, CONCAT('n', seq) FROM seq_3_to_100")
	const copies, keys = 50, 100
	for id := 1; id <= copies; id++ {
		key := fmt.Sprint("json:", id)
		lg.want(key, user(id))
		lg.expire(key)
	}
	all := func() (got []string) {
		var answers []<-chan answer
		for id := 1; id <= keys; id++ {
			answers = append(answers, lg.start(lg.Loader, fmt.Sprint("json:", id)))
		}
		for _, a := range answers {
			got = append(got, (<-a).String())
		}
		return got
	}

	my.Kill()
	for i, got := range all() {
		if id := i + 1; id <= copies && got != user(id) || id > copies && !strings.HasPrefix(got, "DBDOWN keyrow: mysql ") {
			t.Errorf("json:%d is %s", id, got)
		}
	}

	my.Restart()
	harness.Until(t, "mysql is asked again", func() bool { return lg.load("json:100").String() == user(100) })
	for id := 1; id <= copies; id++ {
		lg.expire(fmt.Sprint("json:", id))
	}
	my.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id < 100")
	before := lg.Stats()
	for i, got := range all()[:keys-1] {
		if want := fmt.Sprintf(`{"id":%d,"name":"new"}`, i+1); got != want {
			t.Errorf("json:%d is %s, want %s", i+1, got, want)
		}
		if fields := lg.rdb.HKeys(t.Context(), lg.aux(fmt.Sprint("json:", i+1))).Val(); len(fields) != 2 {
			t.Errorf("the copy of json:%d has %v", i+1, fields)
		}
	}
	if s := lg.Stats(); s.Fills-before.Fills != keys-1 || s.Rejected != before.Rejected || s.Stale != copies {
		t.Errorf("%+v, was %+v", s, before)
	}
}

// A stale image is not served when MySQL works, nor once its time is over, nor for a row that MySQL does not have any more.
func TestStaleEnds(t *testing.T) {
	lg, my := staleKinds(t)
	for _, key := range []string{"json:1", "json:2", "string:1", "hash:1"} {
		lg.load(key)
	}
	lg.expire("json:1", "json:2", "string:1", "hash:1")
	my.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id = 1; DELETE FROM users WHERE id = 2")
	lg.want("json:1", `{"id":1,"name":"new"}`)
	lg.want("json:2", "(nil)")
	lg.rdb.HSet(t.Context(), lg.aux("string:1"), "until", time.Now().Add(-time.Second).UnixMilli())

	lg.rdb.Del(t.Context(), lg.aux("json:2")) // the negative entry runs out
	my.Exec(lg.db, "RENAME TABLE users TO others")
	if got := lg.load("hash:1").String(); !strings.HasPrefix(got, "DBDOWN keyrow: mysql failed: Error 1146") {
		t.Errorf("without its table: %s", got) // MySQL is not down
	}
	my.Kill()
	lg.down("string:1")
	lg.down("json:2")
	if got := lg.load("hash:1"); got.err != nil {
		t.Error(got)
	}
}

// A copy goes with whatever ends an image: a write, a delete and an invalidation, at any point of a load.
func TestStaleLosesToWrite(t *testing.T) {
	lg, my := staleKinds(t)
	lg.want("json:1", user(1))
	lg.want("json:2", user(2))
	if n := lg.rdb.Exists(t.Context(), lg.aux("json:1"), lg.aux("json:2")).Val(); n != 2 {
		t.Fatal("there are no copies")
	}
	lg.expire("json:1", "json:2")
	my.Kill()

	lg.on(HookGranted, func() { lg.write("json:1", "written") })
	lg.want("json:1", "written")
	lg.on(HookGranted, func() { lg.remove("json:2") })
	lg.down("json:2")
	lg.want("json:2", "(nil)")
	if n := lg.rdb.Exists(t.Context(), lg.aux("json:1"), lg.aux("json:2")).Val(); n != 0 {
		t.Error("copies are left over")
	}
	if s := lg.Stats(); s.Stale != 0 {
		t.Errorf("%+v", s)
	}
}

// A lease is taken beside a copy, by one at a time, and it runs out.
func TestStaleLease(t *testing.T) {
	lg, my := staleKinds(t)
	lg.want("json:1", user(1))
	lg.expire("json:1")
	aux := lg.aux("json:1")
	other := lg.another(lg.Loader.db, 30*time.Second)
	var second <-chan answer
	lg.on(HookGranted, func() {
		second = lg.start(other, "json:1")
		harness.Until(t, "the other one waits", func() bool { return other.Stats().Waits > 0 })
	})
	my.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id = 1")
	lg.want("json:1", `{"id":1,"name":"new"}`)
	if got := (<-second).String(); got != `{"id":1,"name":"new"}` {
		t.Error(got)
	}
	if n := other.Stats().Selects; n != 0 {
		t.Errorf("%d SELECTs by the other one", n)
	}

	lg.expire("json:1")
	lg.rdb.HSet(t.Context(), aux, "token", "of one that died", "lease", time.Now().Add(time.Hour).UnixMilli())
	waiting := lg.start(lg.Loader, "json:1")
	waits := lg.Stats().Waits
	harness.Until(t, "it waits", func() bool { return lg.Stats().Waits > waits })
	lg.rdb.HSet(t.Context(), aux, "lease", time.Now().Add(-time.Second).UnixMilli())
	if got := (<-waiting).String(); got != `{"id":1,"name":"new"}` {
		t.Error(got)
	}
	if fields := lg.rdb.HKeys(t.Context(), aux).Val(); len(fields) != 2 {
		t.Errorf("the copy has %v", fields)
	}
}

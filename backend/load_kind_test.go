package backend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// kinds are mappings of one table in every shape that a row has.
func kinds(t *testing.T, s loaderSetup) *loading {
	t.Helper()
	s.tables = `CREATE TABLE items (a INT, b VARCHAR(20) COLLATE utf8mb4_bin, n BIGINT UNSIGNED, text VARCHAR(100), raw VARBINARY(100), PRIMARY KEY (a, b));
		INSERT INTO items VALUES (1, 'x', 18446744073709551615, 'é', x'00ff'), (1, 'x:y', NULL, '', ''), (2, 'x', 0, NULL, NULL);` + s.tables
	for _, value := range []string{"json", "hash", "string"} {
		c := mapping.Default()
		c.Name, c.Key, c.Table, c.Value, c.Write = value, value+":{a}:{b}", "items", value, "deny"
		if value == "string" {
			c.Column = "text"
		}
		s.mappings = append(s.mappings, c)
	}
	return newLoading(t, s)
}

// shown is what is in Redis at a key, as its own commands show it.
func (lg *loading) shown(key string) string {
	lg.t.Helper()
	ctx := lg.t.Context()
	switch kind := lg.rdb.Type(ctx, key).Val(); kind {
	case "string":
		return fmt.Sprintf("%q", lg.rdb.Get(ctx, key).Val())
	case "hash":
		return fmt.Sprintf("%q", lg.rdb.HGetAll(ctx, key).Val())
	case "list":
		return fmt.Sprintf("%q", lg.rdb.LRange(ctx, key, 0, -1).Val())
	case "set":
		members := lg.rdb.SMembers(ctx, key).Val()
		slices.Sort(members) // SORT compares them up to a NUL only
		return fmt.Sprintf("%q", members)
	case "zset":
		return fmt.Sprintf("%v", lg.rdb.ZRangeWithScores(ctx, key, 0, -1).Val())
	default:
		return kind
	}
}

// fills loads a key whose image Redis is to have, and checks it there.
func (lg *loading) fills(key, want string) {
	lg.t.Helper()
	got := lg.load(key)
	if got.err != nil || (got.image != nil) != (want != "none") {
		lg.t.Errorf("load %s: %v", key, got)
	}
	if shown := lg.shown(key); shown != want {
		lg.t.Errorf("redis has %s at %s, want %s", shown, key, want)
	}
}

func TestLoadKinds(t *testing.T) {
	lg := kinds(t, loaderSetup{})
	lg.want("json:1:x", `{"a":1,"b":"x","n":18446744073709551615,"text":"é","raw":"AP8="}`)
	lg.fills("hash:1:x", `map["a":"1" "b":"x" "n":"18446744073709551615" "raw":"\x00\xff" "text":"é"]`)
	lg.fills("hash:1:x:y", `map["a":"1" "b":"x:y" "raw":"" "text":""]`)
	lg.fills("hash:2:x", `map["a":"2" "b":"x" "n":"0"]`)
	lg.fills("hash:3:x", "none")
	lg.fills("hash:01:x", "none")
	lg.fills("hash:1:X", "none")
	lg.want("string:1:x", "é")
	lg.want("string:1:x:y", "")
	lg.want("string:2:x", "(nil)") // NULL
	lg.want("string:3:x", "(nil)")
	lg.fills("string:1:x:y", `""`)
	lg.fills("string:2:x", "none")
	for key, negative := range map[string]bool{"hash:1:x": false, "hash:3:x": true, "string:2:x": true, "string:1:x": false} {
		if got := lg.rdb.Get(t.Context(), lg.aux(key)).Val(); (got == mapping.NegativeEntry) != negative || !negative && got != "" {
			t.Errorf("%s: the aux key holds %q", key, got)
		}
		ttl := lg.rdb.PTTL(t.Context(), key).Val()
		if !negative && (ttl < 8*time.Minute || ttl > 11*time.Minute) {
			t.Errorf("%s: ttl %v", key, ttl)
		}
	}
	selects := lg.Stats().Selects
	for _, key := range []string{"hash:1:x", "hash:3:x", "string:2:x"} {
		lg.load(key)
	}
	if n := lg.Stats().Selects - selects; n != 0 {
		t.Errorf("%d selects for what redis has", n)
	}
}

// A hash of more fields than Lua passes on in one call.
func TestLoadWideHash(t *testing.T) {
	const columns = 900
	list := make([]string, columns)
	values := make([]string, columns)
	for i := range list {
		list[i], values[i] = fmt.Sprintf("c%d TINYINT", i), fmt.Sprint(i%100)
	}
	c := mapping.Default()
	c.Name, c.Key, c.Table, c.Value, c.Write = "wide", "wide:{id}", "wide", "hash", "deny"
	lg := newLoading(t, loaderSetup{mappings: []mapping.Config{c}, tables: "CREATE TABLE wide (id INT PRIMARY KEY, " + strings.Join(list, ", ") + ");" +
		"INSERT INTO wide VALUES (7, " + strings.Join(values, ", ") + ")"})
	if got := lg.load("wide:7"); got.err != nil || got.image == nil {
		t.Fatal(got)
	}
	got := lg.rdb.HGetAll(t.Context(), "wide:7").Val()
	if len(got) != columns+1 || got["c899"] != "99" || got["id"] != "7" {
		t.Errorf("%d fields: %v", len(got), got)
	}
}

// Whatever happens to the key of a hash between acquire and fill, what was read before is not stored after it.
func TestLoadHashLoses(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(lg *loading)
		want    string
	}{
		"stored past keyrow": {func(lg *loading) { lg.rdb.HSet(t.Context(), "hash:1:x", "f", "v") }, `map["f":"v"]`},
		"of another type":    {func(lg *loading) { lg.rdb.RPush(t.Context(), "hash:1:x", "e") }, `["e"]`},
		"row deleted":        {func(lg *loading) { lg.remove("hash:1:x") }, "none"},
		"invalidated": {func(lg *loading) {
			lg.mysql.Exec(lg.db, "UPDATE items SET text = 'new' WHERE a = 1 AND b = 'x'")
			lg.rdb.Del(t.Context(), lg.aux("hash:1:x"))
		}, `map["a":"1" "b":"x" "n":"18446744073709551615" "raw":"\x00\xff" "text":"new"]`},
	} {
		t.Run(name, func(t *testing.T) {
			lg := kinds(t, loaderSetup{})
			lg.on(HookSelected, func() { test.happens(lg) })
			lg.fills("hash:1:x", test.want)
		})
	}
}

// A hash that Redis has no room for cannot be answered, unlike a string; neither is left half made.
func TestLoadHashRedisFull(t *testing.T) {
	lg := kinds(t, loaderSetup{})
	full := func() { lg.rdb.ConfigSet(t.Context(), "maxmemory", "1") }
	full()
	want := "UPSTREAM keyrow: redis did not take the value of the key: OOM"
	if got := lg.load("hash:1:x"); got.err == nil || !strings.HasPrefix(got.err.Error(), want) {
		t.Errorf("no room for the lease: %v", got)
	}
	lg.want("string:1:x", "é")
	lg.fills("hash:3:x", "none")
	lg.rdb.ConfigSet(t.Context(), "maxmemory", "0")
	lg.on(HookSelected, full)
	if got := lg.load("hash:1:x"); got.err == nil || !strings.HasPrefix(got.err.Error(), want) {
		t.Errorf("no room for the hash: %v", got)
	}
	lg.rdb.ConfigSet(t.Context(), "maxmemory", "0")
	lg.fills("hash:1:x", `map["a":"1" "b":"x" "n":"18446744073709551615" "raw":"\x00\xff" "text":"é"]`)
}

// A lease that is always lost is an error for what has to be in Redis.
func TestLoadHashLeaseAlwaysLost(t *testing.T) {
	lg := kinds(t, loaderSetup{})
	var lose func()
	lose = func() {
		lg.rdb.Del(t.Context(), lg.aux("hash:1:x"))
		lg.on(HookSelected, lose)
	}
	lg.on(HookSelected, lose)
	if got := lg.load("hash:1:x"); got.err == nil || !strings.Contains(got.err.Error(), "lease") {
		t.Error(got)
	}
	harness.Until(t, "nothing is left over", func() bool { return lg.rdb.DBSize(t.Context()).Val() == 0 })
}

// queries are queries over one table, in every shape that a result has.
func queries(t *testing.T, s loaderSetup) *loading {
	t.Helper()
	s.tables = `CREATE TABLE players (id INT PRIMARY KEY, country VARCHAR(20) COLLATE utf8mb4_bin, name VARCHAR(20), score FLOAT, big BIGINT UNSIGNED, raw VARBINARY(20), bits BIT(9), at DATETIME(3), took TIME(1));
		INSERT INTO players VALUES (1, 'de', 'Ä', 0.1, 18446744073709551615, x'00ff', b'100000001', '2024-02-29 00:00:00.5', '-100:00:00.5'),
		(2, 'de', 'b?', 3, 0, '', 0, '0000-00-00', 0), (3, 'de', NULL, NULL, NULL, NULL, NULL, NULL, NULL), (4, 'at', 'c', -1, 1, '', 0, NULL, NULL);` + s.tables
	for _, one := range []struct{ value, sql string }{
		{"zset", "SELECT name, score FROM players WHERE country = {country} ORDER BY score"},
		{"hash", "SELECT name, big FROM players WHERE country = {country}"},
		{"list", "SELECT name FROM players WHERE country = {country} AND name <> '?' ORDER BY id DESC"},
		{"set", "SELECT raw FROM players WHERE country = {country}"},
		{"json", "SELECT * FROM players WHERE country = {country} ORDER BY id -- all of them"},
	} {
		q := mapping.DefaultQuery()
		q.Name, q.Key, q.Value, q.SQL = one.value, one.value+":{country}", one.value, one.sql
		q.Variables = map[string]string{"country": "players.country"}
		s.queries = append(s.queries, q)
	}
	return newLoading(t, s)
}

func TestLoadQueries(t *testing.T) {
	lg := queries(t, loaderSetup{})
	lg.fills("zset:de", "[{0.1 Ä} {3 b?}]")
	lg.fills("hash:de", `map["b?":"0" "Ä":"18446744073709551615"]`)
	lg.fills("list:de", `["b?" "Ä"]`)
	lg.fills("set:de", `["" "\x00\xff"]`)
	lg.want("json:de", `[{"id":1,"country":"de","name":"Ä","score":0.1,"big":18446744073709551615,"raw":"AP8=","bits":257,"at":"2024-02-29 00:00:00.500","took":"-100:00:00.5"},`+
		`{"id":2,"country":"de","name":"b?","score":3,"big":0,"raw":"","bits":0,"at":"0000-00-00 00:00:00.000","took":"00:00:00.0"},`+
		`{"id":3,"country":"de","name":null,"score":null,"big":null,"raw":null,"bits":null,"at":null,"took":null}]`)
	if ttl := lg.rdb.PTTL(t.Context(), "zset:de").Val(); ttl <= 0 || ttl > 66*time.Second {
		t.Errorf("ttl %v", ttl)
	}
	lg.fills("zset:fr", "none")
	lg.want("json:fr", "[]")
	lg.fills("zset:DE", "none")
	lg.fills("zset:' OR 1=1 -- ", "none")
	n := lg.Stats().Selects
	for _, key := range []string{"zset:de", "zset:fr", "json:fr", "json:de"} {
		lg.load(key)
	}
	if lg.Stats().Selects != n {
		t.Error("a select for what redis has")
	}
	if got := lg.load("zset:\xff"); got.err != nil || got.image != nil || lg.Stats().Selects != n {
		t.Errorf("a key that can have no result: %v", got)
	}
}

// A large result is there as a whole or not at all, and what it was built in is gone in either case.
func TestLoadLargeResult(t *testing.T) {
	const rows = 25_000
	large := []mapping.QueryConfig{}
	for _, value := range []string{"zset", "hash", "list", "set", "json"} {
		q := mapping.DefaultQuery()
		q.Name, q.Key, q.Value = value, "large:"+value, value
		q.SQL = "SELECT CONCAT('m', seq) AS m, seq FROM seq_1_to_25000"
		if value == "list" || value == "set" {
			q.SQL = "SELECT CONCAT('m', seq) AS m FROM seq_1_to_25000"
		}
		large = append(large, q)
	}
	forever := large[0]
	forever.Name, forever.Key, forever.TTL = "forever", "large:forever", 0
	lg := queries(t, loaderSetup{queries: append(large, forever)})
	ctx := t.Context()
	size := func(key string) int64 {
		switch lg.rdb.Type(ctx, key).Val() {
		case "zset":
			return lg.rdb.ZCard(ctx, key).Val()
		case "hash":
			return lg.rdb.HLen(ctx, key).Val()
		case "list":
			return lg.rdb.LLen(ctx, key).Val()
		case "set":
			return lg.rdb.SCard(ctx, key).Val()
		}
		return -1
	}
	for _, key := range []string{"large:zset", "large:hash", "large:list", "large:set", "large:forever"} {
		seen := false
		lg.on(HookSelected, func() {
			seen = lg.rdb.Exists(ctx, key).Val() == 1
		})
		if got := lg.load(key); got.err != nil || got.image == nil || size(key) != rows || seen {
			t.Errorf("%s: %v, %d of %d; seen before: %v", key, got, size(key), rows, seen)
		}
	}
	if ttl := lg.rdb.PTTL(ctx, "large:zset").Val(); ttl <= 0 || ttl > 66*time.Second {
		t.Errorf("ttl %v", ttl)
	}
	if ttl := lg.rdb.PTTL(ctx, "large:forever").Val(); ttl != -1 {
		t.Errorf("ttl %v, want none", ttl)
	}
	if got := lg.rdb.LIndex(ctx, "large:list", rows-1).Val(); got != "m25000" {
		t.Errorf("the last element is %s", got)
	}
	if got := lg.load("large:json"); !strings.HasPrefix(got.String(), `[{"m":"m1","seq":1},`) || !strings.HasSuffix(got.String(), `,{"m":"m25000","seq":25000}]`) {
		t.Errorf("%.100s", got)
	}

	// A write in between, or another's: the result is dropped.
	lg.rdb.Del(ctx, "large:zset", "large:list")
	lg.on(HookSelected, func() { lg.rdb.Set(ctx, "large:zset", "mine", 0) })
	lg.fills("large:zset", `"mine"`)
	lg.on(HookSelected, func() { lg.rdb.Del(ctx, lg.aux("large:list")) })
	if got := lg.load("large:list"); got.err != nil || size("large:list") != rows {
		t.Errorf("after a lost lease: %v", got)
	}
	// What was built is gone: built again.
	lg.rdb.Del(ctx, "large:set")
	lg.on(HookSelected, func() {
		for _, key := range lg.rdb.Keys(ctx, "keyrow:aside:*").Val() {
			lg.rdb.Del(ctx, key)
		}
	})
	if got := lg.load("large:set"); got.err != nil || size("large:set") != rows {
		t.Errorf("after an eviction: %v", got)
	}
	if left := lg.rdb.Keys(ctx, "keyrow:*").Val(); len(left) != 0 {
		t.Errorf("left over: %q", left)
	}
}

// Redis runs full in the midst of a large result.
func TestLoadLargeResultRedisFull(t *testing.T) {
	q := mapping.DefaultQuery()
	q.Name, q.Key, q.Value, q.SQL = "large", "large", "list", "SELECT REPEAT('x', 1000) FROM seq_1_to_20000"
	lg := queries(t, loaderSetup{queries: []mapping.QueryConfig{q}, redis: []string{"--maxmemory", "12mb"}})
	got := lg.load("large")
	if got.err == nil || !strings.HasPrefix(got.err.Error(), "UPSTREAM keyrow: redis did not take the value of the key: ") {
		t.Errorf("%v", got)
	}
	if lg.rdb.Exists(t.Context(), "large", lg.aux("large")).Val() != 0 {
		t.Error("something is left")
	}
	for _, key := range lg.rdb.Keys(t.Context(), "keyrow:aside:*").Val() {
		if lg.rdb.PTTL(t.Context(), key).Val() <= 0 {
			t.Error("what was built stays for ever")
		}
	}
}

// One SELECT for each key, whoever asks; the keys of a round side by side.
func TestLoadQueryOnce(t *testing.T) {
	lg := queries(t, loaderSetup{})
	var answers []<-chan answer
	lg.on(HookGranted, func() {
		for i := range 100 {
			answers = append(answers, lg.start(lg.Loader, []string{"list:de", "list:at", "list:fr"}[i%3]))
		}
	})
	lg.load("list:de")
	for i, a := range answers {
		if got := <-a; got.err != nil || (got.image == nil) != (i%3 == 2) {
			t.Errorf("%d: %v", i, got)
		}
	}
	if n := lg.Stats().Selects; n != 3 {
		t.Errorf("%d selects for three keys", n)
	}
}

// What fails for one key is its own.
func TestLoadQueryFails(t *testing.T) {
	q := mapping.DefaultQuery()
	q.Name, q.Key, q.Value, q.SQL = "sum", "sum:{n}", "list", "SELECT 9223372036854775807 + {n}"
	q.Variables = map[string]string{"n": "integer"}
	lg := queries(t, loaderSetup{queries: []mapping.QueryConfig{q}})
	var ok <-chan answer
	lg.on(HookGranted, func() { ok = lg.start(lg.Loader, "sum:0") })
	if got := lg.load("sum:1"); got.err == nil || !strings.HasPrefix(got.err.Error(), "DBDOWN keyrow: mysql failed: ") {
		t.Errorf("%v", got)
	}
	if got := <-ok; got.err != nil || lg.shown("sum:0") != `["9223372036854775807"]` {
		t.Errorf("%v", got)
	}
	if lg.rdb.Exists(t.Context(), lg.aux("sum:1")).Val() != 0 {
		t.Error("the lease is left over")
	}
	lg.mysql.Exec(lg.db, "ALTER TABLE players DROP COLUMN raw")
	if got := lg.load("set:de"); got.err == nil || !strings.HasPrefix(got.err.Error(), "DBDOWN keyrow: mysql failed: ") {
		t.Errorf("%v", got)
	}
	lg.mysql.Exec(lg.db, "ALTER TABLE players ADD COLUMN raw GEOMETRY")
	want := `ERR keyrow: the result for this key cannot be shown: column "raw": the spatial type geometry cannot be in an image: nothing was read`
	if got := lg.load("json:de"); got.String() != want {
		t.Errorf("%v", got)
	}
}

// What is wrong with the SELECT of a query is found before it is asked for.
func TestReadQueries(t *testing.T) {
	server := harness.SharedMySQL(t)
	name := server.NewDB(t)
	server.Exec(name, "CREATE TABLE t (id INT PRIMARY KEY, v INT, d DECIMAL(10,3), u INET6, f FLOAT, b BIT(3), e ENUM('a'))")
	db := openMySQL(t, MySQLConfig{DSN: server.DSN(name), MaxOpen: 4, Timeout: 30 * time.Second})
	var all []mapping.QueryConfig
	sqls := []struct{ sql, want string }{
		{"SELECT id, v, d, u, f, b, e FROM t WHERE u = {x} LIMIT {n} -- the end", "id int, v int, d decimal 3, u char, f float, b bit, e enum"},
		{"SELECT nothing FROM t WHERE u = {x} LIMIT {n}", "mysql does not run it: Unknown column 'nothing'"},
		{"SELECT id FROM nowhere WHERE u = {x} LIMIT {n}", "mysql does not run it: Table "},
		{"SELECT id FROM t WHERE u = {x} FRO LIMIT {n}", "mysql does not run it: You have an error in your SQL syntax"},
		{"SELECT id, id FROM t WHERE u = {x} LIMIT {n}", "mysql does not run it: Duplicate column name 'id'"},
		{"SELECT SLEEP(1000), BENCHMARK(1000000000, SHA1('x')) FROM t WHERE u = {x} UNION ALL SELECT SLEEP(1000), {n}", "SLEEP(1000) int"},
	}
	for i, s := range sqls {
		q := mapping.DefaultQuery()
		q.Name, q.Key, q.SQL = fmt.Sprint(i), "q:{x}:{n}", s.sql
		q.Variables = map[string]string{"x": "t.u", "n": "integer"}
		all = append(all, q)
	}
	schema, err := ReadSchema(t.Context(), db, mapping.Tables(nil, all))
	if err != nil {
		t.Fatal(err)
	}
	if err := ReadQueries(t.Context(), db, all, schema); err != nil {
		t.Fatal(err)
	}
	for _, s := range sqls {
		got := schema[s.sql].Problem
		for i, c := range schema[s.sql].Columns {
			if i > 0 {
				got += ", "
			}
			got += c.Name + " " + c.Type
			if c.Scale > 0 && c.Type == "decimal" {
				got += fmt.Sprint(" ", c.Scale)
			}
		}
		if !strings.HasPrefix(got, s.want) {
			t.Errorf("%s: %s, want %s", s.sql, got, s.want)
		}
	}
}

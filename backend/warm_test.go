package backend

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyrow/mapping"
)

// walkKeys are tables, by the type of their key, with some rows. Their order is not always that of the bytes.
var walkKeys = []struct{ name, columns, pattern, rows string }{
	{"integer", "a BIGINT PRIMARY KEY", "{a}", "(-9223372036854775808), (-10), (-9), (0), (7), (10), (9223372036854775806), (9223372036854775807)"},
	{"unsigned", "a BIGINT UNSIGNED PRIMARY KEY", "{a}", "(0), (2), (10), (9223372036854775808), (18446744073709551614), (18446744073709551615)"},
	{"zerofill", "a INT(6) ZEROFILL PRIMARY KEY", "{a}", "(0), (2), (10), (1234567)"},
	{"decimal", "a DECIMAL(12,2) PRIMARY KEY", "{a}", "(-10.5), (-9.25), (0), (0.1), (0.11), (9), (10), (1234567890.12), (1234567890.11)"},
	{"text", "a VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY", "{a}", "(''), ('Bob'), ('alice'), ('Zoe'), ('ärger'), ('x y'), ('x\\ty'), ('it''s'), ('\\\\'), ('10'), ('9')"},
	{"cased", "a VARCHAR(20) COLLATE utf8mb4_bin PRIMARY KEY", "{a}", "('Bob'), ('bob'), ('alice'), ('ä'), ('z')"},
	{"latin", "a VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci PRIMARY KEY", "{a}", "('ö'), ('z'), ('oz'), ('€'), ('P')"},
	{"char", "a CHAR(4) COLLATE utf8mb4_unicode_ci PRIMARY KEY", "{a}", "('b'), ('B0'), ('a b'), ('ab')"},
	{"bytes", "a VARBINARY(4) PRIMARY KEY", "{a}", "(x'00'), (x'ff'), (x'61'), (x'6100'), (x'c3'), (x'27')"},
	{"fixed", "a BINARY(2) PRIMARY KEY", "{a}", "(x'0000'), (x'ff00'), (x'6161')"},
	{"date", "a DATE PRIMARY KEY", "{a}", "('0000-00-00'), ('1999-12-31'), ('2000-02-00'), ('2000-02-29')"},
	{"datetime", "a DATETIME(6) PRIMARY KEY", "{a}", "('2000-01-01 00:00:00'), ('2000-01-01 00:00:00.000001'), ('1999-01-01 00:00:00.5')"},
	{"timestamp", "a TIMESTAMP(3) PRIMARY KEY", "{a}", "('2000-01-01 00:00:00'), ('2030-10-27 01:30:00.001'), ('1999-01-01 00:00:00.5')"},
	{"time", "a TIME(3) PRIMARY KEY", "{a}", "('-838:59:59'), ('-00:00:01'), ('00:00:00'), ('00:00:01.5'), ('100:00:00'), ('99:00:00')"},
	{"year", "a YEAR PRIMARY KEY", "{a}", "(0), (1901), (1999), (2000), (2001), (2155)"},
	{"enum", "a ENUM('z','a','','2','1') PRIMARY KEY", "{a}", "('z'), ('a'), ('2'), ('1'), ('')"},
	{"uuid", "a UUID PRIMARY KEY", "{a}", "('00000000-0000-0000-0000-000000000001'), ('ffffffff-0000-1000-8000-000000000001'), " +
		"('10000000-ffff-1fff-8000-000000000001'), ('20000000-0000-1000-8000-000000000000'), ('ffffffff-0000-4000-8000-000000000001')"},
	{"inet6", "a INET6 PRIMARY KEY", "{a}", "('::'), ('::1'), ('ff::'), ('::ffff:10.0.0.1'), ('9::1')"},
	{"two", "a INT, b VARCHAR(10) COLLATE utf8mb4_general_ci, PRIMARY KEY (b, a)", "{a}-{b}", "(1,'x'), (2,'X'), (10,'x'), (1,'a'), (2,'é'), (3,'E'), (1,'')"},
	{"three", "a INT, b ENUM('y','x','w'), c INT, PRIMARY KEY (b, a, c)", "{c}.{a}.{b}",
		"(1,'x',1), (1,'x',2), (1,'y',1), (2,'w',1), (2,'y',1), (2,'y',2), (1,'w',9), (3,'w',1)"},
	{"unique", "id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(10) COLLATE utf8mb4_general_ci NOT NULL, UNIQUE (a)", "{a}", "('b'), ('A'), ('c'), ('B2')"},
}

func newWalks(t *testing.T) *loading {
	var tables strings.Builder
	var cs []mapping.Config
	for _, w := range walkKeys {
		columns := "a"
		if strings.Contains(w.pattern, "{b}") {
			columns += ", b"
		}
		if strings.Contains(w.pattern, "{c}") {
			columns += ", c"
		}
		fmt.Fprintf(&tables, "CREATE TABLE t_%s (%s, v INT); INSERT INTO t_%s (%s) VALUES %s;", w.name, w.columns, w.name, columns, w.rows)
		c := mapping.Default()
		c.Name, c.Key, c.Table, c.Write = w.name, w.name+":"+w.pattern, "t_"+w.name, "deny"
		cs = append(cs, c)
	}
	return newLoading(t, loaderSetup{tables: tables.String(), mappings: cs})
}

// pages walks from a position and returns the keys.
func (lg *loading) pages(m *mapping.Mapping, at mapping.Position, size int) (keys []string, rows int) {
	lg.t.Helper()
	for {
		query, args := m.Page(at, size)
		found, err := lg.Loader.db.Query(query, args...)
		if err != nil {
			lg.t.Fatalf("%s: %v", query, err)
		}
		row, n := newRow(found), 0
		for found.Next() {
			if err := row.scan(found); err != nil {
				lg.t.Fatal(err)
			}
			if key := m.RowKey(nil, row.values); key != nil {
				keys = append(keys, string(key))
			}
			at = m.Behind(row.values)
			n++
		}
		found.Close()
		if rows += n; n < size || rows > 1000 {
			return keys, rows
		}
	}
}

// Whatever the type of the key, a walk comes by each row once, and goes on anywhere.
func TestWalk(t *testing.T) {
	lg := newWalks(t)
	for i, w := range walkKeys {
		m := lg.set.All()[i]
		all, rows := lg.pages(m, mapping.Position{}, 1000)
		if want := strings.Count(w.rows, "("); rows != want || len(all) < want-1 || len(all) < 3 {
			t.Fatalf("%s: %d rows, %d keys", w.name, rows, len(all))
		}
		for size := 1; size <= 3; size++ {
			if keys, n := lg.pages(m, mapping.Position{}, size); n != rows || !slices.Equal(keys, all) {
				t.Errorf("%s: in pages of %d: %d rows, %q, want %q", w.name, size, n, keys, all)
			}
		}
		for j, key := range all {
			at, err := m.At([]byte(key))
			if err != nil {
				t.Fatal(err)
			}
			if keys, _ := lg.pages(m, at, 2); !slices.Equal(keys, all[j:]) {
				t.Errorf("%s: from %q: %q, want %q", w.name, key, keys, all[j:])
			}
		}
	}
}

// A page costs MySQL as many rows as it has, wherever it is.
func TestWalkUsesIndex(t *testing.T) {
	var tables strings.Builder
	var cs []mapping.Config
	for name, key := range map[string]string{
		"one": "PRIMARY KEY (a)", "second": "PRIMARY KEY (v), UNIQUE (s)", "two": "PRIMARY KEY (s, a)",
		"enum": "PRIMARY KEY (e, a)", "three": "PRIMARY KEY (d, s, a)",
	} {
		fmt.Fprintf(&tables, "CREATE TABLE %s (a INT, s VARCHAR(20) NOT NULL, e ENUM('z','y','x','w'), d DECIMAL(10,2), v INT, %s);"+
			"INSERT INTO %[1]s SELECT seq, seq %% 700 + IF('%[1]s' = 'second', seq * 1000, 0), seq %% 4 + 1, seq %% 3 - 1.5, seq FROM seq_1_to_8000;", name, key)
		c := mapping.Default()
		c.Name, c.Table, c.Write = name, name, "deny"
		c.Key = name + ":" + map[string]string{"one": "{a}", "second": "{s}", "two": "{a}-{s}", "enum": "{a}-{e}", "three": "{s}.{a}.{d}"}[name]
		cs = append(cs, c)
	}
	lg := newLoading(t, loaderSetup{tables: tables.String() + "ANALYZE TABLE one, second, two, enum, three;", mappings: cs})
	conn, err := lg.Loader.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	handled := func() (n int) {
		t.Helper()
		query(t, conn, "SHOW SESSION STATUS LIKE 'Handler_read%'", func(row [][]byte) {
			one, err := strconv.Atoi(string(row[1]))
			if err != nil {
				t.Fatal(err)
			}
			n += one
		})
		return n
	}
	for _, m := range lg.set.All() {
		var at mapping.Position
		for page := range 6 {
			text, args := m.Page(at, 1000)
			before, rows := handled(), 0
			query(t, conn, text, func(row [][]byte) {
				rows++
				at = m.Behind(row)
			}, args...)
			if n := handled() - before; rows != 1000 || n > 1100 {
				t.Errorf("%s: page %d of %d rows read %d: %s %v", m.Name, page, rows, n, text, args)
			}
		}
		from, err := lg.Loader.Estimate(t.Context(), m, m.RowKey(nil, at1(t, conn, m, at)))
		if all, err2 := lg.Loader.Estimate(t.Context(), m, nil); err != nil || err2 != nil || all < 4000 || all > 16000 || from > all/2 {
			t.Errorf("%s: about %d rows, %d of them left, %v, %v", m.Name, all, from, err, err2)
		}
	}
}

// at1 is the first row from a position on.
func at1(t *testing.T, conn *sql.Conn, m *mapping.Mapping, at mapping.Position) (first [][]byte) {
	t.Helper()
	text, args := m.Page(at, 1)
	query(t, conn, text, func(row [][]byte) {
		for _, v := range row {
			first = append(first, slices.Clone(v))
		}
	}, args...)
	return first
}

func query(t *testing.T, conn *sql.Conn, text string, each func(row [][]byte), args ...any) {
	t.Helper()
	rows, err := conn.QueryContext(context.Background(), text, args...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer rows.Close()
	row := newRow(rows)
	for rows.Next() {
		if err := row.scan(rows); err != nil {
			t.Fatal(err)
		}
		each(row.values)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// What is there, deleted, leased, remembered as missing or written meanwhile is left as it is, and counted.
func TestWarmLeavesAlone(t *testing.T) {
	lg := users(t, loaderSetup{})
	ctx := t.Context()
	m := lg.set.All()[0]
	lg.write("user:1", `{"id":1,"name":"written"}`)
	lg.remove("user:2")
	lg.rdb.Set(ctx, lg.aux("user:3"), "another:1", time.Hour)
	lg.rdb.Set(ctx, lg.aux("user:4"), mapping.NegativeEntry, time.Hour)
	lg.on(HookSelected, func() {
		lg.write("user:5", `{"id":5,"name":"written"}`)
		lg.remove("user:6")
		lg.rdb.Del(ctx, lg.aux("user:7")) // an invalidation
	})
	lg.on(HookGranted, func() { lg.mysql.Exec(lg.db, "DELETE FROM users WHERE id = 8") })
	r, err := lg.Warm(ctx, WarmOptions{Mapping: m, Parallel: 1})
	want := WarmStats{Rows: 1000, Cached: 992, Present: 1, Deleted: 1, Leased: 1, Negative: 1, Changed: 3, Absent: 1}
	if err != nil || r.WarmStats != want || string(r.Last) != "user:1000" {
		t.Errorf("%+v %q, %v, want %+v", r.WarmStats, r.Last, err, want)
	}
	for key, image := range map[string]string{
		"user:1": `{"id":1,"name":"written"}`, "user:2": "", "user:3": "", "user:4": "", "user:5": `{"id":5,"name":"written"}`,
		"user:6": "", "user:7": "", "user:8": "", "user:9": user(9), "user:1000": user(1000),
	} {
		lg.inRedis(key, image)
	}
	if ttl := lg.rdb.PTTL(ctx, "user:9").Val(); ttl < 8*time.Minute || ttl > 11*time.Minute {
		t.Errorf("ttl %v, want 10m within a tenth", ttl)
	}
	if keys := lg.rdb.Keys(ctx, "keyrow:aux:*").Val(); len(keys) != 3 { // those of 3, 4 and 8
		t.Errorf("left over: %q", keys)
	}
}

// However fast MySQL and Redis are, no more rows are gone through than the rate allows.
func TestWarmRate(t *testing.T) {
	lg := users(t, loaderSetup{})
	const most = 500
	started := time.Now()
	r, err := lg.Warm(t.Context(), WarmOptions{
		Mapping: lg.set.All()[0], Parallel: 4, Rate: most,
		Progress: func(s WarmStats) {
			if allowed := most/warmSteps + most*time.Since(started).Seconds(); float64(s.Rows) > allowed+1 {
				t.Errorf("%d rows, allowed are %.1f", s.Rows, allowed)
			}
		},
	})
	if err != nil || r.Cached != 1000 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A failure tells where to go on, and leaves no lease behind.
func TestWarmFails(t *testing.T) {
	t.Run("mysql", func(t *testing.T) {
		lg := users(t, loaderSetup{})
		batches := 0
		r, err := lg.Warm(t.Context(), WarmOptions{Mapping: lg.set.All()[0], Parallel: 1, Progress: func(WarmStats) {
			if batches++; batches == 2 {
				lg.on(HookGranted, func() { lg.mysql.Exec(lg.db, "RENAME TABLE users TO others") })
			}
		}})
		if err == nil || !strings.Contains(err.Error(), "mysql: ") || string(r.Last) != fmt.Sprint("user:", 2*warmKeys) || r.Cached != 2*warmKeys {
			t.Errorf("%+v, %v", r, err)
		}
		if keys := lg.rdb.Keys(t.Context(), "keyrow:aux:*").Val(); len(keys) > 0 {
			t.Errorf("left over: %q", keys)
		}
		lg.mysql.Exec(lg.db, "RENAME TABLE others TO users")
		r, err = lg.Warm(t.Context(), WarmOptions{Mapping: lg.set.All()[0], Parallel: 3, From: r.Last})
		if err != nil || r.Cached != 1000-2*warmKeys || r.Present != 1 {
			t.Errorf("the rest: %+v, %v", r, err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		lg := users(t, loaderSetup{})
		ctx, stop := context.WithCancel(t.Context())
		lg.on(HookGranted, stop)
		r, err := lg.Warm(ctx, WarmOptions{Mapping: lg.set.All()[0], Parallel: 1})
		if err == nil || r.Last != nil || r.Rows != 0 {
			t.Errorf("%+v, %v", r, err)
		}
		if keys := lg.rdb.Keys(t.Context(), "*").Val(); len(keys) > 0 {
			t.Errorf("left over: %q", keys)
		}
	})
	t.Run("a row", func(t *testing.T) {
		lg := users(t, loaderSetup{tables: "ALTER TABLE users MODIFY name VARCHAR(50) CHARACTER SET latin1, ADD j JSON;" +
			"SET check_constraint_checks = 0; UPDATE users SET j = 'x' WHERE id IN (7, 300)"})
		r, err := lg.Warm(t.Context(), WarmOptions{Mapping: lg.set.All()[0], Parallel: 2})
		if err != nil || r.Cached != 998 || r.Failed != 2 || len(r.Reasons) != 2 || !strings.Contains(strings.Join(r.Reasons, " "), `"user:7": `) {
			t.Errorf("%+v, %v", r, err)
		}
	})
	for _, policy := range []string{"noeviction", "volatile-lru"} {
		t.Run(policy, func(t *testing.T) {
			lg := users(t, loaderSetup{redis: []string{"--maxmemory", "3mb", "--maxmemory-policy", policy}})
			lg.mysql.Exec(lg.db, "ALTER TABLE users MODIFY name VARCHAR(5000); UPDATE users SET name = REPEAT('x', 5000)")
			lg.rdb.Set(t.Context(), "theirs", "x", time.Hour)
			r, err := lg.Warm(t.Context(), WarmOptions{Mapping: lg.set.All()[0], Parallel: 1})
			if err == nil || !strings.Contains(err.Error(), "maxmemory") || r.Cached == 0 || r.Cached == 1000 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// Rows of every kind are warmed, and the result of a query that has one key.
func TestWarmKinds(t *testing.T) {
	hash, text := usersMapping(), usersMapping()
	hash.Name, hash.Key, hash.Value, hash.Write = "hash", "hash:{id}", "hash", "deny"
	text.Name, text.Key, text.Value, text.Column, text.Write = "text", "text:{id}", "string", "name", "deny"
	all := mapping.DefaultQuery()
	all.Name, all.Key, all.SQL, all.Value = "all", "all{{}}", "SELECT name, id FROM users", "zset"
	lg := users(t, loaderSetup{mappings: []mapping.Config{hash, text}, queries: []mapping.QueryConfig{all}})
	lg.mysql.Exec(lg.db, "ALTER TABLE users MODIFY name VARCHAR(50); UPDATE users SET name = NULL WHERE id = 3")
	warm := func(m *mapping.Mapping, want WarmStats) {
		t.Helper()
		if r, err := lg.Warm(t.Context(), WarmOptions{Mapping: m, Parallel: 2}); err != nil || r.WarmStats != want {
			t.Errorf("%s: %+v, %v, want %+v", m.Name, r, err, want)
		}
	}
	warm(lg.set.All()[0], WarmStats{Rows: 1000, Cached: 1000})
	warm(lg.set.All()[1], WarmStats{Rows: 1000, Cached: 999, Absent: 1})
	warm(lg.set.Queries()[0], WarmStats{Rows: 1, Cached: 1})
	warm(lg.set.Queries()[0], WarmStats{Rows: 1, Present: 1})
	ctx := t.Context()
	if got := lg.rdb.HGetAll(ctx, "hash:2").Val(); fmt.Sprint(got) != "map[id:2 name:n2]" {
		t.Error(got)
	}
	lg.inRedis("text:1000", "n1000")
	if n := lg.rdb.ZCard(ctx, "all{}").Val(); n != 999 {
		t.Errorf("%d members", n)
	}
}

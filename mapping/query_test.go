package mapping

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseStatement(t *testing.T) {
	for _, test := range []struct{ sql, vars, want string }{
		{"SELECT 1", "", "SELECT 1 []"},
		{" (select 1);\n", "", " (select 1) []"},
		{"WITH q AS (SELECT 1) SELECT * FROM q", "", "WITH q AS (SELECT 1) SELECT * FROM q []"},
		{"SELECT {b}, {a}, {b}", "a b", "SELECT ?, ?, ? [1 0 1]"},
		{"SELECT {{d '2024-01-01'}}, {a}", "a", "SELECT {d '2024-01-01'}, ? [0]"},
		{"SELECT '{x} ? '' \\' ;', \"{x}\"\"?\", `{x}?``` , {a}", "a", "SELECT '{x} ? '' \\' ;', \"{x}\"\"?\", `{x}?``` , ? [0]"},
		{"/* {x} ? */ SELECT 1 -- {x} ? ;\n, {a} # {x} ' ;", "a", "/* {x} ? */ SELECT 1 -- {x} ? ;\n, ? # {x} ' [0]"},
		{"SELECT 1--{a}", "a", "SELECT 1--? [0]"},
		{"SELECT {a} --", "a", "SELECT ? -- [0]"},
		{"", "", "!offset 0: empty; want a SELECT"},
		{"-- nothing", "", "!offset 10: empty"},
		{"DELETE FROM t", "", "!offset 0: not a SELECT; a query only reads"},
		{"-- x\n update t", "", "!offset 6: not a SELECT"},
		{"SELECT 1; SELECT 2", "", "!offset 8: a second statement"},
		{"SELECT ?", "", "!offset 7: a ?; write {name}"},
		{"SELECT {a", "a", "!offset 7: a { without }"},
		{"SELECT a}", "a", "!offset 8: a } without {"},
		{"SELECT {x}", "a", "!offset 7: the key has no variable {x}"},
		{"SELECT {}", "a", "!offset 7: the key has no variable {}"},
		{"SELECT 1", "a", "!offset 8: {a} of the key does not stand in it"},
		{"SELECT '{a}'", "a", "!offset 12: {a} of the key does not"},
		{"SELECT 'x", "", "!offset 7: a ' without another"},
		{"SELECT 'x\\'", "", "!offset 7: a ' without another"},
		{"SELECT `x\\", "", "!offset 7: a ` without another"},
		{"SELECT 1 /* x", "", "!offset 9: a /* without */"},
	} {
		s, err := parseStatement(test.sql, strings.Fields(test.vars))
		if want, bad := strings.CutPrefix(test.want, "!"); bad {
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%q: %v, want %s", test.sql, err, want)
			}
		} else if err != nil || fmt.Sprint(s.text, " ", s.args) != test.want {
			t.Errorf("%q: %+v, %v; want %s", test.sql, s, err, test.want)
		}
	}
}

// ranking is a query with a key of two variables.
func ranking() QueryConfig {
	q := DefaultQuery()
	q.Name, q.Key, q.Value = "ranking", "rank:{country}:{page}", "zset"
	q.SQL = "SELECT id, score FROM users WHERE country = {country} LIMIT {page}"
	q.Variables = map[string]string{"country": "users.country", "page": "integer"}
	return q
}

func TestValidateQueries(t *testing.T) {
	if err := Validate(nil, []QueryConfig{ranking()}); err != nil {
		t.Fatal(err)
	}
	user := Default()
	user.Name, user.Key, user.Table = "user", "user:{id}", "users"
	for _, test := range []struct {
		change func(q *QueryConfig)
		want   string
	}{
		{func(q *QueryConfig) { q.Name = "" }, `query[0]: name: missing; name the query`},
		{func(q *QueryConfig) { q.OnRedisDown, q.Value = "mysql", "zset" }, `query "ranking": on_redis_down: "mysql" answers GET, MGET and HGETALL, none of which reads a zset; use "error"`},
		{func(q *QueryConfig) { q.TTL, q.Stale = 0, time.Minute }, `query "ranking": stale_while_error: is the time after ttl`},
		{func(q *QueryConfig) { q.MaxSelects = 1e10 }, `query "ranking": max_selects: 1e+10/s is out of range`},
		{func(q *QueryConfig) { q.Name = "user" }, `query "user": name: used by an earlier mapping or query`},
		{func(q *QueryConfig) { q.Key = "user:1" }, `query "ranking": key: "user:1" and the "user:{id}" of mapping "user" can both match the key "user:1"`},
		{func(q *QueryConfig) { q.Key = "rank:{" }, `query "ranking": key: offset 5: a { without }`},
		{func(q *QueryConfig) { q.Key = "" }, `query "ranking": key: offset 0: empty`},
		{func(q *QueryConfig) { q.SQL = "UPDATE t" }, `query "ranking": sql: offset 0: not a SELECT`},
		{func(q *QueryConfig) { q.Key = "rank" }, `query "ranking": variables: the key has no variable {country}; remove it`},
		{func(q *QueryConfig) { q.Variables = map[string]string{"page": "integer"} }, `query "ranking": variables: {country} is missing; name a column`},
		{func(q *QueryConfig) { q.Variables["page"] = "int" }, `query "ranking": variables: page: "int" is neither a column`},
		{func(q *QueryConfig) { q.Variables["page"] = "a.b.c.d" }, `query "ranking": variables: page: "a.b.c.d" is neither a column`},
		{func(q *QueryConfig) { q.Value = "string" }, `query "ranking": value: "string" is unknown; use json or hash or list or set or zset`},
		{func(q *QueryConfig) { q.TTL = -1 }, `query "ranking": ttl: -1ns is out of range`},
	} {
		q := ranking()
		test.change(&q)
		err := Validate([]Config{user}, []QueryConfig{q})
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
	plain := ranking()
	plain.Key, plain.SQL, plain.Variables = "rank", "SELECT 1, 2", nil
	other := plain
	other.Name, other.Key = "other", "ranks"
	if err := Validate(nil, []QueryConfig{plain, other}); err != nil {
		t.Error(err)
	}
	other.Key = "rank"
	if err := Validate(nil, []QueryConfig{plain, other}); err == nil || !strings.Contains(err.Error(), `can both match the key "rank"`) {
		t.Error(err)
	}
	for key, want := range map[string]bool{"keyrow": false, "keyrow:x": true, "keyrow:{a}": true, "key{a}": true, "keyrow:": true} {
		if q := (QueryConfig{Key: key}); q.Overlaps("keyrow:") != want {
			t.Errorf("%s: %v", key, !want)
		}
	}
}

// results is a schema with the result of a query, whose columns are "name type".
func results(q *QueryConfig, columns ...string) Schema {
	s := users(notNull(typed("id", "int(11)")), typed("country", "varchar(9)"), typed("doc", "text"))
	t := &Table{}
	for _, c := range columns {
		name, columnType, _ := strings.Cut(c, " ")
		t.Columns = append(t.Columns, typed(name, columnType))
	}
	s[q.SQL] = t
	return s
}

func TestQueryFindings(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(q *QueryConfig)
		columns string
		want    string // the start of the only finding; empty: none
	}{
		{"good", nil, "id int(11);score double", ""},
		{"no table", func(q *QueryConfig) { q.Variables["country"] = "shop.users.country" }, "id int(11);score int(11)",
			`error: query "ranking": variables: country: there is no table "shop.users"`},
		{"no column", func(q *QueryConfig) { q.Variables["country"] = "users.Country" }, "id int(11);score int(11)",
			`error: query "ranking": variables: country: the table users has no column "Country"; write it "country"; name another column`},
		{"no key", func(q *QueryConfig) { q.Variables["country"] = "users.doc" }, "id int(11);score int(11)",
			`error: query "ranking": variables: country: a text column cannot be in a key`},
		{"three", nil, "id int(11);score int(11);x int(11)",
			`error: query "ranking": sql: its rows have 3 columns; those of value = "zset" have 2: the member and its score`},
		{"a score of text", nil, "id int(11);score varchar(9)", `error: query "ranking": sql: column "score": the score has to be a number, and this is varchar`},
		{"a document as score", nil, "id int(11);score json", `error: query "ranking": sql: column "score": the score has to be a number`},
		{"one for a hash", func(q *QueryConfig) { q.Value = "hash" }, "id int(11)", `error: query "ranking": sql: its rows have 1 columns; those of value = "hash" have 2: the field and its value`},
		{"two for a list", func(q *QueryConfig) { q.Value = "list" }, "id int(11);x int(11)", `error: query "ranking": sql: its rows have 2 columns; those of value = "list" have 1: the element`},
		{"two for a set", func(q *QueryConfig) { q.Value = "set" }, "id int(11);x int(11)", `error: query "ranking": sql: its rows have 2 columns; those of value = "set" have 1: the member`},
		{"the same name", func(q *QueryConfig) { q.Value = "json" }, "id int(11);id int(11)", `error: query "ranking": sql: column "id" stands twice; give one of them another name with AS`},
		{"spatial", func(q *QueryConfig) { q.Value = "json" }, "at point", `error: query "ranking": sql: column "at": the spatial type point`},
	} {
		q := ranking()
		if test.change != nil {
			test.change(&q)
		}
		schema := results(&q, strings.Split(test.columns, ";")...)
		schema["users"].Columns[1].Collation = "utf8mb4_nopad_bin"
		set, found := NewSet(nil, []QueryConfig{q}, schema)
		switch {
		case test.want == "" && (set == nil || len(found) > 0):
			t.Errorf("%s: %v", test.name, found)
		case test.want != "" && (set != nil || len(found) != 1 || !strings.HasPrefix(found[0].String(), test.want)):
			t.Errorf("%s: %v, want %s", test.name, found, test.want)
		}
	}
	q := ranking()
	schema := results(&q, "id int(11)", "score int(11)")
	schema["users"].Columns[1].Collation = "utf8mb4_general_ci"
	if set, found := NewSet(nil, []QueryConfig{q}, schema); set == nil || len(found) != 1 ||
		!strings.HasPrefix(found[0].String(), `warning: query "ranking": variables: country: the collation of users.country takes values that differ in case`) {
		t.Error(found)
	}
	schema[q.SQL] = &Table{Problem: "mysql does not run it: no such column"}
	if set, found := NewSet(nil, []QueryConfig{q}, schema); set != nil || found[0].String() != `error: query "ranking": sql: mysql does not run it: no such column` {
		t.Error(found)
	}
	schema["users"].Columns[1].Collation = "utf8mb4_nopad_bin"
	schema[q.SQL] = &Table{Doubt: "out of range"}
	if set, found := NewSet(nil, []QueryConfig{q}, schema); set == nil || len(found) != 1 || !strings.HasPrefix(found[0].String(), `warning: query "ranking": sql: its columns are not known, for it could not be tried with made-up values: out of range`) {
		t.Error(found)
	}
}

// query compiles one query.
func query(t testing.TB, q QueryConfig, columns ...string) *Mapping {
	t.Helper()
	if err := Validate(nil, []QueryConfig{q}); err != nil {
		t.Fatal(err)
	}
	set, found := NewSet(nil, []QueryConfig{q}, results(&q, columns...))
	if set == nil {
		t.Fatal(found)
	}
	if len(set.All()) != 0 || len(set.Queries()) != 1 {
		t.Error("a query among the mappings")
	}
	return set.Queries()[0]
}

func TestQueryKeys(t *testing.T) {
	q := ranking()
	m := query(t, q, "id int(11)", "score int(11)")
	set, _ := NewSet(nil, []QueryConfig{q}, results(&q, "id int(11)", "score int(11)"))
	for _, test := range []struct{ key, want string }{ // want: the arguments; empty: no result
		{"rank:de:1", "[de 1]"},
		{"rank:d:e:1", "[d:e 1]"},
		{"rank:de:18446744073709551615", "[de 18446744073709551615]"},
		{"rank:de:-9223372036854775808", "[de -9223372036854775808]"},
		{"rank:de:01", ""},
		{"rank:de:+1", ""},
		{"rank:de:-0", ""},
		{"rank:de:1.0", ""},
		{"rank:de:18446744073709551616", ""},
		{"rank:de:x", ""},
		{"rank:0123456789:1", ""},
		{"rank:\xff:1", ""},
	} {
		key := []byte(test.key)
		if set.Match(key) == nil || set.MatchRow(key) != nil {
			t.Errorf("%q: not found, or found to be a row", test.key)
		}
		args, err := m.StatementArgs(key)
		if (err == nil) != m.Names(key) || (test.want == "") != (err != nil) || err == nil && fmt.Sprint(args) != test.want {
			t.Errorf("%q: %v, %v, %v; want %s", test.key, args, err, m.Names(key), test.want)
		}
	}
	if m.Statement() != "SELECT id, score FROM users WHERE country = ? LIMIT ?" || !m.Deny || m.String() != `query "ranking"` {
		t.Errorf("%+v", m)
	}

	q.Key, q.SQL, q.Variables = "rank", "SELECT 1 AS a, 2 AS b", nil
	set, found := NewSet(nil, []QueryConfig{q}, results(&q, "a int(11)", "b int(11)"))
	if set == nil {
		t.Fatal(found)
	}
	for key, want := range map[string]bool{"rank": true, "ran": false, "ranks": false, "": false} {
		m := set.Match([]byte(key))
		if (m != nil) != want || want && !m.Names([]byte(key)) {
			t.Errorf("%q: %v", key, m)
		}
	}
	if args, err := set.Queries()[0].StatementArgs([]byte("rank")); err != nil || len(args) != 0 {
		t.Error(args, err)
	}
}

func TestQueryProbe(t *testing.T) {
	q := ranking()
	text, args, err := q.Probe(results(&q))
	if err != nil || text != "SELECT id, score FROM users WHERE country = ? LIMIT ?" || fmt.Sprint(args) != "[<nil> 1]" {
		t.Error(text, args, err)
	}
	if got := Tables([]Config{{Table: "shop.a"}}, []QueryConfig{q}); fmt.Sprint(got) != "[shop.a users]" {
		t.Error(got)
	}
}

func TestResult(t *testing.T) {
	for _, test := range []struct{ value, columns, row, want string }{ // in row and want: | between, NULL; want: ! an error
		{"zset", "m varchar(9);s int(11)", "x|7", "7|x"},
		{"zset", "m blob;s decimal(10,2)", "\xff|-1.50", "-1.50|\xff"},
		{"zset", "m int(11);s double", "7|1e-07", "1e-07|7"},
		{"zset", "m varchar(9);s int(11)", "x|NULL", ""},
		{"zset", "m varchar(9);s int(11)", "NULL|7", ""},
		{"zset", "m varchar(9);s bit(9)", "x|\x01\x02", "258|x"},
		{"hash", "f varchar(9);v varchar(9)", "|", "|"},
		{"hash", "f varchar(9);v varchar(9)", "x|NULL", ""},
		{"list", "e float", "0.1", "0.1"},
		{"list", "e bigint(20)", "18446744073709551615", "18446744073709551615"},
		{"list", "e null", "NULL", ""},
		{"set", "m datetime(3)", "2024-01-01 00:00:00.100", "2024-01-01 00:00:00.100"},
		{"set", "m text", "\xff", `!column "m": not valid UTF-8`},
		{"json", "a int(11);b varchar(9);c blob;d json;é\" decimal(3,1)", "1|\"x\n|\xff|[1, 2]|1.0", `{"a":1,"b":"\"x\n","c":"/w==","d":[1, 2],"é\"":1.0}`},
		{"json", "a int(11);b varchar(9)", "NULL|", `{"a":null,"b":""}`},
		{"json", "a text", "\xff", `!column "a": not valid UTF-8`},
	} {
		q := ranking()
		q.Value = test.value
		m := query(t, q, strings.Split(test.columns, ";")...)
		result, err := m.Result(results(&q, strings.Split(test.columns, ";")...)[q.SQL].Columns)
		if err != nil {
			t.Fatal(err)
		}
		var row [][]byte
		for _, text := range strings.Split(test.row, "|") {
			if text == "NULL" {
				row = append(row, nil)
			} else {
				row = append(row, []byte(text))
			}
		}
		values, err := result.Values(nil, row)
		if want, bad := strings.CutPrefix(test.want, "!"); bad {
			if err == nil || err.Error() != want || values != nil {
				t.Errorf("%s %q: %q, %v", test.value, test.row, values, err)
			}
			continue
		}
		var got []string
		for _, v := range values {
			got = append(got, string(v))
		}
		if err != nil || strings.Join(got, "|") != test.want {
			t.Errorf("%s %q: %q, %v; want %q", test.value, test.row, got, err, test.want)
		}
	}
}

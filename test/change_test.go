package test

import (
	"fmt"
	"strings"
	"testing"

	"keyrow/test/harness"
)

const changeTables = `
CREATE TABLE things (
	id     BIGINT NOT NULL PRIMARY KEY,
	name   VARCHAR(12),
	n      BIGINT,
	small  TINYINT UNSIGNED NOT NULL DEFAULT 7,
	price  DECIMAL(10,2),
	ratio  DOUBLE,
	data   VARBINARY(16),
	kind   ENUM('1', '2', 'x'),
	made   TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
	note   VARCHAR(20) DEFAULT 'none',
	seen   DATETIME DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE people (
	id    BIGINT NOT NULL PRIMARY KEY,
	name  VARCHAR(20) NOT NULL,
	score BIGINT
);`

const changeConfig = `
[[mapping]]
name = "thing"
key = "thing:{id}"
table = "things"
value = "hash"

[[mapping]]
name = "flat"
key = "flat:{id}"
table = "things"
value = "hash"
columns = ["id", "name", "n", "small", "data"]
delete = "row"

[[mapping]]
name = "doc"
key = "doc:{id}"
table = "things"
columns = ["id", "name", "n"]

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
name = "data"
key = "data:{id}"
table = "things"
value = "string"
column = "data"
negative_ttl = "0"

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

[[mapping]]
name = "score"
key = "score:{id}"
table = "people"
value = "string"
column = "score"
`

var changeRows = []harness.Rows{
	{Pattern: "thing:{id}", Table: "things", Value: "hash"},
	{Pattern: "flat:{id}", Table: "things", Value: "hash", Columns: []string{"id", "name", "n", "small", "data"}},
	{Pattern: "doc:{id}", Table: "things", Columns: []string{"id", "name", "n"}},
	{Pattern: "name:{id}", Table: "things", Value: "string", Column: "name"},
	{Pattern: "n:{id}", Table: "things", Value: "string", Column: "n"},
	{Pattern: "data:{id}", Table: "things", Value: "string", Column: "data"},
	{Pattern: "price:{id}", Table: "things", Value: "string", Column: "price"},
	{Pattern: "ratio:{id}", Table: "things", Value: "string", Column: "ratio"},
	{Pattern: "score:{id}", Table: "people", Value: "string", Column: "score"},
}

// openChanges is a process with mappings of every kind that is written.
func openChanges(t *testing.T, o harness.Options) *shop {
	t.Helper()
	return openTables(t, changeTables, changeConfig, o)
}

func (s *shop) restChanges(parked ...string) {
	s.t.Helper()
	s.Settled(parked...)
	s.Equal(changeRows...)
}

// Rows that are hashes and strings are written column by column, and what is not written stays as it is.
func TestWriteHashesAndStrings(t *testing.T) {
	t.Parallel()
	s := openChanges(t, harness.Options{})
	s.sql("INSERT INTO things (id, name, n, price, note) VALUES (1, 'Ada', 5, 12.5, 'old')")
	s.want("0", "HSET", "thing:1", "name", "Eve", "small", "9")
	s.want("1", "HSET", "thing:1", "ratio", "2.50", "n", "6")
	s.want("[Eve 2.5 12.50 nil old]", "HMGET", "thing:1", "name", "ratio", "price", "data", "note")
	s.want("OK", "HMSET", "thing:1", "data", "\x00\xff", "kind", "x")
	s.want("2", "HDEL", "thing:1", "price", "note", "nothing")

	// Made, with defaults.
	s.want("2", "HSET", "thing:2", "name", "New", "price", "1")
	s.want("[2 New 7 1.00 none]", "HMGET", "thing:2", "id", "name", "small", "price", "note")
	s.want("1", "HINCRBY", "thing:3", "small", "1")

	s.want("OK", "SET", "name:4", "Four")
	s.want("OK", "SET", "price:4", "4.5")
	s.want("4.50", "GET", "price:4")
	s.want("OK", "MSET", "name:5", "Five", "doc:6", `{"n":6}`, "plain", "x", "ratio:5", "1e-7")
	s.restChanges()
	if got := fmt.Sprintf("%q", s.table("SELECT id, name, n, small, price, ratio, data, kind, note, made IS NOT NULL AND seen IS NOT NULL FROM things ORDER BY id")); got !=
		`[["1" "Eve" "6" "9" "NULL" "2.5" "\x00\xff" "x" "NULL" "1"] ["2" "New" "NULL" "7" "1.00" "NULL" "NULL" "NULL" "none" "1"] `+
			`["3" "NULL" "NULL" "1" "NULL" "NULL" "NULL" "NULL" "none" "1"] ["4" "Four" "NULL" "7" "4.50" "NULL" "NULL" "NULL" "none" "1"] `+
			`["5" "Five" "NULL" "7" "NULL" "1e-07" "NULL" "NULL" "none" "1"] ["6" "NULL" "6" "7" "NULL" "NULL" "NULL" "NULL" "none" "1"]]` {
		t.Errorf("things are %s", got)
	}
}

// MSETNX writes all rows or none, whether they are in Redis or only in MySQL.
func TestMsetnxOfRows(t *testing.T) {
	t.Parallel()
	s := openChanges(t, harness.Options{})
	s.sql("INSERT INTO things (id, name) VALUES (1, 'Ada')")
	s.want("0", "MSETNX", "n:2", "2", "name:1", "x", "plain", "x")
	s.want("0", "EXISTS", "plain", "n:2")
	s.want("1", "MSETNX", "n:2", "2", "name:2", "Bo", "data:2", "x", "plain", "x")
	s.want("0", "MSETNX", "n:3", "3", "plain", "x")
	s.want("1", "MSETNX", "n:7", "7")
	s.want("1", "DEL", "n:7")
	s.want("1", "MSETNX", "n:7", "77")
	p := dial(t, s.Addr)
	p.do("MULTI")
	p.do("MSETNX", "n:4", "4", "name:1", "x")
	p.do("MSETNX", "n:4", "5", "more", "x")
	p.do("GET", "n:4")
	if got := p.do("EXEC"); got != "*3\r\n:0\r\n:1\r\n$1\r\n5\r\n" {
		t.Errorf("EXEC is answered %q", got)
	}
	s.restChanges()
	if got := fmt.Sprint(s.table("SELECT id, name, n, data FROM things ORDER BY id")); got != "[[1 Ada NULL NULL] [2 Bo 2 x] [4 NULL 5 NULL] [7 NULL 77 NULL]]" {
		t.Errorf("things are %s", got)
	}
}

// Scripts write the rows whose keys they are given: what they make of an image goes to MySQL, and is read again where
// it is not the form that a row has.
func TestScriptsWriteRows(t *testing.T) {
	t.Parallel()
	s := openChanges(t, harness.Options{})
	s.sql("INSERT INTO things (id, name, n) VALUES (1, 'Ada', 5), (2, 'Bo', 6), (3, 'Cy', 7), (4, 'Di', 8)")
	s.want("6", "EVAL", "return redis.call('HINCRBY', KEYS[1], 'n', ARGV[1])", 1, "thing:1", 1)
	s.want("[Bo 1]", "EVAL", "return {redis.call('HGET', KEYS[1], 'name'), redis.call('HSET', KEYS[1], 'ratio', '1.50')}", 1, "thing:2")
	s.want("OK", "EVAL", `return redis.call('SET', KEYS[1], '{ "n": 33, "name":"Cyd"}')`, 1, "doc:3")
	sha := s.Must("SCRIPT", "LOAD", "return redis.call('APPEND', KEYS[2], 'x')")
	s.want("3", "EVALSHA", sha, 2, "plain", "name:4")
	s.Must("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('put', function(keys) return redis.call('SET', keys[1], '9') end)")
	s.want("OK", "FCALL", "put", 1, "n:9")
	s.want("nil", "EVAL", "return redis.call('GET', KEYS[1])", 1, "name:77")
	for _, args := range [][]any{{"EVAL", "return nosuch.thing", 1, "name:4"}, {"EVALSHA", "0000000000000000000000000000000000000000", 1, "name:4"}} {
		if got := s.show(args...); got[0] != '-' || len(got) > 5 && got[:5] == "-EXEC" {
			t.Errorf("%v: %s", args, got)
		}
	}

	// In a transaction, and under WATCH.
	p := dial(t, s.Addr)
	p.do("MULTI")
	p.do("EVAL", "return redis.call('INCR', KEYS[1])", "1", "n:4")
	p.do("INCR", "n:4")
	p.do("HINCRBY", "flat:10", "small", "3")
	if got := p.do("EXEC"); got != "*3\r\n:9\r\n:10\r\n:3\r\n" {
		t.Errorf("EXEC is answered %q", got)
	}
	p.do("WATCH", "other")
	if got := p.do("EVAL", "return redis.call('INCR', KEYS[1])", "1", "n:4") + p.do("HSET", "flat:10", "name", "W"); got != ":11\r\n:1\r\n" {
		t.Errorf("while watching: %q", got)
	}
	s.Must("SET", "other", "x")
	p.do("MULTI")
	p.do("INCR", "n:4")
	if got := p.do("EXEC"); got != "*-1\r\n" {
		t.Errorf("EXEC after a watched key has changed: %q", got)
	}
	s.restChanges()
	if got := fmt.Sprint(s.table("SELECT id, name, n, ratio FROM things ORDER BY id")); got !=
		"[[1 Ada 6 NULL] [2 Bo 6 1.5] [3 Cyd 33 NULL] [4 Dix 11 NULL] [9 NULL 9 NULL] [10 W NULL NULL]]" {
		t.Errorf("things are %s", got)
	}
	s.want(`{"id":3,"name":"Cyd","n":33}`, "GET", "doc:3")
	s.want("1.5", "HGET", "thing:2", "ratio")
	s.restChanges()
}

// What cannot be stored is refused, by name, and changes nothing.
func TestRefusedChanges(t *testing.T) {
	t.Parallel()
	s := openChanges(t, harness.Options{})
	s.sql("INSERT INTO things (id, name, n, small, price) VALUES (1, 'Ada', 5, 250, 99999999.50)")
	s.sql("INSERT INTO people VALUES (1, 'Ada', 5)")
	for _, key := range []string{"thing:1", "n:1", "name:1", "price:1", "doc:1"} {
		s.want("1", "EXISTS", key)
	}
	s.unchanged("refused changes", func() {
		for _, test := range []struct {
			word string
			args []any
		}{
			{`no field "nosuch"`, []any{"HSET", "thing:1", "nosuch", "x"}},
			{`no field "nosuch"`, []any{"HINCRBY", "thing:1", "nosuch", 1}},
			{`no field "nosuch"`, []any{"HSETNX", "thing:1", "nosuch", 1}},
			{`column "name"`, []any{"HSET", "thing:1", "n", "1", "name", "thirteen char"}},
			{`the key says "1"`, []any{"HSET", "thing:1", "id", "2"}},
			{`the key says "1"`, []any{"HINCRBY", "thing:1", "id", "2"}},
			{`HINCRBY of "thing:1" would be 256, and the column takes 0 to 255; nothing was changed`, []any{"HINCRBY", "thing:1", "small", 6}},
			{`would be -1, and the column takes`, []any{"HINCRBY", "thing:1", "small", -251}},
			{`would be 100000000.00, and the column takes -99999999.99 to 99999999.99`, []any{"INCRBYFLOAT", "price:1", "0.5"}},
			{`3 fraction digits, at most 2`, []any{"INCRBYFLOAT", "price:1", "0.001"}},
			{`column "small": it is NOT NULL`, []any{"HDEL", "thing:1", "name", "small"}},
			{`its default is an expression`, []any{"HDEL", "thing:1", "seen"}},
			{`12`, []any{"APPEND", "name:1", "0123456789"}},
			{"UTF-8", []any{"SETRANGE", "name:1", 0, "\xff"}},
			{`column "n"`, []any{"SET", "n:1", "x", "NX"}},
			{`not a number`, []any{"GETSET", "n:1", "null"}},
			{"HSET its fields instead", []any{"INCR", "thing:1"}},
			{"HSET", []any{"SET", "thing:1", "x"}},
			{"HSET", []any{"SET", "thing:1", "x", "XX"}},
			{"HSET", []any{"MSET", "thing:1", "x"}},
			{"SET its value instead", []any{"HSET", "n:1", "f", "x"}},
			{"SET the whole row instead", []any{"APPEND", "doc:1", "x"}},
			{"read the row and write the other key instead", []any{"RENAME", "n:1", "x"}},
			{"store to another key instead", []any{"SORT", "list", "STORE", "n:1"}},
		} {
			s.refused([]string{"-ERR keyrow: ", test.word}, test.args...)
		}
		p := dial(t, s.Addr)
		p.do("MULTI")
		if got := p.do("APPEND", "name:1", "x"); got[:12] != "-ERR keyrow:" {
			t.Errorf("APPEND inside MULTI is answered %q", got)
		}
		p.do("EXEC")
		p.do("MULTI")
		p.do("HINCRBY", "thing:1", "small", "100")
		if got := p.do("EXEC"); got[:16] != "*1\r\n-ERR keyrow:" {
			t.Errorf("a sum out of range in EXEC is answered %q", got)
		}
	})
	// A row that cannot be made: its name is missing.
	s.want("OK", "SET", "score:1", "6")
	s.want("OK", "SET", "score:2", "7")
	s.restChangesBut("score:2")
	if got := fmt.Sprint(s.table("SELECT * FROM people")); got != "[[1 Ada 6]]" {
		t.Errorf("people are %s", got)
	}
	s.sql("INSERT INTO people (id, name) VALUES (2, 'Bo')")
	s.want("8", "INCR", "score:2")
	s.restChanges()
}

// restChangesBut is restChanges where the row of a parked key is not there.
func (s *shop) restChangesBut(parked string) {
	s.t.Helper()
	s.Settled(parked)
	s.Equal(changeRows[:len(changeRows)-1]...)
}

// Who may not run a command, or not all that it takes, gets Redis's answer, and changes nothing; nor does a command that
// Redis has no memory for.
func TestChangesAndRights(t *testing.T) {
	t.Parallel()
	s := openChanges(t, harness.Options{})
	s.sql("INSERT INTO things (id, name, n) VALUES (1, 'Ada', 5)")
	for user, rights := range map[string]string{
		"noincr": "~* +@all -incr -hset -msetnx -eval -evalsha", "nojournal": "~n:* ~thing:* +@all", "noscript": "~* +@all -eval -evalsha", "nothing": "~plain +@all",
	} {
		s.Redis.Do(append([]any{"ACL", "SETUSER", user, "on", ">x"}, anys(strings.Fields(rights))...)...)
	}
	for _, key := range []string{"n:1", "thing:1"} {
		s.want("1", "EXISTS", key)
	}
	s.unchanged("changes by users who may not", func() {
		for user, want := range map[string]string{
			"noincr": "-NOPERM this user has no permissions to run the 'incr' command", "nojournal": "-ERR", "noscript": "-NOPERM this user has no permissions to run the 'evalsha' command",
			"nothing": "-NOPERM this user has no permissions to access one of the keys",
		} {
			p := dial(t, s.Addr)
			p.do("AUTH", user, "x")
			if got := p.do("INCR", "n:1"); !strings.HasPrefix(got, want) {
				t.Errorf("%s: INCR is answered %q", user, got)
			}
			if got := p.do("HSET", "thing:1", "n", "9"); got[0] != '-' {
				t.Errorf("%s: HSET is answered %q", user, got)
			}
			if got := p.do("EVAL", "return redis.call('INCR', KEYS[1])", "1", "n:1"); got[0] != '-' {
				t.Errorf("%s: EVAL is answered %q", user, got)
			}
		}
	})
	s.Redis.Do("CONFIG", "SET", "maxmemory", "1")
	s.unchanged("changes without memory", func() {
		for _, args := range [][]any{{"INCR", "n:1"}, {"HSET", "thing:1", "n", 7}, {"APPEND", "name:1", "x"}, {"SET", "n:1", 7, "XX"}, {"MSETNX", "n:9", 1}} {
			if got := s.show(args...); got[0] != '-' {
				t.Errorf("%v: %s", args, got)
			}
		}
	})
	s.Redis.Do("CONFIG", "SET", "maxmemory", "0")
	s.want("1", "DEL", "thing:1") // the other copy of the row
	s.want("6", "INCR", "n:1")
	s.restChanges()
}

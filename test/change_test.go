package test

import (
	"fmt"
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
	note   VARCHAR(20) DEFAULT 'none'
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
	o.Config = changeConfig
	o.MySQL = harness.SharedMySQL(t)
	o.DB = o.MySQL.NewDB(t)
	o.MySQL.Exec(o.DB, changeTables)
	return openShop(t, o)
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
	if got := fmt.Sprintf("%q", s.table("SELECT id, name, n, small, price, ratio, data, kind, note, made IS NOT NULL FROM things ORDER BY id")); got !=
		`[["1" "Eve" "6" "9" "NULL" "2.5" "\x00\xff" "x" "NULL" "1"] ["2" "New" "NULL" "7" "1.00" "NULL" "NULL" "NULL" "none" "1"] `+
			`["3" "NULL" "NULL" "1" "NULL" "NULL" "NULL" "NULL" "none" "1"] ["4" "Four" "NULL" "7" "4.50" "NULL" "NULL" "NULL" "none" "1"] `+
			`["5" "Five" "NULL" "7" "NULL" "1e-07" "NULL" "NULL" "none" "1"] ["6" "NULL" "6" "7" "NULL" "NULL" "NULL" "NULL" "none" "1"]]` {
		t.Errorf("things are %s", got)
	}
}

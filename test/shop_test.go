// Package test holds the tests of keyrow as a whole: real keyrow processes between real clients, a real Redis and a
// real MySQL. Each ends with the journal settled and every image in Redis equal to its row.
package test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// shopTables is what most tests work on.
const shopTables = `
CREATE TABLE users (
	id      BIGINT NOT NULL PRIMARY KEY,
	name    VARCHAR(20) NOT NULL,
	email   VARCHAR(100),
	age     TINYINT UNSIGNED NOT NULL DEFAULT 18,
	balance DECIMAL(10,2) NOT NULL DEFAULT 0
);
CREATE TABLE accounts (
	id   INT NOT NULL PRIMARY KEY,
	n    BIGINT NOT NULL,
	twin VARCHAR(40) NOT NULL,
	CONSTRAINT solvent CHECK (n > -1000)
);
CREATE TABLE stock (
	warehouse SMALLINT UNSIGNED NOT NULL,
	article   VARCHAR(30) COLLATE utf8mb4_bin NOT NULL,
	amount    INT NOT NULL,
	PRIMARY KEY (warehouse, article)
);
CREATE TABLE nicks (
	nick  VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL PRIMARY KEY,
	owner BIGINT
);
CREATE TABLE codes (
	code CHAR(6) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY,
	text VARCHAR(50)
);
CREATE TABLE tickets (
	id   INT NOT NULL PRIMARY KEY,
	seat VARCHAR(10)
);
CREATE TABLE audits (
	id   INT NOT NULL PRIMARY KEY,
	text VARCHAR(50)
);`

const shopConfig = `
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"

[[mapping]]
name = "account"
key = "acct:{id}"
table = "accounts"
delete = "row"

[[mapping]]
name = "stock"
key = "stock:{warehouse}:{article}"
table = "stock"

[[mapping]]
name = "nick"
key = "nick:{nick}"
table = "nicks"
delete = "row"

[[mapping]]
name = "code"
key = "code:{code}"
table = "codes"

[[mapping]]
name = "ticket"
key = "ticket:{id}"
table = "tickets"
ttl = "0"
negative_ttl = "50ms"

[[mapping]]
name = "audit"
key = "audit:{id}"
table = "audits"
write = "deny"
`

// shopRows says which keys are images of which rows, for harness.Equal.
var shopRows = []harness.Rows{
	{Pattern: "user:{id}", Table: "users"},
	{Pattern: "acct:{id}", Table: "accounts"},
	{Pattern: "stock:{warehouse}:{article}", Table: "stock"},
	{Pattern: "nick:{nick}", Table: "nicks"},
	{Pattern: "code:{code}", Table: "codes"},
	{Pattern: "ticket:{id}", Table: "tickets"},
	{Pattern: "audit:{id}", Table: "audits"},
}

// shop is a keyrow process with the tables of a shop behind it.
type shop struct {
	*harness.Keyrow
	t      testing.TB
	prefix string // of keyrow's own keys
	opened harness.Options
}

// openShop starts keyrow. Whatever o leaves open is set up for it: a Redis, a database with shopTables, shopConfig.
func openShop(t testing.TB, o harness.Options) *shop {
	t.Helper()
	s := newShop(t, o)
	s.Start()
	return s
}

// openTables is openShop with these tables.
func openTables(t testing.TB, tables, config string, o harness.Options) *shop {
	t.Helper()
	if o.MySQL == nil {
		o.MySQL = harness.SharedMySQL(t)
	}
	o.DB = o.MySQL.NewDB(t)
	o.MySQL.Exec(o.DB, tables)
	o.Config = config
	return openShop(t, o)
}

// newShop is openShop without the start.
func newShop(t testing.TB, o harness.Options) *shop {
	t.Helper()
	if o.Redis == nil {
		o.Redis = harness.StartRedis(t)
	}
	if o.MySQL == nil {
		o.MySQL = harness.SharedMySQL(t)
	}
	if o.DB == "" {
		o.DB = o.MySQL.NewDB(t)
		o.MySQL.Exec(o.DB, shopTables)
	}
	if o.Config == "" {
		o.Config = shopConfig
	}
	o.Set = maps.Clone(o.Set)
	if o.Set == nil {
		o.Set = map[string]string{}
	}
	// The locks of a journal are named after its prefix and belong to the whole server, which tests share.
	if o.Set["journal.prefix"] == "" {
		o.Set["journal.prefix"] = "keyrow-" + o.DB
	}
	return &shop{Keyrow: harness.NewKeyrow(t, o), t: t, prefix: o.Set["journal.prefix"], opened: o}
}

// second starts another keyrow process beside s.
func (s *shop) second(hooks *harness.Hooks) *shop {
	s.t.Helper()
	o := s.opened
	o.Hooks = hooks
	return openShop(s.t, o)
}

// rest is the end of a test: the journal settles, nothing but the given keys is parked, every image equals its row.
func (s *shop) rest(parked ...string) {
	s.t.Helper()
	s.Settled(parked...)
	s.same(parked...)
}

// same is rest for a keyrow that need not run. Parked keys are not compared.
func (s *shop) same(parked ...string) {
	s.t.Helper()
	aside := map[string]any{}
	for _, key := range parked {
		aside[key] = s.Redis.Do("GET", key)
		s.Redis.Do("DEL", key)
	}
	s.Equal(shopRows...)
	for key, image := range aside {
		if image != nil {
			s.Redis.Do("SET", key, image)
		}
	}
}

// sql runs statements in the shop's database.
func (s *shop) sql(query string, args ...any) {
	s.t.Helper()
	s.MySQL.Exec(s.DB, query, args...)
}

// row is the first column of a query's first row, "NULL" for NULL and "" for no row.
func (s *shop) row(query string, args ...any) string {
	s.t.Helper()
	return s.MySQL.Text(s.DB, query, args...)
}

// want runs a command and compares its reply, rendered as by show.
func (s *shop) want(reply string, args ...any) {
	s.t.Helper()
	if got := s.show(args...); got != reply {
		s.t.Errorf("%v\n got %s\nwant %s", args, got, reply)
	}
}

// show renders the reply to a command: text as it is, nil as "nil", arrays in brackets, errors after a minus sign.
func (s *shop) show(args ...any) string {
	return show(s.Do(args...))
}

func show(v any, err error) string {
	switch v := v.(type) {
	case nil:
		if err != nil {
			return "-" + err.Error()
		}
		return "nil"
	case []any:
		list := make([]string, len(v))
		for i := range v {
			list[i] = show(v[i], nil)
		}
		return "[" + strings.Join(list, " ") + "]"
	}
	return fmt.Sprint(v)
}

// refused runs a command that is answered with an error in which all of words stand.
func (s *shop) refused(words []string, args ...any) {
	s.t.Helper()
	got := s.show(args...)
	if !strings.HasPrefix(got, "-") {
		s.t.Errorf("%.200v was not refused: %s", args, got)
	}
	for _, w := range words {
		if !strings.Contains(got, w) {
			s.t.Errorf("%.200v\n got %s\nwant %q in it", args, got, w)
		}
	}
}

// info is a line of KEYROW INFO.
func (s *shop) info(name string) int64 {
	s.t.Helper()
	for line := range strings.SplitSeq(fmt.Sprint(s.Must("KEYROW", "INFO")), "\r\n") {
		if n, ok := strings.CutPrefix(line, name+":"); ok {
			v, err := strconv.ParseInt(n, 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return v
		}
	}
	s.t.Fatalf("KEYROW INFO has no line %q", name)
	return 0
}

// owns waits until the process owns all partitions.
func (s *shop) owns() {
	s.t.Helper()
	harness.Until(s.t, "the process owns all partitions", func() bool { return s.info("owned_partitions") == 4 })
}

// unchanged calls do and fails the test if anything in Redis or in the tables is another then.
func (s *shop) unchanged(what string, do func()) {
	s.t.Helper()
	before := s.state()
	do()
	after := s.state()
	for _, line := range before {
		if !slices.Contains(after, line) {
			s.t.Errorf("%s: gone: %s", what, line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			s.t.Errorf("%s: new: %s", what, line)
		}
	}
}

// state lists everything in Redis, keyrow's own keys included, and every row of every table. Fences are left out: they
// say who flushes and nothing of what there is to flush.
func (s *shop) state() []string {
	s.t.Helper()
	var list []string
	for _, name := range s.Redis.Do("KEYS", "*").([]any) {
		if strings.HasSuffix(name.(string), "}:fence") {
			continue
		}
		var value any
		switch kind := s.Redis.Do("TYPE", name); kind {
		case "string":
			value = s.Redis.Do("GET", name)
		case "zset":
			value = s.Redis.Do("ZRANGE", name, 0, -1, "WITHSCORES")
		default:
			value = s.Redis.Do("DUMP", name)
		}
		list = append(list, fmt.Sprintf("%s = %q until %v", name, value, s.Redis.Do("PEXPIRETIME", name)))
	}
	for _, table := range s.table("SHOW TABLES") {
		for _, row := range s.table("SELECT * FROM " + table[0]) {
			list = append(list, fmt.Sprintf("%s: %q", table[0], row))
		}
	}
	return list
}

// table is all of a query's result as text.
func (s *shop) table(query string) [][]string {
	s.t.Helper()
	found, err := s.MySQL.DB(s.DB).QueryContext(context.Background(), query)
	if err != nil {
		s.t.Fatal(err)
	}
	defer found.Close()
	columns, err := found.Columns()
	if err != nil {
		s.t.Fatal(err)
	}
	var rows [][]string
	for found.Next() {
		values, into := make([]*string, len(columns)), make([]any, len(columns))
		for i := range into {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			s.t.Fatal(err)
		}
		row := make([]string, len(columns))
		for i, v := range values {
			row[i] = "NULL"
			if v != nil {
				row[i] = *v
			}
		}
		rows = append(rows, row)
	}
	if err := found.Err(); err != nil {
		s.t.Fatal(err)
	}
	return rows
}

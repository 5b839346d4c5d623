package mapping

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestSucceed: what a mapping may become while it is written, what becomes of an image from before, and whether what is
// cached is dropped.
func TestSucceed(t *testing.T) {
	id, name, nick := notNull(typed("id", "int(11)")), typed("name", "varchar(10)"), typed("nick", "varchar(10)")
	made := typed("made", "timestamp")
	made.DefaultExpr = true
	tables := Schema{"users": users(id, name, nick, made)["users"], "others": users(id, name, nick, made)["users"]}
	tables["others"].Name = "others"
	only := func(columns ...string) func(*Config) { return func(c *Config) { c.Columns = columns } }
	for _, test := range []struct {
		what         string
		first, after func(c *Config)
		setting      string // what cannot change while it is written; empty: nothing
		outdated     bool
		image, row   string // of before, and what it is for the version that reads it
	}{
		{"nothing", nil, nil, "", false, `{"id":1,"name":"a","nick":"b"}`, "[1 a b DEFAULT]"},
		{"ttl", nil, func(c *Config) { c.TTL *= 2 }, "", false, "", ""},
		{"an end", func(c *Config) { c.TTL = 0 }, func(c *Config) { c.TTL = 1e9 }, "", true, "", ""},
		{"no end", nil, func(c *Config) { c.TTL = 0 }, "", false, "", ""},
		{"through", nil, func(c *Config) { c.Write = "through" }, "", false, "", ""},
		{"deny", nil, func(c *Config) { c.Write = "deny" }, "", false, "", ""},
		{"more columns", only("id", "name"), only("id", "name", "nick"), "", true, `{"id":1,"name":"a"}`, "[1 a UNCHANGED]"},
		{"fewer columns", only("id", "name", "nick"), only("id", "name"), "", true, `{"id":1,"name":"a","nick":"b"}`, "[1 a b]"},
		{"others", only("id", "name"), only("id", "nick"), "", true, `{"id":1,"name":"a"}`, "[1 a]"},
		{"order", only("id", "name", "nick"), only("id", "nick", "name"), "", true, `{"id":1,"name":"a","nick":"b"}`, "[1 b a]"},
		{"without what only MySQL knows", nil, only("id", "name"), "columns", true, "", ""},
		{"fields", only("id", "name"), func(c *Config) { only("id", "name")(c); c.Fields = map[string]string{"name": "n"} }, "fields", true, "", ""},
		{"another column of the same field", only("id", "name"), func(c *Config) { only("id", "nick")(c); c.Fields = map[string]string{"nick": "name"} },
			"fields", true, "", ""},
		{"table", nil, func(c *Config) { c.Table = "others" }, "table", true, "", ""},
		{"key", nil, func(c *Config) { c.Key = "user:{id}:x" }, "key", true, "", ""},
		{"cache", nil, func(c *Config) { c.Write = "cache" }, "write", false, "", ""},
		{"from cache", func(c *Config) { c.Write = "cache" }, nil, "", true, "", ""},
		{"hash", nil, func(c *Config) { c.Value = "hash" }, "value", true, "", ""},
		{"columns of a hash", func(c *Config) { only("id", "name")(c); c.Value = "hash" }, func(c *Config) { c.Value = "hash" }, "columns", true, "", ""},
		{"column of a string", func(c *Config) { c.Value, c.Column = "string", "name" }, func(c *Config) { c.Value, c.Column = "string", "nick" },
			"column", true, "", ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			first, after := config(), config()
			for c, change := range map[*Config]func(*Config){&first: test.first, &after: test.after} {
				if change != nil {
					change(c)
				}
			}
			set, found := NewSet([]Config{first}, nil, tables)
			if set == nil {
				t.Fatal(found)
			}
			next, found := set.Succeed([]Config{after}, nil, tables)
			if test.setting != "" {
				want := fmt.Sprintf("error: mapping \"user\": %s: it cannot change while", test.setting)
				if next != nil || !slices.ContainsFunc(found, func(f Finding) bool { return strings.HasPrefix(f.String(), want) }) {
					t.Errorf("found %v, want %s", found, want)
				}
				// Once nobody writes it, the journal must have nothing of it.
				first.Write = "deny"
				denied, found := set.Succeed([]Config{first}, nil, tables)
				if denied == nil {
					t.Fatal(found)
				}
				next, found = denied.Set.Succeed([]Config{after}, nil, tables)
				if next == nil || len(next.Emptied) != 1 {
					t.Fatal(next, found)
				}
			} else if next == nil || len(next.Emptied) > 0 {
				t.Fatal(next, found)
			}
			if got := len(next.Outdated) == 1; got != test.outdated {
				t.Errorf("outdated: %t", got)
			}
			m := next.Set.MatchRow([]byte("user:1"))
			if m == nil {
				return
			}
			if (m == set.All()[0]) != (test.what == "nothing") || m.Counts != set.All()[0].Counts || !next.Set.Has(m) {
				t.Error("the mapping, or what it counts")
			}
			if test.image == "" {
				return
			}
			var row []any
			var err error
			for _, v := range append([]*Mapping{m}, m.Earlier()...) {
				if row, err = v.RowWritten(nil, []byte("user:1"), [][]byte{[]byte(test.image)}); err == nil {
					break
				}
			}
			if fmt.Sprint(row) != test.row {
				t.Errorf("row %v, %v; want %s", row, err, test.row)
			}
		})
	}
}

func config() Config {
	c := Default()
	c.Name, c.Key, c.Table = "user", "user:{id}", "users"
	return c
}

// TestSucceedRemoved: a mapping that is removed still says what the journal has of it, and counts on once it is back.
func TestSucceedRemoved(t *testing.T) {
	tables := users(notNull(typed("id", "int(11)")), typed("name", "varchar(10)"))
	user, other := config(), config()
	other.Name, other.Key = "other", "other:{id}"
	set, _ := NewSet([]Config{user, other}, nil, tables)
	was := set.All()[0]
	was.Counts.Hits.Add(3)
	without, found := set.Succeed([]Config{other}, nil, tables)
	if without == nil {
		t.Fatal(found)
	}
	key := []byte("user:1")
	if s := without.Set; s.Match(key) != nil || s.Former(key) != was || s.All()[0] != set.All()[1] || s.Counts()["user"].Hits.Load() != 3 ||
		!slices.Contains(s.Versions(), was) || len(s.Kin(was)) != 1 || s.Kin(was)[0] != s.All()[0] {
		t.Error("the mapping is not gone, or forgotten")
	}
	renewed, _ := without.Set.Renew(users(notNull(typed("id", "int(11)")), typed("name", "varchar(10)"), typed("nick", "varchar(10)")))
	if renewed.Former(key) != was || renewed.Counts()["user"] != was.Counts {
		t.Error("it is forgotten with an ALTER TABLE of the other")
	}
	user.Columns = []string{"id"}
	back, found := without.Set.Succeed([]Config{user, other}, nil, tables)
	if back == nil {
		t.Fatal(found)
	}
	m := back.Set.Match(key)
	if m.Counts != was.Counts || len(back.Outdated) != 1 || back.Outdated[0] != m || back.Set.Former(key) != nil || m.Earlier()[0] != was {
		t.Error("it does not follow what it was")
	}
}

// TestSucceedToAndFro: versions of a mapping that make the same images are one.
func TestSucceedToAndFro(t *testing.T) {
	tables := users(notNull(typed("id", "int(11)")), typed("name", "varchar(10)"), typed("nick", "varchar(10)"))
	set, _ := NewSet([]Config{config()}, nil, tables)
	for i := range 100 {
		c := config()
		if i%2 == 0 {
			c.Columns = []string{"id", "name"}
		}
		next, found := set.Succeed([]Config{c}, nil, tables)
		if next == nil {
			t.Fatal(found)
		}
		set = next.Set
	}
	if n := len(set.All()[0].Earlier()); n != 1 {
		t.Errorf("%d earlier versions", n)
	}
}

// TestSucceedQueries: a query with another SELECT, and a query in the place of a mapping.
func TestSucceedQueries(t *testing.T) {
	q := DefaultQuery()
	q.Name, q.Key, q.Value, q.SQL = "q", "q", "list", "SELECT name FROM users"
	set, found := NewSet(nil, []QueryConfig{q}, results(&q, "name varchar(10)"))
	if set == nil {
		t.Fatal(found)
	}
	same, _ := set.Succeed(nil, []QueryConfig{q}, results(&q, "name varchar(10)"))
	if same.Set.Queries()[0] != set.Queries()[0] || same.Outdated != nil {
		t.Error("another query for nothing")
	}
	q.SQL = "SELECT nick FROM users"
	next, found := set.Succeed(nil, []QueryConfig{q}, results(&q, "nick varchar(10)"))
	if next == nil || len(next.Outdated) != 1 || next.Emptied != nil || next.Set.Queries()[0].Counts != set.Queries()[0].Counts {
		t.Error(next, found)
	}

	tables := users(notNull(typed("id", "int(11)")), typed("name", "varchar(10)"))
	rows, _ := NewSet([]Config{config()}, nil, tables)
	q.Key = "user:7"
	if next, found := rows.Succeed(nil, []QueryConfig{q}, results(&q, "nick varchar(10)")); next != nil || !strings.Contains(fmt.Sprint(found), `error: query "q": key: it cannot change while mapping "user"`) {
		t.Error(found)
	}
}

package mapping

import (
	"fmt"
	"strings"
	"testing"
)

// TestRenew: what becomes of a mapping when its table is altered, and of an image from before.
func TestRenew(t *testing.T) {
	id, name, nick := notNull(typed("id", "int(11)")), typed("name", "varchar(10)"), typed("nick", "varchar(10)")
	spot := typed("spot", "point")
	const image = `{"id":1,"name":"a","nick":"b"}` // of before
	for _, test := range []struct {
		what   string
		table  Schema
		change func(c *Config)
		row    string // of image afterwards, or the error
		told   string // the finding
	}{
		{"nothing", users(id, name, nick), nil, "[1 a b]", ""},
		{"index", altered(users(id, name, nick), func(t *Table) {
			t.Indexes = append(t.Indexes, Index{Name: "name", Columns: []string{"name"}})
		}), nil, "[1 a b]", ""},
		{"longer", users(notNull(typed("id", "bigint(20)")), typed("name", "varchar(99)"), nick), nil, "[1 a b]", ""},
		{"other order", users(id, nick, name), nil, "[1 b a]", ""},
		{"new", users(id, name, nick, typed("age", "int(11)")), nil, "[1 a b UNCHANGED]", `warning: mapping "user": table: column "age" is new`},
		{"new, without default", users(id, name, nick, notNull(typed("age", "int(11)"))), nil, "[1 a b UNCHANGED]", `column "age" is new`},
		{"new, default is an expression", users(id, name, nick, expression(typed("at", "datetime"))), nil, "[1 a b UNCHANGED]", `column "at" is new`},
		{"new, listed columns", users(id, name, nick, typed("age", "int(11)")), listed, "[1 a b]", ""},
		{"new and unfit", users(id, name, nick, spot), nil, "[1 a b]", ""},
		{"gone", users(id, name), nil, "[1 a]", `warning: mapping "user": table: column "nick" is gone; it is left out`},
		{"gone, listed columns", users(id, name), listed, "[1 a]", `column "nick" is gone; it is left out`},
		{"gone, renamed field", users(id, name), func(c *Config) { c.Fields = map[string]string{"nick": "n"} }, `!no field "nick"`, `column "nick" is gone`},
		{"all but the key gone", users(id), listed, "[1]", `column "nick" is gone`},
		{"renamed", users(id, name, typed("alias", "varchar(10)")), nil,
			`!column "nick" is gone from the table and "alias" is new there, perhaps for the same: SET the key again`,
			`what was written before with "nick" is parked`},
		{"renamed, listed columns", users(id, name, typed("alias", "varchar(10)")), listed, `!column "nick" is gone from the table and "alias" is new`, `is parked`},
		{"now generated", users(id, name, generated(nick)), nil, "[1 a]", `column "nick" is gone`},
		{"number", users(id, name, typed("nick", "int(11)")), nil, "[1 a b]",
			`error: mapping "user": table: column "nick" was varchar(10) and is int(11) now, so values are written otherwise: the mapping stays`},
		{"base64", users(id, name, typed("nick", "varbinary(10)")), nil, "[1 a b]", "the mapping stays as it was"},
		{"JSON", users(id, name, typed("nick", "mariajson")), nil, "[1 a b]", "the mapping stays as it was"},
		{"spatial", users(id, name, typed("nick", "point")), nil, "[1 a b]", "the mapping stays as it was"},
		{"no row can be inserted", users(id, name, nick, notNull(typed("age", "int(11)"))), listed, "[1 a b]",
			`"age" is NOT NULL without default, so no row can be inserted; add it, or give it a default: the mapping stays`},
		{"no transactions", altered(users(id, name, nick), func(t *Table) { t.Engine = "MyISAM" }), nil, "[1 a b]", "the mapping stays as it was"},
		{"no table", Schema{}, nil, "?the table users is gone", `error: mapping "user": table: the table users is gone, or may no longer be seen: reads of rows`},
		{"no key column", users(notNull(typed("uid", "int(11)")), name, nick), nil, `?{id}: the table users has no column "id"`, `has no column "id"`},
		{"other key column", users(notNull(typed("id", "varchar(10)")), name, nick), nil,
			`?column "id" of the key was int(11) and is varchar(10) now, so keys name other rows`, "keys name other rows"},
		{"unfit key column", users(notNull(typed("id", "point")), name, nick), listed, `?the spatial type point`, "point"},
		{"not unique", altered(users(id, name, nick), func(t *Table) { t.Indexes = nil }), nil, `?{id} are not the columns`, `are not the columns of a primary`},
	} {
		t.Run(test.what, func(t *testing.T) {
			c := Default()
			c.Name, c.Key, c.Table = "user", "user:{id}", "users"
			if test.change != nil {
				test.change(&c)
			}
			old := users(id, name, nick)
			set, found := NewSet([]Config{c}, nil, old)
			if set == nil {
				t.Fatal(found)
			}
			renewed, found := set.Renew(test.table)
			if told := fmt.Sprint(found); !strings.Contains(told, test.told) || (test.told == "") != (len(found) == 0) {
				t.Errorf("told %s, want %s", told, test.told)
			}
			m := renewed.Match([]byte("user:1"))
			if m != renewed.All()[0] {
				t.Error("another mapping is found than is listed")
			}
			if want, unfit := strings.CutPrefix(test.row, "?"); unfit {
				if m.Unfit() == nil || !strings.Contains(m.Unfit().Error(), want) {
					t.Errorf("unfit: %v, want %s", m.Unfit(), want)
				}
				if again, found := renewed.Renew(test.table); again != renewed || len(found) > 0 {
					t.Error("told twice", found)
				}
				m = back(t, renewed, old)
				if row, err := m.Row(nil, []byte("user:1"), []byte(image)); fmt.Sprint(row, err) != "[1 a b] <nil>" {
					t.Error(row, err)
				}
				return
			}
			row, err := m.Row(nil, []byte("user:1"), []byte(image))
			if want, bad := strings.CutPrefix(test.row, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("row %v, %v; want the error %s", row, err, want)
				}
			} else if err != nil || fmt.Sprint(row) != test.row {
				t.Errorf("row %v, %v; want %s", row, err, test.row)
			}
			if strings.Contains(test.row, "UNCHANGED") && m.Predictable(row) {
				t.Error("an image without the new column is kept")
			}
			if m.Unfit() != nil {
				t.Error(m.Unfit())
			}
		})
	}
}

func listed(c *Config) { c.Columns = []string{"id", "name", "nick"} }

func expression(c Column) Column {
	c.DefaultExpr = true
	return c
}

// back renews set with the table it was made for, and returns its mapping, which has to fit again.
func back(t *testing.T, set *Set, old Schema) *Mapping {
	t.Helper()
	set, found := set.Renew(old)
	if told := fmt.Sprint(found); !strings.Contains(told, "fits again") {
		t.Error(told)
	}
	m := set.Match([]byte("user:1"))
	if m.Unfit() != nil {
		t.Error(m.Unfit())
	}
	return m
}

// TestRenewTheOther: a mapping whose table is as it was stays the same.
func TestRenewTheOther(t *testing.T) {
	id, name := notNull(typed("id", "int(11)")), typed("name", "varchar(10)")
	a, b := Default(), Default()
	a.Name, a.Key, a.Table = "a", "a:{id}", "users"
	b.Name, b.Key, b.Table = "b", "b:{id}", "others"
	schema := Schema{"users": users(id, name)["users"], "others": users(id, name)["users"]}
	set, _ := NewSet([]Config{a, b}, nil, schema)
	if same, found := set.Renew(Schema{"users": users(id, name)["users"], "others": users(id, name)["users"]}); same != set || found != nil {
		t.Error("renewed for nothing", found)
	}
	next, _ := set.Renew(Schema{"others": users(id, name)["users"]})
	if next.All()[0].Unfit() == nil || next.All()[1] != set.All()[1] || next.Match([]byte("b:1")) != set.All()[1] {
		t.Error("the mapping whose table is there is another one")
	}
	if got := fmt.Sprint(set.Tables()); got != "[users others]" {
		t.Error(got)
	}
}

// TestRenewKinds: rows as hashes and strings follow their table, and queries stay.
func TestRenewKinds(t *testing.T) {
	id, name, age := notNull(typed("id", "int(11)")), typed("name", "varchar(10)"), typed("age", "int(11)")
	h, s := Default(), Default()
	h.Name, h.Key, h.Table, h.Value, h.Write = "h", "h:{id}", "users", "hash", "deny"
	s.Name, s.Key, s.Table, s.Value, s.Column, s.Write = "s", "s:{id}", "users", "string", "name", "deny"
	q := DefaultQuery()
	q.Name, q.Key, q.Value, q.SQL = "q", "q", "list", "SELECT name FROM users"
	schema := results(&q, "name varchar(10)")
	schema["users"] = users(id, name)["users"]
	set, found := NewSet([]Config{h, s}, []QueryConfig{q}, schema)
	if set == nil {
		t.Fatal(found)
	}
	query := set.Match([]byte("q"))

	longer, _ := set.Renew(users(id, name, age))
	values, err := longer.Match([]byte("h:1")).Values(nil, [][]byte{[]byte("1"), []byte("1"), []byte("a"), []byte("7")})
	if got := fmt.Sprintf("%s", values); got != "[id 1 name a age 7]" || err != nil {
		t.Error(got, err)
	}
	shorter, _ := longer.Renew(users(id, age))
	if m := shorter.Match([]byte("h:1")); m.Unfit() != nil {
		t.Error(m.Unfit())
	}
	if why := fmt.Sprint(shorter.Match([]byte("s:1")).Unfit()); !strings.Contains(why, `no column "name"`) {
		t.Errorf("the column of a string is gone: %s", why)
	}
	if got := shorter.Match([]byte("q")); query == nil || got != query {
		t.Error("the query is another one, or gone")
	}
}

// TestRenewTwice: an image from before two changes; and a SET is held to the columns there are.
func TestRenewTwice(t *testing.T) {
	id, name, nick, age := notNull(typed("id", "int(11)")), typed("name", "varchar(10)"), typed("nick", "varchar(10)"), withDefault(typed("age", "int(11)"), "18")
	c := Default()
	c.Name, c.Key, c.Table = "user", "user:{id}", "users"
	set, _ := NewSet([]Config{c}, nil, users(id, name, nick))
	set, _ = set.Renew(users(id, nick))
	set, _ = set.Renew(users(id, nick, age))
	m, key := set.All()[0], []byte("user:1")
	if row, err := m.Row(nil, key, []byte(`{"id":1,"name":"a","nick":"b"}`)); fmt.Sprint(row, err) != "[1 b UNCHANGED] <nil>" {
		t.Error(row, err)
	}
	if _, err := m.Canonical(nil, key, []byte(`{"name":"a"}`)); err == nil {
		t.Error("a SET of a column that is gone")
	}
	image, err := m.Canonical(nil, key, []byte(`{"nick":"b"}`))
	if err != nil || string(image) != `{"id":1,"nick":"b","age":18}` {
		t.Error(string(image), err)
	}
}

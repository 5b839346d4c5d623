package mapping

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestFindings(t *testing.T) {
	id, name := notNull(typed("id", "int(11)")), typed("name", "varchar(10)")
	for _, test := range []struct {
		name   string
		schema Schema
		change func(c *Config)
		want   []string // the starts of all findings, in order
	}{
		{"good", users(id, name), nil, nil},
		{"no table", Schema{}, nil, []string{`error: mapping "user": table: there is no table "users" that the user of mysql.dsn may see`}},
		{"no key column", users(notNull(typed("uid", "int(11)")), name), nil, []string{
			`error: mapping "user": key: {id}: the table users has no column "id"`,
			`error: mapping "user": key: {id} are not the columns of a primary or NOT NULL unique key of users; it has PRIMARY {uid}`}},
		{"other case", users(notNull(typed("Id", "int(11)")), name), nil, []string{
			`error: mapping "user": key: {id}: the table users has no column "id"; write it "Id"`,
			`error: mapping "user": key: {id} are not`}},
		{"not unique", users(id, name), func(c *Config) { c.Key = "user:{name}" }, []string{
			`error: mapping "user": key: {name} are not the columns of a primary or NOT NULL unique key of users; it has PRIMARY {id}`}},
		{"part of the key", users(id, notNull(name)), nil, []string{`error: mapping "user": key: {id} are not the columns`}},
		{"nullable unique", altered(users(id, name), func(t *Table) {
			t.Indexes = append(t.Indexes, Index{Name: "n", Unique: true, Columns: []string{"name"}})
		}), func(c *Config) { c.Key = "user:{name}" }, []string{
			`error: mapping "user": key: {name} are not the columns of a primary or NOT NULL unique key of users; the unique index n has them, but allows NULL`,
			`warning: mapping "user": table: users has several unique indexes (PRIMARY, n)`}},
		{"prefix", altered(users(notNull(name)), func(t *Table) { t.Indexes[0].Prefix = true }), func(c *Config) { c.Key = "user:{name}" }, []string{
			`error: mapping "user": key: {name} are not the columns of a primary or NOT NULL unique key of users; the unique index PRIMARY has them, but only their first bytes; it has none; add a primary key`}},
		{"float key", users(notNull(typed("id", "double")), name), nil, []string{
			`error: mapping "user": key: {id}: a double column cannot be in a key`}},
		{"bit key", users(notNull(typed("id", "bit(8)")), name), nil, []string{`error: mapping "user": key: {id}: a bit column`}},
		{"json key", users(notNull(typed("id", "json")), name), nil, []string{
			`error: mapping "user": key: {id}: a json column`, `warning: mapping "user": columns: "id": MySQL writes`}},
		{"text key", users(notNull(typed("id", "text")), name), nil, []string{`error: mapping "user": key: {id}: a text column`}},
		{"blob key", users(notNull(typed("id", "blob")), name), nil, []string{`error: mapping "user": key: {id}: a blob column`}},
		{"long decimal key", users(notNull(typed("id", "decimal(20,0)")), name), nil, []string{`error: mapping "user": key: {id}: a decimal of more than 15`}},
		{"zerofill decimal key", users(notNull(typed("id", "decimal(8,0) unsigned zerofill")), name), nil, []string{`error: mapping "user": key: {id}: a zerofill`}},
		{"generated key", users(generated(id), name), nil, []string{`error: mapping "user": key: {id} is a generated column`}},
		{"spatial", users(id, name, typed("geo", "point")), nil, []string{
			`error: mapping "user": columns: column "geo": the spatial type point cannot be in an image; leave it out, as columns = ["id", "name"]`}},
		{"unknown type", users(id, typed("v", "vector(3)")), nil, []string{`error: mapping "user": columns: column "v": the type vector(3) is not supported; leave it out`}},
		{"spatial string", users(id, typed("v", "point")), single, []string{
			`error: mapping "user": column: the spatial type point cannot be in an image; name another column`}},
		{"unknown string", users(id, typed("V", "int(11)")), single, []string{
			`error: mapping "user": column: the table users has no column "v"; write it "V"`}},
		{"unknown column", users(id, name), func(c *Config) { c.Columns = []string{"id", "mail"} }, []string{
			`error: mapping "user": columns: the table users has no column "mail"`}},
		{"generated column", users(id, generated(name)), func(c *Config) { c.Columns = []string{"id", "name"} }, []string{
			`error: mapping "user": columns: "name" is a generated column`}},
		{"generated column by default", users(id, generated(name)), nil, nil},
		{"unmapped", users(id, name, notNull(typed("mail", "varchar(9)"))), func(c *Config) { c.Columns = []string{"name"} }, []string{
			`error: mapping "user": columns: "mail" is NOT NULL without default, so no row can be inserted; add it`}},
		{"unmapped spatial", primary(users(id, notNull(typed("geo", "point"))), "id"), func(c *Config) { c.Columns = []string{"id"} }, []string{
			`error: mapping "user": columns: "geo" is NOT NULL without default and cannot be in an image`}},
		{"unmapped, read only", users(id, name, notNull(typed("mail", "varchar(9)"))), func(c *Config) { c.Columns, c.Write = []string{"name"}, "deny" }, nil},
		{"unmapped with default", users(id, name, withDefault(notNull(typed("mail", "varchar(9)")), "")), func(c *Config) { c.Columns = []string{"name"} }, nil},
		{"fields", users(id, name), func(c *Config) {
			c.Columns, c.Fields = []string{"id"}, map[string]string{"x": "y", "name": "z", "id": "i"}
		}, []string{
			`error: mapping "user": fields: column "name" is not in the image`,
			`error: mapping "user": fields: the table users has no column "x"`}},
		{"same field", users(id, name), func(c *Config) { c.Fields = map[string]string{"name": "id"} }, []string{
			`error: mapping "user": fields: the columns "id" and "name" would both be the field "id"`}},
		{"engine", altered(users(id, name), func(t *Table) { t.Engine = "MyISAM" }), nil, []string{
			`error: mapping "user": write: the engine MyISAM of users has no transactions`}},
		{"engine, read only", altered(users(id, name), func(t *Table) { t.Engine = "MyISAM" }), func(c *Config) { c.Write = "deny" }, nil},
		{"triggers", altered(users(id, name), func(t *Table) { t.Triggers = []string{"audit"} }), nil, []string{
			`warning: mapping "user": table: users has triggers (audit)`}},
		{"collation", users(notNull(typed("id", "varchar(9) collate=utf8mb4_general_ci")), name), nil, []string{
			`warning: mapping "user": key: {id}: the collation utf8mb4_general_ci takes values that differ in case`}},
		{"padding collation", users(notNull(typed("id", "varchar(9)")), name), nil, nil},
		{"charset", users(id, typed("name", "varchar(9) charset=sjis")), nil, []string{
			`warning: mapping "user": columns: "name": the characters of the charset sjis are not known`}},
		{"rounded float", users(id, typed("f", "float(7,2)")), nil, []string{
			`warning: mapping "user": columns: "f": MySQL rounds values of type float(7,2)`}},
		{"several", altered(users(notNull(typed("uid", "int(11)")), typed("geo", "point")), func(t *Table) { t.Engine = "Aria" }), nil, []string{
			`error: mapping "user": columns: column "geo"`,
			`error: mapping "user": key: {id}: the table users has no column "id"`,
			`error: mapping "user": key: {id} are not the columns`,
			`error: mapping "user": write: the engine Aria`}},
	} {
		c := Default()
		c.Name, c.Key, c.Table = "user", "user:{id}", "users"
		if test.change != nil {
			test.change(&c)
		}
		set, findings := NewSet([]Config{c}, nil, test.schema)
		same := slices.EqualFunc(findings, test.want, func(f Finding, want string) bool { return strings.HasPrefix(f.String(), want) })
		if !same {
			t.Errorf("%s: got\n%v\nwant\n%s", test.name, findings, strings.Join(test.want, "\n"))
		}
		failed := slices.ContainsFunc(findings, func(f Finding) bool { return f.Severity == Error })
		if (set == nil) != failed {
			t.Errorf("%s: set %v with %v", test.name, set, findings)
		}
	}
}

func altered(s Schema, change func(*Table)) Schema {
	change(s["users"])
	return s
}

func generated(c Column) Column {
	c.Generated = true
	return c
}

func TestShared(t *testing.T) {
	a, b := Default(), Default()
	a.Name, a.Key, a.Table = "a", "a:{id}", "users"
	b.Name, b.Key, b.Table, b.Write = "b", "b:{id}", "shop.users", "deny"
	schema := users(notNull(typed("id", "int(11)")))
	schema["shop.users"] = schema["users"]
	set, findings := NewSet([]Config{a, b}, nil, schema)
	if set == nil || len(findings) != 2 || !strings.Contains(findings[0].Text, "users is mapped by b too") {
		t.Errorf("%v", findings)
	}
	a.Write = "deny"
	if _, findings := NewSet([]Config{a, b}, nil, schema); len(findings) != 0 {
		t.Errorf("%v", findings)
	}
}

func TestMatch(t *testing.T) {
	schema := users(notNull(typed("id", "int(11)")))
	var cs []Config
	for _, key := range []string{"user:{id}", "users:{id}", "use{id}!", "u{id}?", "stock:{id}", "stock:x{id}/a", "zz{id}"} {
		c := Default()
		c.Name, c.Key, c.Table = key, key, "users"
		cs = append(cs, c)
	}
	set, findings := NewSet(cs, nil, schema)
	if set == nil {
		t.Fatal(findings)
	}
	for _, test := range []struct{ key, want string }{
		{"user:1", "user:{id}"},
		{"user:", ""},
		{"users:1", "users:{id}"},
		{"use1!", "use{id}!"},
		{"u7?", "u{id}?"},
		{"u7", ""},
		{"", ""},
		{"x", ""},
		{"stock:y", "stock:{id}"},
		{"zz", ""},
		{"zza", "zz{id}"},
	} {
		got := ""
		if m := set.Match([]byte(test.key)); m != nil {
			got = m.Name
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.key, got, test.want)
		}
	}
	empty, _ := NewSet(nil, nil, nil)
	if empty.Match([]byte("user:1")) != nil || len(empty.All()) != 0 {
		t.Error("an empty set matches")
	}
	if len(set.All()) != len(cs) || set.All()[1].Name != "users:{id}" {
		t.Error("not all")
	}
}

func TestUpdateFirst(t *testing.T) {
	for columnType, want := range map[string]bool{
		"int(11)":                                   false,
		"varbinary(10)":                             false,
		"enum('a','b')":                             false,
		"char(9)":                                   false,
		"char(9) collate=utf8mb4_general_ci":        true,
		"varchar(9)":                                true, // utf8mb4_bin takes "Bob " for "Bob"
		"varchar(9) collate=utf8mb4_nopad_bin":      false,
		"varchar(9) collate=utf8mb4_0900_bin":       false,
		"varchar(9) collate=utf8mb4_0900_as_cs":     true,
		"varchar(9) collate=utf8mb4_general_ci":     true,
		"varchar(9) collate=utf8mb4_unicode_520_ci": true,
	} {
		if got := keyed(t, columnType).UpdateFirst(); got != want {
			t.Errorf("%s: %v", columnType, got)
		}
	}
}

func TestPredictable(t *testing.T) {
	computed := typed("v", "timestamp")
	computed.DefaultExpr = true
	updated := computed
	updated.OnUpdate = true
	for _, test := range []struct {
		column Column
		value  string
		want   bool
	}{
		{typed("v", "int(11)"), `{"v":1}`, true},
		{typed("v", "int(11)"), `{}`, true},
		{withDefault(typed("v", "timestamp"), "2020-01-01 00:00:00"), `{}`, true},
		{withDefault(typed("v", "timestamp"), "soon"), `{}`, false},
		{computed, `{}`, false},
		{computed, `{"v":"2020-01-01 00:00:00"}`, true},
		{updated, `{}`, false},
		{updated, `{"v":"2020-01-01 00:00:00"}`, true},
		{typed("v", "json"), `{"v":[1,2]}`, false},
		{typed("v", "mariajson"), `{"v":[1,2]}`, true},
		{typed("v", "float(7,2)"), `{"v":1.5}`, false},
	} {
		m := compiled(t, users(notNull(typed("id", "int(11)")), test.column), "user:{id}")
		image, err := m.Canonical(nil, []byte("user:1"), []byte(test.value))
		if err != nil {
			t.Fatal(err)
		}
		row, err := m.Row(nil, []byte("user:1"), image)
		if err != nil {
			t.Fatal(err)
		}
		if m.Predictable(row) != test.want {
			t.Errorf("%+v, %s: %v", test.column, test.value, !test.want)
		}
	}
}

func TestNamesOfSQL(t *testing.T) {
	schema := users(notNull(typed("a`b", "int(11)")), notNull(typed("c", "varchar(9)")), typed("f", "float"), typed("b", "bit(3)"), generated(typed("g", "int(11)")))
	schema["my.t`x"] = schema["users"]
	m := compiled(t, schema, "k:{c}:{a`b}", func(c *Config) { c.Table = "my.t`x" })
	for _, test := range []struct{ got, want string }{
		{m.Table(), "`my`.`t``x`"},
		{fmt.Sprint(m.KeyColumns()), "[c a`b]"},
		{fmt.Sprint(m.WriteColumns()), "[a`b c f b]"},
		{m.SelectList(), "`c`, `a``b`, `a``b`, `c`, `f`+0e0, `b`+0"},
	} {
		if test.got != test.want {
			t.Errorf("got %s, want %s", test.got, test.want)
		}
	}
}

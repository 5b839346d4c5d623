package mapping

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// typed makes a column of a type as information_schema describes it: "decimal(10,2) unsigned". Text is utf8mb4 with
// utf8mb4_bin unless the type is followed by "charset=latin1" or "collate=utf8mb4_general_ci".
func typed(name, columnType string) Column {
	words := strings.Fields(columnType)
	c := Column{Name: name, ColumnType: columnType, Nullable: true, Charset: "utf8mb4", Collation: "utf8mb4_bin"}
	for _, w := range words {
		if charset, ok := strings.CutPrefix(w, "charset="); ok {
			c.Charset, c.Collation = charset, charset+"_bin"
			c.ColumnType = strings.ReplaceAll(c.ColumnType, " "+w, "")
		}
		if collation, ok := strings.CutPrefix(w, "collate="); ok {
			c.Collation = collation
			c.ColumnType = strings.ReplaceAll(c.ColumnType, " "+w, "")
		}
		c.Unsigned = c.Unsigned || w == "unsigned"
	}
	m := regexp.MustCompile(`^(\w+)(?:\((\d+)(?:,(\d+))?\))?`).FindStringSubmatch(columnType)
	c.Type = m[1]
	n, _ := strconv.Atoi(m[2])
	scale, _ := strconv.Atoi(m[3])
	switch c.Type {
	case "char", "varchar", "binary", "varbinary":
		c.Length, c.Octets = int64(n), int64(n)
	case "tinytext", "tinyblob":
		c.Length, c.Octets = 255, 255
	case "text", "blob":
		c.Length, c.Octets = 65535, 65535
	case "longtext":
		c.Length, c.Octets = 1<<32-1, 1<<32-1
	case "decimal", "bit", "float", "double":
		c.Precision, c.Scale = n, scale
	case "datetime", "timestamp", "time":
		c.Fsp = n
	case "mariajson":
		c.Type, c.ColumnType, c.JSON, c.Octets = "longtext", "longtext", true, 1<<32-1
	}
	return c
}

func notNull(c Column) Column {
	c.Nullable = false
	return c
}

func withDefault(c Column, text string) Column {
	c.Default = &text
	return c
}

// users is the schema of one table "users" with a primary key of the columns before the first that can be NULL.
func users(columns ...Column) Schema {
	primary := Index{Name: "PRIMARY", Unique: true}
	for _, c := range columns {
		if c.Nullable {
			break
		}
		primary.Columns = append(primary.Columns, c.Name)
	}
	return Schema{"users": {Schema: "shop", Name: "users", Columns: columns, Indexes: []Index{primary}, Engine: "InnoDB"}}
}

// primary gives the table of users another primary key.
func primary(s Schema, columns ...string) Schema {
	s["users"].Indexes[0].Columns = columns
	return s
}

// compiled makes the only mapping of a config over Default, failing the test on an error.
func compiled(t testing.TB, schema Schema, key string, change ...func(*Config)) *Mapping {
	t.Helper()
	c := Default()
	c.Name, c.Key, c.Table = "user", key, "users"
	for _, f := range change {
		f(&c)
	}
	if err := Validate([]Config{c}, nil); err != nil {
		t.Fatal(err)
	}
	set, findings := NewSet([]Config{c}, nil, schema)
	if set == nil {
		t.Fatal(findings)
	}
	return set.All()[0]
}

// one is a mapping of the table users(id int, v <columnType>).
func one(t testing.TB, columnType string) *Mapping {
	t.Helper()
	return compiled(t, users(notNull(typed("id", "int(11)")), typed("v", columnType)), "user:{id}")
}

// keyed is a mapping of the table users(k <columnType>, n int) by k.
func keyed(t testing.TB, columnType string) *Mapping {
	t.Helper()
	return compiled(t, users(notNull(typed("k", columnType)), typed("n", "int(11)")), "user:{k}")
}

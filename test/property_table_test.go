package test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// madeUp is a table and its mappings, one of each kind.
type madeUp struct {
	name     string
	columns  []*madeUpColumn
	keys     []*madeUpColumn // in the order of the pattern
	literals []string        // of the pattern behind its first, which begins with the kind
	shown    *madeUpColumn   // the column of the string
	rows     [][]*string     // by column, what MySQL holds
}

type madeUpColumn struct {
	at     int // among the columns of the table
	name   string
	field  string // in JSON and hashes
	absent bool   // it is not in the images
	key    bool
	kindOfColumn
}

// kindOfColumn is a type, and a value of it as an argument of SQL.
type kindOfColumn struct {
	columnType string
	form       byte // as in edgeColumns, and 'f' for floating point
	value      func(p *property) any
}

var keyColumns = []kindOfColumn{
	{"INT", 'n', func(p *property) any { return p.pick("0", "1", "-1", "10", "11", "101", "-2147483648") }},
	{"BIGINT UNSIGNED", 'n', func(p *property) any { return p.pick("0", "1", "10", "18446744073709551615", "9007199254740993") }},
	{"DECIMAL(6,2)", 'n', func(p *property) any { return p.pick("0", "1.5", "-0.01", "10.10", "9999.99") }},
	{"VARCHAR(20) COLLATE utf8mb4_bin", '"', func(p *property) any { return p.word(6) }},
	{"VARCHAR(20) COLLATE utf8mb4_nopad_bin", '"', func(p *property) any { return p.word(6) }},
	{"VARCHAR(20) COLLATE utf8mb4_general_ci", '"', func(p *property) any { return p.word(6) }},
	{"CHAR(9) COLLATE utf8mb4_unicode_ci", '"', func(p *property) any { return p.word(4) }},
	{"VARBINARY(20)", 'b', func(p *property) any { return p.bytes(6) }},
	{"BINARY(3)", 'b', func(p *property) any { return p.bytes(2) }},
	{"ENUM('a',':','{}','\"','''','1','é')", '"', func(p *property) any { return p.pick("a", ":", "{}", `"`, "'", "1", "é") }},
	{"DATE", '"', func(p *property) any { return p.pick("2024-01-02", "0000-00-00", "9999-12-31") }},
	{"DATETIME(2)", '"', func(p *property) any { return p.pick("2024-01-02 03:04:05.60", "2024-01-02 00:00:00") }},
	{"TIME", '"', func(p *property) any { return p.pick("-00:00:01", "100:00:00", "00:00:00") }},
	{"YEAR", 'n', func(p *property) any { return p.pick("2024", "0000", "2000") }},
	{"UUID", '"', func(p *property) any { return fmt.Sprintf("123e4567-e89b-12d3-a456-42661417400%x", p.IntN(16)) }},
	{"INET6", '"', func(p *property) any { return p.pick("::", "::1", "1::", "::ffff:1.2.3.4", "2001:db8::1") }},
}

var otherColumns = append(slices.Clone(keyColumns),
	kindOfColumn{"DOUBLE", 'f', func(p *property) any { return fmt.Sprintf("%g", p.NormFloat64()*math.Pow(10, p.NormFloat64()*20)) }},
	kindOfColumn{"FLOAT", 'f', func(p *property) any {
		return fmt.Sprintf("%g", float32(p.NormFloat64()*math.Pow(10, p.NormFloat64()*8)))
	}},
	kindOfColumn{"BIT(64)", 'n', func(p *property) any { return p.Uint64() }},
	kindOfColumn{"BOOLEAN", 'n', func(p *property) any { return p.IntN(2) }},
	kindOfColumn{"DECIMAL(65,30)", 'n', func(p *property) any { return fmt.Sprintf("-%d.%d", p.Uint64(), p.Uint64()) }},
	kindOfColumn{"SET('a',':','é','\"')", '"', func(p *property) any { return p.pick("", "a", ":,a", `a,:,é,"`) }},
	kindOfColumn{"TEXT", '"', func(p *property) any { return p.word(40) }},
	kindOfColumn{"BLOB", 'b', func(p *property) any { return p.bytes(40) }},
	kindOfColumn{"JSON", 'n', func(p *property) any { return `{"a": [` + quotedJSON(p.word(9)) + `, 1.50]}` }},
)

// pieces are what texts and the literals of patterns are made of.
var pieces = []string{":", "::", "{", "}", "{}", `"`, "'", "`", `\`, "é", "É", "e", "a", "A", " ", "0", "1", "-", ".", "😀", "%", "*", "?", "\n", "ß", ","}

func (p *property) pick(texts ...string) string { return texts[p.IntN(len(texts))] }

// word is a text of up to n pieces.
func (p *property) word(n int) string {
	var b strings.Builder
	for range p.IntN(n + 1) {
		b.WriteString(p.pick(append(pieces, "\x00", "\t")...))
	}
	return b.String()
}

// bytes are up to n bytes.
func (p *property) bytes(n int) []byte {
	b := make([]byte, p.IntN(n+1))
	for i := range b {
		b[i] = p.pick(":", "{", "\x00", "\xff", "\xc3", "a", " ", "\"")[0]
	}
	return b
}

// table makes up a table.
func (p *property) table(i int) *madeUp {
	m := &madeUp{name: fmt.Sprint("t", i)}
	names := []string{"id", "na me", "q`x", `"d"`, "ü", "select", "x-y", "Key", `b\s`, "it's", "a,b", "%s", "日本"}
	p.Shuffle(len(names), func(a, b int) { names[a], names[b] = names[b], names[a] })
	keys := 1 + p.IntN(3)
	for n := range keys + 1 + p.IntN(6) {
		c := &madeUpColumn{at: n, name: names[n], field: names[n], key: n < keys}
		switch {
		case c.key:
			c.kindOfColumn = keyColumns[p.IntN(len(keyColumns))]
			m.keys = append(m.keys, c)
		default:
			c.kindOfColumn = otherColumns[p.IntN(len(otherColumns))]
			c.absent = p.IntN(4) == 0
		}
		if p.IntN(3) == 0 && !c.absent {
			c.field = fmt.Sprint(p.word(3), "#", n)
		}
		m.columns = append(m.columns, c)
	}
	p.Shuffle(keys, func(a, b int) { m.keys[a], m.keys[b] = m.keys[b], m.keys[a] })
	for range keys {
		literal := p.pick(pieces...)
		if p.IntN(3) == 0 {
			literal += p.pick(pieces...)
		}
		m.literals = append(m.literals, literal)
	}
	if p.IntN(2) == 0 {
		m.literals[keys-1] = ""
	}
	m.shown = m.columns[p.IntN(len(m.columns))]
	return m
}

// create is the SQL that makes the table.
func (m *madeUp) create(p *property) string {
	var columns, primary []string
	for _, i := range p.Perm(len(m.keys)) {
		primary = append(primary, quoteName(m.keys[i].name))
	}
	for _, c := range m.columns {
		null := " NULL"
		if c.key {
			null = " NOT NULL"
		}
		columns = append(columns, quoteName(c.name)+" "+c.columnType+null)
	}
	return "CREATE TABLE " + m.name + " (" + strings.Join(columns, ", ") + ", PRIMARY KEY (" + strings.Join(primary, ", ") + "))"
}

func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// config are the mappings of the table.
func (m *madeUp) config() string {
	var columns, fields []string
	for _, c := range m.columns {
		if c.absent {
			continue
		}
		columns = append(columns, tomlString(c.name))
		if c.field != c.name {
			fields = append(fields, tomlString(c.name)+" = "+tomlString(c.field))
		}
	}
	var b strings.Builder
	for _, k := range kindsOfImages {
		pattern := k.value + m.name + ":"
		for i, c := range m.keys {
			pattern += "{" + c.name + "}" + strings.NewReplacer("{", "{{", "}", "}}").Replace(m.literals[i])
		}
		fmt.Fprintf(&b, "[[mapping]]\nname = %q\nkey = %s\ntable = %q\nvalue = %q\nnegative_ttl = \"0\"\n",
			k.value+m.name, tomlString(pattern), m.name, k.value)
		if k.value == "string" {
			fmt.Fprintf(&b, "column = %s\n", tomlString(m.shown.name))
		} else {
			fmt.Fprintf(&b, "columns = [%s]\nfields = { %s }\n", strings.Join(columns, ", "), strings.Join(fields, ", "))
		}
	}
	return b.String()
}

// tomlString is a string of TOML, in which all but plain letters are escaped.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// insert adds a row, unless MySQL has one that it takes for the same.
func (p *property) insert(m *madeUp) {
	var list []string
	var args []any
	for _, c := range m.columns {
		list = append(list, "?")
		if !c.key && p.IntN(5) == 0 {
			args = append(args, nil)
		} else {
			args = append(args, c.value(p))
		}
	}
	_, err := p.s.MySQL.DB(p.s.DB).Exec("INSERT INTO "+m.name+" VALUES ("+strings.Join(list, ", ")+")", args...)
	var my *mysql.MySQLError
	if err != nil && (!errors.As(err, &my) || my.Number != 1062) {
		p.t.Fatalf("%q into %s: %v", args, m.create(p), err)
	}
}

// read reads the rows.
func (m *madeUp) read(s *shop) {
	var list []string
	for _, c := range m.columns {
		expr := quoteName(c.name)
		switch {
		case c.columnType == "FLOAT":
			expr += "+0e0"
		case strings.HasPrefix(c.columnType, "BIT"):
			expr += "+0"
		case c.columnType == "YEAR":
			expr = "CAST(" + expr + " AS SIGNED)"
		}
		list = append(list, expr, expr+" IS NULL")
	}
	m.rows = nil
	for _, values := range s.table("SELECT " + strings.Join(list, ", ") + " FROM " + m.name) {
		row := make([]*string, len(m.columns))
		for i := range row {
			if values[2*i+1] == "0" {
				row[i] = &values[2*i]
			}
		}
		m.rows = append(m.rows, row)
	}
}

package test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"keyrow/test/harness"
)

var (
	propertySeed = flag.Uint64("property.seed", 0, "of the first round of TestProperty; 0: a new one each time")
	propertyTime = flag.Duration("property.time", 0, "how long TestProperty goes on; 0: one round")
)

// TestProperty makes up schemas, rows and keys, and holds what keyrow makes of them against the tables: each key is one
// row or none, an image is its row, and what is written to a key changes that row and no other.
//
//	go test -run TestProperty . -property.time 10m
//	go test -run TestProperty . -property.seed 42
func TestProperty(t *testing.T) {
	t.Parallel()
	seed := *propertySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for end := time.Now().Add(*propertyTime); ; seed++ {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := &property{Rand: rand.New(rand.NewPCG(seed, 0)), t: t}
			p.round()
		})
		if !ok || time.Now().After(end) {
			return
		}
	}
}

// property is one round.
type property struct {
	*rand.Rand
	t      *testing.T
	s      *shop
	tables []*madeUp
}

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

func (p *property) round() {
	const tables, rows = 4, 12
	var config strings.Builder
	p.s = newShop(p.t, harness.Options{DB: harness.SharedMySQL(p.t).NewDB(p.t), Config: "#"})
	for i := range tables {
		m := p.table(i)
		p.tables = append(p.tables, m)
		p.s.sql(m.create(p))
		for range rows {
			p.insert(m)
		}
		m.read(p.s)
		config.WriteString(m.config())
	}
	o := p.s.opened
	o.Config = config.String()
	p.s = openShop(p.t, o)
	for _, m := range p.tables {
		owners := m.owners()
		for range 2 { // from MySQL, and from Redis
			p.reads(m, owners)
		}
		p.others(m, owners)
	}
	for _, m := range p.tables {
		p.writes(m, m.owners())
	}
	p.s.Settled()
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

// rowKey is the key of a row, without what stands before it for each kind; empty if a value of it is.
func (m *madeUp) rowKey(row []*string) string {
	var b strings.Builder
	for i, c := range m.keys {
		if *row[c.at] == "" {
			return ""
		}
		b.WriteString(*row[c.at] + m.literals[i])
	}
	return b.String()
}

// owners are the rows that are spelled as a key: more than one, if literals stand in values.
func (m *madeUp) owners() map[string][][]*string {
	owners := make(map[string][][]*string)
	for _, row := range m.rows {
		if key := m.rowKey(row); key != "" {
			owners[key] = append(owners[key], row)
		}
	}
	return owners
}

// cuts is how many ways there are to cut a key into values.
func (m *madeUp) cuts(key string, variable int) int {
	literal := m.literals[variable]
	if variable == len(m.keys)-1 {
		if len(key) > len(literal) && strings.HasSuffix(key, literal) {
			return 1
		}
		return 0
	}
	n := 0
	for i := 1; i < len(key); i++ {
		if strings.HasPrefix(key[i:], literal) {
			n += m.cuts(key[i+len(literal):], variable+1)
		}
	}
	return n
}

// key is the key of an image.
func (m *madeUp) key(k kindOfImage, rowKey string) string { return k.value + m.name + ":" + rowKey }

// image asks for the image of a key.
func (p *property) image(m *madeUp, k kindOfImage, rowKey string) any {
	p.t.Helper()
	get := "GET"
	if k.value == "hash" {
		get = "HGETALL"
	}
	return p.s.Must(get, m.key(k, rowKey))
}

// reads asks for every row of a table.
func (p *property) reads(m *madeUp, owners map[string][][]*string) {
	for rowKey, rows := range owners {
		for _, k := range kindsOfImages {
			got := p.image(m, k, rowKey)
			if !none(got) || m.cuts(rowKey, 0) == 1 {
				if !slices.ContainsFunc(rows, func(row []*string) bool { return m.shows(k, row, got) }) {
					p.t.Errorf("%q is %.500q, rows with this key are %s", m.key(k, rowKey), got, texts(rows...))
				}
			}
		}
	}
}

func none(image any) bool {
	fields, isHash := image.([]any)
	return image == nil || isHash && len(fields) == 0
}

// shows reports whether an image is that of a row.
func (m *madeUp) shows(k kindOfImage, row []*string, image any) bool {
	switch k.value {
	case "string":
		text, ok := image.(string)
		return ok == (row[m.shown.at] != nil) && (!ok || m.shown.same(text, *row[m.shown.at]))
	case "hash":
		fields := map[string]string{}
		list := image.([]any)
		for i := 0; i < len(list); i += 2 {
			fields[list[i].(string)] = list[i+1].(string)
		}
		for _, c := range m.columns {
			text, ok := fields[c.field]
			if ok != (row[c.at] != nil && !c.absent) || ok && !c.same(text, *row[c.at]) {
				return false
			}
			delete(fields, c.field)
		}
		return len(fields) == 0
	}
	var fields map[string]json.RawMessage
	text, _ := image.(string)
	if json.Unmarshal([]byte(text), &fields) != nil {
		return false
	}
	for _, c := range m.columns {
		v, ok := fields[c.field]
		if ok == c.absent || ok && !c.sameJSON(v, row[c.at]) {
			return false
		}
		delete(fields, c.field)
	}
	return len(fields) == 0
}

// same holds plain text of an image against what MySQL holds.
func (c *madeUpColumn) same(image, row string) bool {
	if c.form != 'f' {
		return image == row
	}
	bits := 64
	if c.columnType == "FLOAT" {
		bits = 32
	}
	a, err1 := strconv.ParseFloat(image, bits)
	b, err2 := strconv.ParseFloat(row, bits)
	return err1 == nil && err2 == nil && a == b
}

func (c *madeUpColumn) sameJSON(image json.RawMessage, row *string) bool {
	if row == nil {
		return string(image) == "null"
	}
	text := string(image)
	if c.form == '"' || c.form == 'b' {
		if json.Unmarshal(image, &text) != nil {
			return false
		}
	}
	if c.form == 'b' {
		raw, err := base64.StdEncoding.DecodeString(text)
		return err == nil && string(raw) == *row
	}
	return c.same(text, *row)
}

// others asks for keys that are nearly those of rows.
func (p *property) others(m *madeUp, owners map[string][][]*string) {
	for _, row := range m.rows {
		for range 2 {
			other := slices.Clone(row)
			c := m.keys[p.IntN(len(m.keys))]
			text := p.bent(*row[c.at])
			other[c.at] = &text
			rowKey := m.rowKey(other)
			if rowKey == "" || owners[rowKey] != nil {
				continue
			}
			for _, k := range kindsOfImages {
				if got := p.image(m, k, rowKey); !none(got) {
					p.t.Errorf("%q is %.500q, but there is no such row; the nearest is %s", m.key(k, rowKey), got, texts(row))
				}
			}
		}
	}
}

// bent is a text that may be taken for another.
func (p *property) bent(text string) string {
	switch p.IntN(12) {
	case 0:
		return strings.ToUpper(text)
	case 1:
		return strings.ToLower(text)
	case 2:
		return text + " "
	case 3:
		return strings.TrimRight(text, " ")
	case 4:
		return "0" + text
	case 5:
		return "+" + text
	case 6:
		return "-" + text
	case 7:
		return text + "\x00"
	case 8:
		return text + ".0"
	case 9:
		return text[:max(len(text)-1, 0)]
	case 10:
		return strings.NewReplacer("é", "e", "É", "é", "e", "e\u0301", "ß", "ss").Replace(text)
	}
	return text + text
}

// writes gives rows the values of others, and some of them after they were deleted.
func (p *property) writes(m *madeUp, owners map[string][][]*string) {
	k := kindsOfImages[0]
	want := map[string][]*string{} // by key
	for _, row := range m.rows {
		want[m.identity(row)] = row
	}
	for rowKey, rows := range owners {
		if len(rows) > 1 || none(p.image(m, k, rowKey)) {
			continue
		}
		from := m.rows[p.IntN(len(m.rows))]
		row := slices.Clone(rows[0])
		if p.IntN(3) == 0 {
			p.s.Must("DEL", m.key(k, rowKey))
			p.remove(m, row)
			for _, c := range m.columns {
				if c.absent {
					row[c.at] = nil
				}
			}
		}
		for _, c := range m.columns {
			if !c.key && !c.absent {
				row[c.at] = from[c.at]
			}
		}
		if got := p.s.show("SET", m.key(k, rowKey), m.value(p, row)); got != "OK" {
			p.t.Errorf("SET %q %s: %s", m.key(k, rowKey), m.value(p, row), got)
		}
		want[m.identity(row)] = row
	}
	p.s.Settled()
	m.read(p.s)
	for _, row := range m.rows {
		if w := want[m.identity(row)]; texts(row) != texts(w) {
			p.t.Errorf("a row of %s is\n%s, was to be\n%s", m.name, texts(row), texts(w))
		}
		delete(want, m.identity(row))
	}
	for _, row := range want {
		p.t.Errorf("a row of %s is gone: %s", m.name, texts(row))
	}
	owners = m.owners()
	for rowKey := range owners {
		for _, k := range kindsOfImages[1:] {
			p.s.Must("DEL", m.key(k, rowKey))
		}
	}
	p.reads(m, owners)
}

// identity is the key of a row by itself, however it is spelled.
func (m *madeUp) identity(row []*string) string {
	var values []string
	for _, c := range m.keys {
		values = append(values, *row[c.at])
	}
	return fmt.Sprintf("%q", values)
}

// remove deletes a row from MySQL.
func (p *property) remove(m *madeUp, row []*string) {
	var where []string
	var args []any
	for _, c := range m.keys {
		expr := quoteName(c.name)
		if c.form == '"' {
			expr = "CAST(CONVERT(" + expr + " USING utf8mb4) AS BINARY)"
		}
		if c.form == 'n' {
			where = append(where, expr+" = "+*row[c.at])
			continue
		}
		where, args = append(where, expr+" = ?"), append(args, []byte(*row[c.at]))
	}
	p.s.sql("DELETE FROM "+m.name+" WHERE "+strings.Join(where, " AND "), args...)
}

// value is a row as a client writes it, its fields in any order, those of the key perhaps left out.
func (m *madeUp) value(p *property, row []*string) string {
	var fields []string
	for _, i := range p.Perm(len(m.columns)) {
		c := m.columns[i]
		if c.absent || c.key && p.IntN(2) == 0 {
			continue
		}
		text := "null"
		switch v := row[c.at]; {
		case v == nil:
		case c.form == '"':
			text = quotedJSON(*v)
		case c.form == 'b':
			text = strconv.Quote(base64.StdEncoding.EncodeToString([]byte(*v)))
		default:
			text = *v
		}
		fields = append(fields, quotedJSON(c.field)+": "+text)
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// texts shows rows.
func texts(rows ...[]*string) string {
	var b strings.Builder
	for _, row := range rows {
		for _, v := range row {
			if v == nil {
				b.WriteString(" NULL")
			} else {
				fmt.Fprintf(&b, " %q", *v)
			}
		}
		b.WriteByte(';')
	}
	return b.String()
}

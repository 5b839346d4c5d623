package test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/test/harness"
)

// An edge is a value of a column: how SQL writes it, and its plain text in an image. The zero edge is NULL.
type edge struct{ sql, plain string }

var null = edge{}

// bare are numbers, which SQL and images write alike.
func bare(texts ...string) (edges []edge) {
	for _, s := range texts {
		edges = append(edges, edge{s, s})
	}
	return edges
}

// text are characters.
func text(texts ...string) (edges []edge) {
	for _, s := range texts {
		edges = append(edges, edge{fmt.Sprintf("CONVERT(x'%x' USING utf8mb4)", s), s})
	}
	return edges
}

// raw are bytes.
func raw(texts ...string) (edges []edge) {
	for _, s := range texts {
		edges = append(edges, edge{fmt.Sprintf("x'%x'", s), s})
	}
	return edges
}

// edgeColumns are a column of every type with its edges. How a JSON image writes them is told by form: 'n' for numbers
// and documents, which stand as they are, '"' for strings, 'b' for base64.
var edgeColumns = []struct {
	columnType string
	form       byte
	edges      []edge
}{
	{"TINYINT", 'n', append(bare("-128", "127", "0", "-1"), null)},
	{"TINYINT UNSIGNED", 'n', append(bare("255", "0"), null)},
	{"BOOLEAN", 'n', append(bare("1", "0", "-128", "127"), null, edge{"TRUE", "1"})},
	{"SMALLINT", 'n', append(bare("-32768", "32767"), null)},
	{"SMALLINT UNSIGNED", 'n', append(bare("65535", "0"), null)},
	{"MEDIUMINT", 'n', append(bare("-8388608", "8388607"), null)},
	{"MEDIUMINT UNSIGNED", 'n', append(bare("16777215", "0"), null)},
	{"INT", 'n', append(bare("-2147483648", "2147483647"), null)},
	{"INT UNSIGNED", 'n', append(bare("4294967295", "0"), null)},
	{"INT(10) UNSIGNED ZEROFILL", 'n', append(bare("42", "0", "4294967295"), null)},
	{"BIGINT", 'n', append(bare("-9223372036854775808", "9223372036854775807", "9007199254740993", "-9007199254740993"), null)},
	{"BIGINT UNSIGNED", 'n', append(bare("18446744073709551615", "18446744073709551614", "9223372036854775808", "0"), null)},
	{"BIGINT NOT NULL DEFAULT -1", 'n', bare("9223372036854775807", "0")},
	{"YEAR", 'n', append(bare("2024", "1901", "2155", "2000"), null, edge{"'0000'", "0"})},
	{"BIT(1)", 'n', append(bare("0", "1"), null)},
	{"BIT(7)", 'n', append(bare("127", "48", "0"), null)},
	{"BIT(64)", 'n', append(bare("18446744073709551615", "9223372036854775808", "3472328296227680304", "0"), null)},

	{"DECIMAL(10,2)", 'n', append(bare("0.00", "-0.01", "99999999.99", "-99999999.99", "1.50"), null)},
	{"DECIMAL(65,0)", 'n', append(bare(strings.Repeat("9", 65), "-"+strings.Repeat("9", 65), "0"), null)},
	{"DECIMAL(65,30)", 'n', append(bare(strings.Repeat("9", 35)+"."+strings.Repeat("9", 30), "-0."+strings.Repeat("0", 29)+"1"), null)},
	{"DECIMAL(30,30)", 'n', append(bare("0.123456789012345678901234567890"), null)},
	{"DECIMAL(8,2) UNSIGNED ZEROFILL", 'n', append(bare("1.50", "0.00", "999999.99"), null)},
	{"DOUBLE", 'n', []edge{{"0.1", "0.1"}, {"0", "0"}, {"9007199254740993", "9007199254740992"}, {"0.1e0+0.2e0", "0.30000000000000004"},
		{"1.7976931348623157e308", "1.7976931348623157e+308"}, {"-2.2250738585072014e-308", "-2.2250738585072014e-308"},
		{"5e-324", "5e-324"}, {"1e21", "1e+21"}, {"1e20", "100000000000000000000"}, {"1e-6", "0.000001"}, {"1e-7", "1e-07"}, null}},
	{"DOUBLE UNSIGNED ZEROFILL", 'n', append(bare("1.5", "0"), null)},
	{"FLOAT", 'n', []edge{{"0.1", "0.1"}, {"16777217", "16777216"}, {"3.4028234e38", "3.4028234663852886e+38"}, {"-3.4028233e38", "-3.4028233e+38"},
		{"1.17549435e-38", "1.1754944e-38"}, {"1e-45", "1e-45"}, {"0.3", "0.3"}, {"123456.789", "123456.79"}, {"8388607.5", "8388607.5"}, {"1e10", "10000000000"}, null}},

	{"CHAR(4)", '"', append(text("", "a", "abcd", " ab", "é😀ß\u2028", "\x00\x01", "a\t", "NULL", "null"), null, edge{"'ab  '", "ab"})},
	{"VARCHAR(9)", '"', append(text("", " ", "ab  ", "é😀ß\u2028", "\x00\x1f\x7f", "\b\f\n\r\t", `"\/'`+"`", "NULL", "null", "0", "{}", "e\u0301\ufeff\uffff"), null)},
	{"VARCHAR(300)", '"', append(text(strings.Repeat("😀", 300), strings.Repeat("\x00'\\\"\x1a\n", 50), "%_?:;--#/**/"), null)},
	{"VARCHAR(9) CHARACTER SET latin1", '"', append(text("é€Ÿ\u0081", ""), null)},
	{"VARCHAR(9) CHARACTER SET utf8mb3", '"', append(text("é\uffff", ""), null)},
	{"VARCHAR(9) CHARACTER SET utf16", '"', append(text("é😀", ""), null)},
	{"VARCHAR(9) COLLATE utf8mb4_general_ci NOT NULL DEFAULT 'x'", '"', text("", "Éa ", "x")},
	{"TINYTEXT", '"', append(text(strings.Repeat("x", 255), strings.Repeat("é", 127), "", " "), null)},
	{"TEXT", '"', append(text(strings.Repeat("é", 32767), "", "😀 "), null)},
	{"MEDIUMTEXT", '"', append(text(strings.Repeat("x", 65536), ""), null)},
	{"LONGTEXT", '"', append(text(strings.Repeat("\x00😀", 20000), "", "not json", "{}"), null)},
	{"ENUM('a','B','b''c','d\\\\e','','é','1','0','😀')", '"', append(text("a", "B", "b'c", `d\e`, "", "é", "1", "0", "😀"), null)},
	{"SET('a','b','ö''','1','😀')", '"', append(text("", "a", "a,b,ö',1,😀", "1", "b,😀"), null, edge{"'b,a'", "a,b"})},

	{"BINARY(4)", 'b', append(raw("\x00\x00\x00\x00", "abcd", "\xff\x00\xfe ", "'\\\"\n"), null, edge{"x'00ff'", "\x00\xff\x00\x00"})},
	{"VARBINARY(256)", 'b', append(raw("", "\x00", "\x00\x00", "  ", "\xff\xfe", "\x00\xff'\\\"\n\x1a", everyByte), null)},
	{"TINYBLOB", 'b', append(raw("", "\xff"), null)},
	{"BLOB", 'b', append(raw(strings.Repeat(everyByte, 255), "", "\x00"), null)},
	{"MEDIUMBLOB", 'b', append(raw(strings.Repeat(everyByte, 257), ""), null)},
	{"LONGBLOB", 'b', append(raw(strings.Repeat(everyByte, 300), ""), null)},

	{"DATE", '"', append(text("2024-02-29", "1000-01-01", "0001-01-01", "9999-12-31", "0000-00-00", "2024-00-00", "2024-01-00", "0000-01-01"), null)},
	{"DATETIME", '"', append(text("2024-01-01 00:00:00", "9999-12-31 23:59:59", "0000-00-00 00:00:00", "2024-00-10 01:02:03", "0000-00-00 00:00:01"), null)},
	{"DATETIME(3)", '"', append(text("2024-01-01 23:59:59.001", "2024-01-01 00:00:00.000", "0000-00-00 00:00:00.000"), null, edge{"'2024-01-01 0:0:0.5'", "2024-01-01 00:00:00.500"})},
	{"DATETIME(6)", '"', append(text("2024-01-01 23:59:59.999999", "9999-12-31 23:59:59.999999", "2024-01-01 00:00:00.000001"), null)},
	{"TIMESTAMP NULL", '"', append(text("1970-01-01 00:00:01", "2038-01-19 03:14:07", "0000-00-00 00:00:00", "2024-03-31 02:30:00", "2024-10-27 02:30:00"), null)},
	{"TIMESTAMP(6) NULL", '"', append(text("2038-01-19 03:14:07.999999", "0000-00-00 00:00:00.000000", "1970-01-01 00:00:01.000001"), null)},
	{"TIME", '"', append(text("00:00:00", "23:59:59", "838:59:59", "-838:59:59", "-00:00:01", "100:00:00"), null)},
	{"TIME(6)", '"', append(text("00:00:00.000001", "-00:00:00.000001", "838:59:58.999999", "-838:59:59.000000", "-01:02:03.400000"), null)},

	{"JSON", 'n', document("1", "-0", "1.50", "1E400", `"x"`, `"é\u0000\ud83d\ude00"`, "true", "[]", "{}", `{"a" : [1, 2.50], "a":{}, "\u2028<&>":"`+"\u2028"+`"}`,
		"123456789012345678901234567890", strings.Repeat("[", 31)+strings.Repeat("]", 31), "{\n\t\"a\": null\r\n}", `[1, null, "null"]`, "")},
	{"JSON NOT NULL DEFAULT '[]'", 'n', document("null", "[null]", "1")},
	{"UUID", '"', append(text("123e4567-e89b-12d3-a456-426614174000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000000"), null)},
	{"INET4", '"', append(text("0.0.0.0", "255.255.255.255", "10.0.0.1"), null)},
	{"INET6", '"', append(text("::", "::1", "2001:db8::1:1:1:1:0", "::ffff:1.2.3.4", "::1.2.3.4", "1::", "fe80:0:0:1::1", "1:0:0:2::3"), null)},
}

// document are JSON documents; the empty one is NULL.
func document(texts ...string) []edge {
	edges := text(texts...)
	for i, s := range texts {
		if s == "" {
			edges[i] = null
		}
	}
	return edges
}

var everyByte = func() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}()

// edgeRows is how many rows have every edge of every column.
func edgeRows() int {
	n := 0
	for _, c := range edgeColumns {
		n = max(n, len(c.edges))
	}
	return n
}

// edgeAt is the value of a column in the row id, which counts from 1.
func edgeAt(column, id int) edge {
	edges := edgeColumns[column].edges
	return edges[(id-1)%len(edges)]
}

// kindOfImage is one kind of images, with its own table of the edges.
type kindOfImage struct {
	value  string
	keys   func(id int) []string // of one row
	want   func(id int) []string // what read returns of each
	read   func(key string) []any
	writes func(id int) [][]any // what writes what was read of a row
}

var kindsOfImages = []kindOfImage{
	{
		value: "json",
		keys:  func(id int) []string { return []string{fmt.Sprint("json:", id)} },
		want:  func(id int) []string { return []string{jsonImage(id)} },
		read:  func(key string) []any { return []any{"GET", key} },
		writes: func(id int) [][]any {
			return [][]any{{"SET", fmt.Sprint("json:", id), jsonImage(id)}}
		},
	},
	{
		value: "hash",
		keys:  func(id int) []string { return []string{fmt.Sprint("hash:", id)} },
		want:  func(id int) []string { return []string{show(hashImage(id), nil)} },
		read:  func(key string) []any { return append([]any{"HMGET", key}, hashFields()...) },
		writes: func(id int) [][]any {
			set, del := []any{"HSET", fmt.Sprint("hash:", id)}, []any{"HDEL", fmt.Sprint("hash:", id)}
			for i := range edgeColumns {
				if e := edgeAt(i, id); e.sql != "" {
					set = append(set, fmt.Sprint("c", i), e.plain)
				} else {
					del = append(del, fmt.Sprint("c", i))
				}
			}
			if len(del) == 2 {
				return [][]any{set}
			}
			return [][]any{set, del}
		},
	},
	{
		value: "string",
		keys: func(id int) (keys []string) {
			for i := range edgeColumns {
				keys = append(keys, fmt.Sprintf("string%d:%d", i, id))
			}
			return keys
		},
		want: func(id int) (texts []string) {
			for i := range edgeColumns {
				texts = append(texts, plainOr(edgeAt(i, id), "nil"))
			}
			return texts
		},
		read: func(key string) []any { return []any{"GET", key} },
		writes: func(id int) (commands [][]any) {
			for i := range edgeColumns {
				if e := edgeAt(i, id); e.sql != "" {
					commands = append(commands, []any{"SET", fmt.Sprintf("string%d:%d", i, id), e.plain})
				}
			}
			return commands
		},
	},
}

func plainOr(e edge, null string) string {
	if e.sql == "" {
		return null
	}
	return e.plain
}

// jsonImage is the very bytes of the image of a row.
func jsonImage(id int) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"id":%d`, id)
	for i, c := range edgeColumns {
		fmt.Fprintf(&b, `,"c%d":`, i)
		switch e := edgeAt(i, id); {
		case e.sql == "":
			b.WriteString("null")
		case c.form == 'n':
			b.WriteString(e.plain)
		case c.form == 'b':
			b.WriteString(`"` + base64.StdEncoding.EncodeToString([]byte(e.plain)) + `"`)
		default:
			b.WriteString(quotedJSON(e.plain))
		}
	}
	b.WriteByte('}')
	return b.String()
}

// quotedJSON is a JSON string in which only what must be is escaped.
func quotedJSON(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err)
	}
	return strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(strings.TrimSuffix(b.String(), "\n"))
}

// hashFields are the fields of a hash.
func hashFields() []any {
	fields := []any{"id"}
	for i := range edgeColumns {
		fields = append(fields, fmt.Sprint("c", i))
	}
	return fields
}

// hashImage are the values of the fields of a row, nil for those it has not.
func hashImage(id int) []any {
	values := []any{fmt.Sprint(id)}
	for i := range edgeColumns {
		if e := edgeAt(i, id); e.sql != "" {
			values = append(values, e.plain)
		} else {
			values = append(values, nil)
		}
	}
	return values
}

// What MySQL holds is what every client gets, digit for digit and byte for byte, whatever the type of the column and the
// kind of the image; and what a client got and writes is the very row again.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	s := newShop(t, harness.Options{Config: roundTripConfig()})
	var columns, list []string
	for i, c := range edgeColumns {
		columns = append(columns, fmt.Sprintf("c%d %s", i, c.columnType))
		list = append(list, fmt.Sprint("c", i))
	}
	for _, k := range kindsOfImages {
		s.sql("CREATE TABLE " + k.value + "_rows (id INT PRIMARY KEY, " + strings.Join(columns, ", ") + ")")
		for id := 1; id <= edgeRows(); id++ {
			values := []string{fmt.Sprint(id)}
			for i := range edgeColumns {
				e := edgeAt(i, id)
				if e.sql == "" {
					e.sql = "NULL"
				}
				values = append(values, e.sql)
			}
			s.sql("INSERT INTO " + k.value + "_rows (id, " + strings.Join(list, ", ") + ") VALUES (" + strings.Join(values, ", ") + ")")
		}
	}
	s.Start()
	for _, k := range kindsOfImages {
		t.Run(k.value, func(t *testing.T) {
			s := &shop{Keyrow: s.Keyrow, t: t}
			s.roundTrip(k)
		})
	}
	s.Settled()
	s.Equal(harness.Rows{Pattern: "json:{id}", Table: "json_rows"}, harness.Rows{Pattern: "hash:{id}", Table: "hash_rows", Value: "hash"})
}

func roundTripConfig() string {
	var b strings.Builder
	for _, k := range kindsOfImages {
		for i := range edgeColumns {
			name, column := k.value, ""
			if k.value == "string" {
				name, column = fmt.Sprint(k.value, i), fmt.Sprintf("column = \"c%d\"\n", i)
			} else if i > 0 {
				break
			}
			fmt.Fprintf(&b, "[[mapping]]\nname = %q\nkey = %q\ntable = %q\nvalue = %q\n%s", name, name+":{id}", k.value+"_rows", k.value, column)
		}
	}
	return b.String()
}

// roundTrip reads all rows of a kind, from MySQL and then from Redis, and writes each to a row that is gone and to one
// that is another.
func (s *shop) roundTrip(k kindOfImage) {
	var keys, want []string
	for id := 1; id <= edgeRows(); id++ {
		keys, want = append(keys, k.keys(id)...), append(want, k.want(id)...)
	}
	same := func(when string) {
		s.t.Helper()
		for i, got := range s.pipeline(each(keys, k.read)) {
			if got != want[i] {
				s.t.Errorf("%s: %s: %s", when, keys[i], difference(got, want[i]))
			}
		}
	}
	same("read from mysql")
	same("read from redis")

	table := k.value + "_rows"
	before := s.exactly(table)
	for _, step := range []struct{ what, sql string }{
		{"a row that is gone", "DELETE FROM " + table},
		{"a row that is another", shuffled(k)},
	} {
		s.pipeline(each(keys, func(key string) []any { return []any{"DEL", key} }))
		s.sql(step.sql)
		var commands [][]any
		for id := 1; id <= edgeRows(); id++ {
			commands = append(commands, k.writes(id)...)
		}
		for i, got := range s.pipeline(commands) {
			if strings.HasPrefix(got, "-") {
				s.t.Errorf("%s: %.200q is answered %s", step.what, commands[i], got)
			}
		}
		same("written to " + step.what)
		s.Settled()
		if after := s.exactly(table); !slices.Equal(before, after) {
			for i := range min(len(before), len(after)) {
				if before[i] != after[i] {
					s.t.Errorf("written to %s: %.80s …: %s", step.what, before[i], difference(after[i], before[i]))
				}
			}
			s.t.Errorf("%d values instead of %d", len(after), len(before))
		}
		s.pipeline(each(keys, func(key string) []any { return []any{"DEL", key} }))
		same("read again")
	}
}

// difference shows where two texts, which can be long, begin to differ.
func difference(got, want string) string {
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	around := func(text string) string { return text[max(0, at-20):min(len(text), at+100)] }
	return fmt.Sprintf("at %d\n got %q\nwant %q", at, around(got), around(want))
}

// shuffled is the SQL that gives each row of a kind the values of the next one. In the rows of strings a NULL stays, for
// nothing writes one there.
func shuffled(k kindOfImage) string {
	change := "a.c%[1]d = b.c%[1]d"
	if k.value == "string" {
		change = "a.c%[1]d = IF(a.c%[1]d IS NULL, NULL, b.c%[1]d)"
	}
	var set []string
	for i := range edgeColumns {
		set = append(set, fmt.Sprintf(change, i))
	}
	return fmt.Sprintf("CREATE TEMPORARY TABLE o AS SELECT * FROM %[1]s_rows; UPDATE %[1]s_rows a JOIN o b ON b.id = a.id %% %[2]d + 1 SET %[3]s; DROP TABLE o",
		k.value, edgeRows(), strings.Join(set, ", "))
}

// exactly is every value of a table, with its column and row.
func (s *shop) exactly(table string) (values []string) {
	var list []string
	for i, c := range edgeColumns {
		expr := fmt.Sprint("c", i)
		switch {
		case strings.HasPrefix(c.columnType, "FLOAT"):
			expr += "+0e0"
		case c.form == 'b', strings.HasPrefix(c.columnType, "BIT"):
			expr = "HEX(" + expr + ")"
		}
		list = append(list, expr)
	}
	for _, row := range s.table("SELECT id, " + strings.Join(list, ", ") + " FROM " + table + " ORDER BY id") {
		for i, v := range row[1:] {
			values = append(values, fmt.Sprintf("row %s: %s: %q", row[0], edgeColumns[i].columnType, v))
		}
	}
	return values
}

// each makes a command for each key.
func each(keys []string, command func(key string) []any) (commands [][]any) {
	for _, key := range keys {
		commands = append(commands, command(key))
	}
	return commands
}

// pipeline sends commands together and returns their replies, as shown by show.
func (s *shop) pipeline(commands [][]any) []string {
	pipe := s.Client().Pipeline()
	for _, args := range commands {
		pipe.Do(context.Background(), args...)
	}
	done, _ := pipe.Exec(context.Background())
	replies := make([]string, len(done))
	for i, c := range done {
		v, err := c.(*redis.Cmd).Result()
		if err == redis.Nil {
			v, err = nil, nil
		}
		replies[i] = show(v, err)
	}
	return replies
}

// Columns of spatial types are refused at start, all of them at once and with the line that leaves them out.
func TestSpatialRefused(t *testing.T) {
	t.Parallel()
	server := harness.SharedMySQL(t)
	name := server.NewDB(t)
	types := []string{"GEOMETRY", "POINT", "LINESTRING", "POLYGON", "MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON", "GEOMETRYCOLLECTION"}
	columns := "id INT PRIMARY KEY, name VARCHAR(9)"
	for i, columnType := range types {
		columns += fmt.Sprintf(", c%d %s", i, columnType)
	}
	server.Exec(name, "CREATE TABLE places ("+columns+")")
	schema, err := backend.ReadSchema(t.Context(), server.DB(name), []string{"places"})
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"json", "hash"} {
		c := mapping.Default()
		c.Name, c.Key, c.Table, c.Value, c.Write = "place", "place:{id}", "places", value, "deny"
		set, findings := mapping.NewSet([]mapping.Config{c}, nil, schema)
		if set != nil || len(findings) != len(types) {
			t.Errorf("%s: %v", value, findings)
		}
		for i, f := range findings {
			want := fmt.Sprintf(`columns: column "c%d": the spatial type %s cannot be in an image; leave it out, as columns = ["id", "name"]`, i, strings.ToLower(types[i]))
			if !strings.HasSuffix(f.String(), want) {
				t.Errorf("%s: got %s, want %s", value, f, want)
			}
		}
		c.Columns = []string{"id", "name"}
		if set, findings := mapping.NewSet([]mapping.Config{c}, nil, schema); set == nil {
			t.Errorf("%s, with the columns of the hint: %v", value, findings)
		}
	}
	for i := range types {
		c := mapping.Default()
		c.Name, c.Key, c.Table, c.Value, c.Column, c.Write = "place", "place:{id}", "places", "string", fmt.Sprint("c", i), "deny"
		if set, findings := mapping.NewSet([]mapping.Config{c}, nil, schema); set != nil || len(findings) != 1 || !strings.HasSuffix(findings[0].String(), "cannot be in an image; name another column") {
			t.Errorf("string of %s: %v", types[i], findings)
		}
	}
}

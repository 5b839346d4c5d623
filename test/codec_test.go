package test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/test/harness"
)

// table is a table of a real server and the mapping of it, over connections as keyrow has them.
type table struct {
	t  testing.TB
	db *sql.DB
	m  *mapping.Mapping
}

// newTable creates the table t with the definitions given and maps it to the key.
func newTable(t testing.TB, key, definitions string) *table {
	t.Helper()
	server := harness.SharedMySQL(t)
	name := server.NewDB(t)
	conf := backend.DefaultMySQL()
	conf.DSN = server.DSN(name)
	db, err := backend.OpenMySQL(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec("CREATE TABLE t (" + definitions + ")"); err != nil {
		t.Fatalf("%s: %v", definitions, err)
	}
	schema, err := backend.ReadSchema(t.Context(), db, []string{"t"})
	if err != nil {
		t.Fatal(err)
	}
	c := mapping.Default()
	c.Name, c.Key, c.Table = "m", key, "t"
	set, findings := mapping.NewSet([]mapping.Config{c}, nil, schema)
	if set == nil {
		t.Fatalf("%s: %v", definitions, findings)
	}
	return &table{t, db, set.All()[0]}
}

// write stores an image as the flush does.
func (tb *table) write(key string, image []byte) error {
	row, err := tb.m.Row(nil, []byte(key), image)
	if err != nil {
		return fmt.Errorf("row of %s: %w", image, err)
	}
	var marks []string
	var args []any
	for _, v := range row {
		if v == mapping.DefaultValue {
			marks = append(marks, "DEFAULT")
			continue
		}
		marks = append(marks, "?")
		args = append(args, v)
	}
	_, err = tb.db.Exec("REPLACE INTO t (`"+strings.Join(tb.m.WriteColumns(), "`,`")+"`) VALUES ("+strings.Join(marks, ",")+")", args...)
	return err
}

// read returns the key and the image of each row of a condition, as a fill does.
func (tb *table) read(where string, args ...any) (keys, images []string) {
	tb.t.Helper()
	rows, err := tb.db.Query("SELECT "+tb.m.SelectList()+" FROM t WHERE "+where, args...)
	if err != nil {
		tb.t.Fatal(err)
	}
	defer rows.Close()
	columns, _ := rows.Columns()
	row, into := make([][]byte, len(columns)), make([]any, len(columns))
	for rows.Next() {
		for i := range row {
			into[i] = (*sql.RawBytes)(&row[i])
		}
		if err := rows.Scan(into...); err != nil {
			tb.t.Fatal(err)
		}
		image, err := tb.m.Image(nil, row)
		if err != nil {
			tb.t.Fatal(err)
		}
		keys, images = append(keys, string(tb.m.RowKey(nil, row))), append(images, string(image))
	}
	if err := rows.Err(); err != nil {
		tb.t.Fatal(err)
	}
	return keys, images
}

// trip sends a value the whole way round and returns its image.
func (tb *table) trip(value string) (string, error) {
	tb.t.Helper()
	image, err := tb.m.Canonical(nil, []byte("k:1"), []byte(`{"v":`+value+`}`))
	if err != nil {
		return "", fmt.Errorf("canonical: %w", err)
	}
	if err := tb.write("k:1", image); err != nil {
		return "", fmt.Errorf("image %s: %w", image, err)
	}
	keys, images := tb.read("id = 1")
	if len(keys) != 1 || keys[0] != "k:1" || images[0] != string(image) {
		return "", fmt.Errorf("image %s is read back as %s of %s", image, images, keys)
	}
	again, err := tb.m.Canonical(nil, []byte("k:1"), image)
	if err != nil || !bytes.Equal(again, image) {
		return "", fmt.Errorf("image %s is no image: %s, %w", image, again, err)
	}
	return string(image), nil
}

func list(s ...string) []string { return s }

// quoted makes JSON strings.
func quoted(texts ...string) (values []string) {
	for _, s := range texts {
		b, _ := json.Marshal(s)
		values = append(values, string(b))
	}
	return values
}

// TestCodecValues: what is accepted is stored as its image says; what is refused the server would not store either.
func TestCodecValues(t *testing.T) {
	nines := strings.Repeat("9", 35) + "." + strings.Repeat("9", 30)
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	deepObject := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	binary, _ := json.Marshal(everyByte)
	for _, test := range []struct {
		columnType string
		good       []string // JSON
		bad        []string // JSON; a string or number is given to the server as it is
	}{
		{"TINYINT", list("-128", "127", "0", "-0", "1e2", "null"), list("128", "-129")},
		{"TINYINT UNSIGNED", list("0", "255"), list("256", "-1")},
		{"BOOLEAN", list("true", "false", "-128", "127"), nil},
		{"SMALLINT", list("-32768", "32767"), list("32768", "-32769")},
		{"SMALLINT UNSIGNED", list("0", "65535"), list("65536", "-1")},
		{"MEDIUMINT", list("-8388608", "8388607"), list("8388608")},
		{"MEDIUMINT UNSIGNED", list("16777215"), list("16777216")},
		{"INT", list("-2147483648", "2147483647", "12.000"), list("2147483648", "1.5")},
		{"INT(10) UNSIGNED ZEROFILL", list("0", "42", "4294967295"), list("4294967296")},
		{"BIGINT", list("-9223372036854775808", "9223372036854775807", "9007199254740993"), list("9223372036854775808")},
		{"BIGINT UNSIGNED", list("0", "18446744073709551615", "18446744073709551614"), list("18446744073709551616")},
		{"BIGINT ZEROFILL", list("0", "7"), nil},
		{"YEAR", list("0", "1901", "2155", "2024"), list("1900", "2156", "24")},
		{"BIT(1)", list("0", "1"), list("2")},
		{"BIT(7)", list("0", "127", "48"), list("128")},
		{"BIT(64)", list("0", "18446744073709551615", "9223372036854775808"), nil},
		{"DECIMAL(10,2)", list("0", "-0", "1.5", "-12345678.99", "12345678.99", "1e5", "0.01", "-0.01", "1.500", "1e-2"), list("123456789", "1.505")},
		{"DECIMAL(10,0)", list("9999999999"), list("10000000000", "0.5")},
		{"DECIMAL(30,30)", list("0.123456789012345678901234567890", "1e-30"), list("1")},
		{"DECIMAL(65,30)", list(nines, "-"+nines, "1e34"), list("1e35")},
		{"DECIMAL(8,2) UNSIGNED ZEROFILL", list("0", "1.5", "999999.99"), list("-1")},
		{"DOUBLE", list("0", "-0.0", "0.1", "1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308",
			"5e-324", "1e21", "1e20", "123456789.123456789", "1e-7", "0.000001", "9007199254740993", "1e-400"), list("1e400")},
		{"DOUBLE UNSIGNED", list("0", "1.5"), list("-1.5")},
		{"FLOAT", list("0", "-0.0", "0.1", "3.4028234e38", "-3.4028234e38", "1.17549435e-38", "1e-45", "16777217", "0.3", "1e10", "123456.789"), list("1e39")},

		{"CHAR(3)", append(quoted("", "a", "abc", "ab  ", "   ", " a", "abc   ", "é😀ß", "\x00", "a\tb"), "null"), quoted("abcd")},
		{"VARCHAR(3)", quoted("", "a", "ab ", "   ", "é😀ß", "\x00\n\\", `'"`+"`", "\u2028"), quoted("abcd", "ab  ")},
		{"VARCHAR(300)", quoted(strings.Repeat("😀", 300), strings.Repeat("\x00'\\\"\x1a\n\r", 42), "%_?:;--#/**/"), quoted(strings.Repeat("x", 301))},
		{"VARCHAR(3) CHARACTER SET latin1", quoted("é€Ÿ", "\u0081\u009d"), quoted("ł", "😀", "\u0080")},
		{"VARCHAR(3) CHARACTER SET ascii", quoted("\x00\x7fa"), quoted("é")},
		{"VARCHAR(3) CHARACTER SET utf8mb3", quoted("\uffff\ufffdé"), quoted("😀")},
		{"VARCHAR(3) CHARACTER SET ucs2", quoted("\uffffé"), quoted("😀")},
		{"VARCHAR(3) CHARACTER SET utf16", quoted("😀é"), nil},
		{"CHAR(3) CHARACTER SET utf32", quoted("😀é "), nil},
		{"TINYTEXT", quoted(strings.Repeat("x", 255), strings.Repeat("é", 127), " ", ""), quoted(strings.Repeat("x", 256), strings.Repeat("é", 128))},
		{"TINYTEXT CHARACTER SET latin1", quoted(strings.Repeat("é", 255)), quoted(strings.Repeat("é", 256))},
		{"TINYTEXT CHARACTER SET utf16", quoted(strings.Repeat("é", 127), strings.Repeat("😀", 63)), quoted(strings.Repeat("é", 128), strings.Repeat("😀", 64))},
		{"TEXT", quoted(strings.Repeat("x", 65535)), quoted(strings.Repeat("x", 65536))},
		{"MEDIUMTEXT", quoted(strings.Repeat("x", 65536)), nil},
		{"LONGTEXT", quoted(strings.Repeat("\x00", 65536)), nil},
		{"ENUM('a','B','b''c','d\\\\e','f\\ng','','é','1','0')", quoted("a", "B", "b'c", `d\e`, "f\ng", "", "é", "1", "0"), quoted("A", "c", "2", "9")},
		{"ENUM('x') CHARACTER SET latin1", quoted("x"), nil},
		{"ENUM('a\\0b','r\\rt\\tz\\Z\\bq\\\"d''x%_','😀x','?')", quoted("a\x00b", "r\rt\tz\x1a\bq\"d'x%_", "😀x", "?"), quoted("x", "😀y")},
		{"SET('a','😀','b')", quoted("b,😀", "😀,a"), quoted("?x")},
		{"SET('a','b','ö''','1')", quoted("", "a", "b,a", "a,a", "ö',1", "1"), quoted("c", "a,,b", "A", ",a")},
		{"BINARY(4)", list(`""`, `"AA=="`, `"AP8="`, `"AP8AAA=="`, `"ICAgIA=="`, `"J1xcIg=="`), nil},
		{"VARBINARY(256)", list(`""`, `"AA=="`, `"ICA="`, string(binary)), nil},
		{"TINYBLOB", list(`""`, `"/w=="`), nil},
		{"BLOB", list(string(binary)), nil},
		{"MEDIUMBLOB", list(string(binary)), nil},
		{"LONGBLOB", list(string(binary)), nil},

		{"DATE", quoted("2024-02-29", "1000-01-01", "0001-01-01", "9999-12-31", "0000-00-00", "2024-00-00", "2024-01-00", "2024-00-31", "0000-01-01", "0000-02-28"),
			quoted("2023-02-29", "2024-04-31", "2024-13-01", "2024-01-32", "0000-02-29", "10000-01-01", "2024-1-1", "20240101", "2024-01-01 00:00:00")},
		{"DATETIME", quoted("2024-01-01 00:00:00", "9999-12-31 23:59:59", "0000-00-00 00:00:00", "2024-00-10 01:02:03", "0000-00-00 00:00:01", "2024-01-01 00:00:00.000"),
			quoted("2024-01-01 24:00:00", "2024-01-01 00:60:00", "2024-01-01 00:00:60", "2024-01-01 00:00:00.5", "2024-01-01", "2024-01-01T00:00:00")},
		{"DATETIME(6)", quoted("2024-01-01 00:00:00", "2024-01-01 23:59:59.999999", "2024-01-01 00:00:00.5", "2024-01-01 00:00:00.0000010", "9999-12-31 23:59:59.999999"),
			quoted("2024-01-01 00:00:00.0000001")},
		{"DATETIME(1)", quoted("2024-01-01 00:00:00.9"), quoted("2024-01-01 00:00:00.95")},
		{"TIMESTAMP NULL", quoted("1970-01-01 00:00:01", "2038-01-19 03:14:07", "0000-00-00 00:00:00", "2024-03-31 02:30:00", "2024-10-27 02:30:00"),
			quoted("1970-01-01 00:00:00", "1969-12-31 23:59:59", "2038-01-19 03:14:08", "2024-00-10 00:00:00", "2024-01-00 00:00:00")},
		{"TIMESTAMP(6) NULL", quoted("1970-01-01 00:00:01", "2038-01-19 03:14:07.999999", "0000-00-00 00:00:00"), quoted("2038-01-19 03:14:08")},
		{"TIME", quoted("00:00:00", "-00:00:00", "23:59:59", "838:59:59", "-838:59:59", "100:00:00", "012:00:00"),
			quoted("839:00:00", "00:60:00", "00:00:60", "08:00", "8:00:00", "00:00:00.5", "12")},
		{"TIME(6)", quoted("00:00:00.000001", "-00:00:00.000001", "-00:00:00.0", "838:59:59", "838:59:58.999999", "-01:02:03.4"), nil},

		{"JSON", append(list("1", "-0", "1.50", "1E400", `"x"`, `"é\u0000\ud83d\ude00"`, "true", "[]", "{}", `{"a" : [1, 2.50], "a":{}}`, "[ ]", deep(31), deepObject(31),
			"123456789012345678901234567890"), "null"), nil},
		{"JSON NOT NULL", list("null", "[null]", "1"), nil},
		{"UUID", quoted("123e4567-e89b-12d3-a456-426614174000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "00000000-0000-0000-0000-000000000000"),
			quoted("123e4567-e89b-12d3-a456-42661417400", "123e4567-e89b-12d3-a456-42661417400g")},
		{"INET4", quoted("0.0.0.0", "255.255.255.255", "10.0.0.1"), quoted("256.0.0.0", "1.2.3", "01.2.3.4")},
		{"INET6", quoted("::", "::1", "2001:DB8:0:1:1:1:1:0", "::ffff:1.2.3.4", "::1.2.3.4", "::0.1.0.0", "1::", "fe80::1:0:0:0:1", "1:0:0:2:0:0:0:3"), quoted("fe80::1%eth0", ":::")},
	} {
		t.Run(test.columnType, func(t *testing.T) {
			tb := newTable(t, "k:{id}", "id INT PRIMARY KEY, v "+test.columnType)
			for _, v := range test.good {
				if _, err := tb.trip(v); err != nil {
					t.Errorf("%.100s: %.500v", v, err)
				}
			}
			for _, v := range test.bad {
				if image, err := tb.m.Canonical(nil, []byte("k:1"), []byte(`{"v":`+v+`}`)); err == nil {
					t.Errorf("%.100s is accepted as %.200s", v, image)
				}
				given, arg := any(nil), ""
				if json.Unmarshal([]byte(v), &given) == nil {
					arg = strings.Trim(v, `"`)
					if s, ok := given.(string); ok {
						arg = s
					}
				}
				if _, err := tb.db.Exec("REPLACE INTO t VALUES (1, ?)", arg); err != nil {
					continue
				}
				var got string
				if err := tb.db.QueryRow("SELECT v FROM t WHERE id = 1").Scan(&got); err != nil || got == arg {
					t.Errorf("%.100s is refused, but MySQL stores it, %v", v, err)
				}
			}
		})
	}
}

// TestCodecRandom: the same way round for values nobody thought of.
func TestCodecRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte('0' + r.IntN(10))
		}
		return string(b)
	}
	for _, test := range []struct {
		columnType string
		value      func() string
	}{
		{"DOUBLE", func() string {
			f := math.Float64frombits(r.Uint64())
			if math.IsNaN(f) || math.IsInf(f, 0) {
				f = 0
			}
			b, _ := json.Marshal(f)
			return string(b)
		}},
		{"DOUBLE", func() string { return fmt.Sprintf("%g", r.NormFloat64()*1000) }},
		{"FLOAT", func() string {
			f := float64(math.Float32frombits(r.Uint32()))
			if math.IsNaN(f) || math.IsInf(f, 0) {
				f = 0
			}
			b, _ := json.Marshal(f)
			return string(b)
		}},
		{"FLOAT", func() string { return fmt.Sprintf("%.*f", r.IntN(9), r.Float64()*1e5) }},
		{"DECIMAL(40,20)", func() string { return fmt.Sprintf("-1%s.%s", digits(r.IntN(20)), digits(1+r.IntN(20))) }},
		{"TIME(6)", func() string {
			return fmt.Sprintf(`"%s%02d:%02d:%02d.%s"`, list("", "-")[r.IntN(2)], r.IntN(838), r.IntN(60), r.IntN(60), digits(1+r.IntN(6)))
		}},
		{"DATETIME(3)", func() string {
			return fmt.Sprintf(`"%04d-%02d-%02d %02d:%02d:%02d.%s"`, r.IntN(10000), r.IntN(13), r.IntN(29), r.IntN(24), r.IntN(60), r.IntN(60), digits(1+r.IntN(3)))
		}},
		{"INET6", func() string {
			var groups []string
			for range 8 {
				groups = append(groups, fmt.Sprintf("%x", r.IntN(1<<16)*r.IntN(2)*r.IntN(2)))
			}
			if r.IntN(8) == 0 {
				copy(groups, list("0", "0", "0", "0", "0", "ffff"))
			}
			return `"` + strings.Join(groups, ":") + `"`
		}},
		{"VARCHAR(40)", func() string {
			var s []rune
			for range r.IntN(40) {
				c := rune(r.IntN(1 << (1 + r.IntN(20))))
				if 0xd800 <= c && c < 0xe000 {
					c = ' '
				}
				s = append(s, c)
			}
			return quoted(string(s))[0]
		}},
	} {
		t.Run(test.columnType, func(t *testing.T) {
			tb := newTable(t, "k:{id}", "id INT PRIMARY KEY, v "+test.columnType)
			for range 200 {
				v := test.value()
				if _, err := tb.trip(v); err != nil {
					t.Fatalf("%s: %v", v, err)
				}
			}
		})
	}
}

// TestCodecDefaults: a SET that leaves a column out gets the image that a fill of the row makes.
func TestCodecDefaults(t *testing.T) {
	tb := newTable(t, "k:{id}", `id INT PRIMARY KEY,
		a INT NOT NULL DEFAULT 7, b DECIMAL(10,2) DEFAULT 1, c CHAR(5) DEFAULT 'x ', d VARCHAR(20) DEFAULT 'it''s\\\n"NULL"',
		e VARCHAR(9) NOT NULL DEFAULT 'NULL', f BINARY(4) DEFAULT 'ab', g BIT(9) DEFAULT b'101', h ENUM('a','b''') DEFAULT 'b''',
		i SET('a','b') DEFAULT 'b,a', j DATE DEFAULT '2024-1-2', k DATETIME(3) DEFAULT '2024-01-02 03:04:05', l TIME(1) DEFAULT '1:2:3',
		m TIMESTAMP NULL DEFAULT '2024-01-02 03:04:05', n YEAR DEFAULT 0, o FLOAT DEFAULT 0, p DOUBLE DEFAULT 1e30,
		q INT(5) UNSIGNED ZEROFILL DEFAULT 3, r JSON DEFAULT '{"a": 1}', s TEXT DEFAULT 'té', t BOOLEAN DEFAULT TRUE, u TEXT,
		v VARCHAR(9) DEFAULT '', w BIGINT UNSIGNED DEFAULT 18446744073709551615, x BLOB DEFAULT x'00ff', y UUID DEFAULT '123e4567-e89b-12d3-a456-426614174000'`)
	image, err := tb.m.Canonical(nil, []byte("k:1"), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tb.db.Exec("INSERT INTO t (id) VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if _, images := tb.read("id = 1"); images[0] != string(image) {
		t.Errorf("SET makes\n%s\nthe row is\n%s", image, images[0])
	}
	if row, err := tb.m.Row(nil, []byte("k:1"), image); err != nil || !tb.m.Predictable(row) {
		t.Error("every default is a constant, but images are not kept", err)
	}
	if err := tb.write("k:1", image); err != nil {
		t.Fatal(err)
	}
	if _, images := tb.read("id = 1"); images[0] != string(image) {
		t.Errorf("wrote\n%s\nthe row is\n%s", image, images[0])
	}

	tb = newTable(t, "k:{id}", `id INT PRIMARY KEY, a TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, b INT DEFAULT (1+1), c UUID DEFAULT UUID(),
		d VARCHAR(9) DEFAULT '😀', e BINARY(4) DEFAULT x'ff80', f FLOAT DEFAULT 16777217, g TEXT DEFAULT 'x😀'`)
	image, err = tb.m.Canonical(nil, []byte("k:1"), []byte("{}"))
	if err != nil || string(image) != `{"id":1}` {
		t.Fatalf("%s, %v", image, err)
	}
	if row, err := tb.m.Row(nil, []byte("k:1"), image); err != nil || tb.m.Predictable(row) {
		t.Error("defaults are left to MySQL, but images are kept", err)
	}
	if err := tb.write("k:1", image); err != nil {
		t.Fatal(err)
	}
	if _, images := tb.read("id = 1"); !strings.HasSuffix(images[0], `"d":"😀","e":"/4AAAA==","f":16777216,"g":"x😀"}`) {
		t.Errorf("the row is %s", images[0])
	}
}

// TestCodecKeys: the row of a key is found by its arguments, gives that key again, and no neighbour does.
func TestCodecKeys(t *testing.T) {
	for _, test := range []struct {
		columnType string
		texts      []string
	}{
		{"INT", list("0", "-1", "42", "-2147483648")},
		{"INT(10) UNSIGNED ZEROFILL", list("0", "42")},
		{"BIGINT", list("9007199254740992", "9007199254740993", "-9223372036854775808")},
		{"BIGINT UNSIGNED", list("18446744073709551615", "18446744073709551614", "18446744073709551613")},
		{"DECIMAL(15,2)", list("0.00", "-1.50", "9999999999999.99", "9999999999999.98")},
		{"DECIMAL(18,0)", list("999999999999999999", "999999999999999998")},
		{"YEAR", list("0", "2024")},
		{"CHAR(9) COLLATE utf8mb4_bin", list("Bob", "bob", "é:x")},
		{"VARCHAR(9) COLLATE utf8mb4_nopad_bin", list("Bob", "bob", "Bob ", "é:x😀")},
		{"VARCHAR(9) COLLATE utf8mb4_general_ci", list("Bob", "é:x")},
		{"VARCHAR(9) CHARACTER SET latin1", list("é", "f€")},
		{"ENUM('a','b','1','2')", list("a", "b", "2", "1")},
		{"BINARY(4)", list("\x00\xff\x00\x00", "abcd")},
		{"VARBINARY(9)", list("\x00", "\x00\x00", "Bob ", "Bob", "\xff")},
		{"DATE", list("2024-01-02", "0000-00-00")},
		{"DATETIME(3)", list("2024-01-02 03:04:05.000", "2024-01-02 03:04:05.001")},
		{"TIMESTAMP", list("2024-01-02 03:04:05", "2024-10-27 01:30:00")},
		{"TIME(1)", list("-00:00:01.5", "100:00:00.0")},
		{"UUID", list("123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001")},
		{"INET4", list("10.0.0.1", "10.0.0.2")},
		{"INET6", list("::1", "2001:db8::1", "::ffff:1.2.3.4")},
	} {
		t.Run(test.columnType, func(t *testing.T) {
			tb := newTable(t, "k:{v}", "v "+test.columnType+" NOT NULL PRIMARY KEY, n INT")
			for i, text := range test.texts {
				key := "k:" + text
				image, err := tb.m.Canonical(nil, []byte(key), fmt.Appendf(nil, `{"n":%d}`, i))
				if err != nil {
					t.Fatalf("%q: %v", key, err)
				}
				if err := tb.write(key, image); err != nil {
					t.Fatalf("%q: %v", key, err)
				}
			}
			for i, text := range test.texts {
				key := "k:" + text
				args, err := tb.m.KeyArgs(nil, []byte(key))
				if err != nil {
					t.Fatal(err)
				}
				for _, where := range list("v = ?", "v IN (?)", "(v, 1) IN ((?, 1))") {
					keys, images := tb.read(where, args...)
					if len(keys) != 1 || keys[0] != key || !strings.HasSuffix(images[0], fmt.Sprintf(`"n":%d}`, i)) {
						t.Errorf("%q is the row of %q: %s", keys, key, images)
					}
				}
			}
		})
	}
}

// TestCodecCharsets: a character is refused exactly if the charset of the column has none for it.
func TestCodecCharsets(t *testing.T) {
	for _, charset := range list("utf8mb4", "utf8mb3", "ucs2", "utf16", "utf16le", "utf32", "ascii", "latin1", "latin2", "latin5", "latin7",
		"cp1250", "cp1251", "cp1257", "cp850", "cp852", "koi8r", "macroman") {
		t.Run(charset, func(t *testing.T) {
			tb := newTable(t, "k:{id}", "id INT PRIMARY KEY, v VARCHAR(1) CHARACTER SET "+charset)
			rows, err := tb.db.Query("SELECT seq, CONVERT(CONVERT(CHAR(seq USING utf32) USING " + charset + ") USING utf32) = CHAR(seq USING utf32) COLLATE utf32_bin " +
				"FROM seq_1_to_65535 WHERE seq NOT BETWEEN 0xd800 AND 0xdfff")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			wrong := 0
			for rows.Next() {
				var r rune
				var has bool
				if err := rows.Scan(&r, &has); err != nil {
					t.Fatal(err)
				}
				_, err := tb.m.Canonical(nil, []byte("k:1"), []byte(`{"v":`+quoted(string(r))[0]+`}`))
				if (err == nil) != has {
					if wrong++; wrong < 10 {
						t.Errorf("U+%04X: MySQL has it: %v; %v", r, has, err)
					}
				}
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

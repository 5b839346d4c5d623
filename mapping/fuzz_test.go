package mapping

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"testing"
	"unicode/utf8"
)

// everyType is a mapping of a table with a column of every type.
func everyType(t testing.TB) *Mapping {
	t.Helper()
	created := typed("created", "timestamp")
	created.DefaultExpr = true
	return compiled(t, users(
		notNull(typed("id", "int(11)")),
		notNull(typed("name", "varchar(9)")),
		typed("flag", "tinyint(1)"), typed("big", "bigint(20) unsigned"), typed("y", "year(4)"), typed("bits", "bit(64)"),
		typed("dec", "decimal(20,4)"), typed("f", "float"), typed("d", "double"),
		typed("c", "char(4)"), typed("v", "varchar(4) charset=latin1"), withDefault(typed("t", "tinytext"), "x"),
		typed("e", "enum('a','b''c')"), typed("s", "set('a','b','c')"), typed("j", "mariajson"), typed("nj", "json"),
		typed("b", "binary(3)"), typed("vb", "varbinary(3)"), typed("bl", "blob"),
		typed("day", "date"), typed("dt", "datetime(3)"), typed("ts", "timestamp(6)"), typed("tm", "time(1)"), created,
		typed("u", "uuid"), typed("i4", "inet4"), typed("i6", "inet6"),
	), "k:{name}:{id}", func(c *Config) { c.Fields = map[string]string{"e": `"é\`} })
}

// FuzzCanonical: whatever a client sends, an image is JSON, is its own image, and makes a row.
func FuzzCanonical(f *testing.F) {
	m := everyType(f)
	for _, seed := range [][2]string{
		{"k:n:1", `{}`},
		{"k:a:b:-7", `{"id":-7,"name":"a:b","flag":true,"big":18446744073709551615,"y":2024,"bits":1e3}`},
		{"k:n:1", `{"dec":-1.50,"f":0.1,"d":1e-400,"c":"a ","v":"€","t":null,"\"é\\":"b'c","s":"c,a"}`},
		{"k:n:1", `{"j":{"a" : [1,"\ud83d\ude00"]},"nj":null,"b":"AA==","vb":"","bl":"/w=="}`},
		{"k:n:1", `{"day":"0000-00-00","dt":"2024-02-29 00:00:00.5","ts":"2038-01-19 03:14:07","tm":"-838:59:59","created":"1999-01-01 00:00:00"}`},
		{"k:n:1", `{"u":"123E4567-e89b-12d3-a456-426614174000","i4":"1.2.3.4","i6":"::ffff:1.2.3.4"}`},
		{"k:n:01", ` {"id" : 1}`},
		{"k::1", `[{`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, key, in []byte) {
		if !m.pattern.match(key) {
			return
		}
		before := bytes.Clone(in)
		got, err := m.Canonical([]byte("x"), key, in)
		if !bytes.Equal(before, in) || got[0] != 'x' {
			t.Fatal("changed what it was given")
		}
		if m.Names(key) != (m.Refusal(key) == nil) {
			t.Fatalf("%q: Names %v, Refusal %v", key, m.Names(key), m.Refusal(key))
		}
		if err != nil {
			if len(got) != 1 {
				t.Fatalf("an error and %q", got)
			}
			return
		}
		image := got[1:]
		if !json.Valid(image) || !m.Names(key) {
			t.Fatalf("%q: image %q", key, image)
		}
		if again, err := m.Canonical(nil, key, image); err != nil || !bytes.Equal(again, image) {
			t.Fatalf("the image of %s\nis %s, %v", image, again, err)
		}
		row, err := m.Row(nil, key, image)
		if err != nil || len(row) != len(m.WriteColumns()) {
			t.Fatalf("row of %s: %v, %v", image, row, err)
		}
		if straight, err := m.Row(nil, key, in); err != nil || !reflect.DeepEqual(row, withDefaults(m, straight, row)) {
			t.Fatalf("the row of the value\n%v, %v\nthat of its image\n%v", straight, err, row)
		}
	})
}

// withDefaults puts into row the constants that other has where row says DEFAULT.
func withDefaults(m *Mapping, row, other []any) []any {
	for i, v := range row {
		if v == DefaultValue && m.columns[i].missing == defaulted {
			row[i] = other[i]
		}
	}
	return row
}

var surrogate = regexp.MustCompile(`\\u[dD][89a-fA-F]`)

// FuzzJSON holds the scanner against encoding/json, which is laxer in the three points that the scanner names.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-0.5e+7,true,null]}`, `"\u00e9\ud83d\ude00\n"`, `[[[]]]`, ` 0 `, `"\ud800"`, "\"\xff\"", `01`, `[1,]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := parseValue(data)
		if err != nil {
			if json.Valid(data) && utf8.Valid(data) && !surrogate.Match(data) && len(data) < maxDepth {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		if !json.Valid(data) || !bytes.Equal(v.raw, bytes.Trim(data, " \t\r\n")) {
			t.Fatalf("%q is read as %q", data, v.raw)
		}
		if v.kind == '"' {
			var want string
			if err := json.Unmarshal(data, &want); err != nil || string(v.text()) != want {
				t.Fatalf("%s: %q, want %q", data, v.text(), want)
			}
			if again, err := parseValue(appendString(nil, v.text())); err != nil || string(again.text()) != want {
				t.Fatalf("%q: %q, %v", want, again.text(), err)
			}
		}
	})
}

package mapping

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func hash(c *Config)   { c.Value, c.Write = "hash", "deny" }
func single(c *Config) { c.Value, c.Column, c.Write = "string", "v", "deny" }

// TestPlain: what MySQL's text is in a hash and in a string, and the SQL argument that is made of it. An arg of nil
// means that the text is not taken back.
func TestPlain(t *testing.T) {
	for _, test := range []struct {
		columnType, text, want string
		arg                    any
	}{
		{"int(10) unsigned zerofill", "0000000042", "42", int64(42)},
		{"bigint(20) unsigned", "18446744073709551615", "18446744073709551615", uint64(18446744073709551615)},
		{"bigint(20)", "-9223372036854775808", "-9223372036854775808", int64(-9223372036854775808)},
		{"tinyint(1)", "1", "1", int64(1)},
		{"bit(64)", "18446744073709551615", "18446744073709551615", uint64(18446744073709551615)},
		{"year(4)", "0000", "0", int64(0)},
		{"decimal(10,2)", "-1.50", "-1.50", "-1.50"},
		{"decimal(8,2) unsigned zerofill", "000001.50", "1.50", "1.50"},
		{"double", "1.7976931348623157e308", "1.7976931348623157e+308", "1.7976931348623157e+308"},
		{"double", "-0", "0", "0"},
		{"float", "0.10000000149011612", "0.1", "0.1"},
		{"varchar(9)", "", "", ""},
		{"varchar(9)", "a\x00\"\\é\n", "a\x00\"\\é\n", "a\x00\"\\é\n"},
		{"varchar(9)", "null", "null", "null"},
		{"text", "\xff", "!not valid UTF-8", nil},
		{"enum('a','')", "", "", ""},
		{"set('a','b')", "a,b", "a,b", "a,b"},
		{"varbinary(9)", "\x00\xff", "\x00\xff", []byte{0, 255}},
		{"varbinary(9)", "", "", []byte{}},
		{"binary(3)", "a\x00\x00", "a\x00\x00", []byte{'a', 0, 0}},
		{"blob", "YWJj", "YWJj", []byte("YWJj")},
		{"date", "0000-00-00", "0000-00-00", "0000-00-00"},
		{"datetime(3)", "2024-01-01 00:00:00.120", "2024-01-01 00:00:00.120", "2024-01-01 00:00:00.120"},
		{"time(1)", "-838:59:58.9", "-838:59:58.9", "-838:59:58.9"},
		{"mariajson", " {\"a\" : 1}\n", `{"a" : 1}`, `{"a" : 1}`},
		{"mariajson", "null", "null", "null"},
		{"mariajson", "1.", "!not valid JSON", nil},
		{"uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"},
	} {
		row := [][]byte{[]byte("7"), []byte("7"), []byte(test.text)}
		schema := users(notNull(typed("id", "int(11)")), typed("v", test.columnType))
		for _, kind := range []func(*Config){hash, single} {
			m := compiled(t, schema, "user:{id}", kind)
			values, err := m.Values(nil, row)
			if want, bad := strings.CutPrefix(test.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), want) || len(values) != 0 {
					t.Errorf("%s %q: %q, %v; want the error %s", test.columnType, test.text, values, err, want)
				}
				continue
			}
			want := fmt.Sprintf("%q", []string{test.want})
			if m.Kind == KindHash {
				want = fmt.Sprintf("%q", []string{"id", "7", "v", test.want})
			}
			if got := fmt.Sprintf("%q", values); err != nil || got != want {
				t.Errorf("%s %s %q: %s, %v; want %s", m.Kind, test.columnType, test.text, got, err, want)
				continue
			}
			back, err := m.RowOf(nil, []byte("user:7"), values)
			if err != nil || !reflect.DeepEqual(back, []any{int64(7), test.arg}) {
				t.Errorf("%s %s %q: row %#v, %v; want %#v", m.Kind, test.columnType, test.text, back, err, test.arg)
			}
		}
	}
}

// TestPlainNull: NULL is an absent field and an absent key, and neither is the empty string.
func TestPlainNull(t *testing.T) {
	schema := primary(users(notNull(typed("id", "int(11)")), typed("v", "varchar(9)"), notNull(typed("n", "int(11)"))), "id")
	row := [][]byte{[]byte("7"), []byte("7"), nil, []byte("1")}
	h := compiled(t, schema, "user:{id}", hash)
	if got, err := h.Values(nil, row); err != nil || fmt.Sprintf("%q", got) != `["id" "7" "n" "1"]` {
		t.Errorf("%q, %v", got, err)
	}
	s := compiled(t, schema, "user:{id}", single)
	if got, err := s.Values(nil, [][]byte{[]byte("7"), []byte("7"), nil}); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	if row, err := s.RowOf(nil, []byte("user:7"), nil); err != nil || !reflect.DeepEqual(row, []any{int64(7), nil}) {
		t.Errorf("%#v, %v", row, err)
	}
	for _, test := range []struct{ fields, want string }{
		{"id=7 n=1", "[7 <nil> 1]"},
		{"n=1", "[7 <nil> 1]"},
		{"n=1 v=", "[7  1]"},
		{"n=1e2 v=x", "[7 x 100]"},
		{"v=x", `!column "n": absent, which means NULL, but the column is NOT NULL`},
		{"n=", `!column "n": "" is not a number`},
		{"n=01", `!column "n": "01" is not a number`},
		{"n=1.5", `!column "n": "1.5" is not a whole number`},
		{"id=8 n=1", `!column "id": "8" in the value, but the key says "7"`},
		{"n=1 n=1", `!the field "n" stands twice`},
		{"n=1 N=1", `!no field "N" in mapping "user"; it has id, v, n`},
		{"n=1 v=0123456789", `!column "v": 10 characters, at most 9`},
		{"n=1 v=\xff", `!column "v": not valid UTF-8`},
	} {
		var values [][]byte
		for _, f := range strings.Fields(test.fields) {
			name, value, _ := bytes.Cut([]byte(f), []byte("="))
			values = append(values, name, value)
		}
		row, err := h.RowOf(nil, []byte("user:7"), values)
		if want, bad := strings.CutPrefix(test.want, "!"); bad {
			if err == nil || err.Error() != want || row != nil {
				t.Errorf("%s: %v, %v; want the error %s", test.fields, row, err, want)
			}
		} else if err != nil || fmt.Sprint(row) != test.want {
			t.Errorf("%s: %v, %v; want %s", test.fields, row, err, test.want)
		}
	}
}

// TestPlainNamed: a field has the name that fields gives it, and columns leaves others out.
func TestPlainNamed(t *testing.T) {
	m := compiled(t, shop2(), "user:{id}", hash, func(c *Config) {
		c.Columns = []string{"b", "a"}
		c.Fields = map[string]string{"a": "b", "b": "ü"}
	})
	got, err := m.Values(nil, [][]byte{[]byte("1"), []byte("1"), []byte("2"), []byte("3")})
	if err != nil || fmt.Sprintf("%s", got) != "[id 1 ü 2 b 3]" {
		t.Errorf("%s, %v", got, err)
	}
	row, err := m.RowOf(nil, []byte("user:1"), got)
	if err != nil || fmt.Sprint(row) != "[1 2 3]" || fmt.Sprint(m.WriteColumns()) != "[id b a]" {
		t.Errorf("%v, %v", row, err)
	}
}

// TestString: the one column is the image, whatever else selects and writes the row.
func TestString(t *testing.T) {
	m := compiled(t, shop2(), "user:{id}", single, func(c *Config) { c.Column = "b" })
	if m.SelectList() != "`id`, `id`, `b`" || fmt.Sprint(m.WriteColumns()) != "[id b]" {
		t.Error(m.SelectList(), m.WriteColumns())
	}
	m = compiled(t, shop2(), "user:{id}", single, func(c *Config) { c.Column = "id" })
	if got, err := m.Values(nil, [][]byte{[]byte("1"), []byte("1")}); err != nil || fmt.Sprintf("%s", got) != "[1]" {
		t.Errorf("%s, %v", got, err)
	}
	if row, err := m.RowOf(nil, []byte("user:1"), [][]byte{[]byte("2")}); err == nil {
		t.Error(row)
	}
}

package mapping

import (
	"fmt"
	"strings"
	"testing"
)

// shop has a column of every kind of absence.
func shop() Schema {
	created := notNull(typed("created", "timestamp"))
	created.DefaultExpr = true
	return users(
		notNull(typed("id", "int(11)")),
		notNull(typed("email", "varchar(20)")),
		typed("nick", "varchar(20)"),
		withDefault(notNull(typed("balance", "decimal(10,2)")), "0"),
		created,
		typed("doc", "mariajson"),
	)
}

func user(t testing.TB) *Mapping {
	return compiled(t, primary(shop(), "id"), "user:{id}", func(c *Config) { c.Fields = map[string]string{"email": `e"mail`} })
}

func TestCanonical(t *testing.T) {
	m := user(t)
	const rest = `,"nick":null,"balance":0.00,"doc":null}`
	for _, test := range []struct{ in, want string }{
		{`{"e\"mail":"a@b"}`, `{"id":42,"e\"mail":"a@b"` + rest},
		{" {\n\"e\\u0022mail\" : \"a@b\" , \"id\" : 42\t}\r\n", `{"id":42,"e\"mail":"a@b"` + rest},
		{`{"doc": {"x" : [ ]},"created":"2024-01-01 00:00:00","e\"mail":"","balance":7,"nick":"n"}`,
			`{"id":42,"e\"mail":"","nick":"n","balance":7.00,"created":"2024-01-01 00:00:00","doc":{"x" : [ ]}}`},
		{`{"e\"mail":"x","nick":null}`, `{"id":42,"e\"mail":"x"` + rest},
		{`{"e\"mail":"x","id":4.2e1}`, `{"id":42,"e\"mail":"x"` + rest},
		{`{"e\"mail":"x","id":43}`, `!column "id": 43 in the value, but the key says 42`},
		{`{"e\"mail":"x","id":null}`, `!column "id": null, but the column is NOT NULL`},
		{`{"e\"mail":"x","id":"42"}`, `!column "id": a string, want a whole number`},
		{`{}`, `!column "email": missing; it is NOT NULL and has no default, so give the field "e\"mail" a value`},
		{`{"e\"mail":null}`, `!column "email": null, but the column is NOT NULL`},
		{`{"e\"mail":"x","balance":null}`, `!column "balance": null, but the column is NOT NULL`},
		{`{"e\"mail":"x","created":null}`, `!column "created": null, but the column is NOT NULL`},
		{`{"email":"x"}`, `!no field "email" in mapping "user"; it has id, e"mail, nick, balance, created, doc`},
		{`{"e\"mail":"x","e\u0022mail":"x"}`, `!the field "e\"mail" stands twice`},
		{`{"e\"mail":"x","nick":1,"nick":null}`, `!the field "nick" stands twice`},
		{``, `!not JSON: it ends at offset 0; want a JSON object`},
		{`null`, `!not JSON: 'n' at offset 0; want a JSON object`},
		{`[]`, `!want a JSON object`},
		{`{"id":42`, `!not JSON: it ends at offset 8; want , or }`},
		{`{"id":42,}`, `!not JSON: '}' at offset 9; want a field name in quotes`},
		{`{"id":042}`, `!not JSON: '4' at offset 7; want , or }`},
		{`{"id":+42}`, `!not JSON: '+' at offset 6; want a value`},
		{`{"id":.5}`, `!not JSON: '.' at offset 6; want a value`},
		{`{"id":1.}`, `!not JSON: '}' at offset 8; want a digit`},
		{`{"id":-}`, `!want a digit`},
		{`{"id":1e}`, `!want a digit`},
		{`{"id":NaN}`, `!want a value`},
		{`{"id":42} x`, `!not JSON: 'x' at offset 10; want nothing after the object`},
		{`{"id":42}{}`, `!want nothing after the object`},
		{`{id:42}`, `!want a field name in quotes`},
		{`{"id" 42}`, `!want :`},
		{`{"nick":"a` + "\n" + `"}`, `!not JSON: '\n' at offset 10; want control characters escaped`},
		{`{"nick":"\x"}`, `!want an escape of JSON`},
		{`{"nick":"\u12g4"}`, `!want four hex digits`},
		{`{"nick":"\u12`, `!want four hex digits`},
		{`{"nick":"`, `!it ends at offset 9`},
		{`{"nick":"\`, `!it ends at offset 10`},
		{"\ufeff{}", `!want a JSON object`},
		{"{\"nick\":\"\xc0\x80\"}", `!not valid UTF-8`},
		{`{"doc":` + repeat("[", 1000), `!nested more than 101 levels deep`},
		{`{"doc":` + repeat(`{"a":`, 1000), `!nested more than`},
		{`{"doc":[1 2]}`, `!want , or ]`},
		{`{"doc":{"a":1]}`, `!want , or }`},
		{`{"doc":["\ud800"]}`, `!offset 9: a lone surrogate`},
	} {
		got, err := m.Canonical([]byte("x"), []byte("user:42"), []byte(test.in))
		if want, bad := strings.CutPrefix(test.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) || string(got) != "x" {
				t.Errorf("%s: got %s, %v; want the error %s", test.in, got, err, want)
			}
		} else if err != nil || string(got) != "x"+test.want {
			t.Errorf("%s: got %s, %v; want %s", test.in, got, err, test.want)
		}
	}
	if _, err := m.Canonical(nil, []byte("user:042"), []byte(`{"e\"mail":"x"}`)); err == nil || !strings.Contains(err.Error(), `"042" in a key is spelled 42`) {
		t.Error(err)
	}
}

func TestRow(t *testing.T) {
	m := user(t)
	for _, test := range []struct {
		image string
		want  string
	}{
		{`{"id":42,"e\"mail":"a","nick":null,"balance":0.00,"doc":null}`, `[42 a <nil> 0.00 DEFAULT <nil>]`},
		{`{"id":42,"e\"mail":"a","nick":"","balance":1.00,"created":"2024-01-01 00:00:00","doc":[1, 2]}`, `[42 a  1.00 2024-01-01 00:00:00 [1, 2]]`},
		{`{"e\"mail":"a"}`, `[42 a <nil> DEFAULT DEFAULT <nil>]`}, // what a script may leave behind
		{`{"id":43,"e\"mail":"a"}`, `!43 in the value, but the key says 42`},
		{`{"id":42}`, `!column "email": missing`},
		{`{"id":42,"e\"mail":"aaaaaaaaaaaaaaaaaaaaaaaaaaaa"}`, `!28 characters, at most 20`},
		{`{"id":42,"e\"mail":"a","balance":null}`, `!column "balance": null`},
		{`garbage`, `!not JSON`},
	} {
		row, err := m.Row([]any{"x"}, []byte("user:42"), []byte(test.image))
		if want, bad := strings.CutPrefix(test.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) || len(row) != 1 {
				t.Errorf("%s: got %v, %v; want the error %s", test.image, row, err, want)
			}
		} else if err != nil || fmt.Sprint(row[1:]) != test.want {
			t.Errorf("%s: got %v, %v; want %s", test.image, row[1:], err, test.want)
		}
	}
	if _, err := m.Row(nil, []byte("user:x"), []byte(`{}`)); err == nil {
		t.Error("a row of a key that names none")
	}
}

// TestDefaults: a default is in the image as a fill of the row has it.
func TestDefaults(t *testing.T) {
	for _, test := range []struct{ columnType, text, want string }{
		{"int(10) unsigned zerofill", "7", "7"},
		{"decimal(10,2)", "0", "0.00"},
		{"float", "1.5", "1.5"},
		{"bit(8)", "5", "5"},
		{"char(5)", "x ", `"x"`},
		{"binary(4)", "ab", `"YWIAAA=="`},
		{"datetime(3)", "2024-01-01 00:00:00", `"2024-01-01 00:00:00.000"`},
		{"set('a','b')", "b,a", `"a,b"`},
		{"enum('a','b')", "b", `"b"`},
		{"mariajson", "{}", `{}`},
		{"year(4)", "0000", `0`},
	} {
		m := compiled(t, primary(users(notNull(typed("id", "int(11)")), withDefault(notNull(typed("v", test.columnType)), test.text)), "id"), "user:{id}")
		got, err := m.Canonical(nil, []byte("user:1"), []byte(`{}`))
		if want := `{"id":1,"v":` + test.want + `}`; err != nil || string(got) != want {
			t.Errorf("%s %s: got %s, %v; want %s", test.columnType, test.text, got, err, want)
		}
	}
}

// TestNull: NULL, the document null, and the two that cannot be told apart.
func TestNull(t *testing.T) {
	m := compiled(t, primary(users(notNull(typed("id", "int(11)")), notNull(typed("v", "mariajson"))), "id"), "user:{id}")
	image, err := m.Canonical(nil, []byte("user:1"), []byte(`{"v":null}`))
	if err != nil || string(image) != `{"id":1,"v":null}` {
		t.Fatal(string(image), err)
	}
	if row, err := m.Row(nil, []byte("user:1"), image); err != nil || row[1] != "null" {
		t.Error(row, err)
	}
	if _, err := m.Canonical(nil, []byte("user:1"), []byte(`{}`)); err == nil {
		t.Error("a document that was left out")
	}
}

// TestAutoIncrement: DEFAULT would be 0 in an UPDATE, so the number must be said.
func TestAutoIncrement(t *testing.T) {
	n := notNull(typed("n", "int(11)"))
	n.AutoIncrement = true
	m := compiled(t, users(notNull(typed("id", "int(11)")), typed("x", "int(11)"), n), "user:{id}")
	if got, err := m.Canonical(nil, []byte("user:1"), []byte(`{}`)); err == nil {
		t.Errorf("%s", got)
	}
}

// TestKeyOfTwo: a key is cut in one way, which the types choose where they can.
func TestKeyOfTwo(t *testing.T) {
	schema := func(a, b string) Schema {
		return users(notNull(typed("a", a)), notNull(typed("b", b)), typed("n", "int(11)"))
	}
	for _, test := range []struct {
		a, b, key, want string // want: the arguments; empty: names no row
	}{
		{"int(11)", "varchar(9)", "k:1:x:y", "[1 x:y]"},
		{"varchar(9)", "int(11)", "k:x:y:1", "[x:y 1]"},
		{"varchar(9)", "int(11)", "k:x:y:1:z", ""},
		{"varchar(9)", "varchar(9)", "k:x:y:z", "[x y:z]"},
		{"int(11)", "int(11)", "k:1:2", "[1 2]"},
		{"int(11)", "int(11)", "k:1:2:3", ""},
		{"datetime", "varchar(9)", "k:2024-01-01 00:00:00:x", ""}, // both may have the colon, the last takes the rest
		{"varchar(9)", "date", "k:x:y:2024-01-01", "[x:y 2024-01-01]"},
	} {
		m := compiled(t, schema(test.a, test.b), "k:{a}:{b}")
		args, err := m.KeyArgs(nil, []byte(test.key))
		if test.want == "" {
			if err == nil || m.Names([]byte(test.key)) {
				t.Errorf("%s %s %s: %v", test.a, test.b, test.key, args)
			}
		} else if err != nil || fmt.Sprint(args) != test.want {
			t.Errorf("%s %s %s: %v %v", test.a, test.b, test.key, args, err)
		}
	}

	m := compiled(t, schema("varchar(9)", "varchar(9)"), "k:{a}::{b}")
	for _, test := range []struct{ a, b, want string }{
		{"x", "y", "k:x::y"},
		{"x", "y::z", "k:x::y::z"},
		{"x", ":y", "k:x:::y"},
		{"x:", "y", ""}, // k:x:::y is the key of the row above
		{"x::y", "z", ""},
		{"", "y", ""},
		{"x", "", ""},
	} {
		if got := m.RowKey(nil, [][]byte{[]byte(test.a), []byte(test.b)}); string(got) != test.want {
			t.Errorf("%q %q: got %q, want %q", test.a, test.b, got, test.want)
		}
	}
}

func TestColumnsAndFields(t *testing.T) {
	m := compiled(t, shop2(), "user:{id}", func(c *Config) {
		c.Columns = []string{"b", "a"}
		c.Fields = map[string]string{"a": "b", "b": "ü"}
	})
	got, err := m.Canonical(nil, []byte("user:1"), []byte(`{"b":1,"ü":2}`))
	if err != nil || string(got) != `{"id":1,"ü":2,"b":1}` {
		t.Error(string(got), err)
	}
}

func shop2() Schema {
	return users(notNull(typed("id", "int(11)")), typed("a", "int(11)"), typed("b", "int(11)"), typed("c", "int(11)"))
}

package mapping

import (
	"fmt"
	"strings"
	"testing"
)

var writtenTable = &Table{
	Schema: "shop", Name: "things", Engine: "InnoDB",
	Columns: []Column{
		{Name: "id", Type: "bigint", ColumnType: "bigint(20)"},
		{Name: "name", Type: "varchar", ColumnType: "varchar(5)", Length: 5, Octets: 20, Charset: "utf8mb4", Collation: "utf8mb4_bin"},
		{Name: "price", Type: "decimal", ColumnType: "decimal(6,2)", Precision: 6, Scale: 2, Nullable: true, Default: ptr("1.5")},
		{Name: "data", Type: "varbinary", ColumnType: "varbinary(4)", Length: 4, Octets: 4, Charset: "binary", Nullable: true},
		{Name: "seen", Type: "datetime", ColumnType: "datetime", Nullable: true, DefaultExpr: true, Default: ptr("current_timestamp()")},
	},
	Indexes: []Index{{Name: "PRIMARY", Unique: true, Columns: []string{"id"}}},
}

func ptr(s string) *string { return &s }

func writtenMapping(t *testing.T, value, column string) *Mapping {
	t.Helper()
	c := Default()
	c.Name, c.Key, c.Table, c.Value, c.Column = "thing", "thing:{id}", "things", value, column
	set, found := NewSet([]Config{c}, nil, Schema{"things": writtenTable})
	if set == nil {
		t.Fatal(found)
	}
	return set.All()[0]
}

func bytesOf(texts ...string) (list [][]byte) {
	for _, s := range texts {
		list = append(list, []byte(s))
	}
	return list
}

// What clients write to fields is checked and brought into the form that a read has.
func TestFields(t *testing.T) {
	m := writtenMapping(t, "hash", "")
	for _, test := range []struct{ in, want string }{
		{"name|Ada|price|2.5", "name Ada price 2.50"},
		{"price|1|name|x|price|2", "price 2.00 name x"},
		{"id|7|data|\x00\xff", "id 7 data \x00\xff"},
		{"id|8", `column "id": "8" in the value, but the key says "7"`},
		{"nosuch|1", `no field "nosuch"`},
		{"name|toolong", `column "name": 7 characters, at most 5`},
		{"price|null", `column "price": "null" is not a number`},
		{"price|1e2", "price 100.00"},
		{"price|0.001", "fraction digits"},
		{"data|12345", "column \"data\""},
		{"name|\xff", "not valid UTF-8"},
	} {
		fields, err := m.Fields(nil, []byte("thing:7"), bytesOf(strings.Split(test.in, "|")...))
		var got strings.Builder
		for i, f := range fields {
			if i > 0 {
				got.WriteByte(' ')
			}
			got.Write(f)
		}
		if err != nil {
			got.WriteString(err.Error())
		}
		if err == nil && got.String() != test.want || err != nil && !strings.Contains(got.String(), test.want) {
			t.Errorf("%q: %q, want %q", test.in, got.String(), test.want)
		}
	}
}

// A row that is made has its key and its defaults; what only MySQL knows is left to it.
func TestRemainder(t *testing.T) {
	m := writtenMapping(t, "hash", "")
	rest, err := m.Remainder(nil, []byte("thing:7"), []byte("name"), []byte("data"))
	if got := fmt.Sprintf("%s %v", rest, err); got != "[id 7 price 1.50] <nil>" {
		t.Error(got)
	}
	if _, err := m.Remainder(nil, []byte("thing:7"), []byte("data")); err == nil || !strings.Contains(err.Error(), `column "name": missing`) {
		t.Errorf("a row without its name: %v", err)
	}
	row, err := m.RowOf(nil, []byte("thing:7"), append(rest, bytesOf("name", "Ada")...))
	if got := fmt.Sprint(row, err); got != "[7 Ada 1.50 <nil> UNCHANGED] <nil>" {
		t.Error(got)
	}
	for field, want := range map[string]string{"id": "NOT NULL", "name": "NOT NULL", "seen": "expression", "price": "", "nosuch": ""} {
		if err := m.Removable([]byte(field)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("removing %s: %v", field, err)
		}
	}
}

// A string without the other columns that a row needs can only change a row that is there.
func TestPartial(t *testing.T) {
	if m := writtenMapping(t, "string", "price"); !m.Partial() {
		t.Error("a price does not make a row without a name")
	}
	m := writtenMapping(t, "string", "name")
	if m.Partial() {
		t.Error("a name makes a row")
	}
	for in, want := range map[string]string{"Ada": "Ada", "": "", "toolong": "7 characters", "\xff": "UTF-8"} {
		image, err := m.Canonical(nil, []byte("thing:1"), []byte(in))
		if got := fmt.Sprint(string(image), err); !strings.HasPrefix(got, want) && !strings.Contains(got, want) {
			t.Errorf("%q: %s", in, got)
		}
	}
	if _, err := writtenMapping(t, "hash", "").Canonical(nil, []byte("thing:1"), []byte("x")); err == nil || !strings.Contains(err.Error(), "HSET") {
		t.Errorf("a hash is SET: %v", err)
	}
}

// Images that scripts have left in another form are told apart.
func TestExact(t *testing.T) {
	hash, text, doc := writtenMapping(t, "hash", ""), writtenMapping(t, "string", "price"), writtenMapping(t, "json", "")
	for _, test := range []struct {
		m      *Mapping
		values []string
		want   bool
	}{
		{hash, []string{"id", "7", "name", "x"}, true},
		{hash, []string{"name", "x", "id", "7"}, true},
		{hash, []string{"name", "x"}, false},
		{hash, []string{"id", "7", "name", "x", "price", "1.5"}, false},
		{hash, []string{"id", "7", "nosuch", "x"}, false},
		{text, []string{"1.50"}, true},
		{text, []string{"1.5"}, false},
		{doc, []string{`{"id":7,"name":"x","price":1.50,"data":null,"seen":null}`}, true},
		{doc, []string{`{"name":"x","price":1.50,"data":null,"seen":null}`}, false},
	} {
		if got := test.m.Exact([]byte("thing:7"), bytesOf(test.values...)); got != test.want {
			t.Errorf("%s %q: %v", test.m.Kind, test.values, got)
		}
	}
}

func TestLimits(t *testing.T) {
	hash := writtenMapping(t, "hash", "")
	l := hash.Limits([]byte("price"))
	if got := fmt.Sprintf("%s %d %s %s", l, l.Scale, l.Low, l.High); got != "-9999.99 to 9999.99 2 -999999 999999" {
		t.Error(got)
	}
	for in, want := range map[string]string{"1": "100 true <nil>", "-0.05": "-5 true <nil>", "0": "0 true <nil>", "1e2": "10000 true <nil>", "x": " false <nil>", "0.001": ` true "0.001" has 3 fraction digits, at most 2`} {
		units, ok, err := l.Units([]byte(in))
		if got := fmt.Sprint(string(units), " ", ok, " ", err); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
	if hash.Limits([]byte("id")) != nil || hash.Limits([]byte("name")) != nil || hash.Limits([]byte("nosuch")) != nil {
		t.Error("limits of a key, a text or nothing")
	}
}

package mapping

import (
	"fmt"
	"testing"
)

// A page goes on behind a row of any shape, in the order of the index and not of the pattern.
func TestPage(t *testing.T) {
	schema := users(notNull(typed("a", "int(11)")), notNull(typed("b", "varchar(20)")), notNull(typed("c", "enum('y','x')")))
	m := compiled(t, primary(schema, "c", "b", "a"), "k:{a}:{b}:{c}", func(c *Config) { c.Write = "deny" })
	const all = "SELECT `a`, `b`, `c` FROM `users` FORCE INDEX (`PRIMARY`)%s ORDER BY `c`, `b`, `a`"
	at, err := m.At([]byte("k:7:b:y"))
	if err != nil {
		t.Fatal(err)
	}
	row := func(a, b, c string) [][]byte { return [][]byte{[]byte(a), []byte(b), []byte(c)} }
	for _, test := range []struct {
		at    Position
		limit int
		where string
		args  string
	}{
		{Position{}, 0, "", "[]"},
		{at, 5, " WHERE `c` IN (?) OR `c` = ? AND `b` > ? OR `c` = ? AND `b` = ? AND `a` >= ?", "[x y b y b 7]"},
		{m.Behind(row("7", "", "x")), 5, " WHERE FALSE OR `c` = ? AND `b` > ? OR `c` = ? AND `b` = ? AND `a` > ?", "[x  x  7]"},
		{m.Behind(row("7", "b", "")), 5, " WHERE `c` IN (?,?) OR `c` = ? AND `b` > ? OR `c` = ? AND `b` = ? AND `a` > ?", "[y x  b  b 7]"},
	} {
		want := fmt.Sprintf(all, test.where)
		if test.limit > 0 {
			want += fmt.Sprint(" LIMIT ", test.limit)
		}
		if query, args := m.Page(test.at, test.limit); query != want || fmt.Sprint(args) != test.args && len(args) > 0 {
			t.Errorf("%s %v\nwant %s %s", query, args, want, test.args)
		}
	}
	if _, err := m.At([]byte("k:07:x:y")); err == nil {
		t.Error("there is a position of a key that names no row")
	}
}

func TestGlob(t *testing.T) {
	for pattern, want := range map[string]string{
		"user:{id}": "user:*", "a[{id}]?": `a\[*\]\?`, `*\{{{id}}}`: `\*\\{*}`,
	} {
		if got := userAt(t, pattern).Glob(); got != want {
			t.Errorf("%s: %s, want %s", pattern, got, want)
		}
	}
}

func userAt(t *testing.T, pattern string) *Mapping {
	t.Helper()
	return compiled(t, primary(shop(), "id"), pattern, func(*Config) {})
}

func TestDifferences(t *testing.T) {
	m := user(t)
	const row = `{"id":42,"e\"mail":"a@b","nick":null,"balance":0.00,"created":"2024-01-01 00:00:00","doc":{"x": 1}}`
	for _, test := range []struct{ image, want string }{
		{row, "[]"},
		{`{"id":42,"e\"mail":"a@c","nick":"n","balance":0.00,"created":"2024-01-01 00:00:00","doc":{"x":1}}`,
			`[{email "a@c" "a@b"} {nick "n" null} {doc {"x":1} {"x": 1}}]`},
		{`{"id":42,"balance":0.00,"doc":{"x": 1},"more":[1],"e\"mail":"a@b","nick":null}`, `[{created absent "2024-01-01 00:00:00"} {more [1] no such column}]`},
		{`{"e\"mail":"a@b","id":42,"nick":null,"balance":0.00,"created":"2024-01-01 00:00:00","doc":{"x": 1}}`,
			`[{ {"e\"mail":"a@b","id":42,"nick":null,"balance":0.00,"created":"2024-01-01 00:00:00","doc":{"x": 1}} ` + row + `}]`},
		{"", `[{ "" (not JSON: it ends at offset 0; want a JSON object) ` + row + `}]`},
	} {
		if got := fmt.Sprint(m.Differences([][]byte{[]byte(test.image)}, [][]byte{[]byte(row)})); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.image, got, test.want)
		}
	}
}

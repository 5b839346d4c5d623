package test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyrow/test/harness"
)

// throughStrings are tables with one column of these types, named after them.
var throughStrings = []struct{ table, column string }{
	{"name", "VARCHAR(12)"}, {"code", "CHAR(8)"}, {"data", "VARBINARY(16)"}, {"note", "VARCHAR(600)"}, {"n", "BIGINT"}, {"born", "YEAR"},
	{"price", "DECIMAL(10,2)"}, {"big", "DECIMAL(30,2)"}, {"ratio", "DOUBLE"}, {"weight", "FLOAT"}, {"rounded", "FLOAT(7,2)"},
}

// openThroughStrings is a process with two mappings for each table of throughStrings, which is written through and behind:
// through:name:{id} and behind:name:{id}.
func openThroughStrings(t *testing.T, o harness.Options) *shop {
	t.Helper()
	var config, tables strings.Builder
	for _, c := range throughStrings {
		fmt.Fprintf(&tables, "CREATE TABLE %s (id BIGINT NOT NULL PRIMARY KEY, v %s);\n", c.table, c.column)
		for _, write := range []string{"through", "behind"} {
			fmt.Fprintf(&config, "[[mapping]]\nname = \"%s-%s\"\nkey = \"%[1]s:%[2]s:{id}\"\ntable = \"%[2]s\"\nvalue = \"string\"\n"+
				"column = \"v\"\nwrite = \"%[1]s\"\n", write, c.table)
		}
	}
	o.Config = config.String()
	if o.MySQL == nil {
		o.MySQL = harness.SharedMySQL(t)
	}
	o.DB = o.MySQL.NewDB(t)
	o.MySQL.Exec(o.DB, tables.String())
	return openShop(t, o)
}

func (s *shop) restThroughStrings() {
	s.t.Helper()
	var rows []harness.Rows
	for _, c := range throughStrings {
		for _, write := range []string{"through", "behind"} {
			rows = append(rows, harness.Rows{Pattern: write + ":" + c.table + ":{id}", Table: c.table, Value: "string", Column: "v"})
		}
	}
	s.Settled()
	s.Equal(rows...)
}

// stringer makes random commands that change a part of a string.
type stringer struct{ *rand.Rand }

func (r stringer) pick(of ...string) string { return of[r.IntN(len(of))] }

func (r stringer) number() string {
	switch r.IntN(4) {
	case 0:
		return strconv.Itoa(r.IntN(2000) - 1000)
	case 1:
		return strconv.FormatFloat(float64(r.IntN(2000000)-1000000)/100, 'f', -1, 64)
	case 2:
		return strconv.FormatFloat(r.NormFloat64(), 'g', -1+r.IntN(18), 64)
	}
	return r.pick("1e3", "-2.5e-3", "1e-18", "16777217", "9007199254740993", "1e17", "3.4e38", "1e308", "0x1p-3", "inf", "x", "", "+.5", "1e400")
}

// next is a command without its key, and which argument the key comes behind.
func (r stringer) next(column string) []string {
	text := column == "name" || column == "code" || column == "data"
	switch r.IntN(12) {
	case 0:
		return []string{"GETDEL"}
	case 1:
		return []string{"SET", r.pick("", "1", "Ada", "äöü", "12.25", "10 "), r.pick("NX", "XX", "GET")}
	case 2:
		return []string{"INCRBY", r.pick("1", "-7", "16777217", "9007199254740993")}
	case 3:
		return []string{"APPEND", r.pick("", "1", "x", "5 ")}
	case 4, 5, 6:
		if text {
			break
		}
		fallthrough
	case 7:
		return []string{"INCRBYFLOAT", r.number()}
	}
	return []string{"SETRANGE", r.pick("0", "1", "2", "5", "9", "15", "-1", "x", "536870912", "9223372036854775807"),
		r.pick("", "1", "7", "x", "ab", "ü", "\xff", "\x00", " ")}
}

// Commands that change a part of a string are answered as on rows that are written behind, and MySQL has what came of them
// in the end. On text the answers are Redis's own.
func TestThroughStringsAsBehind(t *testing.T) {
	t.Parallel()
	s := openThroughStrings(t, harness.Options{Set: map[string]string{"journal.interval": "5ms"}})
	seed := *changeSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	r := stringer{rand.New(rand.NewPCG(seed, 0))}
	p, direct := dial(t, s.Addr), dial(t, s.Redis.Addr)
	words := func(args []string, key string) []string { return append([]string{args[0], key}, args[1:]...) }
	for _, c := range throughStrings {
		column := c.table
		through, behind, twin := "through:"+column+":1", "behind:"+column+":2", "twin:"+column
		for range 40 {
			args := r.next(column)
			before := s.show("GET", through)
			got := p.do(words(args, through)...)
			want := got
			if column != "rounded" { // what is behind is rounded once it is flushed
				want = p.do(words(args, behind)...)
			}
			if strings.HasPrefix(got, "-ERR keyrow: ") && strings.HasPrefix(want, "-ERR keyrow: ") {
				continue
			}
			if got != want {
				t.Fatalf("%s %q of %q: through it is answered %q, and behind %q; again: -change.seed=%d", column, args, before, got, want, seed)
			}
			if args[0] == "GETDEL" {
				continue // of the cached copy
			}
			if theirs := direct.do(words(args, twin)...); column == "note" && theirs != got {
				t.Fatalf("%s %q: answered %q, and %q by redis; again: -change.seed=%d", column, args, got, theirs, seed)
			}
			if strings.HasPrefix(args[0], "INCR") && got[0] != '-' {
				if _, text, found := strings.Cut(got, "\r\n"); found && got[0] == '$' {
					got = text
				}
				if got, read := strings.Trim(got, ":\r\n"), fmt.Sprint(s.Must("GET", through)); column != "price" && column != "big" && got != read {
					t.Fatalf("%s %q: answered %s, and the next reader gets %s; again: -change.seed=%d", column, args, got, read, seed)
				}
			}
		}
	}
	s.restThroughStrings()
	for _, c := range throughStrings {
		got, want := s.row("SELECT v FROM "+c.table+" WHERE id = 1"), s.row("SELECT v FROM "+c.table+" WHERE id = 2")
		if got != want && c.table != "rounded" {
			t.Errorf("%s: mysql has %q through, and %q behind; again: -change.seed=%d", c.table, got, want, seed)
		}
	}
}

// Strings are changed in parts, and MySQL has what the client is answered, also where the type of the column rounds. What
// cannot be is refused and changes nothing.
func TestThroughStrings(t *testing.T) {
	t.Parallel()
	s := openThroughStrings(t, harness.Options{})
	other := s.second(nil)
	for _, step := range []struct{ reply, command, table, first, second, image string }{
		{"0", "SETRANGE", "name", "5", "", "nil"},
		{"5", "SETRANGE", "name", "2", "abc", "\x00\x00abc"},
		{"5", "SETRANGE", "name", "0", "xy", "xyabc"},
		{"7", "SETRANGE", "name", "4", "üd", "xyabüd"},
		{"7", "SETRANGE", "name", "9", "", "xyabüd"},
		{"3", "SETRANGE", "code", "0", "abc", "abc"},
		{"0", "SETRANGE", "code", "0", "   ", ""}, // CHAR has no spaces at its end
		{"16", "SETRANGE", "data", "15", "x", strings.Repeat("\x00", 15) + "x"},
		{"1", "SETRANGE", "n", "0", "7", "7"},
		{"2", "SETRANGE", "n", "1", "5", "75"},
		{"0.1", "INCRBYFLOAT", "ratio", "0.1", "", "0.1"},
		{"0.3", "INCRBYFLOAT", "ratio", "0.2", "", "0.3"},
		{"0.1", "INCRBYFLOAT", "weight", "0.1", "", "0.1"},
		{"0.3", "INCRBYFLOAT", "weight", "0.2", "", "0.3"},
		{"16777216", "INCRBYFLOAT", "weight", "16777216.4", "", "16777216"},
		{"12345.67", "INCRBYFLOAT", "rounded", "12345.671", "", "12345.67"},
		{"12.25", "INCRBYFLOAT", "note", "12.25", "", "12.25"},
		{"2155", "INCRBYFLOAT", "born", "2155", "", "2155"},
		{"12345678.50", "INCRBYFLOAT", "big", "12345678.5", "", "12345678.50"},
	} {
		args := []any{step.command, "through:" + step.table + ":1", step.first}
		if step.command == "SETRANGE" {
			args = append(args, step.second)
		}
		s.want(step.reply, args...)
		row := "nil"
		for _, v := range s.table("SELECT v" + map[string]string{"weight": "+0e0", "rounded": "+0e0"}[step.table] + " FROM " + step.table) {
			row = v[0]
		}
		if step.table == "weight" || step.table == "rounded" {
			f, _ := strconv.ParseFloat(row, 64)
			row = strconv.FormatFloat(f, 'f', -1, 32)
		}
		if row != step.image {
			t.Errorf("after %q mysql has %q", args, row)
		}
		other.want(step.image, "GET", args[1])
	}
	s.want("16777216", "GET", "through:weight:1")
	s.sql("INSERT INTO weight VALUES (2, 16777216)")
	s.sql("INSERT INTO ratio VALUES (2, 9007199254740992)")
	s.want("16777216", "GET", "behind:weight:2")
	s.want("9007199254740992", "GET", "behind:ratio:2")
	s.unchanged("what cannot be", func() {
		s.refused([]string{"UTF-8"}, "SETRANGE", "through:name:1", "5", "\xff")
		s.refused([]string{"UTF-8"}, "SETRANGE", "through:name:1", "5", "x") // half of a character
		s.refused([]string{"ERR keyrow: ", "13", "at most 12"}, "SETRANGE", "through:name:1", "13", "x")
		s.refused([]string{"17 bytes, at most 16"}, "SETRANGE", "through:data:1", "16", "x")
		s.refused([]string{"not a number"}, "SETRANGE", "through:n:1", "4", "1")
		s.refused([]string{"ERR offset is out of range"}, "SETRANGE", "through:name:1", "-1", "x")
		s.refused([]string{"ERR value is not an integer or out of range"}, "SETRANGE", "through:name:1", "x", "x")
		s.refused([]string{"ERR string exceeds maximum allowed size"}, "SETRANGE", "through:name:1", "536870912", "x")
		s.refused([]string{"SETRANGE of", "through:note:2", "1048577 bytes of 0", "1048576 is the most"}, "SETRANGE", "through:note:2", "1048577", "x")
		s.refused([]string{"ERR value is not a valid float"}, "INCRBYFLOAT", "through:ratio:1", "x")
		s.refused([]string{"ERR increment would produce NaN or Infinity"}, "INCRBYFLOAT", "through:ratio:1", "inf")
		s.refused([]string{"ERR increment would produce NaN or Infinity"}, "INCRBYFLOAT", "through:price:1", "inf")
		s.refused([]string{"out of the range of float"}, "INCRBYFLOAT", "through:weight:1", "3.5e38")
		s.refused([]string{"out of the range of double"}, "INCRBYFLOAT", "through:ratio:1", "1e309")
		s.refused([]string{"mysql refused it", "Out of range"}, "INCRBYFLOAT", "through:rounded:1", "1e5")
		s.refused([]string{"out of range"}, "INCRBYFLOAT", "through:born:1", "1")
		for _, write := range []string{"through", "behind"} {
			s.refused([]string{"INCR of", "would be 16777217", "make 16777216"}, "INCR", write+":weight:2")
			s.refused([]string{"INCRBY of", "would be 9007199254740993", "make 9007199254740992"}, "INCRBY", write+":ratio:2", "1")
			s.refused([]string{"INCRBYFLOAT of", "price:1", "99999999.99"}, "INCRBYFLOAT", write+":price:1", "1e30")
		}
	})
	s.restThroughStrings()
}

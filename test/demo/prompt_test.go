package main

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for _, test := range []struct {
		line string
		want []string
	}{
		{"", nil},
		{"  GET\tuser:42 ", []string{"GET", "user:42"}},
		{`SET a '{"id": 42, "name":"x"}'`, []string{"SET", "a", `{"id": 42, "name":"x"}`}},
		{`SET a '\n'`, []string{"SET", "a", `\n`}},
		{`SET a "b \"c\"\n\x41\\"`, []string{"SET", "a", "b \"c\"\nA\\"}},
		{`SET a ""`, []string{"SET", "a", ""}},
		{`SET a it's`, []string{"SET", "a", "it's"}},
	} {
		got, err := split(test.line)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("split(%q) = %q, %v; want %q", test.line, got, err, test.want)
		}
	}
	for _, line := range []string{`SET a 'b`, `SET a "b`, `SET a "b\`, `SET a "b"c`, `SET a 'b'c`} {
		if got, err := split(line); err == nil {
			t.Errorf("split(%q) = %q, want an error", line, got)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, test := range []struct{ wire, want string }{
		{"+OK\r\n", "OK"},
		{"-ERR no\r\n", "(error) ERR no"},
		{":42\r\n", "(integer) 42"},
		{"$-1\r\n", "(nil)"},
		{"*-1\r\n", "(nil)"},
		{"*0\r\n", "(empty array)"},
		{"$0\r\n\r\n", `""`},
		{"$2\r\n\xff\x00\r\n", `"\xff\x00"`},
		{"$5\r\na\r\nb\n\r\n", "a\nb"},
		{"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n", "1) a\n2) 1) (integer) 1\n   2) (nil)"},
	} {
		reply, err := readReply(bufio.NewReader(strings.NewReader(test.wire)))
		if err != nil || format(reply) != test.want {
			t.Errorf("%q: %q, %v; want %q", test.wire, format(reply), err, test.want)
		}
	}
}

func TestMovement(t *testing.T) {
	before := parseCounters("version:x\r\nhits:1\r\npending:2\r\n")
	after := parseCounters("version:x\r\nhits:2\r\nmisses:2\r\npending:0\r\nother:9\r\n")
	if got := movement(before, after); got != "1 hit, 2 misses, 0 pending" {
		t.Error(got)
	}
	if got := movement(after, after); got != "" {
		t.Error(got)
	}
}

func TestScreen(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, true)
	s.line("a")
	s.ask()
	s.line("b")
	s.asked()
	s.text("c\n")
	if want := "a\n" + promptText + "\r\x1b[Kb\n" + promptText + "c\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestLayout(t *testing.T) {
	got := layout([][]string{{"id", "name"}, {"1", "Zoë"}, {"22", "NULL"}})
	if want := "id  name\n--  ----\n1   Zoë\n22  NULL\n(2 row(s))"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestModuleRoot(t *testing.T) {
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "test", "demo", "shop.sql")); err != nil {
		t.Errorf("%s: %v", root, err)
	}
}

package main

import (
	"testing"

	"github.com/BurntSushi/toml"
)

func TestHidePassword(t *testing.T) {
	for _, test := range []struct{ dsn, want string }{
		{"root@tcp(127.0.0.1:3306)/shop", "root@tcp(127.0.0.1:3306)/shop"},
		{"root:@tcp(127.0.0.1:3306)/shop", "root:@tcp(127.0.0.1:3306)/shop"},
		{"/shop", "/shop"},
		{"tcp(127.0.0.1:3306)/shop", "tcp(127.0.0.1:3306)/shop"},
		{"u:secret@/shop?tls=true", "u:${MYSQL_PASSWORD}@/shop?tls=true"},
		{"u:s:e/c@r@e}t@unix(/run/my.sock)/shop", "u:${MYSQL_PASSWORD}@unix(/run/my.sock)/shop"},
		{"u:${PW}@tcp(${HOST}:3306)/shop", "u:${PW}@tcp(${HOST}:3306)/shop"},
		{"u:x${PW}@tcp(h)/shop", "u:${MYSQL_PASSWORD}@tcp(h)/shop"},
		{"u:$${PW}@tcp(h)/shop", "u:${MYSQL_PASSWORD}@tcp(h)/shop"},
		{"u:secret@${REST}", "u:${MYSQL_PASSWORD}@${REST}"},
		{"${DSN}", "${DSN}"},
	} {
		if text, hidden := hidePassword(test.dsn); text != test.want || hidden != (text != test.dsn) {
			t.Errorf("%s: %s, %v", test.dsn, text, hidden)
		}
	}
}

// What escape writes, a configuration reads as the name it was.
func TestEscape(t *testing.T) {
	t.Setenv("X", "x")
	for _, name := range []string{"users", "${X}", "$${X}", "a$$$${X}${X}{X}", "$", "${", "${X", `"\`, "\t\n\x00\u007f", "日本"} {
		w := &writer{}
		w.set("key", escape(name))
		var raw map[string]string
		if _, err := toml.Decode(w.String(), &raw); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		var d decoder
		if got := d.expand("key", raw["key"]); got != name {
			t.Errorf("%q is read as %q", name, got)
		}
	}
}

func TestComment(t *testing.T) {
	w := &writer{}
	w.comment("the table %s: %s", "a\nb\x1b[31m\u202e", "word word word word word word word word word word word word word word word word word word")
	const want = "# the table a\uFFFDb\uFFFD[31m\uFFFD: word word word word word word word word word word word word word word word word word\n# word\n"
	if w.String() != want {
		t.Errorf("got\n%swant\n%s", w.String(), want)
	}
}

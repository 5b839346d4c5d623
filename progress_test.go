package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// Where there is no terminal, a line tells every 10 seconds how far it is.
func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	p := &progress{out: &out, what: "warm user", unit: "rows", started: now, told: now, now: func() time.Time { return now }}
	for _, step := range []struct {
		after       time.Duration
		done, total int64
	}{{0, 0, 1000}, {9 * time.Second, 90, 1000}, {time.Second, 100, 1000}, {time.Second, 110, 1000}, {9 * time.Second, 2000, 1000}, {10 * time.Second, 3000, 0}} {
		now = now.Add(step.after)
		p.set(step.done, step.total)
		p.clear()
	}
	want := "warm user: 100 of about 1000 rows, 10/s, 1m30s left\nwarm user: 2000 rows, 100/s\nwarm user: 3000 rows, 100/s\n"
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

// A key comes back from its text, and what is printed of it is on one line.
func TestKeyText(t *testing.T) {
	for key, want := range map[string]string{
		"user:1": "user:1", "user:é 'x'": "user:é 'x'", `"`: `"\""`, "a\x00\xff\n": `"a\x00\xff\n"`, "": "",
	} {
		text := keyText([]byte(key))
		if back, err := parseKeyText(text); text != want || err != nil || string(back) != key {
			t.Errorf("%q: %s, want %s; comes back as %q, %v", key, text, want, back, err)
		}
	}
	if _, err := parseKeyText(`"x`); err == nil {
		t.Error("half a text in quotes is taken")
	}
}

// What goes on can be given to a shell.
func TestWarmAgain(t *testing.T) {
	o := warmOptions{conf: "my conf.toml", name: "user", rate: 5, parallel: 3}
	if got, want := o.again(`it's`), `keyrow warm user -c 'my conf.toml' --rate 5 --parallel 3 --from 'it'\''s'`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	o = warmOptions{conf: defaultConf, name: "user", parallel: defaultParallel}
	if got := o.again(""); got != "keyrow warm user" {
		t.Error(got)
	}
	for _, c := range []string{" ", "$", "`", `"`, "\\", "*", "{", ";", "&", "|", "~", "!"} {
		if got := o.again(c); !strings.HasSuffix(got, "'"+c+"'") {
			t.Errorf("%s: %s", c, got)
		}
	}
}

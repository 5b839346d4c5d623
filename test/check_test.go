package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// checkConfig has a mapping that fits, one that warns, and one that does not fit.
const checkConfig = `
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"

[[mapping]]
name = "nick"
key = "nick:{nick}"
table = "nicks"

[[mapping]]
name = "old"
key = "old:{uid}"
table = "users"
columns = ["mail"]
write = "deny"
`

// checkQueries are one that runs and one that does not.
const checkQueries = `
[[query]]
name = "names"
key = "names"
sql = "SELECT name FROM users"
value = "list"

[[query]]
name = "ranking"
key = "rank:{least}"
sql = "SELECT name, points FROM users WHERE age >= {least}"
variables = { least = "users.years" }
value = "zset"
`

// One run finds what is wrong with both servers and with every mapping.
func TestCheck(t *testing.T) {
	t.Parallel()
	nobody := unused(t)
	lru := harness.StartRedis(t, "--maxmemory-policy", "allkeys-lru")
	durable := harness.StartRedis(t, "--appendonly", "yes")
	good := strings.Split(checkConfig, "[[mapping]]\nname = \"old\"")[0]
	for _, test := range []struct {
		name   string
		o      harness.Options
		code   int
		want   []string // the starts of all lines of stdout, in order
		stderr string
	}{
		{"good", harness.Options{Redis: durable, Config: strings.Split(good, "[[mapping]]\nname = \"nick\"")[0]}, 0,
			[]string{"ok: 1 mappings fit their tables"}, ""},
		{"warnings", harness.Options{Config: good}, 0, []string{
			`warning: redis at `,
			`warning: mapping "nick": key: {nick}: the collation utf8mb4_general_ci takes values`,
			"ok: 2 mappings fit their tables"}, ""},
		{"queries", harness.Options{Redis: durable, Config: strings.Split(good, "[[mapping]]\nname = \"nick\"")[0] +
			strings.Split(checkQueries, "[[query]]\nname = \"ranking\"")[0]}, 0,
			[]string{"ok: 1 mappings fit their tables", "ok: 1 queries run"}, ""},
		{"queries that do not run", harness.Options{Redis: durable, Config: checkQueries}, 1, []string{
			`error: query "ranking": variables: least: the table users has no column "years"`,
			`error: query "ranking": sql: mysql does not run it: Unknown column 'points'`},
			"keyrow: keyrow would not start with this configuration\n"},
		{"errors", harness.Options{Redis: durable, Config: checkConfig}, 1, []string{
			`warning: mapping "user": table: users is mapped by old too`,
			`warning: mapping "nick": key: {nick}: the collation`,
			`error: mapping "old": columns: the table users has no column "mail"`,
			`error: mapping "old": key: {uid}: the table users has no column "uid"`,
			`error: mapping "old": key: {uid} are not the columns of a primary`,
			`warning: mapping "old": table: users is mapped by user too`},
			"keyrow: keyrow would not start with this configuration\n"},
		{"no servers", harness.Options{Set: map[string]string{"redis.addr": nobody, "mysql.dsn": "root:s3cret@tcp(" + nobody + ")/shop"}}, 1,
			[]string{"error: redis at " + nobody + " does not answer: ", "error: read the schema of mysql: server: "},
			"keyrow: keyrow would not start with this configuration\n"},
		{"redis evicts", harness.Options{Redis: lru, Config: good}, 1, []string{
			"error: redis at " + lru.Addr + " has maxmemory-policy allkeys-lru, which may evict",
			`warning: mapping "nick"`}, "keyrow: keyrow would not start with this configuration\n"},
		{"not usable", harness.Options{Set: map[string]string{"redis.lanes": "-1", "journal.batch": "0"}}, 2, nil,
			"keyrow: conf.toml:\n  redis.lanes: -1 is not within 0 and 256\n  journal.batch: 0 is not within 1 and 10000\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, test.o)
			dir := s.Conf[:strings.LastIndexByte(s.Conf, '/')]
			code, stdout, stderr := command(t, dir, nil, "check")
			if code != test.code || stderr != test.stderr {
				t.Errorf("exit status %d, want %d, stderr %q, want %q", code, test.code, stderr, test.stderr)
			}
			lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
			if stdout == "" {
				lines = nil
			}
			for i := range max(len(lines), len(test.want)) {
				switch {
				case i >= len(lines):
					t.Errorf("there is no line %q", test.want[i])
				case i >= len(test.want):
					t.Errorf("there is a line %q", lines[i])
				case !strings.HasPrefix(lines[i], test.want[i]):
					t.Errorf("line %d is %q, want %q", i+1, lines[i], test.want[i])
				}
			}
			if strings.Contains(stdout+stderr, "s3cret") {
				t.Error("it shows a password")
			}

			// The same as JSON.
			code, text, _ := command(t, dir, nil, "check", "--json")
			if code != test.code {
				t.Errorf("exit status with --json %d, want %d", code, test.code)
			}
			if code == 2 {
				return
			}
			var got struct {
				OK       bool
				Mappings int
				Queries  int
				Findings []map[string]string
			}
			d := json.NewDecoder(strings.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(&got); err != nil {
				t.Fatalf("%v:\n%s", err, text)
			}
			var again []string
			for _, f := range got.Findings {
				line := f["severity"] + ": "
				for _, section := range []string{"mapping", "query"} {
					if f[section] != "" {
						line += section + ` "` + f[section] + `": ` + f["setting"] + ": "
					}
				}
				again = append(again, line+f["text"])
			}
			if got.OK {
				again = append(again, fmt.Sprintf("ok: %d mappings fit their tables", got.Mappings))
				if got.Queries > 0 {
					again = append(again, fmt.Sprintf("ok: %d queries run", got.Queries))
				}
			}
			if got.OK != (test.code == 0) || !reflect.DeepEqual(again, lines) {
				t.Errorf("JSON says\n%s\ntext\n%s", text, stdout)
			}
		})
	}
}

// Colours are for terminals, and for people who want them.
func TestCheckColours(t *testing.T) {
	t.Parallel()
	s := newShop(t, harness.Options{Config: checkConfig})
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	on := func(env ...string) string {
		t.Helper()
		term := harness.NewTerminal(t, 80)
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, "check", "-c", s.Conf)
		cmd.Env = append(append(os.Environ(), "NO_COLOR=", "TERM=xterm"), env...)
		cmd.Stdout = term.File
		if err := cmd.Run(); err == nil {
			t.Error("the exit status is 0")
		}
		return term.Printed()
	}
	text := on()
	for _, want := range []string{"\x1b[31merror\x1b[m: mapping \"old\"", "\x1b[33mwarning\x1b[m: mapping \"nick\""} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not print %q:\n%q", want, text)
		}
	}
	for _, env := range []string{"NO_COLOR=1", "TERM=dumb"} {
		if text := on(env); strings.Contains(text, "\x1b") || !strings.Contains(text, "error: mapping") {
			t.Errorf("with %s it prints\n%q", env, text)
		}
	}
}

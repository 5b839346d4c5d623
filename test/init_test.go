package test

import (
	"bytes"
	_ "embed"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"keyrow/test/harness"
)

// command runs the program in dir and returns its exit status and what it printed.
func command(t testing.TB, dir string, env []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// oddTables have names and columns of every kind there may be, and what stands in the way of a mapping.
//
//go:embed testdata/odd_tables.sql
var oddTables string

// long is one of them.
const long = "a_table_whose_name_is_as_long_as_mysql_takes_it_at_64_characters"

// What init writes passes check as it is, whatever the tables are called.
func TestInit(t *testing.T) {
	t.Parallel()
	my, r := harness.SharedMySQL(t), harness.StartRedis(t)
	db := my.NewDB(t)
	my.Exec(db, oddTables)
	my.Exec(db, "CREATE USER '"+db+"'@'127.0.0.1' IDENTIFIED BY 's3c/r:e@t'; "+
		"GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER, SHOW VIEW ON "+db+".* TO '"+db+"'@'127.0.0.1'")
	t.Cleanup(func() { my.Exec("", "DROP USER '"+db+"'@'127.0.0.1'") })
	dir := t.TempDir()

	dsn := db + ":s3c/r:e@t@tcp(" + my.Addr + ")/" + db
	status, stdout, stderr := command(t, dir, nil, "init", "--dsn", dsn, "--redis", r.Addr, "--out", "conf.toml")
	if status != 0 || stderr != "" {
		t.Fatalf("exit status %d, stderr %q", status, stderr)
	}
	for _, want := range []string{"conf.toml: 32 of 40 tables have a mapping", "export MYSQL_PASSWORD=", "keyrow check -c conf.toml"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("it does not say %q:\n%s", want, stdout)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "conf.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "s3c") {
		t.Error("the password is in it")
	}
	env := []string{"MYSQL_PASSWORD=s3c/r:e@t"}
	if status, stdout, stderr := command(t, dir, env, "check"); status != 0 || !strings.Contains(stdout, "ok: 32 mappings") {
		t.Errorf("exit status of check %d:\n%s%s\n%s", status, stdout, stderr, text)
	}

	var conf struct {
		Mapping []struct{ Name, Key, Table, Value, TTL, Write string }
	}
	if _, err := toml.Decode(string(text), &conf); err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	var readOnly []string
	for _, m := range conf.Mapping {
		keys[m.Table] = m.Key
		if m.Value != "json" || m.TTL != "10m" {
			t.Errorf("mapping %q: value %q, ttl %q", m.Name, m.Value, m.TTL)
		}
		if m.Write == "deny" {
			readOnly = append(readOnly, m.Table)
		}
	}
	if want := []string{"areas", "legacy"}; !slices.Equal(readOnly, want) {
		t.Errorf("read only are %q, want %q", readOnly, want)
	}
	for table, want := range map[string]string{
		"users":            "users:{id}",
		"order_items":      "order_items:{order_id}:{line}",
		"labels":           "labels:{lang}:{name}",
		"select":           "select:{order}",
		"it's a \"table\"": "it's a \"table\":{the id}",
		"{braces}":         "{{braces}}:{id}",
		"$${HOME}":         "${{HOME}}:{$$x}",
		"a":                "a:{id}",
		"a:b":              "a_b:{id}",
		"a_b":              "a_b-2:{id}",
		"keyrow":           "keyrow-2:{id}",
		"floats":           "floats:{id}",
		long:               long + ":{" + long + "}",
	} {
		if keys[table] != want {
			t.Errorf("the key of %q is %q, want %q", table, keys[table], want)
		}
	}

	flat := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "\n# ", " ")), " ")
	for _, want := range []string{
		"The password is taken from the environment",
		`no mapping of the table with.dot: a dot in its name would set schema and table apart; rename it`,
		`no mapping of the table keyless: it has no primary key`,
		`no mapping of the table prefixes: it has no primary key and no other unique key of whole columns`,
		`no mapping of the table only_floats: key: {f}: a double column cannot be in a key`,
		`no mapping of the table brace: key: the name of the column "a}:{b" has a brace`,
		`no mapping of the table computed: it has no primary key`,
		`no mapping of the table recent: a view has no unique key; map the tables behind it`,
		`table: users has several unique indexes`,
		`columns: a SET that leaves out "created_at", "changed_at" sets it to its default again`,
		`key: a row with a ':' in {lang} has no key`,
		`key: {id}: the collation utf8mb4_general_ci takes values that differ in case`,
		`another unique key is used: key: {f}: a double column`,
		`table: triggered has triggers (twice)`,
		`columns: generated ones are not in the value: "twice", "kept"`,
		`columns: some cannot be in the value: "at" (the spatial type point cannot be in an image)`,
		`rows are only read: columns: "shape" is NOT NULL without default`,
		`rows are only read: write: the engine MyISAM of legacy has no transactions`,
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

func TestInitUsage(t *testing.T) {
	t.Parallel()
	my := harness.SharedMySQL(t)
	db, keyless, empty := my.NewDB(t), my.NewDB(t), my.NewDB(t)
	my.Exec(db, "CREATE TABLE users (id INT PRIMARY KEY)")
	my.Exec(keyless, "CREATE TABLE users (id INT)")
	dir := t.TempDir()
	dsn := func(name string) string { return "KEYROW_DSN=" + my.DSN(name) }
	for _, test := range []struct {
		name   string
		env    string
		args   []string
		status int
		stdout []string
		stderr []string
	}{
		{"no database", "X=", nil, 2, nil, []string{"no database is named", "--dsn", "KEYROW_DSN"}},
		{"argument", dsn(db), []string{"users"}, 2, nil, []string{`"users"`, "--help"}},
		{"dsn without a database", "X=", []string{"--dsn", "root:s3cret@tcp(h)/"}, 2, nil, []string{"--dsn: names no database"}},
		{"bad dsn", "X=", []string{"--dsn", "root:s3cret"}, 2, nil, []string{"--dsn: ", "it should read like"}},
		{"unset variable", "X=", []string{"--dsn", "root:${KEYROW_NOT_SET}@/shop"}, 2, nil, []string{"--dsn: the environment has no variable KEYROW_NOT_SET"}},
		{"bad address", dsn(db), []string{"--redis", "redis://x"}, 2, nil, []string{"--redis: "}},
		{"nobody there", "X=", []string{"--dsn", "root:s3cret@tcp(" + unused(t) + ")/shop"}, 1, nil, []string{"mysql", "refused"}},
		{"empty database", dsn(empty), nil, 1, nil, []string{"there is no table in the database " + empty}},
		{"nothing to map", dsn(keyless), nil, 1, []string{"no mapping of the table users"}, []string{"no table can be mapped"}},
		{"to stdout", dsn(db), nil, 0, []string{`dsn = "${KEYROW_DSN}"`, `key = "users:{id}"`, `addr = "127.0.0.1:6379"`}, nil},
		{"to a file", dsn(db), []string{"-o", "a.toml"}, 0, []string{"a.toml: 1 of 1 tables", "keyrow check -c a.toml"}, nil},
		{"to the same file", dsn(keyless), []string{"-o", "a.toml"}, 2, nil, []string{"a.toml exists", "--force"}},
		{"over it", dsn(db), []string{"-o", "a.toml", "--force", "--redis", "unix:///run/redis.sock"}, 0, []string{"a.toml"}, nil},
		{"to no folder", dsn(db), []string{"-o", "no/a.toml"}, 1, nil, []string{"no/a.toml", "no such file"}},
	} {
		status, stdout, stderr := command(t, dir, []string{test.env}, append([]string{"init"}, test.args...)...)
		if status != test.status {
			t.Errorf("%s: exit status %d, want %d", test.name, status, test.status)
		}
		for _, want := range test.stdout {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: stdout does not say %q:\n%s", test.name, want, stdout)
			}
		}
		for _, want := range test.stderr {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: stderr does not say %q:\n%s", test.name, want, stderr)
			}
		}
		if test.stderr == nil && stderr != "" {
			t.Errorf("%s: stderr says\n%s", test.name, stderr)
		}
		if strings.Contains(stdout+stderr, "s3cret") {
			t.Errorf("%s: it shows a password:\n%s%s", test.name, stdout, stderr)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "a.toml"))
	if err != nil || !strings.Contains(string(text), "unix:///run/redis.sock") {
		t.Errorf("%v, the file is\n%s", err, text)
	}
}

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"keyrow/mapping"
)

// minimal is the shortest configuration that is valid.
const minimal = `
[mysql]
dsn = "root@tcp(127.0.0.1:3306)/shop"
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"
`

// example is conf.toml.example, with the settings in it that are commented out and without.
func example(t *testing.T) (plain, full string) {
	t.Helper()
	text, err := os.ReadFile("conf.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	plain = string(text)
	return plain, regexp.MustCompile(`(?m)^# ?(\w+ = |\[\[query\]\])`).ReplaceAllString(plain, "$1")
}

func TestExampleIsValidAndShowsTheDefaults(t *testing.T) {
	plain, _ := example(t)
	c, err := parseConfig(plain)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Mappings) != 1 {
		t.Fatalf("%d mappings, want 1", len(c.Mappings))
	}
	want := mapping.Default()
	want.Name, want.Key, want.Table = "user", "user:{id}", "users"
	if !reflect.DeepEqual(c.Mappings[0], want) {
		t.Errorf("the mapping is\n%+v, its defaults are\n%+v", c.Mappings[0], want)
	}
	c.Mappings, c.MySQL.DSN = nil, ""
	if def := defaultConfig(); !reflect.DeepEqual(c, def) {
		t.Errorf("the example is\n%+v, the defaults are\n%+v", c, def)
	}
}

func TestExampleHasEveryKey(t *testing.T) {
	_, full := example(t)
	var raw map[string]any
	if _, err := toml.Decode(full, &raw); err != nil {
		t.Fatal(err)
	}
	c := defaultConfig()
	var d decoder
	d.table("", raw, &c)
	for _, err := range d.problems {
		t.Error(err)
	}
	for _, path := range keysOf("", reflect.TypeFor[config]()) {
		var at any = raw
		for name := range strings.SplitSeq(path, ".") {
			if list, many := at.([]map[string]any); many {
				at = list[0]
			}
			table, _ := at.(map[string]any)
			at = table[name]
		}
		if at == nil {
			t.Errorf("conf.toml.example does not say what %s is", path)
		}
	}
}

// keysOf lists the keys of a configuration, as "redis.addr".
func keysOf(prefix string, s reflect.Type) (keys []string) {
	for i := range s.NumField() {
		f := s.Field(i)
		path := prefix + f.Tag.Get("toml")
		switch {
		case f.Type.Kind() == reflect.Struct:
			keys = append(keys, keysOf(path+".", f.Type)...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			keys = append(keys, keysOf(path+".", f.Type.Elem())...)
		default:
			keys = append(keys, path)
		}
	}
	return keys
}

func TestConfigProblems(t *testing.T) {
	t.Setenv("KEYROW_TEST_EMPTY", "")
	for _, test := range []struct {
		name string
		text string // put before minimal, or all of it if it has a [[mapping]] or a [mysql]
		want []string
	}{
		{name: "none", text: ""},
		{"unknown key", `proxy.listn = ":1"`, []string{`proxy.listn: there is no such key; did you mean listen?`}},
		{"unknown key, other case", `proxy.Listen = ":1"`, []string{`proxy.Listen: there is no such key; did you mean listen?`}},
		{"unknown key, near several", minimal + `colums = ["id"]`,
			[]string{`mapping "user": colums: there is no such key; did you mean column or columns?`}},
		{"unknown key, near none", `log.colour = true`, []string{`log.colour: there is no such key; there are format, level, slow, slow_keep`}},
		{"unknown section", `[rediss]`, []string{`rediss: there is no such key; did you mean redis?`}},
		{"key outside of a section", `listen = ":6380"`,
			[]string{`listen: there is no such key; there are admin, journal, log, mapping, mysql, proxy, query, redis`}},
		{"unknown key with a percent sign", `log."%s" = 1`, []string{`log.%s: there is no such key; there are format, level, slow, slow_keep`}},
		{"key of a section below it", `redis.addr.host = "x"`, []string{`redis.addr: want text in quotes, got a table`}},

		{"text for a number", `redis.lanes = "two"`, []string{`redis.lanes: want a whole number, got "two"`}},
		{"digits for a number", `redis.lanes = "2"`, []string{`redis.lanes: want a whole number, got "2"`}},
		{"fraction for a number", `redis.lanes = 1.5`, []string{`redis.lanes: want a whole number, got 1.5`}},
		{"float for a number", `redis.lanes = 2.0`, []string{`redis.lanes: want a whole number, got 2.0`}},
		{"exponent for a number", `redis.lanes = 1e300`, []string{`redis.lanes: want a whole number, got 1e+300`}},
		{"truth for a number", `redis.lanes = true`, []string{`redis.lanes: want a whole number, got true`}},
		{"list for a number", `redis.lanes = [1]`, []string{`redis.lanes: want a whole number, got a list`}},
		{"admin", "admin = { listen = \"9121\", token = \"geheim\", hosts = [\"a:1\"] }", []string{
			`admin.listen: "9121" is not host:port, like "127.0.0.1:9121"`,
			`admin.token: has 6 characters, at least 16; make one with: openssl rand -hex 16`,
			`admin.hosts: "a:1" is not the name of a host, without a port`}},
		{"negative number", `redis.lanes = -1`, []string{`redis.lanes: -1 is not within 0 and 256`}},
		{"too large a number", `redis.lanes = 9223372036854775807`,
			[]string{`redis.lanes: 9223372036854775807 is not within 0 and 256`}},
		{"number beyond 64 bits", `redis.lanes = 9223372036854775808`,
			[]string{`line 1, column 15: 9223372036854775808 is out of range for int64`}},
		{"number for text", `redis.addr = 6379`, []string{`redis.addr: want text in quotes, got a number`}},
		{"truth for text", `redis.username = true`, []string{`redis.username: want text in quotes, got true or false without quotes`}},
		{"number for an address", `proxy.listen = 6380`,
			[]string{`proxy.listen: want an address in quotes, or a list of them, got a number`}},
		{"number for one of several addresses", `proxy.listen = [":0", 6380]`,
			[]string{`proxy.listen[1]: want text in quotes, got a number`}},
		{"two wrong addresses", `proxy.listen = ["a", "b"]`, []string{
			`proxy.listen: "a" is neither host:port nor unix:///path, like "127.0.0.1:6380"`,
			`proxy.listen: "b" is neither host:port nor unix:///path, like "127.0.0.1:6380"`}},
		{"text for a truth", `proxy.proxy_protocol = "yes"`,
			[]string{`proxy.proxy_protocol: want true or false, without quotes, got "yes"`}},
		{"unknown key two sections down", `redis.tls.enable = true`,
			[]string{`redis.tls.enable: there is no such key; did you mean enabled?`}},
		{"date for text", `redis.username = 2026-01-31`, []string{`redis.username: want text in quotes, got a date without quotes`}},
		{"value for a section", `redis = "127.0.0.1:6379"`, []string{`redis: is a section, write it as [redis]`}},
		{"two brackets for a section", `[[redis]]`, []string{`redis: is a section, write it as [redis]`}},
		{"one bracket for a mapping", `mysql.dsn = "root@tcp(h:1)/shop"` + "\n[mapping]\n" + `name = "user"`,
			[]string{`mapping: write each mapping below a line [[mapping]], in two brackets`}},
		{"number for a list", minimal + `columns = 3`, []string{`mapping "user": columns: want a list of texts in quotes, got a number`}},
		{"number in a list", minimal + `columns = ["id", 3]`, []string{`mapping "user": columns[1]: want text in quotes, got a number`}},
		{"list for a table", minimal + `fields = ["id"]`,
			[]string{`mapping "user": fields: want a table of texts, like { email = "mail" }, got a list`}},
		{"number in a table", minimal + `fields = { id = 1 }`, []string{`mapping "user": fields.id: want text in quotes, got a number`}},

		{"duration without a unit", `mysql.timeout = 5`,
			[]string{`mysql.timeout: want a number and its unit in quotes, like "10m" or "100ms", got 5`}},
		{"duration in quotes without a unit", `mysql.timeout = "5"`,
			[]string{`mysql.timeout: want a number and its unit in quotes, like "10m" or "100ms", got "5"`}},
		{"duration of days", minimal + `ttl = "1d"`,
			[]string{`mapping "user": ttl: want a number and its unit in quotes, like "10m" or "100ms", got "1d"`}},
		{"negative duration", minimal + `ttl = "-1s"`,
			[]string{`mapping "user": ttl: -1s is out of range; want "0" or 1ms to 100 years`}},

		{"rate of a day", minimal + `max_selects = "10/d"`,
			[]string{`mapping "user": max_selects: want how many a second, like 1000 or "1000/s": "10/d" is not a rate, like "1000/s" or "30/m"`}},
		{"truth for a rate", minimal + `max_selects = true`,
			[]string{`mapping "user": max_selects: want how many a second, like 1000 or "1000/s", got true`}},
		{"text for a fraction", minimal + `early_refresh = "1"`, []string{`mapping "user": early_refresh: want a number, got "1"`}},
		{"rates and fractions", minimal + "max_selects = \"30/m\"\nearly_refresh = 1", nil},
		{"rates and fractions without quotes", minimal + "max_selects = 1000\nearly_refresh = 1.5", nil},

		{"no variable", `redis.password = "${KEYROW_TEST_UNSET}"`,
			[]string{`redis.password: the environment has no variable KEYROW_TEST_UNSET`}},
		{"no variable in a list", minimal + `columns = ["${KEYROW_TEST_UNSET}"]`,
			[]string{`mapping "user": columns[0]: the environment has no variable KEYROW_TEST_UNSET`}},
		{"empty variable", `redis.addr = "${KEYROW_TEST_EMPTY}"`,
			[]string{`redis.addr: "" is not an address: want "host:port" or "unix:///path"`}},

		{"no mapping", "[mysql]\n" + `dsn = "root@tcp(h:1)/shop"`,
			[]string{`mapping: there is none; add a [[mapping]] with name, key and table`}},
		{"keys of keyrow's own", strings.Replace(minimal, "user:{id}", "keyrow:{id}", 1),
			[]string{`mapping "user": key: "keyrow:{id}" can match keyrow's own keys below "keyrow:"; choose another key or journal.prefix`}},
		{"several", `
log.level = "loud"
proxy.max_clients = 0
redis.lanes = "two"
[mysq]
[[mapping]]
name = "user"
key = "user:id"
ttl = 600
[[mapping]]
colums = ["id"]
table = "orders"
`, []string{
			`mapping "user": ttl: want a number and its unit in quotes, like "10m" or "100ms", got 600`,
			`mapping[1]: colums: there is no such key; did you mean column or columns?`,
			`mysq: there is no such key; did you mean mysql?`,
			`redis.lanes: want a whole number, got "two"`,
			`proxy.max_clients: 0: must be at least 1`,
			`mysql.dsn: missing: set it, like "user:password@tcp(127.0.0.1:3306)/shop"`,
			`log.level: "loud" is not one of debug, info, warn, error`,
			`mapping "user": key: offset 7: no variable; name the key column, as "user:{id}"`,
			`mapping "user": table: missing; name the table, as table = "users"`,
			`mapping[1]: name: missing; name the mapping, as name = "user"`,
			`mapping[1]: key: offset 0: empty; want literal text and {column}, as "user:{id}"`,
		}},

		{"not TOML", "[proxy]\nlisten = :6380\n", []string{`line 2, column 10: expected value but found ':' instead`}},
		{"no value", "[proxy]\nlisten =\n", []string{`line 2, column 9: expected value but found '\n' instead`}},
		{"no end of a text", "[proxy]\nlisten = \":6380\n", []string{`line 2, column 16: strings cannot contain newlines`}},
		{"twice", "[proxy]\nlisten = \":1\"\nlisten = \":2\"\n", []string{`line 3, column 1: key 'proxy.listen' has already been defined`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := test.text
			if !strings.Contains(text, "[mapping]") && !strings.Contains(text, "[mysql]") {
				text += minimal
			}
			_, err := parseConfig(text)
			var got []string
			for _, e := range flatten(err) {
				got = append(got, e.Error())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("problems of %s\n\t%s\nwant\n\t%s", text, strings.Join(got, "\n\t"), strings.Join(test.want, "\n\t"))
			}
		})
	}
}

func TestConfigTakesVariablesInTextOnly(t *testing.T) {
	t.Setenv("KEYROW_TEST_A", "a ${KEYROW_TEST_B} \" \\ # b")
	t.Setenv("KEYROW_TEST_B", "never seen")
	t.Setenv("KEYROW_TEST_TTL", "90s")
	c, err := parseConfig(minimal + `
ttl = "${KEYROW_TEST_TTL}"
columns = ["x${KEYROW_TEST_TTL}"]
fields = { "${KEYROW_TEST_TTL}" = "${KEYROW_TEST_TTL}y" }
[redis]
username = "$KEYROW_TEST_B {KEYROW_TEST_B} ${1} $${KEYROW_TEST_TTL}"
password = "${KEYROW_TEST_A}${KEYROW_TEST_A}"
`)
	if err != nil {
		t.Fatal(err)
	}
	m := c.Mappings[0]
	const a = "a ${KEYROW_TEST_B} \" \\ # b"
	for _, test := range []struct{ name, got, want string }{
		{"redis.password", c.Redis.Password, a + a},
		{"redis.username", c.Redis.Username, "$KEYROW_TEST_B {KEYROW_TEST_B} ${1} ${KEYROW_TEST_TTL}"},
		{"columns", strings.Join(m.Columns, " "), "x90s"},
		{"fields", m.Fields["${KEYROW_TEST_TTL}"], "90sy"},
	} {
		if test.got != test.want {
			t.Errorf("%s is %q, want %q", test.name, test.got, test.want)
		}
	}
	if m.TTL != 90*time.Second {
		t.Errorf("ttl is %v, want 1m30s", m.TTL)
	}
}

func TestConfigErrorsShowNoPassword(t *testing.T) {
	const password = "s3cret-42"
	t.Setenv("KEYROW_TEST_PASSWORD", password)
	for _, text := range []string{
		`mysql.dsn = "root:s3cret-42@tcp(127.0.0.1:3306)"`,
		`mysql.dsn = "root:s3cret-42@tcp(127.0.0.1:3306)/"`,
		`mysql.dsn = "root:s3cret-42@tcp(127.0.0.1:3306/shop"`,
		`mysql.dsn = "root:s3cret-42@127.0.0.1:3306/shop"`,
		`mysql.dsn = "root:s3cret-42@nope(127.0.0.1:3306)/shop"`,
		`mysql.dsn = "root:${KEYROW_TEST_PASSWORD}@tcp(127.0.0.1:3306)"`,
		`mysql.dsn = "root:x@tcp(127.0.0.1:3306)/shop?tls=s3cret-42"`,
		`mysql.dsn = "root:x@tcp(127.0.0.1:3306)/shop?timeout=s3cret-42"`,
		`mysql.dsn = "root:x@tcp(127.0.0.1:3306)/shop?collation=%s3cret-42"`,
		`mysql.dsn = ["root:s3cret-42@tcp(127.0.0.1:3306)/shop"]`,
		`mysql.dsn = { password = "s3cret-42" }`,
		`mysql.dsn = root:s3cret-42@tcp(127.0.0.1:3306)/shop`,
		`mysql.dsn = "root:s3cret-42@tcp(127.0.0.1:3306)/shop`,
		`mysql.dsn = "root:s3cret-42\@tcp(127.0.0.1:3306)/shop"`,
		"[redis]\npassword = s3cret-42",
		"[redis]\npassword = \"s3cret-42",
		"[redis]\npassword = 's3cret-42'x",
		"[redis]\n\"password\" = s3cret-42",
		"redis = { password = s3cret-42 }",
		"redis = { db = -1, password = 's3cret-42', lanes = 'two' }",
		"[redis]\npassword = \"s3cret-42\"\npassword = \"s3cret-42\"",
		"[redis]\npassword = \"s3cret-42\"\ndb = x\n",
		"[redis]\npasswort = \"s3cret-42\"\n",
		"[redis]\nusername = \"x\"\npassword = [\"s3cret-42\"]\n",
		`redis.lanes = "${KEYROW_TEST_PASSWORD}"`,
	} {
		_, err := parseConfig(text)
		if err == nil {
			t.Errorf("no error for\n%s", text)
		} else if shown := (&configError{"conf.toml", err}).Error(); strings.Contains(strings.ToLower(shown), "s3cret") {
			t.Errorf("the error for\n%s\nshows the password: %s", text, shown)
		}
	}
	// Digits are a word of their own to the parser of TOML.
	for _, digits := range []string{"31415926535897932384626433", "3141592e", "0314159", "3141592_"} {
		_, err := parseConfig("[redis]\npassword = " + digits)
		if err == nil || strings.Contains(err.Error(), "314159") {
			t.Errorf("the error for password = %s shows it: %v", digits, err)
		}
	}
}

func TestLoadConfigNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k.toml")
	if err := os.WriteFile(path, []byte("redis.lanes = 'two'\nlog.level = 'loud'"+minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := loadConfig(path)
	want := path + ":\n  redis.lanes: want a whole number, got \"two\"\n" +
		"  log.level: \"loud\" is not one of debug, info, warn, error"
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v\nwant\n%s", err, want)
	}
}

func TestDistance(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0},
		{"listn", "listen", 1}, {"lsiten", "listen", 2}, {"kitten", "sitting", 3}, {"max-clients", "max_clients", 1},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) is %d, want %d", test.a, test.b, got, test.want)
		}
	}
}

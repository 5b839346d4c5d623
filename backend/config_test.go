package backend

import (
	"strings"
	"testing"
	"time"
)

func TestDefaultsAreValid(t *testing.T) {
	my := DefaultMySQL()
	my.DSN = "user:pass@tcp(127.0.0.1:3306)/shop"
	for name, err := range map[string]error{
		"redis":   DefaultRedis().Validate(),
		"mysql":   my.Validate(),
		"journal": DefaultJournal().Validate(),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Every problem of a section is reported at once, each on a line that starts with its key.
func TestValidateReportsEverything(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want []string
	}{
		{"redis empty", RedisConfig{}.Validate(), []string{
			`redis.addr: "" is not an address: want "host:port" or "unix:///path"`,
			`redis.timeout: 0s is not within 10ms and 1h0m0s`,
		}},
		{"redis", RedisConfig{Addr: "unix://run/redis", Username: "u", DB: -1, Lanes: 300, Timeout: time.Minute}.Validate(),
			[]string{
				`redis.addr: "unix://run/redis" names no socket: want "host:port" or "unix:///path"`,
				`redis.username: needs redis.password to log in with (any text, for a user with nopass)`,
				`redis.db: -1 is negative`,
				`redis.lanes: 300 is not within 0 and 256`,
			}},
		{"mysql empty", MySQLConfig{}.Validate(), []string{
			`mysql.dsn: missing: set it, like "user:password@tcp(127.0.0.1:3306)/shop"`,
			`mysql.max_open: 0 is not within 1 and 10000`,
			`mysql.max_waiting: 0 is not within 1 and 100000000`,
			`mysql.timeout: 0s is not within 10ms and 1h0m0s`,
		}},
		{"mysql without a database", MySQLConfig{DSN: "u:p@/", MaxOpen: 1, MaxWaiting: 1, Timeout: time.Second}.Validate(), []string{
			`mysql.dsn: names no database: put it after the slash, like "user:password@tcp(127.0.0.1:3306)/shop"`,
		}},
		{"journal empty", JournalConfig{}.Validate(), []string{
			`journal.prefix: is empty: name the prefix of keyrow's own keys, like "keyrow"`,
			`journal.partitions: 0 is not within 1 and 1024`,
			`journal.interval: 0s is not within 1ms and 1h0m0s`,
			`journal.batch: 0 is not within 1 and 10000`,
			`journal.max_pending: 0 is not within 1 and 1000000000`,
			`journal.session_timeout: 0s is not within 1s and 1h0m0s`,
		}},
	}
	for _, tt := range tests {
		if tt.err == nil {
			t.Errorf("%s: no error", tt.name)
			continue
		}
		if got, want := tt.err.Error(), strings.Join(tt.want, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, want)
		}
	}
}

func TestJournalPrefix(t *testing.T) {
	for prefix, want := range map[string]string{
		"keyrow":                  "",
		"a":                       "",
		"A-b_9.c":                 "",
		strings.Repeat("x", 40):   "",
		strings.Repeat("x", 41):   "journal.prefix: has 41 characters, at most 40",
		"a:b":                     `journal.prefix: ':' is not allowed (offset 1), only letters, digits, '_', '.' and '-'`,
		"{x}":                     `journal.prefix: '{' is not allowed (offset 0), only letters, digits, '_', '.' and '-'`,
		"größe":                   `journal.prefix: 'ö' is not allowed (offset 2), only letters, digits, '_', '.' and '-'`,
		"a b":                     `journal.prefix: ' ' is not allowed (offset 1), only letters, digits, '_', '.' and '-'`,
		"a" + string([]byte{255}): `journal.prefix: '` + "\uFFFD" + `' is not allowed (offset 1), only letters, digits, '_', '.' and '-'`,
	} {
		c := DefaultJournal()
		c.Prefix = prefix
		got := ""
		if err := c.Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("prefix %q: %q, want %q", prefix, got, want)
		}
	}
}

func TestSessionTimeoutIsWholeSeconds(t *testing.T) {
	c := DefaultJournal()
	c.SessionTimeout = 1500 * time.Millisecond
	want := "journal.session_timeout: 1.5s is not in whole seconds, as MySQL counts its wait_timeout"
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestRedisAddr(t *testing.T) {
	tests := []struct{ addr, network, address string }{
		{"127.0.0.1:6379", "tcp", "127.0.0.1:6379"},
		{"redis.example:1", "tcp", "redis.example:1"},
		{"[::1]:65535", "tcp", "[::1]:65535"},
		{"unix:///run/redis.sock", "unix", "/run/redis.sock"},
		{"", "", ""},
		{"localhost", "", ""},
		{":6379", "", ""},
		{"h:0", "", ""},
		{"h:65536", "", ""},
		{"h:redis", "", ""},
		{"h:+1", "", ""},
		{"::1:6379", "", ""},
		{"unix://", "", ""},
		{"unix://relative", "", ""},
		{"unix:///", "", ""},
		{"redis://h:1", "", ""},
	}
	for _, tt := range tests {
		network, address, err := redisAddr(tt.addr)
		if network != tt.network || address != tt.address || (err != nil) != (tt.network == "") {
			t.Errorf("%q: %s %s %v, want %s %s", tt.addr, network, address, err, tt.network, tt.address)
		}
	}
}

// No way of getting a dsn wrong shows the password, or any other part of it.
func TestDSNIsNeverShown(t *testing.T) {
	for _, dsn := range []string{
		"user:hunter2",
		"user:hunter2@tcp(127.0.0.1:3306)",
		"user:hunter2@tcp(127.0.0.1:3306/shop",
		"user:hunter2@tcp(127.0.0.1:3306)/hunter2%zz",
		"user:hunter2@tcp(127.0.0.1:3306)/shop?tls=hunter2",
		"user:hunter2@tcp(127.0.0.1:3306)/shop?timeout=hunter2",
		"user:hunter2@tcp(127.0.0.1:3306)/shop?loc=hunter2",
		"user:hunter2@tcp(127.0.0.1:3306)/shop?parseTime=hunter2",
		"user:hunter2@hunter2/shop",
		"user:hunter2@tcp(hunter2)/",
		"user:hun/ter2?hunter2",
	} {
		c := DefaultMySQL()
		c.DSN = dsn
		err := c.Validate()
		if err == nil {
			t.Errorf("%q: no error", dsn)
			continue
		}
		if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%q: the error shows it: %v", dsn, err)
		}
		if !strings.HasPrefix(err.Error(), "mysql.dsn: ") {
			t.Errorf("%q: %v", dsn, err)
		}
		if _, err := OpenMySQL(c); err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error of opening shows it: %v", dsn, err)
		}
	}
}

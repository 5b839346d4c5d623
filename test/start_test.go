package test

import (
	"net"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// What keeps keyrow from starting is said on its output, all of it that can be known at once, and the exit status
// tells a wrong configuration (2) from a server that is not as it should be (1).
func TestStartFails(t *testing.T) {
	t.Parallel()
	nobody := unused(t)
	for _, test := range []struct {
		name string
		o    harness.Options
		code int
		want []string
	}{
		{"no such key", harness.Options{Set: map[string]string{"journal.intervall": "1s", "proxy.lisen": "x"}},
			2, []string{"journal.intervall: there is no such key", "proxy.lisen"}},
		{"no such section", harness.Options{Set: map[string]string{"jurnal.interval": "1s"}}, 2, []string{"jurnal"}},
		{"several problems", harness.Options{Set: map[string]string{"journal.partitions": "0", "redis.lanes": "-1", "mysql.max_open": "0", "proxy.max_clients": "-1"}},
			2, []string{"journal.partitions: ", "redis.lanes: ", "mysql.max_open: ", "proxy.max_clients: "}},
		{"no unit", harness.Options{Set: map[string]string{"journal.interval": "100"}}, 2, []string{"journal.interval", "unit"}},
		{"unset variable", harness.Options{Set: map[string]string{"redis.password": `"${KEYROW_NOT_SET}"`}}, 2, []string{"redis.password", "KEYROW_NOT_SET"}},
		{"prefix among the keys", harness.Options{Set: map[string]string{"journal.prefix": "user"}}, 2, []string{`mapping "user"`, "journal.prefix"}},
		{"conflicting patterns", harness.Options{Config: shopConfig + "[[mapping]]\nname = \"all\"\nkey = \"us{id}\"\ntable = \"users\"\n"},
			2, []string{`mapping "all"`, `mapping "user"`}},
		{"no configuration", harness.Options{Args: []string{"-c", "/nowhere/conf.toml"}}, 2, []string{"/nowhere/conf.toml", "conf.toml.example"}},
		{"no such flag", harness.Options{Args: []string{"--nope"}}, 2, []string{"--nope", "--help"}},
		{"no such command", harness.Options{Args: []string{"serv"}}, 2, []string{"serv", "--help"}},

		{"mysql not there", harness.Options{Set: map[string]string{"mysql.dsn": "keyrow:s3cret@tcp(" + nobody + ")/shop"}}, 1, []string{nobody, "refused"}},
		{"mysql password wrong", harness.Options{Set: map[string]string{"mysql.dsn": "keyrow:s3cret@tcp(" + harness.SharedMySQL(t).Addr + ")/shop"}}, 1, []string{"keyrow"}},
		{"redis not there", harness.Options{Set: map[string]string{"redis.addr": nobody}}, 1, []string{nobody, "refused"}},
		{"redis password wrong", harness.Options{Redis: harness.StartRedis(t, "--requirepass", "other"), Set: map[string]string{"redis.password": "s3cret"}}, 1, []string{"WRONGPASS"}},
		{"redis password missing", harness.Options{Redis: harness.StartRedis(t, "--requirepass", "other")}, 1, []string{"NOAUTH"}},
		{"redis evicts", harness.Options{Redis: harness.StartRedis(t, "--maxmemory-policy", "allkeys-lru")}, 1, []string{"allkeys-lru", "volatile-lru"}},
		{"port taken", harness.Options{Set: map[string]string{"proxy.listen": harness.SharedMySQL(t).Addr}}, 1, []string{"in use"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newShop(t, test.o)
			code, printed := s.Run()
			if code != test.code {
				t.Errorf("exit status %d, want %d", code, test.code)
			}
			for _, want := range test.want {
				if !strings.Contains(printed, want) {
					t.Errorf("it does not say %q:\n%s", want, printed)
				}
			}
			if strings.Contains(printed, "s3cret") {
				t.Errorf("it shows a password:\n%s", printed)
			}
		})
	}
}

// A table that does not fit stops the start; check prints the same, all of it, and changes nothing.
func TestStartTableDoesNotFit(t *testing.T) {
	t.Parallel()
	s := newShop(t, harness.Options{})
	s.sql("DROP TABLE codes; ALTER TABLE users DROP PRIMARY KEY; ALTER TABLE stock CHANGE amount amounts INT")
	want := []string{`"code"`, "codes", `"user"`, "primary"}
	code, printed := s.Run()
	if code == 0 || code == 3 {
		t.Errorf("exit status %d", code)
	}
	contains := func(printed string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(printed, w) {
				t.Errorf("it does not say %q:\n%s", w, printed)
			}
		}
		if strings.Contains(printed, `"listening"`) {
			t.Error("it served all the same")
		}
	}
	contains(printed)

	o := s.opened
	o.Args = []string{"check"}
	check := newShop(t, o)
	check.unchanged("keyrow check", func() {
		code, printed = check.Run()
	})
	if code != 1 {
		t.Errorf("exit status of check %d", code)
	}
	contains(printed)
	s.sql("CREATE TABLE codes (code CHAR(6) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, text VARCHAR(50)); ALTER TABLE users ADD PRIMARY KEY (id)")
	if code, printed = check.Run(); code != 0 || !strings.Contains(printed, "ok: 7 mappings") {
		t.Errorf("exit status of check %d:\n%s", code, printed)
	}
	s.Start()
	s.want("OK", "SET", "stock:1:a", `{"amounts":3}`)
	s.rest()
}

// Another number of partitions would put the marks of a key into two; so it is refused as long as there are any.
func TestStartWithOtherPartitions(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"journal.interval": "1h"}})
	s.owns()
	s.want("OK", "SET", "user:1", `{"name":"x"}`)
	s.want("OK", "SET", "acct:1", `{"n":-5000,"twin":""}`) // will be parked
	s.Kill()

	o := s.opened
	o.Set["journal.partitions"] = "8"
	o.Set["journal.interval"] = "10ms"
	other := newShop(t, o)
	refused := func(what string) {
		t.Helper()
		if code, printed := other.Run(); code != 1 || !strings.Contains(printed, "journal.partitions = 4") {
			t.Errorf("with %s: exit status %d:\n%s", what, code, printed)
		}
	}
	other.unchanged("a start that is refused", func() { refused("marks") })

	s.Start()
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	refused("a parked key")
	s.Start()
	s.want("1", "DEL", "acct:1")
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	other.Start()
	other.want("OK", "SET", "user:2", `{"name":"y"}`)
	other.rest()
	if got := other.row("SELECT COUNT(*) FROM users"); got != "2" {
		t.Errorf("mysql has %s users", got)
	}
}

// unused is an address that nobody listens on.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

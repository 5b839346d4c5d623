package test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// Whatever goes wrong, and whoever looks at what, no password shows: neither those of the configuration nor those that
// clients send.
func TestNoSecretShows(t *testing.T) {
	t.Parallel()
	const token, app, wrong = "Admin-Geheimnis-1", "App-Geheimnis-2", "Wrong-Geheimnis-3"
	r, m := harness.StartRedis(t), harness.StartMySQL(t)
	r.Do("ACL", "SETUSER", "app", "on", ">"+app, "~*", "&*", "+@all")
	server := harness.NewAuthority(t).Issue("127.0.0.1")
	s := openShop(t, harness.Options{Redis: r, MySQL: m, Env: []string{"KEYROW_TEST_TOKEN=" + token}, Set: map[string]string{
		"admin.token": `"${KEYROW_TEST_TOKEN}"`, "admin.pprof": "true", "log.level": "debug", "log.slow": "1ns", "mysql.timeout": "300ms",
		"proxy.tls.listen": "127.0.0.1:0", "proxy.tls.cert": server.Cert, "proxy.tls.key": server.Key, "journal.drain": "100ms",
	}})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	secrets := append(s.Secrets(), app, wrong)
	if len(secrets) < 8 {
		t.Fatalf("there are only %d secrets", len(secrets))
	}
	shown := map[string]string{}

	// Clients that log in, and that fail to.
	encrypted, err := tls.Dial("tcp", tlsAddr(t, s.Keyrow), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer encrypted.Close()
	c := dial(t, s.Addr)
	say := func(args ...string) {
		t.Helper()
		shown["the answer to "+args[0]] += c.do(args...)
	}
	for _, args := range [][]string{
		{"AUTH", wrong}, {"AUTH", "app", wrong}, {"AUTH", "app", wrong, "x"}, {"AUTH", wrong, wrong}, {"HELLO", "3", "AUTH", "app", wrong},
		{"HELLO", "9", "AUTH", "app", wrong}, {"HELLO", "2", "AUTH", "app", app, "NO"}, {"HELLO", "2", "AUTH", "app", app}, {"AUTH", "app", app},
		{"ACL", "SETUSER", "eve", "on", ">" + wrong}, {"ACL", "SETUSER", "eve", "nonsense>" + wrong[:3]}, {"ACL", "GETUSER", "nobody"},
		{"CONFIG", "SET", "masterauth", wrong}, {"CONFIG", "SET", "nonsense", "1", "requirepass", wrong},
		{"MIGRATE", "127.0.0.1", "1", "plain", "0", "100", "AUTH", wrong}, {"SET", "plain", "x"},
		{"MIGRATE", "127.0.0.1", "1", "plain", "0", "100", "AUTH2", "me", wrong},
		{"MULTI"}, {"AUTH", "app", wrong}, {"EXEC"}, {"SELECT", "99"}, {"BLPOP", "plain", "x"}, {"CLIENT", "LIST"}, {"CLIENT", "INFO"},
		{"GET", "user:42"}, {"SET", "user:42", `{"nonsense":1}`}, {"SET", "user:7", `{"name":"Gus"}`},
		{"SET", "stock:1:a", `{"amount":1}`}, {"SET", "acct:1", `{"n":-2000,"twin":""}`},
		{"KEYROW", "INFO"}, {"KEYROW", "FLUSH", "1000"}, {"KEYROW", "JOURNAL", "PARKED"}, {"KEYROW", "nonsense"}, {"KEYROW", "SLOW", "GET", "-1"},
	} {
		say(args...)
	}
	if slow := shown["the answer to KEYROW"]; strings.Count(slow, "(redacted)") < 10 {
		t.Errorf("KEYROW SLOW has %d secrets hidden", strings.Count(slow, "(redacted)"))
	}
	if _, err := c.Write([]byte("AUTH app " + wrong + "\r\n")); err != nil {
		t.Fatal(err)
	}
	shown["an inline AUTH"] = c.reply()

	// The admin listener, with the token and without.
	look := func(when string) {
		t.Helper()
		for _, path := range []string{"/", "/status", "/metrics", "/healthz", "/readyz", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/nonsense"} {
			_, text, err := s.Show(path)
			if err != nil {
				t.Errorf("%s: %v", path, err)
			}
			shown[when+path] = text
			resp, err := http.Get("http://" + s.Admin + path)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			shown[when+path+" without the token"] = string(b)
		}
	}
	look("")

	// The commands, with the configuration and with ones that fail.
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf, err := os.ReadFile(s.Conf)
	if err != nil {
		t.Fatal(err)
	}
	swapped := strings.NewReplacer(secrets[0], wrong, secrets[2], wrong) // the two servers'
	configs := map[string]string{
		"good": string(conf), "wrong": swapped.Replace(string(conf)), "torn": string(conf[:bytes.Index(conf, []byte(secrets[0]))+len(secrets[0])]),
		"typed": strings.ReplaceAll(string(conf), `password = "`+secrets[0]+`"`, `password = ["`+secrets[0]+`"]`),
		"dsn":   strings.ReplaceAll(string(conf), "@tcp(", "@nonsense("),
	}
	run := func(when string, env string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Env = append(os.Environ(), "KEYROW_TEST_TOKEN="+token, env)
		out, _ := cmd.CombinedOutput()
		shown[when+"keyrow "+args[0]] += string(out)
	}
	all := func(when string) {
		t.Helper()
		for name, text := range configs {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"check"}, {"check", "--json"}, {"journal", "status"}, {"journal", "parked"}, {"warm", "user"}, {"verify", "user", "--json"},
				{"health", "--timeout", "1s"},
			} {
				if name != "good" && (args[0] != "check" && args[0] != "journal" || len(args) == 2 && args[1] == "parked") {
					continue // they fail as the others do
				}
				run(when, "X=", append(args, "-c", path)...)
			}
		}
		for _, dsn := range []string{"harness:" + secrets[2] + "@tcp(" + m.Addr + ")/" + s.DB, "harness:" + wrong + "@tcp(" + m.Addr + ")/" + s.DB, "harness:" + wrong + "@nonsense"} {
			run(when, "KEYROW_DSN="+dsn, "init")
		}
	}
	all("")

	// Both servers go away.
	m.Kill()
	say("SET", "user:8", `{"name":"Hal"}`)
	say("GET", "user:9")
	r.Kill()
	for _, args := range [][]string{{"GET", "user:42"}, {"AUTH", "app", app}, {"AUTH", "app", wrong}, {"HELLO", "3", "AUTH", "app", wrong}, {"SET", "user:8", "{}"}} {
		p := dial(t, s.Addr)
		shown["without redis, "+args[0]] += p.do(args...)
	}
	look("without servers ")
	run("without servers ", "X=", "check", "-c", filepath.Join(dir, "good"))
	shown["the log"] = s.Log()
	if !strings.Contains(shown["the log"], "slow command") || !strings.Contains(shown["the log"], "cannot be reached") {
		t.Error("the log does not have what it should")
	}
	s.Term()
	shown["the log to its end"] = s.Log()

	for what, text := range shown {
		for _, secret := range secrets {
			if len(secret) > 5 && strings.Contains(text, secret) {
				t.Errorf("%s shows %q:\n%.2000s", what, secret, text)
			}
		}
		if text == "" && !strings.Contains(what, "GET") {
			t.Errorf("%s is empty", what)
		}
	}
}

package harness

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Whom keyrow logs in as, with passwords that nothing else is called. Nothing that a keyrow process shows may contain one of
// them, nor any other of its configuration: that is looked at in every test.
const (
	ownUser       = "harness"
	redisPassword = "Redis-Geheimnis-4711"
	mysqlPassword = "MySQL-Geheimnis-4712"
)

// Secrets are those of the configuration.
func (k *Keyrow) Secrets() (secrets []string) {
	for _, path := range []string{"redis.password", "admin.token"} {
		secrets = append(secrets, k.expanded(setting(k.config(), path, "")))
	}
	if dsn, err := mysql.ParseDSN(k.expanded(setting(k.config(), "mysql.dsn", ""))); err == nil {
		secrets = append(secrets, dsn.Passwd)
	}
	for _, path := range []string{"proxy.tls.key", "redis.tls.key"} {
		text, _ := os.ReadFile(k.expanded(setting(k.config(), path, "")))
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "-----") {
				secrets = append(secrets, strings.TrimSpace(line))
			}
		}
	}
	return secrets
}

// expanded puts the variables of the process's environment into a setting.
func (k *Keyrow) expanded(text string) string {
	return os.Expand(text, func(name string) string {
		for _, pair := range k.options.Env {
			if value, ok := strings.CutPrefix(pair, name+"="); ok {
				return value
			}
		}
		return os.Getenv(name)
	})
}

// tells fails the test if something that the process shows contains a secret.
func (k *Keyrow) tells(what, text string) {
	k.t.Helper()
	for _, secret := range k.Secrets() {
		// Short ones are parts of words.
		if len(secret) < 6 || !strings.Contains(text, secret) {
			continue
		}
		line := regexp.MustCompile(`.*` + regexp.QuoteMeta(secret) + `.*`).FindString(text)
		k.t.Errorf("%s of keyrow shows the secret %q:\n%s", what, secret, line)
	}
}

// Show asks the admin listener, with its token.
func (k *Keyrow) Show(path string) (status int, text string, err error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+k.Admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token := k.expanded(setting(k.config(), "admin.token", "")); token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	// A process that is paused does not answer.
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// scan looks for secrets in what the process shows at its end, if it still runs.
func (k *Keyrow) scan() {
	k.t.Helper()
	if k.proc == nil || k.proc.exited() || k.Admin == "" || k.proc.halted() {
		return
	}
	for _, path := range []string{"/metrics", "/status", "/", "/readyz", "/debug/pprof/cmdline"} {
		_, text, err := k.Show(path)
		if err != nil {
			return // it is in no state to answer
		}
		k.tells(path, text)
	}
}

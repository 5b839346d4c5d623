//go:build page

package page

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"keyrow/test/harness"
)

// prometheus is a server that scrapes k and knows the alerts.
type prometheus struct{ addr string }

func startPrometheus(t *testing.T, k *harness.Keyrow) prometheus {
	t.Helper()
	rules, err := filepath.Abs("../../docs/prometheus/keyrow.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`
global: {scrape_interval: 500ms, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: keyrow
    static_configs: [{targets: [%q]}]
`, rules, k.Admin)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	cmd := exec.Command("prometheus", "--config.file="+conf, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--log.level=warn")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; test/run page installs it", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return prometheus{addr}
}

// get asks the API; out takes the data of the answer.
func (p prometheus) get(path string, out any) error {
	r, err := http.Get("http://" + p.addr + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	answer := struct {
		Error string
		Data  any
	}{Data: out}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return fmt.Errorf("prometheus: %s", answer.Error)
	}
	return nil
}

// values are the results of an expression, NaN left out.
func (p prometheus) values(expr string) (n int, err error) {
	var data struct{ Result []struct{ Value [2]any } }
	err = p.get("/api/v1/query?query="+url.QueryEscape(expr), &data)
	for _, r := range data.Result {
		if r.Value[1] != "NaN" {
			n++
		}
	}
	return n, err
}

// expressions finds every expr of a dashboard.
func expressions(v any) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		if expr, ok := v["expr"].(string); ok {
			all = append(all, expr)
		}
		for _, below := range v {
			all = append(all, expressions(below)...)
		}
	case []any:
		for _, below := range v {
			all = append(all, expressions(below)...)
		}
	}
	return all
}

// A Prometheus scrapes keyrow, every alert can be evaluated and is about metrics that there are, and every query of the
// dashboard has an answer.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	k := serve(t)
	r, err := http.Get("http://" + k.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(string(metrics))
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if out, err := exec.Command("promtool", "check", "rules", "--lint-fatal", "../../docs/prometheus/keyrow.rules.yml").CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}

	p := startPrometheus(t, k)
	answered := func(what, expr string) {
		t.Helper()
		harness.Until(t, fmt.Sprintf("%s has an answer: %s", what, expr), func() bool {
			n, err := p.values(expr)
			if err != nil && strings.HasPrefix(err.Error(), "prometheus: ") {
				t.Fatalf("%s: %v: %s", what, err, expr)
			}
			return n > 0
		})
	}

	text, err := os.ReadFile("../../docs/grafana/keyrow.json")
	if err != nil {
		t.Fatal(err)
	}
	var board any
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "20s", "$job", "keyrow", "$instance", ".*")
	queries := expressions(board)
	if len(queries) < 30 {
		t.Errorf("the dashboard has %d queries", len(queries))
	}
	for _, expr := range queries {
		answered("the dashboard", variables.Replace(expr))
	}

	// A row that MySQL refuses is tried for a while before it is parked.
	answered("the test", "keyrow_journal_parked > 0")

	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Query, Health, LastError, State string }
		}
	}
	harness.Until(t, "every alert is evaluated, and that of parked rows is pending", func() bool {
		if err := p.get("/api/v1/rules", &rules); err != nil {
			return false
		}
		for _, g := range rules.Groups {
			for _, rule := range g.Rules {
				if rule.Health == "err" {
					t.Fatalf("%s: %s", rule.Name, rule.LastError)
				}
				if rule.Health != "ok" || rule.Name == "KeyrowRowsParked" && rule.State == "inactive" {
					return false
				}
			}
		}
		return len(rules.Groups) > 0
	})
	for _, g := range rules.Groups {
		for _, rule := range g.Rules {
			for _, name := range regexp.MustCompile(`\b(keyrow_\w+|up)\b`).FindAllString(rule.Query, -1) {
				answered(rule.Name, name)
			}
			if want := map[bool]string{true: "pending", false: "inactive"}[rule.Name == "KeyrowRowsParked"]; rule.State != want {
				t.Errorf("%s is %s, want %s", rule.Name, rule.State, want)
			}
		}
	}
}

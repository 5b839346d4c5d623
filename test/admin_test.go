package test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// get asks the admin listener of k.
func get(t *testing.T, k *harness.Keyrow, path string) (status int, text string) {
	t.Helper()
	r, err := http.Get("http://" + k.Admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// metric is the sum of the series that begin with name.
func metric(t *testing.T, metrics, name string) (sum float64) {
	t.Helper()
	lines := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(name)+`[^ ]* (\S+)$`).FindAllStringSubmatch(metrics, -1)
	if len(lines) == 0 {
		t.Errorf("there is no metric %s", name)
	}
	for _, line := range lines {
		v, err := strconv.ParseFloat(line[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// documented holds metrics against the table in docs/operations.md: name, type and labels.
func documented(t *testing.T, metrics string) {
	t.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	labels := regexp.MustCompile(`(\w+)(?:=|` + "`" + `)`)
	list := func(text string) string {
		var names []string
		for _, found := range labels.FindAllStringSubmatch(text, -1) {
			if found[1] != "le" {
				names = append(names, found[1])
			}
		}
		slices.Sort(names)
		return strings.Join(names, ",")
	}
	told := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| `+"`"+`(keyrow_\w+)`+"`"+` \| (\w+) \|([^|]*)\|`).FindAllStringSubmatch(string(text), -1) {
		told[row[1]] = row[2] + " " + list(row[3])
	}
	for _, kind := range regexp.MustCompile(`(?m)^# TYPE (keyrow_\w+) (\w+)$`).FindAllStringSubmatch(metrics, -1) {
		sample := regexp.MustCompile(`(?m)^` + kind[1] + `(?:_bucket)?(?:\{(.*)\})? \S+$`).FindStringSubmatch(metrics)
		if sample == nil {
			t.Errorf("%s has no sample", kind[1])
			continue
		}
		if got := kind[2] + " " + list(sample[1]); told[kind[1]] != got {
			t.Errorf("docs/operations.md has %s as %q, and it is %q", kind[1], told[kind[1]], got)
		}
		delete(told, kind[1])
	}
	for name := range told {
		t.Errorf("docs/operations.md has %s, which there is not", name)
	}
}

const adminConfig = `
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"
`

// What a tour leaves shows in the metrics and in the status, and no password does.
func TestMetricsAndStatus(t *testing.T) {
	t.Parallel()
	const secret = "Pa55-geheim"
	r := harness.StartRedis(t)
	r.Do("ACL", "SETUSER", "keyrow", "on", ">"+secret, "~*", "&*", "+@all")
	m := harness.SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, "CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL, mail VARCHAR(20) UNIQUE)")
	m.Exec(db, "INSERT INTO users VALUES (1, 'Ada', 'a')")
	k := harness.StartKeyrow(t, harness.Options{Redis: r, MySQL: m, DB: db, Config: adminConfig,
		Set: map[string]string{"redis.username": "keyrow", "redis.password": secret}})
	for range 3 {
		k.Must("GET", "user:1")
	}
	k.Must("GET", "user:9")
	k.Must("SET", "user:2", `{"name":"Bob"}`)
	k.Must("SET", "user:3", `{"name":"Eve","mail":"a"}`) // refused by MySQL
	if _, err := k.Do("SET", "user:4", `{"nope":1}`); err == nil {
		t.Error("a wrong row was taken")
	}
	k.Must("HSET", "plain", "f", "v")
	k.Settled("user:3")

	var metrics string
	harness.Until(t, "the parked row shows", func() bool {
		_, metrics = get(t, k, "/metrics")
		return strings.Contains(metrics, "\nkeyrow_journal_parked 1\n")
	})
	for name, want := range map[string]float64{
		`keyrow_hits_total{mapping="user"}`: 2, `keyrow_misses_total{mapping="user"}`: 2,
		`keyrow_fills_total{mapping="user"}`: 2, `keyrow_writes_total`: 2, `keyrow_flushed_rows_total`: 1,
		`keyrow_commands_total{group="string",outcome="row"}`: 6, `keyrow_commands_total{group="string",outcome="refused"}`: 1,
		`keyrow_commands_total{group="hash",outcome="passed"}`: 1, `keyrow_select_duration_seconds_count{mapping="user"}`: 2,
		`keyrow_parked_total`: 1, `keyrow_journal_pending`: 0, `keyrow_up`: 2, `keyrow_breaker_open`: 0, `keyrow_clients`: 1,
		`keyrow_journal_owned_partitions`: 4, `keyrow_build_info`: 1,
	} {
		if got := metric(t, metrics, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	documented(t, metrics)
	if n := metric(t, metrics, "keyrow_command_duration_seconds_count"); n == 0 {
		t.Error("no command was timed")
	}
	if n := metric(t, metrics, "keyrow_flush_batch_keys_count"); n == 0 {
		t.Error("no batch was timed")
	}

	_, text := get(t, k, "/status")
	var status struct {
		Ready    bool
		Mappings []struct {
			Name         string
			Hits, Misses int
		}
		Journal struct{ Parked int }
	}
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		t.Fatal(err)
	}
	if !status.Ready || len(status.Mappings) != 1 || status.Mappings[0].Hits != 2 || status.Journal.Parked != 1 {
		t.Errorf("the status is %s", text)
	}
	_, page := get(t, k, "/")
	for name, text := range map[string]string{"metrics": metrics, "status": text, "page": page, "log": k.Log()} {
		if strings.Contains(text, secret) {
			t.Errorf("the %s shows a password", name)
		}
	}
}

// keyrow is ready while MySQL is away, for it still serves what is in Redis, but not while Redis is; and the command says
// the same.
func TestHealth(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t)
	m := harness.StartMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, "CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20) NOT NULL)")
	k := harness.StartKeyrow(t, harness.Options{Redis: r, MySQL: m, DB: db, Config: adminConfig})
	ready := func(want bool) {
		t.Helper()
		harness.Until(t, "readiness is "+strconv.FormatBool(want), func() bool {
			status, _ := get(t, k, "/readyz")
			return (status == 200) == want
		})
	}
	ready(true)
	m.Kill()
	harness.Until(t, "mysql is seen to be away", func() bool {
		_, metrics := get(t, k, "/metrics")
		return strings.Contains(metrics, `keyrow_up{server="mysql"} 0`)
	})
	ready(true)
	r.Kill()
	ready(false)
	if status, _ := get(t, k, "/healthz"); status != 200 {
		t.Errorf("the health is answered %d", status)
	}
	r.Restart()
	m.Restart()
	ready(true)

	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	conf := harness.NewKeyrow(t, harness.Options{Redis: r, MySQL: m, DB: db, Config: adminConfig,
		Set: map[string]string{"admin.listen": `"` + k.Admin + `"`}}).Conf
	for _, args := range [][]string{{"health", "-c", conf}, {"health", "--live", "-c", conf}} {
		out, err := exec.CommandContext(context.Background(), binary, args...).CombinedOutput()
		if err != nil || string(out) != map[bool]string{true: "alive\n", false: "ready\n"}[len(args) == 4] {
			t.Errorf("keyrow %v: %v, %q", args, err, out)
		}
	}
	r.Kill()
	ready(false)
	out, err := exec.CommandContext(context.Background(), binary, "health", "-c", conf).CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), "keyrow: not ready: redis: ") {
		t.Errorf("keyrow health without redis: %v, %q", err, out)
	}
}

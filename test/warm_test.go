package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keyrow/test/harness"
)

// warmed is what keyrow warm prints as JSON.
type warmed struct {
	Mapping, From, Error string
	Complete             bool
	Seconds              float64
	Reasons              []string

	Rows, Cached, Present, Deleted, Leased, Negative, Changed, Absent, Keyless, Failed int
}

// warm runs keyrow warm, beside a keyrow that serves or not.
func (s *shop) warm(args ...string) (status int, w warmed, stderr string) {
	s.t.Helper()
	status, stdout, stderr := command(s.t, filepath.Dir(s.Conf), nil, append([]string{"warm", "--json"}, args...)...)
	s.decode(stdout, &w)
	return status, w, stderr
}

func (s *shop) decode(stdout string, v any) {
	s.t.Helper()
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(v); stdout != "" && err != nil {
		s.t.Fatalf("%v:\n%s", err, stdout)
	}
}

// What is warmed needs no SELECT any more, whatever its keys are like.
func TestWarm(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Config: shopConfig + kindsConfig})
	s.sql("INSERT INTO users SELECT seq, CONCAT('n', seq), IF(seq % 2, NULL, 'x'), 20, seq FROM seq_1_to_300;" +
		"INSERT INTO stock SELECT seq % 7, CONCAT(IF(seq % 2, 'a-', 'B'), seq), seq FROM seq_1_to_300;" +
		"INSERT INTO nicks VALUES ('Bob', 1), ('älice', 2), ('', 3), ('x\\ny', 4), ('\"q', 5)")
	for _, test := range []struct {
		name string
		want warmed
	}{
		{"user", warmed{Rows: 300, Cached: 300}},
		{"stock", warmed{Rows: 300, Cached: 300}},
		{"nick", warmed{Rows: 5, Cached: 4, Keyless: 1}},
		{"code", warmed{}},
		{"profile", warmed{Rows: 300, Cached: 300}},
		{"email", warmed{Rows: 300, Cached: 150, Absent: 150}},
		{"names", warmed{Rows: 1, Cached: 1}},
	} {
		for range 2 {
			status, w, stderr := s.warm(test.name)
			w.Seconds, test.want.Complete, test.want.Mapping = 0, true, test.name
			if status != 0 || stderr != "" || fmt.Sprint(w) != fmt.Sprint(test.want) {
				t.Errorf("%s: exit status %d: %+v, want %+v, %s", test.name, status, w, test.want, stderr)
			}
			test.want.Present, test.want.Cached = test.want.Cached, 0
			test.want.Negative, test.want.Absent = test.want.Absent, 0
		}
	}
	before := s.info("selects")
	for id := 1; id <= 300; id += 7 {
		s.want(fmt.Sprint("n", id), "HGET", fmt.Sprint("profile:", id), "name")
		s.Must("GET", fmt.Sprint("user:", id))
	}
	s.want(`{"warehouse":3,"article":"a-3","amount":3}`, "GET", "stock:3:a-3")
	s.want(`{"nick":"Bob","owner":1}`, "GET", "nick:Bob")
	s.want("300", "LLEN", "names")
	if n := s.info("selects") - before; n != 0 {
		t.Errorf("%d SELECTs for rows that were warmed", n)
	}
	code, stdout, stderr := command(t, filepath.Dir(s.Conf), nil, "warm", "user")
	if !regexp.MustCompile(`^user: 300 rows in .*s, \d+ a second: 0 cached, 300 in Redis already\n$`).MatchString(stdout) || code != 0 || stderr != "" {
		t.Errorf("exit status %d, %q, %q", code, stdout, stderr)
	}
	s.restKinds()
	s.same()
}

// Ctrl-C ends it at once and says how to go on, which then does the rest.
func TestWarmInterrupted(t *testing.T) {
	t.Parallel()
	s := newShop(t, harness.Options{})
	s.sql("INSERT INTO nicks SELECT CONCAT(CHAR(97 + seq % 5), '''', seq), seq FROM seq_1_to_900")
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, asJSON := range []bool{false, true} {
		s.Redis.Do("FLUSHALL")
		args := []string{"warm", "nick", "--rate", "300"}
		if asJSON {
			args = append(args, "--json")
		}
		cmd := exec.CommandContext(t.Context(), binary, args...)
		cmd.Dir = filepath.Dir(s.Conf)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		harness.Until(t, "two batches are cached", func() bool { return s.Redis.Do("DBSIZE").(int64) >= 60 })
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("it ended with %v", err)
		}
		words := regexp.MustCompile(`^keyrow: interrupted; go on with: keyrow (warm nick --rate 300 --from '(nick:.'\\''\d+)')\n$`).FindStringSubmatch(stderr.String())
		if words == nil {
			t.Fatalf("stderr: %s", &stderr)
		}
		from := strings.ReplaceAll(words[2], `'\''`, `'`)
		if asJSON {
			var w warmed
			s.decode(stdout.String(), &w)
			if w.Complete || w.Error != "interrupted" || w.From != from || w.Cached == 0 {
				t.Errorf("%+v, want it to go on from %s", w, from)
			}
		} else if !strings.HasPrefix(stdout.String(), "nick: ") {
			t.Errorf("stdout: %s", &stdout)
		}
		status, w, errs := s.warm("nick", "--from", from)
		if status != 0 || w.Rows == 900 || w.Rows != w.Cached+w.Present || w.Present == 0 {
			t.Errorf("exit status %d: %+v, %s", status, w, errs)
		}
		if n := s.Redis.Do("DBSIZE").(int64); n != 900 {
			t.Errorf("%d rows are cached", n)
		}
	}
	s.same()
}

// Rows are written, deleted and read all the while: nothing that is cached is older than what was acknowledged, and
// what differs is never what keyrow wrote.
func TestWarmBesideWrites(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	traffic := newTraffic(t, 8, 400)
	traffic.start(s.Addr)
	for range 4 {
		traffic.more(200)
		if status, w, stderr := s.warm("account"); status != 0 || w.Failed != 0 {
			t.Errorf("exit status %d: %+v, %s", status, w, stderr)
		}
		traffic.more(50)
		if status, v, stderr := s.verify("account"); status != 0 {
			t.Errorf("exit status %d: %+v, %s", status, v, stderr)
		}
	}
	traffic.stop()
	s.Settled()
	if status, w, stderr := s.warm("account"); status != 0 || w.Rows != w.Cached+w.Present+w.Negative {
		t.Errorf("exit status %d: %+v, %s", status, w, stderr)
	}
	s.rest()
	traffic.check(s)
}

// A terminal gets a bar that goes away; a file gets no control characters.
func TestWarmOnTerminal(t *testing.T) {
	t.Parallel()
	s := newShop(t, harness.Options{})
	s.sql("INSERT INTO users (id, name) SELECT seq, seq FROM seq_1_to_1000")
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	on := func(term string, args ...string) (string, string) {
		t.Helper()
		terminal := harness.NewTerminal(t, 100)
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, append(args, "-c", s.Conf)...)
		cmd.Env = append(os.Environ(), "TERM="+term)
		var stdout bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, terminal.File
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
		return terminal.Printed(), stdout.String()
	}
	for _, args := range [][]string{{"warm", "user", "--rate", "1000"}, {"verify", "user"}} {
		what := strings.Join(args[:2], " ")
		printed, stdout := on("xterm", args...)
		if !strings.Contains(printed, what+" ") || !strings.Contains(printed, "[") || !strings.HasSuffix(printed, "\r\x1b[K") {
			t.Errorf("%s prints on a terminal %q", what, printed)
		}
		if !strings.HasPrefix(stdout, "user: 1000 ") || strings.ContainsAny(stdout, "\r\x1b") {
			t.Errorf("%s prints %q", what, stdout)
		}
		if printed, _ := on("dumb", args[:2]...); printed != "" {
			t.Errorf("%s prints on a dumb terminal %q", what, printed)
		}
	}
	s.same()
}

func TestWarmAndVerifyRefuse(t *testing.T) {
	t.Parallel()
	s := newShop(t, harness.Options{Config: kindsConfig})
	for _, test := range []struct{ args, stderr string }{
		{"warm ranking", `the key "rank:{least}" of query "ranking" has variables, so there is no list of its keys`},
		{"warm nobody", `there is no mapping "nobody" in conf.toml; it has profile, name, email, ranking`},
		{"warm", "want the name of one mapping, not 0 arguments"},
		{"warm name email", "want the name of one mapping, not 2 arguments"},
		{"warm name --rate -1", "--rate: -1 is negative"},
		{"warm name --parallel 0", "--parallel: 0 is not within 1 and 64"},
		{"warm name --from email:1", `--from: "email:1" is no key of mapping "name", whose keys are "name:{id}"`},
		{"warm name --from name:01", `--from: the key names no row: column "id": "01" in a key is spelled 1`},
		{`warm name --from "name:`, `--from: "name: is not a text in quotes`},
		{"warm names --from names", `--from: query "names" has one key; leave it out`},
		{"verify names", `"names" is a query, whose results may be as old as its ttl`},
		{"verify name --sample -1", "--sample: -1 is negative"},
	} {
		status, stdout, stderr := command(t, filepath.Dir(s.Conf), nil, strings.Fields(test.args)...)
		if status != 2 || stdout != "" || !strings.HasPrefix(stderr, "keyrow: "+test.stderr) {
			t.Errorf("%s: exit status %d, %q, %q, want %q", test.args, status, stdout, stderr, test.stderr)
		}
	}
}

// verified is what keyrow verify prints as JSON.
type verified struct {
	Mapping, Error string
	Complete       bool
	Seconds        float64
	Differences    []struct {
		Key, Why string
		Columns  []struct{ Column, Cached, Row string }
		Repaired bool
	}

	Images, Same, Differ, Repaired, Pending, Parked, Gone, Foreign int
}

func (s *shop) verify(args ...string) (status int, v verified, stderr string) {
	s.t.Helper()
	status, stdout, stderr := command(s.t, filepath.Dir(s.Conf), nil, append([]string{"verify", "--json"}, args...)...)
	s.decode(stdout, &v)
	return status, v, stderr
}

// Rows that were changed past keyrow are found and repaired; what is written and not flushed yet is none of them.
func TestVerify(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"journal.interval": "1h"}})
	s.sql("INSERT INTO nicks SELECT CONCAT('n', seq), seq FROM seq_1_to_500; INSERT INTO nicks VALUES ('x\\ty', 1)")
	if status, w, stderr := s.warm("nick"); status != 0 || w.Cached != 501 {
		t.Fatalf("exit status %d: %+v, %s", status, w, stderr)
	}
	if status, v, stderr := s.verify("nick"); status != 0 || v.Same != 501 || v.Differences == nil || len(v.Differences) > 0 || !v.Complete {
		t.Errorf("exit status %d: %+v, %s", status, v, stderr)
	}
	s.want("OK", "SET", "nick:n4", `{"owner":44}`)
	s.sql("UPDATE nicks SET owner = 0 WHERE nick IN ('n1', 'n4', 'x\\ty'); DELETE FROM nicks WHERE nick = 'n2'")

	lines := []string{
		`nick:n1: column "owner": cached 1, row 0`,
		"nick:n2: the row is gone",
		`"nick:x\ty": column "owner": cached 1, row 0`,
	}
	for _, repair := range []bool{false, true} {
		args, end, code, last := []string{"verify", "nick"}, "", 1, "498 are what their rows say, 3 differ, 1 not flushed yet\n"
		if repair {
			args, end, code = append(args, "--repair"), "; repaired", 0
			last = strings.Replace(last, "differ", "differ (3 repaired)", 1)
		}
		last = strings.Replace(last, "498", "497", 1)
		status, stdout, stderr := command(t, filepath.Dir(s.Conf), nil, args...)
		got := strings.SplitAfter(stdout, "\n")
		want := map[string]bool{}
		for _, line := range lines {
			want[line+end+"\n"] = true
		}
		sums := got[max(len(got)-2, 0)]
		for _, line := range got[:max(len(got)-2, 0)] {
			if !want[line] {
				t.Errorf("it prints %q", line)
			}
			delete(want, line)
		}
		if status != code || len(want) > 0 || !strings.HasPrefix(sums, "nick: 501 keys in ") || !strings.HasSuffix(sums, last) {
			t.Errorf("exit status %d: %sit does not say %q, %s", status, stdout, slices.Collect(maps.Keys(want)), last)
		}
		if repair != (stderr == "") || !repair && stderr != "keyrow: 3 keys differ; --repair drops them from Redis\n" {
			t.Errorf("stderr %q", stderr)
		}
		if repair {
			break
		}
		status, v, stderr := s.verify("nick")
		if status != 1 || len(v.Differences) != 3 || v.Differ != 3 || v.Pending != 1 || v.Repaired != 0 || v.Same != 497 {
			t.Errorf("exit status %d: %+v, %s", status, v, stderr)
		}
	}
	s.want(`{"nick":"n1","owner":0}`, "GET", "nick:n1")
	s.want("nil", "GET", "nick:n2")
	s.want(`{"nick":"n4","owner":44}`, "GET", "nick:n4")
	if status, v, stderr := s.verify("nick", "--sample", "10"); status != 0 || v.Images != 10 {
		t.Errorf("exit status %d: %+v, %s", status, v, stderr)
	}
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.same()
}

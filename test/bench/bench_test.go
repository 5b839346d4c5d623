package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// Everything once, in tiny: that the scenarios fit the servers and keyrow, not what they find.
func TestRun(t *testing.T) {
	keyrow, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	err = run(t.Context(), []string{"-keyrow", keyrow, "-proxies", "direct,keyrow", "-clients", "1,3", "-pipelines", "2",
		"-sizes", "100", "-commands", "get,mget", "-seconds", "0.01", "-rounds", "2"}, &out, &progress)
	text := out.String()
	if err != nil || strings.Contains(text, "failed") {
		t.Fatalf("%v\n%s\n%s", err, progress.String(), text)
	}
	for _, line := range []string{
		`GET +100 B +1 +2 +\d+ +\d+\.\d\d`, `MGET +100 B +3 +2 +\d+ +\d+\.\d\d`, // ratios
		`GET +100 B +2 +\d+ +[-+]\d+`,                                         // latency
		`GET +100 B +3 +2 +\d+\.\d +\d+\.\d \+ \d+\.\d`,                       // CPU
		`SET of 1000 rows, 50 clients, pipeline 1 +plain SET +\d+ +\d+\.\d\d`, // rows
		`SET of 50000 rows, 50 clients, pipeline 16 +plain SET +\d+ +\d+\.\d\d`,
		`GET of rows that are not in Redis, 50 clients +SELECT +\d+ +\d+\.\d\d`,
		`flush of a backlog of rows +upserts +\d+ +\d+\.\d\d`,
		`A row is in MySQL \d+\.\d\d flush intervals after`,
	} {
		if !regexp.MustCompile(`(?m)^` + line).MatchString(text) {
			t.Errorf("no line like %q in\n%s", line, text)
		}
	}
}

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // in the error; "": none
	}{
		{nil, ""},
		{[]string{"-clients", "1,50", "-pipelines", "16", "-sizes", "100", "-commands", "set,incr", "-proxies", "direct,haproxy"}, ""},
		{[]string{"-scenario", "flush,cold-read", "-markdown", "-keyrow", "./keyrow"}, ""},
		{[]string{"-clients", "0"}, `"0" is not a positive number`},
		{[]string{"-clients", "1,x"}, `"x" is not a positive number`},
		{[]string{"-commands", "get,lpop"}, `no "lpop": there are get, set, incr, mget, lrange`},
		{[]string{"-scenario", ""}, `no "": there are passthrough, mapped-set, cold-read, flush`},
		{[]string{"-rounds", "0"}, "positive"},
		{[]string{"-seconds", "-1"}, "positive"},
		{[]string{"-json", "-markdown"}, "exclude each other"},
		{[]string{"get"}, `unknown argument "get"`},
	} {
		_, err := parseOptions(c.args, &bytes.Buffer{})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v, not an error with %q", c.args, err, c.want)
		}
	}
}

func TestPasses(t *testing.T) {
	b := &bench{options: options{
		commands: []string{"get", "incr", "mget"}, sizes: []int{100, 10240}, clients: []int{1, 1000}, pipelines: []int{1, 100},
	}}
	var measured, leftOut []string
	for _, c := range b.passes() {
		if c.LeftOut != "" {
			leftOut = append(leftOut, c.String())
		} else {
			measured = append(measured, c.String())
		}
	}
	if len(measured) != 19 {
		t.Errorf("%d contests, not 19:\n%s", len(measured), strings.Join(measured, "\n"))
	}
	if strings.Join(leftOut, "; ") != "MGET 10 KiB, 1000 clients, pipeline 100" {
		t.Errorf("left out: %q", leftOut)
	}
}

package main

import (
	"encoding/json"
	"strings"
	"testing"
)

var example = report{
	Machine: machine{CPUs: 2, CPU: "Abacus", MemoryMB: 4096, Kernel: "linux 6.1", Versions: []version{{"keyrow", "abc"}, {"HAProxy", "2.6"}}},
	Contests: []contest{
		{Scenario: "passthrough", Cell: cell{"get", 100, 1, 16, 0}, Targets: []series{
			{Target: "direct", Samples: rates(100_040, 100_000)},
			{Target: "keyrow", Samples: rates(90_036, 90_000)},
			{Target: "haproxy", Samples: rates(50_000), Failed: "it broke"},
		}},
		{Scenario: "passthrough", Cell: cell{"incr", 0, 50, 1, 0}, Targets: []series{
			{Target: "direct", Samples: rates(2000)}, {Target: "keyrow", Samples: rates(3000)},
		}},
		{Scenario: "passthrough", Cell: cell{"get", 10240, 50, 1, 0}, Targets: []series{{Target: "direct", Failed: "no end"}}},
		{Scenario: "passthrough", Cell: cell{"mget", 10240, 1000, 100, 0}, LeftOut: "too much"},
		{Scenario: "flush", Targets: []series{{Target: "upserts", Samples: rates(2000)}, {Target: "keyrow", Samples: rates(24_000)}}},
		{Scenario: "cold-read", Cell: cell{Clients: 50}, Targets: []series{{Target: "SELECT"}, {Target: "keyrow", Failed: "no row"}}},
	},
	Visible: &visibility{0.5, 1.25},
}

func TestReportText(t *testing.T) {
	var out strings.Builder
	if err := example.write(&out, "text"); err != nil {
		t.Fatal(err)
	}
	compareText(t, out.String(), `
- 2 × Abacus, 4 GB of memory, linux 6.1
- keyrow abc; HAProxy 2.6

Requests a second, as a ratio to a direct connection

command   value  clients  pipeline  direct, per second  keyrow     haproxy
GET       100 B        1        16              100000    0.90  failed [1]
INCR          –       50         1                2000    1.50
GET      10 KiB       50         1          failed [2]
MGET     10 KiB     1000       100        left out [3]

[1] GET 100 B, 1 client, pipeline 16, haproxy: it broke

[2] GET 10 KiB, 50 clients, pipeline 1, direct: no end

[3] too much

Microseconds by which the median latency of a single client grows

command  value  pipeline  direct, µs  keyrow  haproxy
GET      100 B        16           1      +0   failed

CPU seconds for a million requests, of the proxy + of Redis

command   value  clients  pipeline  direct      keyrow  haproxy
GET       100 B        1        16     2.0  10.0 + 2.0   failed
INCR          –       50         1     2.0  10.0 + 2.0
GET      10 KiB       50         1  failed

Rows of MySQL, as a ratio to doing the same without keyrow

keyrow                                         compared with  its rate, per second  ratio  CPU s/million: keyrow  Redis  MySQL  compared: Redis  MySQL
flush of a backlog of rows                     upserts                        2000  12.00                   10.0    2.0    0.0              2.0    0.0
GET of rows that are not in Redis, 50 clients  SELECT                   failed [1]

[1] GET of rows that are not in Redis, 50 clients, keyrow: no row

A row is in MySQL 0.50 flush intervals after the reply to its SET in the median, 1.25 at the 99th percentile.
`)
}

func TestTableMarkdown(t *testing.T) {
	table := &table{title: "Sizes", head: []string{"what", "it is"}, left: 1}
	table.add("a µ", "1")
	table.add("long enough", table.note("none", "why not"))
	table.add("short")
	table.add("again", table.note("none", "why not"))
	var out strings.Builder
	table.markdown(&out)
	compareText(t, out.String(), `

### Sizes

| what        |    it is |
| ----------- | -------: |
| a µ         |        1 |
| long enough | none [1] |
| short       |          |
| again       | none [1] |

[1] why not
`)
}

// compareText skips the line break that want begins with.
func compareText(t *testing.T, got, want string) {
	t.Helper()
	if want = want[1:]; got != want {
		t.Errorf("got\n%s\nnot\n%s", got, want)
	}
}

func TestReportJSON(t *testing.T) {
	var out strings.Builder
	if err := example.write(&out, "json"); err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil {
		t.Fatal(err)
	}
	if got := back.Contests[0].Targets[1].Samples[0]; got.PerSecond != 90_036 || got.Requests != 1000 || got.CPU["proxy"] != 0.01 {
		t.Errorf("read back: %+v", got)
	}
}

func TestRound(t *testing.T) {
	for v, want := range map[float64]string{123_456: "123000", 99.96: "100", 7.126: "7.13", 0: "–"} {
		if got := round(v); got != want {
			t.Errorf("%v: %s, not %s", v, got, want)
		}
	}
}

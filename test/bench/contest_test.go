package main

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1}, 2},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 100, 2}, 3},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median of %v: %v, not %v", c.values, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: %v", got)
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, c := range []struct {
		values  []float64
		p, want float64
	}{
		{hundred, 0.99, 99}, {hundred, 0.5, 50}, {hundred, 1, 100}, {hundred, 0, 1},
		{[]float64{7}, 0.99, 7}, {[]float64{2, 1}, 0.99, 2}, {[]float64{2, 1}, 0.5, 1},
	} {
		if got := percentile(c.values, c.p); got != c.want {
			t.Errorf("percentile %v of %d values: %v, not %v", c.p, len(c.values), got, c.want)
		}
	}
	if got := percentile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("percentile of nothing: %v", got)
	}
}

// rates are samples of so many requests a second.
func rates(rates ...float64) []sample {
	samples := make([]sample, len(rates))
	for i, rate := range rates {
		samples[i] = sample{outcome{Requests: 1000, PerSecond: rate, P50: 100 / rate}, map[string]float64{"proxy": 0.01, "redis": 0.002}}
	}
	return samples
}

func TestSeries(t *testing.T) {
	// The machine is half as fast in the second round, which is not to count.
	direct, proxy := series{Samples: rates(1000, 500, 1000)}, series{Samples: rates(900, 450, 950)}
	if got := proxy.ratio(direct); got != 0.9 {
		t.Errorf("ratio %v, not 0.9", got)
	}
	if got := proxy.slower(direct); math.Abs(got-(100./900-100./1000)) > 1e-9 {
		t.Errorf("%v ms slower", got)
	}
	if got := direct.perSecond(); got != 1000 {
		t.Errorf("%v per second, not 1000", got)
	}
	if got := proxy.cpu("proxy"); math.Abs(got-10) > 1e-9 {
		t.Errorf("%v CPU seconds for a million requests, not 10", got)
	}
	// One that failed after the first round.
	if got := (series{Samples: rates(500)}).ratio(direct); got != 0.5 {
		t.Errorf("ratio %v, not 0.5", got)
	}
}

// What fails is told with its reason, and takes part no more; without the direct connection there is nothing to compare.
func TestAlternateFailures(t *testing.T) {
	runs := map[string]int{}
	failing := func(name string, at int) *target {
		return &target{name: name, run: func(context.Context) (outcome, error) {
			runs[name]++
			if runs[name] == at {
				return outcome{}, errors.New(name + " broke")
			}
			return outcome{Requests: 100, PerSecond: 1000, P50: 1}, nil
		}}
	}
	b := &bench{options: options{rounds: 4, limit: time.Minute}, redisPID: os.Getpid(), mysqlPID: os.Getpid(),
		report: &report{}, progress: &progress{out: io.Discard}}
	c := contest{Scenario: "passthrough", Cell: cell{"get", 100, 1, 1, 0}}
	if err := b.alternate(t.Context(), c, []*target{failing("direct", 3), failing("keyrow", 2), failing("haproxy", 0)}); err != nil {
		t.Fatal(err)
	}
	if runs["direct"] != 3 || runs["keyrow"] != 2 || runs["haproxy"] != 2 {
		t.Errorf("runs %v", runs)
	}
	if got, want := b.report.Contests[0].verdict(), "direct failed: direct broke"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	var out strings.Builder
	if err := b.report.write(&out, "text"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "direct: direct broke") {
		t.Errorf("no reason in\n%s", out.String())
	}

	clear(runs)
	if err := b.alternate(t.Context(), c, []*target{failing("direct", 0), failing("keyrow", 2)}); err != nil {
		t.Fatal(err)
	}
	if runs["direct"] != 4 || runs["keyrow"] != 2 {
		t.Errorf("runs %v", runs)
	}
	if got, want := b.report.Contests[1].verdict(), "direct 1000/s, keyrow failed: keyrow broke"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestParseStat(t *testing.T) {
	const tail = " S 1 2 2 0 -1 4194560 5 0 0 0 123 45 7 8 20 0 6 0 99 1 1"
	for stat, want := range map[string]time.Duration{
		"42 (redis-server)" + tail:                 1680 * time.Millisecond,
		"42 (a) R (b c)" + tail:                    1680 * time.Millisecond,
		"42 (x) S 1 2":                             -1,
		"42 (x) S 1 2 2 0 -1 4194560 5 0 0 0 a 45": -1,
		"42 (x) S 1 2 2 0 -1 4194560 5 0 0 0 1 b":  -1,
		"": -1,
	} {
		got, err := parseStat(stat)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v, not %v", stat, got, err, want)
		}
	}
	if _, err := cpuTime(1); err != nil {
		t.Error(err)
	}
}

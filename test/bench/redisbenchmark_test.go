package main

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

const csvHead = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"` + "\n"

func TestParseCSV(t *testing.T) {
	for _, c := range []struct {
		text string
		want outcome
		err  string
	}{
		{csvHead + `"SET","59259.26","0.259","0.040","0.063","0.935","1.447","4.663"` + "\n", outcome{PerSecond: 59259.26, P50: 0.063}, ""},
		{csvHead + `"SET k {"name":"a","b":"c"}","1000.00","0.2","0.04","0.063","0.9","1.4","4.6"` + "\n", outcome{PerSecond: 1000, P50: 0.063}, ""},
		{"a warning\n" + csvHead + `"GET k","2.50","1.512","0.064","1.295","3.695","7.087","13.647"`, outcome{PerSecond: 2.5, P50: 1.295}, ""},
		{csvHead, outcome{}, "printed no result"},
		{"", outcome{}, "printed no result"},
		{`"SET","123456.78"` + "\n", outcome{}, "older than 6.2"},
		{csvHead + `"SET","1.0"`, outcome{}, "fewer values than names"},
		{csvHead + `"SET","0.00","0.259","0.040","0.063","0.935","1.447","4.663"`, outcome{}, `"0.00" for rps`},
		{csvHead + `"SET","nan","0.259","0.040","0.063","0.935","1.447","4.663"`, outcome{}, `"nan" for rps`},
		{csvHead + `"SET","1.0","0.259","0.040","x","0.935","1.447","4.663"`, outcome{}, `"x" for p50_latency_ms`},
		{`"test","rps"` + "\n" + `"SET","1.0"`, outcome{}, "printed no p50_latency_ms"},
	} {
		got, err := parseCSV(c.text)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, not an error with %q", c.text, err, c.err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v, not %+v", c.text, got, err, c.want)
		}
	}
}

// Neither a server that never answers nor one that is not there makes redis-benchmark end.
func TestLoadThatHangs(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{silent.Addr().String(): "was killed", gone: "Connection refused"} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err := load{clients: 2, pipeline: 1, requests: 10, keys: 1, args: []string{"GET", "k"}}.run(ctx, addr)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not an error with %q", err, want)
		}
	}
}

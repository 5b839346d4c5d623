package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keys is how many keys there are of each size, and counters. All of them exist before anything is measured.
const keys = 10_000

// random is what redis-benchmark replaces by a random number of twelve digits, a new one at each place.
const random = "__rand_int__"

// load is a run of redis-benchmark.
type load struct {
	clients, pipeline, requests int

	keys int      // random numbers are below it
	args []string // the command
}

// run runs it against an address until ctx ends. redis-benchmark does not end by itself when it cannot connect, nor
// when a reply is missing, so ctx has to.
func (l load) run(ctx context.Context, addr string) (outcome, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return outcome{}, err
	}
	argv := append([]string{"-h", host, "-p", port, "--csv", "-c", strconv.Itoa(l.clients), "-P", strconv.Itoa(l.pipeline),
		"-n", strconv.Itoa(l.requests), "-r", strconv.Itoa(l.keys)}, l.args...)
	cmd := exec.CommandContext(ctx, "redis-benchmark", argv...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	switch err := cmd.Run(); {
	case errors.Is(err, exec.ErrNotFound):
		return outcome{}, errors.New("redis-benchmark is not installed: test/run installs it, with the package redis-tools")
	case ctx.Err() != nil:
		return outcome{}, fmt.Errorf("redis-benchmark did not end in time and was killed: %w%s", ctx.Err(), said(stderr.String()))
	case err != nil:
		return outcome{}, fmt.Errorf("redis-benchmark: %w%s", err, said(stderr.String()))
	}
	got, err := parseCSV(stdout.String())
	got.Requests = l.requests
	return got, err
}

// said is the last line of what redis-benchmark complained about.
func said(stderr string) string {
	// It asks for the configuration first, which proxies refuse and which does not matter.
	stderr = strings.ReplaceAll(stderr, "WARNING: Could not fetch server CONFIG", "")
	if line := lastLine(stderr); line != "" {
		return ": " + line
	}
	return ""
}

// parseCSV reads what redis-benchmark prints with --csv: a line of names, and one of values, all in quotes. The first
// value is the command as it was given, in which quotes stand as they are, so values are counted from the end.
func parseCSV(text string) (outcome, error) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	head := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, `"test","rps"`) })
	if head < 0 || head+1 >= len(lines) {
		return outcome{}, fmt.Errorf("redis-benchmark printed no result, or is older than 6.2: %q", lastLine(text))
	}
	names := strings.Split(strings.Trim(lines[head], `"`), `","`)
	values := strings.Split(strings.Trim(lines[head+1], `"`), `","`)
	if len(values) < len(names) {
		return outcome{}, fmt.Errorf("redis-benchmark printed fewer values than names: %q", lastLine(text))
	}
	values = values[len(values)-len(names):]
	number := func(name string) (float64, error) {
		i := slices.Index(names, name)
		if i < 0 {
			return 0, fmt.Errorf("redis-benchmark printed no %s: %q", name, lines[head])
		}
		v, err := strconv.ParseFloat(values[i], 64)
		if err != nil || !(v > 0) || math.IsInf(v, 0) {
			return 0, fmt.Errorf("redis-benchmark printed %q for %s, which is not a positive number", values[i], name)
		}
		return v, nil
	}
	rate, err := number("rps")
	if err != nil {
		return outcome{}, err
	}
	p50, err := number("p50_latency_ms")
	return outcome{PerSecond: rate, P50: p50}, err
}

// calibrate finds how many requests take about as long as span, a multiple of what is under way at a time.
func (l load) calibrate(ctx context.Context, addr string, span time.Duration) (int, error) {
	wave := l.clients * l.pipeline
	l.requests = max(wave, 1000)
	for {
		got, err := l.run(ctx, addr)
		if err != nil {
			return 0, err
		}
		took := float64(l.requests) / got.PerSecond
		wanted := int(got.PerSecond * span.Seconds())
		if took >= span.Seconds()/5 { // what is shorter says little of the rate
			return max(1, (wanted+wave/2)/wave) * wave, nil
		}
		l.requests = min(wanted, 5*l.requests)
	}
}

package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// A contest is one thing measured on several targets in turns. The first of them is what the others are held against.
type contest struct {
	Scenario string   `json:"scenario"`
	Cell     cell     `json:"cell"`
	Targets  []series `json:"targets,omitempty"`
	LeftOut  string   `json:"left_out,omitempty"` // why it was not measured
}

// cell is what the clients do.
type cell struct {
	Command  string `json:"command"`
	Size     int    `json:"size,omitempty"` // bytes of a value; 0: it has none
	Clients  int    `json:"clients"`
	Pipeline int    `json:"pipeline"`
	Rows     int    `json:"rows,omitempty"` // how many different ones are written; 0: as many as there are requests
}

// series is what was measured on one target, a sample for each round.
type series struct {
	Target  string   `json:"target"`
	Samples []sample `json:"samples"`
	Failed  string   `json:"failed,omitempty"` // why there are no more
}

// sample is one run.
type sample struct {
	outcome
	CPU map[string]float64 `json:"cpu_seconds"` // by process: proxy, redis, mysql
}

// outcome is what a run found by itself.
type outcome struct {
	Requests  int     `json:"requests"`
	PerSecond float64 `json:"per_second"`
	P50       float64 `json:"p50_ms,omitempty"`
}

// target is one that takes part in a contest.
type target struct {
	name   string
	proxy  *process                    // what stands between; nil: nothing
	before func(context.Context) error // prepares a run; nil: nothing to prepare. It may set proxy
	load   load                        // for drive
	run    func(context.Context) (outcome, error)
}

// drive measures the targets with their loads, in turns. As many requests are made as take one span on the first.
func (b *bench) drive(ctx context.Context, c contest, targets []*target) error {
	b.progress.say("%s: calibrating", c)
	limited, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	requests, err := targets[0].load.calibrate(limited, b.redis.Addr, b.span)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.Targets = []series{{Target: targets[0].name, Failed: err.Error()}}
		b.enter(c)
		return nil
	}
	for _, t := range targets {
		addr := b.redis.Addr
		if t.proxy != nil {
			addr = t.proxy.addr
		}
		t.load.requests = requests
		t.run = func(ctx context.Context) (outcome, error) { return t.load.run(ctx, addr) }
	}
	return b.alternate(ctx, c, targets)
}

// alternate measures the targets in turns. One that fails is out for the rest of this contest; the first takes the
// others with it. The error is that of ctx: then the contest is not complete, and not entered.
func (b *bench) alternate(ctx context.Context, c contest, targets []*target) error {
	c.Targets = make([]series, len(targets))
	for i, t := range targets {
		c.Targets[i] = series{Target: t.name, Samples: make([]sample, 0, b.rounds)}
	}
	for round := range b.rounds {
		for i, t := range targets {
			s := &c.Targets[i]
			if s.Failed != "" {
				continue
			}
			b.progress.say("%s: round %d of %d, %s", c, round+1, b.rounds, t.name)
			got, err := b.sample(ctx, t)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				s.Samples = append(s.Samples, got)
				continue
			}
			s.Failed = err.Error()
			if i == 0 {
				b.enter(c)
				return nil
			}
		}
	}
	b.enter(c)
	return nil
}

// enter puts a contest into the report.
func (b *bench) enter(c contest) {
	b.report.Contests = append(b.report.Contests, c)
	b.progress.done(c)
}

// sample is one run on one target, with the CPU time that was used meanwhile.
func (b *bench) sample(ctx context.Context, t *target) (sample, error) {
	if t.before != nil {
		if err := b.prepare(ctx, t); err != nil {
			return sample{}, fmt.Errorf("prepare: %w", err)
		}
	}
	pids := map[string]int{"redis": b.redisPID, "mysql": b.mysqlPID}
	if t.proxy != nil {
		if err := t.proxy.alive(); err != nil {
			return sample{}, err
		}
		pids["proxy"] = t.proxy.pid()
	}
	before, err := cpuTimes(pids)
	if err != nil {
		return sample{}, err
	}
	limited, cancel := context.WithTimeout(ctx, b.limit)
	defer cancel()
	got, err := t.run(limited)
	if err != nil {
		return sample{}, err
	}
	after, err := cpuTimes(pids)
	if err != nil {
		return sample{}, err
	}
	used := make(map[string]float64, len(pids))
	for name := range pids {
		used[name] = (after[name] - before[name]).Seconds()
	}
	return sample{got, used}, nil
}

// prepareLimit bounds what comes before a run, which is to flush or to write some ten thousand rows at most.
const prepareLimit = 2 * time.Minute

func (b *bench) prepare(ctx context.Context, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	return t.before(ctx)
}

func cpuTimes(pids map[string]int) (map[string]time.Duration, error) {
	times := make(map[string]time.Duration, len(pids))
	for name, pid := range pids {
		used, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		times[name] = used
	}
	return times, nil
}

// ratio is the median over the rounds of this rate by that of base in the same round.
func (s series) ratio(base series) float64 {
	return s.median(func(round int) float64 { return s.Samples[round].PerSecond / base.Samples[round].PerSecond })
}

// slower is the median over the rounds of how many milliseconds the p50 is above that of base.
func (s series) slower(base series) float64 {
	return s.median(func(round int) float64 { return s.Samples[round].P50 - base.Samples[round].P50 })
}

// perSecond is the median rate.
func (s series) perSecond() float64 {
	return s.median(func(round int) float64 { return s.Samples[round].PerSecond })
}

// p50 is the median p50, in milliseconds.
func (s series) p50() float64 {
	return s.median(func(round int) float64 { return s.Samples[round].P50 })
}

func (s series) median(of func(round int) float64) float64 {
	values := make([]float64, len(s.Samples))
	for round := range values {
		values[round] = of(round)
	}
	return median(values)
}

// cpu is the CPU time of a process, in seconds for a million requests, over all rounds: the clock of the kernel is too
// coarse to tell one short run from another.
func (s series) cpu(process string) float64 {
	seconds, requests := 0.0, 0
	for _, one := range s.Samples {
		seconds += one.CPU[process]
		requests += one.Requests
	}
	if requests == 0 {
		return math.NaN()
	}
	return seconds / float64(requests) * 1e6
}

// median is NaN for no values.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	values = slices.Sorted(slices.Values(values))
	return (values[(n-1)/2] + values[n/2]) / 2
}

// percentile is the smallest of the values that at least the part p of them do not exceed; NaN for no values.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	values = slices.Sorted(slices.Values(values))
	return values[max(0, int(math.Ceil(p*float64(len(values))))-1)]
}

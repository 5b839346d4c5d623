package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

const watchInterval = 200 * time.Millisecond

// watch shows keyrow's counters as they move.
type watch struct {
	addr string
	out  *screen

	mu   sync.Mutex
	conn *client
	last map[string]int64
	mute bool // keyrow has no counters to show
}

// run looks every 200 ms until ctx ends.
func (w *watch) run(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	defer w.close()
	for {
		if err := w.look(ctx); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look shows what moved since the last look. An error is one that the next look would have too.
func (w *watch) look(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mute {
		return nil
	}
	now, err := w.counters(ctx)
	var refused failure
	switch {
	case errors.As(err, &refused):
		w.mute = true
		w.out.line("keyrow shows no counters: %s", refused)
		return nil
	case err != nil:
		// Either keyrow or the demo is about to end, which is noticed elsewhere.
		return nil
	}
	if moved := movement(w.last, now); w.last != nil && moved != "" {
		w.out.line("    keyrow: %s", moved)
	}
	w.last = now
	return nil
}

// counters asks keyrow; a failure is keyrow's answer.
func (w *watch) counters(ctx context.Context) (map[string]int64, error) {
	if w.conn == nil {
		conn, err := dial(ctx, w.addr)
		if err != nil {
			return nil, err
		}
		w.conn = conn
	}
	reply, err := w.conn.do(ctx, "KEYROW", "INFO")
	if err != nil {
		w.conn.close()
		w.conn = nil
		return nil, err
	}
	switch v := reply.(type) {
	case failure:
		return nil, v
	case string:
		return parseCounters(v), nil
	}
	return nil, failure(fmt.Sprintf("KEYROW INFO answered %T", reply))
}

func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.conn.close()
		w.conn = nil
	}
}

// parseCounters reads lines of name:value and leaves out what is no number.
func parseCounters(text string) map[string]int64 {
	counters := map[string]int64{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			counters[name] = n
		}
	}
	return counters
}

// shown are the counters worth a line, in the order of a command's way through keyrow, with the words for one and for
// many. Those without a word for one go down as well, so they show where they stand.
var shown = []struct{ name, one, many string }{
	{"hits", "hit", "hits"},
	{"misses", "miss", "misses"},
	{"negative_hits", "known absence", "known absences"},
	{"selects", "select", "selects"},
	{"fills", "fill", "fills"},
	{"rejected_fills", "fill rejected", "fills rejected"},
	{"load_errors", "failed load", "failed loads"},
	{"writes", "write", "writes"},
	{"deletes", "delete", "deletes"},
	{"flushed_rows", "row flushed", "rows flushed"},
	{"flush_retries", "flush retried", "flushes retried"},
	{"pending", "", "pending"},
	{"parked", "", "parked"},
	{"lost", "", "lost"},
}

// movement says what changed from one look to the next, "" if nothing did.
func movement(before, now map[string]int64) string {
	var moved []string
	for _, c := range shown {
		was, is := before[c.name], now[c.name]
		switch {
		case was == is:
		case c.one != "" && is-was == 1:
			moved = append(moved, "1 "+c.one)
		case c.one != "":
			moved = append(moved, fmt.Sprintf("%d %s", is-was, c.many))
		default:
			moved = append(moved, fmt.Sprintf("%d %s", is, c.many))
		}
	}
	return strings.Join(moved, ", ")
}

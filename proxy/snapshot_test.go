package proxy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"keyrow/test/harness"
)

// counted waits until so many commands of a kind are counted.
func (r *rig) counted(group, outcome string, want int64) {
	r.t.Helper()
	g, o := slices.Index(Groups[:], group), slices.Index(Outcomes[:], outcome)
	harness.Until(r.t, fmt.Sprintf("%d commands of %s are counted as %s", want, group, outcome), func() bool {
		return r.srv.Snapshot().Commands[g][o] == want
	})
}

// Every command is counted once, among those of its group, by what became of it.
func TestCommandsAreCounted(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("GET x", "GET y", "GET user:1", "HGET z f", "NOSUCH a")
	for _, want := range []string{"GET x", "GET y", "GET user:1", "HGET z f", "NOSUCH a"} {
		up.expect(want)
	}
	up.send("$1\r\nx\r\n-ERR y\r\n$3\r\nrow\r\n$-1\r\n-ERR no such\r\n")
	c.expect("$1\r\nx\r\n-ERR y\r\n$3\r\nrow\r\n$-1\r\n-ERR no such\r\n")
	c.send("KEYROW INFO")
	c.line()
	r.counted("string", "passed", 2)
	r.counted("string", "row", 1)
	r.counted("hash", "passed", 1)
	r.counted("other", "passed", 1)
	r.counted("other", "answered", 1)
	harness.Until(t, "2 errors of Redis and 1 client are counted", func() bool {
		snap := r.srv.Snapshot()
		return snap.Errors == 2 && snap.Clients == 1
	})
	m := r.srv.maps.Load().All()[0]
	if hits, misses := m.Counts.Hits.Load(), m.Counts.Misses.Load(); hits != 1 || misses != 0 {
		t.Errorf("%d hits and %d misses, want 1 and 0", hits, misses)
	}
}

// A command that is timed takes as long as Redis and keyrow took.
func TestCommandsAreTimed(t *testing.T) {
	const delay = 20 * time.Millisecond
	type sample struct{ upstream, own time.Duration }
	samples := make(chan sample, 100)
	r := newRig(t, func(o *Options) {
		o.Timed = func(upstream, own time.Duration) { samples <- sample{upstream, own} }
	})
	up := r.upstream()
	c := r.client()
	for range 3 {
		c.send("GET x", "GET y")
		up.expect("GET x")
		up.expect("GET y")
		up.send("$1\r\nx\r\n")
		c.expect("$1\r\nx\r\n")
		time.Sleep(delay) // how long this Redis takes
		up.send("$1\r\ny\r\n")
		c.expect("$1\r\ny\r\n")
		if s := <-samples; s.upstream < delay || s.own <= 0 {
			t.Errorf("redis took %v and keyrow %v, want at least %v and something", s.upstream, s.own, delay)
		}
	}
	// A probe does not outlive its connection.
	c.send("GET x")
	up.expect("GET x")
	_ = up.Close()
	c.line()
	up = r.upstream()
	for len(samples) == 0 {
		c.send("GET x")
		up.expect("GET x")
		up.send("$1\r\nx\r\n")
		c.expect("$1\r\nx\r\n")
	}
	if s := <-samples; s.upstream < 0 || s.own < 0 {
		t.Errorf("a sample is %+v", s)
	}
	if snap := r.srv.Snapshot(); snap.Unknown != 1 || snap.Lost != 1 {
		t.Errorf("the snapshot is %+v, want 1 command of unknown fate and 1 lost connection", snap)
	}
}

// Who owns a connection shows by the reason.
func TestPinnedByReason(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	c := r.client()
	c.send("MULTI")
	own := r.upstream()
	own.expect("CLIENT ID")
	own.send(":7\r\n")
	own.expect("MULTI")
	own.send("+OK\r\n")
	c.expect("+OK\r\n")
	// The shared lane may have its connection, and not say so yet.
	harness.Until(t, "there are a transaction and a lane that is up", func() bool {
		snap := r.srv.Snapshot()
		return snap.Pinned[pinTransaction] == 1 && snap.Lanes[laneUp] == 1 && !snap.Broken()
	})
}

// While Redis is away the breaker is open, and what is answered at once is counted.
func TestBreakerShows(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	_ = r.listener.Close()
	_ = up.Close()
	harness.Until(t, "the breaker is open", func() bool {
		snap := r.srv.Snapshot()
		return snap.Broken()
	})
	c.send("GET x")
	c.line()
	if snap := r.srv.Snapshot(); snap.Unsent != 1 || snap.Failures == 0 {
		t.Errorf("the snapshot is %+v, want 1 command that was not sent, and failures to connect", snap)
	}
}

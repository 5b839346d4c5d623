package proxy

import (
	"sync/atomic"
	"time"
)

// How long commands take, for KEYROW SLOW. No command is to cost anything for it, so there are three ways to find out:
//
//	Redis answers it      a stopwatch runs, one for each session
//	a row is loaded       the operation that loads it knows since when: see loading
//	the session waits     the session looks at the clock when it is through with the command
//
// What blocks, and what a client only listens to, is not timed, as with Redis.

// way is how a command was answered.
type way byte

const (
	wayRedis   way = iota
	wayJournal     // a write of a row, which Redis takes into the journal
	wayFill        // a row that had to be read
	wayLease       // the same, and another process was reading it
	wayMySQL       // a write that MySQL takes first
	wayBypass      // a row that was read without Redis
	wayLost        // with an error: the connection to Redis was lost, or there was none
	ways
)

// Ways are the names of the ways.
var Ways = [ways]string{"redis", "journal", "fill", "lease", "mysql", "bypass", "lost"}

// stopwatch times commands of a session that Redis answers, one at a time: of those that are sent together the first
// one, or better the first that Redis does not call fast, since fast ones only wait for others.
//
// The session starts it, and whoever hands the reply over stops it.
type stopwatch struct {
	due   atomic.Int64  // of the session's replies the one that stops it; 0: it does not run; judging: it was stopped
	since time.Duration // when the command was there
	sent  time.Duration // when it went to the lane; 0: not yet, so it is still the session's
	args  []byte        // the command, as KEYROW SLOW shows it
	way   way
	fast  bool
}

// judging says of a stopwatch that it was stopped, and that somebody looks at it still.
const judging = -1

// seen is when what is at hand was found to be there.
func (s *session) seen() time.Duration {
	if s.leads {
		return s.point.loop.seen
	}
	return clock()
}

// asked is how many replies will have been delivered once everything dispatched is answered.
func (s *session) asked() int64 {
	n := s.owed + s.batch.replies
	if s.run != nil {
		n += int64(s.run.replies())
	}
	return n
}

// clocked is called with every command that was dispatched; before is what was asked for before it.
func (s *session) clocked(c *command, req request, before int64) {
	timed := c != &unknown && c.name != "KEYROW" && !(s.pinned() && s.lane.private.leisurely()) && !s.srv.slow.off()
	switch asked := s.asked(); {
	case asked > before && s.placed.Load() < asked:
		if timed {
			s.start(c, req, asked)
		}
	case !s.leads && !s.gone.Load():
		// It had to be waited for, or else is of a session without a loop.
		now := clock()
		if took := now - s.arrived; timed && s.srv.slow.is(took) {
			s.srv.slow.add(s, took, min(s.waited, took), s.way, 0, func(b []byte) []byte { return appendShown(b, c, req) })
		}
		s.arrived = now // as far as those behind it are concerned
	}
}

// start starts the stopwatch, which the reply of that number is to stop, unless it runs for a better command.
func (s *session) start(c *command, req request, due int64) {
	w := &s.stopwatch
	if w.due.Load() != 0 && (w.sent != 0 || !w.fast || c.fast) {
		return
	}
	w.since, w.sent, w.way, w.fast = s.arrived, 0, s.way, c.fast
	if s.run == nil && len(s.batch.entries) == 0 { // it is on its way already
		w.sent = s.seen()
	}
	w.args = appendShown(w.args[:0], c, req)
	w.due.Store(due)
	if s.placed.Load() >= due { // who handed the reply over may not have seen it
		var one slowest
		one.handed(s, 0, clock())
		one.report(clock(), false)
	}
}

// waits adds to what the command at hand has waited for Redis and MySQL, since begun.
func (s *session) waits(begun time.Duration) { s.waited += clock() - begun }

// slowest is which of the commands took longest whose replies arrived together, and were too long in coming: each would
// only say the same, that Redis was busy.
type slowest struct {
	s           *session // nil: there is none
	n           int
	since, sent time.Duration
	args        []byte
	way         way
	fast        bool
}

// handed is called by who hands over replies to s: coming of them are still to be, and all had arrived then.
func (w *slowest) handed(s *session, coming int, arrived time.Duration) {
	watch := &s.stopwatch
	due := watch.due.Load()
	if due <= 0 || s.placed.Load()+int64(coming) < due || !watch.due.CompareAndSwap(due, judging) {
		return
	}
	// Where there is a hole, the command left it, or waits behind it.
	if s.srv.slow.is(arrived-watch.since) && s.placed.Load() == s.answered.Load() {
		if w.n++; w.s == nil || w.better(watch) {
			w.s, w.since, w.sent, w.args, w.way, w.fast = s, watch.since, watch.sent, append(w.args[:0], watch.args...), watch.way, watch.fast
		}
	}
	watch.due.Store(0)
}

// better reports whether of two commands that were answered together the other is rather the one that they waited for.
func (w *slowest) better(other *stopwatch) bool {
	if w.fast != other.fast {
		return w.fast
	}
	return other.since < w.since
}

// report has KEYROW SLOW show the command, if there is one.
func (w *slowest) report(arrived time.Duration, lost bool) {
	if w.s == nil {
		return
	}
	if lost {
		w.way = wayLost
	}
	w.s.srv.slow.add(w.s, clock()-w.since, max(0, arrived-max(w.since, w.sent)), w.way, w.n-1,
		func(b []byte) []byte { return append(b, w.args...) })
	w.s, w.n = nil, 0
}

// loading is since when a row is loaded for a command.
type loading struct {
	since time.Duration // when the command was there
	miss  time.Duration // when Redis was known not to have the row
}

// done has KEYROW SLOW show the command, if it took long.
func (t *loading) done(s *session, how way, command interface{ shown(b []byte) []byte }) {
	now := clock()
	if took := now - t.since; s.srv.slow.is(took) {
		s.srv.slow.add(s, took, now-t.miss, how, 0, command.shown)
	}
}

// wayOf is how a row was come by that Redis did not have.
func wayOf(leased bool) way {
	if leased {
		return wayLease
	}
	return wayFill
}

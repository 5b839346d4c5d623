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
	asked := s.asked()
	switch {
	case s.pinned() && s.lane.private.patient.Load() || c.name == "KEYROW":
	case asked > before && s.placed.Load() < asked:
		w := &s.stopwatch
		if running := w.due.Load() != 0; running && (w.sent != 0 || !w.fast || c.fast) {
			return
		}
		if c == &unknown || s.srv.slow.off() {
			return
		}
		w.since, w.sent, w.way, w.fast = s.arrived, 0, s.way, c.fast
		w.args = appendShown(w.args[:0], c, req)
		w.due.Store(asked)
		if s.placed.Load() >= asked { // who handed the reply over may not have seen it
			var one slowest
			one.handed(s, clock())
			one.report(clock(), false)
		}
	case !s.leads && !s.gone.Load():
		// It had to be waited for, or else is of a session without a loop.
		now := clock()
		if took := now - s.arrived; s.srv.slow.is(took) {
			s.srv.slow.add(s, took, min(s.waited, took), s.way, 0, func(b []byte) []byte { return appendShown(b, c, req) })
		}
		s.arrived = now // as far as those behind it are concerned
	}
}

// waits adds to what the command at hand has waited for Redis and MySQL, since begun.
func (s *session) waits(begun time.Duration) { s.waited += clock() - begun }

// handed is called by who has handed over replies to s, which had arrived then.
func (w *slowest) handed(s *session, arrived time.Duration) {
	watch := &s.stopwatch
	due := watch.due.Load()
	if due <= 0 || s.placed.Load() < due || !watch.due.CompareAndSwap(due, judging) {
		return
	}
	if s.answered.Load() < due || !s.srv.slow.is(arrived-watch.since) { // it left a hole, or waits behind one
		watch.due.Store(0)
		return
	}
	w.n++
	switch {
	case w.s == nil:
		w.s = s
	case watch.worse(&w.s.stopwatch):
		w.s.stopwatch.due.Store(0)
		w.s = s
	default:
		watch.due.Store(0)
	}
}

// slowest is which of the commands took longest whose replies arrived together, and were too long in coming: each would
// only say the same, that Redis was busy.
type slowest struct {
	s *session // its stopwatch is held still
	n int
}

// worse reports whether of two commands that were answered together w is rather the one that they waited for.
func (w *stopwatch) worse(than *stopwatch) bool {
	if w.fast != than.fast {
		return than.fast
	}
	return w.since < than.since
}

// report has KEYROW SLOW show the command, if there is one.
func (w *slowest) report(arrived time.Duration, lost bool) {
	s := w.s
	if s == nil {
		return
	}
	watch := &s.stopwatch
	how := watch.way
	if lost {
		how = wayLost
	}
	s.srv.slow.add(s, clock()-watch.since, max(0, arrived-max(watch.since, watch.sent)), how, w.n-1,
		func(b []byte) []byte { return append(b, watch.args...) })
	watch.due.Store(0)
	*w = slowest{}
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

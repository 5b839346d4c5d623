package backend

import (
	"sync/atomic"

	"github.com/sony/gobreaker/v2"
)

// LoadStats counts what a Loader has done since it was made.
//
//	Loads = calls answered without an error + Errors + calls still waiting
type LoadStats struct {
	Loads     uint64 // calls of Load
	Joined    uint64 // of these, calls for a key already under way
	Hits      uint64 // keys found to have an image after all
	Negatives uint64 // keys found to have a negative entry
	Gone      uint64 // keys found to be of a deleted row
	Waits     uint64 // looks at a key whose lease was another's
	Selects   uint64 // SELECTs
	Rows      uint64 // rows they returned
	Fills     uint64 // rows, and absences of rows, that were cached
	Rejected  uint64 // fills that came too late
	Uncached  uint64 // fills Redis refused to take
	Direct    uint64 // keys answered with a row that was not cached, for want of a lease
	Stale     uint64 // calls answered with an image past its ttl, for MySQL was down
	Errors    uint64 // calls of Load answered with an error

	Looks uint64 // images that were looked at for whether they expire soon
	Early uint64 // images that were read anew before they expired

	Bypasses     uint64 // calls of Bypass
	BypassErrors uint64 // of these, answered with an error

	Waiting   uint64 // calls that wait now
	Silent    bool   // the breaker is not closed: MySQL does not answer
	Opened    uint64 // times the breaker opened
	Broken    uint64 // SELECTs not sent because it was open
	Throttled uint64 // SELECTs not sent for max_selects
	Overdue   uint64 // keys whose SELECT did not begin within the timeout
	Crowded   uint64 // calls refused for mysql.max_waiting
}

type loadCounters struct {
	loads, joined, hits, negatives, gone, waits, selects, rows, fills, rejected, uncached, direct, errors atomic.Uint64
	looks, early, bypasses, bypassErrors, stale, opened, broken, throttled, overdue, crowded              atomic.Uint64
}

// Stats is the count up to now.
func (l *Loader) Stats() LoadStats {
	c := &l.counters
	l.mu.Lock()
	waiting := l.waiting
	l.mu.Unlock()
	return LoadStats{
		Loads:     c.loads.Load(),
		Joined:    c.joined.Load(),
		Hits:      c.hits.Load(),
		Negatives: c.negatives.Load(),
		Gone:      c.gone.Load(),
		Waits:     c.waits.Load(),
		Selects:   c.selects.Load(),
		Rows:      c.rows.Load(),
		Fills:     c.fills.Load(),
		Rejected:  c.rejected.Load(),
		Uncached:  c.uncached.Load(),
		Direct:    c.direct.Load(),
		Stale:     c.stale.Load(),
		Errors:    c.errors.Load(),

		Looks: c.looks.Load(),
		Early: c.early.Load(),

		Bypasses:     c.bypasses.Load(),
		BypassErrors: c.bypassErrors.Load(),

		Waiting:   uint64(waiting),
		Silent:    l.guard.breaker.State() != gobreaker.StateClosed,
		Opened:    c.opened.Load(),
		Broken:    c.broken.Load(),
		Throttled: c.throttled.Load(),
		Overdue:   c.overdue.Load(),
		Crowded:   c.crowded.Load(),
	}
}

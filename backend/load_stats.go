package backend

import "sync/atomic"

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
	Errors    uint64 // calls of Load answered with an error
}

type loadCounters struct {
	loads, joined, hits, negatives, gone, waits, selects, rows, fills, rejected, uncached, direct, errors atomic.Uint64
}

// Stats is the count up to now.
func (l *Loader) Stats() LoadStats {
	c := &l.counters
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
		Errors:    c.errors.Load(),
	}
}

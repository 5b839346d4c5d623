package backend

import (
	"time"

	"keyrow/mapping"
)

var staleScript = newScript("stale")

// staleFor is how long a copy that takes the place of its image for want of MySQL stays there: so long after MySQL
// answers again the next read finds out.
const staleFor = time.Second

// Of a mapping with stale_while_error each fill and each settle leaves a copy of the image in aux, which outlives the
// image by that time. Aux is where leases are, so whatever makes a fill come too late takes the copy away too, in the
// same step, and the copy is never older than the last write. While MySQL is down, who got the lease puts the copy
// into the place of the image again: then every command that reads finds it, and for staleFor nobody asks MySQL for it.

// longer is how many ms a copy outlives its image; 0: there is none.
func longer(m *mapping.Mapping) int64 { return m.Stale.Milliseconds() }

// giveUp answers reads of which the SELECT failed with err each: with a stale image, or with their errors.
func (l *Loader) giveUp(q *queue, reads []*read) {
	var stale, rest []*read
	var loads []*load
	for _, r := range reads {
		if q.m.Stale > 0 && r.token != "" && unavailable(r.err) {
			stale = append(stale, r)
			loads = append(loads, r.load)
		} else {
			rest = append(rest, r)
		}
	}
	l.release(rest)
	for _, r := range rest {
		l.fail(q, r.load, unread(r.err))
	}
	if len(stale) == 0 {
		return
	}

	c := &call{args: []any{stale[0].token, l.aux, look(q.m), l.staleFor.Milliseconds()}} // a round has one token
	for _, r := range stale {
		c.keys = append(c.keys, r.name)
	}
	l.sending(loads)
	pipeline(l.ctx, l.rdb, staleScript, []*call{c})
	for i, r := range stale {
		result, image, err := c.result(i)
		switch {
		case err != nil:
			l.fail(q, r.load, err)
		case result == "STALE":
			l.counters.stale.Add(uint64(r.sent))
			l.found(q, r.load, "HIT", image)
		case result == "HIT":
			l.found(q, r.load, "HIT", image)
		default:
			l.fail(q, r.load, unread(r.err))
		}
	}
}

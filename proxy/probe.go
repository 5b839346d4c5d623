package proxy

import (
	"sync/atomic"
	"time"
)

// started is what clock counts from. To ask for the time since then takes half of what time.Now does.
var started = time.Now()

func clock() time.Duration { return time.Since(started) }

// probeEach is how long a lane rests between two probes.
const probeEach = time.Millisecond

// probe takes samples of how long commands take: on its way through a shared lane is one command at most at a time, and
// one in probeEach. It is the last one of a write, which is one of many under load.
//
//	seen     the loop found that clients have sent something
//	sent     the lane is about to write
//	arrived  the loop found that the lane has replies
//	         the reply was handed to its client
//
// From sent to arrived is Redis and the way there; the rest is keyrow.
type probe struct {
	// Guarded by the lane's mu, but while a probe is under way.
	armed bool // seen is set, and the next write is the probe
	seen  time.Duration
	sent  time.Duration
	// due is up to which of the lane's replies it takes; 0: none is under way.
	due atomic.Uint64
}

// arm makes a probe of the next write, if it is time; mu is held.
func (p *probe) arm(s *session) {
	if p.armed || p.due.Load() != 0 {
		return
	}
	var now time.Duration
	if s.leads {
		now = s.point.loop.seen
	} else {
		now = clock()
	}
	if now-p.sent >= probeEach {
		p.armed, p.seen = true, now
	}
}

// send notes that everything is written now up to the command with the reply of that number; mu is held.
func (p *probe) send(last uint64) {
	if p.armed {
		p.armed, p.sent = false, clock()
		p.due.Store(last)
	}
}

// arrived is when a reply arrived that was found to be there at seen, or is found now if that was before the command was
// sent.
func (p *probe) arrived(seen time.Duration) time.Duration {
	if p.due.Load() != 0 && seen < p.sent {
		return clock()
	}
	return seen
}

// end takes in that so many replies were handed over.
func (p *probe) end(replies uint64, arrived time.Duration, timed func(upstream, own time.Duration)) {
	if due := p.due.Load(); due != 0 && replies >= due {
		timed(arrived-p.sent, p.sent-p.seen+clock()-arrived)
		p.due.Store(0)
	}
}

// reset is for a lane that lost its connection, with nobody reading; mu is held.
func (p *probe) reset() {
	p.armed = false
	p.due.Store(0)
}

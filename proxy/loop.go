package proxy

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// readiness is what a connection is ready for.
type readiness uint8

const (
	readable readiness = 1 << iota
	writable
	ended // nothing will come behind what can be read
)

// loop runs the sessions and lanes whose connections are ready, one after the other, on one goroutine: the clients'
// commands are taken in, then every lane writes what was added to it in one go, then the replies that came are handed
// out. Measured against goroutines that wait for one connection each, that saves two system calls of four per command,
// and all of the scheduling.
//
// The goroutine that does this leads the loop. A session that has to wait steps aside: another goroutine takes over the
// lead where it stands, and the session goes on by itself until it waits for its client again.
type loop struct {
	poller *poller

	// The leader's own.
	sessions []sessionReady // those whose clients have sent something; from the next-th on still to be run
	next     int
	lanes    []laneReady
	unsent   []*lane    // lanes with commands to write when sessions are through
	busy     []*session // those that have more to read at once
	unread   []*lane    // the same of lanes
	buf      []byte     // what is read from a lane, until it is handed out
	pace     pace
	seen     time.Duration // when clock said that the poller had found something

	tally tally

	mu     sync.Mutex
	slots  []slot
	free   []uint32
	posted []*session
	rung   bool
	closed bool
}

type slot struct {
	generation uint32
	s          *session
	l          *lane
}

type sessionReady struct {
	s *session
	r readiness
}

type laneReady struct {
	l *lane
	r readiness
}

// newLoops returns n loops, or none where the platform has no poller.
func newLoops(n int) ([]*loop, error) {
	var loops []*loop
	for range n {
		p, err := newPoller()
		if err != nil {
			for _, l := range loops {
				l.poller.close()
			}
			if errors.Is(err, errors.ErrUnsupported) {
				err = nil
			}
			return nil, err
		}
		loops = append(loops, &loop{poller: p, buf: make([]byte, laneReadBuffer)})
	}
	return loops, nil
}

// maxLoops is how many loops serve one Redis at most: four keep it busy.
const maxLoops = 4

// loopsFor is how many loops there are for lanes lanes, or for any number of them if that is 0. Every loop has a lane,
// and half of the processors is what Redis and the kernel leave it.
func loopsFor(lanes int) int {
	n := min(maxLoops, runtime.GOMAXPROCS(0)/2)
	if lanes > 0 {
		n = min(n, lanes)
	}
	return max(1, n)
}

// watch starts telling s or l of what p is ready for; the other is nil.
func (l *loop) watch(p *endpoint, s *session, lane *lane) error {
	if !p.use() {
		return net.ErrClosed
	}
	defer p.leave()
	l.mu.Lock()
	if p.users.Load()&shut != 0 { // forget was here already
		l.mu.Unlock()
		return net.ErrClosed
	}
	var at uint32
	if n := len(l.free); n > 0 {
		at = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		at = uint32(len(l.slots))
		l.slots = append(l.slots, slot{})
	}
	slot := &l.slots[at]
	slot.s, slot.l = s, lane
	// What epoll found before a connection was closed may be looked at after its slot went to another one.
	id := uint64(at) | uint64(slot.generation)<<32
	p.id = id
	l.mu.Unlock()
	return l.poller.add(p.fd, id)
}

func (l *loop) forget(p *endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.id == unwatched {
		return
	}
	at := uint32(p.id)
	p.id = unwatched
	l.slots[at] = slot{generation: l.slots[at].generation + 1}
	l.free = append(l.free, at)
}

// post has the loop run s, whose state was changed by somebody else.
func (l *loop) post(s *session) {
	l.mu.Lock()
	l.posted = append(l.posted, s)
	ring := !l.rung && !l.closed
	l.rung = true
	if ring {
		l.poller.ring() // with mu held: close must not come between
	}
	l.mu.Unlock()
}

// close ends the loop, on which nothing is left.
func (l *loop) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.poller.ring()
}

// lead runs the loop until it is closed or somebody else leads. done is called in the former case.
func (l *loop) lead(done func()) {
	for {
		for l.next < len(l.sessions) {
			one := l.sessions[l.next]
			l.sessions[l.next] = sessionReady{}
			l.next++
			if !one.s.ready(one.r) {
				return
			}
		}
		l.sessions, l.next = l.sessions[:0], 0
		l.send()
		for i, one := range l.lanes {
			l.lanes[i] = laneReady{}
			if one.l.turn(one.r) {
				l.unread = append(l.unread, one.l)
			}
		}
		l.lanes = l.lanes[:0]
		l.send()
		if !l.gather() {
			l.poller.close()
			done()
			return
		}
	}
}

// send writes what sessions have added to lanes.
func (l *loop) send() {
	for i, lane := range l.unsent {
		l.unsent[i] = nil
		lane.flush()
	}
	l.unsent = l.unsent[:0]
}

// gather finds who is ready, waiting if nobody is. It returns false once the loop is closed.
func (l *loop) gather() bool {
	for _, s := range l.busy {
		l.sessions = append(l.sessions, sessionReady{s: s})
	}
	for _, lane := range l.unread {
		l.lanes = append(l.lanes, laneReady{lane, readable})
	}
	idle := len(l.busy)+len(l.unread) == 0
	clear(l.busy)
	clear(l.unread)
	l.busy, l.unread = l.busy[:0], l.unread[:0]
	if !idle {
		l.poller.poll()
		l.seen = clock()
	} else if err := l.await(); err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.poller.n {
		id, r, rung := l.poller.event(i)
		if rung {
			l.rung = false
			for _, s := range l.posted {
				l.sessions = append(l.sessions, sessionReady{s: s})
			}
			clear(l.posted)
			l.posted = l.posted[:0]
			continue
		}
		slot := &l.slots[uint32(id)]
		switch {
		case slot.generation != uint32(id>>32): // closed meanwhile
		case slot.s != nil:
			l.sessions = append(l.sessions, sessionReady{slot.s, r})
		case slot.l != nil:
			l.lanes = append(l.lanes, laneReady{slot.l, r})
		}
	}
	return !l.closed
}

// await waits until the poller has found something: for a moment awake, if that was long enough of late, then asleep.
func (l *loop) await() error {
	since := clock()
	for l.pace.awake() && clock()-since < pacing {
		if l.poller.poll() > 0 {
			l.seen = clock()
			l.pace.note(l.seen - since)
			return nil
		}
		giveWay()
	}
	err := l.poller.wait() // which polls first
	l.seen = clock()
	l.pace.note(l.seen - since)
	return err
}

// pace decides whether a loop with nothing to do stays awake for a moment. To be woken takes a thread longer than most
// commands take Redis: without that moment one client alone waits for it twice per command. The moment is spent only
// while it is mostly long enough, so an idle proxy sleeps.
type pace struct{ credit int }

const (
	// pacing is how long a loop stays awake: what Redis needs for a command and the network of one host, twice.
	pacing    = 60 * time.Microsecond
	maxCredit = 16
)

func (p *pace) awake() bool { return p.credit > 0 }

// note takes in how long the loop had nothing to do.
func (p *pace) note(idle time.Duration) {
	switch {
	case idle < 3*pacing: // asleep, it includes the waking
		p.credit = min(p.credit+1, maxCredit)
	case p.credit > 0:
		p.credit--
	}
}

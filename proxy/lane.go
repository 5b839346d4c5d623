package proxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	laneReadBuffer = 64 << 10 // bytes; larger replies stream through in pieces of this size
	laneBacklog    = 4 << 20  // bytes waiting for the writer at which sessions stop adding more
	laneFlush      = 16 << 10 // bytes of one session that are written at once: what Redis reads at a time
	laneGather     = 64 << 10 // bytes of several that are written before the loop is through with them
	laneWhole      = 16 << 10 // bytes; the beginning of a reply waits for more up to this, so that its client is woken once
	laneKeep       = 1 << 20  // bytes; a larger buffer for a reply is dropped after it
	maxCollected   = MaxBulk + 1<<20
)

// lane is one connection to Redis, shared by many sessions and used full duplex. Sessions append whole commands to
// out and what they expect for them to fifo; the writer writes out in one go; the reader frames the replies and hands
// each to the expectation at the head. A lane connects again by itself, and no command is ever written twice.
//
// Writer and reader are the lane's loop, or two goroutines if the connection is more than a socket, which TLS is.
type lane struct {
	up   *upstream
	set  *laneSet
	loop *loop // nil: there are none
	mu   sync.Mutex
	work sync.Cond // out has bytes, or the connection ended
	room sync.Cond // out was taken, or the state changed

	// Guarded by mu.
	state    laneState
	reason   error      // why the lane is down
	conn     net.Conn   // served by goroutines
	point    *endpoint  // served by the loop
	failed   chan error // takes the first reason to give point up
	local    string     // the address of this end
	out      pile
	fifo     []entry
	run      *run   // writes of sessions that are sent together, in out by the time it is flushed
	runs     uint64 // the number of run, or of the last one
	spareRun []byte // what runs are encoded in
	unsent   bool   // the loop will flush
	full     bool   // the socket took no more and has not said since that it does
	flushing bool   // somebody writes
	probe    probe
	expected uint64 // replies to everything that was queued since the connection was made
	window   window

	private *private // what makes it the lane of one session; nil: shared
	primary primary

	// The reader's own; on a loop, guarded by reading.
	reading   sync.Mutex
	hung      bool   // redis will send nothing further
	left      []byte // bytes of a reply that take more to be told what they are
	oob       bool   // the reply under way answers no command
	head      entry
	ready     []entry // entries taken from fifo, from readyAt on
	readyAt   int
	framer    replyFramer
	collected []byte        // the beginning of a reply that is wanted whole
	progress  uint64        // replies taken in
	arrived   time.Duration // when what is being handed out was there
	slowest   slowest       // of what is being handed out
	popped    uint64        // of expected, the replies of what was taken from fifo
}

type laneState uint8

const (
	laneConnecting laneState = iota // commands queue up until the connection stands
	laneUp
	laneDown // connecting failed and is tried again after a pause; commands are answered at once
	laneClosed
)

// entry is what is expected on a lane: n replies of one kind for one session.
type entry struct {
	s    *session
	op   operation // nil: n replies, forwarded as they come
	n    int
	peek bool // op wants the reply only if it is nil; otherwise it is forwarded
}

// operation takes the replies to commands that need more than forwarding. Its methods are called by the lane's
// reader and must not block.
type operation interface {
	// reply takes one whole reply, valid during the call. A peeked reply that is not nil is forwarded instead, and
	// reply is then called with nil.
	reply(l *lane, b []byte)
	// lost is called instead of the outstanding replies when the connection is lost; err is the client's answer.
	lost(err error)
}

// serve connects, and again after every loss, until the lane is closed.
func (l *lane) serve() {
	defer l.up.wg.Done()
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 20 * time.Millisecond
	pause.MaxInterval = 2 * time.Second
	for !l.isClosed() {
		conn, err := l.up.connect(l.set.key)
		if err == nil {
			if err = l.up.learn(conn, l.set); err == nil {
				err = l.recognise(conn)
			}
			if err != nil {
				_ = conn.Close()
			}
		}
		if err == nil && !l.established(conn) {
			_ = conn.Close()
			break
		}
		if err != nil {
			why := fmt.Errorf("redis at %s is not available: %w", l.up.cfg.Addr, err)
			if l.up.dismiss(l.set, err) {
				why = fmt.Errorf("%w: %w", errDismissed, err)
			}
			l.up.stats.Failures.Add(1)
			l.up.unreached(err)
			l.down(why)
			l.rest(pause.NextBackOff())
			continue
		}
		l.up.reached()
		since := time.Now()
		l.carry(conn)
		if !l.isClosed() {
			l.up.stats.Lost.Add(1)
		}
		if time.Since(since) < time.Second {
			l.rest(pause.NextBackOff()) // Redis accepts connections but ends them
		} else {
			pause.Reset()
		}
	}
	l.down(errClosed)
}

// carry runs the lane over conn until conn fails, and answers what is outstanding then.
func (l *lane) carry(conn net.Conn) {
	l.mu.Lock()
	l.local = conn.LocalAddr().String()
	l.mu.Unlock()
	if l.loop != nil {
		if point := l.loop.adopt(conn); point != nil {
			l.ride(point)
			return
		}
	}
	written := make(chan struct{})
	go func() { l.write(conn); close(written) }()
	err := l.read(conn)
	_ = conn.Close()
	l.lose(err)
	<-written
}

func (l *lane) rest(pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.set.closed:
	}
}

// established makes the lane usable; it reports false when the lane was closed meanwhile.
func (l *lane) established(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == laneClosed {
		return false
	}
	l.state, l.conn = laneUp, conn
	l.room.Broadcast()
	return true
}

// down answers everything that waited for the connection and opens the breaker: while the lane is down commands
// are answered at once.
func (l *lane) down(why error) {
	l.mu.Lock()
	if l.state != laneClosed {
		l.state, l.reason = laneDown, why
	}
	waiting := l.fifo
	l.out.clear()
	l.fifo, l.expected, l.window = nil, 0, window{}
	l.probe.reset()
	l.room.Broadcast()
	l.mu.Unlock()
	l.up.stats.Unsent.Add(owedFor(waiting))
	answerAll(waiting, notApplied(why))
}

func (l *lane) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == laneClosed
}

// lose answers everything that was not answered yet, in order. The next connection is tried at once, and commands
// queue for it.
func (l *lane) lose(err error) {
	l.mu.Lock()
	switch {
	case l.private != nil:
		l.state = laneClosed // nobody would answer what was queued from here on
	case l.state != laneClosed:
		l.state = laneConnecting
	}
	waiting := append(append([]entry{l.head}, l.ready[l.readyAt:]...), l.fifo...)
	l.out.clear()
	l.conn, l.local, l.fifo = nil, "", nil
	l.full, l.flushing, l.unsent = false, false, false
	l.expected, l.popped, l.window = 0, 0, window{}
	l.probe.reset()
	l.work.Broadcast()
	l.room.Broadcast()
	l.mu.Unlock()
	l.up.stats.Unknown.Add(owedFor(waiting))
	if l.private != nil {
		l.private.lost(err)
	} else if n := owedFor(waiting); n > 0 {
		l.up.log.Warn().Err(err).Str("redis", l.up.cfg.Addr).Int64("unanswered", n).
			Msg("connection to redis lost with commands unanswered; whether redis ran them is unknown, as their clients are told")
	}
	if l.head.n > 0 && (l.oob || !l.framer.idle() && (l.head.op == nil || l.head.peek)) {
		// A part of the reply, or of a push before it, is with the client already: no error can follow it.
		l.head.s.kill(err)
	}
	l.oob = false
	l.head, l.ready, l.readyAt, l.framer, l.collected, l.left = entry{}, nil, 0, replyFramer{}, nil, nil
	answerAll(waiting, upstreamError("connection to redis lost, so it is unknown whether the command was applied: "+err.Error()))
}

// owedFor is how many replies are expected.
func owedFor(waiting []entry) (n int64) {
	for _, e := range waiting {
		n += int64(e.n)
	}
	return n
}

func answerAll(waiting []entry, err error) {
	now, slowest := clock(), slowest{}
	for _, e := range waiting {
		switch {
		case e.n == 0:
		case e.op != nil:
			e.op.lost(err)
		default:
			e.s.deliverErrors(err, e.n)
		}
		if e.n > 0 {
			slowest.handed(e.s, 0, now)
		}
	}
	slowest.report(now, true)
}

// errDismissed says that Redis does not let in any more who uses the lane; it has closed their connections.
var errDismissed = errors.New("redis refuses the user")

var errKilled = errors.New("killed by CLIENT KILL")

var errClosed = errors.New("keyrow is shutting down")

// close ends the lane for good; what is outstanding is answered with an error.
func (l *lane) close() {
	l.mu.Lock()
	l.state = laneClosed
	conn := l.conn
	if l.point != nil {
		l.fail(errClosed)
	}
	l.work.Broadcast()
	l.room.Broadcast()
	l.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}

// submit queues whole commands of s and what is expected for them. It waits while the lane has more than laneBacklog
// bytes to write: that is what pauses the reading of clients. Nothing is queued when it returns an error.
func (l *lane) submit(s *session, wire []byte, entries []entry) error {
	l.mu.Lock()
	if l.crowded() {
		l.up.stats.Backlog.Add(1)
	}
	for l.crowded() {
		s.stepAside()
		l.room.Wait()
	}
	err := l.usable()
	if err != nil {
		l.up.stats.Unsent.Add(owedFor(entries))
	} else {
		direct := len(wire) >= laneFlush && l.vacant()
		l.window.queue(len(wire), l.expected)
		l.await(entries)
		if l.private == nil {
			l.probe.arm(s)
		}
		if direct {
			l.probe.send(l.expected)
			if rest := l.sendOff(wire); len(rest) > 0 {
				l.out.addFirst(rest)
			}
		} else {
			l.queue(wire)
		}
		if !l.crowded() {
			l.room.Signal() // one after the other: all at once, most would find it crowded again
		}
	}
	later := s.leads && l.point != nil && l.out.size < laneGather
	if later {
		l.flushLater(s)
	}
	l.mu.Unlock()
	if !later {
		l.flush()
	}
	return err
}

// flushLater has the loop that s leads flush the lane, with what other sessions add before the loop is through with them;
// mu is held.
func (l *lane) flushLater(s *session) {
	if !l.unsent {
		l.unsent = true
		s.point.loop.unsent = append(s.point.loop.unsent, l)
	}
}

func (l *lane) crowded() bool {
	return l.out.size > laneBacklog && l.state != laneDown && l.state != laneClosed
}

// push is submit without waiting, with mu held.
func (l *lane) push(wire []byte, entries []entry) error {
	if err := l.usable(); err != nil {
		return err
	}
	l.window.queue(len(wire), l.expected)
	l.await(entries)
	l.queue(wire)
	return nil
}

// usable says why the lane takes no commands; mu is held.
func (l *lane) usable() error {
	switch l.state {
	case laneDown:
		return notApplied(l.reason)
	case laneClosed:
		return notApplied(errClosed)
	}
	return nil
}

// queue has the bytes of commands written behind those of before; mu is held.
func (l *lane) queue(wire []byte) {
	if l.out.size == 0 {
		l.work.Signal()
	}
	l.out.add(wire, maxPiece)
}

// await expects the replies to commands; mu is held.
func (l *lane) await(entries []entry) {
	for _, e := range entries {
		l.expected += uint64(e.n)
		if n := len(l.fifo); n > 0 && e.op == nil && l.fifo[n-1].op == nil && l.fifo[n-1].s == e.s {
			l.fifo[n-1].n += e.n
			continue
		}
		l.fifo = append(l.fifo, e)
	}
}

// next takes what is to be written next; mu is held. That is buf, which is in piece with kept bytes behind it that are not
// to be written yet, and whoever writes it gives piece back with wrote. It is empty if everything has to wait for replies.
func (l *lane) next() (piece *[]byte, buf []byte, kept int) {
	if l.out.size == 0 {
		return nil, nil, 0
	}
	open := l.out.size
	if l.private == nil {
		open = l.window.open(open)
	}
	if open == 0 {
		return nil, nil, 0
	}
	piece, buf = l.out.take()
	if kept = max(0, len(buf)-open); kept+l.out.size == 0 {
		l.probe.send(l.expected)
	}
	if !l.crowded() {
		l.room.Signal()
	}
	return piece, buf[:len(buf)-kept], kept
}

// wrote takes piece back, the last rest bytes of which are to be written before anything else; mu is held.
func (l *lane) wrote(piece *[]byte, rest int) {
	if rest > 0 {
		l.out.putBack(piece, rest)
	} else {
		freePiece(piece)
	}
}

func (l *lane) outstanding() bool {
	if l.head.n > 0 || l.readyAt < len(l.ready) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.fifo) > 0
}

// consume hands the replies in b to what expects them and returns how many bytes it took. Neighbouring replies to
// one session are delivered together.
func (l *lane) consume(b []byte) (pos int, err error) {
	errors := int64(0)
	from, ended := 0, 0 // b[from:pos], in which that many replies end, is still to be delivered to the session to
	to := l.head.s
	if l.private != nil {
		if to = l.private.session(); to == nil {
			return 0, fmt.Errorf("redis sent %.64q on a connection that nobody uses", b)
		}
	}
	pushed := l.oob // what b[from:pos] is
	handOver := func() {
		switch {
		case from == pos:
		case pushed:
			to.hear(l.private, b[from:pos], l.oob)
		default:
			l.slowest.handed(to, ended, l.arrived)
			to.deliver(b[from:pos], ended)
		}
		from, ended = pos, 0
	}
	for pos < len(b) {
		fresh := l.framer.idle()
		if fresh && l.private == nil && !l.oob && !pushed && l.head.n > 0 && l.head.op == nil {
			if n := simple(b[pos:]); n > 0 { // what most replies are
				if b[pos] == '-' {
					errors++
				}
				pos += n
				ended++
				l.head.n--
				continue
			}
		}
		if l.private != nil && fresh && !l.oob {
			if l.private.sync.Load() && b[pos] != '-' {
				if next, ok := l.pop(); ok {
					next.op.reply(l, nil)
				}
			}
			if l.private.endless.Load() {
				handOver()
				to.hear(l.private, b[pos:], l.private.lines && b[len(b)-1] != '\n')
				pos = len(b)
				from = pos
				break
			}
			var whole bool
			if l.oob, whole = l.private.outOfBand(b[pos:]); !whole {
				break
			}
		}
		// A module may push to whoever it serves; on a shared lane that is the session at the head.
		push := l.private == nil && fresh && b[pos] == '>'
		if !l.oob && l.head.n == 0 {
			next, ok := l.pop()
			switch {
			case ok:
				if next.s != to || next.op != nil && !next.peek {
					handOver()
				}
				l.head, to = next, next.s
			case l.private != nil:
				l.oob = true
			default:
				err = fmt.Errorf("redis sent %.64q, for which no command was sent", b[pos:])
			}
			if err != nil {
				break
			}
		}
		l.oob = l.oob || push
		if l.oob != pushed {
			handOver()
			pushed = l.oob
		}
		var n int
		var done bool
		if n, done, err = l.framer.feed(b[pos:]); err != nil {
			break
		}
		if !done && fresh && !l.oob && l.head.op == nil && len(b)-pos < laneWhole {
			l.framer.rewind()
			break
		}
		piece := b[pos : pos+n]
		switch op := l.head.op; {
		case l.oob:
			pos += n
			if done {
				l.oob = false
			}
		case op == nil || l.head.peek && !(done && fresh && isNil(piece)):
			if pos += n; fresh && n > 0 && piece[0] == '-' {
				errors++
			}
			if done {
				ended++
				l.head.n--
				if op != nil {
					op.reply(l, nil)
				}
			}
		default:
			handOver()
			pos += n
			from = pos
			err = l.collect(op, piece, done)
			l.slowest.handed(to, 0, l.arrived)
		}
		if !done || err != nil {
			break
		}
	}
	handOver()
	l.slowest.report(l.arrived, false)
	if errors > 0 {
		l.up.stats.Errors.Add(errors)
	}
	if l.private != nil {
		to.rested()
	}
	return pos, err
}

// collect gathers a reply that op wants whole.
func (l *lane) collect(op operation, piece []byte, done bool) error {
	if !done || len(l.collected) > 0 {
		if len(l.collected)+len(piece) > maxCollected {
			return fmt.Errorf("redis sent a reply of more than %d bytes to a command on mapped keys", maxCollected)
		}
		l.collected = append(l.collected, piece...)
		piece = l.collected
	}
	if done {
		l.head.n--
		op.reply(l, piece)
		if cap(l.collected) > laneKeep {
			l.collected = nil
		}
		l.collected = l.collected[:0]
	}
	return nil
}

// took is called after consume, with the bytes it took.
func (l *lane) took(n int, arrived time.Duration) {
	done := l.popped - uint64(l.head.n)
	l.probe.end(done, arrived, l.up.timed)
	if l.private != nil {
		return
	}
	l.mu.Lock()
	if l.window.take(n, done); l.out.size > 0 {
		l.work.Signal()
	}
	l.mu.Unlock()
}

// pop takes the next entry. The fifo is taken whole, so the lock is held once for many replies.
func (l *lane) pop() (entry, bool) {
	if l.readyAt == len(l.ready) {
		clear(l.ready)
		l.mu.Lock()
		l.ready, l.fifo = l.fifo, l.ready[:0]
		l.mu.Unlock()
		l.readyAt = 0
		if len(l.ready) == 0 {
			return entry{}, false
		}
	}
	l.readyAt++
	next := l.ready[l.readyAt-1]
	l.popped += uint64(next.n)
	return next, true
}

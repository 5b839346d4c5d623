package proxy

import (
	"bytes"
	"sync/atomic"
)

// private makes a lane the lane of one session, for as long as the session needs a connection with a state of its
// own. It connects once: when it is lost, so is the state, and the session is closed. A private lane whose state is as
// it was at first goes to the pool of its lane set and serves the next session that needs one.
type private struct {
	lane *lane
	id   int64                   // what Redis calls the connection, 0 if it does not tell
	s    atomic.Pointer[session] // whose it is; nil in the pool

	// What arrives is the client's as it is, and answers no command: MONITOR, replication, the Lua debugger.
	endless atomic.Bool
	// That is lines: MONITOR.
	lines bool
	// SYNC was sent: unless an error comes, endless begins with the next byte.
	sync atomic.Bool
	// The lane's timeout does not apply: to subscriptions, nor while a large command is on its way.
	patient atomic.Bool
	// Commands that block, and are not answered yet.
	blocked atomic.Int32
	// RESP2 only: subscriptions are there or were asked for, so arrays that look like messages are messages.
	pubsub atomic.Bool
	// Channels, patterns and shard channels that Redis said are subscribed to.
	subscribed atomic.Int64
	// Redis may have another name as a primary than the connection said.
	doubted atomic.Bool
	// A pinReason.
	why atomic.Int32

	// The reader's own.
	normal, shard int64 // the two counts that subscribed adds up
	confirmed     bool  // a confirmation came since the last command about subscriptions was done with
}

// maxSpare is how many idle private lanes a lane set keeps.
const maxSpare = 32

// own returns a private lane for s, a spare one or a new one.
func (u *upstream) own(set *laneSet, s *session) (*lane, error) {
	for {
		u.mu.Lock()
		n := len(set.spare)
		if n == 0 {
			u.mu.Unlock()
			break
		}
		l := set.spare[n-1]
		set.spare = set.spare[:n-1]
		u.mu.Unlock()
		l.private.s.Store(s)
		if l.isUp() {
			return l, nil
		}
	}
	s.stepAside()
	conn, err := u.connect(set.key)
	if err != nil {
		return nil, err
	}
	l := &lane{up: u, set: set, loop: u.loopOf(s), state: laneUp, conn: conn}
	l.work.L, l.room.L = &l.mu, &l.mu
	l.private = &private{lane: l}
	if reply, err := u.ask(conn, []byte("CLIENT"), []byte("ID")); err != nil {
		_ = conn.Close()
		return nil, err
	} else if reply[0] == ':' {
		l.private.id, _ = parseInt(bytes.TrimRight(reply[1:], "\r\n"))
	}
	if err := l.recognise(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	l.private.s.Store(s)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		_ = conn.Close()
		return nil, errClosed
	}
	u.owned[l] = struct{}{}
	u.wg.Add(1)
	go func() {
		defer u.wg.Done()
		l.carry(conn)
		u.mu.Lock()
		delete(u.owned, l)
		u.mu.Unlock()
	}()
	return l, nil
}

// disown takes a private lane back from its session: into the pool if its state is clean, else it is closed.
func (u *upstream) disown(l *lane, clean bool) {
	u.mu.Lock()
	keep := clean && !u.closed && !l.set.ended && len(l.set.spare) < maxSpare
	l.private.patient.Store(false)
	l.private.why.Store(int32(pinOther))
	l.private.s.Store(nil)
	if keep {
		l.set.spare = append(l.set.spare, l)
	}
	u.mu.Unlock()
	if !keep {
		l.close()
	}
}

func (l *lane) isUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == laneUp
}

// speaks notes the protocol that the connection is switched to. The lane's reader calls it, before it looks at what
// follows.
func (p *private) speaks(proto int8) { p.pubsub.Store(proto != 3 && p.subscribed.Load() > 0) }

// counts takes in a confirmation of a subscription that came as a reply. The lane's reader calls it.
func (p *private) counts(confirmation []byte, proto int8) {
	p.pubsub.Store(true)
	p.outOfBand(confirmation)
	p.confirmed = false // the command is done with
	p.speaks(proto)
}

func (p *private) session() *session { return p.s.Load() }

// leisurely reports whether a reply may take for ever.
func (p *private) leisurely() bool { return p.patient.Load() || p.blocked.Load() > 0 }

// hear takes what came on p, or on a shared lane, and answers no command: see outbox.push. It is dropped if the session has
// turned away from p.
func (s *session) hear(p *private, b []byte, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == nil || p.session() == s {
		s.push(b, open)
	}
}

// turnAway waits until the session is owed nothing and no message is half delivered, and takes nothing from its own
// connection any more.
func (s *session) turnAway() {
	s.submit()
	s.await(func() bool {
		over := s.answered.Load() >= s.owed && s.rest == nil
		if over {
			s.lane.private.s.Store(nil)
		}
		return over
	})
	s.unpin(false)
}

// lost closes the session, whose state went with the connection.
func (p *private) lost(err error) {
	p.lane.close()
	if s := p.s.Load(); s != nil {
		s.kill(err)
	}
}

// outOfBand tells whether b begins with something that answers no command: a push of RESP3, or a message to a
// subscriber of RESP2. whole is false if that takes more bytes to tell. Confirmations of subscriptions are counted.
func (p *private) outOfBand(b []byte) (is, whole bool) {
	if b[0] != '>' && !(b[0] == '*' && p.pubsub.Load()) {
		return false, true
	}
	kind, whole := firstWord(b)
	if !whole {
		return false, false
	}
	is = b[0] == '>'
	switch kind {
	case "message", "pmessage", "smessage":
		return true, true
	case "subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe":
		push, _, err := element(b)
		if err != nil {
			return false, false
		}
		count := push[bytes.LastIndexByte(push[:len(push)-1], '\n')+1:]
		n, _ := parseInt(bytes.TrimRight(count[1:], "\r\n"))
		if kind[0] == 's' && kind[1] == 's' || kind == "sunsubscribe" {
			p.shard = n
		} else {
			p.normal = n
		}
		p.subscribed.Store(p.normal + p.shard)
		p.confirmed = true
		return true, true
	}
	return is, true
}

// firstWord is the first element of an aggregate, if that is a short bulk or a status; whole is false if b ends
// before it does.
func firstWord(b []byte) (word string, whole bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return "", false
	}
	b = b[end+1:]
	if len(b) == 0 {
		return "", false
	}
	end = bytes.IndexByte(b, '\n')
	if end < 0 {
		return "", false
	}
	line := bytes.TrimRight(b[:end], "\r")
	if line[0] == '+' {
		return string(line[1:]), true
	}
	n, ok := parseInt(line[1:])
	if line[0] != '$' || !ok || n < 0 || n > 32 {
		return "", true
	}
	b = b[end+1:]
	if int64(len(b)) < n {
		return "", false
	}
	return string(b[:n]), true
}

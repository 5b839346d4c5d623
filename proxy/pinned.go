package proxy

import (
	"bytes"
	"errors"
	"net"
	"os"
	"strings"
	"time"
)

// pin is what a session that owns its connection has made of it. A session pins itself once its outstanding replies
// are there, and goes back to a shared lane as soon as the connection is as it was: no transaction, nothing watched,
// nothing subscribed, nothing set, everything answered.
type pin struct {
	shared *lane // where the session goes back to
	// watching and tx end with EXEC, DISCARD, UNWATCH.
	watching bool
	tx       *tx
	// stuck says that the connection was set to something that only RESET undoes.
	stuck bool
	// foreign says that the connection is not what its lane set is for any more, so that nobody may have it next.
	foreign bool
}

// pinned reports whether the session owns its connection.
func (s *session) pinned() bool { return s.lane.private != nil }

// pinTo gives the session a connection of its own. It answers the client and returns false if there is none, or none
// for a client that has not authenticated. Its reads of rows are answered then: one that has to be sent again must not
// come behind a MULTI, or a command that blocks.
func (s *session) pinTo() bool {
	if s.pinned() {
		s.beforeWrite()
		return true
	}
	if !s.admitted() {
		return false
	}
	s.settle()
	l, err := s.srv.upstream.own(s.lanes, s)
	if err != nil {
		s.unconnected(err)
		return false
	}
	s.pin = pin{shared: s.lane}
	s.lane = l
	return true
}

// pinOrQuit is pinTo for what the commands behind it rely on. Where there is no connection the client is closed once it has
// been told: what it has sent already would otherwise be run by itself, without the transaction, should Redis come back now.
func (s *session) pinOrQuit() bool {
	if !s.pinned() && !s.admitted() {
		return false
	}
	s.quit = !s.pinTo()
	return !s.quit
}

// pinnedFor notes why, for others to see. The connection may have been the session's for another reason before.
func (s *session) pinnedFor(why pinReason) { s.lane.private.why.Store(int32(why)) }

// unconnected tells the client why there is no connection of its own for it.
func (s *session) unconnected(err error) {
	var no redisError
	switch {
	case !errors.As(err, &no):
		s.refuse(notApplied(err))
	case s.key.authed && strings.HasPrefix(string(no), "WRONGPASS"):
		s.refuse(replyError{"WRONGPASS", "this needs a connection of the client's own, and redis does not take the " +
			"password any more with which the client logged in; AUTH again"})
	default:
		s.answer([]byte("-" + string(no) + "\r\n"))
	}
}

// clean reports whether nobody could tell the connection from a new one.
func (s *session) clean() bool {
	return !s.pin.watching && s.pin.tx == nil && !s.pin.stuck && s.lane.private.subscribed.Load() == 0 &&
		!s.lane.private.endless.Load()
}

// unpin goes back to the shared lane. Everything is answered.
func (s *session) unpin(clean bool) {
	l := s.lane
	clean = clean && !s.pin.foreign && !l.private.doubted.Load()
	s.lane, s.pin = s.pin.shared, pin{}
	l.private.pubsub.Store(false)
	s.subscriber.Store(false)
	s.srv.upstream.disown(l, clean)
}

// move notes that the session, which is owed nothing, is another or elsewhere now. Its own connection, if it has one,
// went there with it.
func (s *session) move(key laneKey) {
	if !s.pinned() {
		s.enter(key)
		return
	}
	own, pin := s.lane, s.pin
	s.enter(key)
	pin.shared, pin.foreign = s.lane, true
	s.lane, s.pin = own, pin
}

// rested is called by the lane's reader when it has handed over all it had, and by who has filled a hole. A session that
// is waiting for its client's next command goes back to the shared lane, if that is all there was; one that waits for
// the reply goes on.
func (s *session) rested() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// owed is the goroutine's own but while it waits.
	switch {
	case s.holding:
		if s.answered.Load() >= s.owed {
			s.released = clock()
			s.wake()
		}
	case s.parked:
		if s.pinned() && s.answered.Load() == s.owed && len(s.held) == 0 && s.clean() {
			s.unpin(true)
			if s.srv.successor.Load() != nil {
				s.nudge() // it can be handed over now
			}
		}
	}
}

// park and unpark frame the time in which the session's goroutine waits for the client and touches nothing else.
func (s *session) park() {
	if !s.pinned() {
		return
	}
	s.mu.Lock()
	if s.answered.Load() == s.owed && len(s.held) == 0 && s.clean() {
		s.unpin(true)
	} else {
		s.parked = true
	}
	s.mu.Unlock()
}

func (s *session) unpark() {
	if !s.parked && !s.holding {
		return
	}
	s.mu.Lock()
	s.parked, s.holding = false, false
	s.arrived = max(s.arrived, s.released)
	s.mu.Unlock()
}

// wake has a session that waits for its client look again; mu is held.
func (s *session) wake() {
	if s.point != nil {
		s.nudge()
	} else {
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// own forwards a command on a connection of the session's own, from which it goes back by itself.
func (s *session) own(c *command, req request) {
	if err := s.objection(c, req.args); err != nil {
		s.refuseKnown(err)
		return
	}
	if s.pinTo() {
		s.forward(req)
	}
}

// block forwards a command that may take for ever.
func (s *session) block(c *command, req request) {
	err := s.objection(c, req.args)
	if err == nil && len(s.opaques(c, req.args)) > 0 {
		err = refused(c.name + " is not supported on mapped keys; use a command that does not block, nothing was changed")
	}
	if err != nil {
		s.refuseKnown(err)
		return
	}
	if s.pinTo() {
		s.pinnedFor(pinBlock)
		s.lane.private.blocked.Add(1)
		s.forwardFor(req, &blocking{s, s.lane.private}, true)
		s.submit()
	}
}

// blocking is a command that may take for ever.
type blocking struct {
	s *session
	p *private
}

func (o *blocking) reply(_ *lane, b []byte) {
	o.p.blocked.Add(-1)
	if b != nil {
		o.s.deliver(b, 1)
	}
}

func (o *blocking) lost(err error) {
	o.p.blocked.Add(-1)
	o.s.deliverErrors(err, 1)
}

// maxHeld is how many bytes a client may send behind a command that blocks before they are left unread.
const maxHeld = 1 << 20

// standBy waits for the reply to a command that may block for ever, and goes on reading meanwhile: that is how it shows
// that the client is gone, and with it the wish for what the command waits for. What is read is dispatched afterwards.
func (s *session) standBy() error {
	for s.pinned() && s.lane.private.blocked.Load() > 0 && s.answered.Load() < s.owed {
		s.submit() // the batch lies in the buffer that is read into
		if s.in.unread() > maxHeld {
			if !s.await(func() bool { return s.answered.Load() >= s.owed }) {
				return net.ErrClosed
			}
			return nil
		}
		s.mu.Lock()
		s.holding = s.answered.Load() < s.owed
		waits := s.holding
		s.mu.Unlock()
		if !waits {
			return nil
		}
		err := s.fetch()
		if err == errNothing {
			return err
		}
		s.unpark()
		// The deadline may have been moved to the past by rested.
		serving := s.srv.wait(s, s.srv.cfg.IdleTimeout/idleTicks)
		switch {
		case err == nil:
			s.fetched++
		case !errors.Is(err, os.ErrDeadlineExceeded) || !serving:
			return err
		}
	}
	return nil
}

// xread forwards XREAD and XREADGROUP, on a connection of their own if they block.
func (s *session) xread(c *command, req request) {
	for _, a := range req.args[1:] {
		if bytes.EqualFold(a, []byte("STREAMS")) {
			break
		}
		if bytes.EqualFold(a, []byte("BLOCK")) {
			s.block(c, req)
			return
		}
	}
	s.pass(c, req)
}

// wait forwards WAIT and WAITAOF, which wait for what the connection wrote last. What the session wrote went over a
// shared lane and is answered, so it is behind the replication offset that a command just before takes on.
func (s *session) wait(c *command, req request) {
	s.settle()
	if !s.pinTo() {
		return
	}
	s.swallow([]byte("PING"))
	s.block(c, req)
}

// stick forwards a command that sets something on the connection.
func (s *session) stick(_ *command, req request) {
	if !s.pinTo() {
		return
	}
	s.pinnedFor(pinState)
	s.pin.stuck = true
	s.forward(req)
}

// hijack hands the connection over to the client once Redis has agreed: from then on what arrives is not counted as
// replies.
func (s *session) hijack(c *command, req request) {
	if !s.pinTo() {
		return
	}
	s.pin.stuck = true
	p := s.lane.private
	p.patient.Store(true)
	p.lines = c.name == "MONITOR"
	if c.name == "SYNC" {
		// Answered by an error, or by no RESP reply but the data themselves.
		s.settle()
		p.sync.Store(true)
	}
	s.forwardFor(req, &tapped{s: s, tap: func(b []byte) {
		p.sync.Store(false)
		p.endless.Store(len(b) == 0 || b[0] == '+')
	}}, false)
	s.settle()
}

// relayed passes on what the client says on a connection that was handed over to it, where neither replies nor the
// database can be followed: nothing that keyrow has a part in, and no mapped key. RESET and QUIT are the way back.
func (s *session) relayed(c *command, req request) {
	err := s.objection(c, req.args)
	switch c.name {
	case "RESET", "QUIT":
		c.handle(s, c, req)
		return
	case "MONITOR", "SYNC", "PSYNC", "REPLCONF", "SCRIPT DEBUG":
	default:
		if c.handle != nil && !c.forRows {
			err = refused(c.name + " is not available on a connection in this state; RESET it first")
		}
	}
	if err != nil {
		s.deliver(appendError(nil, err), 0)
		s.quit = true
		return
	}
	s.relay(req)
}

// relay sends a command for which no reply is counted.
func (s *session) relay(req request) {
	if err := s.lane.submit(s, req.raw, nil); err != nil {
		s.kill(err)
	}
}

// replconf forwards what a replica says of itself. It does not get an answer to each.
func (s *session) replconf(c *command, req request) {
	if len(req.args) > 1 && bytes.EqualFold(req.args[1], []byte("ACK")) {
		if s.pinTo() {
			s.pin.stuck = true
			s.settle()
			s.relay(req)
		}
		return
	}
	s.stick(c, req)
}

// watch forwards WATCH. Rows that it names are loaded before: a later fill of keyrow's would look like somebody
// else's change and end the client's transaction for nothing.
func (s *session) watch(_ *command, req request) {
	if !s.pinOrQuit() {
		return
	}
	var keys [][]byte
	for _, key := range req.args[1:] {
		if m := s.mapped(key); m != nil && m.Names(key) {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		// A client that may not look at the keys must not have them loaded.
		reply, err := s.call(append([][]byte{[]byte("EXISTS")}, keys...)...)
		if err == nil && reply[0] == ':' {
			err = s.materialise(keys)
		}
		if err != nil {
			s.refuse(err)
			return
		}
	}
	s.pinnedFor(pinWatch)
	s.pin.watching = true
	s.forward(req)
}

// unwatch serves UNWATCH. Redis may refuse it to the user, and then the keys stay watched.
func (s *session) unwatch(_ *command, req request) {
	if !s.pinned() {
		s.forward(req)
		return
	}
	ended := false
	s.forwardFor(req, &tapped{s: s, tap: func(b []byte) { ended = b[0] == '+' }}, false)
	s.settle()
	s.pin.watching = s.pin.watching && !ended
}

// subscription serves SUBSCRIBE and its likes. Confirmations and messages come out of band; a PING behind the command
// shows when the confirmations are through.
func (s *session) subscription(c *command, req request) {
	if err := s.objection(c, req.args); err != nil {
		s.refuseKnown(err)
		return
	}
	if !s.pinTo() {
		return
	}
	s.subscriber.Store(true)
	p := s.lane.private
	if s.key.proto != 3 && !p.pubsub.Load() {
		s.settle() // no ordinary reply may be under way when arrays are taken for messages
		p.pubsub.Store(true)
	}
	p.patient.Store(true)
	s.submit()
	s.batch.add(req.raw, !req.made)
	s.batch.append(func(w []byte) []byte { return appendCommand(w, []byte("PING")) })
	s.expect(entry{s: s, op: &subscribing{s: s}, n: 1}, 1)
}

// subscribing waits for the reply to the PING behind a command about subscriptions. If the command was refused, that is
// the second reply, since a command that was not refused is answered out of band, with one confirmation at least.
type subscribing struct {
	s       *session
	refused bool
}

func (o *subscribing) reply(l *lane, b []byte) {
	if p := l.private; p.confirmed || o.refused {
		p.confirmed = false
		o.s.deliver(nil, 1)
		return
	}
	o.refused = true
	o.s.deliver(b, 0)
	l.head.n++
}

func (o *subscribing) lost(err error) { o.s.deliverErrors(err, 1) }

// listening reports whether the session is a subscriber of RESP2, to whom Redis refuses everything but what is about
// subscriptions.
func (s *session) listening(c *command) bool {
	if !s.pinned() || !s.lane.private.pubsub.Load() {
		return false
	}
	switch c.name {
	case "PING", "QUIT", "RESET", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE":
		return false
	}
	s.settle() // an UNSUBSCRIBE may be under way
	subscribed := s.lane.private.subscribed.Load() > 0
	s.lane.private.pubsub.Store(subscribed) // else arrays are replies again
	return subscribed
}

// swallow sends a command whose reply the client does not see.
func (s *session) swallow(args ...[]byte) {
	s.endRun()
	s.batch.append(func(w []byte) []byte { return appendCommand(w, args...) })
	s.expect(entry{s: s, op: swallowed{s}, n: 1}, 1)
}

type swallowed struct{ s *session }

func (o swallowed) reply(*lane, []byte) { o.s.deliver(nil, 1) }
func (o swallowed) lost(error)          { o.s.deliver(nil, 1) }

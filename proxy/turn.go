package proxy

import (
	"net"
	"os"
	"time"
)

// What session.turn says.
const (
	turnOver  int32 = iota // the session waits for its client; whoever sets turnTaken runs it
	turnTaken              // somebody runs it
	turnAgain              // and has to look again before it is over
	turnLast               // it has ended
)

// maxTurn is how many bytes of one client are read before it is the next one's turn.
const maxTurn = 64 << 10

// largeCommand is how many bytes of a command, or of more than one, are handled aside, so that copying them keeps
// nobody waiting.
const largeCommand = 256 << 10

// board puts the session, which has no commands yet, on a loop. It reports false if it needs a goroutine.
func (s *session) board() bool {
	loop := s.srv.loop()
	if loop == nil {
		return false
	}
	s.srv.mu.Lock() // nobody else looks at the connection now
	s.mu.Lock()
	ok := s.dead == nil && !s.srv.draining
	if ok {
		if s.point = loop.adopt(s.conn); s.point != nil {
			s.conn = nil
		}
	}
	ok = s.point != nil
	s.mu.Unlock()
	s.srv.mu.Unlock()
	if !ok {
		return false
	}
	if err := loop.watch(s.point, s, nil); err != nil {
		s.kill(err)
	}
	if s.srv.successor.Load() != nil {
		s.nudge() // the others were told already
	}
	return true
}

// ready runs the session, whose connection is ready for r. It returns false if another goroutine leads the loop since.
func (s *session) ready(r readiness) bool {
	if r&writable != 0 && s.pending.Load() > 0 {
		s.resume()
	}
	if r == writable {
		return true
	}
	if r&ended != 0 {
		s.hung.Store(true)
	}
	if r&readable != 0 {
		s.more.Store(true)
	}
	for {
		switch s.turn.Load() {
		case turnOver:
			if s.turn.CompareAndSwap(turnOver, turnTaken) {
				s.leads = true
				return s.take()
			}
		case turnTaken:
			if s.turn.CompareAndSwap(turnTaken, turnAgain) {
				return true
			}
		default:
			return true
		}
	}
}

// take runs the session until its client has to be waited for. It reports whether this goroutine still leads.
func (s *session) take() bool {
	s.begin()
	for {
		s.unpark()
		s.taken = 0
		err := s.commands()
		if err == errHandOver {
			if err = s.handOver(); err == nil {
				s.turn.Store(turnLast)
				return false // it has stepped aside
			}
		}
		leads := s.leads
		if err != errNothing {
			s.finish(err)
			leads, s.leads = s.leads, false
			s.turn.Store(turnLast)
			return leads
		}
		s.giveBack()
		s.leads = false
		if s.turn.CompareAndSwap(turnTaken, turnOver) {
			return leads
		}
		s.turn.Store(turnTaken)
		s.leads = leads
	}
}

// stepAside is called before the session waits for anything: the loop goes on without this goroutine.
func (s *session) stepAside() {
	if s.leads {
		s.leads = false
		go s.point.loop.lead(s.srv.loopEnded)
	}
}

// nudge has the loop look at the session.
func (s *session) nudge() {
	if s.point != nil {
		s.point.loop.post(s)
	}
}

// fetchReady is fetch on a loop.
func (s *session) fetchReady() error {
	switch {
	case s.gone.Load():
		return net.ErrClosed
	case s.srv.drains.Load():
		return s.fetchLast()
	case s.portable():
		return errHandOver
	case s.look.Swap(false):
		return os.ErrDeadlineExceeded
	case s.leads && s.taken >= maxTurn && s.more.Load():
		s.point.loop.busy = append(s.point.loop.busy, s)
		return errNothing
	case !s.more.Swap(false): // before the read: what arrives after it is told again
		return errNothing
	}
	if s.in.unread() > largeCommand {
		s.stepAside()
	}
	s.borrow()
	room := s.in.more()
	n, err := s.point.read(room)
	s.in.read(n)
	s.taken += n
	if n == len(room) || n > 0 && s.hung.Load() {
		s.more.Store(true)
	}
	return err
}

// fetchLast is fetchReady once the server drains: what was sent by then is served.
func (s *session) fetchLast() error {
	if s.last {
		return errClosed
	}
	s.last = true
	s.borrow()
	n, err := s.point.read(s.in.more())
	s.in.read(n)
	if err == errNothing {
		return errClosed
	}
	return err
}

// await blocks until cond holds or the client is gone, and reports which. cond is evaluated with mu held, after every
// delivery. Only who runs the session calls it.
func (s *session) await(cond func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = true
	for s.dead == nil && !cond() {
		s.stepAside()
		s.moved.Wait()
	}
	s.waiting = false
	return s.dead == nil
}

// flush waits until everything delivered is written, for as long as grace, and ends the connection.
func (s *session) flush(grace time.Duration) {
	late := time.AfterFunc(grace, func() { s.kill(errLeftUnread) })
	s.await(func() bool { return s.pending.Load() == 0 && !s.writing })
	late.Stop()
	if c, ok := s.conn.(*secured); ok {
		_ = c.CloseWrite() // else the client cannot tell the end from a connection that was cut
	}
	s.kill(net.ErrClosed)
	s.wg.Wait()
}

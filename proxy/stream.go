package proxy

import "net"

const (
	// streamFrom is how long an argument is, in bytes, that is passed on as it comes instead of being held whole.
	streamFrom = 1 << 20
	// maxStreams is how many commands may be passed on that way at a time. Each takes a connection to Redis for as long
	// as its client takes to send it, so a client that never does costs one of these and not a place in a queue: what
	// is beyond is held whole.
	maxStreams = 64
)

// stream is a large command that is passed on while it arrives.
type stream struct {
	on      bool
	dropped bool // the client was answered already, and the rest goes nowhere
	patient bool // what the lane was before
	stuck   bool
}

// startStream begins to pass on the command that is arriving, on a connection of the session's own, if it is a large one
// in which there is nothing to look at: Redis gets the bytes as they are, and decides.
func (s *session) startStream() bool {
	args := s.in.large(streamFrom)
	if args == nil || s.outsider() || s.silent || s.skip {
		return false
	}
	s.maps = s.srv.maps.Load()
	c := s.lookUp(args)
	switch {
	case s.pinned() && (s.pin.tx != nil || s.lane.private.endless.Load()), s.listening(c):
		return false
	case c.handle != nil && !c.forRows:
		return false
	case c.scan || len(c.keys) > 0 && (!c.onlyKey || len(args) < 2):
		return false // keys may be among what is still to come
	case len(args) > 1 && s.mapped(args[1]) != nil:
		return false // view may have to run it again, and a write ends a lease
	case s.objection(c, args) != nil:
		return false // which is for dispatch to say, once the command is whole
	}
	if s.srv.streams.Add(1) > maxStreams {
		s.srv.streams.Add(-1)
		return false
	}
	s.stepAside()
	s.counting.now = kind{c.group, fatePassed}
	s.count()
	s.stream = stream{on: true}
	if !s.pinTo() {
		s.stream.dropped = true
		return true
	}
	s.settle()
	s.pinnedFor(pinStream)
	p := s.lane.private
	s.stream.patient, s.stream.stuck = p.patient.Load(), s.pin.stuck
	p.patient.Store(true) // the reply cannot come before the client has sent all
	s.pin.stuck = true
	s.owed++
	if err := s.lane.submit(s, nil, []entry{{s: s, n: 1}}); err != nil {
		s.owed--
		s.refuse(err)
		s.stream.dropped = true
	}
	return true
}

// streamOn passes on what has arrived. It returns nil when more is needed, or the command is through.
func (s *session) streamOn() error {
	b, last, err := s.in.flow(s.outsider())
	if err != nil {
		return err
	}
	if !s.stream.dropped && len(b) > 0 {
		if err := s.lane.submit(s, b, nil); err != nil {
			return net.ErrClosed // with the connection the session is lost
		}
	}
	if !last {
		return nil
	}
	if !s.stream.dropped {
		s.lane.private.patient.Store(s.stream.patient)
		s.pin.stuck = s.stream.stuck
	}
	s.endStream()
	return nil
}

func (s *session) endStream() {
	if s.stream.on {
		s.stream = stream{}
		s.srv.streams.Add(-1)
	}
}

package proxy

import (
	"bytes"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// tx is a client's MULTI. Inside it nothing is answered by keyrow but errors: reads of rows are loaded before they are
// queued, writes of rows are queued as images, and what the journal needs for them is queued right behind and cut out of
// the reply of EXEC. Right behind, because a DEL or an EXPIRE further on has to know that the row is not in MySQL yet.
type tx struct {
	opened  atomic.Bool        // Redis answered OK to MULTI; the lane's reader sets it
	failed  error              // why EXEC must fail although Redis queued everything
	queued  int                // commands queued so far, those included that the client does not know of
	db      int                // the database selected at this place of the transaction, if all goes well
	login   bool               // a queued command may change who the client is
	taps    []tap              // what is looked at in EXEC's reply
	used    []*mapping.Mapping // what commands were queued for
	failure []byte             // what EXEC is answered instead; the lane's reader sets it
	d       mapping.Durability
	durable []int // places among the queued commands of those that d is for
	// Who and where the client is once EXEC has run: what the taps make of it. The lane's reader sets it.
	key laneKey
}

// tap looks at the reply to one of the queued commands, and says what the client gets; nil is nothing at all. The lane's
// reader calls it.
type tap struct {
	at  int // place among the queued commands
	see func(reply []byte) []byte
}

// tap has see look at the reply to the command that is queued next.
func (t *tx) tap(see func(reply []byte) []byte) { t.taps = append(t.taps, tap{t.queued, see}) }

// uses notes that a command of m is queued.
func (t *tx) uses(m *mapping.Mapping) {
	if !slices.Contains(t.used, m) {
		t.used = append(t.used, m)
	}
}

// forgotten reports whether the configuration was changed so that nobody would know what to make of what was queued for m.
func (t *tx) forgotten(maps *mapping.Set) bool {
	return slices.ContainsFunc(t.used, func(m *mapping.Mapping) bool { return !m.Query && !maps.Understands(m) })
}

// writes notes how safe what the command that is queued next writes has to be.
func (t *tx) writes(d mapping.Durability) {
	if d.Replicas > 0 {
		t.d = t.d.With(d)
		t.durable = append(t.durable, t.queued)
	}
}

var errExecAbort = redisReply("EXECABORT Transaction discarded because of previous errors.")

// multi serves MULTI.
func (s *session) multi(_ *command, req request) {
	if !s.pinOrQuit() {
		return
	}
	if s.pin.tx != nil {
		s.forward(req) // Redis refuses it
		return
	}
	s.reassure()
	t := &tx{db: s.key.db, key: s.key}
	s.pin.tx = t
	s.pinnedFor(pinTransaction)
	s.forwardFor(req, &tapped{s: s, tap: func(b []byte) { t.opened.Store(b[0] == '+') }}, false)
}

// transacting waits for the answer to MULTI, and reports whether Redis has begun a transaction.
func (s *session) transacting() bool {
	t := s.pin.tx
	if !t.opened.Load() {
		s.settle()
		if !t.opened.Load() && !s.gone.Load() {
			s.pin.tx = nil
		}
	}
	return t.opened.Load()
}

// confirmed makes sure of the transaction before anything is queued that would be wrong outside one. If Redis refused
// MULTI there is none, and the command is what it is outside.
func (s *session) confirmed(req request) bool {
	if s.transacting() {
		return true
	}
	if !s.gone.Load() {
		s.dispatch(req)
	}
	return false
}

// discard serves DISCARD. Redis may refuse it to the user, and then the transaction goes on.
func (s *session) discard(_ *command, req request) {
	if !s.pinned() || s.pin.tx == nil {
		s.forward(req) // Redis refuses it
		return
	}
	ended := false
	s.forwardFor(req, &tapped{s: s, tap: func(b []byte) { ended = b[0] == '+' }}, false)
	s.settle()
	if ended {
		s.pin.tx, s.pin.watching = nil, false
	}
}

// exec serves EXEC. Whatever Redis answers, and if it only finds an argument too many, the transaction has ended.
func (s *session) exec(_ *command, req request) {
	if !s.pinned() || s.pin.tx == nil {
		s.forward(req) // Redis refuses it
		return
	}
	t := s.pin.tx
	if t.failed == nil && t.forgotten(s.maps) {
		t.failed = redisReply("EXECABORT Transaction discarded because of: the configuration of its keys was changed; nothing was applied, send it again")
	}
	if t.failed != nil && !s.confirmed(req) {
		return
	}
	s.pin.tx, s.pin.watching = nil, false
	switch {
	case len(req.args) != 1:
		s.forward(req)
		return
	case t.failed != nil:
		if reply, err := s.call([]byte("DISCARD")); err != nil || reply[0] != '+' {
			// The user may not run it, and nothing else ends a transaction without running it.
			s.pin.foreign, s.quit = true, true
		}
		s.refuse(t.failed)
		return
	}
	s.at("transaction.before-exec")
	s.forwardFor(req, &executed{s, t}, false)
	if len(t.taps) > 0 {
		// Who and where the client is now depends on what was run, and with what success.
		s.settle()
		if t.key != s.key {
			s.move(t.key)
		}
	}
}

// marked takes the reply of the ZADD that marks a row.
func (t *tx) marked(srv *Server) func(reply []byte) []byte {
	return func(reply []byte) []byte {
		n, isInt := parseInt(bytes.TrimRight(reply[1:], "\r\n"))
		if reply[0] != ':' || !isInt {
			t.failure = appendError(nil, refused("the transaction was run, but what it wrote could not be marked for mysql: "+
				strconv.Quote(string(reply))+"; repair the journal's keys and write it again"))
			return nil
		}
		srv.wrote(1, int(n))
		return nil
	}
}

// executed takes the reply of EXEC.
type executed struct {
	s *session
	t *tx
}

func (e *executed) reply(l *lane, b []byte) {
	e.s.srv.at("transaction.after-exec")
	taps, durable := e.t.taps, e.t.durable
	if len(durable) > 0 {
		b = bytes.Clone(b) // it may be held back
	}
	if ran := len(b) > 1 && b[0] == '*' && b[1] != '-'; len(taps)+len(durable) == 0 || !ran {
		e.s.deliver(b, 1)
		return
	}
	elems, ok := elements(nil, b)
	if n := len(elems); !ok || len(taps) > 0 && taps[len(taps)-1].at >= n || len(durable) > 0 && durable[len(durable)-1] >= n {
		err := upstreamError("redis answered EXEC with a reply that is not understood, so it is unknown whether it was applied")
		e.lost(err)
		e.s.kill(err) // nor is it known where the connection stands
		return
	}
	for _, t := range taps {
		elems[t.at] = t.see(elems[t.at])
	}
	if e.t.failure != nil {
		e.s.deliver(e.t.failure, 1)
		return
	}
	e.s.deliverWritten(receipt{l, l.primary.name(), e.t.d, len(durable)}, theirs(elems), 1, func(err error) []byte {
		// Each of the commands that are not safe is answered that, as it would be outside; the others have their replies.
		for _, at := range durable {
			if elems[at][0] != '-' {
				elems[at] = appendError(nil, err)
			}
		}
		return theirs(elems)
	})
}

// theirs is an array of the replies that the client gets.
func theirs(elems [][]byte) []byte {
	n := 0
	for _, elem := range elems {
		if elem != nil {
			n++
		}
	}
	out := redcon.AppendArray(nil, n)
	for _, elem := range elems {
		out = append(out, elem...)
	}
	return out
}

func (e *executed) lost(err error) { e.s.deliverErrors(err, 1) }

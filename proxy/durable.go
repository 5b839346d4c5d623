package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"

	"keyrow/mapping"
)

// Replicas tells when replicas of Redis have what was written.
type Replicas interface {
	// Await calls done exactly once, from another goroutine: with nil once d.Replicas replicas have everything that the
	// primary with that master_replid had written before the call, or with an error as that of Loader; after d.Timeout at
	// the latest.
	Await(d mapping.Durability, primary string, writes int, done func(err error))
}

// Writes of rows with durability = "replicas" are applied as others are. What the client gets for them is held back until
// replicas have them; what is behind it waits in its place. If they do not have them in time the client gets an error that
// says so, in place of the reply: there is no way to take the write back.
//
// Which primary has made a write is known from the connection that its reply came over. It says so once it is made.

func (s *Server) durable() bool {
	return slices.ContainsFunc(s.maps.Load().All(), func(m *mapping.Mapping) bool { return m.Durability.Replicas > 0 })
}

// primary is what a connection says about who is at its other end; nil: nobody knows.
type primary struct{ atomic.Pointer[string] }

func (p *primary) name() string {
	if name := p.Load(); name != nil {
		return *name
	}
	return ""
}

// told takes the reply to INFO replication.
func (p *primary) told(reply []byte) {
	var name string
	if _, after, ok := bytes.Cut(reply, []byte("\nmaster_replid:")); ok {
		line, _, _ := bytes.Cut(after, []byte("\r"))
		name = string(line)
	}
	p.Store(&name)
}

var infoReplication = [][]byte{[]byte("INFO"), []byte("replication")}

// recognise asks a new connection of l who is at its other end, if anybody wants to know.
func (l *lane) recognise(conn net.Conn) error {
	if !l.up.durable() {
		return nil
	}
	reply, err := l.up.ask(conn, infoReplication...)
	if err == nil {
		l.primary.told(reply)
	}
	return err
}

// recognised has the primary of a lane looked at anew: it may have been a replica for a while, and then it has another name.
type recognised struct{}

func (recognised) reply(l *lane, b []byte) { l.primary.told(b) }
func (recognised) lost(error)              {}

// doubt asks for the primary again, behind what l was sent. It must not wait for room: what is held back bounds how often
// it is called. On a connection of a session's own, a transaction may be open, or half of a command on its way: there the
// session asks, see reassure.
func (l *lane) doubt(s *session) {
	if l.private != nil {
		l.private.doubted.Store(true)
		return
	}
	l.mu.Lock()
	_ = l.push(appendCommand(nil, infoReplication...), []entry{{s: s, op: recognised{}, n: 1}})
	l.mu.Unlock()
	l.flush()
}

// reassure asks for the primary of the session's own connection again, before the next command, if there is doubt.
func (s *session) reassure() {
	if s.lane.private.doubted.Swap(false) {
		s.batch.append(func(w []byte) []byte { return appendCommand(w, infoReplication...) })
		s.expect(entry{s: s, op: recognised{}, n: 1}, 0)
	}
}

// tellable makes sure, once for all sessions of an identity, that Redis tells it which primary it is, without which nobody
// can say later whether replicas have what was written.
func (s *session) tellable(m *mapping.Mapping) error {
	if s.lanes.tells.Load() {
		return nil
	}
	reply, err := s.try(s.key, infoReplication...)
	switch {
	case err != nil:
		return notApplied(err)
	case bytes.HasPrefix(reply, []byte("-NOPERM ")):
		return refused(fmt.Sprintf("%s has durability = \"replicas\", for which redis has to tell who writes which primary it is; "+
			"give the user +info, nothing was changed", m))
	case reply[0] == '-':
		return redisReply(strings.TrimRight(string(reply[1:]), "\r\n"))
	}
	s.lanes.tells.Store(true)
	return nil
}

// receipt says where something was written, and how safe it has to be.
type receipt struct {
	on      *lane
	primary string // at the other end of it then
	d       mapping.Durability
	writes  int
}

// durability is what writes of all of these rows have to have.
func (s *session) durability(rows []blindKey) (d mapping.Durability) {
	for _, row := range rows {
		if m := s.mapped(row.key); m != nil {
			d = d.With(m.Durability)
		}
	}
	return d
}

// deliverWritten delivers b, the client's replies to what was written, now or once enough replicas have it; else what
// otherwise makes of the error. The lane's reader may call it.
func (s *session) deliverWritten(r receipt, b []byte, replies int, otherwise func(err error) []byte) {
	if r.d.Replicas == 0 {
		s.deliver(b, replies)
		return
	}
	h := s.hold(replies)
	s.srv.replicas.Await(r.d, r.primary, r.writes, func(err error) {
		if err != nil {
			b = otherwise(err)
			if errors.Is(err, mapping.ErrOtherPrimary) && r.on.primary.name() == r.primary {
				r.on.doubt(s)
			}
		}
		s.fill(h, b, replies)
		s.rested()
	})
}

// answerWritten is answer for what the session has written with its last call, for rows of d.
func (s *session) answerWritten(d mapping.Durability, writes int, b []byte) {
	if d.Replicas == 0 || b[0] == '-' {
		s.answer(b)
		return
	}
	s.counting.now.fate = fateAnswered
	s.settle()
	s.owed++
	r := s.latestCall
	r.d, r.writes = d, writes
	s.deliverWritten(r, bytes.Clone(b), 1, func(err error) []byte { return appendError(nil, err) })
}

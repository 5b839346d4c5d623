package proxy

import (
	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// Keys of a mapping with write = "cache" are the clients' own: whatever they write is what they get, in Redis's own
// words. But reads fill such keys with rows where there is nothing, so each write ends the leases of its keys, in one
// transaction with it: a row that was read before must not come after it, when what was written has left Redis again.
//
//	MULTI
//	<the command>
//	DEL a(key) …
//	EXEC

// opaque says what m is.
func opaque(m *mapping.Mapping) string { return m.String() + " with write = \"cache\"" }

// opaques are the keys of the command that are the clients' own.
func (s *session) opaques(c *command, args [][]byte) (keys [][]byte) {
	if !c.writes || !s.here() {
		return nil
	}
	c.visit(args, func(key []byte) bool {
		if m := s.mapped(key); m != nil && m.Cache {
			keys = append(keys, key)
		}
		return true
	})
	return keys
}

// overwrite serves a command that writes keys of mappings with write = "cache". It is false, and nothing was done, if it
// has no such keys.
func (s *session) overwrite(c *command, req request) bool {
	keys := s.opaques(c, req.args)
	if len(keys) == 0 {
		return false
	}
	if !s.transactional() {
		return true
	}
	s.settle()
	s.beforeWrite()
	own, aside := s.lane, s.pinned()
	if aside { // as in endAside
		s.lane = s.pin.shared
	}
	s.batch.append(func(w []byte) []byte {
		w = append(w, "*1\r\n$5\r\nMULTI\r\n"...)
		w = append(w, req.raw...)
		w = redcon.AppendArray(w, 1+len(keys))
		w = append(w, "$3\r\nDEL\r\n"...)
		for _, key := range keys {
			w = redcon.AppendBulk(w, s.srv.journal.AppendAux(nil, key))
		}
		return append(w, "*1\r\n$4\r\nEXEC\r\n"...)
	})
	s.expect(entry{s: s, op: &overwriting{s: s}, n: 4}, 1)
	if aside {
		s.settle()
		s.lane = own
	}
	return true
}

// overwriting takes the four replies.
type overwriting struct {
	s      *session
	at     int
	bare   bool   // MULTI was refused, so the command was run by itself
	answer []byte // what came in place of QUEUED
}

func (o *overwriting) reply(l *lane, b []byte) {
	o.at++
	switch {
	case o.at == 1 && b[0] == '-':
		o.bare = true
		l.set.multi.Store(false)
	case o.at == 2 && (o.bare || b[0] == '-'):
		o.answer = append([]byte(nil), b...)
	}
	if o.at < 4 {
		return
	}
	switch elems, ok := elements(nil, b); {
	case ok && len(elems) == 2:
		o.answer = elems[0]
	case o.answer == nil:
		o.answer = b
	}
	o.s.deliver(o.answer, 1)
}

func (o *overwriting) lost(err error) { o.s.deliverErrors(err, 1) }

// queueLeaseless queues the end of the leases of keys, behind the command that writes them.
func (s *session) queueLeaseless(keys [][]byte) {
	if len(keys) == 0 {
		return
	}
	args := [][]byte{[]byte("DEL")}
	for _, key := range keys {
		args = append(args, s.srv.journal.AppendAux(nil, key))
	}
	s.queueHidden(hidden, args...)
}

package proxy

import (
	"bytes"
	"fmt"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// scripts are the commands that may write what they are given as keys, whatever their flags say.
var scripts = []string{"eval", "evalsha", "fcall"}

// script serves EVAL, EVALSHA and FCALL. What one does to its keys cannot be seen, so those that are mapped are marked
// as maybe changed, in one transaction with it:
//
//	MULTI
//	<the command>
//	DEL a(key) …               every lease and negative entry
//	PERSIST key …              an image that is marked carries no TTL
//	ZADD <dirty> NX now ?key
//	EXEC
func (s *session) script(c *command, req request) {
	keys, err := s.scriptKeys(c, req.args)
	switch {
	case err != nil:
		s.refuseKnown(err)
		return
	case len(keys) == 0:
		s.pass(c, req)
		return
	case !s.transactional() || !s.bring(keys):
		return
	}
	o := &scripted{executed: executed{s: s}}
	send := func() {
		s.batch.append(func(w []byte) []byte {
			w = append(append(w, "*1\r\n$5\r\nMULTI\r\n"...), req.raw...)
			w = o.marks(w, keys, time.Now().UnixMilli())
			return append(w, "*1\r\n$4\r\nEXEC\r\n"...)
		})
		s.expect(entry{s: s, op: o, n: o.extra + 3}, 1)
	}
	s.settle()
	if !s.pinned() {
		send()
		return
	}
	// Over the shared lane: on the session's own, EXEC would end what the client watches.
	own := s.lane
	s.lane = s.pin.shared
	send()
	s.settle()
	s.lane = own
}

// scriptKeys are the mapped keys among those of a script, which all may be written.
func (s *session) scriptKeys(c *command, args [][]byte) (keys []blindKey, err error) {
	c.visit(args, func(key []byte) bool {
		m := s.mapped(key)
		switch {
		case m == nil && s.here() && s.srv.journal.Reserved(key):
			err = s.reserved()
		case m == nil:
		case m.Deny:
			err = s.objectionTo(c, s.srv.maps.Load(), key)
		default:
			err = s.writable(m, key)
			keys = append(keys, blindKey{key: bytes.Clone(key), sign: mapping.MarkMaybe})
		}
		return err == nil
	})
	return keys, err
}

// bring has the rows of keys in Redis, as far as there are any. It answers the client and returns false if that fails,
// or if Redis would not let it run the command, to whom nothing is brought.
func (s *session) bring(keys []blindKey) bool {
	names := make([][]byte, len(keys))
	for i, k := range keys {
		names[i] = k.key
	}
	reply, err := s.call(append([][]byte{[]byte("EXISTS")}, names...)...)
	if err == nil && !bytes.Equal(reply, redcon.AppendInt(nil, int64(len(keys)))) {
		if reply[0] == '-' && !s.permitted() {
			return false
		}
		err = s.materialise(names)
	}
	if err != nil {
		s.refuse(err)
	}
	return err == nil
}

// queueScript queues EVAL, EVALSHA and FCALL.
func (s *session) queueScript(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	keys, err := s.scriptKeys(c, req.args)
	switch {
	case err != nil:
		s.abort(err)
		return
	case len(keys) == 0:
		s.queuePlain(c, req)
		return
	case s.loggedIn("a script with a row"):
		return
	}
	names := make([][]byte, len(keys))
	for i, k := range keys {
		names[i] = k.key
	}
	s.settle()
	if err := s.materialise(names); err != nil {
		s.abort(err)
		return
	}
	s.pin.tx.written = append(s.pin.tx.written, keys...)
	s.forward(req)
}

// scripted takes the replies to the transaction of a script.
type scripted struct {
	executed
	failed []byte // what was not queued
	bare   bool   // that was MULTI: the user's rights were changed just now
}

func (o *scripted) reply(l *lane, b []byte) {
	o.at++
	if o.at <= o.extra+2 {
		if b[0] == '-' && o.failed == nil {
			o.failed = bytes.Clone(b)
			o.bare = o.at == 1
		}
		return
	}
	elems, ok := elements(nil, b)
	switch {
	case o.bare:
		l.set.multi.Store(false)
		o.lost(upstreamError("redis refused MULTI, so the script was not run in one step with the marks of its keys: " +
			string(bytes.TrimRight(o.failed[1:], "\r\n"))))
	case b[0] == '-' && o.failed != nil:
		o.s.deliver(o.failed, 1)
	case b[0] == '-':
		o.s.deliver(b, 1)
	case !ok || len(elems) != 1+o.extra:
		o.lost(upstreamError(fmt.Sprintf("redis answered EXEC with %.64q, so it is unknown whether the script was run", b)))
	default:
		if err := o.count(elems[1:]); err != nil {
			o.lost(err)
			return
		}
		o.s.deliver(elems[0], 1)
	}
}

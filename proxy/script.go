package proxy

import (
	"bytes"
	"fmt"
	"strconv"
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
	s.way = wayJournal
	o := &scripted{s: s, keys: len(keys), d: s.durability(keys)}
	send := func() {
		s.batch.append(func(w []byte) []byte { return o.encode(w, req.raw, keys, time.Now().UnixMilli()) })
		s.expect(entry{s: s, op: o, n: o.replies()}, 1)
	}
	s.settle()
	s.at("script.before-exec")
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

// scriptKeys are the keys of a script that are rows, which all may be written.
func (s *session) scriptKeys(c *command, args [][]byte) (keys []blindKey, err error) {
	var own []byte // a key that is the clients' own
	c.visit(args, func(key []byte) bool {
		m := s.mapped(key)
		switch {
		case m == nil && s.here() && s.srv.journal.Reserved(key):
			err = s.reserved()
		case m == nil:
		case m.Cache:
			own = key
		case m.Deny:
			err = s.objectionTo(c, key)
		case m.Through:
			err = refused(fmt.Sprintf("%s is not supported on %.100q, which is a row of %s with write = \"through\": what a script writes "+
				"cannot go to MySQL first; send the commands themselves, or %[1]s_RO to read it, nothing was changed", c.name, key, m))
		default:
			err = s.writable(m, key)
			keys = append(keys, blindKey{key: bytes.Clone(key), sign: mapping.MarkMaybe})
		}
		return err == nil
	})
	if err == nil && own != nil && len(keys) > 0 {
		err = s.apart(c, own)
	}
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
	s.forward(req)
	s.queueMarks(keys...)
}

// scripted takes the replies to the transaction of a script.
type scripted struct {
	s      *session
	keys   int
	d      mapping.Durability
	at     int
	failed []byte // what was not queued
	bare   bool   // that was MULTI: the user's rights were changed just now
}

// replies is how many come: to MULTI, the script, three commands for each key, and EXEC.
func (o *scripted) replies() int { return 3 + 3*o.keys }

func (o *scripted) encode(w, command []byte, keys []blindKey, now int64) []byte {
	j := o.s.srv.journal
	w = append(append(w, "*1\r\n$5\r\nMULTI\r\n"...), command...)
	for _, k := range keys {
		w = appendCommand(w, []byte("DEL"), j.AppendAux(nil, k.key))
		w = appendCommand(w, []byte("PERSIST"), k.key)
		w = appendCommand(w, []byte("ZADD"), j.AppendDirty(nil, j.Partition(k.key)), []byte("NX"),
			strconv.AppendInt(nil, now, 10), append([]byte{k.sign}, k.key...))
	}
	return append(w, "*1\r\n$4\r\nEXEC\r\n"...)
}

func (o *scripted) reply(l *lane, b []byte) {
	if o.at++; o.at < o.replies() {
		if b[0] == '-' && o.failed == nil {
			o.failed = bytes.Clone(b)
			o.bare = o.at == 1
		}
		return
	}
	o.s.srv.at("script.after-exec")
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
	case !ok || len(elems) != 1+3*o.keys:
		o.lost(upstreamError(fmt.Sprintf("redis answered EXEC with %.64q, so it is unknown whether the script was run", b)))
	default:
		o.marked(l, elems)
	}
}

// marked takes the replies of EXEC.
func (o *scripted) marked(l *lane, elems [][]byte) {
	marked := 0
	for at := 3; at < len(elems); at += 3 {
		n, isInt := parseInt(bytes.TrimRight(elems[at][1:], "\r\n"))
		if elems[at][0] != ':' || !isInt {
			o.lost(refused(fmt.Sprintf("the script was run, but its keys could not be marked for mysql: %.200q; "+
				"repair the journal's keys and run it again", elems[at])))
			return
		}
		marked += int(n)
	}
	o.s.srv.gate.Marked(marked)
	o.s.srv.stats.Writes.Add(int64(o.keys))
	if elems[0][0] == '-' {
		o.d = mapping.Durability{} // what is no acknowledgement need not be safe
	}
	o.s.deliverWritten(receipt{l, l.primary.name(), o.d, o.keys}, bytes.Clone(elems[0]), 1, func(err error) []byte {
		return appendError(nil, err)
	})
}

func (o *scripted) lost(err error) { o.s.deliverErrors(err, 1) }

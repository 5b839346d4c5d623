package proxy

import (
	"bytes"
	"strconv"
	"time"

	"keyrow/mapping"
)

// queue is dispatch inside MULTI.
func (s *session) queue(c *command, req request) {
	t := s.pin.tx
	switch {
	case c.name == "MULTI" || c.name == "WATCH":
		s.forward(req) // Redis refuses these, and the transaction goes on
		return
	case c.queued != nil:
		c.queued(s, c, req)
	case c.handle != nil && !s.confirmed(req):
		// It was none of a transaction.
	default:
		s.queuePlain(c, req)
	}
	t.queued++
}

func (s *session) queuePlain(c *command, req request) {
	if c.reads {
		s.queueRead(c, req)
		return
	}
	if err := s.objection(c, req.args); err != nil {
		s.abort(err)
		return
	}
	keys := s.opaques(c, req.args)
	if len(keys) > 0 && (s.loggedIn("writing a mapped key") || !s.confirmed(req)) {
		return
	}
	s.forward(req)
	s.queueLeaseless(keys)
}

// abort refuses a command and with it the transaction.
func (s *session) abort(err error) {
	s.pin.tx.failed = errExecAbort
	s.refuseKnown(err)
}

// queueRead queues a command that reads mapped keys. Once Redis has queued it, and so allows it, their rows are loaded,
// in time for EXEC.
func (s *session) queueRead(c *command, req request) {
	if err := s.objection(c, req.args); err != nil {
		s.abort(err)
		return
	}
	var keys [][]byte
	c.visit(req.args, func(key []byte) bool {
		if m := s.mapped(key); m != nil && m.Names(key) {
			keys = append(keys, bytes.Clone(key))
		}
		return true
	})
	if len(keys) == 0 {
		s.forward(req)
		return
	}
	if s.confirmed(req) {
		s.queueLoaded(req, keys)
	}
}

// queueLoaded queues a command, and loads the rows of keys once Redis has queued it.
func (s *session) queueLoaded(req request, keys [][]byte) {
	queued := false
	s.forwardFor(req, &tapped{s: s, tap: func(b []byte) { queued = b[0] == '+' }}, false)
	s.settle()
	if !queued {
		return
	}
	if err := s.materialise(keys); err != nil {
		text := appendError(nil, err)
		s.pin.tx.failed = redisReply("EXECABORT Transaction discarded because of: " + string(text[1:len(text)-2]))
	}
}

// materialise loads the rows that keys name, so that Redis has those that exist. It is no error if a key holds something
// of another type: the command sees that in EXEC.
func (s *session) materialise(keys [][]byte) error {
	s.way = max(s.way, wayFill)
	d := deletion{keys: keys, how: make([]deletedKey, len(keys))}
	var places []int64
	for i, key := range keys {
		if m := s.mapped(key); m != nil && m.Names(key) {
			d.how[i].m = m
			places = append(places, int64(i+1))
		}
	}
	return d.lookUp(s, places)
}

// queueSet queues SET, SETEX and PSETEX.
func (s *session) queueSet(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	set, m, err := s.writtenBy(c, req)
	if m == nil && err == nil {
		s.queuePlain(c, req)
		return
	}
	if m != nil && err == nil && !set.blind() {
		s.queueChange(c, req)
		return
	}
	if m != nil && s.loggedIn("writing a row") {
		return
	}
	if own, is := err.(redisReply); is {
		s.queueMistake(c, set.key, own)
		return
	}
	if err == nil {
		err = s.queueable(c, m)
	}
	if err == nil {
		err = s.writable(m, set.key)
	}
	var image []byte
	if err == nil {
		image, err = m.Canonical(nil, set.key, set.value)
	}
	if err != nil {
		s.abort(err)
		return
	}
	wire := appendCommand(nil, []byte("SET"), set.key, image)
	s.forward(request{raw: wire, args: req.args, made: true})
	s.queueMarks(blindKey{set.key, set.deadline, mapping.MarkWritten})
}

// queueMistake queues what Redis answers with err in EXEC, in place of a SET, SETEX or PSETEX that is wrong for keyrow: a
// newer Redis may find nothing wrong with that.
func (s *session) queueMistake(c *command, key []byte, err redisReply) {
	name, amount, value := []byte(c.name), []byte{'0'}, []byte{}
	if err == errInteger {
		amount = []byte{'x'}
	}
	args := [][]byte{name, key, amount, value}
	switch {
	case err == errSyntax:
		args = [][]byte{name, key, value, []byte("NX"), []byte("XX")}
	case c.name == "SET":
		args = [][]byte{name, key, value, []byte("EX"), amount}
	}
	s.forward(request{raw: appendCommand(nil, args...), args: args, made: true})
}

// queueMset queues MSET, with images in place of the values of mapped keys.
func (s *session) queueMset(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	args := append([][]byte(nil), req.args...)
	var written []blindKey
	var opaques [][]byte
	if len(args)%2 == 1 {
		for i := 1; i < len(args); i += 2 {
			m := s.mapped(args[i])
			if m == nil {
				if s.here() && s.srv.journal.Reserved(args[i]) {
					s.abort(s.reserved())
					return
				}
				continue
			}
			if m.Cache {
				opaques = append(opaques, args[i])
				continue
			}
			err := s.queueable(c, m)
			if err == nil {
				err = s.writable(m, args[i])
			}
			if err == nil {
				args[i+1], err = m.Canonical(nil, args[i], args[i+1])
			}
			if err != nil {
				s.abort(err)
				return
			}
			written = append(written, blindKey{args[i], 0, mapping.MarkWritten})
		}
	}
	if len(written) > 0 && s.loggedIn("writing a row") {
		return
	}
	s.forward(request{raw: appendCommand(nil, args...), args: args, made: true})
	s.queueMarks(written...)
	s.queueLeaseless(opaques)
}

type blindKey struct {
	key      []byte
	deadline int64
	sign     byte // of its mark
}

// queueMarks queues, behind the command at hand, what makes the rows that it writes safe, as run.encode and
// script do.
func (s *session) queueMarks(written ...blindKey) {
	j := s.srv.journal
	s.pin.tx.writes(s.durability(written))
	for _, k := range written {
		p := j.Partition(k.key)
		s.queueHidden(hidden, []byte("DEL"), j.AppendAux(nil, k.key))
		switch expire := j.AppendExpire(nil, p); {
		case k.sign == mapping.MarkMaybe:
			s.queueHidden(hidden, []byte("PERSIST"), k.key)
		case k.deadline == 0:
			s.queueHidden(hidden, []byte("HDEL"), expire, k.key)
		default:
			s.queueHidden(hidden, []byte("HSET"), expire, k.key, strconv.AppendInt(nil, k.deadline, 10))
		}
		s.queueHidden(s.pin.tx.marked(s.srv), []byte("ZADD"), j.AppendDirty(nil, p), []byte("NX"),
			strconv.AppendInt(nil, time.Now().UnixMilli(), 10), append([]byte{k.sign}, k.key...))
	}
}

// queueHidden queues a command that the client does not know of, behind the one at hand. If Redis does not take it, EXEC
// fails.
func (s *session) queueHidden(see func(reply []byte) []byte, args ...[]byte) {
	t := s.pin.tx
	t.queued++
	t.tap(see)
	s.batch.append(func(w []byte) []byte { return appendCommand(w, args...) })
	s.expect(entry{s: s, op: unseen{}, n: 1}, 0)
}

// unseen drops a reply.
type unseen struct{}

func (unseen) reply(*lane, []byte) {}

func (unseen) lost(error) {}

// hidden takes a reply away from the client.
func hidden([]byte) []byte { return nil }

// queueDel queues DEL and UNLINK.
func (s *session) queueDel(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	d, err := s.deletionOf(c, req)
	if err != nil {
		s.abort(err)
		return
	}
	if d == nil {
		s.queuePlain(c, req)
		return
	}
	s.settle()
	var rows []int64
	for i, k := range d.how {
		if k.row && k.m.Through {
			s.abort(s.queueable(c, k.m))
			return
		}
		if k.row {
			rows = append(rows, int64(i+1))
		}
	}
	if err := d.lookUp(s, rows); err != nil {
		s.abort(err)
		return
	}
	s.pin.tx.writes(d.durability())
	args := append([][]byte{[]byte("EVAL"), delScript}, d.args(s.srv.journal)...)
	args[len(args)-1] = []byte("n")
	s.forward(request{raw: appendCommand(nil, args...), args: args, made: true})
}

// queueSelect queues SELECT.
func (s *session) queueSelect(_ *command, req request) {
	if !s.confirmed(req) {
		return
	}
	if len(req.args) == 2 {
		if s.loggedIn("SELECT") {
			return
		}
		// A SELECT that will fail in EXEC must not be taken for one that leaves the database of the mappings.
		base := s.key
		base.db = 0
		db, ok := parseInt(req.args[1])
		reply, err := s.try(base, req.args...)
		switch {
		case err != nil:
			s.abort(notApplied(err))
			return
		case reply[0] == '-' && !bytes.HasPrefix(reply, []byte("-ERR ")) && !bytes.HasPrefix(reply, []byte("-NOPERM ")):
			// The login failed, so what SELECT would do is not known.
			s.abort(redisReply(bytes.TrimRight(reply[1:], "\r\n")))
			return
		case ok && reply[0] == '+':
			t := s.pin.tx
			t.db = int(db)
			t.tap(func(reply []byte) []byte {
				if reply[0] == '+' {
					t.key.db = int(db)
				}
				return reply
			})
			s.pin.foreign = true
		}
	}
	s.forward(req)
}

// queueAuth queues AUTH.
func (s *session) queueAuth(_ *command, req request) {
	id, ok := credentials(req.args[1:])
	if !s.confirmed(req) {
		return
	}
	if t := s.pin.tx; ok {
		s.logsIn()
		t.tap(func(reply []byte) []byte {
			if reply[0] == '+' {
				t.key.identity, t.key.authed = id, true
			}
			return reply
		})
	}
	s.forward(req)
}

// queueHello queues HELLO.
func (s *session) queueHello(_ *command, req request) {
	if !s.confirmed(req) {
		return
	}
	g, refusal := parseGreeting(req.args[1:])
	if refusal != nil {
		// Some versions of Redis log in before they find what is wrong behind the AUTH.
		s.forward(withoutAuth(req.args))
		return
	}
	if g.id != nil {
		s.logsIn()
	}
	t, p := s.pin.tx, s.lane.private
	t.tap(func(reply []byte) []byte {
		if reply[0] != '-' {
			t.key = g.key(t.key)
			p.speaks(t.key.proto)
			s.rename(g.name)
		}
		return s.withOwnID(reply)
	})
	s.pin.foreign = true
	hello := g.command()
	s.forward(request{raw: appendCommand(nil, hello...), args: hello, made: true})
}

// withoutAuth is a HELLO that logs nobody in.
func withoutAuth(args [][]byte) request {
	var kept [][]byte
	for len(args) > 0 {
		if len(args) > 2 && bytes.EqualFold(args[0], []byte("AUTH")) {
			args = args[3:]
			continue
		}
		kept, args = append(kept, args[0]), args[1:]
	}
	return request{raw: appendCommand(nil, kept...), args: kept, made: true}
}

// logsIn notes that from here on the transaction may run as somebody else.
func (s *session) logsIn() { s.pin.tx.login, s.pin.foreign = true, true }

// loggedIn refuses what may not stand behind a login: Redis would find only in EXEC, with a row written, that he may not
// mark it.
func (s *session) loggedIn(what string) bool {
	if s.pin.tx.login {
		s.abort(refused(what + " in a transaction that logs in is not supported; log in before MULTI"))
	}
	return s.pin.tx.login
}

// queueNever refuses what would keep keyrow from telling the replies of a transaction apart.
func (s *session) queueNever(c *command, req request) {
	if s.confirmed(req) {
		s.abort(refused(c.name + " inside MULTI is not supported; send it before"))
	}
}

// queueSubscription queues SUBSCRIBE and its likes. Redis puts the confirmations among the replies of EXEC: with one
// channel, there is one.
func (s *session) queueSubscription(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	if len(req.args) != 2 {
		s.abort(refused(c.name + " inside MULTI is supported with one channel; send one for each"))
		return
	}
	s.pin.stuck = true
	s.subscriber.Store(true)
	t, p := s.pin.tx, s.lane.private
	t.tap(func(reply []byte) []byte {
		if reply[0] != '-' {
			p.counts(reply, t.key.proto)
		}
		return reply
	})
	s.forward(req)
}

// queueStick queues a command that sets something on the connection.
func (s *session) queueStick(_ *command, req request) {
	if !s.confirmed(req) {
		return
	}
	s.pin.stuck = true
	s.forward(req)
}

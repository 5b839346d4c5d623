package proxy

import (
	"bytes"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

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
func (unseen) lost(error)          {}

// hidden takes a reply away from the client.
func hidden([]byte) []byte { return nil }

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

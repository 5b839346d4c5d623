package proxy

import (
	"bytes"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// tx is a client's MULTI. Inside it nothing is answered by keyrow but errors: reads of rows are loaded before they are
// queued, writes of rows are queued as images, and what the journal needs for them is queued just before EXEC and cut
// out of its reply.
type tx struct {
	opened  atomic.Bool // Redis answered OK to MULTI; the lane's reader sets it
	written []blindKey  // keys of rows that are SET, or given to a script
	failed  error       // why EXEC must fail although Redis queued everything
	queued  int         // commands queued so far
	db      int         // the database selected at this place of the transaction, if all goes well
	selects bool        // a queued command selects a database
	login   bool        // a queued command may change who the client is
	taps    []tap       // what is looked at in EXEC's reply
	// Who and where the client is once EXEC has run: what the taps make of it. The lane's reader sets it.
	key laneKey
}

// tap looks at the reply to one of the queued commands, and says what the client gets. The lane's reader calls it.
type tap struct {
	at  int // place among the queued commands
	see func(reply []byte) []byte
}

// tap has see look at the reply to the command that is queued next.
func (t *tx) tap(see func(reply []byte) []byte) { t.taps = append(t.taps, tap{t.queued, see}) }

type blindKey struct {
	key      []byte
	deadline int64
	sign     byte // of its mark
}

var errExecAbort = redisReply("EXECABORT Transaction discarded because of previous errors.")

// multi serves MULTI.
func (s *session) multi(_ *command, req request) {
	if !s.pinTo() {
		return
	}
	if s.pin.tx != nil {
		s.forward(req) // Redis refuses it
		return
	}
	t := &tx{db: s.key.db, key: s.key}
	s.pin.tx = t
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
	e := &executed{s: s, taps: t.taps}
	if len(t.written) > 0 {
		s.endRun()
		// The journal is in the database of the mappings, from which a SELECT behind the writes may have led away.
		s.batch.append(func(w []byte) []byte {
			if t.selects {
				w = e.selecting(w, s.srv.up.DB)
			}
			w = e.marks(w, t.written, time.Now().UnixMilli())
			if t.selects {
				w = e.selecting(w, t.db)
			}
			return w
		})
	}
	s.batch.append(func(w []byte) []byte { return append(w, req.raw...) })
	s.expect(entry{s: s, op: e, n: e.extra + 1}, 1)
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
	s.forward(req)
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
	if !s.confirmed(req) {
		return
	}
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

// materialise loads the rows that keys name, so that Redis has those that exist.
func (s *session) materialise(keys [][]byte) error {
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
	s.pin.tx.written = append(s.pin.tx.written, blindKey{bytes.Clone(set.key), set.deadline, mapping.MarkWritten})
	wire := appendCommand(nil, []byte("SET"), set.key, image)
	s.forward(request{raw: wire, args: req.args, made: true})
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
func (s *session) queueMset(_ *command, req request) {
	if !s.confirmed(req) {
		return
	}
	args := append([][]byte(nil), req.args...)
	var written []blindKey
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
			err := s.writable(m, args[i])
			if err == nil {
				args[i+1], err = m.Canonical(nil, args[i], args[i+1])
			}
			if err != nil {
				s.abort(err)
				return
			}
			written = append(written, blindKey{bytes.Clone(args[i]), 0, mapping.MarkWritten})
		}
	}
	if len(written) > 0 && s.loggedIn("writing a row") {
		return
	}
	s.pin.tx.written = append(s.pin.tx.written, written...)
	s.forward(request{raw: appendCommand(nil, args...), args: args, made: true})
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
		if k.row {
			rows = append(rows, int64(i+1))
		}
	}
	if err := d.lookUp(s, rows); err != nil {
		s.abort(err)
		return
	}
	args := d.args(s.srv.journal)
	args[0], args[1] = []byte("EVAL"), delScript
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
			t.db, t.selects = int(db), true
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
func (s *session) queueAuth(c *command, req request) {
	id, ok := credentials(req.args[1:])
	if !s.confirmed(req) || ok && !s.logsIn(c) {
		return
	}
	if t := s.pin.tx; ok {
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
func (s *session) queueHello(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	g, refusal := parseGreeting(req.args[1:])
	if refusal != nil {
		// Some versions of Redis log in before they find what is wrong behind the AUTH.
		s.forward(withoutAuth(req.args))
		return
	}
	if g.id != nil && !s.logsIn(c) {
		return
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

// logsIn notes that from here on the transaction may run as somebody else. The marks of rows come last in it, and Redis
// would find only in EXEC, with the rows written, that he may not set them.
func (s *session) logsIn(c *command) bool {
	if len(s.pin.tx.written) > 0 {
		s.abort(refused(c.name + " is not supported in a transaction that writes rows; send it before MULTI"))
		return false
	}
	s.pin.tx.login, s.pin.foreign = true, true
	return true
}

// loggedIn refuses what may not stand behind a login.
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

// executed takes the reply of EXEC and of the journal's commands before it.
type executed struct {
	s     *session
	extra int   // commands of the journal's
	zadds []int // which of them count new marks
	at    int
	taps  []tap
}

// selecting appends a SELECT that the client does not see.
func (e *executed) selecting(w []byte, db int) []byte {
	e.extra++
	return appendCommand(w, []byte("SELECT"), strconv.AppendInt(nil, int64(db), 10))
}

// marks appends what makes the written keys safe, as run.encode does.
func (e *executed) marks(w []byte, written []blindKey, now int64) []byte {
	j := e.s.srv.journal
	var name [128]byte
	w = redcon.AppendArray(w, 1+len(written))
	w = append(w, "$3\r\nDEL\r\n"...)
	for _, k := range written {
		w = redcon.AppendBulk(w, j.AppendAux(name[:0], k.key))
	}
	e.extra++
	for _, k := range written {
		p := j.Partition(k.key)
		if k.deadline != 0 {
			w = redcon.AppendArray(w, 4)
			w = append(w, "$4\r\nHSET\r\n"...)
			w = redcon.AppendBulk(w, j.AppendExpire(name[:0], p))
			w = redcon.AppendBulk(w, k.key)
			w = appendBulkInt(w, k.deadline)
			e.extra++
		}
		if k.sign == mapping.MarkMaybe {
			w = appendCommand(w, []byte("PERSIST"), k.key)
			e.extra++
		}
		w = redcon.AppendArray(w, 5)
		w = append(w, "$4\r\nZADD\r\n"...)
		w = redcon.AppendBulk(w, j.AppendDirty(name[:0], p))
		w = append(w, "$2\r\nNX\r\n"...)
		w = appendBulkInt(w, now)
		w = redcon.AppendBulk(w, append([]byte{k.sign}, k.key...))
		e.zadds = append(e.zadds, e.extra)
		e.extra++
	}
	return w
}

func (e *executed) reply(_ *lane, b []byte) {
	e.at++
	if e.at <= e.extra {
		return // QUEUED, or an error after which EXEC fails
	}
	ran := len(b) > 1 && b[0] == '*' && b[1] != '-'
	if e.extra == 0 && len(e.taps) == 0 || !ran {
		e.s.deliver(b, 1)
		return
	}
	elems, ok := elements(nil, b)
	theirs := len(elems) - e.extra
	if !ok || theirs < 0 || len(e.taps) > 0 && e.taps[len(e.taps)-1].at >= theirs {
		err := upstreamError("redis answered EXEC with a reply that is not understood, so it is unknown whether it was applied")
		e.lost(err)
		e.s.kill(err) // nor is it known where the connection stands
		return
	}
	for _, t := range e.taps {
		elems[t.at] = t.see(elems[t.at])
	}
	if err := e.count(elems[theirs:]); err != nil {
		e.lost(err)
		return
	}
	out := redcon.AppendArray(nil, theirs)
	for _, elem := range elems[:theirs] {
		out = append(out, elem...)
	}
	e.s.deliver(out, 1)
}

// count takes the replies to the journal's commands.
func (e *executed) count(elems [][]byte) error {
	marked := 0
	for _, at := range e.zadds {
		elem := elems[at]
		n, isInt := parseInt(bytes.TrimRight(elem[1:], "\r\n"))
		if elem[0] != ':' || !isInt {
			return refused("the transaction was run, but what it wrote could not be marked for mysql: " +
				strconv.Quote(string(elem)) + "; repair the journal's keys and write it again")
		}
		marked += int(n)
	}
	e.s.srv.gate.Marked(marked)
	e.s.srv.stats.Writes.Add(int64(len(e.zadds)))
	return nil
}

func (e *executed) lost(err error) { e.s.deliverErrors(err, 1) }

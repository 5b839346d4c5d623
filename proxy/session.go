package proxy

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

const (
	// maxOwed is how many replies may be owed to one client before its next commands are left unread.
	maxOwed = 4096
	// farewell is how long a client gets to take its last replies.
	farewell = 5 * time.Second
)

// readBuffers lends buffers to sessions while they have bytes to look at, so that an idle client costs none.
var readBuffers = sync.Pool{New: func() any { b := make([]byte, 0, readChunk); return &b }}

// idleKeep is how large each of the other buffers may be, in bytes, that an idle session keeps.
const idleKeep = 16 << 10

// A client that has sent the beginning of a command, and no more for now, keeps it in one of partBuffers if it is short
// enough: it may not send the rest for long.
const partBuffer = 16 << 10

var partBuffers = sync.Pool{New: func() any { b := make([]byte, 0, partBuffer); return &b }}

// session is one client. It cuts commands, adds them to a lane and goes back to its client. The replies are brought to
// the client by who reads the lane, through the outbox.
//
// A session runs on its loop, from when its client has sent something until it has to wait for its client again. Over
// TLS it has a goroutine of its own instead.
type session struct {
	outbox
	srv *Server
	id  int64
	in  requestFramer

	turn  atomic.Int32 // whether somebody runs the session
	leads bool         // who runs it leads the loop
	more  atomic.Bool  // there may be something to read
	hung  atomic.Bool  // the client will send nothing further
	look  atomic.Bool  // it is time to see whether the client is idle
	taken int          // bytes read in this turn
	last  bool         // the last read was made: the server drains

	key   laneKey // who the client is and where it stands
	lanes *laneSet
	lane  *lane
	name  atomic.Pointer[string] // CLIENT SETNAME
	peers atomic.Pointer[peers]  // where it comes from and connected to, as the PROXY header has it if there is one

	fetched int64 // reads that brought something
	idle    idleness

	home    atomic.Pointer[laneSet] // lanes, for others to look at
	pin     pin                     // what goes with a lane of the session's own
	holding bool                    // the goroutine waits for the client and for a reply; guarded by mu
	// released is when the reply came that the session waited for with holding set; guarded by mu.
	released time.Duration
	parked   bool // the goroutine waits for the client, so the lane's reader may unpin; guarded by mu

	batch    batch
	stream   stream
	counting counting

	arrived   time.Duration // when the command to be dispatched was there, and those before it were waited for
	way       way           // how the command being dispatched is answered
	waited    time.Duration // what it has waited for Redis and MySQL
	stopwatch stopwatch

	run    *run         // blind writes that are still to be encoded into the batch
	owed   int64        // replies that will have been delivered once everything submitted is answered
	reads  atomic.Int32 // mapped reads that are not answered yet
	mixed  atomic.Bool  // a run of several writes is unanswered: nothing may be sent behind it
	joined uint64       // the number of the lane's run that has writes of the session, if it is unsent
	quit   bool

	command    []byte       // the command being dispatched, as RESP
	maps       *mapping.Set // the mappings for it: all of a command goes by the same
	latestCall receipt      // where the latest call was answered

	latest     *command // the row of the last command without subcommands
	latestName string   // how the client wrote its name
	silent     bool     // CLIENT REPLY OFF
	skip       bool     // CLIENT REPLY SKIP: the next command's reply is dropped

	scratch []byte // a reply or an image being made

	lent *[]byte // the buffer in `in`, to be given back
	part *[]byte // the same if it is one of partBuffers
}

// batch is what a session has cut from the bytes at hand and not submitted yet.
type batch struct {
	wire    []byte // aliases the framer's buffer until something is inserted
	own     []byte // backing of wire once it does not
	owned   bool
	entries []entry
	replies int64
}

func newSession(srv *Server, conn net.Conn, id int64) *session {
	s := &session{srv: srv, id: id, in: newRequestFramer(srv.commands.maxArgs, srv.cfg.MaxBulk)}
	s.outbox.init(conn, srv.cfg.OutputLimit)
	s.died = s.nudge
	s.peers.Store(ends(conn))
	s.maps = srv.maps.Load()
	return s
}

func (s *session) borrow() {
	if s.lent != nil {
		return
	}
	s.lent = readBuffers.Get().(*[]byte)
	s.in.move(*s.lent)
	if s.part != nil {
		partBuffers.Put(s.part)
		s.part = nil
	}
}

// giveBack lends the buffer to others once there is nothing, or little, to keep in it. One that has grown is left to the
// garbage collector.
func (s *session) giveBack() {
	if s.lent == nil || s.in.unread() > partBuffer {
		return
	}
	var b []byte
	if s.in.idle() {
		b = s.in.move(nil)
	} else {
		s.part = partBuffers.Get().(*[]byte)
		b = s.in.move(*s.part)
	}
	if cap(b) <= 2*readChunk {
		*s.lent = b[:0]
		readBuffers.Put(s.lent)
	}
	s.lent, s.command = nil, nil
	s.batch.shrink()
	if cap(s.scratch) > idleKeep {
		s.scratch = nil
	}
	if s.stopwatch.due.Load() == 0 && cap(s.stopwatch.args) > 2*shownWhole {
		s.stopwatch.args = nil
	}
}

// serve runs a session that has a goroutine of its own, until it ends or goes over to a loop.
func (s *session) serve() {
	if err := s.handshake(); err != nil {
		s.kill(err)
		s.srv.left(s)
		return
	}
	if !s.board() {
		s.begin()
		s.finish(s.commands())
	}
}

func (s *session) begin() {
	if s.lanes == nil {
		s.welcomed()
		s.enter(s.key)
	}
}

// finish lets the replies that are still owed arrive, and closes. The session's commands ended with err.
func (s *session) finish(err error) {
	s.fold()
	s.submit()
	if s.stream.on {
		s.mute(true) // a command that did not come to its end has no reply, nor does losing its connection
	}
	if s.pinned() {
		p := s.lane.private
		if s.stream.on || p.blocked.Load() > 0 || p.endless.Load() {
			// A BLPOP whose client is gone must not take what is pushed next, nor half a command be taken for a whole one.
			s.unpin(false)
			s.hear(nil, nil, false) // nor does the rest of a message come
		} else {
			p.patient.Store(false)
		}
	}
	s.settle()
	s.endStream()
	s.mute(s.silent)
	var bad protocolError
	if errors.As(err, &bad) {
		s.deliver(redcon.AppendError(nil, "ERR "+bad.Error()), 0)
	}
	s.flush(farewell)
	if s.pinned() {
		s.unpin(s.answered.Load() == s.owed && s.clean())
	}
	s.giveBack()
	s.srv.upstream.release(s.lanes)
	s.logEnd(err)
	s.srv.left(s)
}

// logEnd logs why the session ended: its commands did with err.
func (s *session) logEnd(err error) {
	if s.ended() == errUnread {
		s.srv.stats.Unread.Add(1)
		addr, _ := s.addrs()
		s.srv.rare.Warn().Err(errUnread).Str("client", addr).Int("output_limit", s.limit).Msg("client closed, for it does not read its replies")
		return
	}
	if e := s.srv.log.Debug(); e.Enabled() {
		addr, _ := s.addrs()
		e.Err(err).Str("client", addr).Int64("id", s.id).Msg("client gone")
	}
}

// commands runs the client's commands until there are no more, or, on a loop, until they have to be waited for: then it
// fails with errNothing.
func (s *session) commands() error {
	for {
		if s.stream.on {
			if err := s.streamOn(); err != nil {
				return err
			}
		} else if err := s.standBy(); err != nil {
			return err
		}
		req, err := s.nextCommand()
		switch {
		case err == nil:
			s.dispatch(req)
			s.count()
			if s.quit || s.gone.Load() {
				return nil // what else was read is not run: it may be the rest of a transaction
			}
		case err == errShort:
			s.submit()
			s.fold()
			if s.startStream() {
				continue
			}
			if err := s.pause(); err != nil {
				return err
			}
			s.park()
			err := s.fetch()
			if err == errNothing {
				return err
			}
			s.unpark()
			if err == nil {
				s.fetched++
			} else if err := s.linger(err); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// outsider reports whether the tighter limits of clients that have not authenticated apply.
func (s *session) outsider() bool { return !s.key.authed && s.srv.upstream.noAuth.Load() }

func (s *session) nextCommand() (request, error) {
	if s.stream.on {
		return request{}, errShort
	}
	return s.in.next(s.outsider())
}

// pause leaves the client unread while it is owed too much.
func (s *session) pause() error {
	// Half of the limit at which the client is closed: one that reads, if slowly, stays, and one that writes all its
	// commands before it reads the first reply is not left waiting for ever, as long as the replies are fewer than that.
	unread := int64(s.srv.cfg.OutputLimit / 2)
	if s.owed-s.answered.Load() <= maxOwed && s.pending.Load() <= unread {
		return nil
	}
	s.srv.stats.Paused.Add(1)
	if !s.await(func() bool { return s.owed-s.answered.Load() <= maxOwed/2 && s.pending.Load() <= unread/2 }) {
		return net.ErrClosed
	}
	return nil
}

// fetch reads what the client has sent. On a loop it fails with errNothing if that is nothing; else it waits for it,
// over TLS without a buffer.
func (s *session) fetch() error {
	if s.point != nil {
		return s.fetchReady()
	}
	if c, ok := s.conn.(*secured); ok {
		return s.fetchSecured(c)
	}
	s.borrow()
	n, err := s.conn.Read(s.in.more())
	s.arrived = clock()
	s.in.read(n)
	if n == 0 {
		s.giveBack()
	}
	return err
}

// fetchSecured is fetch over TLS.
func (s *session) fetchSecured(c *secured) error {
	for {
		s.borrow()
		n, err := c.Read(s.in.more())
		s.arrived = clock()
		s.in.read(n)
		switch {
		case n > 0: // an error behind it comes again
			return nil
		case err != errNothing:
			return err
		}
		s.giveBack()
		if err := c.below.wait(); err != nil {
			return err
		}
	}
}

// loop is the loop that the session is on, or nil.
func (s *session) loop() *loop {
	if s.point == nil {
		return nil
	}
	return s.point.loop
}

// welcomed is upstream.welcome, from a session.
func (s *session) welcomed() {
	if !s.srv.upstream.known() {
		s.stepAside()
		s.srv.upstream.welcome()
	}
}

// try is upstream.try, from a session.
func (s *session) try(key laneKey, args ...[]byte) ([]byte, error) {
	s.stepAside()
	defer s.waits(clock())
	return s.srv.upstream.try(key, args...)
}

// at is Server.at, from a session.
func (s *session) at(point string) {
	if s.srv.hooked {
		s.stepAside()
	}
	s.srv.at(point)
}

// enter moves the session, which is owed nothing, to the lanes for key.
func (s *session) enter(key laneKey) {
	old := s.lanes
	s.lanes = s.srv.upstream.acquire(key)
	s.key, s.lane = key, s.lanes.pick(s.loop())
	s.home.Store(s.lanes)
	if old != nil {
		s.srv.upstream.release(old)
	}
}

// here reports whether the session stands where keys are mapped.
func (s *session) here() bool {
	if s.pinned() && s.pin.tx != nil {
		return s.pin.tx.db == s.srv.up.DB
	}
	return s.key.db == s.srv.up.DB
}

// mapped finds the mapping of a key, as this session sees it.
func (s *session) mapped(key []byte) *mapping.Mapping {
	if !s.here() {
		return nil
	}
	m := s.maps.Match(key)
	if m != nil {
		s.counting.now.fate = fateRow
		if s.pinned() && s.pin.tx != nil {
			s.pin.tx.uses(m)
		}
	}
	return m
}

// forward adds a command to the batch as it is.
func (s *session) forward(req request) { s.forwardFor(req, nil, false) }

// forwardFor adds a command whose reply op takes, or only a nil reply if peek is set.
func (s *session) forwardFor(req request, op operation, peek bool) {
	s.endRun()
	s.behindRun()
	s.batch.add(req.raw, !req.made)
	s.expect(entry{s: s, op: op, n: 1, peek: peek}, 1)
}

// expect adds what is expected for the command just added; replies counts what the client gets for it.
func (s *session) expect(e entry, replies int64) {
	b := &s.batch
	if n := len(b.entries); n > 0 && e.op == nil && b.entries[n-1].op == nil {
		b.entries[n-1].n += e.n
	} else {
		b.entries = append(b.entries, e)
	}
	b.replies += replies
}

// submit hands the batch to the lane. If the lane does not take it, each of its commands gets the error.
func (s *session) submit() {
	if w := &s.stopwatch; w.sent == 0 {
		w.sent = s.seen()
	}
	if s.join() {
		return
	}
	s.endRun()
	b := &s.batch
	if len(b.entries) == 0 {
		return
	}
	s.owed += b.replies
	if err := s.lane.submit(s, b.wire, b.entries); err != nil {
		s.arrive()
		answerAll(b.entries, err)
		if errors.Is(err, errDismissed) {
			s.kill(err)
		}
	}
	b.reset()
}

// arrive waits until everything that the lane took before is answered.
func (s *session) arrive() {
	due := s.owed - s.batch.replies
	s.await(func() bool { return s.answered.Load() >= due })
}

// settle waits until the client is owed nothing. What is delivered next stands in its place.
func (s *session) settle() {
	s.submit()
	if s.answered.Load() < s.owed || s.lane.private != nil {
		s.await(func() bool { return s.answered.Load() >= s.owed && s.rest == nil })
	}
}

// answer gives a reply of keyrow's own its place behind everything that was asked before.
func (s *session) answer(b []byte) {
	s.counting.now.fate = fateAnswered
	s.settle()
	s.deliver(b, 0)
}

// refuse answers with an error.
func (s *session) refuse(err error) {
	s.scratch = appendError(s.scratch[:0], err)
	s.answer(s.scratch)
	s.counting.now.fate = fateRefused
}

// deliverErrors answers n commands with err.
func (s *session) deliverErrors(err error, n int) {
	one := appendError(nil, err)
	for range n {
		s.deliver(one, 1)
	}
}

// add appends the bytes of a command. Commands that stand one behind the other in the framer's buffer are not copied.
func (b *batch) add(raw []byte, inBuffer bool) {
	n := len(b.wire)
	switch {
	case !b.owned && inBuffer && n == 0:
		b.wire = raw
	case !b.owned && inBuffer && cap(b.wire) > n && &b.wire[:n+1][n] == &raw[0]:
		b.wire = b.wire[: n+len(raw) : cap(b.wire)]
	default:
		b.append(func(w []byte) []byte { return append(w, raw...) })
	}
}

// append lets f append bytes to the wire.
func (b *batch) append(f func([]byte) []byte) {
	if !b.owned {
		b.own = append(b.own[:0], b.wire...)
		b.owned = true
	} else {
		b.own = b.wire
	}
	b.wire = f(b.own)
	b.own = b.wire
}

func (b *batch) reset() {
	clear(b.entries)
	b.wire, b.owned, b.entries, b.replies = nil, false, b.entries[:0], 0
}

func (b *batch) shrink() {
	if cap(b.own) > idleKeep {
		b.own = nil
	}
	if cap(b.entries) > 64 {
		b.entries = nil
	}
}

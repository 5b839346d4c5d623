package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
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

// session is one client. Its goroutine only reads: it cuts commands, adds them to a lane and goes back to reading.
// The replies are brought to the client by the lane's reader, through the outbox.
type session struct {
	*outbox
	srv *Server
	id  int64
	in  requestFramer

	key   laneKey // who the client is and where it stands
	lanes *laneSet
	lane  *lane
	name  atomic.Pointer[string] // CLIENT SETNAME
	peers atomic.Pointer[peers]  // what a PROXY header said

	fetched int64 // reads that brought something
	idle    idleness

	home    atomic.Pointer[laneSet] // lanes, for others to look at
	pin     pin                     // what goes with a lane of the session's own
	holding bool                    // the goroutine waits for the client and for a reply; guarded by mu
	parked  bool                    // the goroutine waits for the client, so the lane's reader may unpin; guarded by mu

	batch batch
	run   *run         // blind writes that are still to be encoded into the batch
	owed  int64        // replies that will have been delivered once everything submitted is answered
	reads atomic.Int32 // mapped reads that are not answered yet
	mixed atomic.Bool  // a run of several writes is unanswered: nothing may be sent behind it
	quit  bool

	command []byte // the command being dispatched, as RESP
	silent  bool   // CLIENT REPLY OFF
	skip    bool   // CLIENT REPLY SKIP: the next command's reply is dropped

	scratch []byte // a reply or an image being made

	lent    *[]byte // the buffer in `in`, to be given back
	got     int     // result of receive
	readErr error
	receive func(fd uintptr) bool
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
	s := &session{outbox: newOutbox(conn, srv.cfg.OutputLimit), srv: srv, id: id, in: newRequestFramer(srv.commands.maxArgs, srv.cfg.MaxBulk)}
	s.receive = func(fd uintptr) bool {
		if s.lent == nil {
			s.borrow()
		}
		for {
			s.got, s.readErr = syscall.Read(int(fd), s.in.more())
			switch {
			case s.readErr == syscall.EINTR:
			case s.readErr == syscall.EAGAIN:
				s.giveBack()
				return false // called again once there is something to read
			default:
				return true
			}
		}
	}
	return s
}

func (s *session) borrow() {
	s.lent = readBuffers.Get().(*[]byte)
	s.in.lend(*s.lent)
}

// giveBack lends the buffer of an idle framer to others. One that has grown is left to the garbage collector.
func (s *session) giveBack() {
	if s.lent == nil || !s.in.idle() {
		return
	}
	b := s.in.release()
	if cap(b) <= 2*readChunk {
		*s.lent = b[:0]
		readBuffers.Put(s.lent)
	}
	s.lent, s.command = nil, nil
	s.batch.shrink()
	if cap(s.scratch) > readChunk {
		s.scratch = nil
	}
}

// serve reads commands until the client is gone, has said goodbye or has sent nonsense, then lets the replies that
// are still owed arrive, and closes.
func (s *session) serve() {
	if err := s.handshake(); err != nil {
		s.kill(err)
		return
	}
	s.srv.upstream.welcome()
	s.enter(laneKey{})
	err := s.commands()
	s.submit()
	if s.pinned() && s.lane.private.patient.Load() {
		// A BLPOP whose client is gone must not take what is pushed next.
		s.unpin(false)
	}
	s.settle()
	var bad protocolError
	if errors.As(err, &bad) {
		s.deliver(redcon.AppendError(nil, "ERR "+bad.Error()), 0)
	}
	s.flush(farewell)
	if s.pinned() {
		s.unpin(s.answered.Load() == s.owed && s.clean())
	}
	s.srv.upstream.release(s.lanes)
	s.logEnd(err)
}

// logEnd logs why the session ended: its commands did with err.
func (s *session) logEnd(err error) {
	if s.ended() == errUnread {
		addr, _ := s.addrs()
		s.srv.rare.Warn().Err(errUnread).Str("client", addr).Int("output_limit", s.limit).Msg("client closed")
		return
	}
	if e := s.srv.log.Debug(); e.Enabled() {
		addr, _ := s.addrs()
		e.Err(err).Str("client", addr).Int64("id", s.id).Msg("client gone")
	}
}

func (s *session) commands() error {
	for {
		if err := s.standBy(); err != nil {
			return err
		}
		req, err := s.in.next(!s.key.authed && s.srv.upstream.noAuth.Load())
		switch {
		case err == nil:
			s.dispatch(req)
			if s.quit || s.gone.Load() {
				return nil // what else was read is not run: it may be the rest of a transaction
			}
		case err == errShort:
			s.submit()
			if err := s.pause(); err != nil {
				return err
			}
			s.park()
			err := s.fetch()
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

// pause leaves the client unread while it is owed too much.
func (s *session) pause() error {
	// Half of the limit at which the client is closed: one that reads, if slowly, stays, and one that writes all its
	// commands before it reads the first reply is not left waiting for ever, as long as the replies are fewer than that.
	unread := int64(s.srv.cfg.OutputLimit / 2)
	if s.owed-s.answered.Load() <= maxOwed && s.pending.Load() <= unread {
		return nil
	}
	if !s.await(func() bool { return s.owed-s.answered.Load() <= maxOwed/2 && s.pending.Load() <= unread/2 }) {
		return net.ErrClosed
	}
	return nil
}

// fetch reads what the client has sent, waiting for it without a buffer.
func (s *session) fetch() error {
	if c, ok := s.conn.(*secured); ok {
		return s.fetchSecured(c)
	}
	if err := s.raw.Read(s.receive); err != nil {
		return err
	}
	if s.readErr != nil {
		return s.readErr
	}
	if s.got == 0 {
		return io.EOF
	}
	s.in.read(s.got)
	return nil
}

// fetchSecured is fetch over TLS.
func (s *session) fetchSecured(c *secured) error {
	for {
		if s.lent == nil {
			s.borrow()
		}
		n, err := c.Read(s.in.more())
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

// enter moves the session, which is owed nothing, to the lanes for key.
func (s *session) enter(key laneKey) {
	old := s.lanes
	s.lanes = s.srv.upstream.acquire(key)
	s.key, s.lane = key, s.lanes.pick()
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
	return s.srv.maps.Load().Match(key)
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
	s.endRun()
	b := &s.batch
	if len(b.entries) == 0 {
		return
	}
	s.owed += b.replies
	if err := s.lane.submit(b.wire, b.entries); err != nil {
		s.arrive()
		fail(b.entries, err)
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
		s.await(func() bool { return s.answered.Load() >= s.owed && !s.open })
	}
}

// answer gives a reply of keyrow's own its place behind everything that was asked before.
func (s *session) answer(b []byte) {
	s.settle()
	s.deliver(b, 0)
}

// refuse answers with an error.
func (s *session) refuse(err error) {
	s.scratch = appendError(s.scratch[:0], err)
	s.answer(s.scratch)
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
	if cap(b.own) > readChunk {
		b.own = nil
	}
	if cap(b.entries) > 64 {
		b.entries = nil
	}
}

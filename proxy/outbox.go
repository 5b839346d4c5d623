package proxy

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// outbox puts a client's replies in order and writes them. Replies arrive from the lane's reader in the order of the
// commands, except that a reply may be owed until a row is loaded: it leaves a hole, and what comes behind it waits.
//
// Whoever delivers writes to the socket, without waiting. Only what the socket did not take is copied, and follows when
// the loop says that it takes more. Over TLS a writer goroutine brings everything, and lives until it is written.
type outbox struct {
	conn  net.Conn       // the client's connection, or
	point *endpoint      // the same on a loop
	limit int            // bytes that may wait for a client that does not read
	wg    sync.WaitGroup // the writer
	// died is called once the connection is closed, with mu held.
	died func()

	// Written with mu held.
	answered atomic.Int64 // replies that reached their place
	placed   atomic.Int64 // answered, and holes: replies whose place is known
	pending  atomic.Int64 // bytes in out, in held and in the writer's hands

	gone       atomic.Bool // dead is set
	subscriber atomic.Bool // Redis's limit for subscribers applies

	mu      sync.Mutex
	moved   sync.Cond // answered or pending changed and waiting was set
	waiting bool
	rest    *hole   // in held, what is still to come of a message that is half delivered
	muted   bool    // CLIENT REPLY OFF: replies are counted and dropped
	held    []*hole // holes and what stands behind them
	out     pile    // bytes for the writer
	writing bool    // out waits for the socket or is in the hands of the writer; nobody else may write
	dead    error
}

// hole is a reply that is still owed, or one that waits behind such a hole. Of the rest of a message it has what is there.
type hole struct {
	b      []byte
	filled bool
}

func (o *outbox) init(conn net.Conn, limit int) {
	o.conn, o.limit = conn, limit
	o.moved.L = &o.mu
}

// deliver takes b, in which replies replies end.
func (o *outbox) deliver(b []byte, replies int) {
	o.mu.Lock()
	if !o.muted {
		o.place(b)
	}
	o.placed.Add(int64(replies))
	o.account(replies)
	o.mu.Unlock()
}

// maxUnreadMessages is how many bytes may wait for a subscriber that does not read: what Redis's
// client-output-buffer-limit has for pubsub.
const maxUnreadMessages = 32 << 20

// push takes what answers no command, a message for one; mu is held. open says that b ends within it: what else is
// delivered, as the reply of another lane, waits until the rest of it is there.
func (o *outbox) push(b []byte, open bool) {
	if o.subscriber.Load() && o.pending.Load()+int64(len(b)) > maxUnreadMessages {
		o.end(errUnread)
	}
	switch {
	case o.rest == nil:
		o.place(b)
	case len(o.held) > 0 && o.held[0] == o.rest:
		o.write(b)
	case o.room(len(b)):
		o.rest.b = append(o.rest.b, b...)
		o.pending.Add(int64(len(b)))
	}
	switch {
	case open && o.rest == nil && o.dead == nil:
		o.rest = &hole{}
		o.held = append(o.held, o.rest)
	case !open && o.rest != nil:
		o.rest.filled, o.rest = true, nil
		o.release()
	}
	o.account(0)
}

// place puts b behind what was delivered before; mu is held.
func (o *outbox) place(b []byte) {
	n := len(o.held)
	if n == 0 {
		o.write(b)
		return
	}
	if !o.room(len(b)) {
		return
	}
	if last := o.held[n-1]; last.filled {
		last.b = append(last.b, b...)
	} else {
		o.held = append(o.held, &hole{b: append([]byte(nil), b...), filled: true})
	}
	o.pending.Add(int64(len(b)))
}

// hold leaves a hole for a reply, or for as many as replies, that fill will bring.
func (o *outbox) hold(replies int) *hole {
	h := &hole{}
	o.mu.Lock()
	o.held = append(o.held, h)
	o.placed.Add(int64(replies))
	o.account(0) // a session may wait for what comes with the reply, and not for the reply itself: see run.over
	o.mu.Unlock()
	return h
}

// fill brings the reply for h, or as many as replies, and lets go what waited behind it.
func (o *outbox) fill(h *hole, b []byte, replies int) {
	o.mu.Lock()
	if o.muted {
		b = nil
	}
	h.b, h.filled = b, true
	if o.room(len(b)) {
		o.pending.Add(int64(len(b)))
	}
	o.release()
	o.account(replies)
	o.mu.Unlock()
}

// release writes what has nothing before it any more; mu is held.
func (o *outbox) release() {
	for whole := true; whole && len(o.held) > 0; {
		next := o.held[0]
		if whole = next.filled; whole {
			o.held = o.held[1:]
		}
		b := next.b
		next.b = nil
		o.pending.Add(-int64(len(b)))
		o.write(b)
	}
}

func (o *outbox) account(replies int) {
	o.answered.Add(int64(replies))
	if o.waiting {
		o.moved.Signal()
	}
}

var errUnread = errors.New("more than output_limit of its replies were left unread")

var errLeftUnread = errors.New("its last replies were left unread")

// room closes a client that lets more than limit bytes pile up; mu is held.
func (o *outbox) room(n int) bool {
	if o.dead == nil && o.pending.Load()+int64(n) > int64(o.limit) {
		o.end(errUnread)
	}
	return o.dead == nil
}

// write sends b now or leaves it for later; mu is held.
func (o *outbox) write(b []byte) {
	if o.dead != nil || len(b) == 0 {
		return
	}
	if !o.writing && o.point != nil {
		n, err := o.point.write(b)
		if err != nil {
			o.end(err)
			return
		}
		b = b[n:]
	}
	if len(b) == 0 || !o.room(len(b)) {
		return
	}
	o.out.add(b, minPiece)
	o.pending.Add(int64(len(b)))
	if o.writing {
		return
	}
	o.writing = true
	if o.point == nil {
		o.wg.Add(1)
		go o.drain()
		return
	}
	// The loop may have seen that the socket takes more, and passed over it, before pending said that something waits.
	o.writeOn()
}

// resume writes on: the loop has seen that the socket takes more.
func (o *outbox) resume() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing && o.dead == nil {
		o.writeOn()
	}
}

// writeOn writes what waits, as far as the socket takes it; mu is held.
func (o *outbox) writeOn() {
	for b := o.out.first(); len(b) > 0; b = o.out.first() {
		n, err := o.point.write(b)
		if err != nil {
			o.end(err)
			return
		}
		o.pending.Add(-int64(n))
		o.out.drop(n)
		if n < len(b) {
			break
		}
	}
	o.writing = o.out.size > 0
	o.account(0)
}

// drain writes what is waiting and ends.
func (o *outbox) drain() {
	defer o.wg.Done()
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.out.size > 0 && o.dead == nil {
		piece, b := o.out.take()
		o.mu.Unlock()
		_, err := o.conn.Write(b)
		o.mu.Lock()
		o.pending.Add(-int64(len(b)))
		freePiece(piece)
		if err != nil {
			o.end(err)
		}
		o.account(0)
	}
	o.writing = false
	o.out.clear()
	o.account(0)
}

// mute drops replies from now on, or no longer. The session is owed nothing.
func (o *outbox) mute(on bool) {
	o.mu.Lock()
	o.muted = on
	o.mu.Unlock()
}

// kill closes the connection at once; replies that still arrive are dropped.
func (o *outbox) kill(err error) {
	o.mu.Lock()
	o.end(err)
	o.mu.Unlock()
}

// ended is why the connection was closed.
func (o *outbox) ended() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dead
}

// end is kill with mu held.
func (o *outbox) end(err error) {
	if o.dead != nil {
		return
	}
	o.dead = err
	o.gone.Store(true)
	o.out.clear()
	o.held = nil
	o.pending.Store(0)
	if o.point != nil {
		o.point.close()
		o.writing = false
	} else {
		_ = o.conn.Close()
	}
	o.died()
	if o.waiting {
		o.moved.Signal()
	}
}

package proxy

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"keyrow/mapping"
)

// Upstream says where Redis is and how sessions share connections to it.
type Upstream struct {
	Addr    string        // host:port or unix:///path, for errors and the log
	DB      int           // the database in which keys are mapped
	Lanes   int           // connections per identity and database; 0: one for each loop
	Timeout time.Duration // of each reply
	// Dial opens a connection. It ends by itself if it takes long.
	Dial func(context.Context) (net.Conn, error)
}

// identity is who a session is to Redis. The zero identity has not authenticated. keyrow's own credentials are
// never one.
type identity struct{ user, pass string }

// auth is the command that takes on the identity. AUTH with one argument differs in its errors, so it is kept apart.
func (id identity) auth() [][]byte {
	if id.user == "" {
		return [][]byte{[]byte("AUTH"), []byte(id.pass)}
	}
	return [][]byte{[]byte("AUTH"), []byte(id.user), []byte(id.pass)}
}

type laneKey struct {
	identity
	authed bool
	db     int
	proto  int8 // 3 for RESP3, else RESP2
}

// laneSet is the lanes that sessions of one identity and database share.
type laneSet struct {
	key     laneKey
	lanes   []*lane
	next    atomic.Uint32
	multi   atomic.Bool            // MULTI is allowed
	noMSET  atomic.Bool            // MSET is not
	noMulti atomic.Bool            // MULTI was refused, so reads do without
	tells   atomic.Bool            // Redis tells which primary it is
	rights  atomic.Pointer[rights] // as learned last; nil: nothing is known
	noAuth  bool                   // what upstream.noAuth was when the set was made
	closed  chan struct{}

	// Guarded by upstream.mu.
	spare    []*lane // private lanes that nobody uses
	ended    bool
	sessions int
	since    time.Time // when sessions became 0
}

// pick chooses the lane of a new session: one of its own loop's, if it is on one.
func (set *laneSet) pick(on *loop) *lane {
	next := int(set.next.Add(1))
	for i := range set.lanes {
		if l := set.lanes[(next+i)%len(set.lanes)]; on == nil || l.loop == on {
			return l
		}
	}
	return set.lanes[next%len(set.lanes)]
}

// loopOf is the loop for a lane that s alone uses.
func (u *upstream) loopOf(s *session) *loop {
	switch {
	case s.point != nil:
		return s.point.loop
	case len(u.loops) > 0:
		return u.loops[int(s.id)%len(u.loops)]
	}
	return nil
}

// laneIdle is how long a lane set without sessions is kept.
const laneIdle = time.Minute

// upstream owns the lanes to one Redis.
type upstream struct {
	cfg Upstream
	log zerolog.Logger
	wg  sync.WaitGroup
	// loops are the server's; lanes are spread over them.
	loops []*loop
	stats *Stats
	timed func(upstream, own time.Duration)
	// durable reports whether there are mappings with durability = "replicas".
	durable func() bool
	// dismissed closes the sessions of a lane set.
	dismissed func(*laneSet)
	// bypassable are the mappings that are read without Redis if need be.
	bypassable func() []*mapping.Mapping
	// probe lets one session at a time find out whether Redis wants authentication of new clients.
	probe  sync.Mutex
	probed atomic.Int64 // when that was done, Unix nanoseconds
	// away says that Redis could not be reached when it was last tried.
	away atomic.Bool
	// noAuth remembers whether Redis wanted authentication when a session's lane last connected without any.
	noAuth atomic.Bool

	mu   sync.Mutex
	sets map[laneKey]*laneSet
	// retired are lane sets that get no further sessions.
	retired []*laneSet
	owned   map[*lane]struct{} // every private lane, spare ones included
	closed  bool
}

func newUpstream(cfg Upstream, log zerolog.Logger) *upstream {
	return &upstream{cfg: cfg, log: log, sets: map[laneKey]*laneSet{}, owned: map[*lane]struct{}{}}
}

// unreached is called with why no connection could be made, and reached when one was made: the log tells when that
// changes. That Redis refuses a user is for that user to know.
func (u *upstream) unreached(err error) {
	var refused redisError
	if !errors.As(err, &refused) && !u.away.Swap(true) {
		u.log.Warn().Err(err).Str("redis", u.cfg.Addr).Msg("redis cannot be reached; commands fail at once until it can")
	}
}

func (u *upstream) reached() {
	if u.away.Swap(false) {
		u.log.Info().Str("redis", u.cfg.Addr).Msg("redis is reached again")
	}
}

// lanes is how many lanes a set has.
func (u *upstream) lanes() int {
	if u.cfg.Lanes > 0 {
		return u.cfg.Lanes
	}
	return max(1, len(u.loops))
}

// acquire returns the lanes for key, connecting them if they are new; release gives them back.
func (u *upstream) acquire(key laneKey) *laneSet {
	u.mu.Lock()
	defer u.mu.Unlock()
	set := u.sets[key]
	if set == nil {
		set = &laneSet{key: key, closed: make(chan struct{}), noAuth: u.noAuth.Load()}
		for i := range u.lanes() {
			l := &lane{up: u, set: set}
			if len(u.loops) > 0 {
				l.loop = u.loops[i%len(u.loops)]
			}
			l.work.L, l.room.L = &l.mu, &l.mu
			set.lanes = append(set.lanes, l)
			if u.closed { // a session that was cut off, which nobody waits for here
				l.state = laneClosed
				continue
			}
			u.wg.Add(1)
			go l.serve()
		}
		if !u.closed {
			u.sets[key] = set
		}
	}
	set.sessions++
	return set
}

// probeEvery is how long a password that Redis was given may go unnoticed by those who come without one.
const probeEvery = time.Second

// known reports whether welcome has been called of late.
func (u *upstream) known() bool { return time.Now().UnixNano()-u.probed.Load() < int64(probeEvery) }

// welcome finds out, at most every probeEvery, whether Redis still lets in who does not authenticate. The lanes that
// such sessions share were let in when they connected, which says nothing of now; if that has changed, they are left to
// those who are on them.
func (u *upstream) welcome() {
	u.probe.Lock()
	defer u.probe.Unlock()
	if u.known() {
		return
	}
	conn, err := u.connect(laneKey{})
	u.probed.Store(time.Now().UnixNano()) // failed or not: clients must not wait one after the other for a Redis that does not answer
	if err != nil {
		return // the lanes will say so
	}
	_ = conn.Close()
	now := u.noAuth.Load()
	u.mu.Lock()
	defer u.mu.Unlock()
	for key, set := range u.sets {
		if !key.authed && set.noAuth != now {
			delete(u.sets, key)
			u.retired = append(u.retired, set)
		}
	}
}

// dismiss takes a lane set out of use for sessions to come if err is Redis's refusal of its user, and reports whether it
// is: who logs in after that gets new lanes, which have not been refused. Those who use the set are closed, as Redis
// closes the connections of a user that is deleted.
func (u *upstream) dismiss(set *laneSet, err error) bool {
	var refused redisError
	if !set.key.authed || !errors.As(err, &refused) || !strings.HasPrefix(string(refused), "WRONGPASS") {
		return false
	}
	u.mu.Lock()
	if u.sets[set.key] == set {
		delete(u.sets, set.key)
		u.retired = append(u.retired, set)
	}
	u.mu.Unlock()
	u.dismissed(set)
	return true
}

// stands reports whether Redis lets key in: one of its lanes is connected.
func (u *upstream) stands(key laneKey) bool {
	u.mu.Lock()
	set := u.sets[key]
	u.mu.Unlock()
	if set == nil {
		return false
	}
	for _, l := range set.lanes {
		l.mu.Lock()
		up := l.state == laneUp
		l.mu.Unlock()
		if up {
			return true
		}
	}
	return false
}

func (u *upstream) release(set *laneSet) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if set.sessions--; set.sessions == 0 {
		set.since = time.Now()
	}
}

// sweep closes lane sets that have been without sessions for laneIdle, and spare private lanes; u.mu is held.
func (u *upstream) sweep() {
	for key, set := range u.sets {
		// Half of the spare lanes go each time: after a burst they are gone soon, and a steady load has others again.
		for range (len(set.spare) + 1) / 2 {
			set.spare[0].close()
			set.spare = append(set.spare[:0], set.spare[1:]...)
		}
		if set.sessions == 0 && time.Since(set.since) > laneIdle {
			delete(u.sets, key)
			set.close()
		}
	}
	u.retired = slices.DeleteFunc(u.retired, func(set *laneSet) bool {
		if set.sessions == 0 {
			set.close()
		}
		return set.sessions == 0
	})
}

// close ends the lanes of the set and the spare private ones; upstream.mu is held.
func (set *laneSet) close() {
	set.ended = true
	close(set.closed)
	for _, l := range set.lanes {
		l.close()
	}
	for _, l := range set.spare {
		l.close()
	}
	set.spare = nil
}

// tend closes idle lane sets, and learns what the users of the others may read, now and then until done is closed.
func (u *upstream) tend(done <-chan struct{}) {
	tick := time.NewTicker(laneIdle / 4)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			u.mu.Lock()
			u.sweep()
			u.mu.Unlock()
			u.relearn(done)
		}
	}
}

// close ends all lanes and waits for them.
func (u *upstream) close() {
	u.mu.Lock()
	u.closed = true
	for key, set := range u.sets {
		delete(u.sets, key)
		set.close()
	}
	for _, set := range u.retired {
		set.close()
	}
	u.retired = nil
	for l := range u.owned {
		l.close()
	}
	u.mu.Unlock()
	u.wg.Wait()
}

// connect opens a connection with the identity and database of key. A refusal by Redis is a redisError.
func (u *upstream) connect(key laneKey) (net.Conn, error) {
	conn, err := u.cfg.Dial(context.Background())
	if err != nil {
		return nil, err
	}
	if err := u.greet(conn, key); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// greet makes a new connection what key says.
func (u *upstream) greet(conn net.Conn, key laneKey) error {
	if key.authed {
		if _, err := u.demand(conn, key.auth()...); err != nil {
			return err
		}
	} else {
		reply, err := u.ask(conn, []byte("PING"))
		if err != nil {
			return err
		}
		// Any other reply, LOADING for one, says nothing of authentication; clients get to see it themselves.
		if needed := bytes.HasPrefix(reply, []byte("-NOAUTH")); needed || reply[0] == '+' {
			u.noAuth.Store(needed)
		}
	}
	if key.proto == 3 {
		if _, err := u.demand(conn, []byte("HELLO"), []byte("3")); err != nil {
			return err
		}
	}
	if key.db != 0 {
		if _, err := u.demand(conn, []byte("SELECT"), strconv.AppendInt(nil, int64(key.db), 10)); err != nil {
			return err
		}
	}
	return nil
}

// demand is ask for a command that has to succeed; an error reply is a redisError.
func (u *upstream) demand(conn net.Conn, args ...[]byte) ([]byte, error) {
	reply, err := u.ask(conn, args...)
	if err == nil && reply[0] == '-' {
		err = redisError(bytes.TrimRight(reply[1:], "\r\n"))
	}
	return reply, err
}

// redisError is an error reply of Redis, without the minus sign.
type redisError string

func (e redisError) Error() string { return string(e) }

// ask sends one command on a connection that nobody shares and returns the reply.
func (u *upstream) ask(conn net.Conn, args ...[]byte) ([]byte, error) {
	_ = conn.SetDeadline(time.Now().Add(min(u.cfg.Timeout, 5*time.Second)))
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	if _, err := conn.Write(appendCommand(nil, args...)); err != nil {
		return nil, err
	}
	var framer replyFramer
	buf := make([]byte, 0, 1024)
	for fed := 0; ; {
		// Redis sends nothing that was not asked for, so what is read ends with the reply.
		n, err := conn.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return nil, err
		}
		buf = buf[:len(buf)+n]
		n, done, err := framer.feed(buf[fed:])
		if done || err != nil {
			return buf, err
		}
		fed += n
		buf = slices.Grow(buf, 512)
	}
}

// unanswered is the error of try for a command that was sent, so that it is unknown whether it was run.
type unanswered struct{ error }

func (e unanswered) Unwrap() error { return e.error }

// try runs a command on a connection of its own under key and returns the reply, or Redis's refusal of key.
func (u *upstream) try(key laneKey, args ...[]byte) ([]byte, error) {
	conn, err := u.connect(key)
	if err != nil {
		var refused redisError
		if errors.As(err, &refused) {
			return []byte("-" + string(refused) + "\r\n"), nil
		}
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	reply, err := u.ask(conn, args...)
	if err != nil {
		return nil, unanswered{err}
	}
	return reply, nil
}

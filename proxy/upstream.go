package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Upstream says where Redis is and how sessions share connections to it.
type Upstream struct {
	Addr    string        // host:port or unix:///path
	DB      int           // the database in which keys are mapped
	Lanes   int           // connections per identity and database, at least 1
	Timeout time.Duration // for connecting, and for each reply
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
}

// laneSet is the lanes that sessions of one identity and database share.
type laneSet struct {
	key    laneKey
	lanes  []*lane
	next   atomic.Uint32
	closed chan struct{}

	// Guarded by upstream.mu.
	sessions int
	since    time.Time // when sessions became 0
}

// pick chooses the lane of a new session.
func (set *laneSet) pick() *lane {
	return set.lanes[int(set.next.Add(1))%len(set.lanes)]
}

// laneIdle is how long a lane set without sessions is kept.
const laneIdle = time.Minute

// upstream owns the lanes to one Redis.
type upstream struct {
	cfg Upstream
	log zerolog.Logger
	wg  sync.WaitGroup
	// noAuth remembers whether Redis wanted authentication when a session's lane last connected without any.
	noAuth atomic.Bool

	mu     sync.Mutex
	sets   map[laneKey]*laneSet
	closed bool
}

func newUpstream(cfg Upstream, log zerolog.Logger) *upstream {
	return &upstream{cfg: cfg, log: log, sets: map[laneKey]*laneSet{}}
}

// acquire returns the lanes for key, connecting them if they are new; release gives them back.
func (u *upstream) acquire(key laneKey) *laneSet {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sweep()
	set := u.sets[key]
	if set == nil {
		set = &laneSet{key: key, closed: make(chan struct{})}
		for range u.cfg.Lanes {
			l := &lane{up: u, set: set}
			l.work.L, l.room.L = &l.mu, &l.mu
			set.lanes = append(set.lanes, l)
			u.wg.Add(1)
			go l.serve()
		}
		u.sets[key] = set
	}
	set.sessions++
	return set
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

// sweep closes lane sets that have been without sessions for laneIdle; u.mu is held.
func (u *upstream) sweep() {
	for key, set := range u.sets {
		if set.sessions == 0 && time.Since(set.since) > laneIdle {
			delete(u.sets, key)
			set.close()
		}
	}
}

func (set *laneSet) close() {
	close(set.closed)
	for _, l := range set.lanes {
		l.close()
	}
}

// tend closes idle lane sets now and then until done is closed.
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
		}
	}
}

// close ends all lanes and waits for them.
func (u *upstream) close() {
	u.mu.Lock()
	for key, set := range u.sets {
		delete(u.sets, key)
		set.close()
	}
	u.mu.Unlock()
	u.wg.Wait()
}

// connect opens a connection with the identity and database of key. A refusal by Redis is a redisError.
func (u *upstream) connect(key laneKey) (net.Conn, error) {
	conn, err := u.dial()
	if err != nil {
		return nil, err
	}
	if err := u.greet(conn, key); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

func (u *upstream) dial() (net.Conn, error) {
	network, addr := "tcp", u.cfg.Addr
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		network, addr = "unix", path
	}
	return net.DialTimeout(network, addr, min(u.cfg.Timeout, 5*time.Second))
}

func (u *upstream) greet(conn net.Conn, key laneKey) error {
	if key.authed {
		if reply, err := u.ask(conn, key.auth()...); err != nil {
			return err
		} else if reply[0] == '-' {
			return redisError(reply[1:])
		}
	} else {
		reply, err := u.ask(conn, []byte("PING"))
		if err != nil {
			return err
		}
		// Any other reply, LOADING for one, says nothing of authentication; clients get to see it themselves.
		if needed := strings.HasPrefix(reply, "-NOAUTH"); needed || reply[0] == '+' {
			u.noAuth.Store(needed)
		}
	}
	if key.db != 0 {
		if reply, err := u.ask(conn, []byte("SELECT"), strconv.AppendInt(nil, int64(key.db), 10)); err != nil {
			return err
		} else if reply[0] == '-' && !strings.HasPrefix(reply, "-NOAUTH") {
			return redisError(reply[1:])
		}
	}
	return nil
}

// redisError is an error reply of Redis, without the minus sign.
type redisError string

func (e redisError) Error() string { return string(e) }

// ask sends one command on a connection nobody shares and returns the line that Redis answers.
func (u *upstream) ask(conn net.Conn, args ...[]byte) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(min(u.cfg.Timeout, 5*time.Second)))
	defer func() { _ = conn.SetDeadline(time.Time{}) }()
	if _, err := conn.Write(appendCommand(nil, args...)); err != nil {
		return "", err
	}
	// Redis sends nothing that was not asked for, so the reader holds back no byte of a later reply.
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return "", err
	}
	if len(line) < 3 {
		return "", fmt.Errorf("redis sent a malformed reply %q", line)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// try runs the commands on a connection of its own under key and returns the first error reply, or the last reply.
func (u *upstream) try(key laneKey, args ...[]byte) (string, error) {
	conn, err := u.connect(key)
	if err != nil {
		var refused redisError
		if errors.As(err, &refused) {
			return "-" + string(refused), nil
		}
		return "", err
	}
	defer func() { _ = conn.Close() }()
	return u.ask(conn, args...)
}

package proxy

import (
	"crypto/rand"
	"errors"
	"net"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// While Redis cannot be reached, GET, MGET and HGETALL of mappings with on_redis_down = "mysql" are answered from MySQL.
//
// Redis is who says what a client may read, so only those get an answer of whom that was asked while Redis was there. A
// client that logs in is let in by Redis alone, so nobody logs in meanwhile. And for each lane set, which is one user and
// one protocol, keyrow finds out when a lane connects, and every tend after that, which of these commands Redis would
// let the user run on the keys of each mapping.

// rights are what the user of a lane set may read, by the patterns of mappings. They never change.
type rights map[string]readCommand

// readCommand is a set of commands.
type readCommand byte

const (
	mayGet readCommand = 1 << iota
	mayMget
	mayHgetall
)

// bypassing are the commands that MySQL can answer for a kind.
func bypassing(k mapping.Kind) map[string]readCommand {
	if k == mapping.KindHash {
		return map[string]readCommand{"HGETALL": mayHgetall}
	}
	return map[string]readCommand{"GET": mayGet, "MGET": mayMget}
}

// learn finds out, on a connection that is nobody else's yet, what the user of set may read.
//
// Redis checks rights when a command is queued, so nothing is run. A user's rights can be for some keys of a mapping
// only, as ~user:1*. So the key that is asked for has something in the place of each variable that no pattern but one
// that takes anything matches, neither at its beginning nor at its end.
func (u *upstream) learn(conn net.Conn, set *laneSet) error {
	maps := u.bypassable()
	if len(maps) == 0 || set.key.db != u.cfg.DB {
		return nil
	}
	anything := []byte("\x00" + rand.Text() + "\x00")
	may := rights{}
	if err := u.lookUp(conn, set, maps, anything, may); err != nil {
		return err
	}
	set.rights.Store(&may)
	return nil
}

func (u *upstream) lookUp(conn net.Conn, set *laneSet, maps []*mapping.Mapping, anything []byte, may rights) error {
	reply, err := u.ask(conn, []byte("MULTI"))
	if err != nil || reply[0] == '-' {
		return err
	}
	set.multi.Store(true) // a read that is to be answered without Redis must not find it out
	for _, m := range maps {
		for name, command := range bypassing(m.Kind) {
			reply, err := u.ask(conn, []byte(name), m.Example(anything))
			if err != nil {
				return err
			}
			if reply[0] == '+' {
				may[m.Pattern] |= command
			}
		}
	}
	_, err = u.ask(conn, []byte("DISCARD"))
	return err
}

// relearn has another look at what users may read, until done is closed.
func (u *upstream) relearn(done <-chan struct{}) {
	if len(u.bypassable()) == 0 {
		return
	}
	u.mu.Lock()
	var sets []*laneSet
	for _, set := range u.sets {
		if set.sessions > 0 && set.key.db == u.cfg.DB {
			sets = append(sets, set)
		}
	}
	u.mu.Unlock()
	for _, set := range sets {
		select {
		case <-done:
			return
		default:
		}
		if !u.stands(set.key) {
			continue
		}
		conn, err := u.connect(set.key)
		var refused redisError
		if errors.As(err, &refused) {
			set.rights.Store(nil)
		} else if err == nil {
			_ = u.learn(conn, set) // if that fails, Redis has gone and the rights stay
			_ = conn.Close()
		}
	}
}

// bypassable are the mappings that MySQL may answer for.
func (s *Server) bypassable() (maps []*mapping.Mapping) {
	set := s.maps.Load()
	for _, list := range [][]*mapping.Mapping{set.All(), set.Queries()} {
		for _, m := range list {
			if m.Bypass {
				maps = append(maps, m)
			}
		}
	}
	return maps
}

// bypassFrom is the lane set whose rights count if Redis turns out not to be there for a read of m; nil: none do.
func (s *session) bypassFrom(m *mapping.Mapping) *laneSet {
	if m.Bypass && !s.pinned() {
		return s.lanes
	}
	return nil
}

// may reports whether MySQL may answer a command that was not sent for err.
func (set *laneSet) may(m *mapping.Mapping, command readCommand, err error) bool {
	if set == nil || !unreachable(err) {
		return false
	}
	may := set.rights.Load()
	return may != nil && (*may)[m.Pattern]&command != 0
}

// unreachable reports whether a command was not sent because Redis cannot be reached. That it does not let the client in
// is another matter.
func unreachable(err error) bool {
	var unsent unsentError
	var refused redisError
	return errors.As(err, &unsent) && !errors.As(err, &refused) &&
		!errors.Is(err, errDismissed) && !errors.Is(err, errClosed) && !errors.Is(err, errKilled)
}

// bypass is the GET of a key, from MySQL.
func (r *read) bypass() {
	r.hole, r.miss = r.s.hold(1), clock()
	r.s.srv.loader.Bypass(r.m, r.key, func(values [][]byte, err error) { r.loaded(text(values), wayBypass, err) })
}

// text is the image of a kind that is a text.
func text(values [][]byte) []byte {
	if len(values) == 0 {
		return nil
	}
	return values[0]
}

// bypass is an MGET, from MySQL.
func (r *multiRead) bypass() {
	r.elems = make([][]byte, len(r.keys))
	r.hole, r.left, r.miss = r.s.hold(1), len(r.keys), clock()
	for _, k := range r.keys {
		r.s.srv.loader.Bypass(k.m, k.key, func(values [][]byte, err error) { r.loaded(k.at, text(values), wayBypass, err) })
	}
}

// may reports whether MySQL may answer all of an MGET that was not sent for err.
func (r *multiRead) may(err error) bool {
	if len(r.keys) < r.asked {
		return false
	}
	for _, k := range r.keys {
		if !k.m.Bypass || !r.set.may(k.m, mayMget, err) {
			return false
		}
	}
	return true
}

// bypass is an HGETALL, from MySQL.
func (v *view) bypass() {
	v.hold()
	v.how = wayBypass
	v.s.srv.loader.Bypass(v.keys[0].m, v.key(0), func(values [][]byte, err error) { v.end(v.fields(values, err)) })
}

// fields is the reply to an HGETALL.
func (v *view) fields(values [][]byte, err error) []byte {
	if err != nil {
		return appendError(nil, err)
	}
	var b []byte
	if v.resp3 {
		b = redcon.AppendInt(nil, int64(len(values)/2))
		b[0] = '%'
	} else {
		b = redcon.AppendArray(nil, len(values))
	}
	for _, value := range values {
		b = redcon.AppendBulk(b, value)
	}
	return b
}

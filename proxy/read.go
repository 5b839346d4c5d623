package proxy

import (
	"sync"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// get serves GET. The command goes to Redis as it is; a reply that is not nil goes to the client as it is. A nil
// for a mapped key leaves a hole in the client's replies, which the loaded row fills.
func (s *session) get(c *command, req request) {
	if len(req.args) == 2 {
		if m := s.mapped(req.args[1]); m != nil && m.Kind.Text() && m.Names(req.args[1]) {
			s.reads.Add(1)
			s.forwardFor(req, newRead(s, m, req.args[1]), true)
			return
		}
	}
	s.pass(c, req)
}

// read is a GET of a mapped key that Redis has not answered yet.
type read struct {
	s    *session
	m    *mapping.Mapping
	null string // of the session's protocol
	key  []byte
	set  *laneSet // may answer without Redis; nil: nobody may
	hole *hole
}

var reads = sync.Pool{New: func() any { return new(read) }}

func newRead(s *session, m *mapping.Mapping, key []byte) *read {
	r := reads.Get().(*read)
	r.s, r.m, r.null, r.key, r.set = s, m, s.null(), append(r.key[:0], key...), s.bypassFrom(m)
	return r
}

func (r *read) reply(_ *lane, b []byte) {
	if b == nil {
		r.s.srv.hit(r.m, r.key)
		r.end()
		return
	}
	r.m.Counts.Misses.Add(1)
	r.hole = r.s.hold()
	r.s.srv.loader.Load(r.m, r.key, r.loaded)
}

// hit counts a mapped read that Redis could answer.
func (s *Server) hit(m *mapping.Mapping, key []byte) {
	m.Counts.Hits.Add(1)
	if m.EarlyRefresh > 0 {
		s.loader.Hit(m, key)
	}
}

func (r *read) lost(err error) {
	if r.set.may(r.m, mayGet, err) {
		r.bypass()
		return
	}
	s := r.s
	r.end()
	s.deliverErrors(err, 1)
}

func (r *read) loaded(image []byte, err error) {
	s, hole, null := r.s, r.hole, r.null
	r.end()
	s.fill(hole, appendImage(nil, image, err, null), 1)
	s.rested()
}

// end counts the read as answered. It comes before the reply, so that a write that waits for it is woken by it.
func (r *read) end() {
	r.s.reads.Add(-1)
	r.s, r.m, r.set, r.hole = nil, nil, nil, nil
	if cap(r.key) <= 1024 {
		reads.Put(r)
	}
}

func appendImage(b, image []byte, err error, null string) []byte {
	switch {
	case err != nil:
		return appendError(b, err)
	case image == nil:
		return append(b, null...)
	}
	return redcon.AppendBulk(b, image)
}

// null is the null of the session's protocol.
func (s *session) null() string {
	if s.key.proto == 3 {
		return "_\r\n"
	}
	return "$-1\r\n"
}

// mget serves MGET: one MGET upstream; the mapped keys that it finds missing are loaded together and put into their
// places.
func (s *session) mget(c *command, req request) {
	var r *multiRead
	for i, key := range req.args[1:] {
		if m := s.mapped(key); m != nil && m.Kind.Text() && m.Names(key) {
			if r == nil {
				r = &multiRead{s: s, null: s.null(), asked: len(req.args) - 1, set: s.bypassFrom(m)}
			}
			r.keys = append(r.keys, mappedKey{m: m, key: append([]byte(nil), key...), at: i})
		}
	}
	if err := s.objection(c, req.args); err != nil {
		s.refuseKnown(err)
		return
	}
	if r == nil {
		s.forward(req)
		return
	}
	s.reads.Add(1)
	s.forwardFor(req, r, false)
}

type mappedKey struct {
	m   *mapping.Mapping
	key []byte
	at  int // place among the keys of the command
}

// multiRead is an MGET with mapped keys in it.
type multiRead struct {
	s    *session
	null string // of the session's protocol
	keys []mappedKey
	set  *laneSet // as in read, of the first of keys
	hole *hole

	asked int // keys, mapped or not

	mu    sync.Mutex
	elems [][]byte // the reply's elements
	left  int      // loads under way
	err   error
}

func (r *multiRead) reply(_ *lane, b []byte) {
	elems, ok := elements(nil, b)
	missing := r.keys[:0]
	for _, k := range r.keys {
		switch {
		case !ok || k.at >= len(elems):
		case isNil(elems[k.at]):
			k.m.Counts.Misses.Add(1)
			missing = append(missing, k)
		default:
			r.s.srv.hit(k.m, k.key)
		}
	}
	if len(missing) == 0 {
		r.s.reads.Add(-1)
		r.s.deliver(b, 1)
		return
	}
	b = append([]byte(nil), b...) // the lane's buffer is used again before the rows are there
	r.elems, _ = elements(elems[:0], b)
	r.hole, r.left = r.s.hold(), len(missing)
	for _, k := range missing {
		r.s.srv.loader.Load(k.m, k.key, func(image []byte, err error) { r.loaded(k.at, image, err) })
	}
}

func (r *multiRead) lost(err error) {
	if r.may(err) {
		r.bypass()
		return
	}
	r.s.reads.Add(-1)
	r.s.deliverErrors(err, 1)
}

func (r *multiRead) loaded(at int, image []byte, err error) {
	r.mu.Lock()
	switch {
	case isWrongType(err): // MGET answers nil for a key that holds something else
	case err != nil:
		r.err = err
	default:
		r.elems[at] = appendImage(nil, image, nil, r.null)
	}
	r.left--
	last := r.left == 0
	r.mu.Unlock()
	if !last {
		return
	}
	var b []byte
	if r.err != nil {
		b = appendError(nil, r.err)
	} else {
		b = redcon.AppendArray(nil, len(r.elems))
		for _, e := range r.elems {
			b = append(b, e...)
		}
	}
	r.s.reads.Add(-1)
	r.s.fill(r.hole, b, 1)
	r.s.rested()
}

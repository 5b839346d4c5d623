package proxy

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// maxViews is how often a command is run again because what was loaded for it had left Redis before it was run.
const maxViews = 4

// view serves every command that only reads but GET and MGET: if a mapped key of it has no image in Redis, the image is
// loaded, and the command is run again. It is false, and nothing was done, if no key of the command names a row or a
// result.
func (s *session) view(c *command, req request) bool {
	if c.onlyKey && len(req.args) > 1 && s.mapped(req.args[1]) == nil {
		return false
	}
	var v *view
	plain := false // there are other keys too
	c.visit(req.args, func(key []byte) bool {
		m := s.mapped(key)
		if m == nil || !m.Names(key) {
			plain = true
			return true
		}
		if v == nil {
			v = views.Get().(*view)
		}
		v.add(m, key)
		return true
	})
	if v == nil {
		return false
	}
	if !s.admitted() {
		v.free()
		return true
	}
	v.s, v.atomic = s, s.atomic()
	if c.name == "HGETALL" {
		v.set, v.resp3 = s.bypassFrom(v.keys[0].m), s.key.proto == 3
	}
	v.ttl = ""
	if k := v.keys[0]; slices.Contains(ttls, c.name) && k.m.WriteBehind() {
		v.ttl = c.name
	}
	v.command = append(v.command[:0], req.raw...)
	v.since = s.arrived
	s.reads.Add(1)
	if c.telling && len(v.keys) == 1 {
		v.step = viewFirst
		s.forwardFor(req, v, false)
		return true
	}
	s.endRun()
	s.behindRun()
	s.batch.append(v.encode)
	s.expect(entry{s: s, op: v, n: v.replies}, 1)
	if plain {
		// The command may be run again later than now, and must not find what is written behind it.
		s.submit()
		s.await(func() bool { return s.reads.Load() == 0 })
	}
	return true
}

// view is one command that reads mapped keys and is not answered yet.
//
// Whether its reply can be believed is seen by EXISTS for each of its mapped keys, in one transaction with it:
//
//	MULTI
//	<the command>
//	EXISTS key …  one a key
//	EXEC
//
// Were they not in one, as with clients that may not use MULTI, this could be:
//
//	<the command>   nothing, the key is not there
//	                another client has it loaded
//	EXISTS key      1
//
// Most commands need it only when their reply says nothing, which is what they say of a key that is not there; so they
// are sent alone first.
type view struct {
	s       *session
	atomic  bool   // the session may use MULTI here
	command []byte // as it was sent
	keys    []viewedKey
	text    []byte   // of the keys
	set     *laneSet // an HGETALL that it may answer without Redis; nil: nobody may
	resp3   bool     // if set is not nil: the protocol of the session

	step    viewStep
	at      int // the reply that comes next
	replies int // how many come
	denied  bool
	ttl     string // the command, if what it tells of the key may not be what it was promised
	answer  []byte // the reply to the command
	hole    *hole  // nil: nothing was held yet
	lane    *lane
	tries   int

	mu   sync.Mutex
	left int // loads under way
	how  way
	err  error
	loading
}

type viewStep byte

const (
	viewChecked viewStep = iota // the command and an EXISTS for each key were sent
	viewFirst                   // the command was sent alone, to see whether its reply says something
	viewLast                    // the command was sent alone, and its reply is the answer
)

type viewedKey struct {
	m      *mapping.Mapping
	key    span // in text
	absent bool // MySQL has nothing for it, so Redis need not have it
	there  bool // EXISTS says that it is there
}

var views = sync.Pool{New: func() any { return new(view) }}

func (v *view) add(m *mapping.Mapping, key []byte) {
	from := len(v.text)
	v.text = append(v.text, key...)
	v.keys = append(v.keys, viewedKey{m: m, key: span{from, len(v.text)}})
}

func (v *view) key(i int) []byte { return v.text[v.keys[i].key.from:v.keys[i].key.to] }

// encode appends the command and the check.
func (v *view) encode(w []byte) []byte {
	v.step, v.at, v.denied = viewChecked, 0, false
	v.replies = 1 + len(v.keys)
	if v.atomic {
		v.replies += 2
		w = append(w, "*1\r\n$5\r\nMULTI\r\n"...)
	}
	w = append(w, v.command...)
	for i := range v.keys {
		w = append(w, "*2\r\n$6\r\nEXISTS\r\n"...)
		w = redcon.AppendBulk(w, v.key(i))
	}
	if v.atomic {
		w = append(w, "*1\r\n$4\r\nEXEC\r\n"...)
	}
	return w
}

func (v *view) reply(l *lane, b []byte) {
	v.lane = l
	switch v.step {
	case viewFirst:
		if v.ttl != "" && string(b) == endless {
			v.promised()
			return
		}
		if saysNothing(b) {
			v.hold()
			v.again(v.encode)
			return
		}
		v.s.srv.hit(v.keys[0].m, v.key(0))
		v.end(b)
		return
	case viewLast:
		v.end(b)
		return
	}
	at := v.at
	v.at++
	if v.atomic {
		at--
	}
	switch {
	case at < 0:
		if b[0] == '-' { // then each of the commands is run by itself
			l.set.multi.Store(false)
		}
	case at == 0:
		v.answer = append(v.answer[:0], b...)
	case at <= len(v.keys):
		v.exists(at-1, b)
	default:
		v.executed(b)
	}
	if v.at == v.replies {
		v.checked()
	}
}

// exists takes the reply to one EXISTS.
func (v *view) exists(i int, b []byte) {
	v.keys[i].there = bytes.Equal(b, []byte(":1\r\n"))
	v.denied = v.denied || b[0] == '-'
}

// executed takes the reply of EXEC. It is an error if the command or one of the EXISTS was not queued.
func (v *view) executed(b []byte) {
	elems, ok := elements(nil, b)
	switch {
	case ok && len(elems) == 1+len(v.keys):
		v.answer = append(v.answer[:0], elems[0]...)
		for i := range v.keys {
			v.exists(i, elems[1+i])
		}
	case bytes.HasPrefix(v.answer, []byte("+QUEUED")) && !v.denied:
		v.answer = append(v.answer[:0], b...)
	}
}

// checked decides what becomes of the command once it is known which of its keys are there.
func (v *view) checked() {
	queued := bytes.HasPrefix(v.answer, []byte("+QUEUED"))
	missing := 0
	for i := range v.keys {
		k := &v.keys[i]
		gone := !k.there && !k.absent
		if gone {
			missing++
		}
		switch {
		case v.tries > 0:
		case gone:
			k.m.Counts.Misses.Add(1)
		case k.there:
			v.s.srv.hit(k.m, v.key(i))
		}
	}
	switch {
	case missing == 0 && v.ttl != "" && string(v.answer) == endless:
		v.promised()
	case missing == 0, v.answer[0] == '-' && !queued && v.refused():
		v.end(v.answer)
	case v.tries == maxViews:
		v.end(appendError(nil, refused("the value of a key leaves redis as soon as it is there; nothing was read, try again")))
	default:
		v.load(missing)
	}
}

// ttls are the commands that tell how long a key stays.
var ttls = []string{"TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"}

// endless is what they answer about a key without a TTL.
const endless = ":-1\r\n"

// promised answers with how long a key is to stay that may have no TTL only because it is not in MySQL yet.
func (v *view) promised() {
	v.hold()
	j := v.s.srv.journal
	key := v.key(0)
	v.s.srv.control.Integer(string(ttlScript), []string{string(key), string(j.AppendExpire(nil, j.Partition(key)))},
		[]string{v.ttl}, func(n int64, err error) {
			if err != nil {
				v.end(appendError(nil, err))
				return
			}
			v.end(redcon.AppendInt(nil, n))
		})
}

// refused reports whether the answer is an error for another reason than that the key is not there.
func (v *view) refused() bool { return !bytes.HasPrefix(v.answer, []byte("-ERR no such key")) }

// load loads the keys that are missing.
func (v *view) load(missing int) {
	v.hold()
	v.tries++
	v.left, v.err = missing, nil
	for i := range v.keys {
		if k := &v.keys[i]; !k.there && !k.absent {
			// The last one to be loaded may end it all, so nothing of v is touched behind that.
			last := missing == 1
			missing--
			v.s.srv.loader.Load(k.m, v.key(i), func(image []byte, leased bool, err error) { v.loaded(k, image != nil, wayOf(leased), err) })
			if last {
				return
			}
		}
	}
}

func (v *view) loaded(k *viewedKey, found bool, how way, err error) {
	v.mu.Lock()
	v.how = max(v.how, how)
	switch {
	case isWrongType(err): // it is there, and the command sees what it is
	case errors.Is(err, mapping.ErrRemoved): // the key is a plain one that is not there
		k.absent = true
	case err != nil:
		v.err = err
	default:
		k.absent = !found
	}
	v.left--
	last, failed := v.left == 0, v.err
	v.mu.Unlock()
	switch {
	case !last:
	case failed != nil:
		v.end(appendError(nil, failed))
	case v.denied:
		// The client may run the command, but not EXISTS.
		v.again(func(w []byte) []byte {
			v.step = viewLast
			v.replies = 1
			return append(w, v.command...)
		}).flush()
	default:
		v.again(v.encode).flush()
	}
}

// again sends the command once more. It is called by the lane's reader or by the loader, so it must not wait for room:
// what a client is owed bounds how often that is. The reader writes to the lane once it is through, the loader does not.
func (v *view) again(encode func(w []byte) []byte) *lane {
	wire := encode(nil)
	l := v.lane
	l.mu.Lock()
	err := l.push(wire, []entry{{s: v.s, op: v, n: v.replies}})
	l.mu.Unlock()
	if err != nil {
		v.end(appendError(nil, err))
	}
	return l
}

func (v *view) hold() {
	if v.hole == nil {
		v.hole, v.miss = v.s.hold(1), clock()
	}
}

func (v *view) lost(err error) {
	if v.set != nil && v.hole == nil && v.set.may(v.keys[0].m, mayHgetall, err) {
		v.bypass()
		return
	}
	v.end(appendError(nil, err))
}

// end gives the client its answer. That the read counts as answered comes first, so that a write that waits for it is
// woken by the answer.
func (v *view) end(b []byte) {
	s, hole := v.s, v.hole
	s.reads.Add(-1)
	if hole != nil {
		v.done(s, v.how, v)
		s.fill(hole, append([]byte(nil), b...), 1)
		s.rested()
	} else {
		s.deliver(b, 1)
	}
	v.free()
}

// shown appends what KEYROW SLOW shows of the command.
func (v *view) shown(b []byte) []byte {
	elems, _ := elements(nil, v.command)
	for i := range elems {
		elems[i] = bulk(elems[i])
	}
	return appendCut(b, nil, elems)
}

func (v *view) free() {
	if cap(v.answer)+cap(v.command)+cap(v.text)+cap(v.keys)*16 > 16<<10 {
		return
	}
	clear(v.keys)
	*v = view{command: v.command[:0], keys: v.keys[:0], text: v.text[:0], answer: v.answer[:0]}
	views.Put(v)
}

// atomic reports whether the session may use MULTI without disturbing anything: a transaction would end what a client
// watches on a connection of its own.
func (s *session) atomic() bool {
	switch set := s.lanes; {
	case s.pinned() || set.noMulti.Load():
		return false
	case !set.multi.Load():
		s.settle()
		reply, err := s.try(s.key, []byte("MULTI"))
		set.multi.Store(err == nil && reply[0] == '+')
		set.noMulti.Store(err == nil && reply[0] == '-')
	}
	return s.lanes.multi.Load()
}

// telling are the commands of one key whose reply, if that key is not there, says nothing: see saysNothing.
var telling = []string{
	"bitcount", "bitfield_ro", "bitpos", "dump", "expiretime", "getbit", "getrange", "pexpiretime", "pttl", "strlen",
	"substr", "ttl", "type",
	"hexists", "hget", "hgetall", "hkeys", "hlen", "hmget", "hscan", "hstrlen", "hvals",
	"lindex", "llen", "lpos", "lrange",
	"scard", "sismember", "smembers", "smismember", "sscan",
	"zcard", "zcount", "zlexcount", "zmscore", "zrange", "zrangebylex", "zrangebyscore", "zrank", "zrevrange",
	"zrevrangebylex", "zrevrangebyscore", "zrevrank", "zscan", "zscore",
}

// saysNothing reports whether a reply may be that of a telling command about a key that is not there: null, an empty
// string, "none", 0, -1, -2, or an array of nothing but these and of "0", which is the cursor of HSCAN. An error is about
// the command: none of them answers with one for a key that is not there.
func saysNothing(b []byte) bool {
	for whole := true; len(b) > 0; whole = false {
		end := bytes.IndexByte(b, '\n')
		line := b[:end-1]
		b = b[end+1:]
		switch line[0] {
		case '*', '%', '~', '_':
		case '$':
			n, _ := parseInt(line[1:])
			if n > 1 || n == 1 && (whole || b[0] != '0') {
				return false
			}
			if n >= 0 {
				b = b[n+2:]
			}
		case ':', ',':
			if n, ok := parseInt(line[1:]); !ok || n > 0 || n < -2 {
				return false
			}
		default:
			return string(line) == "+none"
		}
	}
	return true
}

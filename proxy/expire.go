package proxy

import (
	"bytes"
	_ "embed"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"keyrow/mapping"
)

//go:embed lua/expire.lua
var expireScript []byte

var expireSHA = scriptName(expireScript)

//go:embed lua/ttl.lua
var ttlScript []byte

// residency is what an EXPIRE, a PERSIST or a GETEX of one mapped key asks for: how long its image stays in Redis. The
// row stays in MySQL.
type residency struct {
	m          *mapping.Mapping
	key        []byte
	what       string // see expire.lua
	n          int64
	getex      bool
	conditions [][]byte
}

// expire serves EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT, PERSIST and GETEX. On a mapped key it is a script: what is to be
// done depends on whether the key is in MySQL yet.
func (s *session) expire(c *command, req request) {
	r, err := s.residencyOf(c, req)
	switch {
	case err != nil:
		s.refuseKnown(err)
		return
	case r == nil:
		s.pass(c, req)
		return
	case !s.admitted():
		return
	}
	s.settle()
	reply, err := r.run(s)
	if err != nil {
		s.refuseKnown(err)
		return
	}
	s.answer(reply)
}

// run returns the client's answer. An image that Redis does not have is loaded first, for it is what stays or goes.
func (r *residency) run(s *session) ([]byte, error) {
	for range maxViews {
		s.at("expire.before-script")
		reply, err := s.eval(expireScript, expireSHA, r.args(s.srv.journal, ""))
		s.at("expire.after-script")
		if err != nil {
			return nil, err
		}
		if reply[0] == '-' {
			return nil, redisReply(bytes.TrimRight(reply[1:], "\r\n"))
		}
		elems, ok := elements(nil, reply)
		switch {
		case !ok || len(elems) > 1:
			return nil, upstreamError(fmt.Sprintf("redis answered a script with %.64q, so it is unknown whether it was applied", reply))
		case len(elems) == 1:
			return elems[0], nil
		}
		there, err := s.load(r.m, r.key)
		if err != nil {
			return nil, err
		}
		if !there {
			return r.nothing(s), nil
		}
	}
	return nil, refused("the value of the key leaves redis as soon as it is there; nothing was changed, try again")
}

// nothing is the answer about a key that is not there.
func (r *residency) nothing(s *session) []byte {
	if r.getex {
		return []byte(s.null())
	}
	return []byte(":0\r\n")
}

// args are the keys and arguments of expire.lua.
func (r *residency) args(j mapping.Journal, inMulti string) [][]byte {
	p, getex := j.Partition(r.key), ""
	if r.getex {
		getex = "GETEX"
	}
	return append([][]byte{
		[]byte("6"), r.key, j.AppendAux(nil, r.key), j.AppendDirty(nil, p), j.AppendFlushing(nil, p), j.AppendParked(nil, p),
		j.AppendExpire(nil, p), []byte(r.what), strconv.AppendInt(nil, r.n, 10), []byte(getex), []byte(inMulti),
	}, r.conditions...)
}

// residencyOf reads the command; it is nil if its key is not mapped.
func (s *session) residencyOf(c *command, req request) (*residency, error) {
	m := s.mapped(req.args[1])
	if m == nil || m.Cache {
		return nil, nil
	}
	r := &residency{m: m, key: req.args[1], getex: c.name == "GETEX"}
	opts := req.args[2:]
	switch {
	case c.name == "PERSIST":
		r.what = "never"
		return r, nil
	case r.getex && len(opts) == 0:
		return r, nil
	case r.getex:
		return r, r.getexOption(opts)
	}
	return r, r.expireOptions(strings.ToLower(c.name), opts)
}

// getexOption reads what follows the key of a GETEX.
func (r *residency) getexOption(opts [][]byte) error {
	switch name := strings.ToUpper(string(opts[0])); {
	case name == "PERSIST" && len(opts) == 1:
		r.what = "never"
		return nil
	case (name == "EX" || name == "PX" || name == "EXAT" || name == "PXAT") && len(opts) == 2:
		return r.until(opts[1], name[0] == 'E', len(name) == 2, 1, "getex")
	}
	return errSyntax
}

// expireOptions reads what follows the key of an EXPIRE or one of its likes.
func (r *residency) expireOptions(command string, opts [][]byte) error {
	has := func(name string) bool {
		for _, o := range opts[1:] {
			if strings.EqualFold(string(o), name) {
				return true
			}
		}
		return false
	}
	for _, o := range opts[1:] {
		switch strings.ToUpper(string(o)) {
		case "NX", "XX", "GT", "LT":
		default:
			return redisReply("ERR Unsupported option " + string(o))
		}
	}
	switch {
	case has("NX") && (has("XX") || has("GT") || has("LT")):
		return redisReply("ERR NX and XX, GT or LT options at the same time are not compatible")
	case has("GT") && has("LT"):
		return redisReply("ERR GT and LT options at the same time are not compatible")
	}
	r.conditions = opts[1:]
	return r.until(opts[0], command[0] == 'e', !strings.HasSuffix(command, "at"), math.MinInt64, command)
}

// until takes a time, which has to be at least least.
func (r *residency) until(arg []byte, seconds, relative bool, least int64, command string) error {
	n, ok := parseInt(arg)
	switch {
	case !ok:
		return errInteger
	case n < least, seconds && (n > math.MaxInt64/1000 || n < math.MinInt64/1000):
		return errExpire(command)
	case seconds:
		n *= 1000
	}
	if r.what = "at"; relative {
		r.what = "in"
		if n > math.MaxInt64-time.Now().UnixMilli() {
			return errExpire(command)
		}
	}
	r.n = max(min(n, maxDeadline), -maxDeadline)
	return nil
}

// load loads the image of a key, and reports whether there is one.
func (s *session) load(m *mapping.Mapping, key []byte) (there bool, err error) {
	d := deletion{keys: [][]byte{key}, how: []deletedKey{{m: m}}}
	err = d.lookUp(s, []int64{1})
	return d.how[0].known == '1', err
}

// queueExpire is expire inside MULTI.
func (s *session) queueExpire(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	r, err := s.residencyOf(c, req)
	switch {
	case err != nil:
		s.abort(err)
	case r == nil:
		s.queuePlain(c, req)
	default:
		args := append([][]byte{[]byte("EVAL"), expireScript}, r.args(s.srv.journal, "m")...)
		s.queueLoaded(request{raw: appendCommand(nil, args...), args: args, made: true}, [][]byte{bytes.Clone(r.key)})
	}
}

// queueTTL queues TTL, PTTL, EXPIRETIME and PEXPIRETIME.
func (s *session) queueTTL(c *command, req request) {
	m := s.mapped(req.args[1])
	if m == nil || !m.WriteBehind() || !m.Names(req.args[1]) {
		s.queueRead(c, req)
		return
	}
	if !s.confirmed(req) {
		return
	}
	key := req.args[1]
	expire := s.srv.journal.AppendExpire(nil, s.srv.journal.Partition(key))
	args := [][]byte{[]byte("EVAL"), ttlScript, []byte("2"), key, expire, []byte(c.name)}
	s.queueLoaded(request{raw: appendCommand(nil, args...), args: args, made: true}, [][]byte{bytes.Clone(key)})
}

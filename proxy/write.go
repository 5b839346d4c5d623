package proxy

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"keyrow/mapping"
)

// Errors of SET in Redis's own words.
type redisReply string

func (e redisReply) Error() string { return string(e) }
func (e redisReply) RESP() string  { return string(e) }

const (
	errSyntax  = redisReply("ERR syntax error")
	errInteger = redisReply("ERR value is not an integer or out of range")
)

func errExpire(command string) error {
	return redisReply("ERR invalid expire time in '" + command + "' command")
}

// written is what a SET, SETEX or PSETEX of one mapped key asks for; its slices alias the request.
type written struct {
	key, value []byte
	setOptions
}

// setOptions is what follows the value of a SET. The expiry is the residency of the cached copy.
type setOptions struct {
	deadline int64  // Unix milliseconds; 0: none
	keep     bool   // KEEPTTL
	get      bool   // GET
	when     string // NX, XX or nothing
}

// blind reports whether what is there does not matter.
func (o *setOptions) blind() bool { return !o.keep && !o.get && o.when == "" }

// set serves SET, SETEX and PSETEX. On a mapped key it becomes a blind write: the image, the mark and the end of any
// lease in one transaction.
func (s *session) set(c *command, req request) {
	w, m, err := s.writtenBy(c, req)
	switch {
	case err != nil:
		s.refuseKnown(err)
	case m == nil:
		s.pass(c, req)
	case m.Through && !w.blind():
		s.changeThrough(c, req, m)
	case m.Through:
		s.writeThrough(req, m, w)
	case !w.blind():
		s.change(c, req)
	case m.OnAbsent:
		s.writePresent(req, m, w)
	default:
		s.write(m, w.key, w.value, w.deadline)
	}
}

// writtenBy reads a SET, SETEX or PSETEX; m is nil if it is none of a mapped key, or one that Redis refuses.
func (s *session) writtenBy(c *command, req request) (w written, m *mapping.Mapping, err error) {
	args := req.args
	if len(args) < 3 || c.name != "SET" && len(args) != 4 {
		return w, nil, nil
	}
	if m = s.mapped(args[1]); m == nil || m.Cache {
		return w, nil, nil
	}
	w = written{key: args[1], value: args[len(args)-1]}
	switch c.name {
	case "SET":
		w.value = args[2]
		w.setOptions, err = parseSetOptions(args[3:])
	case "SETEX":
		w.deadline, err = expiry(args[2], true, true, "setex")
	default:
		w.deadline, err = expiry(args[2], false, true, "psetex")
	}
	return w, m, err
}

func parseSetOptions(opts [][]byte) (o setOptions, err error) {
	for i := 0; i < len(opts); i++ {
		var opt [8]byte
		name := string(bytes.ToUpper(append(opt[:0], opts[i][:min(len(opts[i]), 8)]...)))
		switch name {
		case "EX", "PX", "EXAT", "PXAT":
			if o.deadline != 0 || o.keep || i+1 == len(opts) {
				return o, errSyntax
			}
			i++
			if o.deadline, err = expiry(opts[i], name[0] == 'E', len(name) == 2, "set"); err != nil {
				return o, err
			}
		case "NX", "XX":
			if o.when != "" && o.when != name {
				return o, errSyntax
			}
			o.when = name
		case "GET":
			o.get = true
		case "KEEPTTL":
			if o.deadline != 0 {
				return o, errSyntax
			}
			o.keep = true
		default:
			return o, errSyntax
		}
	}
	return o, nil
}

// expiry turns an expiry into a deadline in Unix milliseconds, refusing what Redis refuses.
func expiry(arg []byte, seconds, relative bool, command string) (int64, error) {
	n, ok := parseInt(arg)
	if !ok {
		return 0, errInteger
	}
	if n <= 0 || seconds && n > math.MaxInt64/1000 {
		return 0, errExpire(command)
	}
	if seconds {
		n *= 1000
	}
	if relative {
		now := time.Now().UnixMilli()
		if n > math.MaxInt64-now {
			return 0, errExpire(command)
		}
		n += now
	}
	return min(n, maxDeadline), nil
}

// maxDeadline is the latest deadline that the scripts, whose numbers are doubles, tell from the one before: it is in the
// year 287396.
const maxDeadline = 1 << 53

// write adds a blind write to the run of the pipeline at hand.
func (s *session) write(m *mapping.Mapping, key, value []byte, deadline int64) {
	s.way = wayJournal
	err := s.writable(m, key)
	if err == nil {
		s.scratch, err = m.Canonical(s.scratch[:0], key, value)
	}
	if err != nil {
		s.refuseKnown(err)
		return
	}
	if !s.transactional() {
		return
	}
	s.beforeWrite()
	if s.run != nil && s.run.d != m.Durability {
		s.endRun()
	}
	if s.run == nil {
		s.behindRun()
		s.run = newRun(s, m.Durability)
	}
	s.run.add(key, s.scratch, deadline)
	if s.pinned() {
		s.endAside()
	} else if len(s.run.sets) == maxRun || len(s.run.data) > maxRunBytes {
		s.submit()
	}
}

// writable says why a write to key is refused before its value is looked at.
func (s *session) writable(m *mapping.Mapping, key []byte) error {
	if m.Deny {
		return refused(denial(m) + "; nothing was changed")
	}
	if err := m.Unfit(); err != nil {
		return refused(fmt.Sprintf("mapping %q is suspended: %v; nothing was changed", m.Name, err))
	}
	if !m.Names(key) {
		return m.Refusal(key)
	}
	if m.Through {
		return nil
	}
	if m.Durability.Replicas > 0 {
		if err := s.tellable(m); err != nil {
			return err
		}
	}
	return s.srv.gate.Admit()
}

// apart refuses a command that has rows among its keys, and one that is the clients' own.
func (s *session) apart(c *command, own []byte) error {
	return refused(fmt.Sprintf("%s of rows and of %.100q, which is %s, is not supported; send one for each, nothing was changed",
		c.name, own, opaque(s.mapped(own))))
}

// denial says why nobody may write m.
func denial(m *mapping.Mapping) string {
	if m.Query {
		return m.String() + " can only be read"
	}
	return m.String() + " is write = \"deny\""
}

// transactional makes sure, once for all sessions of an identity, that Redis lets it use MULTI, and answers the client
// if not. Where MULTI is refused, Redis runs what stands behind it command by command. And before authentication Redis
// takes 10 arguments of 16 KiB at most, else it closes the lane; what keyrow makes of a command may be more.
func (s *session) transactional() bool {
	if !s.admitted() {
		return false
	}
	if s.lanes.multi.Load() {
		return true
	}
	s.settle()
	reply, err := s.try(s.key, []byte("MULTI"))
	switch {
	case err != nil:
		s.refuse(notApplied(err))
	case reply[0] == '-':
		if s.permitted() { // it may be the write itself that is refused
			s.answer(reply)
		}
	default:
		s.lanes.multi.Store(true)
		return true
	}
	return false
}

// beforeWrite holds a write back until this session's earlier reads of rows are answered: a GET whose row is still
// being loaded must not be answered with what is written behind it. See pinTo for another reason.
func (s *session) beforeWrite() {
	if s.reads.Load() > 0 {
		s.submit()
		s.await(func() bool { return s.reads.Load() == 0 })
	}
}

// mset serves MSET. With mapped keys in it, it is one run that is applied or refused as a whole.
func (s *session) mset(c *command, req request) {
	pairs := req.args[1:]
	var first *mapping.Mapping
	for i := 0; i < len(pairs) && first == nil; i += 2 {
		if first = s.mapped(pairs[i]); first != nil && first.Cache {
			first = nil
		}
	}
	switch {
	case first == nil:
		s.pass(c, req)
		return
	case len(pairs)%2 != 0:
		s.forward(req) // Redis refuses it
		return
	case s.msetThrough(c, req):
		return
	}
	s.way = wayJournal
	r := &run{s: s}
	for i := 0; i < len(pairs); i += 2 {
		key, value := pairs[i], pairs[i+1]
		m := s.mapped(key)
		var err error
		switch {
		case m != nil && m.Cache:
			err = s.apart(c, key)
		case m == nil && s.srv.journal.Reserved(key):
			err = s.reserved()
		case m == nil:
			r.plain = append(r.plain, key, value)
		default:
			if err = s.writable(m, key); err == nil {
				s.scratch, err = m.Canonical(s.scratch[:0], key, value)
			}
			if err == nil {
				r.add(key, s.scratch, 0)
				r.d = r.d.With(m.Durability)
			}
		}
		if err != nil {
			s.refuseKnown(err)
			return
		}
	}
	if !s.transactional() {
		return
	}
	s.endRun()
	s.behindRun()
	s.beforeWrite()
	s.run = r
	if s.pinned() {
		s.endAside()
	} else {
		s.endRun()
	}
}

// endAside sends a run over the shared lane although the session owns a connection: there, the run's EXEC would end
// what the client watches. Nothing else is under way then, so the order is kept.
func (s *session) endAside() {
	r := s.run
	s.run = nil
	s.settle()
	own := s.lane
	s.lane, s.run = s.pin.shared, r
	s.settle()
	s.lane = own
}

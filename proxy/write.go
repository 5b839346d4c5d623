package proxy

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/tidwall/redcon"

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
		s.refuseKnown(refused(fmt.Sprintf("SET with NX, XX, GET or KEEPTTL is not supported on rows of %s, which is write = \"through\"; "+
			"SET it without, nothing was changed", m)))
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
	if s.run == nil {
		s.behindRun()
		s.run = &run{s: s, each: true}
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
	return s.srv.gate.Admit()
}

// markable says why key cannot be written by a command that is only marked for MySQL.
func (s *session) markable(c *command, m *mapping.Mapping, key []byte) error {
	if m.Through {
		return refused(fmt.Sprintf("%s is not supported on %.100q, which is a row of %s with write = \"through\"; "+
			"SET the whole row instead, nothing was changed", c.name, key, m))
	}
	return s.writable(m, key)
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
// being loaded must not be answered with what is written behind it.
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
	case s.msetThrough(req):
		return
	}
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

const (
	maxRun      = 128       // writes that share one transaction
	maxRunBytes = 256 << 10 // bytes of keys and images after which a transaction is ended
)

// run is one transaction of blind writes, contiguous on the lane:
//
//	MULTI
//	SET key image …            every written key, without a TTL
//	MSET key value …           the unmapped keys of an MSET
//	HDEL <expire> key …        a residency asked for earlier; one a partition
//	ZADD <dirty> NX now +key … one a partition
//	HSET <expire> key deadline the residency to arm once the key is flushed
//	DEL a(key) …               every lease and negative entry
//	EXEC
//
// Consecutive writes of one pipeline share a run. If Redis refuses to queue one of them (no memory, no permission)
// nothing of the run was applied, and its writes are sent again one by one, so that each gets the answer it would
// have got alone. Meanwhile nothing is sent behind the run: that could be another write to the same key, and it would
// be applied first.
type run struct {
	s     *session
	each  bool // every write is a command with a reply of its own; otherwise all are one command
	sets  []blindSet
	data  []byte   // keys and images
	plain [][]byte // keys and values of unmapped keys, aliasing the request

	steps  int   // replies up to EXEC's
	at     int   // the reply that comes next
	zadds  []int // which elements of EXEC's reply count new marks
	failed error // the first step that was not queued
	bare   bool  // that was MULTI: the user's rights were changed just now
}

type blindSet struct {
	key, image span
	deadline   int64
}

func (r *run) add(key, image []byte, deadline int64) {
	at := len(r.data)
	r.data = append(append(r.data, key...), image...)
	mid := at + len(key)
	r.sets = append(r.sets, blindSet{span{at, mid}, span{mid, len(r.data)}, deadline})
}

func (r *run) key(i int) []byte { return r.data[r.sets[i].key.from:r.sets[i].key.to] }

func (r *run) image(i int) []byte { return r.data[r.sets[i].image.from:r.sets[i].image.to] }

// overwritten reports whether a later write of the run is of the same key.
func (r *run) overwritten(i int) bool {
	for later := i + 1; later < len(r.sets); later++ {
		if bytes.Equal(r.key(later), r.key(i)) {
			return true
		}
	}
	return false
}

// replies is how many replies the client gets for the run.
func (r *run) replies() int {
	if r.each {
		return len(r.sets)
	}
	return 1
}

// endRun encodes the run at hand into the batch.
func (s *session) endRun() {
	r := s.run
	if r == nil {
		return
	}
	s.run = nil
	s.at("set.before-exec")
	s.batch.append(func(w []byte) []byte { return r.encode(w, time.Now().UnixMilli()) })
	s.expect(entry{s: s, op: r, n: r.steps}, int64(r.replies()))
	if r.each && len(r.sets) > 1 {
		s.mixed.Store(true)
		s.submit()
	}
}

// behindRun waits until a run of several writes is answered, since nothing may be sent behind it.
func (s *session) behindRun() {
	if s.mixed.Load() {
		s.await(func() bool { return !s.mixed.Load() })
	}
}

// encode appends the commands of the run and notes where in EXEC's reply what stands.
func (r *run) encode(w []byte, now int64) []byte {
	j := r.s.srv.journal
	commands := 0
	w = append(w, "*1\r\n$5\r\nMULTI\r\n"...)
	for i := range r.sets {
		w = redcon.AppendArray(w, 3)
		w = append(w, "$3\r\nSET\r\n"...)
		w = redcon.AppendBulk(w, r.key(i))
		w = redcon.AppendBulk(w, r.image(i))
		commands++
	}
	if len(r.plain) > 0 {
		w = redcon.AppendArray(w, 1+len(r.plain))
		w = append(w, "$4\r\nMSET\r\n"...)
		for _, b := range r.plain {
			w = redcon.AppendBulk(w, b)
		}
		r.plain = nil
		commands++
	}
	var name [128]byte
	for p := range j.Partitions {
		n, without := 0, 0
		for i := range r.sets {
			if j.Partition(r.key(i)) == p {
				n++
				if r.sets[i].deadline == 0 {
					without++
				}
			}
		}
		if n == 0 {
			continue
		}
		if without > 0 {
			w = redcon.AppendArray(w, 2+without)
			w = append(w, "$4\r\nHDEL\r\n"...)
			w = redcon.AppendBulk(w, j.AppendExpire(name[:0], p))
			for i := range r.sets {
				if key := r.key(i); r.sets[i].deadline == 0 && j.Partition(key) == p {
					w = redcon.AppendBulk(w, key)
				}
			}
			commands++
		}
		w = redcon.AppendArray(w, 3+2*n)
		w = append(w, "$4\r\nZADD\r\n"...)
		w = redcon.AppendBulk(w, j.AppendDirty(name[:0], p))
		w = append(w, "$2\r\nNX\r\n"...)
		for i := range r.sets {
			if key := r.key(i); j.Partition(key) == p {
				w = appendBulkInt(w, now)
				w = appendBulkHeader(w, len(key)+1)
				w = append(w, mapping.MarkWritten)
				w = append(w, key...)
				w = append(w, '\r', '\n')
			}
		}
		r.zadds = append(r.zadds, commands)
		commands++
	}
	for i, set := range r.sets {
		if set.deadline == 0 || r.overwritten(i) {
			continue
		}
		w = append(w, "*4\r\n$4\r\nHSET\r\n"...)
		w = redcon.AppendBulk(w, j.AppendExpire(name[:0], j.Partition(r.key(i))))
		w = redcon.AppendBulk(w, r.key(i))
		w = appendBulkInt(w, set.deadline)
		commands++
	}
	w = redcon.AppendArray(w, 1+len(r.sets))
	w = append(w, "$3\r\nDEL\r\n"...)
	for i := range r.sets {
		w = redcon.AppendBulk(w, j.AppendAux(name[:0], r.key(i)))
	}
	commands++
	r.steps = 1 + commands + 1
	return append(w, "*1\r\n$4\r\nEXEC\r\n"...)
}

func appendBulkInt(w []byte, n int64) []byte {
	var digits [20]byte
	return redcon.AppendBulk(w, strconv.AppendInt(digits[:0], n, 10))
}

func appendBulkHeader(w []byte, n int) []byte {
	w = append(w, '$')
	w = strconv.AppendInt(w, int64(n), 10)
	return append(w, '\r', '\n')
}

func (r *run) reply(l *lane, b []byte) {
	r.at++
	if r.at < r.steps {
		if b[0] == '-' && r.failed == nil {
			r.failed = redisReply(bytes.TrimRight(b[1:], "\r\n"))
			r.bare = r.at == 1
		}
		return
	}
	r.s.srv.at("set.after-exec")
	switch {
	case r.bare:
		r.s.lanes.multi.Store(false)
		r.finish(upstreamError("redis refused MULTI, so the write was not applied as a whole; SET it again: " + r.failed.Error()))
		return
	case b[0] == '-':
		r.aborted(l, b)
		return
	}
	elems, ok := elements(nil, b)
	if !ok || len(elems) != r.steps-2 {
		r.finish(upstreamError(fmt.Sprintf("redis answered a write with %.64q, so it is unknown whether it was applied", b)))
		return
	}
	marked := 0
	for _, at := range r.zadds {
		n, isInt := parseInt(bytes.TrimRight(elems[at][1:], "\r\n"))
		if elems[at][0] != ':' || !isInt {
			// A key of the journal holds something else. The image is there but will not reach MySQL.
			r.finish(refused(fmt.Sprintf("the value is in redis, but it could not be marked for mysql: %.200q; "+
				"repair the journal's keys and SET it again", elems[at])))
			return
		}
		marked += int(n)
	}
	r.s.srv.wrote(len(r.sets), marked)
	if !r.each {
		r.done([]byte("+OK\r\n"), 1)
		return
	}
	answer := make([]byte, 0, 128)
	for i := range r.sets {
		answer = append(answer, elems[i]...)
	}
	r.done(answer, len(r.sets))
}

// aborted handles an EXEC that Redis refused: nothing of the run was applied.
func (r *run) aborted(l *lane, b []byte) {
	if r.each && len(r.sets) > 1 {
		r.again(l)
		return
	}
	if r.failed == nil {
		// -EXECABORT Transaction discarded because of: OOM …
		text := string(bytes.TrimRight(b[1:], "\r\n"))
		if _, why, ok := bytes.Cut([]byte(text), []byte("because of: ")); ok {
			text = string(why)
		}
		r.failed = redisReply(text)
	}
	r.finish(r.failed)
}

// again sends the writes of the run one by one. It runs on the lane's reader, so it must not wait for room: what it
// adds is bounded by maxRun and maxRunBytes.
func (r *run) again(l *lane) {
	var wire []byte
	var entries []entry
	now := time.Now().UnixMilli()
	for i, set := range r.sets {
		one := &run{s: r.s, each: true}
		one.add(r.key(i), r.image(i), set.deadline)
		wire = one.encode(wire, now)
		entries = append(entries, entry{s: r.s, op: &retried{run: one, last: i == len(r.sets)-1}, n: one.steps})
	}
	l.mu.Lock()
	err := l.push(wire, entries)
	l.mu.Unlock()
	if err != nil {
		r.finish(err)
	}
}

// retried is one write of a run that was refused as a whole; the last one lets the session go on.
type retried struct {
	*run
	last bool
}

func (r *retried) reply(l *lane, b []byte) {
	if r.last && r.at == r.steps-1 {
		r.s.mixed.Store(false)
	}
	r.run.reply(l, b)
}

func (r *retried) lost(err error) {
	if r.last {
		r.s.mixed.Store(false)
	}
	r.run.lost(err)
}

func (r *run) lost(err error) { r.finish(err) }

// finish answers every write of the run with err.
func (r *run) finish(err error) {
	one := appendError(nil, err)
	n := r.replies()
	r.done(bytes.Repeat(one, n), n)
}

// done delivers the replies; before that, what waits for the end of a shared run may go on.
func (r *run) done(b []byte, replies int) {
	if r.each && len(r.sets) > 1 {
		r.s.mixed.Store(false)
	}
	r.s.deliver(b, replies)
}

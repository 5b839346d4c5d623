package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

const (
	maxRun      = 128       // writes that share one transaction
	maxRunBytes = 256 << 10 // bytes of keys and images after which a transaction is ended
)

// run is one transaction of blind writes, contiguous on the lane:
//
//	MULTI
//	SET key image              every written key, without a TTL, or the first one of many
//	MSET key image …           the others of many, or the unmapped keys of an MSET
//	HDEL <expire> key …        a residency asked for earlier; one a partition
//	ZADD <dirty> NX now +key … one a partition
//	HSET <expire> key deadline the residency to arm once the key is flushed
//	DEL a(key) …               every lease and negative entry
//	EXEC
//
// Consecutive writes of one pipeline share a run, and so do those of all sessions that a loop finds with writes at a time:
// see lane.join. If Redis refuses to queue one of them (no memory, no permission) nothing of the run was applied, and its
// writes are sent again one by one, so that each gets the answer it would have got alone. Meanwhile no session sends
// anything behind its part of the run: that could be another write to the same key, and it would be applied first.
type run struct {
	s     *session // the first one that has writes in it
	each  bool     // every write is a command with a reply of its own; otherwise all are one command
	d     mapping.Durability
	sets  []blindSet
	data  []byte   // keys and images
	plain [][]byte // keys and values of unmapped keys, aliasing the request

	single int   // how many of the writes are a SET of their own, the others are one MSET
	steps  int   // replies up to EXEC's
	at     int   // the reply that comes next
	zadds  []int // which elements of EXEC's reply count new marks
	failed error // the first step that was not queued
	bare   bool  // that was MULTI: the user's rights were changed just now
}

type blindSet struct {
	s          *session
	key, image span
	deadline   int64
	partition  int
}

// spareRuns has runs that are over, for the memory that they take.
var spareRuns = sync.Pool{New: func() any { return new(run) }}

// newRun returns a run of commands of their own.
func newRun(s *session, d mapping.Durability) *run {
	r := spareRuns.Get().(*run)
	r.s, r.each, r.d = s, true, d
	return r
}

// recycle gives the run to another write. Nobody may use it any more.
func (r *run) recycle() {
	if cap(r.data) > 2*maxRunBytes {
		return
	}
	clear(r.sets)
	*r = run{sets: r.sets[:0], data: r.data[:0], zadds: r.zadds[:0]}
	spareRuns.Put(r)
}

func (r *run) add(key, image []byte, deadline int64) {
	at := len(r.data)
	r.data = append(append(r.data, key...), image...)
	mid := at + len(key)
	r.sets = append(r.sets, blindSet{r.s, span{at, mid}, span{mid, len(r.data)}, deadline, r.s.srv.journal.Partition(key)})
}

// take adds the writes of another run.
func (r *run) take(other *run) {
	at := len(r.data)
	r.data = append(r.data, other.data...)
	for _, set := range other.sets {
		set.key.from, set.key.to = set.key.from+at, set.key.to+at
		set.image.from, set.image.to = set.image.from+at, set.image.to+at
		r.sets = append(r.sets, set)
	}
}

// takes reports whether there is room for other, and both may be one.
func (r *run) takes(other *run) bool {
	return len(r.sets)+len(other.sets) <= maxRun && len(r.data)+len(other.data) <= maxRunBytes
}

// parts calls part for the writes of each session, which stand together.
func (r *run) parts(part func(s *session, from, to int)) {
	for from, to := 0, 0; from < len(r.sets); from = to {
		for to < len(r.sets) && r.sets[to].s == r.sets[from].s {
			to++
		}
		part(r.sets[from].s, from, to)
	}
}

// shared reports whether the writes are commands of their own that are refused if one of them is.
func (r *run) shared() bool { return r.each && len(r.sets) > 1 }

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
	if r.shared() {
		s.mixed.Store(true)
		s.submit()
	}
}

// behindRun waits until a run of several writes is answered, since nothing may be sent behind it.
func (s *session) behindRun() {
	if s.joined != 0 {
		// It may not be sent yet, and it is not known before whether others share it.
		s.lane.endJoined(s.joined)
		s.joined = 0
	}
	if s.mixed.Load() {
		s.await(func() bool { return !s.mixed.Load() })
	}
}

// singles is how many of the writes, the first ones, are sent as a SET each. In an MSET a write costs Redis half as much,
// but whether the client may use SET is asked by a SET only, and some may not use MSET.
func (r *run) singles() int {
	if r.each && len(r.sets) > 2 && !r.s.lanes.noMSET.Load() {
		return 1
	}
	return len(r.sets)
}

// encode appends the commands of the run and notes where in EXEC's reply what stands.
func (r *run) encode(w []byte, now int64) []byte {
	j := r.s.srv.journal
	commands := 0
	w = append(w, "*1\r\n$5\r\nMULTI\r\n"...)
	r.single = r.singles()
	for i := range r.single {
		w = redcon.AppendArray(w, 3)
		w = append(w, "$3\r\nSET\r\n"...)
		w = redcon.AppendBulk(w, r.key(i))
		w = redcon.AppendBulk(w, r.image(i))
		commands++
	}
	if n := 2*(len(r.sets)-r.single) + len(r.plain); n > 0 {
		w = redcon.AppendArray(w, 1+n)
		w = append(w, "$4\r\nMSET\r\n"...)
		for i := r.single; i < len(r.sets); i++ {
			w = redcon.AppendBulk(w, r.key(i))
			w = redcon.AppendBulk(w, r.image(i))
		}
		for _, b := range r.plain {
			w = redcon.AppendBulk(w, b)
		}
		r.plain = nil
		commands++
	}
	var name [128]byte
	for first, set := range r.sets {
		p := set.partition
		if slices.ContainsFunc(r.sets[:first], func(before blindSet) bool { return before.partition == p }) {
			continue
		}
		n, without := 0, 0
		for _, set := range r.sets[first:] {
			if set.partition == p {
				n++
				if set.deadline == 0 {
					without++
				}
			}
		}
		if without > 0 {
			w = redcon.AppendArray(w, 2+without)
			w = append(w, "$4\r\nHDEL\r\n"...)
			w = redcon.AppendBulk(w, j.AppendExpire(name[:0], p))
			for i, set := range r.sets {
				if set.deadline == 0 && set.partition == p {
					w = redcon.AppendBulk(w, r.key(i))
				}
			}
			commands++
		}
		w = redcon.AppendArray(w, 3+2*n)
		w = append(w, "$4\r\nZADD\r\n"...)
		w = redcon.AppendBulk(w, j.AppendDirty(name[:0], p))
		w = append(w, "$2\r\nNX\r\n"...)
		for i, set := range r.sets {
			if set.partition == p {
				key := r.key(i)
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
		w = redcon.AppendBulk(w, j.AppendExpire(name[:0], set.partition))
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
			if r.each && r.at == 2+r.single && bytes.Contains(bytes.ToLower(b), []byte("mset")) {
				r.s.lanes.noMSET.Store(true)
			}
		}
		return
	}
	r.executed(l, b)
	r.recycle()
}

// executed takes the reply of EXEC.
func (r *run) executed(l *lane, b []byte) {
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
	var room [32][]byte
	elems, ok := elements(room[:0], b)
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
	r.over()
	if !r.each {
		r.written(l, r.s, len(r.sets), bytes.Clone(elems[0]), 1)
		return
	}
	r.parts(func(s *session, from, to int) {
		var room [128]byte
		answer := room[:0]
		for i := from; i < to; i++ {
			answer = append(answer, elems[min(i, r.single)]...)
		}
		r.written(l, s, to-from, answer, to-from)
		l.slowest.handed(s, 0, l.arrived)
	})
}

// written delivers b, the replies of s to writes that were applied.
func (r *run) written(l *lane, s *session, writes int, b []byte, replies int) {
	if r.d.Replicas == 0 {
		s.deliver(b, replies)
		return
	}
	s.deliverWritten(receipt{l, l.primary.name(), r.d, writes}, b, replies, func(err error) []byte {
		return bytes.Repeat(appendError(nil, err), replies)
	})
}

// aborted handles an EXEC that Redis refused: nothing of the run was applied.
func (r *run) aborted(l *lane, b []byte) {
	if r.shared() {
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
		one := newRun(set.s, r.d)
		one.add(r.key(i), r.image(i), set.deadline)
		wire = one.encode(wire, now)
		last := i == len(r.sets)-1 || r.sets[i+1].s != set.s
		entries = append(entries, entry{s: set.s, op: &retried{run: one, last: last}, n: one.steps})
	}
	l.mu.Lock()
	err := l.push(wire, entries)
	l.mu.Unlock()
	if err != nil {
		r.finish(err)
	}
}

// retried is one write of a run that was refused as a whole; the last one of a session lets it go on.
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
	r.over()
	one := appendError(nil, err)
	if !r.each {
		r.s.deliver(one, 1)
		return
	}
	now, slowest := clock(), slowest{}
	r.parts(func(s *session, from, to int) {
		s.deliver(bytes.Repeat(one, to-from), to-from)
		slowest.handed(s, 0, now)
	})
	slowest.report(now, isUpstream(err))
}

// over lets go on who waits for the end of a shared run.
func (r *run) over() {
	if r.shared() {
		r.parts(func(s *session, _, _ int) { s.mixed.Store(false) })
	}
}

// join leaves the run at hand to the lane, and reports whether it did: the run is all that the session has to send.
func (s *session) join() bool {
	r := s.run
	if r == nil || !r.each || r.d.Replicas > 0 || !s.leads || len(s.batch.entries) > 0 || len(r.data) > laneFlush || s.srv.hooked {
		return false
	}
	s.owed += int64(len(r.sets))
	if !s.lane.join(s, r) {
		s.owed -= int64(len(r.sets))
		return false
	}
	s.run = nil
	return true
}

// join takes a run of s, which is sent with those of the other sessions that the loop finds with writes before it sends
// anything: in one transaction, with a ZADD for each partition and a DEL. It reports false if the lane is not in the state
// to do so.
//
// What other sessions queue meanwhile overtakes the run. That is as if it had come earlier, since nothing of the run is
// answered yet. Of s itself nothing does: see behindRun.
func (l *lane) join(s *session, r *run) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.private != nil || l.point == nil || l.state != laneUp || l.crowded() {
		return false
	}
	if l.run != nil && !l.run.takes(r) {
		_, _ = l.endRun() // not refused: the lane is up
	}
	if l.run == nil {
		l.run = r
		l.runs++
	} else {
		l.run.take(r)
		r.recycle()
	}
	s.joined = l.runs
	l.probe.arm(s)
	l.flushLater(s)
	return true
}

// endJoined sends the run of that number, unless it was sent.
func (l *lane) endJoined(number uint64) {
	l.mu.Lock()
	if l.run == nil || l.runs != number {
		l.mu.Unlock()
		return
	}
	refused, err := l.endRun()
	l.mu.Unlock()
	if refused != nil {
		refused.finish(err)
	}
}

// endRun queues the run that sessions have joined, with mu held. A lane that is down by now takes none; then the run is
// to be answered with the error.
func (l *lane) endRun() (refused *run, err error) {
	r := l.run
	if r == nil {
		return nil, nil
	}
	l.run = nil
	if r.shared() {
		r.parts(func(s *session, _, _ int) { s.mixed.Store(true) })
	}
	l.spareRun = r.encode(l.spareRun[:0], time.Now().UnixMilli())
	entries := [1]entry{{s: r.s, op: r, n: r.steps}}
	if err = l.push(l.spareRun, entries[:]); err != nil {
		l.up.stats.Unsent.Add(int64(r.steps))
		return r, err
	}
	return nil, nil
}

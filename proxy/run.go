package proxy

import (
	"bytes"
	"fmt"
	"strconv"
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
	d     mapping.Durability
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
		r.written(l, []byte("+OK\r\n"))
		return
	}
	answer := make([]byte, 0, 128)
	for i := range r.sets {
		answer = append(answer, elems[i]...)
	}
	r.written(l, answer)
}

// written delivers the replies to writes that were applied.
func (r *run) written(l *lane, b []byte) {
	n := r.replies()
	if r.d.Replicas == 0 {
		r.done(b, n)
		return
	}
	r.over()
	r.s.deliverWritten(receipt{l, l.primary.name(), r.d, len(r.sets)}, b, n, func(err error) []byte {
		return bytes.Repeat(appendError(nil, err), n)
	})
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
		one := &run{s: r.s, each: true, d: r.d}
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

// done delivers the replies.
func (r *run) done(b []byte, replies int) {
	r.over()
	r.s.deliver(b, replies)
}

// over lets go on what waits for the end of a shared run.
func (r *run) over() {
	if r.each && len(r.sets) > 1 {
		r.s.mixed.Store(false)
	}
}

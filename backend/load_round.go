package backend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyrow/mapping"
)

var (
	acquireScript = newScript("acquire")
	fillScript    = newScript("fill")
	releaseScript = newScript("release")
)

// round takes keys through acquire, select and fill. When it returns, every one of them has been answered, or is queued
// for another round.
//
// Who may be answered with what. A waiter gets the result of a script only if the script was sent after the waiter had
// joined. This interleaving forces it:
//
//	round:    fill runs in Redis: the image is stored. Its reply is on the way.
//	client A: DEL of the row is acknowledged: image gone, "-key" marked.
//	client B: GET finds nothing, and joins the key, which is still under way.
//	round:    reads FILLED.
//
// B would get the row that was deleted before it asked. So answer takes how many waiters had joined when the script was
// sent (load.sent), and the later ones go into another round, whose acquire finds what there is now.
//
// The same holds for what acquire returns, and for a row that is answered without fill having seen the lease in place:
// it was the truth at some time after acquire had found neither an image nor a deletion, so it is for those who had
// joined when that acquire was sent (load.asked), and for nobody else.
func (l *Loader) round(q *queue, loads []*load) {
	if len(loads) == 0 {
		return
	}
	token := l.newToken()
	h := l.hold(q.m, token)
	if h != nil {
		defer h.end()
	}
	reads := l.acquire(q, h, token, loads)
	if len(reads) == 0 {
		return
	}
	l.hook(HookGranted)
	begun := time.Now()
	if q.m.Query {
		l.selectResults(q.m, reads)
	} else if err := l.guard.run(q.m, func() error { return l.selectRows(q.m, reads) }); err != nil {
		if classify(err) == schema {
			l.altered()
		}
		for _, r := range reads {
			r.err = err
		}
		l.giveUp(q, reads)
		return
	}
	l.hook(HookSelected)
	l.fill(q, h, reads)
	l.took(q.m, begun)
}

// read is a key whose value is to be read.
type read struct {
	*load
	token  string // of the lease; empty: there is none, and what is read is not to be cached
	denied error  // why there is no lease

	whole bool // it is handed on without Redis, so it cannot be built aside there

	values [][]byte // the image, as mapping.Kind has it
	aside  string   // the key that has the image instead of values
	err    error    // nothing was read, or nothing that can be made into an image
}

// nothing reports whether there is nothing to make an image of.
func (r *read) nothing() bool { return len(r.values) == 0 && r.aside == "" }

// ttl is how long in ms to remember r, or that there is nothing.
func (r *read) ttl(m *mapping.Mapping) int64 {
	if r.nothing() {
		return jittered(m.NegativeTTL)
	}
	return jittered(m.TTL)
}

// present is the image that waiters get of a kind that is not handed out.
var present = []byte{}

// image is what the waiters of r get; nil: there is nothing.
func (r *read) image(m *mapping.Mapping) []byte {
	switch {
	case r.nothing():
		return nil
	case m.Kind.Text():
		return r.values[0]
	}
	return present
}

// look is how the scripts look for an image.
func look(m *mapping.Mapping) string {
	if m.Kind.Text() {
		return "GET"
	}
	return "EXISTS"
}

// storing is the command that makes an image of each kind.
var storing = [...]string{
	mapping.KindJSON: "SET", mapping.KindString: "SET", mapping.KindHash: "HSET", mapping.KindList: "RPUSH",
	mapping.KindSet: "SADD", mapping.KindZset: "ZADD",
}

// acquired is told what was found of a key whose lease was asked for, as acquire.lua has it.
type acquired func(ld *load, result string, value []byte, err error)

// acquire answers the keys that need no row, queues again those whose lease is another's, and returns the rest. The leases
// are those of h as far as it goes; nil: of the script.
func (l *Loader) acquire(q *queue, h *hold, token string, loads []*load) (reads []*read) {
	l.sending(loads)
	for _, ld := range loads {
		ld.asked = ld.sent
	}
	tell := func(ld *load, result string, value []byte, err error) {
		switch {
		case err != nil:
			l.fail(q, ld, err)
		case result == "GRANTED":
			reads = append(reads, &read{load: ld, token: token})
		case result == "FULL":
			reads = append(reads, &read{load: ld, denied: uncached(string(value))})
		case result == "WAIT":
			l.counters.waits.Add(1)
			q.m.Counts.Waits.Add(1)
			if !l.poll(q, ld) {
				reads = append(reads, &read{load: ld, denied: errLeased})
			}
		default:
			l.found(q, ld, result, value)
		}
	}
	if h != nil {
		// Who waits for another's lease asks again and again, and is told by the script at once.
		var fresh, rest []*load
		for _, ld := range loads {
			if ld.polls == 0 {
				fresh = append(fresh, ld)
			} else {
				rest = append(rest, ld)
			}
		}
		left, err := h.acquire(fresh, l.leaseOf(q.m), tell)
		if err != nil {
			for _, ld := range left {
				tell(ld, "", nil, err)
			}
			left = nil
		}
		loads = append(rest, left...)
	}
	l.runAcquire(loads, token, l.leaseOf(q.m), look(q.m), tell)
	return reads
}

// runAcquire runs the script that takes leases, one call for the keys of each partition, and tells what it says of each
// key.
func (l *Loader) runAcquire(loads []*load, token string, lease time.Duration, look string, acquired acquired) {
	byPartition := make([][]*load, len(l.sets))
	for _, ld := range loads {
		p := l.journal.Partition(ld.key)
		byPartition[p] = append(byPartition[p], ld)
	}
	var calls []*call
	var asked [][]*load // with each of calls
	for p, some := range byPartition {
		if len(some) == 0 {
			continue
		}
		sets := l.sets[p]
		keys := append(make([]string, 0, 3+len(some)), sets.dirty, sets.flushing, sets.parked)
		for _, ld := range some {
			keys = append(keys, ld.name)
		}
		calls = append(calls, &call{keys: keys, args: []any{token, lease.Milliseconds(), look, l.aux}})
		asked = append(asked, some)
	}
	pipeline(l.ctx, l.rdb, acquireScript, calls)
	for n, c := range calls {
		for i, ld := range asked[n] {
			result, value, err := c.result(i)
			acquired(ld, result, value, err)
		}
	}
}

// fill caches what was read and answers it; the keys without a lease are answered with what was read.
func (l *Loader) fill(q *queue, h *hold, reads []*read) {
	var filled, broken []*read
	var loads []*load
	for _, r := range reads {
		switch {
		case r.err != nil:
			broken = append(broken, r)
		case r.token == "":
			l.direct(q, r, r.denied)
		default:
			filled = append(filled, r)
			loads = append(loads, r.load)
		}
	}
	if len(broken) > 0 {
		l.altered()
		l.giveUp(q, broken)
	}
	if len(filled) == 0 {
		return
	}

	l.sending(loads)
	stored := l.runFill(q.m, h, filled, false, func(r *read, result string, why []byte, err error) {
		switch {
		case err != nil:
			l.fail(q, r.load, err)
		case result == "FILLED":
			l.counters.fills.Add(1)
			q.m.Counts.Fills.Add(1)
			l.answer(q, r.load, r.sent, r.image(q.m))
		case result == "UNCACHED":
			l.counters.uncached.Add(1)
			l.log.Debug().Str("mapping", q.m.Name).Bytes("why", why).Msg("redis did not take a fill")
			if r.handed(q.m) {
				l.answer(q, r.load, r.sent, r.image(q.m))
			} else {
				l.fail(q, r.load, uncached(string(why)))
			}
		case result == "LOST":
			l.counters.rejected.Add(1)
			q.m.Counts.Rejected.Add(1)
			if r.lost++; r.lost < maxLost || !r.handed(q.m) && r.lost < maxLostWhole {
				l.again(q, r.load) // acquire finds what there is now
			} else {
				// Something takes leases away as fast as they are given, eviction for one.
				l.direct(q, r, errLeased)
			}
		default:
			l.fail(q, r.load, strange(result))
		}
	})
	if !stored {
		l.turnOver(q, filled)
	}
}

// fillBytes is how many bytes of images one call of fill brings, unless a single one has more: Redis serves nobody else
// while it runs a script.
const fillBytes = 256 << 10

// runFill caches what was read under one token, in the place of images if early is set, and tells what fill.lua says of
// each key; h does without the script as far as it goes, unless it is nil. It is false, and nothing was done, if m is not
// in force any more.
func (l *Loader) runFill(m *mapping.Mapping, h *hold, reads []*read, early bool,
	filled func(r *read, result string, why []byte, err error)) bool {
	var calls []*call
	var done []filling
	store := func() {
		if h != nil {
			done, reads = h.fill(m, reads)
		}
		size := fillBytes
		for _, r := range reads {
			if size >= fillBytes {
				calls = append(calls, fillCall(m, r.token, l.aux, early))
				size = 0
			}
			size += calls[len(calls)-1].fill(m, r, r.ttl(m))
		}
		pipeline(l.ctx, l.rdb, fillScript, calls)
	}
	if !l.watch.Storing(store, m) {
		return false
	}
	l.hook(HookFilled)
	for _, f := range done {
		filled(f.read, f.result, nil, nil)
	}
	for _, c := range calls {
		for i, r := range reads[:len(c.keys)] {
			result, why, err := c.result(i)
			filled(r, result, why, err)
		}
		reads = reads[len(c.keys):]
	}
	return true
}

// turnOver has keys read again by the mappings in force now, since that of q, by which reads were read, is not.
func (l *Loader) turnOver(q *queue, reads []*read) {
	l.release(reads)
	for _, r := range reads {
		m := l.watch.Mappings().Match(r.key)
		if m == nil {
			l.direct(q, r, mapping.ErrRemoved)
			continue
		}
		l.mu.Lock()
		waiters := r.waiters
		l.waiting -= len(waiters)
		delete(q.loads, r.name)
		l.mu.Unlock()
		for _, done := range waiters {
			l.load(m, r.key, turnedOver(q.m, m, done))
		}
	}
}

// turnedOver gives to who waits for a key of m what there is of it by the mapping next, which is of the kind of m or not.
func turnedOver(m, next *mapping.Mapping,
	done func(image []byte, leased bool, err error)) func(image []byte, leased bool, err error) {
	if m.Kind.Text() == next.Kind.Text() {
		return done
	}
	return func(image []byte, leased bool, err error) {
		switch {
		case err != nil || image == nil:
		case m.Kind.Text():
			image, err = nil, errWrongType
		default:
			image = present
		}
		done(image, leased, err)
	}
}

// fillCall is a call of the script that caches what was read of m, in the place of images if early is set. It has no
// keys yet.
func fillCall(m *mapping.Mapping, token, aux string, early bool) *call {
	replace := 0
	if early {
		replace = 1
	}
	return &call{args: []any{token, aux, longer(m), replace}}
}

// fill adds a key to a call of fillCall, to be kept for ttl ms, and returns how many bytes it has.
func (c *call) fill(m *mapping.Mapping, r *read, ttl int64) (size int) {
	c.keys = append(c.keys, r.name)
	switch {
	case r.nothing():
		c.args = append(c.args, ttl, "", 0)
	case r.aside != "":
		c.args = append(c.args, ttl, "RENAME", 1, r.aside)
	default:
		c.args = append(c.args, ttl, storing[m.Kind], len(r.values))
		for _, v := range r.values {
			c.args = append(c.args, v)
			size += len(v)
		}
	}
	return size
}

// direct answers a key with what was read although it is not cached, if the answer can do without Redis.
func (l *Loader) direct(q *queue, r *read, why error) {
	if !r.handed(q.m) {
		l.fail(q, r.load, why)
		return
	}
	l.counters.direct.Add(1)
	l.answer(q, r.load, r.asked, r.image(q.m))
}

// handed reports whether the waiters need no more than what is handed to them.
func (r *read) handed(m *mapping.Mapping) bool { return m.Kind.Text() || r.nothing() }

// errWrongType is Redis's.
var errWrongType = redisError{errors.New("WRONGTYPE Operation against a key holding the wrong kind of value")}

var errLeased = &Error{CodeUpstream, "others hold or take away the lease of the key: nothing was read, try again"}

// uncached is the error of a key whose image has to be in Redis, which refused it.
func uncached(why string) error {
	return &Error{CodeUpstream, "redis did not take the value of the key: " + why + ": nothing was read"}
}

// found answers a key of which a script told what there is.
func (l *Loader) found(q *queue, ld *load, result string, image []byte) {
	switch result {
	case "HIT":
		l.counters.hits.Add(1)
		if !q.m.Kind.Text() {
			image = present
		}
	case "GONE":
		l.counters.gone.Add(1)
	case "NEG":
		l.counters.negatives.Add(1)
		q.m.Counts.Negatives.Add(1)
	default:
		l.fail(q, ld, strange(result))
		return
	}
	l.answer(q, ld, ld.sent, image)
}

// strange is the error for an answer of a script that this program does not know.
func strange(result string) error {
	return &Error{CodeUpstream, fmt.Sprintf("redis answered a script with %.40q: nothing was read", result)}
}

// scriptKeys are the KEYS of the scripts that look at one key.
func (l *Loader) scriptKeys(key []byte) []string {
	sets := l.sets[l.journal.Partition(key)]
	return []string{string(key), string(l.journal.AppendAux(nil, key)), sets.dirty, sets.flushing, sets.parked}
}

// release gives the leases back, as far as Redis lets it.
func (l *Loader) release(reads []*read) {
	var token string // a round has one
	var keys []string
	for _, r := range reads {
		if r.token != "" {
			token, keys = r.token, append(keys, r.name)
		}
	}
	l.giveBack(token, keys)
}

// giveBack gives the leases of keys back that token was taken for.
func (l *Loader) giveBack(token string, keys []string) {
	if len(keys) == 0 {
		return
	}
	// Close cancels l.ctx, and the lease is to go all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), releaseTimeout)
	defer cancel()
	pipeline(ctx, l.rdb, releaseScript, []*call{{keys: keys, args: []any{token, l.aux}}})
}

// result is what acquire, fill or stale returned for the i-th key: a word, and what came with it. The error is one a client can
// be given.
func (c *call) result(i int) (result string, value []byte, err error) {
	if c.err != nil {
		return "", nil, fromRedis(c.err, "nothing was read")
	}
	all, _ := c.reply.([]any)
	if i >= len(all) {
		return "", nil, nil
	}
	switch one := all[i].(type) {
	case string:
		result = one
	case error:
		err = fromRedis(one, "nothing was read")
	case []any:
		if len(one) == 2 {
			result, _ = one[0].(string)
			text, _ := one[1].(string)
			value = []byte(text)
		}
	}
	return result, value, err
}

package backend

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

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
	reads := l.acquire(q, loads)
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
	l.fill(q, reads)
	l.took(q.m, begun)
}

// read is a key whose value is to be read.
type read struct {
	*load
	token  string // of the lease; empty: there is none, and what is read is not to be cached
	keys   []string
	denied error // why there is no lease

	whole bool // it is handed on without Redis, so it cannot be built aside there

	values [][]byte // the image, as mapping.Kind has it
	aside  string   // the key that has the image instead of values
	err    error    // nothing was read, or nothing that can be made into an image
}

// nothing reports whether there is nothing to make an image of.
func (r *read) nothing() bool { return len(r.values) == 0 && r.aside == "" }

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

// acquire answers the keys that need no row, queues again those whose lease is another's, and returns the rest.
func (l *Loader) acquire(q *queue, loads []*load) (reads []*read) {
	calls := make([]*call, len(loads))
	asked := make([]*read, len(loads))
	for i, ld := range loads {
		asked[i] = &read{load: ld, token: l.newToken(), keys: l.scriptKeys(ld.key)}
		calls[i] = &call{keys: asked[i].keys, args: []any{asked[i].token, l.leaseOf(q.m).Milliseconds(), look(q.m)}}
	}

	l.sending(loads)
	for _, ld := range loads {
		ld.asked = ld.sent
	}
	pipeline(l.ctx, l.rdb, acquireScript, calls)

	for i, r := range asked {
		result, image, err := scriptReply(calls[i])
		if err != nil {
			l.fail(q, r.load, err)
			continue
		}
		switch result {
		case "GRANTED":
			reads = append(reads, r)
		case "FULL":
			r.token, r.denied = "", uncached(string(image))
			reads = append(reads, r)
		case "WAIT":
			l.counters.waits.Add(1)
			if !l.poll(q, r.load) {
				r.token, r.denied = "", errLeased
				reads = append(reads, r)
			}
		default:
			l.found(q, r.load, result, image)
		}
	}
	return reads
}

// scriptKeys are the KEYS of the scripts that look at one key.
func (l *Loader) scriptKeys(key []byte) []string {
	sets := l.sets[l.journal.Partition(key)]
	return []string{string(key), string(l.journal.AppendAux(nil, key)), sets.dirty, sets.flushing, sets.parked}
}

// fill caches what was read and answers it; the keys without a lease are answered with what was read.
func (l *Loader) fill(q *queue, reads []*read) {
	var filled []*read
	var loads []*load
	var broken []*read
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

	calls := make([]*call, len(filled))
	for i, r := range filled {
		calls[i] = l.fillCall(q.m, r, false)
	}
	l.sending(loads)
	pipeline(l.ctx, l.rdb, fillScript, calls)
	l.hook(HookFilled)

	for i, r := range filled {
		result, image, err := scriptReply(calls[i])
		if err != nil {
			l.fail(q, r.load, err)
			continue
		}
		switch result {
		case "FILLED":
			l.counters.fills.Add(1)
			l.answer(q, r.load, r.sent, r.image(q.m))
		case "UNCACHED":
			l.counters.uncached.Add(1)
			l.log.Debug().Str("mapping", q.m.Name).Bytes("why", image).Msg("redis did not take a fill")
			if r.handed(q.m) {
				l.answer(q, r.load, r.sent, r.image(q.m))
			} else {
				l.fail(q, r.load, uncached(string(image)))
			}
		case "LOST":
			l.counters.rejected.Add(1)
			if r.lost++; r.lost < maxLost {
				l.again(q, r.load)
			} else {
				// Something takes leases away as fast as they are given, eviction for one.
				l.direct(q, r, errLeased)
			}
		default:
			l.counters.rejected.Add(1)
			l.found(q, r.load, result, image)
		}
	}
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

var errLeased = &Error{CodeUpstream, "others hold or take away the lease of the key: nothing was read, try again"}

// uncached is the error of a key whose image has to be in Redis, which refused it.
func uncached(why string) error {
	return &Error{CodeUpstream, "redis did not take the value of the key: " + why + ": nothing was read"}
}

// fillCall is the call of the script that caches what was read, in the place of an image if early is set.
func (l *Loader) fillCall(m *mapping.Mapping, r *read, early bool) *call {
	keys := r.keys
	if r.aside != "" {
		keys = append(slices.Clip(keys), r.aside)
	}
	replace := 0
	if early {
		replace = 1
	}
	return &call{keys: keys, args: fillArgs(m, r, replace)}
}

func fillArgs(m *mapping.Mapping, r *read, replace int) []any {
	switch {
	case r.nothing():
		return []any{r.token, look(m), jittered(m.NegativeTTL), 0, replace, ""}
	case r.aside != "":
		return []any{r.token, look(m), jittered(m.TTL), longer(m), replace, "RENAME"}
	}
	args := append(make([]any, 0, 6+len(r.values)), r.token, look(m), jittered(m.TTL), longer(m), replace, storing[m.Kind])
	for _, v := range r.values {
		args = append(args, v)
	}
	return args
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
	default:
		l.fail(q, ld, &Error{CodeUpstream, fmt.Sprintf("redis answered a script with %.40q: nothing was read", result)})
		return
	}
	l.answer(q, ld, ld.sent, image)
}

// release gives the leases back, as far as Redis lets it.
func (l *Loader) release(reads []*read) {
	var calls []*call
	for _, r := range reads {
		if r.token != "" {
			calls = append(calls, &call{keys: r.keys[1:2], args: []any{r.token}})
		}
	}
	if len(calls) == 0 {
		return
	}
	// Close cancels l.ctx, and the lease is to go all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), releaseTimeout)
	defer cancel()
	pipeline(ctx, l.rdb, releaseScript, calls)
}

// scriptReply is the array acquire or fill returned: its first word, and what came with it. The error is one a client
// can be given.
func scriptReply(c *call) (result string, value []byte, err error) {
	if c.err != nil && c.err != redis.Nil {
		return "", nil, fromRedis(c.err, "nothing was read")
	}
	reply, _ := c.reply.([]any)
	if len(reply) > 0 {
		result, _ = reply[0].(string)
	}
	if len(reply) > 1 {
		s, _ := reply[1].(string)
		value = []byte(s)
	}
	return result, value, nil
}

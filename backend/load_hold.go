package backend

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
)

// maxHolds is how many rounds at a time may have a connection of their own. Each keeps it while MySQL is read, and the
// flushes need some too.
const maxHolds = 4

// holds is who may have a hold.
type holds struct {
	places chan struct{} // holds one for each
	denied atomic.Bool   // Redis does not let keyrow's user watch keys, or make transactions
}

// hold is the leases of a round, taken and used up in commands of Redis instead of scripts. Most keys that are asked for
// are neither there, nor deleted, nor another reader's, and to find that out in Lua costs Redis twice as much. What
// turns out to be otherwise is left to the scripts.
//
// The leases are watched from when they are taken, on a connection that the round has for itself: EXEC stores what was
// read only if nobody took any of them away.
type hold struct {
	l       *Loader
	conn    *redis.Conn
	token   string
	watched map[*load]bool // whose leases they are
	open    bool           // they are watched
}

// hold returns one for a round of m, without leases so far, or nil if the round has to do with the scripts.
func (l *Loader) hold(m *mapping.Mapping, token string) *hold {
	// A lease may stand beside a stale copy, which is no string, and other images than strings are not stored in one command.
	if m.Query || !m.Kind.Text() || longer(m) > 0 || l.holds.denied.Load() {
		return nil
	}
	select {
	case l.holds.places <- struct{}{}:
		return &hold{l: l, conn: l.rdb.Conn(), token: token, watched: make(map[*load]bool)}
	default:
		return nil
	}
}

// acquire takes leases of keys and tells what there is of them, as runAcquire does. It returns those that it could not
// tell of, which are not ours. An error is of the connection; it is for all of the keys, and nothing was told then.
//
//	MULTI
//	EXISTS dirty flushing parked … image …   the journal's of their partitions
//	SET aux token NX PX lease                for each key
//	EXEC
//	WATCH aux …
//	MGET aux …                               what is not there any more is not watched
//
// If neither an image nor anything of the journal exists, every lease that was taken is granted. If something does, look
// tells more, after the leases were taken: an image or a deletion that was there, and is not when look asks, has gone
// without ending the lease because MySQL has it, and MySQL is read later.
func (h *hold) acquire(loads []*load, lease time.Duration, acquired acquired) (rest []*load, err error) {
	if len(loads) == 0 {
		return nil, nil
	}
	l := h.l
	there, aux := []any{"exists"}, []any{"watch"}
	seen := make([]bool, len(l.sets))
	for _, ld := range loads {
		if p := l.journal.Partition(ld.key); !seen[p] {
			seen[p] = true
			there = append(there, l.sets[p].dirty, l.sets[p].flushing, l.sets[p].parked)
		}
		aux = append(aux, l.aux+ld.name+"}")
	}
	for _, ld := range loads {
		there = append(there, ld.name)
	}
	pipe := h.conn.Pipeline()
	pipe.Do(l.ctx, "multi")
	pipe.Do(l.ctx, there...)
	for _, a := range aux[1:] {
		pipe.Do(l.ctx, "set", a, h.token, "nx", "px", lease.Milliseconds())
	}
	exec := pipe.Do(l.ctx, "exec")
	pipe.Do(l.ctx, aux...)
	mget := pipe.Do(l.ctx, append([]any{"mget"}, aux[1:]...)...)
	h.open = true
	if _, err := pipe.Exec(l.ctx); err != nil {
		if isRedisError(err) && !redis.HasErrorPrefix(exec.Err(), "EXECABORT") {
			l.giveBack(h.token, keysOf(loads)) // the leases may have been taken all the same, or outside of a transaction
		}
		return loads, h.refused(err)
	}

	taken, _ := exec.Val().([]any)
	tokens, _ := mget.Val().([]any)
	if len(taken) != 1+len(loads) || len(tokens) != len(loads) {
		return loads, strange("EXEC")
	}
	var ours []*load
	for i, ld := range loads {
		if tokens[i] == h.token {
			h.watched[ld] = true
			ours = append(ours, ld)
		} else {
			rest = append(rest, ld)
		}
	}
	if taken[0] != int64(0) && len(ours) > 0 {
		if err := h.look(ours, acquired); err != nil {
			return loads, err
		}
		return rest, nil
	}
	for _, ld := range ours {
		acquired(ld, "GRANTED", nil, nil)
	}
	return rest, nil
}

// refused passes on an error of the connection. One of Redis's is for the scripts to tell in their words: that there is no
// memory, say.
func (h *hold) refused(err error) error {
	if !isRedisError(err) && !errors.Is(err, redis.Nil) {
		return fromRedis(err, "nothing was read")
	}
	if strings.Contains(err.Error(), "NOPERM") { // of EXEC it is why the transaction is discarded
		h.l.holds.denied.Store(true)
	}
	return nil
}

func keysOf(loads []*load) (keys []string) {
	for _, ld := range loads {
		keys = append(keys, ld.name)
	}
	return keys
}

// look tells of keys whose leases were taken what else there is of them, and gives back the leases of those that need not
// be read.
func (h *hold) look(loads []*load, acquired acquired) error {
	l := h.l
	pipe := h.conn.Pipeline()
	images := make([]*redis.Cmd, len(loads))
	byPartition := make([][]int, len(l.sets))
	for i, ld := range loads {
		images[i] = pipe.Do(l.ctx, "get", ld.name)
		p := l.journal.Partition(ld.key)
		byPartition[p] = append(byPartition[p], i)
	}
	marked := make([]journalMarks, len(l.sets))
	for p, some := range byPartition {
		if len(some) == 0 {
			continue
		}
		deleted, parked := []any{"zmscore", l.sets[p].dirty}, []any{"hmget", l.sets[p].parked}
		for _, i := range some {
			deleted = append(deleted, "-"+loads[i].name)
			parked = append(parked, loads[i].name)
		}
		m := &marked[p]
		m.dirty = pipe.Do(l.ctx, deleted...)
		deleted = append([]any{"zmscore", l.sets[p].flushing}, deleted[2:]...)
		m.flushing, m.parked = pipe.Do(l.ctx, deleted...), pipe.Do(l.ctx, parked...)
	}
	if _, err := pipe.Exec(l.ctx); err != nil && !errors.Is(err, redis.Nil) && !isRedisError(err) {
		return fromRedis(err, "nothing was read")
	}
	type finding struct {
		ld     *load
		result string
		image  []byte
		err    error
	}
	var found []finding
	var spare []string
	for p, some := range byPartition {
		for n, i := range some {
			ld, m := loads[i], marked[p]
			f := finding{ld: ld, result: "GRANTED"}
			image, err := images[i].Text()
			switch {
			case err == nil:
				f.result, f.image = "HIT", []byte(image)
			case !errors.Is(err, redis.Nil):
				f.err = fromRedis(err, "nothing was read")
			case m.err() != nil: // what is deleted is not known
				f.err = fromRedis(m.err(), "nothing was read")
			case nth(m.dirty, n) != nil || nth(m.flushing, n) != nil || parkedDeletion(nth(m.parked, n)):
				f.result = "GONE"
			}
			if found = append(found, f); f.result != "GRANTED" || f.err != nil {
				delete(h.watched, ld)
				spare = append(spare, ld.name)
			}
		}
	}
	// Before anybody is answered. It ends what is watched too, and so leaves the fill to the script.
	l.giveBack(h.token, spare)
	for _, f := range found {
		acquired(f.ld, f.result, f.image, f.err)
	}
	return nil
}

// journalMarks is what the journal of one partition has of keys: their deletions, and what is parked of them.
type journalMarks struct{ dirty, flushing, parked *redis.Cmd }

func (m journalMarks) err() error { return cmp.Or(m.dirty.Err(), m.flushing.Err(), m.parked.Err()) }

// nth is the n-th of what Redis answered.
func nth(c *redis.Cmd, n int) any {
	if all, _ := c.Val().([]any); n < len(all) {
		return all[n]
	}
	return nil
}

// parkedDeletion reports whether what is parked of a key, if anything, is its deletion; see park.lua.
func parkedDeletion(entry any) bool {
	text, _ := entry.(string)
	return strings.HasPrefix(text, `{"mark":"-`)
}

// fill caches what was read under the leases and says of which reads it is cached now, or an image was there instead, as
// runFill does. The rest is for the script.
//
//	MULTI
//	SET image value NX PX ttl   for each key
//	UNLINK aux …
//	EXEC
func (h *hold) fill(m *mapping.Mapping, reads []*read) (done []filling, rest []*read) {
	var sets []*read
	size := 0
	for _, r := range reads {
		if h.watched[r.load] && r.aside == "" && len(r.values) == 1 {
			sets = append(sets, r)
			size += len(r.values[0])
		} else {
			rest = append(rest, r)
		}
	}
	if len(sets) == 0 || size > fillBytes {
		return nil, reads
	}
	l := h.l
	pipe := h.conn.Pipeline()
	pipe.Do(l.ctx, "multi")
	aux := []any{"unlink"}
	for _, r := range sets {
		set := []any{"set", r.name, r.values[0], "nx"}
		if ttl := r.ttl(m); ttl > 0 {
			set = append(set, "px", ttl)
		}
		pipe.Do(l.ctx, set...)
		aux = append(aux, l.aux+r.name+"}")
	}
	pipe.Do(l.ctx, aux...)
	exec := pipe.Do(l.ctx, "exec")
	_, _ = pipe.Exec(l.ctx)
	err := exec.Err()
	h.open = err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "EXECABORT")
	stored, _ := exec.Val().([]any)
	if len(stored) != len(sets)+1 {
		// A lease was taken away, there is no memory, or the connection was cut while MySQL was read. If EXEC was run
		// all the same, the script finds the leases gone, and acquire what is there instead.
		return nil, reads
	}
	for i, r := range sets {
		result := "LOST"
		if stored[i] == "OK" {
			result = "FILLED"
		}
		done = append(done, filling{r, result})
	}
	return done, rest
}

// filling is what became of a read, as fill.lua has it.
type filling struct {
	*read
	result string
}

// end gives the connection back, on which nothing is watched any more.
func (h *hold) end() {
	if h.open {
		// Close cancels l.ctx, and who has the connection next must not be hindered all the same: if Redis does not
		// unwatch now, it has to close it. A connection that does not answer is not used again anyway.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(h.l.ctx), releaseTimeout)
		if isRedisError(h.conn.Do(ctx, "unwatch").Err()) {
			h.conn.Do(ctx, "quit")
		}
		cancel()
	}
	_ = h.conn.Close()
	<-h.l.holds.places
}

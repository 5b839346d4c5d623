package backend

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
)

// CodeNotReplicated is the code of the error reply to a write that is applied, and that fewer replicas have than its
// mapping asks for.
const CodeNotReplicated = "NOTREPLICATED"

// replicasGrace is how much longer than its timeout the reply to a WAIT may take.
const replicasGrace = time.Second

// replicasPause is how soon Redis is asked again after that failed.
const replicasPause = 20 * time.Millisecond

// Replicas finds out whether replicas of Redis have what was written, with WAIT on connections of its own.
//
// WAIT counts the replicas that have what the connection it comes from has written last; since Redis 7.2 a command that
// writes nothing does not move that on. So each WAIT comes behind a small write, on its own connection, see lua/stamp.lua.
// Whatever was acknowledged to a client before that stands before it in the one stream of writes that replicas follow, so
// a replica that has the stamp has all of it. That is why one WAIT serves everybody who asked before it was sent; those who
// ask while it is under way share the next.
//
// The stream is that of one primary. After a failover WAIT may well count replicas that have the stamp and never had the
// write. So with each write comes the name that its primary gave its stream, master_replid, and it has to be the one that
// there is behind the stamp. No primary takes an earlier name again, so if both are the same, there was no other in between.
type Replicas struct {
	rdb    *redis.Client
	stamp  []string
	waited func(writes int, took time.Duration)

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // a goroutine for each queue that is not empty

	waits, writes, missed atomic.Int64

	mu     sync.Mutex
	queues map[mapping.Durability]*replicaQueue // guarded by mu
}

// ReplicaStats is what Replicas did since the start.
type ReplicaStats struct {
	Waits  int64 // WAITs that were answered
	Writes int64 // writes that were told of
	Missed int64 // of these, such that too few replicas had
}

// replicaQueue is the writes that wait for as many replicas as long. They came in the order of their deadlines.
type replicaQueue struct {
	r  *Replicas
	d  mapping.Durability
	on bool // somebody runs it; guarded by mu of Replicas

	waiting []awaited // guarded by mu of Replicas
}

// awaited is one who wants to know.
type awaited struct {
	primary  string
	writes   int
	deadline time.Time
	done     func(error)
}

// NewReplicas returns Replicas for the Redis of cfg; waited is told how long each WAIT took, and how many writes shared it.
func NewReplicas(cfg RedisConfig, j mapping.Journal, waited func(writes int, took time.Duration)) (*Replicas, error) {
	o, err := redisOptions(cfg)
	if err != nil {
		return nil, err
	}
	o.ReadTimeout = -1 // the context of each call has a deadline
	r := &Replicas{rdb: redis.NewClient(o), stamp: []string{j.Stamp()}, waited: waited, queues: map[mapping.Durability]*replicaQueue{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// Close fails everybody who still waits.
func (r *Replicas) Close() {
	r.cancel()
	r.wg.Wait()
	_ = r.rdb.Close()
}

// Stats is what was done.
func (r *Replicas) Stats() ReplicaStats {
	return ReplicaStats{r.waits.Load(), r.writes.Load(), r.missed.Load()}
}

// Await calls done exactly once, from another goroutine: with nil once d.Replicas replicas have everything that primary,
// which is a master_replid, had written before the call; or with an error that a client can be given, at once if there is
// another primary, else when d.Timeout has passed. done must not block.
func (r *Replicas) Await(d mapping.Durability, primary string, writes int, done func(err error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queues[d]
	if q == nil {
		q = &replicaQueue{r: r, d: d}
		r.queues[d] = q
	}
	q.waiting = append(q.waiting, awaited{primary, writes, time.Now().Add(d.Timeout), done})
	if !q.on {
		q.on = true
		r.wg.Go(q.run)
	}
}

// run asks until nobody waits any more.
func (q *replicaQueue) run() {
	r := q.r
	for batch := q.take(nil); len(batch) > 0; batch = q.take(batch) {
		since := time.Now()
		primary, replicas, err := r.ask(q.d.Replicas, batch[0].deadline)
		writes := 0
		for _, a := range batch {
			writes += a.writes
		}
		if err == nil {
			r.waits.Add(1)
			r.waited(writes, time.Since(since))
		}
		if batch = q.tell(batch, primary, replicas, err); err != nil && len(batch) > 0 {
			r.rest(batch[0].deadline)
		}
	}
}

// take returns those who wait, with those who have waited before in front.
func (q *replicaQueue) take(before []awaited) []awaited {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	batch := append(before, q.waiting...)
	q.waiting, q.on = nil, len(batch) > 0
	return batch
}

// tell tells those of a batch for whom that is settled, and returns the others.
func (q *replicaQueue) tell(batch []awaited, primary string, replicas int64, err error) (left []awaited) {
	now, closed := time.Now(), q.r.ctx.Err() != nil
	for _, a := range batch {
		var answer error
		switch {
		case err == nil && a.primary != primary:
			answer = errOtherPrimary
		case err == nil && replicas >= int64(q.d.Replicas):
		case now.Before(a.deadline) && !closed:
			left = append(left, a)
			continue
		case err != nil:
			answer = notReplicated(fmt.Sprintf("redis could not say within %v whether %s: %v", q.d.Timeout, q.have(), err))
		default:
			answer = notReplicated(fmt.Sprintf("after %v only %d of the %d replicas that its mapping asks for had it", q.d.Timeout, replicas, q.d.Replicas))
		}
		q.r.writes.Add(int64(a.writes))
		if answer != nil {
			q.r.missed.Add(int64(a.writes))
		}
		a.done(answer)
	}
	return left
}

func (q *replicaQueue) have() string {
	if q.d.Replicas == 1 {
		return "a replica has it"
	}
	return strconv.Itoa(q.d.Replicas) + " replicas have it"
}

// notReplicated is the error of a write that is in Redis and in the journal and may not be safe.
func notReplicated(why string) error {
	return &Error{CodeNotReplicated, "it was applied, and goes to mysql unless redis loses it, but " + why +
		"; look after the replicas of redis, and write it again if it must be safe"}
}

// otherPrimary is the error of a write that was made on a primary which is none any more.
type otherPrimary struct{ reply Error }

func (e *otherPrimary) Error() string { return e.reply.Error() }
func (e *otherPrimary) RESP() string  { return e.reply.RESP() }
func (e *otherPrimary) Unwrap() error { return mapping.ErrOtherPrimary }

var errOtherPrimary = &otherPrimary{Error{CodeNotReplicated, "it was applied, but redis has another primary since, which may not have it; read it, and write it again if it is gone"}}

// ask returns how many replicas have what primary has written until now, once these are n or the deadline has passed.
func (r *Replicas) ask(n int, deadline time.Time) (primary string, replicas int64, err error) {
	left := max(1, (time.Until(deadline) + time.Millisecond - 1).Milliseconds()) // 0 would be for ever
	ctx, cancel := context.WithTimeout(r.ctx, time.Duration(left)*time.Millisecond+replicasGrace)
	defer cancel()
	pipe := r.rdb.Pipeline()
	scriptStamp.Eval(ctx, pipe, r.stamp)
	about := pipe.Info(ctx, "replication")
	wait := pipe.Do(ctx, "WAIT", n, left)
	if _, err := pipe.Exec(ctx); err != nil {
		return "", 0, err
	}
	replicas, err = wait.Int64()
	return fieldsOf(about.Val())["master_replid"], replicas, err
}

var scriptStamp = newScript("stamp")

func (r *Replicas) rest(deadline time.Time) {
	t := time.NewTimer(min(replicasPause, time.Until(deadline)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
}

// CheckReplicas warns of a Redis that has fewer replicas than a mapping wants its writes on.
func CheckReplicas(ctx context.Context, rdb *redis.Client, mappings []mapping.Config) (warnings []string, err error) {
	most := 0
	for _, m := range mappings {
		most = max(most, m.Replicas)
	}
	if most == 0 {
		return nil, nil
	}
	about, err := info(ctx, rdb, "replication")
	if err != nil {
		return nil, fmt.Errorf("redis at %s: info replication: %w", rdb.Options().Addr, err)
	}
	if about["master_replid"] == "" {
		return nil, errors.New("redis at " + rdb.Options().Addr + ` does not say in INFO replication which primary it is, without which durability = "replicas" cannot work; use a server that does, or durability = "redis"`)
	}
	online := 0
	for name, value := range about {
		if strings.HasPrefix(name, "slave") && strings.Contains(value, "state=online") {
			online++
		}
	}
	for _, m := range mappings {
		if m.Replicas > online {
			warnings = append(warnings, fmt.Sprintf("mapping %q wants each write on %d replicas, and redis at %s has %d that are online, so its writes are "+
				"answered -%s; add replicas, or lower replicas", m.Name, m.Replicas, rdb.Options().Addr, online, CodeNotReplicated))
		}
	}
	return warnings, nil
}

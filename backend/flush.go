package backend

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"keyrow/mapping"
)

// Points at which FlusherOptions.Hook is called, in the order of a flush. Between committed and settled the rows are
// in MySQL and their marks still in Redis.
const (
	HookLocked       = "flush.locked"        // the partition is ours in MySQL
	HookFenced       = "flush.fenced"        // and in Redis
	HookSwept        = "flush.swept"         // marks were taken over
	HookRead         = "flush.read"          // the images of a batch were read
	HookAnnounced    = "flush.announced"     // the keys that other mappings have for its rows are in the stale set
	HookBeforeCommit = "flush.before-commit" // a transaction has run its statements
	HookCommitted    = "flush.committed"     // a transaction was committed
	HookDropped      = "flush.dropped"       // the images under other keys are gone
	HookPart         = "flush.part"          // of some keys the marks are gone, those of the batch that are parked or wait are not
	HookParked       = "flush.parked"        // marks have gone to the parked keys
	HookDeferred     = "flush.deferred"      // marks were put back
	HookSettled      = "flush.settled"       // all marks of the batch are gone
)

// referencePatience is how long a row whose foreign key fails is tried again before it is parked: its parent may be
// behind it in another partition.
const referencePatience = 30 * time.Second

// drainPoll is how often Drain looks whether the marks are gone.
const drainPoll = 20 * time.Millisecond

// FlusherOptions are what a flusher works on. All but Look, Flushed, Log and Hook are required.
type FlusherOptions struct {
	Journal *Journal
	Redis   *redis.Client
	// DB is the pool of OpenOwners: connections that are closed when given back, each with a session timeout.
	DB *sql.DB
	// Mappings returns the mappings in force; each batch asks anew.
	Mappings func() *mapping.Set
	// Look brings Mappings up to date with the tables; it is called where a table does not seem to be what its mapping
	// says.
	Look func(context.Context) error
	Log  zerolog.Logger
	// Flushed is told of every batch that was worked off: how many keys it had and how long it took, from reading their
	// images to settling them; it must not block.
	Flushed func(keys int, took time.Duration)
	// Hook is called at the points named Hook..., on the goroutine that flushes.
	Hook func(point string)
}

// Flusher brings the rows in MySQL up to the images in Redis. Every process runs one; for each partition one of them
// is the owner at a time (see owner), the others wait for it to end.
type Flusher struct {
	journal  *Journal
	rdb      *redis.Client
	db       *sql.DB
	mappings func() *mapping.Set
	look     func(context.Context) error
	log      zerolog.Logger
	often    zerolog.Logger // for what may go on for long or concern many keys: a few lines every ten seconds
	flushed  func(keys int, took time.Duration)
	hook     func(string)
	patience time.Duration

	kicks []chan struct{} // one per partition: do not wait for the rest of the interval
	stats stats

	mu     sync.Mutex
	pauses map[*mapping.Mapping]*pause // mappings whose table does not fit, until it is tried again
}

// stats are counters since the start of this process.
type stats struct {
	sweeps, batches, rows, upserts, deletes, retries, deferred, parked, lost atomic.Int64

	owns  []atomic.Bool // by partition: this process owns it now, and has swept it
	known []atomic.Bool // by partition: this process knows of an owner, itself or another, since its start

	retried [len(RetryClasses)]atomic.Int64 // of retries
}

// Snapshot is the state of the journal and what this process did to flush it. Counters run from the start of the
// process.
type Snapshot struct {
	Pending   int64         // marks waiting in all partitions
	OldestAge time.Duration // age of the oldest of them, 0: none waits
	Rate      int64         // marks that all processes worked off in the last second
	Parked    int64         // keys parked now
	Losses    int64         // how often Redis came back without the journal
	Owned     []int         // partitions this process owns now, and has swept
	Ownerless []int         // partitions of which this process has known no owner since its start
	Paused    []string      // mappings whose tables could not be written at the last try

	Sweeps, Batches int64
	Rows            int64                    // rows written or deleted: marks settled by a commit, several marks of one key counted once
	Upserts         int64                    // INSERT and UPDATE statements, failed ones included
	Deletes         int64                    // DELETE statements, failed ones included
	Retries         int64                    // batches given up to be tried again
	Retried         [len(RetryClasses)]int64 // the same, as RetryClasses has them
	Deferred        int64                    // keys put back to wait for a parent row, a lock or a table
	NewlyParked     int64                    // keys parked
	Lost            int64                    // keys marked as written whose image was gone; NewlyParked counts them too
}

// NewFlusher returns a flusher that does nothing until Run.
func NewFlusher(o FlusherOptions) *Flusher {
	if o.Hook == nil {
		o.Hook = func(string) {}
	}
	if o.Look == nil {
		o.Look = func(context.Context) error { return nil }
	}
	if o.Flushed == nil {
		o.Flushed = func(int, time.Duration) {}
	}
	f := &Flusher{
		journal:  o.Journal,
		rdb:      o.Redis,
		db:       o.DB,
		mappings: o.Mappings,
		look:     o.Look,
		log:      o.Log,
		often:    o.Log.Sample(&zerolog.BurstSampler{Burst: 5, Period: 10 * time.Second}),
		flushed:  o.Flushed,
		hook:     o.Hook,
		patience: referencePatience,
		pauses:   make(map[*mapping.Mapping]*pause),
	}
	n := o.Journal.cfg.Partitions
	f.stats.owns, f.stats.known = make([]atomic.Bool, n), make([]atomic.Bool, n)
	for range n {
		f.kicks = append(f.kicks, make(chan struct{}, 1))
	}
	return f
}

// Run contends for every partition and flushes those it owns until ctx ends. It returns nil after every owner has
// given its partition back and closed its connection. A batch that is not committed by then is left to the next
// owner; so whoever wants the journal empty calls Drain first and ends ctx after it.
func (f *Flusher) Run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error {
		f.journal.watch(ctx)
		return nil
	})
	for p := range f.journal.cfg.Partitions {
		group.Go(func() error {
			newOwner(f, p).run(ctx)
			return nil
		})
	}
	return group.Wait()
}

// Drain waits until none of the marks that are in the journal at the time of the call is left in it, and makes the
// owners of this process hurry. Partitions of other processes are waited for as well; marks set meanwhile, and parked
// keys, are not. It flushes nothing itself: Run has to be running, here or in the process that owns the partition.
// If ctx ends first, it returns the number of marks that are left, -1 if unknown, and why.
func (f *Flusher) Drain(ctx context.Context) (remaining int, err error) {
	var upTo []any
	return f.drain(ctx, f.kicks, func() (n int, err error) {
		if upTo == nil {
			if upTo, err = f.newest(ctx); err != nil {
				return 0, err
			}
		}
		return f.older(ctx, upTo)
	})
}

// DrainKey is Drain for the marks of one key.
func (f *Flusher) DrainKey(ctx context.Context, key string) (remaining int, err error) {
	p := f.journal.keys.Partition([]byte(key))
	names := f.journal.partition(p)
	upTo := "-inf"
	count := func() (int, string, error) {
		reply, err := scriptWaits.Run(ctx, f.rdb, []string{names.dirty, names.flushing}, key, upTo).Slice()
		if err != nil {
			return 0, "", err
		}
		return int(reply[0].(int64)), reply[1].(string), nil
	}
	return f.drain(ctx, f.kicks[p:p+1], func() (n int, err error) {
		if upTo == "-inf" {
			var newest string
			if _, newest, err = count(); err != nil || newest == "" {
				return 0, err
			}
			upTo = newest
		}
		n, _, err = count()
		return n, err
	})
}

// drain waits until left returns 0.
func (f *Flusher) drain(ctx context.Context, kicks []chan struct{}, left func() (int, error)) (remaining int, err error) {
	remaining = -1
	for {
		var n int
		if n, err = left(); err == nil {
			if remaining = n; n == 0 {
				return 0, nil
			}
		}
		for _, c := range kicks {
			select {
			case c <- struct{}{}:
			default: // one is waiting already
			}
		}
		select {
		case <-ctx.Done():
			if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return remaining, ctx.Err()
			}
			return remaining, fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(drainPoll):
		}
	}
}

// Left is the number of marks in the journal.
func (f *Flusher) Left(ctx context.Context) (int, error) {
	upTo, err := f.newest(ctx)
	if err != nil {
		return 0, err
	}
	return f.older(ctx, upTo)
}

// newest is, for every partition, the highest score of a mark there is, or now. Not now alone: the clock of another
// process may be ahead.
func (f *Flusher) newest(ctx context.Context) ([]any, error) {
	now := float64(time.Now().UnixMilli())
	pipe := f.rdb.Pipeline()
	var heads [][2]*redis.ZSliceCmd
	for p := range f.journal.cfg.Partitions {
		names := f.journal.partition(p)
		heads = append(heads, [2]*redis.ZSliceCmd{
			pipe.ZRevRangeWithScores(ctx, names.dirty, 0, 0), pipe.ZRevRangeWithScores(ctx, names.flushing, 0, 0),
		})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	upTo := make([]any, len(heads))
	for p, head := range heads {
		score := now
		for _, set := range head {
			if z := set.Val(); len(z) > 0 {
				score = max(score, z[0].Score)
			}
		}
		upTo[p] = strconv.FormatFloat(score, 'f', -1, 64)
	}
	return upTo, nil
}

// older counts the marks up to a score in each partition.
func (f *Flusher) older(ctx context.Context, upTo []any) (int, error) {
	var sets []string
	for p := range upTo {
		names := f.journal.partition(p)
		sets = append(sets, names.dirty, names.flushing)
	}
	return scriptOlder.Run(ctx, f.rdb, sets, upTo...).Int()
}

// Snapshot is cheap: it asks no server.
func (f *Flusher) Snapshot() Snapshot {
	s := Snapshot{
		Pending: f.journal.Pending(),
		Rate:    f.journal.rate.perSecond.Load(),
		Parked:  f.journal.parked.Load(),
		Losses:  f.journal.losses.Load(),

		Sweeps:      f.stats.sweeps.Load(),
		Batches:     f.stats.batches.Load(),
		Rows:        f.stats.rows.Load(),
		Upserts:     f.stats.upserts.Load(),
		Deletes:     f.stats.deletes.Load(),
		Retries:     f.stats.retries.Load(),
		Deferred:    f.stats.deferred.Load(),
		NewlyParked: f.stats.parked.Load(),
		Lost:        f.stats.lost.Load(),
	}
	if s.Pending > 0 {
		s.OldestAge = f.journal.age()
	}
	for p := range f.stats.owns {
		if f.stats.owns[p].Load() {
			s.Owned = append(s.Owned, p)
		}
		if !f.stats.known[p].Load() {
			s.Ownerless = append(s.Ownerless, p)
		}
	}
	for c := range f.stats.retried {
		s.Retried[c] = f.stats.retried[c].Load()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for m := range f.pauses {
		s.Paused = append(s.Paused, m.Name)
	}
	return s
}

package backend

import (
	"context"
	"crypto/rand"
	"database/sql"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/mapping"
)

const (
	// roundKeys and roundBytes bound the keys of one round, and so the size of its SELECT: an IN of 256 keys has the
	// most of what batching gains, and a statement of 256 KiB, twice that when every byte is escaped, is within any
	// max_allowed_packet in use.
	roundKeys  = 256
	roundBytes = 256 << 10

	// maxRounds is how many rounds of a mapping may be under way at a time. A round mostly waits for Redis and MySQL:
	// with one alone 50 clients get three quarters of the rows, and with eight no more.
	maxRounds = 4

	// leaseMargin is how much longer a lease lasts than the SELECT it covers: time for the fill that follows.
	leaseMargin = time.Second

	// A key whose lease is another's is looked at again after pollFirst, then ever later up to pollLast.
	pollFirst = 5 * time.Millisecond
	pollLast  = 50 * time.Millisecond

	// maxLost is how many fills of a key in a row may be rejected, with nothing there instead, before the row is
	// answered without being cached.
	maxLost = 4

	// maxLostWhole is maxLost of what cannot be answered without being cached: a hash, say, which Redis has to have. Every
	// reload that drops outdated copies may take the lease away.
	maxLostWhole = 32

	// ttlJitter is the share by which a TTL is made longer or shorter, so that what was filled together does not
	// expire together.
	ttlJitter = 0.1

	// releaseTimeout bounds giving back leases after a failed SELECT; those not given back run out.
	releaseTimeout = time.Second
)

var errClosed = &Error{CodeErr, "shutting down: nothing was read"}

// A Loader reads rows and results of queries for keys that have no image, and caches them.
//
// Keys of one mapping are read in rounds, a few at a time: keys that are asked for while all of them are under way go
// together in the next. A round has three stages, each one round trip for all of its keys: acquire (look again, take the
// lease), select (the rows of the leased keys; for a query a SELECT for each), fill (cache, if the lease is still ours).
// See load_round.go.
type Loader struct {
	rdb      *redis.Client
	db       *sql.DB
	journal  mapping.Journal
	timeout  time.Duration // of a SELECT
	lease    time.Duration
	staleFor time.Duration
	most     atomic.Int64 // of waiting
	altered  func()
	watch    *Watch // nil: mappings stay as they are
	selected func(mapping string, keys int, took time.Duration)
	hook     func(point string)
	log      zerolog.Logger
	early    *early
	guard    *guard
	holds    holds
	sets     []journalSets // of each partition
	aux      string        // what the name of an aux key has before the key

	token    string // start of every token of this Loader
	tokens   atomic.Uint64
	counters loadCounters

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // run, one for each of queues, and its rounds

	mu       sync.Mutex
	closed   bool
	waiting  int                         // waiters of all keys under way
	queues   map[*mapping.Mapping]*queue // those with a key under way
	bypasses map[*mapping.Mapping]*bypass
}

// journalSets are the names of the sets of one partition that tell of deleted rows.
type journalSets struct{ dirty, flushing, parked string }

// queue is what is under way for one mapping. Its fields are guarded by Loader.mu.
type queue struct {
	m     *mapping.Mapping
	loads map[string]*load // every key under way
	ready []*load          // to go into the next round, in order
	later []*load          // leased by another; looked at again once due
	wake  chan struct{}    // tells run, which waits for a key to come due, that something changed
	turns chan struct{}    // holds one for every round under way
}

// load is one key under way, and who waits for it. Its fields belong to the round it is in, but for waiters, which
// Loader.mu guards.
type load struct {
	key     []byte
	name    string // key too
	waiters []func(image []byte, leased bool, err error)

	asked int // how many of waiters had joined when acquire was last sent
	sent  int // how many of waiters had joined when the last script was sent

	since time.Time // when it was put into ready; zero: a round has begun with it

	polls  int       // how often acquire found the lease another's
	due    time.Time // when to look again
	giveUp time.Time // when to stop waiting for another's lease
	lost   int       // how many fills in a row were rejected with nothing there instead
}

// LoaderOptions are what a Loader works on. All are required but those that say otherwise, Altered, Watch, Selected, Hook
// and Log.
type LoaderOptions struct {
	Redis   *redis.Client
	DB      *sql.DB // the pool of OpenMySQL
	Journal mapping.Journal
	// Timeout of one SELECT, the wait for a free connection included.
	Timeout time.Duration
	// MaxWaiting bounds the reads under way; 0: DefaultMySQLMaxWaiting.
	MaxWaiting int
	// Ping asks MySQL for a sign of life on a connection that no SELECT holds up; nil: on one of DB.
	Ping func(context.Context) error
	// Altered is called where a table does not seem to be what its mapping says; it must not block.
	Altered func()
	// Watch knows which mappings are in force. Without it, all are.
	Watch *Watch
	// Selected is told of every SELECT, failed ones included: for how many keys, and how long it took with the reading of
	// its rows; it must not block.
	Selected func(mapping string, keys int, took time.Duration)
	// Hook is called at HookGranted, HookSelected and HookFilled, on the goroutine of the round.
	Hook func(point string)
	Log  zerolog.Logger
}

// Points of a round at which LoaderOptions.Hook is called, in this order.
const (
	HookGranted  = "load.granted"  // leases were taken, and nothing was read yet
	HookSelected = "load.selected" // the rows were read, and nothing was cached yet
	HookFilled   = "load.filled"   // the fills have run in Redis, and nobody was answered yet
)

// NewLoader returns a Loader that lives until Close.
func NewLoader(o LoaderOptions) *Loader {
	if o.Hook == nil {
		o.Hook = func(string) {}
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = DefaultMySQLMaxWaiting
	}
	if o.Ping == nil {
		o.Ping = o.DB.PingContext
	}
	if o.Altered == nil {
		o.Altered = func() {}
	}
	if o.Selected == nil {
		o.Selected = func(string, int, time.Duration) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Loader{
		rdb: o.Redis, db: o.DB, journal: o.Journal,
		timeout: o.Timeout, lease: o.Timeout + leaseMargin, staleFor: staleFor,
		altered: o.Altered, watch: o.Watch, selected: o.Selected, hook: o.Hook, log: o.Log,
		token: rand.Text() + ":",
		ctx:   ctx, cancel: cancel,
		aux:    auxPrefix(o.Journal),
		queues: make(map[*mapping.Mapping]*queue), bypasses: make(map[*mapping.Mapping]*bypass),
	}
	l.SetMaxWaiting(o.MaxWaiting)
	l.holds.places = make(chan struct{}, maxHolds)
	l.guard, l.early = newGuard(l, o.Ping, o.Log), newEarly()
	for p := range o.Journal.Partitions {
		l.sets = append(l.sets, journalSets{
			dirty:    string(o.Journal.AppendDirty(nil, p)),
			flushing: string(o.Journal.AppendFlushing(nil, p)),
			parked:   string(o.Journal.AppendParked(nil, p)),
		})
	}
	return l
}

// Load reads the value of key, which has no image as far as the caller knows, and calls done once, from any goroutine:
// with the image, which is shared and not to be changed; with nil if there is nothing; or with an error that says what
// a client is told. Of a kind that Redis does not keep as a string, the image is in Redis, not in what done is given:
// that is empty. leased says that another process was waited for, which had the lease. done must not block. Load keeps no
// reference to key.
func (l *Loader) Load(m *mapping.Mapping, key []byte, done func(image []byte, leased bool, err error)) {
	l.counters.loads.Add(1)
	l.load(m, key, done)
}

// load is Load for a call that was counted.
func (l *Loader) load(m *mapping.Mapping, key []byte, done func(image []byte, leased bool, err error)) {
	if err := m.Unfit(); err != nil {
		l.counters.errors.Add(1)
		done(nil, false, suspended(m, err))
		return
	}
	if !m.Names(key) {
		done(nil, false, nil)
		return
	}
	if err := l.join(m, key, done); err != nil {
		l.counters.errors.Add(1)
		done(nil, false, err)
	}
}

// auxPrefix is what the name of an aux key has before the key; behind it is a brace.
func auxPrefix(j mapping.Journal) string {
	return strings.TrimSuffix(string(j.AppendAux(nil, nil)), "}")
}

// newLoad is key with nobody waiting for it. It keeps no reference to key.
func newLoad(key []byte) *load { return &load{key: append([]byte(nil), key...), name: string(key)} }

// join makes done wait for key, and starts the rounds of the mapping if there are none under way. It fails if the
// Loader is closed, or has as many waiters as it may have.
func (l *Loader) join(m *mapping.Mapping, key []byte, done func(image []byte, leased bool, err error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return errClosed
	case l.crowded():
		l.counters.crowded.Add(1)
		return crowded(int(l.most.Load()))
	}
	l.waiting++
	q := l.queues[m]
	if q == nil {
		q = newQueue(m)
		l.queues[m] = q
		l.wg.Add(1)
		go l.run(q)
	}
	if ld := q.loads[string(key)]; ld != nil {
		l.counters.joined.Add(1)
		ld.waiters = append(ld.waiters, done)
		return nil
	}
	ld := newLoad(key)
	ld.waiters, ld.since = append(ld.waiters, done), time.Now()
	q.loads[ld.name] = ld
	q.ready = append(q.ready, ld)
	q.changed()
	return nil
}

// SetMaxWaiting bounds the reads under way from now on.
func (l *Loader) SetMaxWaiting(most int) { l.most.Store(int64(most)) }

// crowded reports whether no more reads may wait. It is called with mu held.
func (l *Loader) crowded() bool { return int64(l.waiting) >= l.most.Load() }

// Integer runs a script as keyrow itself and calls done once, from another goroutine, with the integer that it returned
// or with an error that says what a client is told.
func (l *Loader) Integer(script string, keys, args []string, done func(n int64, err error)) {
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.wg.Add(1)
	}
	l.mu.Unlock()
	if closed {
		go done(0, errClosed)
		return
	}
	argv := make([]any, len(args))
	for i, a := range args {
		argv[i] = a
	}
	go func() {
		defer l.wg.Done()
		n, err := redis.NewScript(script).Run(l.ctx, l.rdb, keys, argv...).Int64()
		if err != nil {
			err = fromRedis(err, "nothing was read")
		}
		done(n, err)
	}()
}

// Close ends the rounds under way and waits for them. Who still waits for a key gets an error.
func (l *Loader) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.wg.Wait()
}

func newQueue(m *mapping.Mapping) *queue {
	rounds := maxRounds
	if m.Query || m.MaxSelects > 0 {
		rounds = 1 // a query has several SELECTs at a time already; where they are few, each is to have many keys
	}
	return &queue{m: m, loads: make(map[string]*load), wake: make(chan struct{}, 1), turns: make(chan struct{}, rounds)}
}

// changed has run look again.
func (q *queue) changed() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run runs the rounds of a mapping until no key is under way.
func (l *Loader) run(q *queue) {
	defer l.wg.Done()
	for l.ctx.Err() == nil {
		q.turns <- struct{}{}
		loads, pause, idle := l.next(q)
		switch {
		case idle:
			return
		case len(loads) > 0:
			l.wg.Go(func() {
				l.round(q, l.inTime(q, loads))
				<-q.turns
				q.changed()
			})
		default:
			<-q.turns
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-q.wake:
			case <-l.ctx.Done():
			}
			timer.Stop()
		}
	}
	for range cap(q.turns) {
		q.turns <- struct{}{} // none is under way any more
	}
	l.abandon(q)
}

// next takes the keys of the next round; or says how long to wait for one; or that nothing is under way, and then the
// queue is gone and run must end.
func (l *Loader) next(q *queue) (loads []*load, pause time.Duration, idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(q.loads) == 0 {
		delete(l.queues, q.m)
		return nil, 0, true
	}

	pause = math.MaxInt64
	if len(q.later) > 0 {
		now := time.Now()
		later := q.later[:0]
		for _, ld := range q.later {
			if d := ld.due.Sub(now); d > 0 {
				pause = min(pause, d)
				later = append(later, ld)
			} else {
				q.ready = append(q.ready, ld)
			}
		}
		clear(q.later[len(later):])
		q.later = later
	}

	most := roundKeys
	if q.m.Query {
		most = queryKeys
	}
	n, size := 0, 0
	for n < len(q.ready) && n < most {
		size += len(q.ready[n].key)
		if n > 0 && size > roundBytes {
			break
		}
		n++
	}
	loads = append(loads, q.ready[:n]...)
	q.ready = slices.Delete(q.ready, 0, n)
	return loads, pause, false
}

// abandon answers everybody who still waits, when the Loader is closed.
func (l *Loader) abandon(q *queue) {
	l.mu.Lock()
	delete(l.queues, q.m)
	var waiters []func([]byte, bool, error)
	for _, ld := range q.loads {
		waiters = append(waiters, ld.waiters...)
	}
	l.waiting -= len(waiters)
	l.mu.Unlock()
	l.counters.errors.Add(uint64(len(waiters)))
	for _, done := range waiters {
		done(nil, false, errClosed)
	}
}

// answer gives the first n waiters of a key their answer. Those who joined later go into another round.
func (l *Loader) answer(q *queue, ld *load, n int, image []byte) {
	l.mu.Lock()
	waiters, leased := ld.waiters[:n:n], ld.polls > 0
	l.waiting -= n
	if ld.waiters = ld.waiters[n:]; len(ld.waiters) == 0 {
		delete(q.loads, ld.name)
	} else {
		ld.polls, ld.lost, ld.giveUp, ld.since = 0, 0, time.Time{}, time.Now()
		q.ready = append(q.ready, ld)
	}
	l.mu.Unlock()
	for _, done := range waiters {
		done(image, leased, nil)
	}
}

// fail gives every waiter of a key the same error: unlike a value, it is as true for those who joined later.
func (l *Loader) fail(q *queue, ld *load, err error) {
	if l.ctx.Err() != nil {
		err = errClosed
	}
	l.mu.Lock()
	waiters, leased := ld.waiters, ld.polls > 0
	l.waiting -= len(waiters)
	delete(q.loads, ld.name)
	l.mu.Unlock()
	l.counters.errors.Add(uint64(len(waiters)))
	for _, done := range waiters {
		done(nil, leased, err)
	}
}

// again puts a key into the next round.
func (l *Loader) again(q *queue, ld *load) {
	l.mu.Lock()
	q.ready = append(q.ready, ld)
	l.mu.Unlock()
}

// poll has a key whose lease is another's looked at again after a while. It is false if that went on for as long as a
// lease lasts.
func (l *Loader) poll(q *queue, ld *load) bool {
	now := time.Now()
	if ld.giveUp.IsZero() {
		ld.giveUp = now.Add(l.leaseOf(q.m))
	} else if now.After(ld.giveUp) {
		return false
	}
	ld.due = now.Add(backoff(ld.polls))
	ld.polls++
	l.mu.Lock()
	q.later = append(q.later, ld)
	l.mu.Unlock()
	return true
}

// sending notes, for every key, who had joined by now; it is called right before a script is sent for them.
func (l *Loader) sending(loads []*load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ld := range loads {
		ld.sent = len(ld.waiters)
	}
}

// newToken is a token no other lease has, and not mapping.NegativeEntry.
func (l *Loader) newToken() string {
	return l.token + strconv.FormatUint(l.tokens.Add(1), 36)
}

// backoff is the pause after the poll of this number, from 0 on: half of it at random.
func backoff(poll int) time.Duration {
	d := pollLast
	if poll < 8 {
		d = min(d, pollFirst<<poll)
	}
	return d/2 + mathrand.N(d/2)
}

// jittered is ttl in ms, up to ttlJitter longer or shorter; 0 stays 0, and nothing else becomes 0.
func jittered(ttl time.Duration) int64 {
	if ttl <= 0 {
		return 0
	}
	spread := (2*mathrand.Float64() - 1) * ttlJitter
	return max(1, time.Duration(float64(ttl)*(1+spread)).Milliseconds())
}

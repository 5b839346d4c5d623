package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"keyrow/mapping"
)

const (
	// warmKeys is how many rows go together: more of them gain no more, see roundKeys.
	warmKeys = roundKeys

	// A limited rate is kept in steps of about this long, so that it is even and not all at once each second.
	warmSteps = 10 // a second

	// warmMemory is the share of maxmemory at which warming stops, so that Redis does not evict what clients use for
	// what they may never ask for.
	warmMemory = 0.95

	// warmReasons is how many rows that cannot be cached are told one by one.
	warmReasons = 10
)

// WarmOptions say what [Loader.Warm] is to do.
type WarmOptions struct {
	Mapping *mapping.Mapping
	From    []byte // the key to start at; nil: the first. Of no use for a query.
	Rate    int    // the most rows to go through in a second; 0: no limit
	// Parallel is how many batches may be under way at a time, and so the most connections to MySQL at a time, besides
	// the one that lists the keys.
	Parallel int
	// Progress is called after each batch, by one goroutine at a time.
	Progress func(WarmStats)
}

// WarmStats counts rows.
//
//	Rows = Cached + Present + Deleted + Leased + Negative + Changed + Absent + Keyless + Failed
type WarmStats struct {
	Rows     uint64 `json:"rows"`     // that were gone through
	Cached   uint64 `json:"cached"`   // that are in Redis now, and were not before
	Present  uint64 `json:"present"`  // that were in Redis already
	Deleted  uint64 `json:"deleted"`  // deleted in Redis, and in MySQL with the next flush
	Leased   uint64 `json:"leased"`   // that somebody else was reading
	Negative uint64 `json:"negative"` // that Redis remembered not to exist: they are new
	Changed  uint64 `json:"changed"`  // written or deleted while they were read
	Absent   uint64 `json:"absent"`   // gone when they were read, or NULL in the one column of a string
	Keyless  uint64 `json:"keyless"`  // whose values make no key
	Failed   uint64 `json:"failed"`   // that cannot be shown as an image
}

// WarmResult is what came of [Loader.Warm].
type WarmResult struct {
	WarmStats
	Last    []byte   // the last key of which, and of all before it, nothing is left to be done; nil: there is none
	Reasons []string // of some of those that failed
}

// Warm caches the rows of a mapping in the order of its key, or the result of a query that has one key. It takes a
// lease before it reads each row, as readers do, so that nothing stale is cached whatever is written meanwhile; it
// leaves alone what is there already, and what somebody else reads or has deleted.
//
// When it fails, Last is where to go on. The end of ctx is the end of the Loader, too.
func (l *Loader) Warm(ctx context.Context, o WarmOptions) (WarmResult, error) {
	defer context.AfterFunc(ctx, l.cancel)()
	w := &warming{l: l, o: o, size: warmKeys, limit: rate.NewLimiter(rate.Inf, warmKeys)}
	if o.Rate > 0 {
		w.size = min(max(o.Rate/warmSteps, 1), warmKeys)
		w.limit = rate.NewLimiter(rate.Limit(o.Rate), w.size)
	}
	var err error
	if key := o.Mapping.OneKey(); key != nil {
		b := &warmBatch{keys: [][]byte{key}}
		b.stats.Rows = 1
		err = w.run(ctx, b)
	} else {
		err = w.walk(ctx)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return w.result, err
}

// Estimate is about how many rows there are from a key on, nil: in all; 0: nobody knows. It reads none of them.
func (l *Loader) Estimate(ctx context.Context, m *mapping.Mapping, from []byte) (int64, error) {
	if m.OneKey() != nil {
		return 1, nil
	}
	at, err := startAt(m, from)
	if err != nil {
		return 0, err
	}
	query, args := m.Page(at, 0)
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	rows, err := l.db.QueryContext(ctx, "EXPLAIN "+query, args...)
	if err != nil {
		return 0, fmt.Errorf("mysql: %w", err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return 0, fmt.Errorf("mysql: %w", err)
	}
	column := slices.Index(columns, "rows") // which the formats other than the usual one have not
	row := newRow(rows)
	var n int64
	for rows.Next() && column >= 0 {
		if err := row.scan(rows); err != nil {
			return 0, fmt.Errorf("mysql: %w", err)
		}
		n, _ = strconv.ParseInt(string(row.values[column]), 10, 64)
	}
	return n, rows.Err()
}

// startAt is the position of a key, nil: the first.
func startAt(m *mapping.Mapping, key []byte) (mapping.Position, error) {
	if key == nil {
		return mapping.Position{}, nil
	}
	return m.At(key)
}

// warming is one call of Warm.
type warming struct {
	l     *Loader
	o     WarmOptions
	size  int
	limit *rate.Limiter

	mu      sync.Mutex
	result  WarmResult   // guarded by mu
	batches []*warmBatch // guarded by mu; from the first that is not done on, in order
}

// warmBatch is the rows of one page.
type warmBatch struct {
	keys  [][]byte
	last  []byte // the last key of it or of a page before
	stats WarmStats
	done  bool // guarded by warming.mu
}

// walk lists the keys page by page and has up to Parallel batches of them cached at a time.
func (w *warming) walk(ctx context.Context) error {
	at, err := startAt(w.o.Mapping, w.o.From)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(w.o.Parallel)
	var last []byte
	for more := true; more && err == nil; {
		if err = w.limit.WaitN(ctx, w.size); err != nil {
			break
		}
		b := &warmBatch{last: last}
		if at, more, err = w.page(ctx, at, b); err == nil && b.stats.Rows > 0 {
			last = b.last
			w.mu.Lock()
			w.batches = append(w.batches, b)
			w.mu.Unlock()
			group.Go(func() error { return w.run(ctx, b) })
		}
	}
	err = unlessDone(ctx, err) // before Wait, which ends ctx
	return errors.Join(group.Wait(), err)
}

// unlessDone is err unless it comes of the end of ctx, whose cause is told already.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// page reads the next keys.
func (w *warming) page(ctx context.Context, at mapping.Position, b *warmBatch) (next mapping.Position, more bool, err error) {
	m := w.o.Mapping
	if err := w.l.guard.wait(ctx, m); err != nil {
		return at, false, err
	}
	err = w.l.guard.attempt(func() (err error) {
		at, more, err = w.list(ctx, at, b)
		return err
	})
	if err != nil {
		return at, false, fmt.Errorf("mysql: %w", err)
	}
	return at, more, nil
}

// list is the SELECT of page.
func (w *warming) list(ctx context.Context, at mapping.Position, b *warmBatch) (next mapping.Position, more bool, err error) {
	m := w.o.Mapping
	query, args := m.Page(at, w.size)
	ctx, cancel := context.WithTimeout(ctx, w.l.timeout)
	defer cancel()
	rows, err := w.l.db.QueryContext(ctx, query, args...)
	if err != nil {
		return at, false, err
	}
	defer rows.Close()
	row := newRow(rows)
	for rows.Next() {
		if err := row.scan(rows); err != nil {
			return at, false, err
		}
		b.stats.Rows++
		if key := m.RowKey(nil, row.values); key != nil && m.Names(key) {
			b.keys = append(b.keys, key)
			b.last = key
		} else {
			b.stats.Keyless++
		}
		if b.stats.Rows == uint64(w.size) {
			at = m.Behind(row.values)
		}
	}
	return at, b.stats.Rows == uint64(w.size), rows.Err()
}

// run caches one batch and counts it.
func (w *warming) run(ctx context.Context, b *warmBatch) error {
	reasons, err := w.cache(ctx, b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		return err
	}
	b.done = true
	for len(w.batches) > 0 && w.batches[0].done {
		w.result.Last = w.batches[0].last
		w.batches = w.batches[1:]
	}
	w.result.add(&b.stats)
	w.result.Reasons = append(w.result.Reasons, reasons[:min(len(reasons), warmReasons-len(w.result.Reasons))]...)
	if w.o.Progress != nil {
		w.o.Progress(w.result.WarmStats)
	}
	return nil
}

func (s *WarmStats) add(o *WarmStats) {
	s.Rows += o.Rows
	s.Cached += o.Cached
	s.Present += o.Present
	s.Deleted += o.Deleted
	s.Leased += o.Leased
	s.Negative += o.Negative
	s.Changed += o.Changed
	s.Absent += o.Absent
	s.Keyless += o.Keyless
	s.Failed += o.Failed
}

// cache is a round, as that of readers, for keys nobody waits for. Whatever becomes of it, no lease is left behind.
func (w *warming) cache(ctx context.Context, b *warmBatch) (reasons []string, err error) {
	l, m := w.l, w.o.Mapping
	if err := l.room(ctx); err != nil {
		return nil, err
	}
	if !m.Query { // before there are leases, which do not last for ever
		if err := l.guard.wait(ctx, m); err != nil {
			return nil, err
		}
	}
	leased, err := w.acquire(b)
	if err != nil || len(leased) == 0 {
		return nil, err
	}
	l.hook(HookGranted)
	if m.Query {
		l.selectResults(m, leased)
	} else if err := l.guard.attempt(func() error { return l.selectRows(m, leased) }); err != nil {
		l.release(leased)
		return nil, fmt.Errorf("mysql: %w", err)
	}
	l.hook(HookSelected)

	var reads, failed []*read
	for _, r := range leased {
		if r.err == nil {
			reads = append(reads, r)
			continue
		}
		failed = append(failed, r)
		b.stats.Failed++
		reasons = append(reasons, fmt.Sprintf("%q: %v", r.key, r.err))
	}
	l.release(failed)
	return reasons, w.fill(b, reads)
}

// acquire counts the keys there is nothing to do for, and returns the others.
func (w *warming) acquire(b *warmBatch) (leased []*read, err error) {
	l := w.l
	loads := make([]*load, len(b.keys))
	for i, key := range b.keys {
		loads[i] = newLoad(key)
	}
	token := l.newToken()
	var reads []*read
	// EXISTS: the images that are there are not wanted.
	l.runAcquire(loads, token, l.lease, "EXISTS", func(ld *load, result string, why []byte, failure error) {
		r := &read{load: ld, token: token}
		reads = append(reads, r)
		switch {
		case failure != nil:
			err = failure
		case result == "GRANTED":
			leased = append(leased, r)
		case result == "HIT":
			b.stats.Present++
		case result == "GONE":
			b.stats.Deleted++
		case result == "NEG":
			b.stats.Negative++
		case result == "WAIT":
			b.stats.Leased++
		case result == "FULL":
			err = fmt.Errorf("redis has no memory left: %s", why)
		default:
			err = fmt.Errorf("redis answered a script with %.40q", result)
		}
	})
	if err != nil {
		l.release(reads) // a lease whose reply was lost is taken all the same
		return nil, err
	}
	return leased, nil
}

// fill caches what was read.
func (w *warming) fill(b *warmBatch, reads []*read) (err error) {
	l, m := w.l, w.o.Mapping
	l.runFill(m, nil, reads, false, func(r *read, result string, why []byte, failure error) {
		switch {
		case failure != nil:
			err = failure
		case result == "FILLED" && r.nothing():
			b.stats.Absent++
		case result == "FILLED":
			b.stats.Cached++
		case result == "UNCACHED":
			err = fmt.Errorf("redis did not take a row: %s", why)
		default:
			b.stats.Changed++
		}
	})
	if err != nil {
		l.release(reads)
	}
	return err
}

// room fails when Redis has used up most of the memory it may use.
func (l *Loader) room(ctx context.Context) error {
	fields, err := info(ctx, l.rdb, "memory")
	if err != nil {
		return fromRedis(err, "nothing was read")
	}
	most, err1 := strconv.ParseFloat(fields["maxmemory"], 64)
	used, err2 := strconv.ParseFloat(fields["used_memory"], 64)
	if err := errors.Join(err1, err2); err != nil || most == 0 || used < most*warmMemory {
		return nil
	}
	const mib = 1 << 20
	return fmt.Errorf("redis uses %.1f MiB, and its maxmemory is %.1f MiB: stopped at %.0f%%, before it evicts what clients "+
		"use; raise maxmemory, or leave the rest to be read when asked for", used/mib, most/mib, warmMemory*100)
}

package backend

import (
	"errors"
	"maps"
	"slices"
	"time"

	cenkalti "github.com/cenkalti/backoff/v5"

	"keyrow/mapping"
)

// Pauses between tries grow from the first to the last.
const (
	retryFirst  = 50 * time.Millisecond // of a batch or a row
	retryLast   = 5 * time.Second
	lockedFirst = time.Second // of a row that somebody has locked, each of which takes lockWait
	lockedLast  = 15 * time.Second
	pauseFirst  = time.Second // of a mapping whose table does not fit
	pauseLast   = 30 * time.Second
)

// lockedRows is how many rows of one mapping may be locked before all of it is taken to be.
const lockedRows = 3

// RetryClasses are the reasons for which a batch is tried again: a lock or a deadlock, another passing failure of MySQL,
// the loss of the connection or of the partition, and Redis.
var RetryClasses = [...]string{"lock", "mysql", "owner", "redis"}

// retrying counts a batch that is tried again because of err.
func (f *Flusher) retrying(err error) {
	class := 3
	switch code := mysqlCode(err); {
	case isLock(err):
		class = 0
	case code != 0:
		class = 1
	case errors.Is(err, errFenced), errors.Is(err, errLostConn):
		class = 2
	}
	f.stats.retries.Add(1)
	f.stats.retried[class].Add(1)
}

// isLock reports whether err says that another transaction was in the way.
func isLock(err error) bool {
	code := mysqlCode(err)
	return code == errLockWait || code == errDeadlock || code == errChanged
}

// pacer draws the pauses between tries, each from nothing to a bound that doubles.
type pacer = cenkalti.ExponentialBackOff

func newPacer(first, last time.Duration) *pacer {
	p := cenkalti.NewExponentialBackOff()
	p.InitialInterval, p.MaxInterval, p.Multiplier = first/2, last/2, 2
	p.RandomizationFactor = 1 // up to twice the interval
	p.Reset()
	return p
}

// waiting is a key whose row could not be written and may be later. It is kept apart from the batches, which would fail
// with it. An owner forgets it with the partition; the next one finds out again.
type waiting struct {
	since time.Time
	next  time.Time // not tried before
	why   uint16    // MySQL's error number
	retry *pacer
}

// postpone puts off the next try of it.
func (o *owner) postpone(it *item, now time.Time, why uint16) *waiting {
	w := o.waiting[it.key]
	if w == nil || w.why != why {
		w = &waiting{since: now, why: why, retry: newPacer(retryFirst, retryLast)}
		if why == errLockWait {
			w.retry = newPacer(lockedFirst, lockedLast)
		}
		o.waiting[it.key] = w
	}
	// Duplicates are all tried again at once: one may be waiting for the other.
	if w.next = now; why != errDuplicate {
		w.next = now.Add(w.retry.NextBackOff())
	}
	return w
}

// patient reports whether an item that failed is to be tried again before it is parked; moved, whether a row that had
// failed as a duplicate has landed beside it.
//
// A foreign key may fail because the parent is behind the child, in another partition.
//
// A duplicate may be of a value that another row is about to give up: b gave up x, a took it, and of both only the last
// images are here. So it is tried again once the others of its batch have landed, and as long as that helps any.
func (o *owner) patient(it *item, now time.Time, moved bool) bool {
	why := mysqlCode(it.err)
	switch {
	case classify(it.err) == reference:
		return now.Sub(o.postpone(it, now, why).since) < o.f.patience
	case why == errDuplicate && (moved || !o.waitsFor(it, errDuplicate)):
		o.postpone(it, now, why)
		return true
	}
	return false
}

func (o *owner) waitsFor(it *item, why uint16) bool {
	w := o.waiting[it.key]
	return w != nil && w.why == why
}

// pause is a mapping that is not flushed for now: its table, or our rights to it, are not what they were.
type pause struct {
	next  time.Time
	retry *pacer
}

func (f *Flusher) paused(m *mapping.Mapping, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pauses[m]
	return p != nil && now.Before(p.next)
}

func (f *Flusher) pause(m *mapping.Mapping, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pauses[m]
	if p == nil {
		maps.DeleteFunc(f.pauses, func(m *mapping.Mapping, _ *pause) bool { return !slices.Contains(f.mappings().Versions(), m) })
		p = &pause{retry: newPacer(pauseFirst, pauseLast)}
		f.pauses[m] = p
	}
	d := p.retry.NextBackOff()
	p.next = time.Now().Add(d)
	f.often.Error().Str("mapping", m.Name).Err(why).Dur("pause", d).
		Msg("mapping is paused: its table cannot be written; its writes wait, the others go on")
}

// resume ends the pause of a mapping that could be written.
func (f *Flusher) resume(m *mapping.Mapping) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pauses[m] != nil {
		delete(f.pauses, m)
		f.log.Info().Str("mapping", m.Name).Msg("mapping is no longer paused")
	}
}

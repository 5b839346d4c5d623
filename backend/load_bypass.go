package backend

import (
	"fmt"
	"time"

	"keyrow/mapping"
)

// bypass is the keys of one mapping that are to be read without Redis. It is guarded by Loader.mu.
type bypass struct {
	reads map[string]*bypassed
	order []*bypassed
}

// bypassed is one key, and who waits for it.
type bypassed struct {
	key     []byte
	since   time.Time
	waiters []func(values [][]byte, err error)
}

// Bypass reads the value of key from MySQL while Redis cannot be reached: without a lease, and it is not cached. done is
// called once, from any goroutine, with the values of the image as mapping.Kind has them, which are shared and not to be
// changed; with none if there is nothing; or with an error that says what a client is told. done must not block. Bypass
// keeps no reference to key.
//
// As with Load, keys of one mapping are read together; those asked for during a SELECT, even the same ones, with the
// next.
func (l *Loader) Bypass(m *mapping.Mapping, key []byte, done func(values [][]byte, err error)) {
	l.counters.bypasses.Add(1)
	fail := func(err error) {
		l.counters.bypassErrors.Add(1)
		done(nil, err)
	}
	if err := m.Unfit(); err != nil {
		fail(suspended(m, err))
		return
	}
	if !m.Names(key) {
		done(nil, nil)
		return
	}
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		fail(errClosed)
		return
	case l.crowded():
		l.mu.Unlock()
		l.counters.crowded.Add(1)
		fail(crowded(int(l.most.Load())))
		return
	}
	l.waiting++
	b := l.bypasses[m]
	if b == nil {
		b = &bypass{reads: make(map[string]*bypassed)}
		l.bypasses[m] = b
		l.wg.Go(func() { l.runBypass(m, b) })
	}
	r := b.reads[string(key)]
	if r == nil {
		r = &bypassed{key: append([]byte(nil), key...), since: time.Now()}
		b.reads[string(r.key)] = r
		b.order = append(b.order, r)
	}
	r.waiters = append(r.waiters, done)
	l.mu.Unlock()
}

// runBypass reads keys of a mapping until there are none left.
func (l *Loader) runBypass(m *mapping.Mapping, b *bypass) {
	for {
		l.mu.Lock()
		if len(b.order) == 0 {
			delete(l.bypasses, m)
			l.mu.Unlock()
			return
		}
		most := roundKeys
		if m.Query {
			most = queryKeys
		}
		round := b.order[:min(most, len(b.order)):min(most, len(b.order))]
		b.order = b.order[len(round):]
		for _, r := range round {
			delete(b.reads, string(r.key))
			l.waiting -= len(r.waiters)
		}
		l.mu.Unlock()
		l.bypassRound(m, round)
	}
}

func (l *Loader) bypassRound(m *mapping.Mapping, round []*bypassed) {
	now := time.Now()
	waiting := make([]*bypassed, 0, len(round))
	reads := make([]*read, 0, len(round))
	for _, r := range round {
		if now.Sub(r.since) > l.timeout {
			l.counters.overdue.Add(1)
			l.bypassed(r, nil, l.late(m))
			continue
		}
		waiting = append(waiting, r)
		reads = append(reads, &read{load: newLoad(r.key), whole: true})
	}
	switch {
	case len(reads) == 0:
		return
	case m.Query:
		l.selectResults(m, reads)
	default:
		if err := l.guard.run(m, func() error { return l.selectRows(m, reads) }); err != nil {
			for _, r := range reads {
				r.err = err
			}
		}
	}
	for i, r := range reads {
		if r.err != nil && classify(r.err) == schema {
			l.altered()
		}
		l.bypassed(waiting[i], r.values, r.err)
	}
}

// bypassed answers who waits for a key.
func (l *Loader) bypassed(r *bypassed, values [][]byte, err error) {
	if err != nil {
		l.counters.bypassErrors.Add(uint64(len(r.waiters)))
		err = unread(err)
		if l.ctx.Err() != nil {
			err = errClosed
		}
	}
	for _, done := range r.waiters {
		done(values, err)
	}
}

func suspended(m *mapping.Mapping, why error) error {
	return &Error{CodeErr, fmt.Sprintf("mapping %q is suspended: %v: nothing was read", m.Name, why)}
}

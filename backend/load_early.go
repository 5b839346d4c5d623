package backend

import (
	"hash/maphash"
	"math"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"keyrow/mapping"
)

// Of a mapping with early_refresh, an image that is read often is read anew shortly before it expires, by one process
// and under the ordinary lease, while clients go on with the old one. When is decided as in Vattani, Chierichetti and
// Lowenstein, Optimal Probabilistic Cache Stampede Prevention (VLDB 2015): each hit draws a random number u from (0, 1]
// and has the image read if
//
//	now - delta * beta * ln(u) >= expiry
//
// where delta is how long reading it takes and beta is early_refresh. So the more hits there are the earlier one of them
// is chosen, and what nobody asks for is let expire.
//
// A hit does not tell when the image expires. Images that are read often are found by sampling: one in lookEvery hits of
// a key that is not known takes the slot of the key and has Redis asked, in the background. From then on its hits know the
// expiry from the slot. It may be wrong, since others write and read the key too, so it decides only when Redis is asked
// again: early.lua decides with the true one.

const (
	lookEvery = 64

	// earlySlots is how many images can be known: 24 bytes each.
	earlySlots = 1 << 14

	// earlyKeys is how many keys of one mapping may wait for Redis to be asked; more are let be.
	earlyKeys = 256

	// earlyScales times delta * beta before the expiry hits begin to draw: earlier than that one in e^20 would be chosen.
	earlyScales = 20

	// earlyAgain is when an image is looked at again that could not be read, or is being read by another.
	earlyAgain = 100 * time.Millisecond

	// earlyPersistent is when an image is looked at again that does not expire, as those that were not flushed.
	earlyPersistent = 10 * time.Second
)

var earlyScript = newScript("early")

// early is what is known of images that are read often.
type early struct {
	seed  maphash.Seed
	since time.Time // what times in slots count from
	slots []slot

	// Guarded by Loader.mu.
	delta   map[string]time.Duration // by name of a mapping: how long reading takes, of late
	pending map[*mapping.Mapping][]earlyKey
}

// slot is one image. Its fields may be of different images for a moment, which costs a look at most.
type slot struct {
	key    atomic.Uint64 // hash of the key; 0: nobody's
	expiry atomic.Int64  // ns
	scale  atomic.Int64  // delta * beta, ns
}

// earlyKey is a key that Redis is to be asked about.
type earlyKey struct {
	key    []byte
	slot   *slot
	margin time.Duration // it is to be read if no more than that is left of its ttl
}

func newEarly() *early {
	return &early{
		seed: maphash.MakeSeed(), since: time.Now(), slots: make([]slot, earlySlots),
		delta: make(map[string]time.Duration), pending: make(map[*mapping.Mapping][]earlyKey),
	}
}

// Hit is told of every read of m that Redis could answer, if m has early_refresh. It keeps no reference to key.
func (l *Loader) Hit(m *mapping.Mapping, key []byte) {
	e := l.early
	h := maphash.Bytes(e.seed, key) | 1
	s := &e.slots[(h>>1)%earlySlots]
	if s.key.Load() != h {
		if mathrand.Uint32()%lookEvery == 0 {
			s.expiry.Store(math.MaxInt64)
			s.key.Store(h)
			l.lookEarly(m, earlyKey{key: key, slot: s})
		}
		return
	}
	left, scale := s.expiry.Load()-int64(time.Since(e.since)), s.scale.Load()
	if left > earlyScales*scale {
		return
	}
	margin := -math.Log(1-mathrand.Float64()) * float64(scale)
	if float64(left) <= margin {
		s.expiry.Store(math.MaxInt64)
		l.lookEarly(m, earlyKey{key: key, slot: s, margin: time.Duration(margin)})
	}
}

// lookEarly has Redis asked about a key.
func (l *Loader) lookEarly(m *mapping.Mapping, k earlyKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting, running := l.early.pending[m]
	if l.closed || len(waiting) >= earlyKeys {
		k.slot.key.Store(0)
		return
	}
	k.key = append([]byte(nil), k.key...)
	l.early.pending[m] = append(waiting, k)
	if !running {
		l.wg.Go(func() { l.runEarly(m) })
	}
}

// runEarly asks about keys of a mapping, and reads them, until there are none left.
func (l *Loader) runEarly(m *mapping.Mapping) {
	most := roundKeys
	if m.Query {
		most = queryKeys
	}
	for {
		l.mu.Lock()
		waiting := l.early.pending[m]
		if len(waiting) == 0 || l.closed {
			delete(l.early.pending, m)
			l.mu.Unlock()
			return
		}
		round := waiting[:min(most, len(waiting))]
		l.early.pending[m] = append([]earlyKey{}, waiting[len(round):]...)
		l.mu.Unlock()
		l.earlyRound(m, round)
	}
}

// earlyRound is one round of keys: acquire, select and fill, as in round.
func (l *Loader) earlyRound(m *mapping.Mapping, round []earlyKey) {
	l.counters.looks.Add(uint64(len(round)))
	reads, slots := l.acquireEarly(m, round)
	if len(reads) == 0 {
		return
	}
	l.hook(HookGranted)
	begun := time.Now()
	if m.Query {
		l.selectResults(m, reads)
	} else if err := l.guard.run(m, func() error { return l.selectRows(m, reads) }); err != nil {
		for _, r := range reads {
			r.err = err
		}
	}
	l.hook(HookSelected)

	var filled, failed []*read
	known := make(map[*read]*slot)
	var fresh []*slot
	for i, r := range reads {
		if r.err != nil {
			failed = append(failed, r)
			l.expects(m, slots[i], earlyAgain)
		} else {
			filled = append(filled, r)
			known[r] = slots[i]
		}
	}
	l.release(failed) // the old image goes when it expires, and then who reads it gets the error
	stored := l.runFill(m, nil, filled, true, func(r *read, result string, _ []byte, err error) {
		if err == nil && result == "FILLED" {
			l.counters.early.Add(1)
			fresh = append(fresh, known[r])
		} else {
			l.counters.rejected.Add(1)
			known[r].key.Store(0)
		}
	})
	if !stored { // the mapping is out of force, and so are its images
		l.release(filled)
		for _, s := range known {
			s.key.Store(0)
		}
	}
	l.took(m, begun)
	for _, s := range fresh {
		l.expects(m, s, m.TTL)
	}
}

// acquireEarly takes the leases of the images that are due, and notes when the others are.
func (l *Loader) acquireEarly(m *mapping.Mapping, round []earlyKey) (reads []*read, slots []*slot) {
	token := l.newToken()
	calls := make([]*call, len(round))
	for i, k := range round {
		calls[i] = &call{keys: l.scriptKeys(k.key), args: []any{token, l.leaseOf(m).Milliseconds(), k.margin.Milliseconds()}}
	}
	pipeline(l.ctx, l.rdb, earlyScript, calls)
	for i, c := range calls {
		left, ok := c.reply.(int64)
		switch s := round[i].slot; {
		case c.err != nil || !ok:
			s.key.Store(0)
		case left == 0:
			reads = append(reads, &read{load: newLoad(round[i].key), token: token})
			slots = append(slots, s)
		case left == -1:
			l.expects(m, s, earlyPersistent)
		case left == -2:
			s.key.Store(0)
		case left == -3:
			l.expects(m, s, earlyAgain)
		default:
			l.expects(m, s, time.Duration(left)*time.Millisecond)
		}
	}
	return reads, slots
}

// expects notes that the image of a slot expires in d.
func (l *Loader) expects(m *mapping.Mapping, s *slot, d time.Duration) {
	l.mu.Lock()
	delta := l.early.delta[m.Name]
	l.mu.Unlock()
	// Redis counts a ttl in ms, so less than one is not to be hit.
	s.scale.Store(int64(float64(max(delta, time.Millisecond)) * m.EarlyRefresh))
	s.expiry.Store(int64(time.Since(l.early.since) + d))
}

// took notes how long reading keys of a mapping took that was begun then: the latest times count most.
func (l *Loader) took(m *mapping.Mapping, begun time.Time) {
	if m.EarlyRefresh == 0 {
		return
	}
	d := time.Since(begun)
	l.mu.Lock()
	defer l.mu.Unlock()
	if before, known := l.early.delta[m.Name]; known {
		d = before + (d-before)/4
	}
	l.early.delta[m.Name] = d
}

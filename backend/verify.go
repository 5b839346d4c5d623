package backend

import (
	"bytes"
	"context"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"keyrow/mapping"
)

const (
	// verifyKeys is how many images are compared at a time, see roundKeys.
	verifyKeys = roundKeys

	// scanCount is how many keys Redis looks at for one call of SCAN: about a millisecond's worth.
	scanCount = 1000

	// suspectKeys is how many keys that seem to differ are gathered for a second look, and suspectPause how long that is
	// put off: a write that changes MySQL first, and Redis right after, is through by then.
	suspectKeys  = 2048
	suspectPause = 100 * time.Millisecond
)

// HookSuspected is the point at which keys seem to differ, and were not looked at again yet.
const HookSuspected = "verify.suspected"

var (
	examineScript    = newScript("examine")
	invalidateScript = newScript("invalidate")
)

// VerifyOptions say what [Loader.Verify] is to do.
type VerifyOptions struct {
	Mapping *mapping.Mapping
	Set     *mapping.Set // it belongs to
	Sample  int          // how many images to compare; 0: all
	Repair  bool         // invalidate those that differ
	// Differs is called for each key that differs, in no order.
	Differs func(Differing)
	// Progress is called now and then, share is how much of it is done.
	Progress func(s VerifyStats, share float64)
}

// Differing is a key whose image is not what its row would make.
type Differing struct {
	Key         []byte
	Why         string               // empty: Differences tell
	Differences []mapping.Difference // by column
	Repaired    bool
}

// VerifyStats counts keys.
//
//	Images = Same + Differ + Pending + Parked + Gone
type VerifyStats struct {
	Images   int `json:"images"`   // that were looked at, negative entries included
	Same     int `json:"same"`     // that are what their rows would make
	Differ   int `json:"differ"`   // that are not
	Repaired int `json:"repaired"` // of these, those that are no longer cached
	Pending  int `json:"pending"`  // not flushed yet, so MySQL may not have them
	Parked   int `json:"parked"`   // that MySQL did not take
	Gone     int `json:"gone"`     // expired or changed before they could be compared
	Foreign  int `json:"foreign"`  // besides: keys that look like it and name no row
}

// Verify compares images of a mapping with their rows. An image that differs is looked at again, a little later, before
// it counts, and does so only if it has not changed in between: so writes may go on.
//
// The end of ctx is the end of the Loader, too.
func (l *Loader) Verify(ctx context.Context, o VerifyOptions) (VerifyStats, error) {
	defer context.AfterFunc(ctx, l.cancel)()
	v := &verifying{l: l, o: o, m: o.Mapping, told: make(map[string]bool)}
	err := v.walk(ctx)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return v.stats, err
}

// verifying is one call of Verify.
type verifying struct {
	l *Loader
	o VerifyOptions
	m *mapping.Mapping

	stats    VerifyStats
	keys     [][]byte        // to be compared
	suspects [][]byte        // to be looked at again
	told     map[string]bool // SCAN may return a key twice
}

// walk has the keys compared that SCAN finds.
func (v *verifying) walk(ctx context.Context) error {
	cursor, err := v.start(ctx)
	if err != nil {
		return err
	}
	first, wrapped := order(cursor), false
	match := v.m.Glob()
	if v.m.NegativeTTL > 0 {
		match = "*" + match + "*" // the aux keys too
	}
	for !v.enough() {
		keys, next, err := v.l.rdb.Scan(ctx, cursor, match, scanCount).Result()
		if err != nil {
			return fromRedis(err, "nothing was compared")
		}
		for _, key := range keys {
			v.add([]byte(key))
		}
		if err := v.compare(ctx, false); err != nil {
			return err
		}
		if cursor = next; v.o.Progress != nil {
			v.o.Progress(v.stats, v.share(order(cursor)-first))
		}
		if again := wrapped && cursor == 0; again || (wrapped || cursor == 0) && order(cursor) >= first {
			break
		}
		wrapped = wrapped || cursor == 0
	}
	if err := v.compare(ctx, true); err != nil {
		return err
	}
	return v.lookAgain(ctx)
}

// start is the cursor to start at: for a sample it is chosen at random, for Redis keeps keys in no order. A cursor below
// the number of keys is one that SCAN itself can return.
func (v *verifying) start(ctx context.Context) (uint64, error) {
	if v.o.Sample == 0 {
		return 0, nil
	}
	n, err := v.l.rdb.DBSize(ctx).Result()
	if err != nil {
		return 0, fromRedis(err, "nothing was compared")
	}
	if n < 2 {
		return 0, nil
	}
	return rand.Uint64N(1 << (bits.Len64(uint64(n)) - 1)), nil
}

// order tells where a cursor of SCAN is on the way from 0 to 0: Redis counts from the highest bit down.
func order(cursor uint64) uint64 { return bits.Reverse64(cursor) }

// share is how much is done, of all keys or of the sample. gone is how far the walk is, of 2^64; 0: all the way.
func (v *verifying) share(gone uint64) float64 {
	share := 1.0
	if gone > 0 {
		share = float64(gone) / (1 << 64)
	}
	if v.o.Sample > 0 {
		share = max(share, float64(v.stats.Images)/float64(v.o.Sample))
	}
	return min(share, 1)
}

// enough reports whether the sample is complete.
func (v *verifying) enough() bool { return v.o.Sample > 0 && v.stats.Images >= v.o.Sample }

// add takes a key that SCAN returned, if it is of the mapping, or the aux key of one that is.
func (v *verifying) add(key []byte) {
	aux := v.l.journal.AppendAux(nil, nil)
	start, end := aux[:len(aux)-1], aux[len(aux)-1:]
	if of, ok := bytes.CutPrefix(key, start); ok {
		key = bytes.TrimSuffix(of, end)
	}
	switch {
	case v.o.Set.Match(key) != v.m:
	case !v.m.Names(key):
		v.stats.Foreign++
	default:
		v.keys = append(v.keys, key)
	}
}

// compare takes a first look at the keys gathered: whole batches, or all of them.
func (v *verifying) compare(ctx context.Context, all bool) error {
	for len(v.keys) >= verifyKeys || all && len(v.keys) > 0 {
		n := min(len(v.keys), verifyKeys)
		if v.o.Sample > 0 {
			n = min(n, v.o.Sample-v.stats.Images)
		}
		if n == 0 {
			return nil
		}
		looks, err := v.look(v.keys[:n])
		if err != nil {
			return err
		}
		v.keys = v.keys[n:]
		for _, k := range looks {
			switch {
			case k.state == "NONE": // a lease, or gone
			case k.differ:
				v.stats.Images++
				v.suspects = append(v.suspects, k.read.key)
			default:
				v.stats.Images++
				v.count(k)
			}
		}
		if len(v.suspects) >= suspectKeys {
			if err := v.lookAgain(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// count counts a key that does not differ.
func (v *verifying) count(k *looked) {
	switch k.state {
	case "PENDING":
		v.stats.Pending++
	case "PARKED":
		v.stats.Parked++
	case "NONE":
		v.stats.Gone++
	default:
		v.stats.Same++
	}
}

// lookAgain decides about the keys that seemed to differ.
func (v *verifying) lookAgain(ctx context.Context) error {
	if len(v.suspects) == 0 {
		return nil
	}
	v.l.hook(HookSuspected)
	timer := time.NewTimer(suspectPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	for keys := range slices.Chunk(v.suspects, verifyKeys) {
		looks, err := v.look(keys)
		if err != nil {
			return err
		}
		// The row is newer than the image, so it is a difference only if the image is still the same.
		after, err := v.examine(keys)
		if err != nil {
			return err
		}
		var differ []*looked
		for i, k := range looks {
			switch {
			case !k.differ:
				v.count(k)
			case !k.same(after[i]):
				v.stats.Gone++
			case v.told[string(k.read.key)]:
				v.stats.Images--
			default:
				v.told[string(k.read.key)] = true
				differ = append(differ, k)
			}
		}
		if err := v.tell(differ); err != nil {
			return err
		}
	}
	v.suspects = v.suspects[:0]
	return nil
}

// tell repairs keys if that is wanted, and tells of them.
func (v *verifying) tell(differ []*looked) error {
	repaired := make([]bool, len(differ))
	if v.o.Repair {
		calls := make([]*call, len(differ))
		for i, k := range differ {
			calls[i] = &call{keys: v.l.scriptKeys(k.read.key)}
		}
		pipeline(v.l.ctx, v.l.rdb, invalidateScript, calls)
		for i, c := range calls {
			if c.err != nil {
				return fromRedis(c.err, "some keys were not repaired")
			}
			repaired[i] = c.reply == int64(1)
		}
	}
	for i, k := range differ {
		if v.o.Repair && !repaired[i] {
			v.stats.Pending++ // written just now, which mends it as well
			continue
		}
		v.stats.Differ++
		if repaired[i] {
			v.stats.Repaired++
		}
		why, differences := k.why(v.m)
		v.o.Differs(Differing{Key: k.read.key, Why: why, Differences: differences, Repaired: repaired[i]})
	}
	return nil
}

// examined is what examine.lua returns.
var examined = []string{"PENDING", "PARKED", "IMAGE", "TYPE", "NEG", "NONE"}

// looked is a key with what was found of it, first in Redis and then in MySQL.
type looked struct {
	state  string // one of examined
	image  [][]byte
	kind   string // of Redis, if it is no image
	read   *read  // the row
	differ bool   // as far as this look tells
}

// same reports whether what Redis has is still what it was.
func (k *looked) same(o *looked) bool {
	return k.state == o.state && k.kind == o.kind && slices.EqualFunc(k.image, o.image, bytes.Equal)
}

// look examines keys and reads the rows of those that can be compared.
func (v *verifying) look(keys [][]byte) ([]*looked, error) {
	if err := v.l.guard.wait(v.l.ctx, v.m); err != nil {
		return nil, err
	}
	looks, err := v.examine(keys)
	if err != nil {
		return nil, err
	}
	var reads []*read
	for i, k := range looks {
		k.read = &read{load: newLoad(keys[i])}
		if k.state == "IMAGE" || k.state == "TYPE" || k.state == "NEG" {
			reads = append(reads, k.read)
		}
	}
	if len(reads) > 0 {
		if err := v.l.guard.attempt(func() error { return v.l.selectRows(v.m, reads) }); err != nil {
			return nil, fmt.Errorf("mysql: %w", err)
		}
	}
	for _, k := range looks {
		switch k.state {
		case "IMAGE":
			k.differ = k.read.err != nil || k.read.nothing() || v.m.Differences(k.image, k.read.values) != nil
		case "TYPE":
			k.differ = true
		case "NEG":
			k.differ = k.read.err != nil || !k.read.nothing()
		}
	}
	return looks, nil
}

// why tells how a key differs.
func (k *looked) why(m *mapping.Mapping) (string, []mapping.Difference) {
	switch {
	case k.read.err != nil:
		return k.read.err.Error(), nil
	case k.state == "TYPE":
		return fmt.Sprintf("it holds a %s, which is not the value of a row", k.kind), nil
	case k.state == "NEG":
		return "there is a row, but Redis remembers that there is none", nil
	case k.read.nothing() && m.Kind == mapping.KindString:
		return "the row is gone, or its column is NULL", nil
	case k.read.nothing():
		return "the row is gone", nil
	}
	return "", m.Differences(k.image, k.read.values)
}

// examine finds out what Redis has of keys.
func (v *verifying) examine(keys [][]byte) ([]*looked, error) {
	command := "GET"
	if !v.m.Kind.Text() {
		command = "HGETALL"
	}
	calls := make([]*call, len(keys))
	for i, key := range keys {
		calls[i] = &call{keys: v.l.scriptKeys(key), args: []any{command}}
	}
	pipeline(v.l.ctx, v.l.rdb, examineScript, calls)
	looks := make([]*looked, len(keys))
	for i, c := range calls {
		if c.err != nil {
			return nil, fromRedis(c.err, "nothing was compared")
		}
		k := &looked{}
		reply, _ := c.reply.([]any)
		if len(reply) > 0 {
			k.state, _ = reply[0].(string)
		}
		if len(reply) > 1 {
			k.kind, _ = reply[1].(string)
			values, _ := reply[1].([]any)
			for _, value := range values {
				text, _ := value.(string)
				k.image = append(k.image, []byte(text))
			}
		}
		if !slices.Contains(examined, k.state) {
			return nil, fmt.Errorf("redis answered a script with %.40q", k.state)
		}
		looks[i] = k
	}
	return looks, nil
}

package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
)

// A batch grows while all that was asked for is there and MySQL takes less than growBelow for it, to maxGrowth times
// journal.batch, and shrinks again when MySQL takes longer than that twice over: the rows stay locked for as long.
const (
	growBelow = 100 * time.Millisecond
	maxGrowth = 8
)

// scriptKeys is how many keys of a batch one script deals with, so that Redis is back with its clients within a
// millisecond or two.
const scriptKeys = 256

var (
	scriptFence  = newScript("fence")
	scriptSweep  = newScript("sweep")
	scriptBatch  = newScript("batch")
	scriptSettle = newScript("settle")
	scriptPark   = newScript("park")
	scriptDefer  = newScript("defer")
	scriptOlder  = newScript("older")
	scriptWaits  = newScript("waits")
)

// end is how far an item came.
type end int

const (
	endOpen   end = iota // not tried, or not yet
	endLanded            // committed
	endParked            // it cannot land: item.err says why
	endDefer             // it may land later
)

// item is one key of a batch.
type item struct {
	key   string
	flags int
	image [][]byte         // its values, as the mapping's kind has them
	m     *mapping.Mapping // nil: none matches
	step  step
	id    []any // values of the key columns
	row   []any // values of the columns to write, of an upsert

	older   bool // the image does not say all of a row, as one from before a column: written with an UPDATE, so as to leave the rest alone
	strange bool // the image is not one of a row, as far as the mapping says
	earlier bool // m is an earlier version of the mapping in force
	fresh   bool // of a write through: there is no row, so it is only inserted

	end end
	err error
}

// sign is the mark under which the item is parked: '-' tells readers that the row is deleted though MySQL still has it.
func (it *item) sign() byte {
	switch {
	case it.step == stepDelete || it.step == stepSkip && it.flags&markedDeleted != 0:
		return mapping.MarkDeleted
	case it.flags&(markedWritten|markedDeleted) == 0:
		return mapping.MarkMaybe
	}
	return mapping.MarkWritten
}

// flush takes over the marks there are, or those a flush before this left over, and works them off. It returns the time
// that was spent on marks that had to be put back.
func (o *owner) flush(ctx context.Context) (deferring time.Duration, err error) {
	if o.token == "" {
		if err := o.fence(ctx); err != nil {
			return 0, err
		}
		o.f.hook(HookFenced)
	}
	reply, err := o.script(ctx, scriptSweep, []string{o.keys.fence, o.keys.dirty, o.keys.flushing})
	if err != nil {
		return 0, err
	}
	o.f.stats.owns[o.p].Store(true)
	if taken := reply.([]any); taken[1] == int64(0) {
		return 0, nil
	} else if taken[0] == int64(1) {
		o.f.stats.sweeps.Add(1)
	}
	o.f.hook(HookSwept)
	for {
		start := time.Now()
		items, err := o.read(ctx)
		if err != nil {
			o.less(o.size)
			return deferring, err
		}
		if len(items) == 0 {
			return deferring, nil
		}
		o.f.hook(HookRead)
		o.f.stats.batches.Add(1)
		if err := o.batch(ctx, items); err != nil {
			o.less(len(items))
			return 0, err
		}
		o.f.flushed(len(items), time.Since(start))
		for _, it := range items {
			if it.end == endDefer {
				deferring += time.Since(start)
				break
			}
		}
		o.size = o.nextSize(items, time.Since(start))
	}
}

// less has fewer marks read for the batch behind one that failed with n keys: it may be that it takes too long, or that one
// row of it is locked. They are a quarter, since each time a locked row has to be waited for.
func (o *owner) less(n int) { o.size = max(1, min(o.size, n)/4) }

// nextSize is how many marks to read for the batch behind one that went well.
func (o *owner) nextSize(items []*item, took time.Duration) int {
	usual := o.f.journal.cfg.Batch
	switch {
	case slices.ContainsFunc(items, func(it *item) bool { return it.end == endDefer && o.waitsFor(it, errLockWait) }):
		return o.size // the next row may be locked too
	case o.size < usual:
		return min(usual, o.size*2)
	case len(items) == o.size && took < growBelow:
		return min(usual*maxGrowth, o.size*2)
	case took > 2*growBelow:
		return max(usual, o.size/2)
	}
	return o.size
}

var (
	errNoMapping = errors.New("no mapping matches the key; put its mapping back and retry it, or drop it")
	errImageGone = errors.New("the key was written, but its image is gone from redis before it reached mysql")
)

func (it *item) park(err error) { it.end, it.err = endParked, err }

// batch flushes items, which are all there is of their keys in flushing, and takes their marks out of it. An error says
// that it has to be done again, in whole or in part; all of it may be.
func (o *owner) batch(ctx context.Context, items []*item) error {
	var main, again []*item
	var alone []*item
	var rest []*item // decided without MySQL
	now := time.Now()
	for _, it := range items {
		if it.end != endOpen {
			rest = append(rest, it)
			continue
		}
		w := o.waiting[it.key]
		switch {
		case o.f.paused(it.m, now), w != nil && now.Before(w.next):
			it.end = endDefer
			rest = append(rest, it)
		case w == nil:
			main = append(main, it)
		case w.why == errLockWait:
			alone = append(alone, it)
		default:
			again = append(again, it)
		}
	}
	if err := o.round(ctx, main, rest); err != nil {
		return err
	}
	if err := o.round(ctx, again, nil); err != nil {
		return err
	}
	for _, it := range alone {
		if err := o.round(ctx, []*item{it}, nil); err != nil {
			return err
		}
	}
	return nil
}

// round lands items and then takes the marks of these and of decided out of flushing.
func (o *owner) round(ctx context.Context, items, decided []*item) error {
	if len(items)+len(decided) == 0 {
		return nil
	}
	o.sort(items)
	if err := o.land(ctx, items); err != nil {
		return err
	}
	if len(items) > 0 {
		o.f.hook(HookCommitted)
	}
	if err := o.finish(ctx, append(items, decided...)); err != nil {
		return err
	}
	o.f.hook(HookSettled)
	return nil
}

// finish takes the marks of items that came to an end out of flushing.
func (o *owner) finish(ctx context.Context, items []*item) error {
	if err := o.drop(ctx); err != nil {
		return err
	}
	now := time.Now()
	moved := slices.ContainsFunc(items, func(it *item) bool {
		return it.end == endLanded && o.waitsFor(it, errDuplicate)
	})
	for _, it := range items {
		if it.end == endParked && o.patient(it, now, moved) {
			it.end = endDefer
		}
	}
	for some := range slices.Chunk(items, scriptKeys) {
		if err := o.record(ctx, some, now); err != nil {
			return err
		}
	}
	for _, it := range items {
		if it.end != endDefer {
			delete(o.waiting, it.key)
		}
	}
	return nil
}

// record takes the marks of items out of flushing, each according to its end.
func (o *owner) record(ctx context.Context, items []*item, now time.Time) error {
	names := o.f.journal.cfg.Prefix + ":aux:{"
	settle, park, later := []any{names}, []any{}, []any{}
	var parked []*item
	var lives lives
	rows := 0
	for _, it := range items {
		switch it.end {
		case endLanded:
			settle = append(settle, it.key, it.residency(&lives), longer(it.m))
			if it.step != stepSkip {
				rows++
			}
		case endParked:
			park = append(park, it.key, entry(it, now))
			parked = append(parked, it)
		case endDefer:
			later = append(later, it.key)
		default:
			return fmt.Errorf("key %q came to no end", it.key) // a batch that would repeat for ever, but not lose it
		}
	}
	if len(settle) > 1 {
		n, err := o.script(ctx, scriptSettle, []string{o.keys.fence, o.keys.dirty, o.keys.flushing, o.keys.expire,
			o.keys.parked, o.f.journal.keys.Meta()}, settle...)
		if err != nil {
			return err
		}
		o.f.journal.settled(n.(int64))
		o.settled += n.(int64)
		o.f.stats.rows.Add(int64(rows))
		if len(park)+len(later) > 0 {
			o.f.hook(HookPart)
		}
	}
	if len(park) > 0 {
		n, err := o.script(ctx, scriptPark, []string{o.keys.fence, o.keys.flushing, o.keys.parked}, park...)
		if err != nil {
			return err
		}
		o.f.journal.settled(n.(int64))
		o.tellParked(parked)
		o.f.hook(HookParked)
	}
	if len(later) > 0 {
		if _, err := o.script(ctx, scriptDefer, []string{o.keys.fence, o.keys.dirty, o.keys.flushing}, later...); err != nil {
			return err
		}
		o.f.stats.deferred.Add(int64(len(later)))
		o.f.hook(HookDeferred)
	}
	return nil
}

// residency tells settle.lua what becomes of the image of an item that landed.
func (it *item) residency(lives *lives) string {
	switch {
	case it.step == stepSkip:
		return "-2"
	case it.step == stepUpsert && (it.earlier || !it.m.Predictable(it.row) ||
		(it.flags&markedMaybe != 0 || len(it.m.Earlier()) > 0) && !it.m.Exact([]byte(it.key), it.image)):
		return "-1"
	case it.m.TTL > 0:
		return lives.next(it.m)
	}
	return "0"
}

// lives deals out residencies. So many rows in a row get the same: settle.lua has to make a time of each only once, and a
// few that expire together do no harm.
type lives struct {
	m    *mapping.Mapping
	text string
	left int
}

const sameLife = 16

func (l *lives) next(m *mapping.Mapping) string {
	if l.m != m || l.left == 0 {
		*l = lives{m, strconv.FormatInt(jittered(m.TTL), 10), sameLife}
	}
	l.left--
	return l.text
}

// script runs a script under our token.
func (o *owner) script(ctx context.Context, s *redis.Script, keys []string, args ...any) (any, error) {
	start := time.Now()
	reply, err := s.Run(ctx, o.f.rdb, keys, append([]any{o.token}, args...)...).Result()
	o.inRedis += time.Since(start)
	switch {
	case err == nil:
		return reply, nil
	case redis.HasErrorPrefix(err, "FENCED"):
		return nil, errFenced
	}
	o.token = ""
	return nil, fmt.Errorf("redis: %w", err)
}

// mysqlCode is the number of an error of MySQL, 0 for others.
func mysqlCode(err error) uint16 {
	var my *mysql.MySQLError
	if errors.As(err, &my) {
		return my.Number
	}
	return 0
}

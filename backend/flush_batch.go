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

// batchBytes is about how many bytes of images a batch reads at most, so that memory stays bounded whatever the size of
// the images. A batch has one image at least.
const batchBytes = 8 << 20

// As many images are read at a time as there is room for if they are as large as those before, or twice that. Of the
// first ones nothing is known, so they may be firstImage bytes each.
const (
	firstImage = 1 << 20
	minImage   = batchBytes / scriptKeys
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

// flags of an entry, as batch.lua sets them.
const (
	markedWritten = 1 << iota // + in flushing
	markedDeleted             // - in flushing
	markedMaybe               // ? in flushing
	deletedAgain              // - in dirty, and there is no image
	notImage                  // the key holds neither a string nor a hash
)

// step is what the marks of one key come to.
type step int

const (
	// stepSkip: nothing to write; the marks go.
	stepSkip step = iota
	// stepUpsert: the image goes into its row.
	stepUpsert
	// stepDelete: the row goes.
	stepDelete
	// stepLost: the key was written, nobody deleted it, and its image is gone. It is parked, for to delete the row
	// would make a loss of Redis one of MySQL.
	stepLost
)

// decide makes one decision of all marks of a key. The image is the one of now, so it is at or past every mark in
// flushing: if it is there, the key was last written, whatever was deleted before. If it is not there, a - in flushing
// took it or came before what took it; with a - in dirty alone the deletion is the next sweep's to do.
func decide(flags int, image bool) step {
	switch {
	case image:
		return stepUpsert
	case flags&markedDeleted != 0:
		return stepDelete
	case flags&deletedAgain != 0:
		return stepSkip
	case flags&markedWritten != 0:
		return stepLost
	}
	return stepSkip
}

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

// read returns the keys of the oldest marks with their images.
func (o *owner) read(ctx context.Context) ([]*item, error) {
	entries, err := o.marked(ctx)
	if err != nil {
		return nil, err
	}
	set := o.f.mappings()
	items := decodeAll(entries, set)
	if more, err := o.maybes(ctx, items, entries); err != nil {
		return nil, err
	} else if more {
		items = decodeAll(entries, set)
	}
	if slices.ContainsFunc(items, func(it *item) bool { return it.strange }) {
		// It may be that another process knows a column already that this one does not.
		if err := o.f.look(ctx); err != nil {
			return nil, err
		}
		set = o.f.mappings()
		items = decodeAll(entries, set)
	}
	o.rank(ctx, set)
	return items, nil
}

// maybes looks for the '?' of written keys whose images are not whole. One that a script left so says something else than
// one from before a column, and its mark may be further back than those of the batch. It reports whether it has noted any.
func (o *owner) maybes(ctx context.Context, items []*item, entries []any) (found bool, err error) {
	var places []int
	var marks []string
	for i, it := range items {
		if it.flags == markedWritten && it.m != nil && it.m.Kind == mapping.KindJSON && slices.Contains(it.row, mapping.Unchanged) {
			places, marks = append(places, i), append(marks, string(mapping.MarkMaybe)+it.key)
		}
	}
	for at := 0; at < len(marks); at += scriptKeys {
		start := time.Now()
		scores, err := o.f.rdb.ZMScore(ctx, o.keys.flushing, marks[at:min(len(marks), at+scriptKeys)]...).Result()
		o.inRedis += time.Since(start)
		if err != nil {
			return false, fmt.Errorf("redis: %w", err)
		}
		for i, score := range scores {
			if score != 0 {
				entries[3*places[at+i]+1], found = int64(markedWritten|markedMaybe), true
			}
		}
	}
	return found, nil
}

// marked returns the keys of the oldest marks, each once, as batch.lua does. Of a string that was written it tells the '?'
// only if that is among these marks, too.
//
// Nearly all of them were written and are strings. MGET reads those at half of what a script costs Redis; batch.lua looks
// at the others. It does not matter that MGET asks nobody whether the partition is still ours. If it is not, then MySQL has
// ended our session and commits nothing of what was read; or it has not, and the new owner in Redis is one that cannot
// commit. The marks are read before the images, so an image is at or past the marks of its key.
func (o *owner) marked(ctx context.Context) (entries []any, err error) {
	seen := make(map[string]bool, min(o.size, scriptKeys))
	maybe := make(map[string]bool)
	bytes := 0
	for at := 0; at < o.size && bytes < batchBytes; at += scriptKeys {
		start := time.Now()
		marks, err := o.f.rdb.ZRange(ctx, o.keys.flushing, int64(at), int64(min(at+scriptKeys, o.size)-1)).Result()
		o.inRedis += time.Since(start)
		if err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		var written, others []string
		for _, mark := range marks {
			key := mark[1:]
			switch {
			case seen[key]: // the marks of a key need not stand beside each other
				if mark[0] == mapping.MarkMaybe {
					maybe[key] = true
				}
				continue
			case mark[0] == mapping.MarkWritten:
				written = append(written, key)
			default:
				others = append(others, key)
			}
			seen[key] = true
		}
		for len(written) > 0 && bytes < batchBytes {
			some := written[:min(len(written), max(1, (batchBytes-bytes)/o.image))]
			written = written[len(some):]
			start := time.Now()
			images, err := o.f.rdb.MGet(ctx, some...).Result()
			o.inRedis += time.Since(start)
			if err != nil {
				return nil, fmt.Errorf("redis: %w", err)
			}
			o.image = minImage
			for i, image := range images {
				if image == nil {
					others = append(others, some[i])
					continue
				}
				n := imageSize(image)
				bytes += n
				o.image = max(o.image, 2*n)
				entries = append(entries, some[i], int64(markedWritten), image)
			}
		}
		for len(others) > 0 && bytes < batchBytes {
			args := []any{batchBytes - bytes}
			for _, key := range others {
				args = append(args, key)
			}
			reply, err := o.script(ctx, scriptBatch, []string{o.keys.fence, o.keys.dirty, o.keys.flushing}, args...)
			if err != nil {
				return nil, err
			}
			some := reply.([]any)
			for i := 2; i < len(some); i += 3 {
				bytes += imageSize(some[i])
			}
			entries = append(entries, some...)
			others = others[len(some)/3:]
		}
		if len(marks) < scriptKeys {
			break
		}
	}
	for i := 0; i < len(entries) && len(maybe) > 0; i += 3 {
		if maybe[entries[i].(string)] {
			entries[i+1] = entries[i+1].(int64) | markedMaybe
		}
	}
	return entries, nil
}

// imageSize is how many bytes an image has, as batch.lua returned it.
func imageSize(image any) (n int) {
	switch image := image.(type) {
	case string:
		return len(image)
	case []any:
		for _, text := range image {
			n += len(text.(string))
		}
	}
	return n
}

// decodeAll makes the items of what batch.lua returned.
func decodeAll(entries []any, set *mapping.Set) []*item {
	room := make([]item, len(entries)/3)
	items := make([]*item, len(room))
	var d decoder
	for i := range room {
		it, image := &room[i], entries[3*i+2]
		items[i] = it
		d.left = len(room) - i
		it.key, it.flags = entries[3*i].(string), int(entries[3*i+1].(int64))
		key := d.text(it.key)
		if it.m = set.Match(key); it.m == nil {
			it.m = set.Former(key)
		} else if it.m.Query {
			it.m = nil
		}
		it.step = decide(it.flags, image != nil)
		switch {
		case it.step == stepSkip:
			it.end = endLanded
		case it.m == nil:
			it.park(errNoMapping)
		case it.m.Unfit() != nil:
			it.end = endDefer
		case it.step == stepLost:
			it.park(errImageGone)
		default:
			if err := d.take(it, image); err != nil {
				it.park(err)
				break
			}
			d.decode(it, key)
		}
	}
	return items
}

// A decoder makes the items of one batch, which share its memory.
type decoder struct {
	left   int // items that are not decoded yet
	texts  slab[byte]
	images slab[[]byte]
	values slab[any]
}

func (d *decoder) text(s string) []byte { return append(d.texts.take(len(s), d.left), s...) }

var (
	errNoMapping = errors.New("no mapping matches the key; put its mapping back and retry it, or drop it")
	errImageGone = errors.New("the key was written, but its image is gone from redis before it reached mysql")
)

func (it *item) park(err error) { it.end, it.err = endParked, err }

// take takes in the image as batch.lua returned it.
func (d *decoder) take(it *item, image any) error {
	wants, is := "string", "string"
	if it.m.Kind == mapping.KindHash {
		wants = "hash"
	}
	switch image := image.(type) {
	case []any:
		is = "hash"
		it.image = d.images.take(len(image), d.left)
		for _, text := range image {
			it.image = append(it.image, d.text(text.(string)))
		}
	case string:
		if it.flags&notImage != 0 {
			is = image
		}
		it.image = append(d.images.take(1, d.left), d.text(image))
	case nil:
		return nil
	}
	if is != wants {
		return fmt.Errorf("the key holds a %s, its mapping wants a %s", is, wants)
	}
	return nil
}

// decode fills in the values for MySQL.
func (d *decoder) decode(it *item, key []byte) {
	var err error
	if it.id, err = it.m.KeyArgs(d.values.take(len(it.m.KeyColumns()), d.left), key); err != nil {
		it.strange = true
		it.park(err)
		return
	}
	if it.step != stepUpsert {
		return
	}
	if it.row, err = d.row(it, it.m, key); err != nil {
		d.decodeEarlier(it, key)
	}
	if it.row == nil {
		it.strange = true
		it.park(fmt.Errorf("%s: %w", notOfRow, err))
	}
	it.older = slices.Contains(it.row, mapping.Unchanged) || it.m.Partial()
}

// notOfRow is what the error of a parked image begins with that is not one of its mapping.
const notOfRow = "the image is not one of a row"

// row is the row of the image by a version of its mapping; nil if there is none.
func (d *decoder) row(it *item, m *mapping.Mapping, key []byte) (row []any, err error) {
	row = d.values.take(len(m.WriteColumns()), d.left)
	if it.flags&markedMaybe != 0 {
		row, err = m.RowOf(row, key, it.image)
	} else {
		row, err = m.RowWritten(row, key, it.image)
	}
	if err != nil {
		return nil, err
	}
	return row, nil
}

// decodeEarlier is decode for an image that is not of the mapping, but may be of what that was before a reload.
func (d *decoder) decodeEarlier(it *item, key []byte) {
	for _, m := range it.m.Earlier() {
		if row, err := d.row(it, m, key); err == nil {
			it.m, it.row, it.earlier = m, row, true
			return
		}
	}
}

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

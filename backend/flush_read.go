package backend

import (
	"context"
	"fmt"
	"slices"
	"time"

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

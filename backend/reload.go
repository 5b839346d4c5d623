package backend

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keyrow/mapping"
)

// FindingsError says that a configuration does not go with the tables, or with what is in the journal.
type FindingsError struct{ Findings []mapping.Finding }

func (e *FindingsError) Error() string {
	var texts []string
	for _, f := range e.Findings {
		if f.Severity == mapping.Error {
			texts = append(texts, fmt.Sprintf("%s %q: %s: %s", f.Section(), f.Mapping, f.Setting, f.Text))
		}
	}
	return strings.Join(texts, "\n")
}

// Reload puts the mappings and queries of another configuration, which mapping.Validate has passed, in force. An error
// says that those before stay in force; it is a *FindingsError if the configuration is at fault. What the Succession
// says is outdated is up to the caller; from the return of Reload on nobody stores more of that.
func (w *Watch) Reload(ctx context.Context, cs []mapping.Config, qs []mapping.QueryConfig, journal *Journal) (*mapping.Succession, []mapping.Finding, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.look(ctx); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	schema, err := ReadSchema(ctx, w.db, mapping.Tables(cs, qs))
	if err == nil {
		err = ReadQueries(ctx, w.db, qs, schema)
	}
	if err != nil {
		return nil, nil, err
	}
	next, findings := w.Mappings().Succeed(cs, qs, schema)
	if next == nil {
		return nil, nil, &FindingsError{findings}
	}
	var waiting []mapping.Finding
	for _, e := range next.Emptied {
		n, err := journal.holds(ctx, e.Mapping.Matches)
		if err != nil {
			return nil, nil, err
		}
		if n > 0 {
			waiting = append(waiting, e.Finding(n))
		}
	}
	if waiting != nil {
		return nil, nil, &FindingsError{waiting}
	}
	w.last = nil
	w.put(next.Set)
	w.stores.Lock()   // who stores under the Set before has stored
	w.stores.Unlock() //nolint:staticcheck // nothing is guarded but the time until here
	return next, findings, nil
}

// Storing runs store, which stores images of ms in Redis, and returns true; or returns false if any of ms is out of force.
//
// Whoever reloads drops images of mappings out of force, once, by a walk through the keys of Redis. This interleaving
// forces store to be waited for before:
//
//	fill:    ms are in force
//	reload:  others are; the walk passes the place where the image will be
//	fill:    stores the image, and gives the lease back before the walk finds it
func (w *Watch) Storing(store func(), ms ...*mapping.Mapping) bool {
	if w == nil { // nobody reloads
		store()
		return true
	}
	w.stores.RLock()
	defer w.stores.RUnlock()
	set := w.Mappings()
	for _, m := range ms {
		if !set.Has(m) {
			return false
		}
	}
	store()
	return true
}

// outdateKeys is how many keys one call of outdate.lua drops.
const outdateKeys = 256

// Outdate drops what is cached under the keys of ms: images, copies, leases, and that there is nothing. An image that is
// not in MySQL yet goes when it is flushed. It walks through all keys of Redis, for each of ms.
func (l *Loader) Outdate(ctx context.Context, ms ...*mapping.Mapping) error {
	for _, m := range ms {
		if key := m.OneKey(); key != nil {
			if err := l.outdate(ctx, [][]byte{key}); err != nil {
				return err
			}
			continue
		}
		for cursor, first := uint64(0), true; first || cursor != 0; first = false {
			keys, next, err := l.rdb.Scan(ctx, cursor, "*"+m.Glob()+"*", scanCount).Result()
			if err != nil {
				return fmt.Errorf("redis: %w", err)
			}
			var found [][]byte
			for _, key := range keys {
				if of := l.keyOf([]byte(key)); m.Matches(of) {
					found = append(found, of)
				}
			}
			if err := l.outdate(ctx, found); err != nil {
				return err
			}
			cursor = next
		}
	}
	return nil
}

func (l *Loader) outdate(ctx context.Context, keys [][]byte) error {
	for some := range slices.Chunk(keys, outdateKeys) {
		args := []any{"", l.journal.Prefix}
		for _, key := range some {
			args = append(args, strconv.Itoa(l.journal.Partition(key))+":"+string(key))
		}
		if err := scriptOutdate.Run(ctx, l.rdb, []string{"", ""}, args...).Err(); err != nil {
			return fmt.Errorf("redis: %w", err)
		}
	}
	return nil
}

// keyOf is the key that name is, or the key of which name is the aux key.
func (l *Loader) keyOf(name []byte) []byte {
	if of, is := strings.CutPrefix(string(name), l.aux); is {
		return []byte(strings.TrimSuffix(of, "}"))
	}
	return name
}

// holds counts the keys for which is returns true that wait to be flushed or are parked, some of them twice.
func (j *Journal) holds(ctx context.Context, is func(key []byte) bool) (n int, err error) {
	for p := range j.cfg.Partitions {
		names := j.partition(p)
		// A mark may go over from flushing to dirty meanwhile, and back.
		for _, set := range []string{names.flushing, names.dirty, names.flushing} {
			scan := j.rdb.ZScan(ctx, set, 0, "", parkedChunk).Iterator()
			for scan.Next(ctx) {
				member := scan.Val()
				if len(member) > 0 && is([]byte(member[1:])) {
					n++
				}
				scan.Next(ctx) // its score
			}
			if err := scan.Err(); err != nil {
				return 0, fmt.Errorf("redis: %w", err)
			}
		}
		err := j.eachParked(ctx, p, func(key, _ string) bool {
			if is([]byte(key)) {
				n++
			}
			return true
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

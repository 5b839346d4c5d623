package backend

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
)

var (
	scriptRetry = newScript("retry")
	scriptDrop  = newScript("drop")
)

// parkedChunk is how many parked keys one step reads or retries.
const parkedChunk = 1000

// eachParked calls do for the parked keys of partition p, a key that is parked or retried meanwhile perhaps twice, until
// do returns false.
func (j *Journal) eachParked(ctx context.Context, p int, do func(key, entry string) bool) error {
	scan := j.rdb.HScan(ctx, j.partition(p).parked, 0, "", parkedChunk).Iterator()
	for scan.Next(ctx) {
		key := scan.Val()
		if !scan.Next(ctx) || !do(key, scan.Val()) {
			break
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// Parked returns parked keys, limit at most, those that were parked first in front.
func (j *Journal) Parked(ctx context.Context, limit int) ([]mapping.Parked, error) {
	found := make(map[string]mapping.Parked)
	for p := range j.cfg.Partitions {
		err := j.eachParked(ctx, p, func(key, entry string) bool {
			if len(found) < limit {
				found[key] = parseEntry(key, entry)
			}
			return len(found) < limit
		})
		if err != nil {
			return nil, err
		}
	}
	all := make([]mapping.Parked, 0, len(found))
	for _, parked := range found {
		all = append(all, parked)
	}
	slices.SortFunc(all, func(a, b mapping.Parked) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Key, b.Key))
	})
	return all, nil
}

// parseEntry reads what the parked hash says of a key: see entry.
func parseEntry(key, text string) mapping.Parked {
	var e struct {
		Mark, Table, Error string
		Code               uint16
		At                 int64
		Tries              int
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil || len(e.Mark) != 1 {
		return mapping.Parked{Key: key, Mark: mapping.MarkMaybe, Error: "its entry is not keyrow's: " + text}
	}
	return mapping.Parked{
		Key: key, Mark: e.Mark[0], Table: e.Table, Code: e.Code, Error: e.Error, Since: time.UnixMilli(e.At), Tries: e.Tries,
	}
}

// Retry marks parked keys again, all of them if none is named, so that the next sweep tries them. They stay parked
// until their rows are written. It returns how many keys were marked: those that are not parked are not, nor are those
// that have a mark already.
func (j *Journal) Retry(ctx context.Context, keys ...string) (marked int, err error) {
	parts := make(map[int][]any)
	for _, key := range keys {
		p := j.keys.Partition([]byte(key))
		parts[p] = append(parts[p], key)
	}
	for p := range j.cfg.Partitions {
		if len(keys) == 0 {
			err := j.eachParked(ctx, p, func(key, _ string) bool {
				parts[p] = append(parts[p], key)
				return true
			})
			if err != nil {
				return marked, err
			}
		}
		for some := range slices.Chunk(parts[p], parkedChunk) {
			n, err := j.retry(ctx, p, some)
			if marked += n; err != nil {
				return marked, err
			}
		}
	}
	return marked, nil
}

func (j *Journal) retry(ctx context.Context, p int, keys []any) (marked int, err error) {
	names := j.partition(p)
	args := append([]any{time.Now().UnixMilli()}, keys...)
	marked, err = scriptRetry.Run(ctx, j.rdb, []string{names.dirty, names.parked}, args...).Int()
	if err != nil {
		return 0, fmt.Errorf("redis: %w", err)
	}
	j.Marked(marked)
	return marked, nil
}

// Drop gives up what was written to a parked key, or that it was deleted: the next reader gets the row that MySQL has.
// It returns how many of the keys were parked. A key that was written again, or is being tried again, is an error, and
// so ends it.
func (j *Journal) Drop(ctx context.Context, keys ...string) (dropped int, err error) {
	for _, key := range keys {
		names := j.partition(j.keys.Partition([]byte(key)))
		why, err := scriptDrop.Run(ctx, j.rdb, []string{key, string(j.keys.AppendAux(nil, []byte(key))), names.dirty,
			names.flushing, names.parked, names.expire}, key).Text()
		switch {
		case err == redis.Nil:
			continue
		case redis.HasErrorPrefix(err, "MARKED"):
			return dropped, fmt.Errorf("%q was written again or is being tried again: flush it first", key)
		case err != nil:
			return dropped, fmt.Errorf("redis: %w", err)
		}
		dropped++
		parked := parseEntry(key, why)
		j.log.Warn().Str("key", key).Str("mark", string(parked.Mark)).Str("table", parked.Table).Str("error", parked.Error).
			Msg("a parked row was given up by command: what was written is lost, the row is as mysql has it")
	}
	return dropped, nil
}

// Status is what waits in the journal, by all processes.
type Status struct {
	Pending   int64
	OldestAge time.Duration // 0: nothing is pending
	Rate      int64         // marks worked off a second
	Parked    int64
}

// Status counts the journal twice, a second apart, which is over what the rate is measured.
func (j *Journal) Status(ctx context.Context) (Status, error) {
	for i := range 2 {
		if i > 0 {
			wait(ctx, rateOver)
		}
		if err := j.count(ctx); err != nil {
			return Status{}, fmt.Errorf("redis: %w", err)
		}
	}
	return Status{Pending: j.Pending(), OldestAge: j.age(), Rate: j.rate.perSecond.Load(), Parked: j.parked.Load()}, nil
}

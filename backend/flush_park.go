package backend

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// entry is what the parked hash says of a key. It begins with the mark, where the read path looks for a deletion, and
// ends with when it was parked and the tries, which park.lua carries on.
func entry(it *item, now time.Time) string {
	b := append([]byte(`{"mark":"`), it.sign(), '"')
	table := ""
	if it.m != nil {
		table = it.m.Table()
	}
	text := it.err.Error()
	var my *mysql.MySQLError
	if errors.As(it.err, &my) {
		text = my.Message
	}
	b = append(b, `,"table":`...)
	b = appendJSON(b, table)
	b = append(b, `,"code":`...)
	b = strconv.AppendUint(b, uint64(mysqlCode(it.err)), 10)
	b = append(b, `,"error":`...)
	b = appendJSON(b, text)
	b = append(b, `,"at":`...)
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	return string(append(b, `,"tries":1}`...))
}

func appendJSON(b []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return append(b, `""`...) // no string makes an error
	}
	return append(b, text...)
}

// tellParked counts and logs keys that were parked: each at level error, but not all of many.
func (o *owner) tellParked(items []*item) {
	o.f.stats.parked.Add(int64(len(items)))
	lost := 0
	for _, it := range items {
		if it.err == errImageGone {
			lost++
			continue
		}
		o.log.Error().Str("key", it.key).Err(it.err).Msg("row cannot be written; its key is parked, keyrow journal parked lists such to be retried or dropped")
	}
	if lost == 0 {
		return
	}
	o.f.stats.lost.Add(int64(lost))
	names := make([]string, 0, 5)
	for _, it := range items {
		if it.err == errImageGone && len(names) < cap(names) {
			names = append(names, it.key)
		}
	}
	o.log.Error().Int("lost", lost).Strs("keys", names).
		Msg("writes are lost: these keys were written, nobody deleted them, and redis no longer has them; " +
			"their rows are left as they are")
}

// readmit marks the keys again that were parked for want of a mapping, or of one that knows their images, and may have it
// now. In a rolling deployment the process that does not know a mapping yet may be the one that owns the partition.
func (o *owner) readmit(ctx context.Context) error {
	set := o.f.mappings()
	if set == o.admitted {
		return nil
	}
	var keys []any
	err := o.f.journal.eachParked(ctx, o.p, func(key, entry string) bool {
		why := parseEntry(key, entry).Error
		if (why == errNoMapping.Error() || strings.HasPrefix(why, notOfRow)) && set.MatchRow([]byte(key)) != nil {
			keys = append(keys, key)
		}
		return true
	})
	if err == nil {
		o.admitted = set
	}
	if err != nil || len(keys) == 0 {
		return err
	}
	marked := 0
	for some := range slices.Chunk(keys, parkedChunk) {
		n, err := o.f.journal.retry(ctx, o.p, some)
		if err != nil {
			return err
		}
		marked += n
	}
	o.f.log.Info().Int("partition", o.p).Int("keys", marked).Msg("keys that were parked for want of their mapping are tried again")
	return nil
}

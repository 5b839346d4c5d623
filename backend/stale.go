package backend

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keyrow/mapping"
)

// A row may have several mappings, and so several keys. What is written through one of them makes the images of the
// others stale, and those have to go, whatever becomes of this process. Which keys those are can depend on columns that
// the write changes: both the key of what the row was and of what it is then.
//
//	START TRANSACTION
//	SELECT … FOR UPDATE      the keys of the rows as they are, which nobody can change any more
//	INSERT, UPDATE, DELETE
//	SELECT                   the keys of the rows as they will be, whatever a trigger made of them
//	announce                 all these keys go into the stale set of the partition
//	COMMIT
//	drop                     the images of these keys go, and their leases: a fill that has read the row before comes late
//	settle                   the marks go
//
// Who is killed behind the COMMIT leaves the marks in flushing and the keys in the stale set. The next owner writes the
// rows again, but what they were before it cannot see; it drops what is in the set, before it settles anything. By then
// the transaction has been committed or never will be, for its session is gone.
//
// An image that waits to be flushed itself is not dropped, as it is the only copy of what was written. It is let go with
// its own flush, see del.lua of the proxy.

var (
	scriptAnnounce = newScript("announce")
	scriptOutdate  = newScript("outdate")
)

// maxStale is how many keys are announced or dropped with one call.
const maxStale = 1000

// stale is what an owner knows of the stale set.
type stale struct {
	unread    bool     // an owner before this one may have left something
	found     []string // of the transaction under way
	announced []string
}

// kin finds the keys that other mappings have for the rows of items. It is called before these are written, to lock the
// rows, and again behind that. If it fails, items[at:at+n] are those of the statement that did.
func (o *owner) kin(ctx context.Context, items []*item, before bool) (at, n int, err error) {
	if before {
		o.stale.found = o.stale.found[:0]
	}
	for ; at < len(items); at += n {
		m := items[at].m
		n = 1
		for at+n < len(items) && n < maxDeletes && items[at+n].m == m {
			n++
		}
		kin := o.ranksOf.Kin(m)
		if len(kin) == 0 {
			continue
		}
		found, err := kinOf(ctx, o.conn, o.builder(ctx, m), kin, items[at:at+n], before)
		if err != nil {
			return at, n, err
		}
		for _, key := range found {
			o.stale.found = append(o.stale.found, strconv.Itoa(o.f.journal.keys.Partition(key))+":"+string(key))
		}
	}
	return 0, 0, nil
}

// querier is a session of MySQL.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// kinOf returns the keys that the mappings kin have for the rows of items, which are of one mapping.
func kinOf(ctx context.Context, session querier, b *builder, kin []*mapping.Mapping, items []*item, before bool) (found [][]byte, err error) {
	var columns []string
	var asked []*mapping.Mapping
	for _, k := range kin {
		if !k.Follows(b.m) {
			asked = append(asked, k)
			for _, name := range k.KeyColumns() {
				columns = append(columns, quoteName(name))
			}
			continue
		}
		for _, it := range items {
			if key := k.KeyFrom(nil, b.m, []byte(it.key)); before && key != nil {
				found = append(found, key)
			}
		}
	}
	if len(asked) == 0 {
		return found, nil
	}
	var q strings.Builder
	q.WriteString("SELECT " + strings.Join(columns, ",") + " FROM " + b.m.Table() + " WHERE ")
	args := b.matchAny(&q, items)
	if before {
		q.WriteString(" FOR UPDATE")
	}
	rows, err := session.QueryContext(ctx, q.String(), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	row := newRow(rows)
	for rows.Next() {
		if err := row.scan(rows); err != nil {
			return nil, err
		}
		values := row.values
		for _, k := range asked {
			n := len(k.KeyColumns())
			if key := k.RowKey(nil, values[:n]); key != nil {
				found = append(found, key)
			}
			values = values[n:]
		}
	}
	return found, rows.Err()
}

// announce puts the keys that were found into the stale set.
func (o *owner) announce(ctx context.Context) error {
	for keys := range slices.Chunk(o.stale.found, maxStale) {
		if _, err := o.script(ctx, scriptAnnounce, []string{o.keys.fence, o.keys.stale}, texts(keys)...); err != nil {
			return err
		}
		o.stale.announced = append(o.stale.announced, keys...)
	}
	if len(o.stale.found) > 0 {
		o.f.hook(HookAnnounced)
	}
	return nil
}

// drop drops the images of all keys in the stale set.
func (o *owner) drop(ctx context.Context) error {
	if o.stale.unread {
		left, err := o.f.rdb.SMembers(ctx, o.keys.stale).Result()
		if err != nil {
			return fmt.Errorf("redis: %w", err)
		}
		o.stale.announced = append(o.stale.announced, left...)
		o.stale.unread = false
	}
	for len(o.stale.announced) > 0 {
		keys := o.stale.announced[:min(maxStale, len(o.stale.announced))]
		if _, err := o.script(ctx, scriptOutdate, []string{o.keys.fence, o.keys.stale},
			append([]any{o.f.journal.cfg.Prefix}, texts(keys)...)...); err != nil {
			return err
		}
		o.stale.announced = o.stale.announced[len(keys):]
		o.f.hook(HookDropped)
	}
	return nil
}

func texts(list []string) []any {
	args := make([]any, len(list))
	for i, s := range list {
		args[i] = s
	}
	return args
}

package backend

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrow/mapping"
)

// land brings items into MySQL, in their order, and gives each an end.
//
// They go in one transaction. If a statement of it fails by the fault of a row, everything before it is committed, the rows
// of the statement are halved until the one at fault stands alone, and what comes after goes on. So one bad row in a
// statement of n costs 2*log2(n) statements more at most. The halves are transactions of their own.
//
// An error is one of the server or of the way to it; then some items have an end, and all are to be done again.
func (o *owner) land(ctx context.Context, items []*item) error { return o.halve(ctx, items, plainly) }

// manner is how a transaction goes about rows that refer to each other: see transact.
type manner int

const (
	plainly  manner = iota // loosely once that fails for want of a parent
	loosely                // plainly again for a row that the table does not take without its parent
	strictly               // plainly
)

func (o *owner) halve(ctx context.Context, items []*item, how manner) error {
	for len(items) > 0 {
		at, n, err := o.transact(ctx, items, how == loosely)
		if err == nil {
			return nil
		}
		if items[0].end == endLanded {
			items, at = items[at:], 0
		}
		class := classify(err)
		if n == 0 || class == transient {
			if n == 1 && len(items) == 1 && mysqlCode(err) == errLockWait {
				o.setAside(items[0], err)
				return nil
			}
			return err
		}
		if class == reference && how == plainly && slices.ContainsFunc(items, o.isLoose) {
			how = loosely
			continue
		}
		if err := o.halve(ctx, items[:at], how); err != nil {
			return err
		}
		failed, after := items[at:at+n], items[at+n:]
		switch {
		case class == schema:
			m := failed[0].m
			if !o.renewed(ctx, m) {
				o.f.pause(m, err)
			}
			for _, it := range items[at:] {
				if it.m == m {
					it.end = endDefer
				}
			}
			after = slices.DeleteFunc(slices.Clone(after), func(it *item) bool { return it.m == m })
		case n == 1 && how == loosely && class == row && o.isLoose(failed[0]):
			if err := o.halve(ctx, failed, strictly); err != nil {
				return err
			}
		case n == 1:
			failed[0].park(err)
		default:
			if err := o.split(ctx, failed, how); err != nil {
				return err
			}
		}
		items = after
	}
	return nil
}

// split is halve for items of which one at least is at fault. If it is not in the first half, the second need not be tried
// as a whole.
func (o *owner) split(ctx context.Context, items []*item, how manner) error {
	first, second := items[:len(items)/2], items[len(items)/2:]
	if err := o.halve(ctx, first, how); err != nil {
		return err
	}
	if len(second) > 1 && !slices.ContainsFunc(first, func(it *item) bool { return it.end != endLanded }) {
		return o.split(ctx, second, how)
	}
	return o.halve(ctx, second, how)
}

// renewed reports whether m is no longer in force, after a look at its table.
func (o *owner) renewed(ctx context.Context, m *mapping.Mapping) bool {
	if err := o.f.look(ctx); err != nil {
		o.log.Warn().Str("mapping", m.Name).Err(err).Msg("the table of a row that mysql refuses cannot be looked at; the mapping stays as it is")
	}
	return !slices.Contains(o.f.mappings().Versions(), m)
}

// setAside lets a row wait that somebody else has locked. With several rows of one mapping it is rather the table, in
// an ALTER TABLE say; then the mapping is paused, since each row would be waited for.
func (o *owner) setAside(it *item, err error) {
	it.end = endDefer
	o.postpone(it, time.Now(), errLockWait)
	locked := 0
	for key, w := range o.waiting {
		if w.why == errLockWait && o.ranksOf.MatchRow([]byte(key)) == it.m {
			locked++
		}
	}
	if locked >= lockedRows {
		o.f.pause(it.m, err)
		return
	}
	o.log.Warn().Str("key", it.key).Err(err).Msg("row is locked by somebody else; it waits, the others go on")
}

// transact writes items in one transaction. If that fails, items[at:at+n] are those of the statement that did; n is 0
// if it was none of them. Nothing was written then, or, if the session is lost during the commit, perhaps all; or else
// items[:at], which have their end then.
//
// Where tables refer to each other in a circle, or a table to itself, no order of statements has all parents there before
// their children. Then transact goes about it loosely, which takes more statements: rows that are to be deleted are first
// made to refer to nothing, and new ones are inserted so before they get their values.
func (o *owner) transact(ctx context.Context, items []*item, loose bool) (at, n int, err error) {
	if _, err := o.exec(ctx, "START TRANSACTION"); err != nil {
		return 0, 0, lost(err)
	}
	if at, n, err := o.kin(ctx, items, true); err != nil {
		return o.undo(ctx, at, n, err)
	}
	at, n, kept, err := o.statements(ctx, items, loose)
	if err != nil && !kept {
		return o.undo(ctx, at, n, err)
	} else if err != nil {
		items = items[:at]
	}
	if at, n, err := o.kin(ctx, items, false); err != nil {
		return o.undo(ctx, at, n, err)
	}
	if err := o.announce(ctx); err != nil {
		return o.undo(ctx, 0, 0, err)
	}
	o.f.hook(HookBeforeCommit)
	if _, err := o.exec(ctx, "COMMIT"); err != nil {
		// Whatever MySQL says: no row is at fault here, and the session may be in any state.
		return 0, 0, lost(err)
	}
	for i, it := range items {
		it.end = endLanded
		if i == 0 || it.m != items[i-1].m {
			o.f.resume(it.m)
		}
	}
	return at, n, err
}

// statements runs those for items. If one fails, it was that for items[at:at+n], and kept says whether the transaction has
// what the ones before it did: InnoDB undoes a statement that fails, but some failures end the transaction, and the
// savepoint with it. One is set behind the first statement only, as most transactions have no other.
func (o *owner) statements(ctx context.Context, items []*item, loose bool) (at, n int, kept bool, err error) {
	passes := []func(context.Context, []*item) (int, error){o.write}
	if loose {
		passes = []func(context.Context, []*item) (int, error){o.unlink, o.writeBare, o.writeLoose}
	}
	saved := false
	for _, pass := range passes {
		for at = 0; at < len(items); at += n {
			if at > 0 && !loose && !saved {
				if _, err := o.exec(ctx, "SAVEPOINT keyrow"); err != nil {
					return at, 0, false, err
				}
				saved = true
			}
			if n, err = pass(ctx, items[at:]); err == nil {
				continue
			}
			if kept = saved && classify(err) != transient; kept {
				_, released := o.exec(ctx, "RELEASE SAVEPOINT keyrow")
				kept = released == nil
			}
			return at, n, kept, err
		}
	}
	return at, 0, false, nil
}

// undo rolls back a transaction in which the statement for items[at:at+n] failed.
func (o *owner) undo(ctx context.Context, at, n int, err error) (int, int, error) {
	if n > 0 && classify(err) == transient && !keeps(err) {
		return at, n, lost(err)
	}
	if _, failed := o.exec(ctx, "ROLLBACK"); failed != nil {
		return at, 0, lost(failed)
	}
	return at, n, err
}

// isLoose reports whether an item can be written loosely.
func (o *owner) isLoose(it *item) bool { return len(o.loose[it.m.Table()]) > 0 && !it.older }

// alike is how many of the first items are of one mapping and one step, loose or not.
func (o *owner) alike(items []*item, most int) int {
	n := 1
	for n < min(len(items), most) && items[n].m == items[0].m && items[n].step == items[0].step &&
		o.isLoose(items[n]) == o.isLoose(items[0]) {
		n++
	}
	return n
}

// unlink makes those of the first items that are to be deleted refer to nothing.
func (o *owner) unlink(ctx context.Context, items []*item) (n int, err error) {
	n = o.alike(items, maxDeletes)
	b := o.builder(ctx, items[0].m)
	if items[0].step != stepDelete || b.cut == "" {
		return n, nil
	}
	query, args := b.unlink(items[:n])
	_, err = o.exec(ctx, query, args...)
	return n, err
}

// writeBare is write, but inserts loose items so that they refer to nothing, where there is no row yet.
func (o *owner) writeBare(ctx context.Context, items []*item) (n int, err error) {
	b := o.builder(ctx, items[0].m)
	if items[0].step != stepUpsert || len(b.loose) == 0 || !o.isLoose(items[0]) {
		return o.write(ctx, items)
	}
	n = o.alike(items, b.most())
	for i, it := range items[:n] {
		if err := o.fits(it); err != nil {
			if i == 0 {
				return 1, err
			}
			n = i
			break
		}
	}
	query, args, n := b.insert(b.bare(items[:n]), b.keep, o.packet)
	o.f.stats.upserts.Add(1)
	_, err = o.exec(ctx, query, args...)
	return n, err
}

// writeLoose writes those of the first items that writeBare left without their values.
func (o *owner) writeLoose(ctx context.Context, items []*item) (n int, err error) {
	b := o.builder(ctx, items[0].m)
	if items[0].step != stepUpsert || len(b.loose) == 0 || !o.isLoose(items[0]) {
		return 1, nil
	}
	return o.write(ctx, items[:o.alike(items, b.most())])
}

// write writes as many of the first items as go together, and returns how many these were.
func (o *owner) write(ctx context.Context, items []*item) (n int, err error) {
	b := o.builder(ctx, items[0].m)
	if items[0].step == stepDelete {
		query, args, n := b.delete(items)
		o.f.stats.deletes.Add(1)
		_, err := o.exec(ctx, query, args...)
		return n, err
	}
	older := items[0].older // goes alone
	for n < len(items) && n < b.most() && items[n].m == b.m && items[n].step == stepUpsert && (n == 0 || !older && !items[n].older) {
		if err := o.fits(items[n]); err != nil {
			if n == 0 {
				return 1, err
			}
			break
		}
		n++
	}
	switch {
	case !b.m.UpdateFirst() && !older:
		query, args, n := b.insert(items[:n], b.conflict, o.packet)
		o.f.stats.upserts.Add(1)
		_, err := o.exec(ctx, query, args...)
		return n, err
	case n > 1:
		return n, o.merge(ctx, b, items[:n])
	}
	query, args := b.update(items[0])
	o.f.stats.upserts.Add(1)
	if matched, err := o.exec(ctx, query, args...); err != nil || matched > 0 {
		return 1, err
	}
	query, args, _ = b.insert(items[:1], "", o.packet)
	o.f.stats.upserts.Add(1)
	_, err = o.exec(ctx, query, args...)
	if older && mysqlCode(err) == errNoDefault {
		err = &tooLittle{err, b.m.Partial()}
	}
	return 1, err
}

// tooLittle is the fault of a row, not of its table: only MySQL could have said what is missing.
type tooLittle struct {
	why     error
	partial bool // all images of the mapping are
}

func (e *tooLittle) Error() string {
	if e.partial {
		return fmt.Sprintf("there is no such row, and the one column of the mapping does not make one: %v: INSERT the row, "+
			"and write the key again", e.why)
	}
	return fmt.Sprintf("the image is from before a column that a new row needs: %v: SET the key again", e.why)
}

// merge writes rows of a table where a duplicate may be another row than that of the key, in three statements instead
// of two for each row: one finds and locks the rows that are there, the second upserts these, the third inserts the
// others. The second hits no other row, since the key is the primary key, of which InnoDB knows that it is taken before
// it looks at another index. If one of them fails, halving comes down to single rows and their UPDATE and INSERT.
func (o *owner) merge(ctx context.Context, b *builder, items []*item) error {
	query, args := b.find(items)
	rows, err := o.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	there := make(map[string]bool)
	row := make([][]byte, len(b.keys))
	into := make([]any, len(row))
	for i := range row {
		into[i] = (*sql.RawBytes)(&row[i])
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		there[string(b.m.RowKey(nil, row))] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var old, fresh []*item
	for _, it := range items {
		if there[it.key] {
			old = append(old, it)
		} else {
			fresh = append(fresh, it)
		}
	}
	for _, part := range []struct {
		items    []*item
		conflict string
	}{{old, b.conflict}, {fresh, ""}} {
		for items := part.items; len(items) > 0; {
			query, args, n := b.insert(items, part.conflict, o.packet)
			o.f.stats.upserts.Add(1)
			if _, err := o.exec(ctx, query, args...); err != nil {
				return err
			}
			items = items[n:]
		}
	}
	return nil
}

// fits refuses a row with a value that no statement can carry.
func (o *owner) fits(it *item) error {
	for i, v := range it.row {
		if n := size(v); n > o.packet {
			return &tooLarge{it.m.WriteColumns()[i], n, o.packet}
		}
	}
	return nil
}

type tooLarge struct {
	column       string
	bytes, limit int
}

func (e *tooLarge) Error() string {
	return fmt.Sprintf("column %q: %d bytes, and max_allowed_packet of mysql is %d", e.column, e.bytes, e.limit)
}

// sort puts items into the order in which they are written: deletions first, since they may free what a unique index
// holds; tables in the order of their foreign keys, for deletions backwards; rows by their keys, so that all owners
// lock them in the same order.
func (o *owner) sort(items []*item) {
	slices.SortFunc(items, func(a, b *item) int {
		if a.step != b.step {
			return cmp.Compare(b.step, a.step)
		}
		if a.m != b.m {
			if a.step == stepDelete {
				a, b = b, a
			}
			return cmp.Or(cmp.Compare(o.ranks[a.m], o.ranks[b.m]), strings.Compare(a.m.Name, b.m.Name))
		}
		for i := range min(len(a.id), len(b.id)) {
			if c := compare(a.id[i], b.id[i]); c != 0 {
				return c
			}
		}
		return strings.Compare(a.key, b.key)
	})
}

// compare orders two values of one key column.
func compare(a, b any) int {
	switch a := a.(type) {
	case int64:
		if b, ok := b.(int64); ok {
			return cmp.Compare(a, b)
		}
	case uint64:
		if b, ok := b.(uint64); ok {
			return cmp.Compare(a, b)
		}
	case string:
		if b, ok := b.(string); ok {
			return strings.Compare(a, b)
		}
	case []byte:
		if b, ok := b.([]byte); ok {
			return bytes.Compare(a, b)
		}
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

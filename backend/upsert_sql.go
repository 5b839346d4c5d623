package backend

import (
	"context"
	"database/sql"
	"slices"
	"strings"

	"keyrow/mapping"
)

// Limits of one statement. MySQL has 65,535 placeholders; a few hundred rows have all that grouping gains, and hold
// their locks for a moment only. Deletions are fewer because each may be a range for the optimizer to look at.
const (
	maxPlaceholders = 65535
	maxInserts      = 500
	maxDeletes      = 100
)

// builder writes the statements of one mapping.
type builder struct {
	m        *mapping.Mapping
	keys     []string // key columns, quoted
	columns  []string // columns to write, quoted
	values   []int    // those of columns that are no key columns
	head     string   // INSERT INTO t (c, …) VALUES
	conflict string   // ON DUPLICATE KEY UPDATE …
	primary  bool     // the key columns are the primary key; known only where that matters
	keep     string   // ON DUPLICATE KEY UPDATE that changes nothing
	cut      string   // SET c=NULL, …: the loose columns of the table, see owner.transact
	loose    []int    // those of columns that are loose
}

func newBuilder(m *mapping.Mapping, loose []string) *builder {
	b := &builder{m: m}
	isKey := make(map[string]bool)
	for _, name := range m.KeyColumns() {
		isKey[name] = true
		b.keys = append(b.keys, quoteName(name))
	}
	var set []string
	for i, name := range m.WriteColumns() {
		c := quoteName(name)
		b.columns = append(b.columns, c)
		if !isKey[name] {
			b.values = append(b.values, i)
			set = append(set, c+"=VALUES("+c+")")
			if slices.Contains(loose, name) {
				b.loose = append(b.loose, i)
			}
		}
	}
	b.keep = " ON DUPLICATE KEY UPDATE " + b.keys[0] + "=" + b.keys[0]
	var cut []string
	for _, name := range loose {
		if !isKey[name] {
			cut = append(cut, quoteName(name)+"=NULL")
		}
	}
	if len(cut) > 0 {
		b.cut = "SET " + strings.Join(cut, ",")
	}
	if len(set) == 0 {
		set = []string{b.keys[0] + "=VALUES(" + b.keys[0] + ")"}
	}
	b.head = "INSERT INTO " + m.Table() + " (" + strings.Join(b.columns, ",") + ") VALUES "
	b.conflict = " ON DUPLICATE KEY UPDATE " + strings.Join(set, ",")
	return b
}

// builder returns the builder of a mapping; they are forgotten when the mappings change.
func (o *owner) builder(ctx context.Context, m *mapping.Mapping) *builder {
	b := o.builders[m]
	if b == nil {
		b = newBuilder(m, o.loose[m.Table()])
		if m.UpdateFirst() {
			primary, err := o.primaryKey(ctx, m)
			if err != nil {
				return b // asked again with the next batch
			}
			slices.Sort(primary)
			b.primary = slices.Equal(primary, slices.Sorted(slices.Values(m.KeyColumns())))
		}
		o.builders[m] = b
	}
	return b
}

// primaryKey returns the columns of the primary key, none if only parts of them are indexed.
func (o *owner) primaryKey(ctx context.Context, m *mapping.Mapping) (columns []string, err error) {
	rows, err := o.conn.QueryContext(ctx, "SHOW INDEX FROM "+m.Table()+" WHERE Key_name = 'PRIMARY'")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values := make([]sql.NullString, len(names))
	into := make([]any, len(names))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		for i, name := range names {
			switch {
			case name == "Column_name":
				columns = append(columns, values[i].String)
			case name == "Sub_part" && values[i].Valid:
				return nil, nil
			}
		}
	}
	return columns, rows.Err()
}

// most is how many rows go into one statement.
func (b *builder) most() int {
	switch {
	case !b.m.UpdateFirst():
		return max(1, min(maxInserts, maxPlaceholders/len(b.columns)))
	case b.primary:
		return max(1, min(maxDeletes, maxPlaceholders/len(b.columns)))
	}
	return 1
}

// insert is one statement for as many of the first items as fit, at least one. Conflict says what happens to a row that
// is there: "" for an error, b.conflict for an update, if it can only be the row of the key itself.
func (b *builder) insert(items []*item, conflict string, packet int) (query string, args []any, n int) {
	var q strings.Builder
	q.Grow(len(b.head) + len(conflict) + 2*len(items)*(len(b.columns)+1)) // (?,?),(?,?)
	q.WriteString(b.head)
	args = make([]any, 0, len(items)*len(b.columns))
	budget := packet - len(b.head) - len(conflict) - 1024
	for _, it := range items {
		for _, v := range it.row {
			budget -= 2*size(v) + 16 // every byte may be escaped
		}
		if n > 0 && budget < 0 {
			break
		}
		if n > 0 {
			q.WriteByte(',')
		}
		args = b.tuple(&q, args, it)
		n++
	}
	q.WriteString(conflict)
	return q.String(), args, n
}

// tuple writes (?,DEFAULT,?).
func (b *builder) tuple(q *strings.Builder, args []any, it *item) []any {
	for i, v := range it.row {
		if i == 0 {
			q.WriteByte('(')
		} else {
			q.WriteByte(',')
		}
		args = value(q, args, v)
	}
	q.WriteByte(')')
	return args
}

func value(q *strings.Builder, args []any, v any) []any {
	if v == mapping.DefaultValue || v == mapping.Unchanged {
		q.WriteString("DEFAULT")
		return args
	}
	q.WriteByte('?')
	return append(args, v)
}

// update is the statement for the row of the key itself, and no alias of it.
func (b *builder) update(it *item) (query string, args []any) {
	var q strings.Builder
	q.WriteString("UPDATE " + b.m.Table() + " SET ")
	set := false
	for _, i := range b.values {
		if it.row[i] == mapping.Unchanged {
			continue
		}
		if set {
			q.WriteByte(',')
		}
		set = true
		q.WriteString(b.columns[i] + "=")
		args = value(&q, args, it.row[i])
	}
	if !set {
		q.WriteString(b.keys[0] + "=" + b.keys[0])
	}
	q.WriteString(" WHERE ")
	args = b.match(&q, args, it)
	return q.String(), args
}

// delete is one statement for as many of the first items as belong together and fit, at least one.
func (b *builder) delete(items []*item) (query string, args []any, n int) {
	for n < min(len(items), maxDeletes) && items[n].m == b.m && items[n].step == stepDelete {
		n++
	}
	var q strings.Builder
	q.WriteString("DELETE FROM " + b.m.Table() + " WHERE ")
	args = b.matchAny(&q, items[:n])
	return q.String(), args, n
}

// unlink is the statement that makes rows refer to no others, as far as their table is written or deleted before those.
func (b *builder) unlink(items []*item) (query string, args []any) {
	var q strings.Builder
	q.WriteString("UPDATE " + b.m.Table() + " " + b.cut + " WHERE ")
	args = b.matchAny(&q, items)
	return q.String(), args
}

// bare is items as rows that refer to no others, as far as unlink goes.
func (b *builder) bare(items []*item) []*item {
	out := make([]*item, len(items))
	for i, it := range items {
		one := *it
		one.row = slices.Clone(it.row)
		for _, at := range b.loose {
			one.row[at] = nil
		}
		out[i] = &one
	}
	return out
}

// find is the statement that reads and locks the keys of the rows that are there.
func (b *builder) find(items []*item) (query string, args []any) {
	var q strings.Builder
	q.WriteString("SELECT " + strings.Join(b.keys, ",") + " FROM " + b.m.Table() + " WHERE ")
	args = b.matchAny(&q, items)
	q.WriteString(" FOR UPDATE")
	return q.String(), args
}

// matchAny writes the condition that is true for the rows of these keys.
func (b *builder) matchAny(q *strings.Builder, items []*item) (args []any) {
	if _, text := items[0].id[0].(string); len(b.keys) == 1 && !text {
		q.WriteString(b.keys[0] + " IN (")
		for i, it := range items {
			if i > 0 {
				q.WriteByte(',')
			}
			q.WriteByte('?')
			args = append(args, it.id[0])
		}
		q.WriteByte(')')
		return args
	}
	for i, it := range items {
		if i > 0 {
			q.WriteString(" OR ")
		}
		q.WriteByte('(')
		args = b.match(q, args, it)
		q.WriteByte(')')
	}
	return args
}

// match writes the condition that is true for the row of the key alone. Text is compared twice: by its collation, which
// an index can answer, and by its bytes in utf8mb4, the encoding of keys, which tells Bob from bob and from Bob with a
// space.
func (b *builder) match(q *strings.Builder, args []any, it *item) []any {
	for i, c := range b.keys {
		if i > 0 {
			q.WriteString(" AND ")
		}
		q.WriteString(c + "=?")
		args = append(args, it.id[i])
		if _, text := it.id[i].(string); text {
			q.WriteString(" AND CAST(CONVERT(" + c + " USING utf8mb4) AS BINARY)=CAST(? AS BINARY)")
			args = append(args, it.id[i])
		}
	}
	return args
}

// size is about how many bytes a value takes in a statement before it is escaped.
func size(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	}
	return 20
}

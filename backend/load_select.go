package backend

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"keyrow/mapping"
)

// selectRows reads the rows of all keys with one SELECT, and gives each read its image. The error is MySQL's; a row
// that cannot be made into an image is the error of its own read.
func (l *Loader) selectRows(m *mapping.Mapping, reads []*read) error {
	args := make([]any, 0, len(reads)*len(m.KeyColumns()))
	byKey := make(map[string]*read, len(reads))
	n := 0
	for _, r := range reads {
		with, err := m.KeyArgs(args, r.key)
		if err != nil {
			// The key names no row; Load lets none through.
			continue
		}
		args = with
		byKey[r.name] = r
		n++
	}
	if n == 0 {
		return nil
	}

	// The pool's own deadline, not that of a caller: whoever joins later waits for this SELECT as well.
	ctx, cancel := context.WithTimeout(l.ctx, l.timeout)
	defer cancel()
	l.counters.selects.Add(1)
	start := time.Now()
	defer func() { l.selected(m.Name, n, time.Since(start)) }()
	rows, err := l.db.QueryContext(ctx, selectByKey(m, n), args...)
	if err != nil {
		return err
	}
	defer rows.Close()

	var spelled []byte
	row := newRow(rows)
	for rows.Next() {
		if err := row.scan(rows); err != nil {
			return err
		}
		l.counters.rows.Add(1)
		// MySQL compares as the collation says, so it may return 'Bob' for 'bob': that is another key's row.
		spelled = m.RowKey(spelled[:0], row.values)
		r := byKey[string(spelled)]
		if r == nil {
			continue
		}
		if r.values, err = m.Values(nil, row.values); err != nil {
			r.err = &Error{CodeErr, fmt.Sprintf("the row of this key cannot be shown: %v: nothing was read", err)}
		}
	}
	return rows.Err()
}

// selectByKey is the statement that reads the rows of n keys.
func selectByKey(m *mapping.Mapping, n int) string {
	var b strings.Builder
	b.WriteString("SELECT ")
	b.WriteString(m.SelectList())
	b.WriteString(" FROM ")
	b.WriteString(m.Table())
	b.WriteString(" WHERE ")
	one := "?"
	if columns := m.KeyColumns(); len(columns) == 1 {
		b.WriteString(quoteName(columns[0]))
	} else {
		for i, c := range columns {
			b.WriteByte("(,"[min(i, 1)])
			b.WriteString(quoteName(c))
		}
		b.WriteByte(')')
		one = "(?" + strings.Repeat(",?", len(columns)-1) + ")"
	}
	b.WriteString(" IN (")
	b.WriteString(one)
	for range n - 1 {
		b.WriteByte(',')
		b.WriteString(one)
	}
	b.WriteByte(')')
	return b.String()
}

// quoteName quotes the name of a column for SQL.
func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// resultRow is the row under the cursor, as text, nil for NULL. Its values are good until the next scan.
type resultRow struct {
	values [][]byte
	raw    []sql.RawBytes
	dest   []any
}

func newRow(rows *sql.Rows) *resultRow {
	columns, err := rows.Columns()
	if err != nil {
		// The rows are closed; scan says why.
		return &resultRow{}
	}
	n := len(columns)
	r := &resultRow{values: make([][]byte, n), raw: make([]sql.RawBytes, n), dest: make([]any, n)}
	for i := range r.raw {
		r.dest[i] = &r.raw[i]
	}
	return r
}

func (r *resultRow) scan(rows *sql.Rows) error {
	if err := rows.Scan(r.dest...); err != nil {
		return err
	}
	for i, v := range r.raw {
		r.values[i] = v
	}
	return nil
}

package backend

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
)

const (
	// queryKeys is how many keys of one query are read at a time. Each is a SELECT of its own on a connection of its
	// own, so few leave the pool to the others.
	queryKeys = 8

	// A result of more values or bytes than these goes to Redis in pieces of that size, while it is read: neither keyrow
	// nor a script holds all of it.
	pieceValues = 1000
	pieceBytes  = 256 << 10

	// maxJSON is the most bytes of a result that is held as a whole: one JSON value, or what is read without Redis.
	maxJSON = 64 << 20
)

// selectResults runs the SELECT of a query for each key, side by side. What fails is the error of its own read.
func (l *Loader) selectResults(m *mapping.Mapping, reads []*read) {
	var wg sync.WaitGroup
	for _, r := range reads {
		wg.Go(func() {
			r.err = l.guard.run(m, func() error { return l.selectResult(m, r) })
		})
	}
	wg.Wait()
}

// selectResult reads the result of a query: into r, or a large one into a key aside. The error is one for a client, or
// MySQL's.
func (l *Loader) selectResult(m *mapping.Mapping, r *read) error {
	if r.token == "" && !r.whole && !m.Kind.Text() {
		return r.denied
	}
	args, err := m.StatementArgs(r.key)
	if err != nil {
		return nil // the key has no result; Load lets none through
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.timeout)
	defer cancel()
	// Prepared, for a FLOAT is exact only in the protocol of prepared statements, and a ? in quotes is no value there.
	stmt, err := l.db.PrepareContext(ctx, m.Statement())
	if err != nil {
		return err
	}
	defer stmt.Close()
	l.counters.selects.Add(1)
	start := time.Now()
	defer func() { l.selected(m.Name, 1, time.Since(start)) }()
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := resultColumns(rows)
	if err != nil {
		return err
	}
	result, err := m.Result(columns)
	if err != nil {
		return notShown(err)
	}

	p := &piece{l: l, m: m, r: r}
	row := newRow(rows)
	for rows.Next() {
		if err := row.scan(rows); err != nil {
			return err
		}
		l.counters.rows.Add(1)
		from := len(p.values)
		if p.values, err = result.Values(p.values, row.values); err != nil {
			return notShown(err)
		}
		if err := p.grown(ctx, from); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return p.end(ctx)
}

func notShown(err error) error {
	return &Error{CodeErr, fmt.Sprintf("the result for this key cannot be shown: %v: nothing was read", err)}
}

// piece is what was read of a result and not sent to Redis yet.
type piece struct {
	l      *Loader
	m      *mapping.Mapping
	r      *read
	values [][]byte
	bytes  int
}

// grown is called after values were added from the one at from on.
func (p *piece) grown(ctx context.Context, from int) error {
	for _, v := range p.values[from:] {
		p.bytes += len(v)
	}
	switch {
	case (p.m.Kind == mapping.KindJSON || p.r.whole) && p.bytes > maxJSON:
		return notShown(fmt.Errorf("it has more than %d MiB; give the query a LIMIT", maxJSON>>20))
	case p.m.Kind != mapping.KindJSON && !p.r.whole && (len(p.values) > pieceValues || p.bytes > pieceBytes):
		return p.aside(ctx)
	}
	return nil
}

// end hands over the rest: of kind JSON the rows become one list.
func (p *piece) end(ctx context.Context) error {
	switch {
	case p.m.Kind == mapping.KindJSON:
		list := make([]byte, 0, p.bytes+len(p.values)+2)
		for i, object := range p.values {
			list = append(append(list, "[,"[min(i, 1)]), object...)
		}
		if len(p.values) == 0 {
			list = append(list, '[')
		}
		p.r.values = [][]byte{append(list, ']')}
	case p.r.aside == "":
		p.r.values = p.values
	case len(p.values) > 0:
		return p.aside(ctx)
	}
	return nil
}

// aside adds the values to a key aside, which fill.lua renames. It goes by itself if that never happens.
func (p *piece) aside(ctx context.Context) error {
	p.r.aside = string(p.l.journal.AppendAside(nil, p.r.key, p.r.token))
	args := append(make([]any, 0, 2+len(p.values)), storing[p.m.Kind], p.r.aside)
	for _, v := range p.values {
		args = append(args, v)
	}
	_, err := p.l.rdb.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.Do(ctx, args...)
		tx.PExpire(ctx, p.r.aside, p.l.leaseOf(p.m))
		return nil
	})
	p.values, p.bytes = p.values[:0], 0
	switch {
	case err == nil:
		return nil
	case isRedisError(err):
		p.l.counters.uncached.Add(1)
		return uncached(err.Error())
	}
	return fromRedis(err, "nothing was read")
}

// resultColumns describes the columns of a result as far as mapping.Result looks at them.
func resultColumns(rows *sql.Rows) ([]mapping.Column, error) {
	types, err := rows.ColumnTypes()
	if err != nil {
		return nil, err
	}
	columns := make([]mapping.Column, len(types))
	for i, t := range types {
		name, unsigned := strings.CutPrefix(strings.ToLower(t.DatabaseTypeName()), "unsigned ")
		_, scale, _ := t.DecimalSize()
		columns[i] = mapping.Column{Name: t.Name(), Type: name, Unsigned: unsigned, Scale: int(scale)}
	}
	return columns, nil
}

// ReadQueries adds to the schema, which has the tables of mapping.Tables, what MySQL says of the SELECTs of queries. They
// are run, but for no row.
func ReadQueries(ctx context.Context, db *sql.DB, queries []mapping.QueryConfig, schema mapping.Schema) error {
	for i := range queries {
		q := &queries[i]
		text, args, err := q.Probe(schema)
		if err != nil {
			continue // NewSet says so
		}
		if schema[q.SQL], err = readQuery(ctx, db, text, args); err != nil {
			return fmt.Errorf("read the schema of mysql: query %q: %w", q.Name, err)
		}
	}
	return nil
}

func readQuery(ctx context.Context, db *sql.DB, text string, args []any) (*mapping.Table, error) {
	var my *mysql.MySQLError
	// The line ends keep a comment at its end from what follows.
	stmt, err := db.PrepareContext(ctx, "SELECT * FROM (\n"+text+"\n) AS q LIMIT 0")
	if errors.As(err, &my) {
		return &mapping.Table{Problem: "mysql does not run it: " + my.Message}, nil
	} else if err != nil {
		return nil, err
	}
	defer stmt.Close()
	rows, err := stmt.QueryContext(ctx, args...)
	if errors.As(err, &my) {
		return &mapping.Table{Doubt: my.Message}, nil
	} else if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := resultColumns(rows)
	if err != nil {
		return nil, err
	}
	return &mapping.Table{Columns: columns}, rows.Err()
}

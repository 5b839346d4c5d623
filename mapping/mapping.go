// Package mapping knows which keys stand for which rows, and how a row is written as a value of Redis. It does no I/O.
//
// A [Config] is one [[mapping]] of the configuration, a [QueryConfig] one [[query]], both checked by [Validate]; a
// [Schema] is what the database says of their tables. [NewSet] holds the one against the other and makes a [Set], which
// finds the [Mapping] of a key. A
// Mapping turns rows into images ([Mapping.Values]) and images into rows ([Mapping.RowOf]), and what clients write into
// images ([Mapping.Canonical]) and fields of them ([Mapping.Fields]).
//
// The image of a row of kind JSON is an object without spaces, its fields in the order of the columns: the very same
// bytes whether it was made of a client's value or of the row. In hashes and strings the values stand as plain text,
// and NULL is an absent field or an absent key.
package mapping

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// A Mapping is one compiled mapping or query. But for its Counts it never changes, and any number of goroutines may use it.
//
// Of a query there are the keys, with [Mapping.Names] and [Mapping.Refusal], and the SELECT, with [Mapping.Statement],
// [Mapping.StatementArgs] and [Mapping.Result]; what is about a table and its rows is for mappings only.
type Mapping struct {
	Name         string
	Pattern      string
	Query        bool // it is a query
	Kind         Kind
	TTL          time.Duration // how long an image stays; 0: until evicted
	NegativeTTL  time.Duration // how long the absence of a row is remembered; 0: not at all
	Stale        time.Duration // how long after TTL an image may be served while MySQL is down; 0: not at all
	Bypass       bool          // MySQL answers GET, MGET and HGETALL while Redis cannot be reached
	EarlyRefresh float64       // beta of the early refresh of images that are read often; 0: there is none
	MaxSelects   Rate          // SELECTs that read for it; 0: no limit
	Deny         bool          // writes are refused
	Through      bool          // rows are written to MySQL first
	OnAbsent     bool          // those that are not in Redis are
	Cache        bool          // values are the clients' own; rows are only read
	DeleteRow    bool          // DEL deletes the row
	Durability   Durability    // of an acknowledged write
	Counts       *Counts

	pattern       *pattern
	keys          []*column // in pattern order
	columns       []*column // in image order, the key columns among them (those that the image has not, too)
	byField       map[string]int
	shown         *column // KindString: the one column of the image
	table         string
	keyNames      []string
	names         []string
	selectList    string
	updateFirst   bool
	partial       bool
	unpredictable bool
	statement     *statement // of a query

	config  Config
	query   QueryConfig      // of a query
	source  *Table           // the table that it was compiled for
	earlier []*Mapping       // what it was before reloads, the last one first: images of it may be in the journal
	gone    map[string]error // by field: columns that are no longer there; nil: skip the field in an image, see Renew
	unfit   error
}

// String names the mapping in errors.
func (m *Mapping) String() string {
	if m.Query {
		return fmt.Sprintf("query %q", m.Name)
	}
	return fmt.Sprintf("mapping %q", m.Name)
}

// Table is the table quoted for SQL.
func (m *Mapping) Table() string { return m.table }

// KeyColumns are the names of the key columns in pattern order, not quoted.
func (m *Mapping) KeyColumns() []string { return m.keyNames }

// WriteColumns are the names of the columns a write sets, not quoted; the key columns are among them.
func (m *Mapping) WriteColumns() []string { return m.names }

// SelectList is the select list of the rows that [Mapping.RowKey] and [Mapping.Values] take: the key columns in pattern
// order, then the columns of the image, as expressions whose text is exact.
func (m *Mapping) SelectList() string { return m.selectList }

// UpdateFirst reports whether an INSERT … ON DUPLICATE KEY UPDATE could hit a row of another key: the table has more
// than one unique index, or a key column's collation calls different values equal. Write such a row with an UPDATE
// that compares the key byte for byte, and with an INSERT if there is none.
func (m *Mapping) UpdateFirst() bool { return m.updateFirst }

// Partial reports whether a row that is not there cannot be made of an image, since the table has NOT NULL columns
// without default besides. MySQL refuses an INSERT of it even where it would become an UPDATE.
func (m *Mapping) Partial() bool { return m.partial }

// Predictable reports whether MySQL stores exactly what an image says, given the image's [Mapping.Row]. It does not
// where a default that is an expression has to be evaluated, or where a trigger, a native JSON column or a type of
// rounding changes what is written, or where the image is from before a column. An image that is not predictable is dropped once it is written, for the next reader
// to fill.
func (m *Mapping) Predictable(row []any) bool {
	return !m.unpredictable && !slices.Contains(row, DefaultValue) && !slices.Contains(row, Unchanged)
}

// Names reports whether key, which matches the pattern, can name a row: whether the text of each variable is the one
// spelling of a value of its column. If it cannot, reads see no row and writes are refused with [Mapping.Refusal].
func (m *Mapping) Names(key []byte) bool {
	var texts [maxVariables][]byte
	if !m.pattern.split(&texts, key) {
		return false
	}
	for i, c := range m.keys {
		if c.keys.check(texts[i]) != nil {
			return false
		}
	}
	return true
}

// Refusal tells why [Mapping.Names] is false; it is nil if it is true.
func (m *Mapping) Refusal(key []byte) error {
	var texts [maxVariables][]byte
	return m.bind(&texts, key)
}

// bind cuts key into the texts of the key columns and checks them.
func (m *Mapping) bind(texts *[maxVariables][]byte, key []byte) error {
	if !m.pattern.split(texts, key) {
		return fmt.Errorf("the key %s is none of %q", quote(key), m.Pattern)
	}
	for i, c := range m.keys {
		if err := c.keys.check(texts[i]); err != nil {
			return fmt.Errorf("the key names no row: %w", c.wrap(err))
		}
	}
	return nil
}

// KeyArgs appends the SQL arguments of the key columns, in the order of [Mapping.KeyColumns]. It fails with the
// [Mapping.Refusal] of a key that names no row.
func (m *Mapping) KeyArgs(dst []any, key []byte) ([]any, error) {
	var texts [maxVariables][]byte
	if err := m.bind(&texts, key); err != nil {
		return dst, err
	}
	for i, c := range m.keys {
		dst = append(dst, c.keys.arg(texts[i]))
	}
	return dst, nil
}

// RowKey appends the key of a row fetched with [Mapping.SelectList] (nil is NULL). It returns nil if the row has no
// key: a value is empty, or contains the literal text of the pattern so that the key would be cut elsewhere. A row
// that was asked for by a key is the row of that key only if RowKey gives the same bytes again.
func (m *Mapping) RowKey(dst []byte, row [][]byte) []byte {
	var texts [maxVariables][]byte
	for i, c := range m.keys {
		if texts[i] = row[i]; c.keys.spell != nil {
			texts[i] = c.keys.spell(nil, row[i])
		}
	}
	return m.spelled(dst, texts[:])
}

// spelled appends the key that consists of values as they are spelled in keys.
func (m *Mapping) spelled(dst []byte, values [][]byte) []byte {
	start := len(dst)
	var ends [maxVariables][2]int
	for i := range m.keys {
		dst = append(dst, m.pattern.literals[i]...)
		ends[i][0] = len(dst)
		dst = append(dst, values[i]...)
		ends[i][1] = len(dst)
	}
	dst = append(dst, m.pattern.literals[len(m.keys)]...)
	var texts [maxVariables][]byte
	if !m.pattern.split(&texts, dst[start:]) {
		return nil
	}
	for i := range m.keys {
		if !bytes.Equal(texts[i], dst[ends[i][0]:ends[i][1]]) {
			return nil
		}
	}
	return dst
}

// wrap names the column in an error of its codec.
func (c *column) wrap(err error) error {
	return fmt.Errorf("column %q: %w", c.name, err)
}

package mapping

import (
	"slices"
	"strconv"
	"strings"
)

// A Position is a place in the order of a unique index of a mapping's key columns, in which its rows can be walked
// through page by page. The order is MySQL's, not that of the bytes of keys: collations have their own, and numbers and
// the members of an ENUM. The zero Position is the start.
type Position struct {
	values []any // by key column, in pattern order
	behind bool  // behind that row, not at it
}

// At is the position of a key, whether there is a row or not. It fails with the [Mapping.Refusal] of a key that names
// none.
func (m *Mapping) At(key []byte) (Position, error) {
	values, err := m.KeyArgs(nil, key)
	return Position{values: values}, err
}

// Behind is the position behind a row of a [Mapping.Page], also of one that has no key.
func (m *Mapping) Behind(row [][]byte) Position {
	p := Position{behind: true}
	for i, c := range m.keys {
		text := row[i]
		if c.keys.spell != nil {
			text = c.keys.spell(nil, text)
		}
		p.values = append(p.values, c.keys.arg(text))
	}
	return p
}

// Page is the SELECT of up to limit rows from p on, 0: of all. Its rows have the key columns only, for [Mapping.RowKey].
//
// It goes on by comparing keys, since OFFSET would read all rows before again. The comparison is written out,
//
//	a > ? OR a = ? AND b > ?
//
// for neither MySQL nor MariaDB goes into an index with (a, b) > (?, ?).
func (m *Mapping) Page(p Position, limit int) (query string, args []any) {
	name, order := m.walkIndex()
	var list, by, where []string
	for _, c := range m.keys {
		list = append(list, c.quoted)
	}
	for i, at := range order {
		by = append(by, m.keys[at].quoted)
		if p.values == nil {
			continue
		}
		var all []string
		for _, before := range order[:i] {
			all = append(all, m.keys[before].quoted+" = ?")
			args = append(args, p.values[before])
		}
		one, with := m.keys[at].following(p.values[at], i == len(order)-1 && !p.behind)
		where = append(where, strings.Join(append(all, one), " AND "))
		args = append(args, with...)
	}
	// Without the hint, MySQL may sort what is left of the table for every page.
	query = "SELECT " + strings.Join(list, ", ") + " FROM " + m.table + " FORCE INDEX (" + quoteName(name) + ")"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " OR ")
	}
	query += " ORDER BY " + strings.Join(by, ", ")
	if limit > 0 {
		query += " LIMIT " + strconv.Itoa(limit)
	}
	return query, args
}

// walkIndex is the name of a unique index of the key columns, and which of them is the first in it, the second, ...
func (m *Mapping) walkIndex() (name string, order []int) {
	for _, x := range m.source.Indexes {
		if !x.Unique || x.Prefix || len(x.Columns) != len(m.keyNames) {
			continue
		}
		order = order[:0]
		for _, column := range x.Columns {
			if at := slices.Index(m.keyNames, column); at >= 0 {
				order = append(order, at)
			}
		}
		if len(order) == len(m.keyNames) {
			return x.Name, order
		}
	}
	return "", nil // the compiler has found one
}

// following is the condition for the values of a key column behind value, or from it on. An ENUM is ordered by its
// members' numbers, but compared as text, so those that follow are listed.
func (c *column) following(value any, inclusive bool) (string, []any) {
	if c.keys.members == nil {
		if inclusive {
			return c.quoted + " >= ?", []any{value}
		}
		return c.quoted + " > ?", []any{value}
	}
	at := slices.Index(c.keys.members, value.(string)) // -1: the empty text in place of a bad value, before all members
	if !inclusive {
		at++
	}
	var args []any
	for _, member := range c.keys.members[max(at, 0):] {
		args = append(args, member)
	}
	if len(args) == 0 {
		return "FALSE", nil
	}
	return c.quoted + " IN (?" + strings.Repeat(",?", len(args)-1) + ")", args
}

// OneKey is the only key of a query without variables; nil: there are many.
func (m *Mapping) OneKey() []byte {
	if len(m.pattern.variables) > 0 {
		return nil
	}
	return m.pattern.literals[0]
}

// globs escapes literal text in a pattern of Redis.
var globs = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)

// Glob is a pattern of Redis that all keys match; others may, too.
func (m *Mapping) Glob() string {
	texts := make([]string, len(m.pattern.literals))
	for i, literal := range m.pattern.literals {
		texts[i] = globs.Replace(string(literal))
	}
	return strings.Join(texts, "*")
}

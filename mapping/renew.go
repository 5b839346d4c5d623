package mapping

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Unchanged stands in the values of [Mapping.Row] for a column that keeps what the row has, and takes its default in a
// row that is new: the image is from before the column.
var Unchanged any = unchanged{}

type unchanged struct{}

func (unchanged) String() string { return "UNCHANGED" }

// Unfit tells why the mapping can neither be read nor written for now, nor its marks be flushed: its table is not what
// it was. It is nil for a mapping that [NewSet] made.
func (m *Mapping) Unfit() error { return m.unfit }

// Renew holds the mappings against a schema that may be newer than theirs. It returns s itself if nothing changed, else
// another Set, in which mappings that did not change are the same; and what there is to tell of it.
//
// Images in the journal were made under the older schema, so a mapping follows its table only as far as they keep their
// meaning:
//
//   - A column that is new is part of the image, unless the configuration lists the columns. An image from before
//     leaves it alone, see [Unchanged].
//   - A column that is gone is no longer part of the image. Its field in images from before is skipped, if no other
//     column is new: that could be the same one under another name, and then [Mapping.Row] refuses them.
//   - Where the form of a value changed, as text is not base64, the mapping stays as it was until the next start, since
//     nothing tells images of either form apart. It also stays where rows could no longer be inserted.
//   - Where a key no longer names the same row, or none, the mapping is [Mapping.Unfit] until its table fits again.
//
// Queries stay as they are: MySQL looks at their SELECTs each time.
func (s *Set) Renew(schema Schema) (*Set, []Finding) {
	next := &Set{queries: s.queries, former: s.former}
	changed := false
	var findings []Finding
	for _, m := range s.all {
		n, found := m.renew(schema[m.config.Table])
		changed = changed || n != m
		findings = append(findings, found...)
		next.all = append(next.all, n)
	}
	if !changed {
		return s, findings
	}
	next.index(s.counts)
	return next, findings
}

func (m *Mapping) renew(t *Table) (*Mapping, []Finding) {
	switch {
	case t == nil:
		return m.suspended([]string{fmt.Sprintf("the table %s is gone, or may no longer be seen", m.config.Table)})
	case m.unfit == nil && reflect.DeepEqual(t, m.source):
		return m, nil
	}
	config := m.config.fitted(t, m.pattern.variables)
	c := &compiler{findings: findings{name: m.Name}, config: &config, table: t}
	n := c.compile()
	reads := *c
	if c.failed && (m.WriteBehind() || m.Through) { // is it fit to be read at least?
		config.Write = "deny"
		reads = compiler{findings: findings{name: m.Name}, config: &config, table: t}
		reads.compile()
	}
	if reads.failed {
		return m.suspended(reads.errors())
	}
	if rekeyed := m.rekeyed(t); rekeyed != nil {
		return m.suspended(rekeyed)
	}
	if reformed := m.reformed(t); c.failed || reformed != nil {
		return m.kept(append(c.errors(), reformed...))
	}
	n.config, n.Counts, n.earlier = m.config, m.Counts, m.earlier
	return n, n.follow(m)
}

// fitted is the configuration without the columns that cannot be in an image of the table as it is now.
func (c Config) fitted(t *Table, key []string) Config {
	columns := c.Columns
	if len(columns) == 0 {
		for i := range t.Columns {
			columns = append(columns, t.Columns[i].Name)
		}
	}
	c.Columns = nil
	for _, name := range columns {
		k := t.column(name)
		if slices.Contains(key, name) || k != nil && !k.Generated && k.form() != "" {
			c.Columns = append(c.Columns, name)
		}
	}
	if len(c.Columns) == 0 {
		c.Columns = key
	}
	c.Fields = maps.Clone(c.Fields)
	maps.DeleteFunc(c.Fields, func(name, _ string) bool {
		return !slices.Contains(c.Columns, name) && !slices.Contains(key, name)
	})
	return c
}

// form is how the values of the column stand in an image, empty if they cannot.
func (k *Column) form() string {
	if _, err := newCodec(k); err != nil {
		return ""
	}
	switch {
	case k.JSON || k.Type == "json":
		return "JSON"
	case k.Charset == "binary" || strings.HasSuffix(k.Type, "binary") || strings.HasSuffix(k.Type, "blob"):
		return "base64"
	case strings.HasSuffix(k.Type, "int") || slices.Contains([]string{"year", "bit", "decimal", "float", "double"}, k.Type):
		return "a number"
	}
	return "text"
}

// reformed are the columns whose values have another form now.
func (m *Mapping) reformed(t *Table) (why []string) {
	for _, col := range m.columns {
		was, is := m.source.column(col.name), t.column(col.name)
		if is != nil && !is.Generated && was.form() != is.form() {
			why = append(why, fmt.Sprintf("column %q was %s and is %s now, so values are written otherwise", col.name, was.ColumnType, is.ColumnType))
		}
	}
	return why
}

// rekeyed are the columns of the key whose values are spelled otherwise now.
func (m *Mapping) rekeyed(t *Table) (why []string) {
	for _, col := range m.keys {
		was, is := m.source.column(col.name), t.column(col.name)
		if was.spelling() != is.spelling() {
			why = append(why, fmt.Sprintf("column %q of the key was %s and is %s now, so keys name other rows", col.name, was.ColumnType, is.ColumnType))
		}
	}
	return why
}

// spelling is equal for columns whose values are spelled alike in keys.
func (k *Column) spelling() string {
	switch {
	case k.Type != "year" && k.form() == "a number":
		return fmt.Sprint("number ", k.Scale)
	case k.Type == "binary":
		return fmt.Sprint("binary ", k.Length)
	case strings.HasSuffix(k.Type, "char"):
		return "text"
	}
	return fmt.Sprint(k.Type, k.Fsp)
}

// follow makes m, which was compiled for a newer table, read the images that were made under old.
func (m *Mapping) follow(old *Mapping) (findings []Finding) {
	tell := func(format string, args ...any) {
		findings = append(findings, Finding{m.Name, false, Warning, "table", fmt.Sprintf(format, args...)})
	}
	if old.unfit != nil {
		tell("it fits again, and the mapping is served again")
	}
	var added []string // to the table
	for i := range m.source.Columns {
		if name := m.source.Columns[i].Name; old.source.column(name) == nil {
			added = append(added, fmt.Sprintf("%q", name))
		}
	}
	for _, col := range m.columns {
		was := slices.IndexFunc(old.columns, func(k *column) bool { return k.name == col.name })
		col.later = was < 0 || old.columns[was].later
		if was < 0 {
			tell("column %q is new, and part of the values from now on", col.name)
		}
	}
	m.gone = maps.Clone(old.gone)
	for _, col := range old.columns {
		if slices.ContainsFunc(m.columns, func(k *column) bool { return k.name == col.name }) {
			continue
		}
		if m.gone == nil {
			m.gone = make(map[string]error)
		}
		if m.gone[col.field] = nil; len(added) == 0 {
			tell("column %q is gone; it is left out of what was written before", col.name)
			continue
		}
		m.gone[col.field] = fmt.Errorf("column %q is gone from the table and %s is new there, perhaps for the same: "+
			"SET the key again with the fields there are now", col.name, strings.Join(added, ", "))
		tell("column %q is gone and %s is new, perhaps for the same; what was written before with %q is parked",
			col.name, strings.Join(added, ", "), col.field)
	}
	return findings
}

// kept is m, as it was, although the table has changed.
func (m *Mapping) kept(why []string) (*Mapping, []Finding) {
	found := []Finding{{m.Name, false, Error, "table",
		strings.Join(why, "; ") + ": the mapping stays as it was until keyrow is started again; keyrow check says what to change"}}
	if m.unfit == nil {
		return m, found
	}
	n := *m
	n.unfit = nil
	return &n, found
}

// suspended is m while its table does not fit.
func (m *Mapping) suspended(why []string) (*Mapping, []Finding) {
	text := strings.Join(why, "; ")
	if m.unfit != nil && m.unfit.Error() == text {
		return m, nil
	}
	n := *m
	n.unfit = errors.New(text)
	return &n, []Finding{{m.Name, false, Error, "table", text + ": reads of rows that are not cached and all writes are refused, " +
		"and what was written waits, until the table fits again or keyrow is started with a mapping that does"}}
}

// errors are the texts of the findings that are errors.
func (c *compiler) errors() (texts []string) {
	for _, f := range c.list {
		if f.Severity == Error {
			texts = append(texts, f.Text)
		}
	}
	return texts
}

// Tables are the tables of the mappings, not of the queries, as the configuration spells them.
func (s *Set) Tables() []string {
	tables := make([]string, len(s.all))
	for i, m := range s.all {
		tables[i] = m.config.Table
	}
	return tables
}

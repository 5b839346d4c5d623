package mapping

import (
	"fmt"
	"slices"
	"strings"
)

// transactional are the engines whose changes can be rolled back. The journal relies on it: a batch that failed
// half-way must leave nothing behind.
var transactional = map[string]bool{"innodb": true, "rocksdb": true, "tokudb": true, "ndbcluster": true, "ndb": true}

// uniqueKey demands that the variables are the columns of a unique index that has no NULL and holds whole values, so
// that a key is one row and a row is one key.
func (c *compiler) uniqueKey(m *Mapping) {
	var usable, near []string
	for _, x := range c.table.Indexes {
		if !x.Unique {
			continue
		}
		nullable := slices.ContainsFunc(x.Columns, func(name string) bool {
			k := c.table.column(name)
			return k == nil || k.Nullable
		})
		same := len(x.Columns) == len(m.pattern.variables)
		for _, name := range x.Columns {
			same = same && slices.Contains(m.pattern.variables, name)
		}
		switch {
		case same && !nullable && !x.Prefix:
			return
		case same && nullable:
			near = append(near, fmt.Sprintf("; the unique index %s has them, but allows NULL", x.Name))
		case same:
			near = append(near, fmt.Sprintf("; the unique index %s has them, but only their first bytes", x.Name))
		case !nullable && !x.Prefix:
			usable = append(usable, fmt.Sprintf("%s {%s}", x.Name, strings.Join(x.Columns, "} {")))
		}
	}
	if len(usable) == 0 {
		usable = []string{"none; add a primary key"}
	}
	c.error("key", "{%s} are not the columns of a primary or NOT NULL unique key of %s%s; it has %s",
		strings.Join(m.pattern.variables, "} {"), c.config.Table, strings.Join(near, ""), strings.Join(usable, ", "))
}

// writable looks for what stands in the way of writing rows, or changes what is written.
func (c *compiler) writable(m *Mapping) {
	t, name := c.table, c.config.Table
	if t.Engine != "" && !transactional[strings.ToLower(t.Engine)] {
		c.error("write", `the engine %s of %s has no transactions, so a failed batch would stay half applied; ALTER TABLE %s ENGINE=InnoDB, or write = "deny"`,
			t.Engine, name, name)
	}
	for i := range t.Columns {
		k := &t.Columns[i]
		mapped := slices.ContainsFunc(m.columns, func(col *column) bool { return col.name == k.Name })
		if mapped || k.Nullable || k.Default != nil || k.DefaultExpr || k.AutoIncrement || k.Generated {
			continue
		}
		if m.Kind == KindString {
			m.partial = true
			c.warn("column", "%q is NOT NULL without default, so no row can be inserted: what is written to a key whose row does not exist is parked; give it a default",
				k.Name)
		} else if _, err := newCodec(k); err != nil {
			c.error("columns", `%q is NOT NULL without default and cannot be in an image, so no row can be inserted; give it a default, or write = "deny"`, k.Name)
		} else {
			c.error("columns", "%q is NOT NULL without default, so no row can be inserted; add it, or give it a default", k.Name)
		}
	}

	var unique []string
	for _, x := range t.Indexes {
		if x.Unique {
			unique = append(unique, x.Name)
		}
	}
	if len(unique) > 1 {
		m.updateFirst = true
		c.warn("table", "%s has several unique indexes (%s): rows are written with UPDATE, then INSERT, and one that collides in another index is parked",
			name, strings.Join(unique, ", "))
	}
	for _, k := range m.keys {
		if k.keys.alias == "" {
			continue
		}
		m.updateFirst = true
		if col := t.column(k.name); !strings.HasSuffix(col.Collation, "_bin") {
			c.warn("key", "{%s}: the collation %s takes values that differ in %s for equal, keys are told apart byte by byte: a key whose row exists under another spelling is parked; a binary collation avoids it",
				k.name, col.Collation, k.keys.alias)
		}
	}
	if len(t.Triggers) > 0 {
		m.unpredictable = true
		c.warn("table", "%s has triggers (%s), which can change what is written: images are read again after each write",
			name, strings.Join(t.Triggers, ", "))
	}
	for _, k := range m.columns {
		if k.loose != "" {
			m.unpredictable = true
			c.warn("columns", "%q: %s: images are read again after each write", k.name, k.loose)
		}
	}
}

// written reports whether rows of the mapping are.
func written(c *Config) bool { return c.Write == "behind" || c.Write == "through" }

// shared warns of other mappings of the same table, unless all of them only read. Of two writes to one row, the one that
// is flushed last wins: their marks are in partitions of their own, and nothing keeps the order between these.
func (c *compiler) shared(all []Config, schema Schema) {
	if c.table == nil {
		return
	}
	var others []string
	for i := range all {
		o := &all[i]
		t := schema[o.Table]
		if o.Name == c.config.Name || t == nil || t.Schema != c.table.Schema || t.Name != c.table.Name {
			continue
		}
		if written(o) || written(c.config) {
			others = append(others, o.Name)
		}
	}
	if len(others) > 0 {
		c.warn("table", "%s is mapped by %s too: what is written by one is seen in the other once it is flushed; of two writes to one row through both, before either is flushed, either may win as a whole",
			c.config.Table, strings.Join(others, ", "))
	}
}

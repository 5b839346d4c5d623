package mapping

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A compiler makes one [Mapping] and notes what it finds on the way. It goes on after an error wherever it can, so
// that one run shows all there is to change.
type compiler struct {
	findings
	config *Config
	table  *Table
}

// compile returns nil if there is nothing to make a mapping of; else c.failed tells whether it may be used.
func (c *compiler) compile() *Mapping {
	p, err := parsePattern(c.config.Key)
	if err != nil {
		c.error("key", "%v", err)
	}
	if c.table == nil {
		c.error("table", "there is no table %q that the user of mysql.dsn may see; change the line, create the table or grant SELECT on it", c.config.Table)
	}
	if p == nil || c.table == nil {
		return nil
	}
	m := &Mapping{
		Name:         c.config.Name,
		Pattern:      c.config.Key,
		Kind:         kindOf(c.config.Value),
		TTL:          c.config.TTL,
		NegativeTTL:  c.config.NegativeTTL,
		Stale:        c.config.Stale,
		Bypass:       c.config.OnRedisDown == "mysql",
		EarlyRefresh: c.config.EarlyRefresh,
		MaxSelects:   c.config.MaxSelects,
		Deny:         c.config.Write == "deny",
		Through:      c.config.Write == "through",
		OnAbsent:     c.config.OnAbsent == "through",
		Cache:        c.config.Write == "cache",
		DeleteRow:    c.config.Delete == "row",
		Durability:   c.config.durability(),
		pattern:      p,
		config:       *c.config,
		source:       c.table,
		byField:      make(map[string]int),
	}
	parts := strings.Split(c.config.Table, ".")
	for i := range parts {
		parts[i] = quoteName(parts[i])
	}
	m.table = strings.Join(parts, ".")

	c.imageColumns(m)
	c.keyColumns(m)
	c.uniqueKey(m)
	if m.WriteBehind() || m.Through {
		c.writable(m)
	} else {
		// What was written before, or by another keyrow, has to be flushed all the same.
		(&compiler{config: c.config, table: c.table}).writable(m)
	}
	if c.failed {
		return m
	}
	p.chooseRest(m.keys)
	var list []string
	for _, k := range m.keys {
		m.keyNames = append(m.keyNames, k.name)
		list = append(list, k.quoted)
	}
	for _, k := range m.columns {
		m.names = append(m.names, k.name)
		list = append(list, k.quoted+k.exact)
	}
	m.selectList = strings.Join(list, ", ")
	return m
}

// imageColumns compiles the columns of the image: those of the config, or all that are not generated, and in any case
// those of the key.
func (c *compiler) imageColumns(m *Mapping) {
	listed := c.config.Columns
	if m.Kind == KindString {
		listed = []string{c.config.Column}
	}
	var chosen []*Column
	if len(listed) == 0 {
		for i := range c.table.Columns {
			if k := &c.table.Columns[i]; !k.Generated || slices.Contains(m.pattern.variables, k.Name) {
				chosen = append(chosen, k)
			}
		}
	}
	for _, name := range m.pattern.variables {
		if k := c.table.column(name); k != nil && len(listed) > 0 && !slices.Contains(listed, name) {
			chosen = append(chosen, k)
		}
	}
	for _, name := range listed {
		k := c.table.column(name)
		switch {
		case k == nil:
			c.error(m.columnLine(), "the table %s has no column %q%s", c.config.Table, name, c.table.meant(name))
			continue
		case k.Generated && !slices.Contains(m.pattern.variables, name):
			c.error(m.columnLine(), "%q is a generated column, which nobody can write; remove it", name)
		}
		chosen = append(chosen, k)
	}

	var unfit []string
	for _, k := range chosen {
		codec, err := newCodec(k)
		if err != nil {
			unfit = append(unfit, k.Name)
			if m.Kind == KindString {
				c.error("column", "%v; name another column", err)
			} else {
				c.error("columns", "column %q: %v; leave it out, as columns = %s", k.Name, err, c.without(chosen))
			}
			continue
		}
		field, renamed := c.config.Fields[k.Name]
		if !renamed {
			field = k.Name
		}
		col := &column{
			codec:    codec,
			name:     k.Name,
			quoted:   quoteName(k.Name),
			field:    field,
			label:    append(appendString(nil, []byte(field)), ':'),
			key:      slices.Index(m.pattern.variables, k.Name),
			nullable: k.Nullable,

			fieldName: []byte(field),
		}
		col.absence(k)
		if at, taken := m.byField[field]; taken {
			c.error("fields", "the columns %q and %q would both be the field %q; rename one of them",
				m.columns[at].name, k.Name, field)
		}
		if m.Kind == KindString && k.Name == c.config.Column {
			m.shown = col
		}
		m.byField[field] = len(m.columns)
		m.columns = append(m.columns, col)
	}
	for _, name := range sorted(c.config.Fields) {
		used := slices.ContainsFunc(m.columns, func(k *column) bool { return k.name == name })
		switch {
		case used || slices.Contains(unfit, name):
		case c.table.column(name) != nil:
			c.error("fields", "column %q is not in the image; add it to columns or remove it here", name)
		default:
			c.error("fields", "the table %s has no column %q%s", c.config.Table, name, c.table.meant(name))
		}
	}
}

// columnLine is the setting that lists the columns of the image.
func (m *Mapping) columnLine() string {
	if m.Kind == KindString {
		return "column"
	}
	return "columns"
}

// absence finds out what it means that a value leaves the column out.
func (c *column) absence(k *Column) {
	switch {
	case k.AutoIncrement:
		c.missing = refused // DEFAULT is the next number in an INSERT, but 0 in an UPDATE
	case k.DefaultExpr:
		c.missing = computed
	case k.Default != nil:
		c.missing = computed // unless its text is understood
		if initial, err := c.constant(k); err == nil {
			c.missing, c.initial = defaulted, initial
		}
	case k.Nullable:
		c.missing = null
	}
}

// constant returns a default as the image has it.
func (c *column) constant(k *Column) ([]byte, error) {
	held, err := c.text(nil, []byte(*k.Default))
	if err != nil {
		return nil, err
	}
	v, err := parseValue(held)
	if err != nil {
		return nil, err
	}
	return c.append(nil, v) // gives it the length, the scale or the order that the column's type has
}

// keyColumns finds the columns of the pattern's variables.
func (c *compiler) keyColumns(m *Mapping) {
	for _, name := range m.pattern.variables {
		k := c.table.column(name)
		if k == nil {
			c.error("key", "{%s}: the table %s has no column %q%s", name, c.config.Table, name, c.table.meant(name))
			continue
		}
		i := slices.IndexFunc(m.columns, func(col *column) bool { return col.name == name })
		switch {
		case i < 0: // its type is unfit, which has been said
		case k.Generated:
			c.error("key", "{%s} is a generated column, which nobody can write; use the columns of another unique key", name)
		case m.columns[i].keys == nil:
			c.error("key", "{%s}: %s; use the columns of another unique key", name, m.columns[i].noKey)
		default:
			m.keys = append(m.keys, m.columns[i])
		}
	}
}

// without lists, as the config has it, the chosen columns that can be in an image.
func (c *compiler) without(chosen []*Column) string {
	var names []string
	for _, k := range chosen {
		if _, err := newCodec(k); err == nil {
			names = append(names, strconv.Quote(k.Name))
		}
	}
	return "[" + strings.Join(names, ", ") + "]"
}

// meant adds to an error the column whose name differs in case only.
func (t *Table) meant(name string) string {
	for i := range t.Columns {
		if k := &t.Columns[i]; strings.EqualFold(k.Name, name) {
			return fmt.Sprintf("; write it %q", k.Name)
		}
	}
	return "; change the name or create the column"
}

// chooseRest picks the variable whose text may contain the literals beside it: the only one whose type has the bytes
// for that, if there is one such, else the last one.
func (p *pattern) chooseRest(keys []*column) {
	open := -1
	for i, k := range keys {
		if contains(k.keys.alphabet, p.literals[i]) || contains(k.keys.alphabet, p.literals[i+1]) {
			if open >= 0 {
				return
			}
			open = i
		}
	}
	if open >= 0 {
		p.rest = open
	}
}

// contains reports whether a text of the alphabet can contain literal. The empty alphabet is all bytes.
func contains(alphabet string, literal []byte) bool {
	return len(literal) > 0 && (alphabet == "" || len(bytes.Trim(literal, alphabet)) == 0)
}

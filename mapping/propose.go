package mapping

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Proposal is what [Propose] makes of a table: a mapping without errors, or why there is none.
type Proposal struct {
	Table  string
	Config Config   // of the mapping; nothing but zero if there is none
	Notes  []string // what to know of the mapping; or why there is none and the way out
}

// Mapped reports whether there is a mapping.
func (p *Proposal) Mapped() bool { return p.Config.Name != "" }

// Propose makes a mapping for each of the tables, in their order, that together pass [Validate] and [NewSet] without an
// error: the key is the name of the table and the columns of its primary key, or of another unique key if that cannot be
// in one; it is read only where rows cannot be written. No key starts with reserved.
func Propose(tables []string, schema Schema, reserved string) []Proposal {
	p := proposer{reserved: reserved}
	proposals := make([]Proposal, len(tables))
	for i, name := range tables {
		proposals[i] = p.propose(name, schema[name])
	}
	return proposals
}

// proposer keeps what the tables so far have taken.
type proposer struct {
	reserved string
	names    []string
	patterns []*pattern
}

func (p *proposer) propose(name string, t *Table) Proposal {
	refuse := func(why ...string) Proposal { return Proposal{Table: name, Notes: why} }
	switch {
	case strings.Contains(name, "."):
		return refuse("a dot in its name would set schema and table apart; rename it")
	case t == nil:
		return refuse("the user of the dsn may not see its columns; grant SELECT on it")
	case t.Engine == "":
		return refuse("a view has no unique key; map the tables behind it")
	}
	keys := t.uniqueKeys()
	if len(keys) == 0 {
		return refuse("it has no primary key and no other unique key of whole columns that are NOT NULL, so nothing tells " +
			"its rows apart; add a primary key")
	}

	var why []string // the first key will not do, or rows cannot be written
	for _, write := range []string{DefaultWrite, "deny"} {
		for i, key := range keys {
			if k := slices.IndexFunc(key, unspeakable); k >= 0 {
				if why == nil {
					why = []string{fmt.Sprintf("key: the name of the column %q has a brace, which no pattern can; rename it", key[k])}
				}
				continue
			}
			c := Default()
			c.Name, c.Table, c.Write = p.name(name), name, write
			c.Key = p.key(name, key)
			c.Columns = t.fitting(key)
			compiler := &compiler{findings: findings{name: c.Name}, config: &c, table: t}
			m := compiler.compile()
			errors, warnings := compiler.split()
			if len(errors) > 0 {
				if why == nil {
					why = errors
				}
				continue
			}
			var notes []string
			if write == "deny" {
				notes = append(notes, "rows are only read: "+strings.Join(why, "; "))
			} else if i > 0 {
				notes = append(notes, "another unique key is used: "+strings.Join(why, "; "))
			}
			p.take(&c)
			return Proposal{name, c, slices.Concat(notes, warnings, m.notes(t))}
		}
	}
	return refuse(why...)
}

// uniqueKeys returns the columns of the unique indexes of whole, NOT NULL columns, the primary key first.
func (t *Table) uniqueKeys() (keys [][]string) {
	for _, x := range t.Indexes {
		whole := x.Unique && !x.Prefix && !slices.ContainsFunc(x.Columns, func(name string) bool {
			k := t.column(name)
			return k == nil || k.Nullable
		})
		if whole {
			keys = append(keys, x.Columns)
		}
	}
	return keys
}

// unspeakable reports whether a pattern cannot have a column of this name as a variable.
func unspeakable(column string) bool { return strings.ContainsAny(column, "{}") }

// fitting lists the columns of the image where they have to be listed: where one of the others cannot be in it.
func (t *Table) fitting(key []string) []string {
	var fit []string
	all := true
	for i := range t.Columns {
		k := &t.Columns[i]
		if k.Generated && !slices.Contains(key, k.Name) {
			continue
		}
		if _, err := newCodec(k); err != nil {
			all = false
		} else {
			fit = append(fit, k.Name)
		}
	}
	if all {
		return nil
	}
	return fit
}

// split returns the texts of the findings.
func (c *compiler) split() (errors, warnings []string) {
	for _, f := range c.list {
		text := f.Setting + ": " + f.Text
		if f.Severity == Error {
			errors = append(errors, text)
		} else {
			warnings = append(warnings, text)
		}
	}
	return errors, warnings
}

// notes says what is worth knowing of a mapping though nothing is wrong with it.
func (m *Mapping) notes(t *Table) (notes []string) {
	var generated, unfit, filled []string
	for i := range t.Columns {
		k := &t.Columns[i]
		_, err := newCodec(k)
		switch {
		case k.Generated:
			generated = append(generated, strconv.Quote(k.Name))
		case err != nil:
			unfit = append(unfit, fmt.Sprintf("%q (%v)", k.Name, err))
		case !m.Deny && (k.DefaultExpr || k.OnUpdate):
			filled = append(filled, strconv.Quote(k.Name))
		}
	}
	if len(generated) > 0 {
		notes = append(notes, "columns: generated ones are not in the value: "+strings.Join(generated, ", "))
	}
	if len(unfit) > 0 {
		notes = append(notes, "columns: some cannot be in the value: "+strings.Join(unfit, ", "))
	}
	if len(filled) > 0 {
		notes = append(notes, "columns: a SET that leaves out "+strings.Join(filled, ", ")+" sets it to its default again; "+
			"list the other columns to let MySQL alone fill it in")
	}

	var open []string
	for i, k := range m.keys {
		if i != m.pattern.rest && contains(k.keys.alphabet, []byte(":")) {
			open = append(open, "{"+k.name+"}")
		}
	}
	if len(open) > 0 {
		notes = append(notes, "key: a row with a ':' in "+strings.Join(open, ", ")+" has no key; choose other text between "+
			"the columns if there are such rows")
	}
	return notes
}

// name makes a name for the mapping of a table.
func (p *proposer) name(table string) string {
	clean := strings.Map(func(r rune) rune {
		if notInName(r) {
			return '_'
		}
		return r
	}, table)
	if clean != table {
		if clean = strings.Trim(clean, "_"); clean == "" {
			clean = "table"
		}
	}
	for n := 1; ; n++ {
		name := clean
		if n > 1 {
			suffix := "-" + strconv.Itoa(n)
			name = clean[:min(len(clean), maxName-len(suffix))] + suffix
		}
		if !slices.Contains(p.names, name) {
			return name
		}
	}
}

// key makes a pattern that matches no key of the patterns before, and none that starts with reserved.
func (p *proposer) key(table string, columns []string) string {
	variables := ":{" + strings.Join(columns, "}:{") + "}"
	literal := strings.NewReplacer("{", "{{", "}", "}}").Replace(table)
	if key := literal + variables; p.free(key) {
		return key
	}
	// One is in the way of another only if their literal text is the same up to the ':' that a name has in it.
	literal = strings.ReplaceAll(literal, ":", "_")
	key := literal + variables
	for n := 2; !p.free(key); n++ {
		key = literal + "-" + strconv.Itoa(n) + variables
	}
	return key
}

func (p *proposer) free(key string) bool {
	q, err := parsePattern(key)
	if err != nil {
		return true // the compiler says what is wrong
	}
	c := Config{Key: key}
	return !c.Overlaps(p.reserved) && !slices.ContainsFunc(p.patterns, func(o *pattern) bool {
		_, both := q.conflict(o)
		return both
	})
}

// take keeps the name and the keys of a mapping from those that follow.
func (p *proposer) take(c *Config) {
	p.names = append(p.names, c.Name)
	if q, err := parsePattern(c.Key); err == nil {
		p.patterns = append(p.patterns, q)
	}
}

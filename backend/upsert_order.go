package backend

import (
	"context"
	"slices"
	"strings"

	"keyrow/mapping"
)

// rank gives every mapping a number, so that parents have lower ones than their children: by the foreign keys of the
// database, and by the order of the configuration where these say nothing. If they cannot be read, only the latter
// counts: a child that comes too early is tried again.
func (o *owner) rank(ctx context.Context, set *mapping.Set) {
	if o.ranksOf == set {
		return
	}
	o.ranksOf = set
	o.builders = make(map[*mapping.Mapping]*builder)
	keys, err := o.foreignKeys(ctx, set)
	if err != nil {
		o.log.Warn().Err(err).Msg("foreign keys cannot be read; tables are written in the order of the mappings")
	}
	var parents map[string][]string
	parents, o.loose = loosen(keys)
	o.ranks = ranks(set.Versions(), func(m *mapping.Mapping) string { return m.Table() }, parents)
}

// loosen returns the parents of each table, leaving out what makes circles where a column may be NULL, and these columns.
func loosen(keys []foreignKey) (parents, loose map[string][]string) {
	parents, loose = make(map[string][]string), make(map[string][]string)
	for _, k := range keys {
		if k.nullable && reaches(keys, k.parent, k.child, nil) {
			loose[k.child] = append(loose[k.child], k.column)
		} else {
			parents[k.child] = append(parents[k.child], k.parent)
		}
	}
	return parents, loose
}

// reaches reports whether foreign keys lead from one table to another, past those seen.
func reaches(keys []foreignKey, from, to string, seen []string) bool {
	if from == to {
		return true
	}
	seen = append(slices.Clone(seen), from)
	return slices.ContainsFunc(keys, func(k foreignKey) bool {
		return k.child == from && !slices.Contains(seen, k.parent) && reaches(keys, k.parent, to, seen)
	})
}

// ranks numbers ms by a walk that leaves a table after its parents. A circle is broken where it is entered.
func ranks[M comparable](ms []M, table func(M) string, parents map[string][]string) map[M]int {
	of := make(map[string]int)
	left := 0
	var visit func(t string)
	visit = func(t string) {
		if _, seen := of[t]; seen {
			return
		}
		of[t] = 0
		for _, p := range parents[t] {
			visit(p)
		}
		left++
		of[t] = left
	}
	out := make(map[M]int, len(ms))
	for _, m := range ms {
		visit(table(m))
		out[m] = of[table(m)]
	}
	return out
}

// foreignKey is a column that refers to a row of another table, or of its own.
type foreignKey struct {
	child, column, parent string
	nullable              bool
}

// foreignKeys returns those between the tables of the mappings, the tables spelled as Mapping.Table does. A table without
// a schema in its name is in the database of the connection.
func (o *owner) foreignKeys(ctx context.Context, set *mapping.Set) ([]foreignKey, error) {
	var current string
	if err := o.conn.QueryRowContext(ctx, "SELECT COALESCE(DATABASE(), '')").Scan(&current); err != nil {
		return nil, err
	}
	schemas := []any{current}
	spelled := make(map[string][]string) // `schema`.`table` in lower case -> as the mappings spell it
	for _, m := range set.All() {
		full := m.Table()
		if name, _, two := strings.Cut(full, "`.`"); two {
			name = strings.ReplaceAll(strings.TrimPrefix(name, "`"), "``", "`")
			if !slices.Contains(schemas, any(name)) {
				schemas = append(schemas, name)
			}
		} else {
			full = quoteName(current) + "." + full
		}
		full = strings.ToLower(full)
		if !slices.Contains(spelled[full], m.Table()) {
			spelled[full] = append(spelled[full], m.Table())
		}
	}
	in := "(?" + strings.Repeat(",?", len(schemas)-1) + ")"
	rows, err := o.conn.QueryContext(ctx, "SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA, "+
		"k.REFERENCED_TABLE_NAME, c.IS_NULLABLE FROM information_schema.KEY_COLUMN_USAGE k "+
		"JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = k.TABLE_SCHEMA AND c.TABLE_NAME = k.TABLE_NAME "+
		"AND c.COLUMN_NAME = k.COLUMN_NAME WHERE k.REFERENCED_TABLE_NAME IS NOT NULL AND k.TABLE_SCHEMA IN "+in+
		" AND c.TABLE_SCHEMA IN "+in+" ORDER BY 1, 2, 4, 5, 3", append(slices.Clone(schemas), schemas...)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var keys []foreignKey
	for rows.Next() {
		var childSchema, child, column, parentSchema, parent, nullable string
		if err := rows.Scan(&childSchema, &child, &column, &parentSchema, &parent, &nullable); err != nil {
			return nil, err
		}
		for _, c := range spelled[strings.ToLower(quoteName(childSchema)+"."+quoteName(child))] {
			for _, p := range spelled[strings.ToLower(quoteName(parentSchema)+"."+quoteName(parent))] {
				keys = append(keys, foreignKey{c, column, p, nullable == "YES"})
			}
		}
	}
	return keys, rows.Err()
}

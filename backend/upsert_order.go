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
	parents, err := o.foreignKeys(ctx, set)
	if err != nil {
		o.log.Warn().Err(err).Msg("foreign keys cannot be read; tables are written in the order of the mappings")
	}
	o.ranks = ranks(set.All(), func(m *mapping.Mapping) string { return m.Table() }, parents)
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

// foreignKeys returns the parents of each table, all spelled as Mapping.Table does. A table without a schema in its name
// is in the database of the connection.
func (o *owner) foreignKeys(ctx context.Context, set *mapping.Set) (map[string][]string, error) {
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
	rows, err := o.conn.QueryContext(ctx, "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, "+
		"REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA IN (?"+
		strings.Repeat(",?", len(schemas)-1)+") ORDER BY 1, 2, 3, 4", schemas...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	parents := make(map[string][]string)
	for rows.Next() {
		var childSchema, child, parentSchema, parent string
		if err := rows.Scan(&childSchema, &child, &parentSchema, &parent); err != nil {
			return nil, err
		}
		for _, c := range spelled[strings.ToLower(quoteName(childSchema)+"."+quoteName(child))] {
			parents[c] = append(parents[c], spelled[strings.ToLower(quoteName(parentSchema)+"."+quoteName(parent))]...)
		}
	}
	return parents, rows.Err()
}

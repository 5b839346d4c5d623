package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrow/test/harness"
)

var (
	propertySeed = flag.Uint64("property.seed", 0, "of the first round of TestProperty; 0: a new one each time")
	propertyTime = flag.Duration("property.time", 0, "how long TestProperty goes on; 0: one round")
)

// TestProperty makes up schemas, rows and keys, and holds what keyrow makes of them against the tables: each key is one
// row or none, an image is its row, and what is written to a key changes that row and no other.
//
//	go test -run TestProperty . -property.time 10m
//	go test -run TestProperty . -property.seed 42
func TestProperty(t *testing.T) {
	t.Parallel()
	seed := *propertySeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for end := time.Now().Add(*propertyTime); ; seed++ {
		ok := t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := &property{Rand: rand.New(rand.NewPCG(seed, 0)), t: t}
			p.round()
		})
		if !ok || time.Now().After(end) {
			return
		}
	}
}

// property is one round.
type property struct {
	*rand.Rand
	t      *testing.T
	s      *shop
	tables []*madeUp
}

func (p *property) round() {
	const tables, rows = 4, 12
	var config strings.Builder
	p.s = newShop(p.t, harness.Options{DB: harness.SharedMySQL(p.t).NewDB(p.t), Config: "#"})
	for i := range tables {
		m := p.table(i)
		p.tables = append(p.tables, m)
		p.s.sql(m.create(p))
		for range rows {
			p.insert(m)
		}
		m.read(p.s)
		config.WriteString(m.config())
	}
	o := p.s.opened
	o.Config = config.String()
	p.s = openShop(p.t, o)
	for _, m := range p.tables {
		owners := m.owners()
		for range 2 { // from MySQL, and from Redis
			p.reads(m, owners)
		}
		p.others(m, owners)
	}
	for _, m := range p.tables {
		p.writes(m, m.owners())
	}
	p.s.Settled()
}

// rowKey is the key of a row, without what stands before it for each kind; empty if a value of it is.
func (m *madeUp) rowKey(row []*string) string {
	var b strings.Builder
	for i, c := range m.keys {
		if *row[c.at] == "" {
			return ""
		}
		b.WriteString(*row[c.at] + m.literals[i])
	}
	return b.String()
}

// owners are the rows that are spelled as a key: more than one, if literals stand in values.
func (m *madeUp) owners() map[string][][]*string {
	owners := make(map[string][][]*string)
	for _, row := range m.rows {
		if key := m.rowKey(row); key != "" {
			owners[key] = append(owners[key], row)
		}
	}
	return owners
}

// cuts is how many ways there are to cut a key into values.
func (m *madeUp) cuts(key string, variable int) int {
	literal := m.literals[variable]
	if variable == len(m.keys)-1 {
		if len(key) > len(literal) && strings.HasSuffix(key, literal) {
			return 1
		}
		return 0
	}
	n := 0
	for i := 1; i < len(key); i++ {
		if strings.HasPrefix(key[i:], literal) {
			n += m.cuts(key[i+len(literal):], variable+1)
		}
	}
	return n
}

// reads asks for every row of a table.
func (p *property) reads(m *madeUp, owners map[string][][]*string) {
	for rowKey, rows := range owners {
		for _, k := range kindsOfImages {
			got := p.image(m, k, rowKey)
			if !none(got) || m.cuts(rowKey, 0) == 1 {
				if !slices.ContainsFunc(rows, func(row []*string) bool { return m.shows(k, row, got) }) {
					p.t.Errorf("%q is %.500q, rows with this key are %s", m.key(k, rowKey), got, texts(rows...))
				}
			}
		}
	}
}

// others asks for keys that are nearly those of rows.
func (p *property) others(m *madeUp, owners map[string][][]*string) {
	for _, row := range m.rows {
		for range 2 {
			other := slices.Clone(row)
			c := m.keys[p.IntN(len(m.keys))]
			text := p.bent(*row[c.at])
			other[c.at] = &text
			rowKey := m.rowKey(other)
			if rowKey == "" || owners[rowKey] != nil {
				continue
			}
			for _, k := range kindsOfImages {
				if got := p.image(m, k, rowKey); !none(got) {
					p.t.Errorf("%q is %.500q, but there is no such row; the nearest is %s", m.key(k, rowKey), got, texts(row))
				}
			}
		}
	}
}

// writes gives rows the values of others, and some of them after they were deleted.
func (p *property) writes(m *madeUp, owners map[string][][]*string) {
	k := kindsOfImages[0]
	want := map[string][]*string{} // by key
	for _, row := range m.rows {
		want[m.identity(row)] = row
	}
	for rowKey, rows := range owners {
		if len(rows) > 1 || none(p.image(m, k, rowKey)) {
			continue
		}
		from := m.rows[p.IntN(len(m.rows))]
		row := slices.Clone(rows[0])
		if p.IntN(3) == 0 {
			p.s.Must("DEL", m.key(k, rowKey))
			p.remove(m, row)
			for _, c := range m.columns {
				if c.absent {
					row[c.at] = nil
				}
			}
		}
		for _, c := range m.columns {
			if !c.key && !c.absent {
				row[c.at] = from[c.at]
			}
		}
		if got := p.s.show("SET", m.key(k, rowKey), m.value(p, row)); got != "OK" {
			p.t.Errorf("SET %q %s: %s", m.key(k, rowKey), m.value(p, row), got)
		}
		want[m.identity(row)] = row
	}
	p.s.Settled()
	m.read(p.s)
	for _, row := range m.rows {
		if w := want[m.identity(row)]; texts(row) != texts(w) {
			p.t.Errorf("a row of %s is\n%s, was to be\n%s", m.name, texts(row), texts(w))
		}
		delete(want, m.identity(row))
	}
	for _, row := range want {
		p.t.Errorf("a row of %s is gone: %s", m.name, texts(row))
	}
	owners = m.owners()
	for rowKey := range owners {
		for _, k := range kindsOfImages[1:] {
			p.s.Must("DEL", m.key(k, rowKey))
		}
	}
	p.reads(m, owners)
}

// remove deletes a row from MySQL.
func (p *property) remove(m *madeUp, row []*string) {
	var where []string
	var args []any
	for _, c := range m.keys {
		expr := quoteName(c.name)
		if c.form == '"' {
			expr = "CAST(CONVERT(" + expr + " USING utf8mb4) AS BINARY)"
		}
		if c.form == 'n' {
			where = append(where, expr+" = "+*row[c.at])
			continue
		}
		where, args = append(where, expr+" = ?"), append(args, []byte(*row[c.at]))
	}
	p.s.sql("DELETE FROM "+m.name+" WHERE "+strings.Join(where, " AND "), args...)
}

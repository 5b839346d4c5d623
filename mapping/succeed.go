package mapping

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// maxEarlier is how many earlier versions of a mapping are remembered, and how many former mappings.
const maxEarlier = 16

// A Succession is what it takes to put another configuration in the place of one while clients go on.
//
// Nothing stops for it. Commands that began before finish with the mappings they found, transactions that were begun
// before have images queued of an earlier version, and another keyrow may have the earlier configuration for as long as
// it likes. So whatever an earlier version left in Redis has to be understood, or must not be there:
//
//   - What is cached under keys of Outdated is to be dropped. What is in the journal stays, and goes once it is flushed.
//   - What is in the journal was acknowledged. Images of an earlier version are told by their columns, see
//     [Mapping.Earlier], and those of a mapping that is configured no more are flushed as it says, see [Set.Former].
//   - Where nothing tells them apart, the journal must have none, see Emptied; and there must be nobody who writes more of
//     them, so [Set.Succeed] finds an error in a mapping that is written behind.
type Succession struct {
	Set      *Set
	Outdated []*Mapping // of Set
	Emptied  []Emptied
}

// Emptied is a mapping of which nothing may wait in the journal, nor be parked.
type Emptied struct {
	Mapping *Mapping // an earlier one
	finding Finding
}

// Finding says that n keys wait nevertheless.
func (e Emptied) Finding(n int) Finding {
	f := e.finding
	f.Text = fmt.Sprintf("%d keys that were written before wait for MySQL or are parked, and would be taken for something else "+
		"now: reload again once they are flushed; keyrow journal parked lists those that were refused", n)
	return f
}

// Succeed holds another configuration, which [Validate] has passed, against the live schema, and makes what takes the
// place of s. Mappings and queries whose sections did not change stay the same. The findings are those of [NewSet], and
// what stands in the way of the change itself; the Succession is nil if one of them is an error.
func (s *Set) Succeed(cs []Config, qs []QueryConfig, schema Schema) (*Succession, []Finding) {
	next, found := NewSet(cs, qs, schema)
	if next == nil {
		return nil, found
	}
	u := &Succession{Set: next}
	for i, n := range next.all {
		if p := s.named(n.Name); p != nil && !p.Query && reflect.DeepEqual(p.config, n.config) {
			next.all[i] = p
		}
	}
	for i, n := range next.queries {
		if p := s.named(n.Name); p != nil && p.Query && reflect.DeepEqual(p.query, n.query) {
			next.queries[i] = p
		}
	}
	failed := false
	for _, list := range [][]*Mapping{next.all, next.queries} {
		for _, n := range list {
			if s.inForce[n] {
				continue
			}
			if n.Counts = s.counts[n.Name]; n.Counts == nil {
				n.Counts = new(Counts)
			}
			for _, f := range u.place(s, n) {
				found = append(found, f)
				failed = true
			}
		}
	}
	if failed {
		return nil, found
	}
	for _, p := range append(slices.Clone(s.former), s.all...) {
		if !slices.ContainsFunc(append(slices.Clone(next.all), next.queries...), p.meets) {
			next.former = slices.DeleteFunc(next.former, func(o *Mapping) bool { return o.Pattern == p.Pattern })
			next.former = append(next.former, p)
		}
	}
	next.former = next.former[max(0, len(next.former)-maxEarlier):]
	next.index(s.counts)
	return u, found
}

// place finds out what n takes over from the mappings and queries before it.
func (u *Succession) place(s *Set, n *Mapping) (found []Finding) {
	outdated := false
	for _, p := range append(append(slices.Clone(s.all), s.queries...), s.former...) {
		if !p.meets(n) {
			continue
		}
		// A mapping that comes back starts with nothing: meanwhile its keys were the clients' own.
		outdated = outdated || !n.shows(p) || !s.inForce[p]
		setting := ""
		for _, was := range append([]*Mapping{p}, p.earlier...) {
			if setting == "" && !p.Query {
				setting = n.stranger(was)
			}
		}
		switch {
		case p.Query:
		case setting == "":
			n.follows(p)
		case p.WriteBehind() && s.inForce[p]:
			found = append(found, Finding{n.Name, n.Query, Error, setting, fmt.Sprintf("it cannot change while %s is write = \"behind\", "+
				"for what waits in the journal would be taken for something else: set write = \"deny\" and reload every keyrow, then "+
				"change it and reload again; or give it another key", p)})
		default:
			u.Emptied = append(u.Emptied, Emptied{p, Finding{n.Name, n.Query, Error, setting, ""}})
		}
	}
	if outdated {
		u.Outdated = append(u.Outdated, n)
	}
	return found
}

func (s *Set) named(name string) *Mapping {
	for _, list := range [][]*Mapping{s.all, s.queries} {
		for _, m := range list {
			if m.Name == name {
				return m
			}
		}
	}
	return nil
}

// meets reports whether a key can be of both m and o.
func (m *Mapping) meets(o *Mapping) bool {
	_, both := m.pattern.conflict(o.pattern)
	return both
}

// Matches reports whether key looks like those of m.
func (m *Mapping) Matches(key []byte) bool { return m.pattern.match(key) }

// stranger is the setting for which images of p cannot be told from those of m, so that m must not find any in the
// journal; empty: it may.
//
// A hash leaves out what is NULL, so nothing says whether a field that is not there is NULL or not a column; and HINCRBY
// would start at zero where the row has a number.
func (m *Mapping) stranger(p *Mapping) string {
	switch {
	case m.Query || m.Pattern != p.Pattern || m.rekeyed(p.source) != nil:
		return "key"
	case !m.sameTable(p):
		return "table"
	case m.Kind != p.Kind:
		return "value"
	case m.Cache && !p.Cache:
		return "write"
	case m.Kind == KindString && !sameColumns([]*column{m.shown}, []*column{p.shown}, m, p):
		return "column"
	case m.Kind == KindHash && !m.sameImage(p):
		return "columns"
	}
	for _, was := range p.columns {
		i := slices.IndexFunc(m.columns, func(c *column) bool { return c.name == was.name })
		at, taken := m.byField[was.field]
		switch {
		case taken && m.columns[at].name != was.name, i >= 0 && m.columns[i].field != was.field:
			return "fields"
		case i < 0 && was.missing == computed, i >= 0 && m.source.column(was.name).form() != p.source.column(was.name).form():
			return "columns"
		}
	}
	return ""
}

// sameImage reports whether m and p make the same images of rows.
func (m *Mapping) sameImage(p *Mapping) bool {
	switch {
	case m.Query != p.Query || m.Kind != p.Kind || m.Pattern != p.Pattern:
		return false
	case m.Query:
		return m.query.SQL == p.query.SQL && maps.Equal(m.query.Variables, p.query.Variables)
	case !m.sameTable(p):
		return false
	case m.Kind == KindString:
		return sameColumns([]*column{m.shown}, []*column{p.shown}, m, p)
	}
	return sameColumns(m.columns, p.columns, m, p)
}

// sameColumns reports whether columns of m and of p stand in images alike.
func sameColumns(of, before []*column, m, p *Mapping) bool {
	return slices.EqualFunc(of, before, func(c, was *column) bool {
		return c.name == was.name && c.field == was.field && m.source.column(c.name).form() == p.source.column(was.name).form()
	})
}

// shows reports whether what p left in Redis is what m would have put there. What is there without a TTL would stay for
// ever; and what clients made themselves need not be an image.
func (m *Mapping) shows(p *Mapping) bool {
	return m.sameImage(p) && (p.TTL > 0 || m.TTL == 0) && (m.Cache || !p.Cache)
}

// follows makes m, which p does not know of, read images of p.
func (m *Mapping) follows(p *Mapping) {
	for _, c := range m.columns {
		i := slices.IndexFunc(p.columns, func(was *column) bool { return was.name == c.name })
		c.later = i < 0 || p.columns[i].later
	}
	for field, refusal := range p.gone {
		if _, is := m.byField[field]; !is {
			if m.gone == nil {
				m.gone = make(map[string]error)
			}
			m.gone[field] = refusal
		}
	}
	for _, was := range append([]*Mapping{p}, p.earlier...) {
		if !was.sameImage(m) && len(m.earlier) < maxEarlier {
			m.earlier = append(m.earlier, was)
		}
	}
}

// Earlier are what the mapping was before reloads, the last one first: images that are not of m may be of one of these.
func (m *Mapping) Earlier() []*Mapping { return m.earlier }

// Former returns the mapping that a key was of which no mapping or query matches now, or nil.
func (s *Set) Former(key []byte) *Mapping {
	for _, m := range slices.Backward(s.former) {
		if m.pattern.match(key) {
			return m
		}
	}
	return nil
}

// Understands reports whether it is known what images of m, which may be out of force, are.
func (s *Set) Understands(m *Mapping) bool {
	return s.inForce[m] || slices.ContainsFunc(s.Versions(), func(o *Mapping) bool { return o == m || o.sameImage(m) })
}

// Versions are the mappings in force, their earlier versions, and former mappings: those that marks may be of.
func (s *Set) Versions() (all []*Mapping) {
	for _, m := range append(slices.Clone(s.all), s.former...) {
		all = append(append(all, m), m.earlier...)
	}
	return all
}

// WritesBehind reports whether anything may have been written to Redis first.
func (s *Set) WritesBehind() bool { return slices.ContainsFunc(s.Versions(), (*Mapping).WriteBehind) }

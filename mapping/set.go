package mapping

import "maps"

// A Set is the mappings and queries of one configuration. It never changes; [Set.Succeed] makes that of another
// configuration, and [Set.Renew] that of tables which were altered.
type Set struct {
	all     []*Mapping
	queries []*Mapping
	former  []*Mapping         // mappings that are not configured any more, of which something may be in the journal
	counts  map[string]*Counts // by name, those of earlier configurations too
	inForce map[*Mapping]bool
	root    *node
	kin     map[*Mapping][]*Mapping
}

// NewSet holds the mappings and queries, which [Validate] has passed, against the live schema and compiles them. It
// returns all findings at once, in the order of the configuration, errors before warnings; the Set is nil if one of
// them is an error.
func NewSet(cs []Config, qs []QueryConfig, schema Schema) (*Set, []Finding) {
	s := &Set{}
	var found []Finding
	failed := false
	for i := range cs {
		c := &compiler{findings: findings{name: cs[i].Name}, config: &cs[i], table: schema[cs[i].Table]}
		m := c.compile()
		c.shared(cs, schema)
		found = append(found, c.sorted()...)
		if m == nil || c.failed {
			failed = true
			continue
		}
		s.all = append(s.all, m)
	}
	for i := range qs {
		m, f := compileQuery(&qs[i], schema)
		found = append(found, f.sorted()...)
		if m == nil || f.failed {
			failed = true
			continue
		}
		s.queries = append(s.queries, m)
	}
	if failed {
		return nil, found
	}
	s.index(nil)
	return s, found
}

// index fills in what follows from the lists of s. Mappings count on from what counts says of their names.
func (s *Set) index(counts map[string]*Counts) {
	s.counts, s.inForce, s.root = make(map[string]*Counts), make(map[*Mapping]bool), nil
	maps.Copy(s.counts, counts)
	for _, list := range [][]*Mapping{s.all, s.queries} {
		for _, m := range list {
			if s.inForce[m] = true; s.root == nil {
				s.root = &node{text: m.pattern.literals[0]}
			}
			s.root.insert(m.pattern.literals[0], m)
			if m.Counts == nil { // it is new
				if m.Counts = s.counts[m.Name]; m.Counts == nil {
					m.Counts = new(Counts)
				}
			}
			s.counts[m.Name] = m.Counts
		}
	}
	s.relate()
}

// Match returns the mapping or query whose keys look like key, or nil. Whether key can name a row of it is up to
// [Mapping.Names].
func (s *Set) Match(key []byte) *Mapping {
	if s.root == nil {
		return nil
	}
	return s.root.find(key)
}

// MatchRow is Match without the queries.
func (s *Set) MatchRow(key []byte) *Mapping {
	if m := s.Match(key); m != nil && !m.Query {
		return m
	}
	return nil
}

// Has reports whether m is one of the mappings and queries in force, and not an earlier version of one.
func (s *Set) Has(m *Mapping) bool { return s.inForce[m] }

// All returns the mappings in the order of the configuration, without the queries.
func (s *Set) All() []*Mapping { return s.all }

// Queries returns the queries in the order of the configuration.
func (s *Set) Queries() []*Mapping { return s.queries }

// Counts are what was counted since the process started, by the names of mappings and queries, those among them that
// are not configured any more.
func (s *Set) Counts() map[string]*Counts { return s.counts }

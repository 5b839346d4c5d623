package mapping

// A Set is the mappings and queries of one configuration. It never changes; a reload makes another, and so does
// [Set.Renew].
type Set struct {
	all     []*Mapping
	queries []*Mapping
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
		m.Counts = new(Counts)
		s.all = append(s.all, m)
		s.insert(m)
	}
	for i := range qs {
		m, f := compileQuery(&qs[i], schema)
		found = append(found, f.sorted()...)
		if m == nil || f.failed {
			failed = true
			continue
		}
		m.Counts = new(Counts)
		s.queries = append(s.queries, m)
		s.insert(m)
	}
	if failed {
		return nil, found
	}
	s.relate()
	return s, found
}

func (s *Set) insert(m *Mapping) {
	if s.root == nil {
		s.root = &node{text: m.pattern.literals[0]}
	}
	s.root.insert(m.pattern.literals[0], m)
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

// All returns the mappings in the order of the configuration, without the queries.
func (s *Set) All() []*Mapping { return s.all }

// Queries returns the queries in the order of the configuration.
func (s *Set) Queries() []*Mapping { return s.queries }

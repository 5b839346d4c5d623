package mapping

import "slices"

// A Set is the mappings of one configuration. It never changes; a reload makes another, and so does [Set.Renew].
type Set struct {
	all  []*Mapping
	root *node
}

// NewSet holds the mappings, which [Validate] has passed, against the live schema and compiles them. It returns all
// findings at once, in the order of the mappings, errors before warnings; the Set is nil if one of them is an error.
func NewSet(cs []Config, schema Schema) (*Set, []Finding) {
	s := &Set{}
	var findings []Finding
	failed := false
	for i := range cs {
		c := &compiler{config: &cs[i], table: schema[cs[i].Table]}
		m := c.compile()
		c.shared(cs, schema)
		slices.SortStableFunc(c.findings, func(a, b Finding) int { return int(a.Severity) - int(b.Severity) })
		findings = append(findings, c.findings...)
		if m == nil || c.failed {
			failed = true
			continue
		}
		s.all = append(s.all, m)
		s.insert(m)
	}
	if failed {
		return nil, findings
	}
	return s, findings
}

func (s *Set) insert(m *Mapping) {
	if s.root == nil {
		s.root = &node{text: m.pattern.literals[0]}
	}
	s.root.insert(m.pattern.literals[0], m)
}

// Match returns the mapping whose keys look like key, or nil. Whether key can name a row of it is up to
// [Mapping.Names].
func (s *Set) Match(key []byte) *Mapping {
	if s.root == nil {
		return nil
	}
	return s.root.find(key)
}

// All returns the mappings in the order of the configuration.
func (s *Set) All() []*Mapping { return s.all }

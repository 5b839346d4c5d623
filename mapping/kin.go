package mapping

import "slices"

// Kin are the other mappings of the table that m is one of: they show the same rows under keys of their own. m may be
// out of force.
func (s *Set) Kin(m *Mapping) []*Mapping {
	if s.inForce[m] {
		return s.kin[m]
	}
	return s.others(m)
}

// relate finds out which mappings are of one table.
func (s *Set) relate() {
	s.kin = make(map[*Mapping][]*Mapping)
	for _, m := range s.all {
		if kin := s.others(m); kin != nil {
			s.kin[m] = kin
		}
	}
}

func (s *Set) others(m *Mapping) (kin []*Mapping) {
	for _, o := range s.all {
		if o.Pattern != m.Pattern && o.sameTable(m) {
			kin = append(kin, o)
		}
	}
	return kin
}

func (m *Mapping) sameTable(o *Mapping) bool {
	return m.source.Schema == o.source.Schema && m.source.Name == o.source.Name
}

// Follows reports whether the key of a row in m follows from its key in o, a mapping of the same table.
func (m *Mapping) Follows(o *Mapping) bool {
	return !slices.ContainsFunc(m.keyNames, func(name string) bool { return !slices.Contains(o.keyNames, name) })
}

// KeyFrom appends the key, in m, of the row that key names in o, which m follows. Like [Mapping.RowKey] it returns nil
// if the row has no key in m.
func (m *Mapping) KeyFrom(dst []byte, o *Mapping, key []byte) []byte {
	var texts [maxVariables][]byte
	if o.bind(&texts, key) != nil {
		return nil
	}
	row := make([][]byte, len(m.keyNames))
	for i, name := range m.keyNames {
		row[i] = texts[slices.Index(o.keyNames, name)]
	}
	return m.spelled(dst, row)
}

package mapping

import "slices"

// Kin are the other mappings of the table that m is one of: they show the same rows under keys of their own.
func (s *Set) Kin(m *Mapping) []*Mapping { return s.kin[m] }

// relate finds out which mappings are of one table.
func (s *Set) relate() {
	for _, m := range s.all {
		for _, o := range s.all {
			if o == m || o.source.Schema != m.source.Schema || o.source.Name != m.source.Name {
				continue
			}
			if s.kin == nil {
				s.kin = make(map[*Mapping][]*Mapping)
			}
			s.kin[m] = append(s.kin[m], o)
		}
	}
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

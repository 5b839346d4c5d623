package mapping

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// A Difference is where an image is not what its row would make. The values are as an image has them, "absent" where it
// has none, and cut where they are long.
type Difference struct {
	Column string // empty: the image as a whole
	Image  string
	Row    string
}

// absent stands for the value of a field that is not there.
const absentText = "absent"

// Differences compares an image with that of its row, both as values of the mapping's [Kind]: see [Mapping.Values]. There
// are none only if they are the same bytes.
func (m *Mapping) Differences(image, row [][]byte) []Difference {
	switch m.Kind {
	case KindString:
		if !bytes.Equal(image[0], row[0]) {
			return []Difference{{m.shown.name, shown(image[0], strconv.Quote), shown(row[0], strconv.Quote)}}
		}
		return nil
	case KindHash:
		return m.compare(hashFields(image), hashFields(row), strconv.Quote)
	}
	if bytes.Equal(image[0], row[0]) {
		return nil
	}
	have, err := jsonFields(image[0])
	if err != nil {
		return []Difference{{"", shown(image[0], strconv.Quote) + fmt.Sprintf(" (%v)", err), shown(row[0], verbatimText)}}
	}
	want, _ := jsonFields(row[0])
	if ds := m.compare(have, want, verbatimText); ds != nil {
		return ds
	}
	// The same values, in another order or with spaces: somebody else wrote it.
	return []Difference{{"", shown(image[0], verbatimText), shown(row[0], verbatimText)}}
}

// compare compares the fields of two images, which are nil where they have none.
func (m *Mapping) compare(image, row map[string][]byte, show func(string) string) (ds []Difference) {
	for _, c := range m.columns {
		have, want := image[c.field], row[c.field]
		delete(image, c.field)
		if !bytes.Equal(have, want) || (have == nil) != (want == nil) {
			ds = append(ds, Difference{c.name, shown(have, show), shown(want, show)})
		}
	}
	for _, field := range slices.Sorted(maps.Keys(image)) {
		ds = append(ds, Difference{field, shown(image[field], show), "no such column"})
	}
	return ds
}

func hashFields(values [][]byte) map[string][]byte {
	fields := make(map[string][]byte, len(values)/2)
	for i := 0; i+1 < len(values); i += 2 {
		fields[string(values[i])] = values[i+1]
	}
	return fields
}

func jsonFields(image []byte) (map[string][]byte, error) {
	s, err := fields(image)
	if err != nil {
		return nil, err
	}
	all := make(map[string][]byte)
	for i := 0; ; i++ {
		more, err := s.next(i == 0)
		if err != nil || !more {
			return all, err
		}
		name, err := s.name()
		if err != nil {
			return all, err
		}
		v, err := s.scan(maxDepth - 1)
		if err != nil {
			return all, err
		}
		all[string(name.text())] = v.raw
	}
}

func verbatimText(text string) string { return text }

// shown is a value for people, of which there may be megabytes.
func shown(value []byte, show func(string) string) string {
	const most = 100 // bytes
	switch {
	case value == nil:
		return absentText
	case len(value) <= most:
		return show(string(value))
	}
	return show(string(bytes.ToValidUTF8(value[:most], nil))) + fmt.Sprintf("… (%d bytes)", len(value))
}

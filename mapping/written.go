package mapping

import (
	"bytes"
	"errors"
	"fmt"
)

// What clients write to rows that are hashes and strings: values as plain text, one column at a time.

var errWhole = errors.New("the rows are hashes, which are not SET; HSET their fields")

// canonicalText is Canonical of a string.
func (m *Mapping) canonicalText(dst []byte, texts *[maxVariables][]byte, value []byte) ([]byte, error) {
	if m.Kind != KindString {
		return dst, fmt.Errorf("mapping %q: %w", m.Name, errWhole)
	}
	_, text, err := m.shown.written(value, m.shown.keyText(texts))
	if err != nil {
		return dst, m.shown.wrap(err)
	}
	return append(dst, text...), nil
}

// keyText is what a key says of the column; nil if it is none of the key.
func (c *column) keyText(texts *[maxVariables][]byte) []byte {
	if c.key < 0 {
		return nil
	}
	return texts[c.key]
}

// written reads the plain text that a client wrote, and brings it into its one form. Of a column of the key it has to be
// what the key says; key is nil for other columns.
func (c *column) written(plain, key []byte) (value, []byte, error) {
	v, err := c.parse(plain)
	if err != nil {
		return v, nil, err
	}
	text := c.unparsed(v)
	if key != nil && !bytes.Equal(text, key) {
		return v, nil, fmt.Errorf("%s in the value, but the key says %s", quote(text), quote(key))
	}
	return v, text, nil
}

// keeps reports whether a hash without the field leaves the column as it is, and to its default in a row that is new,
// since the field may be missing for another reason than NULL: only MySQL knows the default of a row that was made, or
// the image is from before the column.
func (c *column) keeps() bool { return c.missing == computed || c.later }

// Fields appends what a client writes to fields of the hash of key, field by field in their order, each value checked
// and brought into its one form. A field that stands twice is there once, with the later value.
func (m *Mapping) Fields(dst [][]byte, key []byte, pairs [][]byte) ([][]byte, error) {
	var texts [maxVariables][]byte
	if err := m.bind(&texts, key); err != nil {
		return dst, err
	}
	fields := dst
	places := make(map[int]int, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		at, ok := m.byField[string(pairs[i])]
		if !ok {
			return dst, m.unknown(pairs[i])
		}
		c := m.columns[at]
		_, text, err := c.written(pairs[i+1], c.keyText(&texts))
		if err != nil {
			return dst, c.wrap(err)
		}
		if place, twice := places[at]; twice {
			fields[place] = text
			continue
		}
		fields = append(fields, c.fieldName, text)
		places[at] = len(fields) - 1
	}
	return fields, nil
}

// Remainder appends the fields and values that the hash of a row has besides those of given fields when it is made: the
// columns of the key and the defaults. It fails if a column is missing that has no default.
func (m *Mapping) Remainder(dst [][]byte, key []byte, given ...[]byte) ([][]byte, error) {
	var texts [maxVariables][]byte
	if err := m.bind(&texts, key); err != nil {
		return dst, err
	}
	names := make(map[string]bool, len(given))
	for _, field := range given {
		names[string(field)] = true
	}
	fields := dst
	for _, c := range m.columns {
		switch {
		case names[c.field]:
		case c.key >= 0:
			fields = append(fields, c.fieldName, texts[c.key])
		case c.missing == defaulted:
			v, err := parseValue(c.initial)
			if err != nil {
				return dst, c.wrap(err)
			}
			fields = append(fields, c.fieldName, c.unparsed(v))
		case c.missing == refused:
			_, err := c.absent(nil)
			return dst, c.wrap(err)
		}
	}
	return fields, nil
}

// Removable tells why a field cannot be taken out of a hash, which makes its column NULL; nil if it can. A field that no
// column has is never there, and can.
func (m *Mapping) Removable(field []byte) error {
	at, ok := m.byField[string(field)]
	if !ok {
		return nil
	}
	switch c := m.columns[at]; {
	case c.key >= 0 || !c.nullable:
		return c.wrap(errors.New("it is NOT NULL, so its field cannot be removed; HSET a value"))
	case c.missing == computed:
		return c.wrap(errors.New("its default is an expression, which is what a row without the field gets; HSET a value"))
	case c.later:
		return c.wrap(errors.New("it is new, and images without its field are from before; HSET a value, or restart keyrow once " +
			"nothing is pending"))
	}
	return nil
}

// Limits are the numbers of a column: whole numbers of units of 10^-Scale, from Low to High.
type Limits struct {
	Scale     int
	Low, High string // decimal
}

// Limits returns the numbers of the column of a field, or of the one column of a string. It is nil if they are not
// known, and for a column of the key, which has one value.
func (m *Mapping) Limits(field []byte) *Limits {
	c := m.shown
	if m.Kind != KindString {
		at, ok := m.byField[string(field)]
		if !ok {
			return nil
		}
		c = m.columns[at]
	}
	if c.key >= 0 {
		return nil
	}
	return c.limits
}

// Units is a number in units, as a decimal. It fails if it is not a whole number of them; ok is false if it is no
// number of a form that all types have.
func (l *Limits) Units(text []byte) (units []byte, ok bool, err error) {
	x, err := parseNumber(text)
	switch {
	case err != nil:
		return nil, false, nil
	case x.fraction() > l.Scale:
		return nil, true, fmt.Errorf("%s has %d fraction digits, at most %d", quote(text), x.fraction(), l.Scale)
	case x.whole()+l.Scale > maxDigits:
		return nil, true, fmt.Errorf("%s is out of range", quote(text))
	}
	x.point += l.Scale
	if x.n == 0 {
		x.point = 0
	}
	return x.appendFixed(nil, 0), true, nil
}

// String shows the limits in errors.
func (l *Limits) String() string {
	return l.Text(l.Low) + " to " + l.Text(l.High)
}

// Text is a number of units as the column has it.
func (l *Limits) Text(units string) string {
	x, err := parseNumber([]byte(units))
	if err != nil {
		return units
	}
	if x.n > 0 {
		x.point -= l.Scale
	}
	return string(x.appendFixed(nil, l.Scale))
}

// Value is what a client writes to one field of the hash of key, or to the one column of a string, checked and brought
// into its one form.
func (m *Mapping) Value(key, field, plain []byte) ([]byte, error) {
	if m.Kind == KindString {
		return m.Canonical(nil, key, plain)
	}
	fields, err := m.Fields(nil, key, [][]byte{field, plain})
	if err != nil {
		return nil, err
	}
	return fields[1], nil
}

// Exact reports whether an image, which has a [Mapping.RowOf], is the one that a reader would make of its row. Those that
// scripts of clients write need not be.
func (m *Mapping) Exact(key []byte, values [][]byte) bool {
	if m.Kind != KindHash {
		image, err := m.Canonical(nil, key, values[0])
		return err == nil && bytes.Equal(image, values[0])
	}
	fields, err := m.Fields(nil, key, values)
	if err != nil || len(fields) != len(values) {
		return false
	}
	keys := 0
	for i, text := range fields {
		if !bytes.Equal(text, values[i]) {
			return false
		}
		if i%2 == 0 && m.columns[m.byField[string(text)]].key >= 0 {
			keys++
		}
	}
	return keys == len(m.keys)
}

// HasField tells that no column has the field; nil if one has.
func (m *Mapping) HasField(field []byte) error {
	if _, ok := m.byField[string(field)]; !ok {
		return m.unknown(field)
	}
	return nil
}

package mapping

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// A form is how the canonical JSON of a type is made of its plain text, which is what hashes and strings hold: the
// digits of a number, the characters of a text, the bytes of a BLOB, the document of a JSON column.
type form byte

const (
	quotedForm form = iota // a string of the plain text
	bareForm               // the plain text itself
	base64Form             // a string of the plain text in base64
)

var errAbsent = errors.New("absent, which means NULL, but the column is NOT NULL")

// plain appends the plain text of what MySQL holds, which is not NULL.
func (c *column) plain(dst, text []byte) ([]byte, error) {
	switch {
	case c.form == bareForm:
		return c.text(dst, text)
	case c.form == quotedForm && !utf8.Valid(text):
		return dst, errNotUTF8
	}
	return append(dst, text...), nil
}

// parse reads the plain text a client wrote: it is checked and brought into its one form, that of canonical JSON.
func (c *column) parse(plain []byte) (value, error) {
	var v value
	switch c.form {
	case bareForm:
		var err error
		if v, err = parseValue(plain); err != nil && c.document {
			return value{}, err
		} else if err != nil || v.kind == 'n' && !c.document {
			return value{}, fmt.Errorf("%s is not a number", quote(plain))
		}
	case base64Form:
		raw := append(make([]byte, 0, base64.StdEncoding.EncodedLen(len(plain))+2), '"')
		v = value{kind: '"', raw: append(base64.StdEncoding.AppendEncode(raw, plain), '"')}
	default:
		if !utf8.Valid(plain) {
			return value{}, errNotUTF8
		}
		v = value{kind: '"', raw: appendString(nil, plain)}
	}
	raw, err := c.value(nil, v)
	if err != nil {
		return value{}, err
	}
	return value{kind: v.kind, raw: raw}, nil
}

// unparsed is the plain text of canonical JSON.
func (c *column) unparsed(v value) []byte {
	switch c.form {
	case bareForm:
		return v.raw
	case base64Form:
		return c.arg(string(v.raw)).([]byte)
	}
	return v.text()
}

// Values appends the image of a row fetched with [Mapping.SelectList] (nil is NULL) as values of its [Kind]. There
// are none if the row has no image: NULL in the one column of a string. It fails, with dst as it is, if a column
// holds what no image can say.
func (m *Mapping) Values(dst, row [][]byte) ([][]byte, error) {
	if m.Kind == KindJSON {
		image, err := m.Image(nil, row)
		if err != nil {
			return dst, err
		}
		return append(dst, slices.Clip(image)), nil
	}
	row = row[len(m.keys):]
	room := 0
	for _, text := range row {
		room += len(text)
	}
	buf, values := make([]byte, 0, room), dst
	for i, c := range m.columns {
		if row[i] == nil || m.Kind == KindString && c != m.shown {
			continue
		}
		start := len(buf)
		var err error
		if buf, err = c.plain(buf, row[i]); err != nil {
			return dst, c.wrap(err)
		}
		if m.Kind == KindHash {
			values = append(values, c.fieldName)
		}
		values = append(values, buf[start:len(buf):len(buf)])
	}
	return values, nil
}

// RowOf is [Mapping.Row] for an image of any kind, given as its values: none mean NULL in the one column of a string.
// [Unchanged] stands for a column whose field a hash has not, if that need not mean NULL: see [column.keeps].
func (m *Mapping) RowOf(dst []any, key []byte, values [][]byte) ([]any, error) {
	if m.Kind == KindJSON {
		return m.Row(dst, key, values[0])
	}
	var texts [maxVariables][]byte
	if err := m.bind(&texts, key); err != nil {
		return dst, err
	}
	plain := make([][]byte, len(m.columns))
	if m.Kind == KindString {
		copy(plain[slices.Index(m.columns, m.shown):], values)
	} else if err := m.assign(plain, values); err != nil {
		return dst, err
	}
	row := dst
	for i, c := range m.columns {
		var key []byte
		if c.key >= 0 {
			key = texts[c.key]
		}
		if plain[i] == nil && c.keeps() {
			row = append(row, Unchanged)
			continue
		}
		arg, err := c.argOf(plain[i], key)
		if err != nil {
			return dst, c.wrap(err)
		}
		row = append(row, arg)
	}
	return row, nil
}

// RowWritten is RowOf for an image that no script of a client had a hand in: of kind JSON it has all columns that the
// mapping of who wrote it has, so [Unchanged] stands for those that it has not. Another keyrow may know other columns.
func (m *Mapping) RowWritten(dst []any, key []byte, values [][]byte) ([]any, error) {
	if m.Kind == KindJSON {
		return m.row(dst, key, values[0], true)
	}
	return m.RowOf(dst, key, values)
}

// assign gives each column the value of its field; those without stay nil.
func (m *Mapping) assign(plain, fields [][]byte) error {
	for i := 0; i+1 < len(fields); i += 2 {
		at, ok := m.byField[string(fields[i])]
		if !ok {
			if refusal, was := m.gone[string(fields[i])]; was && refusal == nil {
				continue
			} else if was {
				return refusal
			}
			return m.unknown(fields[i])
		}
		if plain[at] != nil {
			return fmt.Errorf("the field %q stands twice", m.columns[at].field)
		}
		plain[at] = fields[i+1]
	}
	return nil
}

// argOf is the SQL argument of plain text, nil for absent. The text of a column of the key in the key is its plain
// text too; key is nil for other columns.
func (c *column) argOf(plain, key []byte) (any, error) {
	switch {
	case plain == nil && key != nil:
		return c.keys.arg(key), nil
	case plain == nil && c.nullable:
		return nil, nil
	case plain == nil:
		return nil, errAbsent
	}
	v, _, err := c.written(plain, key)
	if err != nil {
		return nil, err
	}
	if key != nil {
		return c.keys.arg(key), nil
	}
	return c.arg(string(v.raw)), nil
}

package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// DefaultValue stands in the values of [Mapping.Row] for the SQL keyword DEFAULT.
var DefaultValue any = defaultValue{}

type defaultValue struct{}

func (defaultValue) String() string { return "DEFAULT" }

var errNull = errors.New("null, but the column is NOT NULL")

// draft is what one call of Canonical or Row works with.
type draft struct {
	values []value // by column; kind 0: absent
	key    []byte  // what a value says of a column of the key
	row    []byte  // the canonical JSON of all values, one behind the other
	ends   []int   // of them in row
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

// maxDraft is how many bytes of buffers are kept for the next call.
const maxDraft = 64 << 10

func (d *draft) release() {
	clear(d.values) // they point into the client's value
	if cap(d.key)+cap(d.row) > maxDraft {
		d.key, d.row = nil, nil
	}
	drafts.Put(d)
}

// read parses an image or a client's value into d.values. An image may have fields of columns that are gone.
func (m *Mapping) read(d *draft, image []byte, gone map[string]error) error {
	if cap(d.values) < len(m.columns) {
		d.values = make([]value, len(m.columns))
	}
	d.values = d.values[:len(m.columns)]
	s, err := fields(image)
	if err != nil {
		return err
	}
	at := -1
	for first := true; ; first = false {
		more, err := s.next(first)
		if err != nil || !more {
			return err
		}
		var name value
		next, ok := m.expected(&s, at)
		if !ok {
			if name, err = s.name(); err != nil {
				return err
			}
		}
		v, err := s.scan(maxDepth - 1)
		if err != nil {
			return err
		}
		if !ok {
			field := name.text()
			if next, ok = m.byField[string(field)]; !ok {
				if refusal, was := gone[string(field)]; was && refusal == nil {
					continue
				} else if was {
					return refusal
				}
				return m.unknown(field)
			}
		}
		at = next
		if d.values[at].kind != 0 {
			return fmt.Errorf("the field %q stands twice", m.columns[at].field)
		}
		d.values[at] = v
	}
}

// expected reads the name of a field if it is that of the column behind at, as it mostly is, or of the one behind that,
// since clients leave out the key.
func (m *Mapping) expected(s *scanner, at int) (next int, ok bool) {
	for next = at + 1; next < min(at+3, len(m.columns)); next++ {
		if label := m.columns[next].label; bytes.HasPrefix(s.data[s.pos:], label) {
			s.pos += len(label)
			s.space()
			return next, true
		}
	}
	return 0, false
}

// unknown refuses a field that no column has.
func (m *Mapping) unknown(field []byte) error {
	known := make([]string, 0, len(m.columns))
	for _, c := range m.columns {
		known = append(known, c.field)
	}
	list := strings.Join(known, ", ")
	if len(list) > 200 {
		list = list[:200] + "…"
	}
	return fmt.Errorf("no field %s in mapping %q; it has %s", quote(field), m.Name, strings.ToValidUTF8(list, ""))
}

// Canonical appends to dst the image of what a client SETs key to: the bytes [Mapping.Image] makes of the row once it
// is stored. Fields may come in any order; a key column may be left out, and must equal the key if it is not; a left
// out column takes its default, and is left out of the image where only MySQL knows it. Of a string it is the text of
// the one column; a hash cannot be SET. Everything the column types say is checked. An error names the column or the
// offset, and leaves dst as it is.
func (m *Mapping) Canonical(dst, key, value []byte) ([]byte, error) {
	d := drafts.Get().(*draft)
	defer d.release()
	var texts [maxVariables][]byte
	if err := m.bind(&texts, key); err != nil {
		return dst, err
	}
	if m.Kind != KindJSON {
		return m.canonicalText(dst, &texts, value)
	}
	if err := m.read(d, value, nil); err != nil {
		return dst, err
	}
	start := len(dst)
	image := append(dst, '{')
	for i, c := range m.columns {
		v, before := d.values[i], len(image)
		if before > start+1 {
			image = append(image, ',')
		}
		image = append(image, c.label...)
		var err error
		switch {
		case c.key >= 0:
			image, err = c.fromKey(d, image, texts[c.key], v)
		case v.kind == 0 && c.missing == computed:
			image = image[:before]
		case v.kind == 0:
			image, err = c.absent(image)
		default:
			image, err = c.append(image, v)
		}
		if err != nil {
			return dst, c.wrap(err)
		}
	}
	return append(image, '}'), nil
}

// append appends the canonical JSON of v, which may be null.
func (c *column) append(dst []byte, v value) ([]byte, error) {
	switch {
	case v.kind != 'n':
		return c.value(dst, v)
	case c.nullable || c.document:
		return append(dst, "null"...), nil
	}
	return dst, errNull
}

// absent appends what a left out column takes.
func (c *column) absent(dst []byte) ([]byte, error) {
	switch c.missing {
	case null:
		return append(dst, "null"...), nil
	case defaulted:
		return append(dst, c.initial...), nil
	}
	return dst, fmt.Errorf("missing; it is NOT NULL and has no default, so give the field %q a value", c.field)
}

// fromKey appends the JSON of a key column's text in the key, which bind has checked. v is what the value says of it.
func (c *column) fromKey(d *draft, dst, text []byte, v value) ([]byte, error) {
	at := len(dst)
	var err error
	if c.form == bareForm {
		dst = append(dst, text...)
	} else if dst, err = c.text(dst, text); err != nil {
		return dst, err
	}
	if v.kind == 0 {
		return dst, nil
	}
	if v.kind == 'n' {
		return dst, errNull
	}
	if d.key, err = c.value(d.key[:0], v); err != nil {
		return dst, err
	}
	if !bytes.Equal(d.key, dst[at:]) {
		return dst, fmt.Errorf("%s in the value, but the key says %s", shortJSON(d.key), shortJSON(dst[at:]))
	}
	return dst, nil
}

func shortJSON(b []byte) []byte {
	const most = 80 // bytes
	if len(b) > most {
		return append(bytes.ToValidUTF8(b[:most], nil), "…"...)
	}
	return b
}

// Image appends to dst the image of a row fetched with [Mapping.SelectList] (nil is NULL). It fails, with dst as it
// is, if a column holds what no image can say, as bytes that are not UTF-8.
func (m *Mapping) Image(dst []byte, row [][]byte) ([]byte, error) {
	row = row[len(m.keys):]
	image := append(dst, '{')
	for i, c := range m.columns {
		if i > 0 {
			image = append(image, ',')
		}
		image = append(image, c.label...)
		if row[i] == nil {
			image = append(image, "null"...)
			continue
		}
		var err error
		if image, err = c.text(image, row[i]); err != nil {
			return dst, c.wrap(err)
		}
	}
	return append(image, '}'), nil
}

// Row appends to dst the values of [Mapping.WriteColumns] for an image of key, checking it as [Mapping.Canonical]
// does: clients' scripts can write what they like. [DefaultValue] stands for a column that the image leaves to MySQL, [Unchanged]
// for one that came after it.
func (m *Mapping) Row(dst []any, key, image []byte) ([]any, error) {
	return m.row(dst, key, image, false)
}

// row is Row. Of an image that [Mapping.Canonical] made, whole is set: if it lacks a column that only MySQL could have
// filled in, then it is from a version of the mapping without that column, and has nothing to say of it.
func (m *Mapping) row(dst []any, key, image []byte, whole bool) ([]any, error) {
	d := drafts.Get().(*draft)
	defer d.release()
	var texts [maxVariables][]byte
	if err := m.bind(&texts, key); err != nil {
		return dst, err
	}
	if err := m.read(d, image, m.gone); err != nil {
		return dst, err
	}
	row := slices.Grow(dst, len(m.columns))
	d.row, d.ends = d.row[:0], d.ends[:0]
	for i, c := range m.columns {
		v, arg, err := d.values[i], any(nil), error(nil)
		switch {
		case c.key >= 0:
			if _, err = c.fromKey(d, d.row, texts[c.key], v); err == nil {
				arg = c.keys.arg(texts[c.key])
			}
		case v.kind == 0 && (c.later || whole && c.missing != computed):
			arg = Unchanged
		case v.kind == 0 && c.missing == refused:
			_, err = c.absent(nil)
		case v.kind == 0 && c.missing != null:
			arg = DefaultValue
		case v.kind == 0 || v.kind == 'n' && c.nullable:
		default:
			d.row, err = c.append(d.row, v)
		}
		if err != nil {
			return dst, c.wrap(err)
		}
		row, d.ends = append(row, arg), append(d.ends, len(d.row))
	}
	// The arguments are parts of one string.
	text, start := string(d.row), 0
	for i, end := range d.ends {
		if end > start {
			row[len(dst)+i] = m.columns[i].arg(text[start:end])
		}
		start = end
	}
	return row, nil
}

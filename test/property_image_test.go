package test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// key is the key of an image.
func (m *madeUp) key(k kindOfImage, rowKey string) string { return k.value + m.name + ":" + rowKey }

// image asks for the image of a key.
func (p *property) image(m *madeUp, k kindOfImage, rowKey string) any {
	p.t.Helper()
	get := "GET"
	if k.value == "hash" {
		get = "HGETALL"
	}
	return p.s.Must(get, m.key(k, rowKey))
}

func none(image any) bool {
	fields, isHash := image.([]any)
	return image == nil || isHash && len(fields) == 0
}

// shows reports whether an image is that of a row.
func (m *madeUp) shows(k kindOfImage, row []*string, image any) bool {
	switch k.value {
	case "string":
		text, ok := image.(string)
		return ok == (row[m.shown.at] != nil) && (!ok || m.shown.same(text, *row[m.shown.at]))
	case "hash":
		fields := map[string]string{}
		list := image.([]any)
		for i := 0; i < len(list); i += 2 {
			fields[list[i].(string)] = list[i+1].(string)
		}
		for _, c := range m.columns {
			text, ok := fields[c.field]
			if ok != (row[c.at] != nil && !c.absent) || ok && !c.same(text, *row[c.at]) {
				return false
			}
			delete(fields, c.field)
		}
		return len(fields) == 0
	}
	var fields map[string]json.RawMessage
	text, _ := image.(string)
	if json.Unmarshal([]byte(text), &fields) != nil {
		return false
	}
	for _, c := range m.columns {
		v, ok := fields[c.field]
		if ok == c.absent || ok && !c.sameJSON(v, row[c.at]) {
			return false
		}
		delete(fields, c.field)
	}
	return len(fields) == 0
}

// same holds plain text of an image against what MySQL holds.
func (c *madeUpColumn) same(image, row string) bool {
	if c.form != 'f' {
		return image == row
	}
	bits := 64
	if c.columnType == "FLOAT" {
		bits = 32
	}
	a, err1 := strconv.ParseFloat(image, bits)
	b, err2 := strconv.ParseFloat(row, bits)
	return err1 == nil && err2 == nil && a == b
}

func (c *madeUpColumn) sameJSON(image json.RawMessage, row *string) bool {
	if row == nil {
		return string(image) == "null"
	}
	text := string(image)
	if c.form == '"' || c.form == 'b' {
		if json.Unmarshal(image, &text) != nil {
			return false
		}
	}
	if c.form == 'b' {
		raw, err := base64.StdEncoding.DecodeString(text)
		return err == nil && string(raw) == *row
	}
	return c.same(text, *row)
}

// bent is a text that may be taken for another.
func (p *property) bent(text string) string {
	switch p.IntN(12) {
	case 0:
		return strings.ToUpper(text)
	case 1:
		return strings.ToLower(text)
	case 2:
		return text + " "
	case 3:
		return strings.TrimRight(text, " ")
	case 4:
		return "0" + text
	case 5:
		return "+" + text
	case 6:
		return "-" + text
	case 7:
		return text + "\x00"
	case 8:
		return text + ".0"
	case 9:
		return text[:max(len(text)-1, 0)]
	case 10:
		return strings.NewReplacer("é", "e", "É", "é", "e", "e\u0301", "ß", "ss").Replace(text)
	}
	return text + text
}

// identity is the key of a row by itself, however it is spelled.
func (m *madeUp) identity(row []*string) string {
	var values []string
	for _, c := range m.keys {
		values = append(values, *row[c.at])
	}
	return fmt.Sprintf("%q", values)
}

// value is a row as a client writes it, its fields in any order, those of the key perhaps left out.
func (m *madeUp) value(p *property, row []*string) string {
	var fields []string
	for _, i := range p.Perm(len(m.columns)) {
		c := m.columns[i]
		if c.absent || c.key && p.IntN(2) == 0 {
			continue
		}
		text := "null"
		switch v := row[c.at]; {
		case v == nil:
		case c.form == '"':
			text = quotedJSON(*v)
		case c.form == 'b':
			text = strconv.Quote(base64.StdEncoding.EncodeToString([]byte(*v)))
		default:
			text = *v
		}
		fields = append(fields, quotedJSON(c.field)+": "+text)
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// texts shows rows.
func texts(rows ...[]*string) string {
	var b strings.Builder
	for _, row := range rows {
		for _, v := range row {
			if v == nil {
				b.WriteString(" NULL")
			} else {
				fmt.Fprintf(&b, " %q", *v)
			}
		}
		b.WriteByte(';')
	}
	return b.String()
}

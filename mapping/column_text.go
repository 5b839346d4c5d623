package mapping

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// textCodec is for CHAR and VARCHAR, limited in characters, and the TEXT types, limited in bytes of the column's
// charset. CHAR loses its trailing spaces, as MySQL does; the others keep them.
func textCodec(c *Column) (codec, error) {
	if c.Charset == "binary" {
		return bytesCodec(c)
	}
	l := newLimit(c)
	trim := func(s []byte) []byte {
		if c.Type == "char" {
			return bytes.TrimRight(s, " ")
		}
		return s
	}
	k := codec{
		value: func(dst []byte, v value) ([]byte, error) {
			if v.kind != '"' {
				return dst, mismatch(v, "a string")
			}
			s, start := v.raw[1:len(v.raw)-1], len(dst)
			if !v.plain {
				dst = unescape(dst, s) // to be replaced by what is made of it
				s = dst[start:]
			}
			trimmed, end := trim(s), len(dst)
			if err := l.check(trimmed); err != nil {
				return dst[:start], err
			}
			if len(trimmed) == len(s) && v.plain {
				return append(dst, v.raw...), nil
			}
			return slices.Delete(appendString(dst, trimmed), start, end), nil
		},
		text:  verbatim,
		arg:   stringArg,
		loose: l.loose,
	}
	if l.chars == math.MaxInt64 {
		k.noKey = "a " + c.Type + " column cannot be in a key: MySQL cannot index all of it"
		return k, nil
	}
	k.keys = &keyCodec{
		check: func(text []byte) error {
			if !utf8.Valid(text) {
				return fmt.Errorf("%s is %w", quote(text), errNotUTF8)
			}
			if right := trim(text); len(right) < len(text) {
				return fmt.Errorf("%s ends in a space, which a column of type char does not keep", quote(text))
			}
			return l.check(text)
		},
		arg:   func(text []byte) any { return string(text) },
		alias: aliases(c),
	}
	return k, nil
}

// A limit is how much text a column takes.
type limit struct {
	chars, octets int64 // MaxInt64: no limit
	cs            charset
	loose         string
}

func newLimit(c *Column) limit {
	l := limit{chars: math.MaxInt64, octets: math.MaxInt64}
	if c.Type == "char" || c.Type == "varchar" {
		l.chars = c.Length
	} else {
		l.octets = c.Octets
	}
	cs, known := charsets[c.Charset]
	if !known {
		cs = charset{all: true, has: anyRune, width: oneByte}
		l.loose = fmt.Sprintf("the characters of the charset %s are not known, so values are not checked against it", c.Charset)
	}
	cs.name = c.Charset
	l.cs = cs
	return l
}

// check refuses s, which is valid UTF-8, if it does not fit.
func (l *limit) check(s []byte) error {
	if l.cs.all && int64(len(s)) <= min(l.chars, l.octets) {
		return nil // it has no more characters than bytes
	}
	chars, octets, err := l.cs.measure(s)
	switch {
	case err != nil:
		return err
	case chars > l.chars:
		return fmt.Errorf("%d characters, at most %d", chars, l.chars)
	case octets > l.octets:
		return fmt.Errorf("%d bytes, at most %d", octets, l.octets)
	}
	return nil
}

// aliases tells which other values the collation of a character column calls equal to a value.
//
// Only a binary collation keeps all apart, and a VARCHAR needs one without padding for that; CHAR has no trailing
// spaces to pad.
func aliases(c *Column) string {
	bin := strings.HasSuffix(c.Collation, "_bin")
	nopad := strings.HasSuffix(c.Collation, "_nopad_bin") || strings.HasSuffix(c.Collation, "_0900_bin")
	switch {
	case c.Collation == "binary", nopad, bin && c.Type == "char":
		return ""
	case bin:
		return "trailing spaces"
	case strings.Contains(c.Collation, "_cs"):
		return "spelling (accents, trailing spaces)"
	}
	return "case and spelling (Bob, bob)"
}

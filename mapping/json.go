package mapping

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a value: what native JSON columns of MySQL hold at most, plus the image around it.
const maxDepth = 101

// A value is one JSON value as it was written, already known to be valid.
type value struct {
	kind  byte // '"' string, '0' number, 't' true, 'f' false, 'n' null, '{' object, '[' array
	depth int  // levels of arrays and objects in it: 0 for a scalar
	raw   []byte
}

// A scanner reads JSON strictly as RFC 8259 has it and is stricter in three points: text is valid UTF-8, escapes
// are no lone surrogates, and nesting is bounded by maxDepth. It keeps numbers as they are written.
type scanner struct {
	data []byte
	pos  int
}

var (
	errNotUTF8   = errors.New("not valid UTF-8")
	errTooDeep   = fmt.Errorf("nested more than %d levels deep", maxDepth)
	errSurrogate = errors.New("a lone surrogate, which is no character")
)

// fields starts reading data as one object.
func fields(data []byte) (scanner, error) {
	s := scanner{data: data}
	if !utf8.Valid(data) {
		return s, errNotUTF8
	}
	s.space()
	if s.peek() != '{' {
		return s, s.unexpected("want a JSON object")
	}
	s.pos++
	return s, nil
}

// next returns the next field; more is false after the last one, when nothing but space follows the object.
func (s *scanner) next(first bool) (name, v value, more bool, err error) {
	s.space()
	switch c := s.peek(); {
	case c == '}':
		s.pos++
		s.space()
		if s.pos < len(s.data) {
			err = s.unexpected("want nothing after the object")
		}
		return name, v, false, err
	case !first && c != ',':
		return name, v, false, s.unexpected("want , or }")
	case !first:
		s.pos++
		s.space()
	}
	if s.peek() != '"' {
		return name, v, false, s.unexpected("want a field name in quotes")
	}
	if name, err = s.scan(maxDepth - 1); err != nil {
		return name, v, false, err
	}
	s.space()
	if s.peek() != ':' {
		return name, v, false, s.unexpected("want :")
	}
	s.pos++
	s.space()
	v, err = s.scan(maxDepth - 1)
	return name, v, err == nil, err
}

// parseValue reads data as one value with nothing but space around it.
func parseValue(data []byte) (value, error) {
	s := scanner{data: data}
	if !utf8.Valid(data) {
		return value{}, errNotUTF8
	}
	s.space()
	v, err := s.scan(maxDepth)
	if err != nil {
		return value{}, err
	}
	s.space()
	if s.pos < len(data) {
		return value{}, s.unexpected("want nothing after the value")
	}
	return v, nil
}

// scan reads the value that starts here; it may nest depth levels.
func (s *scanner) scan(depth int) (value, error) {
	start, v := s.pos, value{}
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if depth == 0 {
			return v, errTooDeep
		}
		inner, err := s.container(c, depth-1)
		if err != nil {
			return v, err
		}
		v.kind, v.depth = c, inner+1
	case c == '"':
		if err := s.str(); err != nil {
			return v, err
		}
		v.kind = c
	case c == '-' || '0' <= c && c <= '9':
		if !s.number() {
			return v, s.unexpected("want a digit")
		}
		v.kind = '0'
	case c == 't' && s.word("true"), c == 'f' && s.word("false"), c == 'n' && s.word("null"):
		v.kind = c
	default:
		return v, s.unexpected("want a value")
	}
	v.raw = s.data[start:s.pos:s.pos]
	return v, nil
}

// container reads an array or object up to its end and returns the depth of what is in it.
func (s *scanner) container(open byte, depth int) (deepest int, err error) {
	end := open + 2 // "[" and "]", "{" and "}" are two apart
	s.pos++
	s.space()
	if s.peek() == end {
		s.pos++
		return 0, nil
	}
	for {
		if open == '{' {
			if s.peek() != '"' {
				return 0, s.unexpected("want a field name in quotes")
			}
			if err := s.str(); err != nil {
				return 0, err
			}
			s.space()
			if s.peek() != ':' {
				return 0, s.unexpected("want :")
			}
			s.pos++
			s.space()
		}
		v, err := s.scan(depth)
		if err != nil {
			return 0, err
		}
		deepest = max(deepest, v.depth)
		s.space()
		switch s.peek() {
		case end:
			s.pos++
			return deepest, nil
		case ',':
			s.pos++
			s.space()
		default:
			return 0, s.unexpected(fmt.Sprintf("want , or %c", end))
		}
	}
}

func (s *scanner) str() error {
	s.pos++
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return nil
		case c < ' ':
			return s.unexpected("want control characters escaped")
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		default:
			s.pos++
		}
	}
	return s.unexpected(`want "`)
}

func (s *scanner) escape() error {
	s.pos++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return nil
	case 'u':
	default:
		return s.unexpected("want an escape of JSON")
	}
	r, ok := hex4(s.data[s.pos+1:])
	if !ok {
		return s.unexpected("want four hex digits")
	}
	s.pos += 5
	if r < 0xd800 || r > 0xdfff {
		return nil
	}
	if r < 0xdc00 && len(s.data) > s.pos+1 && s.data[s.pos] == '\\' && s.data[s.pos+1] == 'u' {
		if low, ok := hex4(s.data[s.pos+2:]); ok && 0xdc00 <= low && low <= 0xdfff {
			s.pos += 6
			return nil
		}
	}
	return fmt.Errorf("offset %d: %w", s.pos-6, errSurrogate)
}

func (s *scanner) number() bool {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return false
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return false
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && '0' <= s.data[s.pos] && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

func (s *scanner) word(w string) bool {
	if len(s.data)-s.pos < len(w) || string(s.data[s.pos:s.pos+len(w)]) != w {
		return false
	}
	s.pos += len(w)
	return true
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the byte at hand, 0 at the end. A NUL byte is valid nowhere, so the two need no telling apart.
func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) unexpected(want string) error {
	if s.pos >= len(s.data) {
		return fmt.Errorf("not JSON: it ends at offset %d; %s", s.pos, want)
	}
	r, _ := utf8.DecodeRune(s.data[s.pos:])
	return fmt.Errorf("not JSON: %q at offset %d; %s", r, s.pos, want)
}

// text returns the characters of a string, in new memory only if it has escapes.
func (v value) text() []byte {
	raw := v.raw[1 : len(v.raw)-1]
	i := 0
	for i < len(raw) && raw[i] != '\\' {
		i++
	}
	if i == len(raw) {
		return raw
	}
	b := append(make([]byte, 0, len(raw)), raw[:i]...)
	for i < len(raw) {
		if raw[i] != '\\' {
			b = append(b, raw[i])
			i++
			continue
		}
		c := raw[i+1]
		i += 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(raw[i:])
			i += 4
			if 0xd800 <= r && r <= 0xdfff {
				low, _ := hex4(raw[i+2:])
				r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
				i += 6
			}
			b = utf8.AppendRune(b, r)
			continue
		}
		b = append(b, c)
	}
	return b
}

// escaped reports whether a string is written with escapes.
func (v value) escaped() bool {
	for _, c := range v.raw {
		if c == '\\' {
			return true
		}
	}
	return false
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// appendString appends s, which is valid UTF-8, as JSON in the one spelling images have: escaped is only what must be.
func appendString(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i, c := range s {
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

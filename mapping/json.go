package mapping

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a value: what native JSON columns of MySQL hold at most, plus the image around it.
const maxDepth = 101

// A value is one JSON value as it was written, already known to be valid.
type value struct {
	kind  byte  // '"' string, '0' number, 't' true, 'f' false, 'n' null, '{' object, '[' array
	plain bool  // a string that is known to have no escapes
	depth int32 // levels of arrays and objects in it: 0 for a scalar
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

// next goes to the next field, whose name and value are the next to read; more is false after the last one, when nothing
// but space follows the object.
func (s *scanner) next(first bool) (more bool, err error) {
	s.space()
	switch c := s.peek(); {
	case c == '}':
		s.pos++
		s.space()
		if s.pos < len(s.data) {
			err = s.unexpected("want nothing after the object")
		}
		return false, err
	case !first && c != ',':
		return false, s.unexpected("want , or }")
	case !first:
		s.pos++
		s.space()
	}
	return true, nil
}

// name reads the name of a field and the colon behind it.
func (s *scanner) name() (value, error) {
	if s.peek() != '"' {
		return value{}, s.unexpected("want a field name in quotes")
	}
	v, err := s.str()
	if err != nil {
		return v, err
	}
	s.space()
	if s.peek() != ':' {
		return v, s.unexpected("want :")
	}
	s.pos++
	s.space()
	return v, nil
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
func (s *scanner) scan(depth int32) (value, error) {
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
		return s.str()
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
func (s *scanner) container(open byte, depth int32) (deepest int32, err error) {
	end := open + 2 // "[" and "]", "{" and "}" are two apart
	s.pos++
	s.space()
	if s.peek() == end {
		s.pos++
		return 0, nil
	}
	for {
		if open == '{' {
			if _, err := s.name(); err != nil {
				return 0, err
			}
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

func (s *scanner) str() (value, error) {
	start, v := s.pos, value{kind: '"', plain: true}
	s.pos++
	for {
		s.pos += literal(s.data[s.pos:])
		switch s.peek() {
		case '"':
			s.pos++
			v.raw = s.data[start:s.pos:s.pos]
			return v, nil
		case '\\':
			v.plain = false
			if err := s.escape(); err != nil {
				return v, err
			}
		default:
			if s.pos < len(s.data) {
				return v, s.unexpected("want control characters escaped")
			}
			return v, s.unexpected(`want "`)
		}
	}
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
	n := run(s.data[s.pos:])
	s.pos += n
	return n > 0
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
	if v.plain || bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return unescape(make([]byte, 0, len(raw)), raw)
}

// unescape appends the characters that stand between the quotes of a string.
func unescape(b, raw []byte) []byte {
	for {
		i := bytes.IndexByte(raw, '\\')
		if i < 0 {
			return append(b, raw...)
		}
		b = append(b, raw[:i]...)
		c := raw[i+1]
		raw = raw[i+2:]
		switch c {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			r, _ := hex4(raw)
			raw = raw[4:]
			if 0xd800 <= r && r <= 0xdfff {
				low, _ := hex4(raw[2:])
				r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
				raw = raw[6:]
			}
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, c)
		}
	}
}

func hex4(b []byte) (r rune, ok bool) {
	if len(b) < 4 {
		return 0, false
	}
	for _, c := range b[:4] {
		n, ok := hexDigit(c)
		if !ok {
			return 0, false
		}
		r = r<<4 | rune(n)
	}
	return r, true
}

func hexDigit(c byte) (n byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

const hexDigits = "0123456789abcdef"

// appendString appends s, which is valid UTF-8, as JSON in the one spelling images have: escaped is only what must be.
func appendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	for {
		n := literal(s)
		dst = append(dst, s[:n]...)
		if n == len(s) {
			return append(dst, '"')
		}
		c := s[n]
		s = s[n+1:]
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
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
}

// literal is how many bytes s starts with that stand for themselves in a string of JSON: all but control characters,
// quotes and backslashes. It looks at eight at a time.
func literal(s []byte) int {
	n := 0
	for ; len(s)-n >= 8; n += 8 {
		x := binary.LittleEndian.Uint64(s[n:])
		if found := below(x, ' ') | below(x^each*'"', 1) | below(x^each*'\\', 1); found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for n < len(s) && s[n] >= ' ' && s[n] != '"' && s[n] != '\\' {
		n++
	}
	return n
}

// each times a byte is eight of it.
const each = 0x0101010101010101

// below sets the high bit of the first byte of x that is less than n, at most 128. What it sets behind that means nothing,
// since these bytes have lent to it.
func below(x, n uint64) uint64 { return (x - each*n) &^ x & (each << 7) }

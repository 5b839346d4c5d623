package mapping

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// A charset tells which characters a column can hold and how many bytes they take there.
type charset struct {
	name  string
	all   bool // it has every character, and none takes more bytes than in UTF-8
	has   func(r rune) bool
	width func(r rune) int
}

// charsets are those whose repertoire is known here to be the server's, by comparing every character of the basic
// plane with MariaDB 10.11.
var charsets = map[string]charset{
	"utf8mb4":  {all: true, has: anyRune, width: utf8.RuneLen},
	"utf8mb3":  {has: basicPlane, width: utf8.RuneLen},
	"utf8":     {has: basicPlane, width: utf8.RuneLen},
	"ucs2":     {has: basicPlane, width: twoBytes},
	"utf16":    {has: anyRune, width: twoOrFour},
	"utf16le":  {has: anyRune, width: twoOrFour},
	"utf32":    {has: anyRune, width: func(rune) int { return 4 }},
	"ascii":    {has: func(r rune) bool { return r < utf8.RuneSelf }, width: oneByte},
	"latin1":   {has: holds(charmap.Windows1252, 0x81, 0x8d, 0x8f, 0x90, 0x9d), width: oneByte},
	"latin2":   {has: holds(charmap.ISO8859_2, c1...), width: oneByte},
	"latin5":   {has: holds(charmap.ISO8859_9), width: oneByte},
	"latin7":   {has: holds(charmap.ISO8859_13, c1...), width: oneByte},
	"cp1250":   {has: holds(charmap.Windows1250), width: oneByte},
	"cp1251":   {has: holds(charmap.Windows1251), width: oneByte},
	"cp1257":   {has: holds(charmap.Windows1257), width: oneByte},
	"cp850":    {has: holds(charmap.CodePage850), width: oneByte},
	"cp852":    {has: holds(charmap.CodePage852), width: oneByte},
	"koi8r":    {has: holds(charmap.KOI8R), width: oneByte},
	"macroman": {has: holds(charmap.Macintosh), width: oneByte},
}

// c1 are the control characters that the ISO 8859 sets of MySQL have and those of Unicode's tables have not.
var c1 = func() (rs []rune) {
	for r := rune(0x80); r < 0xa0; r++ {
		rs = append(rs, r)
	}
	return rs
}()

func anyRune(rune) bool      { return true }
func basicPlane(r rune) bool { return r < 0x10000 }
func oneByte(rune) int       { return 1 }
func twoBytes(rune) int      { return 2 }

func twoOrFour(r rune) int {
	if r < 0x10000 {
		return 2
	}
	return 4
}

func holds(m *charmap.Charmap, more ...rune) func(rune) bool {
	return func(r rune) bool {
		for _, x := range more {
			if r == x {
				return true
			}
		}
		_, ok := m.EncodeRune(r)
		return ok
	}
}

// ascii is how many bytes s starts with that are ASCII. It looks at eight at a time.
func ascii(s []byte) int {
	n := 0
	for len(s)-n >= 8 && binary.LittleEndian.Uint64(s[n:])&(each<<7) == 0 {
		n += 8
	}
	for n < len(s) && s[n] < utf8.RuneSelf {
		n++
	}
	return n
}

// measure counts the characters of s, which is valid UTF-8, and the bytes they take in the charset.
func (cs *charset) measure(s []byte) (chars, octets int64, err error) {
	one := int64(cs.width(' '))
	for {
		n := ascii(s)
		chars += int64(n)
		octets += int64(n) * one
		if s = s[n:]; len(s) == 0 {
			return chars, octets, nil
		}
		r, n := utf8.DecodeRune(s)
		if !cs.has(r) {
			return 0, 0, fmt.Errorf("%q (U+%04X) is not in the charset %s of the column", r, r, cs.name)
		}
		chars++
		octets += int64(cs.width(r))
		s = s[n:]
	}
}

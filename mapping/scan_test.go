package mapping

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestEightBytes holds what looks at eight bytes at a time against a loop over them, for any two bytes side by side in
// any place.
func TestEightBytes(t *testing.T) {
	escaped := func(c byte) bool { return c < ' ' || c == '"' || c == '\\' }
	foreign := func(c byte) bool { return c >= utf8.RuneSelf }
	until := func(s []byte, stop func(byte) bool) int {
		if i := slices.IndexFunc(s, stop); i >= 0 {
			return i
		}
		return len(s)
	}
	for at := range 9 {
		for _, length := range []int{at + 2, 19} {
			s := []byte(strings.Repeat("a", length))
			for pair := range 1 << 16 {
				s[at], s[at+1] = byte(pair), byte(pair>>8)
				if got, want := literal(s), until(s, escaped); got != want {
					t.Fatalf("%q: %d bytes stand for themselves, want %d", s, got, want)
				}
				if got, want := ascii(s), until(s, foreign); got != want {
					t.Fatalf("%q: %d bytes are ASCII, want %d", s, got, want)
				}
			}
		}
	}
}

// TestMeasure holds the measure of texts against that of their characters one by one.
func TestMeasure(t *testing.T) {
	for name, cs := range charsets {
		for _, text := range []string{"", "a", "12345678", "123456789", "é", "1234567é12345678é", "ééé", "漢字 12345678", "Zürich", "😀", "12345678😀"} {
			var chars, octets int64
			has := true
			for _, r := range text {
				has = has && (r < utf8.RuneSelf || cs.has(r))
				chars++
				octets += int64(cs.width(r))
			}
			gotChars, gotOctets, err := cs.measure([]byte(text))
			if (err == nil) != has || has && (gotChars != chars || gotOctets != octets) {
				t.Errorf("%s %q: %d characters, %d bytes, %v; want %d, %d", name, text, gotChars, gotOctets, err, chars, octets)
			}
		}
	}
}

// TestFieldOrder: an image is the same in whatever order a client sends the fields.
func TestFieldOrder(t *testing.T) {
	for _, row := range benchRows(t) {
		want, err := row.m.Canonical(nil, row.key, row.value)
		if err != nil {
			t.Fatal(err)
		}
		fields, err := jsonFields(row.value)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			var members []string
			for field, value := range fields { // in any order
				members = append(members, string(appendString(nil, []byte(field)))+":"+string(value))
			}
			value := "{" + strings.Join(members, ",") + "}"
			if got, err := row.m.Canonical(nil, row.key, []byte(value)); err != nil || string(got) != string(want) {
				t.Errorf("%s: %s, %v; want %s", value, got, err, want)
			}
		}
	}
}

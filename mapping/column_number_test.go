package mapping

import (
	"bytes"
	"strings"
	"testing"
)

// texts are all strings of up to n characters of alphabet.
func texts(alphabet string, n int) []string {
	all := []string{""}
	for start := 0; n > 0; n-- {
		end := len(all)
		for _, text := range all[start:end] {
			for _, c := range alphabet {
				all = append(all, text+string(c))
			}
		}
		start = end
	}
	return all
}

// TestFixedNumbers holds what is taken as it stands against what the parser makes of it.
func TestFixedNumbers(t *testing.T) {
	small := &whole{low: 128, high: 127}
	for _, text := range texts("-+.0129e", 5) {
		x, err := parseNumber([]byte(text))
		if before, behind, ok := fixed([]byte(text)); ok {
			if err != nil || string(x.appendFixed(nil, behind)) != text || max(x.whole(), 1) != before {
				t.Errorf("%q is taken for %d digits before and %d behind the point", text, before, behind)
			}
		} else if err == nil && string(x.appendFixed(nil, x.fraction())) == text && !strings.HasPrefix(text, "-0.") {
			t.Errorf("%q is not taken as it stands", text)
		}
		y, err := small.parse([]byte(text))
		if right := err == nil && string(y.appendFixed(nil, 0)) == text; small.canonical([]byte(text)) != right {
			t.Errorf("%q is a canonical whole number of one byte: %v", text, !right)
		}
	}
}

// TestLongNumbers: both ends of a range are in it, whether they are parsed or taken as they stand.
func TestLongNumbers(t *testing.T) {
	for _, test := range []struct {
		columnType, text string
		ok               bool
	}{
		{"bigint(20)", "9223372036854775807", true},
		{"bigint(20)", "9223372036854775808", false},
		{"bigint(20)", "-9223372036854775808", true},
		{"bigint(20)", "-9223372036854775809", false},
		{"bigint(20) unsigned", "9999999999999999999", true},
		{"bigint(20) unsigned", "18446744073709551615", true},
		{"bigint(20) unsigned", "18446744073709551616", false},
		{"bigint(20) unsigned", "-1", false},
		{"year(4)", "1901", true},
		{"year(4)", "1900", false},
	} {
		c := typed("n", test.columnType)
		k, err := newCodec(&c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.text([]byte("x"), []byte(test.text))
		if (err == nil) != test.ok || test.ok && string(got) != "x"+test.text {
			t.Errorf("%s %s: %s, %v", test.columnType, test.text, got, err)
		}
	}
}

// TestDecimals holds the texts of a decimal against the number that the parser reads.
func TestDecimals(t *testing.T) {
	for _, columnType := range []string{"decimal(3,1)", "decimal(2,2)", "decimal(2,0)", "decimal(3,1) unsigned"} {
		c := typed("n", columnType)
		k, err := newCodec(&c)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts("-+.019e", 5) {
			x, err := parseNumber([]byte(text))
			fits := err == nil && x.whole() <= c.Precision-c.Scale && x.fraction() <= c.Scale && (!x.neg || !c.Unsigned)
			got, err := k.text(nil, []byte(text))
			if (err == nil) != fits || fits && !bytes.Equal(got, x.appendFixed(nil, c.Scale)) {
				t.Errorf("%s %q: %s, %v", columnType, text, got, err)
			}
		}
	}
}

package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxDigits is more than any numeric type has: DECIMAL ends at 65.
const maxDigits = 80

// A number is an exact decimal: 0.d1d2…dn times ten to the power of point, d1 and dn not zero; n = 0 is zero.
type number struct {
	neg    bool
	n      int
	point  int
	digits [maxDigits]byte
}

var (
	errNotNumber = errors.New("not a number")
	errTooLong   = fmt.Errorf("more than %d digits", maxDigits)
)

// parseNumber reads a number of JSON or of MySQL's text, which has leading zeros for ZEROFILL columns.
func parseNumber(text []byte) (x number, err error) {
	i, seen := 0, false
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		x.neg = text[0] == '-'
		i++
	}
	zeros := 0 // behind the last digit kept, not yet known to be followed by another
	for fraction := false; i < len(text); i++ {
		c := text[i]
		if c == '.' && !fraction {
			fraction = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		seen = true
		if c == '0' && x.n == 0 {
			if fraction {
				x.point--
			}
			continue
		}
		if !fraction {
			x.point++
		}
		if c == '0' {
			zeros++
			continue
		}
		if x.n+zeros >= maxDigits {
			return x, errTooLong
		}
		for ; zeros > 0; zeros-- {
			x.digits[x.n] = '0'
			x.n++
		}
		x.digits[x.n] = c
		x.n++
	}
	if !seen {
		return x, errNotNumber
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		exp, err := strconv.ParseInt(string(text[i+1:]), 10, 32)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return x, errNotNumber
		}
		// A clamped exponent is still far out of every range.
		x.point += int(exp)
		i = len(text)
	}
	if i < len(text) {
		return x, errNotNumber
	}
	if x.n == 0 {
		x.neg, x.point = false, 0
	}
	return x, nil
}

// fixed tells how many digits text has before and behind the point if it is a number as appendFixed spells it. Most are;
// ok is false for all that is not, and for -0.5, which is not worth telling from -0.0.
func fixed(text []byte) (before, behind int, ok bool) {
	digits, neg := bytes.CutPrefix(text, []byte("-"))
	before = run(digits)
	if before == 0 || digits[0] == '0' && (neg || before > 1) {
		return 0, 0, false
	}
	if before == len(digits) {
		return before, 0, true
	}
	behind = len(digits) - before - 1
	return before, behind, digits[before] == '.' && behind > 0 && run(digits[before+1:]) == behind
}

// run is how many digits text starts with.
func run(text []byte) int {
	n := 0
	for n < len(text) && '0' <= text[n] && text[n] <= '9' {
		n++
	}
	return n
}

// fraction tells how many digits stand behind the point.
func (x *number) fraction() int { return max(x.n-x.point, 0) }

// whole tells how many digits stand before the point.
func (x *number) whole() int { return max(x.point, 0) }

// magnitude returns |x|; ok is false if it has a fraction or is 2^64 or more.
func (x *number) magnitude() (m uint64, ok bool) {
	if x.fraction() > 0 || x.point > 20 {
		return 0, false
	}
	for i := range x.whole() {
		d := uint64(0)
		if i < x.n {
			d = uint64(x.digits[i] - '0')
		}
		if m > (math.MaxUint64-d)/10 {
			return 0, false
		}
		m = m*10 + d
	}
	return m, true
}

// appendFixed appends x with scale fraction digits; x must not have more.
func (x *number) appendFixed(dst []byte, scale int) []byte {
	if x.neg {
		dst = append(dst, '-')
	}
	if x.whole() == 0 {
		dst = append(dst, '0')
	}
	digit := func(i int) byte { // the digit i places behind the first one before the point
		if i < 0 || i >= x.n {
			return '0'
		}
		return x.digits[i]
	}
	for i := range x.whole() {
		dst = append(dst, digit(i))
	}
	if scale > 0 {
		dst = append(dst, '.')
	}
	for i := range scale {
		dst = append(dst, digit(x.point+i))
	}
	return dst
}

// whole is a range of whole numbers: -low to high.
type whole struct {
	low, high uint64
	allowed   func(uint64) bool // within the range; nil: all
	want      string            // for errors
}

func (w *whole) parse(text []byte) (number, error) {
	x, err := parseNumber(text)
	switch {
	case errors.Is(err, errTooLong):
		return x, fmt.Errorf("%s is out of range, want %s", quote(text), w.want)
	case err != nil:
		return x, fmt.Errorf("%s is not a whole number", quote(text))
	case x.fraction() > 0:
		return x, fmt.Errorf("%s is not a whole number", quote(text))
	}
	if m, ok := x.magnitude(); !ok || !w.has(x.neg, m) {
		return x, fmt.Errorf("%s is out of range, want %s", quote(text), w.want)
	}
	return x, nil
}

// has reports whether a number is in the range.
func (w *whole) has(neg bool, magnitude uint64) bool {
	if neg && magnitude > w.low || !neg && magnitude > w.high {
		return false
	}
	return w.allowed == nil || w.allowed(magnitude)
}

// canonical reports whether text is a number of the range in its one spelling. It leaves those of 20 digits, for which
// an uint64 may have no room, to parse.
func (w *whole) canonical(text []byte) bool {
	before, behind, ok := fixed(text)
	if !ok || behind > 0 || before > 19 {
		return false
	}
	m := uint64(0)
	for _, c := range text[len(text)-before:] {
		m = m*10 + uint64(c-'0')
	}
	return w.has(text[0] == '-', m)
}

func (w *whole) text(dst, text []byte) ([]byte, error) {
	if w.canonical(text) {
		return append(dst, text...), nil
	}
	x, err := w.parse(text)
	if err != nil {
		return dst, err
	}
	return x.appendFixed(dst, 0), nil
}

func (w *whole) value(dst []byte, v value) ([]byte, error) {
	if v.kind != '0' {
		return dst, mismatch(v, "a whole number")
	}
	return w.text(dst, v.raw)
}

func (w *whole) check(text []byte) error {
	if w.canonical(text) {
		return nil
	}
	x, err := w.parse(text)
	if err != nil {
		return err
	}
	var room [32]byte
	if right := x.appendFixed(room[:0], 0); !bytes.Equal(right, text) {
		return misspelled(text, bytes.Clone(right))
	}
	return nil
}

// wholeArg returns an int64, or a uint64 where that is too small. As a number it stays one in comparisons: MySQL
// compares an integer with a string as DOUBLE in places, where neighbours beyond 2^53 are equal.
func wholeArg(text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	n, _ := strconv.ParseUint(text, 10, 64)
	return n
}

func (w whole) codec() codec {
	var limits *Limits
	if w.allowed == nil {
		limits = &Limits{Low: "-" + strconv.FormatUint(w.low, 10), High: strconv.FormatUint(w.high, 10)}
		if w.low == 0 {
			limits.Low = "0"
		}
	}
	return codec{
		limits: limits,

		form:  bareForm,
		value: w.value,
		text:  w.text,
		arg:   wholeArg,
		keys: &keyCodec{
			check: w.check,
			arg:   func(text []byte) any { return wholeArg(string(text)) },
			spell: func(dst, text []byte) []byte {
				if x, err := parseNumber(text); err == nil {
					return x.appendFixed(dst, 0) // without the zeros of ZEROFILL
				}
				return append(dst, text...)
			},
			alphabet: "-0123456789",
		},
	}
}

// integerCodec is for the integer types. TINYINT(1), which is how MySQL spells BOOLEAN, takes true and false as well.
func integerCodec(c *Column) (codec, error) {
	bits := map[string]uint{"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}[c.Type]
	w := whole{low: 1 << (bits - 1), high: 1<<(bits-1) - 1}
	w.want = fmt.Sprintf("-%d to %d", w.low, w.high)
	if c.Unsigned {
		w.low, w.high = 0, math.MaxUint64>>(64-bits)
		w.want = fmt.Sprintf("0 to %d", w.high)
	}
	k := w.codec()
	if strings.HasPrefix(c.ColumnType, "tinyint(1)") {
		k.value = func(dst []byte, v value) ([]byte, error) {
			switch v.kind {
			case 't':
				return append(dst, '1'), nil
			case 'f':
				return append(dst, '0'), nil
			}
			return w.value(dst, v)
		}
	}
	return k, nil
}

// yearCodec is for YEAR, a number. Two digits are refused: MySQL would guess the century.
func yearCodec(c *Column) (codec, error) {
	if strings.HasPrefix(c.ColumnType, "year(2)") {
		return codec{}, errors.New("the type year(2) is not supported")
	}
	return whole{
		high:    2155,
		allowed: func(y uint64) bool { return y == 0 || y >= 1901 },
		want:    "0 or 1901 to 2155",
	}.codec(), nil
}

// bitCodec is for BIT(n), a number of n bits.
func bitCodec(c *Column) (codec, error) {
	high := uint64(math.MaxUint64) >> (64 - min(max(c.Precision, 1), 64))
	k := whole{high: high, want: fmt.Sprintf("0 to %d", high)}.codec()
	// The text of a bit column is its bytes, and a string assigned to it is taken for bytes.
	k.exact = "+0"
	k.keys, k.noKey = nil, "a bit column cannot be in a key"
	return k, nil
}

package proxy

import (
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// Redis adds numbers with a fraction as long double, as long as they are text: 0.1 and 0.2 make 0.3. On x86-64 that has
// 64 bits of precision.
const longDoubleBits = 64

const (
	// longDoubleMax is how long the text of a number is at most, in bytes.
	longDoubleMax = 5*1024 - 1
	// longDoubleHigh and longDoubleLow are the exponents to the base 2 that a number has at most and at least; a
	// number is below one times two to the power of its exponent.
	longDoubleHigh, longDoubleLow = 16384, -16445
	// longDoubleDigits is how many digits Redis shows behind the point.
	longDoubleDigits = 17
)

var (
	errFloat = redisReply("ERR value is not a valid float")
	errNaN   = redisReply("ERR increment would produce NaN or Infinity")
)

var (
	longDoubleForm     = regexp.MustCompile(`^[+-]?(\d+\.?\d*|\.\d+)([eE]([+-]?\d+))?$`)
	longDoubleHexForm  = regexp.MustCompile(`^[+-]?0[xX]([[:xdigit:]]+\.?[[:xdigit:]]*|\.[[:xdigit:]]+)([pP]([+-]?\d+))?$`)
	longDoubleInfinite = regexp.MustCompile(`^(?i)[+-]?inf(inity)?$`)
)

// parseLongDouble reads a number as Redis does. It is infinite where the text says so.
func parseLongDouble(text []byte) (*big.Float, error) {
	x := new(big.Float).SetPrec(longDoubleBits)
	if len(text) > longDoubleMax {
		return nil, errFloat
	}
	if longDoubleInfinite.Match(text) {
		return x.SetInf(text[0] == '-'), nil
	}
	form := longDoubleForm.FindSubmatch(text)
	if form == nil {
		form = longDoubleHexForm.FindSubmatch(text)
	}
	if form == nil {
		return nil, errFloat
	}
	// With an exponent beyond these bounds it is out of range whatever the digits are, unless all of them are 0.
	if exponent := form[3]; len(exponent) > 0 {
		n, err := strconv.Atoi(string(exponent))
		if outside := err != nil || n > 1<<16 || n < -1<<16; outside {
			if strings.Trim(string(form[1]), "0.") != "" {
				return nil, errFloat
			}
			return x, nil
		}
	}
	exact, ok := new(big.Rat).SetString(string(text))
	if !ok {
		return nil, errFloat
	}
	x.SetRat(exact)
	if exponent := x.MantExp(nil); exponent > longDoubleHigh || exponent < longDoubleLow {
		return nil, errFloat
	}
	return x, nil
}

// addLongDouble is what Redis makes of a number and an increment; there is no number if old is nil.
func addLongDouble(old, by []byte) ([]byte, error) {
	if old == nil {
		old = []byte{'0'}
	}
	a, err := parseLongDouble(old)
	if err != nil {
		return nil, err
	}
	b, err := parseLongDouble(by)
	if err != nil {
		return nil, err
	}
	if a.IsInf() || b.IsInf() {
		return nil, errNaN
	}
	sum := a.Add(a, b)
	if sum.MantExp(nil) > longDoubleHigh {
		return nil, errNaN
	}
	text := strings.TrimSuffix(strings.TrimRight(sum.Text('f', longDoubleDigits), "0"), ".")
	if text == "-0" {
		text = "0"
	}
	return []byte(text), nil
}

package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// exactDigits is how many decimal digits a DOUBLE keeps apart.
const exactDigits = 15

// unitDigits is how many decimal digits every int64 has room for, which is what Redis counts with.
const unitDigits = 18

// decimalCodec is for DECIMAL(p,s), a number with exactly s fraction digits.
func decimalCodec(c *Column) (codec, error) {
	p, s := c.Precision, c.Scale
	parse := func(text []byte) (number, error) {
		x, err := parseNumber(text)
		switch {
		case errors.Is(err, errTooLong):
			return x, fmt.Errorf("%s has %w, at most %d fit", quote(text), err, p)
		case err != nil:
			return x, fmt.Errorf("%s is %w", quote(text), err)
		case x.whole() > p-s:
			return x, fmt.Errorf("%s has %d digits before the point, at most %d", quote(text), x.whole(), p-s)
		case x.fraction() > s:
			return x, fmt.Errorf("%s has %d fraction digits, at most %d", quote(text), x.fraction(), s)
		case x.neg && c.Unsigned:
			return x, fmt.Errorf("%s is negative, but the column is UNSIGNED", quote(text))
		}
		return x, nil
	}
	text := func(dst, text []byte) ([]byte, error) {
		if before, behind, ok := fixed(text); ok && before <= p-s && behind <= s && (text[0] != '-' || !c.Unsigned) {
			dst = append(dst, text...)
			if behind == 0 && s > 0 {
				dst = append(dst, '.')
			}
			for range s - behind {
				dst = append(dst, '0')
			}
			return dst, nil
		}
		x, err := parse(text)
		if err != nil {
			return dst, err
		}
		return x.appendFixed(dst, s), nil
	}
	k := codec{
		form: bareForm,
		value: func(dst []byte, v value) ([]byte, error) {
			if v.kind != '0' {
				return dst, mismatch(v, "a number")
			}
			return text(dst, v.raw)
		},
		text: text,
		arg:  verbatimArg,
	}
	if p <= unitDigits {
		most := strings.Repeat("9", p)
		k.limits = &Limits{Scale: s, Low: "-" + most, High: most}
		if c.Unsigned {
			k.limits.Low = "0"
		}
	}
	// MySQL compares a decimal with a string as DOUBLE, so a key must be one that no other is equal to then.
	keyArg := func(text []byte) any { return string(text) }
	switch {
	case strings.Contains(c.ColumnType, "zerofill"):
		k.noKey = "a zerofill decimal cannot be in a key" // its text is not its spelling
		return k, nil
	case p <= exactDigits:
	case s == 0 && p <= 18:
		keyArg = func(text []byte) any { return wholeArg(string(text)) }
	default:
		k.noKey = fmt.Sprintf("a decimal of more than %d digits cannot be in a key", exactDigits)
		return k, nil
	}
	k.keys = &keyCodec{
		check: func(text []byte) error {
			x, err := parse(text)
			if err != nil {
				return err
			}
			var room [maxDigits]byte
			if right := x.appendFixed(room[:0], s); !bytes.Equal(right, text) {
				return misspelled(text, bytes.Clone(right))
			}
			return nil
		},
		arg: keyArg,
		spell: func(dst, text []byte) []byte {
			if x, err := parse(text); err == nil {
				return x.appendFixed(dst, s)
			}
			return append(dst, text...)
		},
		alphabet: "-.0123456789",
	}
	return k, nil
}

// floatCodec is for FLOAT and DOUBLE: the shortest number that reads as the same bits.
func floatCodec(c *Column) (codec, error) {
	bits := 64
	if c.Type == "float" {
		bits = 32
	}
	parse := func(text []byte) (float64, error) {
		f, err := strconv.ParseFloat(string(text), 64)
		switch {
		case errors.Is(err, strconv.ErrRange), bits == 32 && math.IsInf(float64(float32(f)), 0):
			return 0, fmt.Errorf("%s is out of the range of %s", quote(text), c.Type)
		case err != nil:
			return 0, fmt.Errorf("%s is not a number", quote(text))
		case f < 0 && c.Unsigned:
			return 0, fmt.Errorf("%s is negative, but the column is UNSIGNED", quote(text))
		}
		return f, nil
	}
	text := func(dst, text []byte) ([]byte, error) {
		f, err := parse(text)
		if err != nil {
			return dst, err
		}
		return appendFloat(dst, f, bits), nil
	}
	k := codec{
		form: bareForm,
		value: func(dst []byte, v value) ([]byte, error) {
			if v.kind != '0' {
				return dst, mismatch(v, "a number")
			}
			return text(dst, v.raw)
		},
		text:  text,
		arg:   verbatimArg,
		noKey: "a " + c.Type + " column cannot be in a key: its values have no exact spelling",
	}
	if bits == 32 {
		k.exact = "+0e0" // else MySQL's text has six digits
	}
	if strings.Contains(c.ColumnType, "(") {
		k.loose = "MySQL rounds values of type " + c.ColumnType
	}
	return k, nil
}

func appendFloat(dst []byte, f float64, bits int) []byte {
	if bits == 32 {
		f = float64(float32(f))
	}
	if f == 0 {
		return append(dst, '0') // MySQL has -0 too, and loses its sign in places
	}
	start := len(dst)
	format := byte('f')
	if abs := math.Abs(f); abs < 1e-6 || abs >= 1e21 {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, f, format, -1, bits)
	if bits == 32 {
		// MySQL reads a FLOAT as DOUBLE first. Where the shortest digits round to a neighbour or beyond the largest
		// one that way, take all.
		if back, _ := strconv.ParseFloat(string(dst[start:]), 64); float64(float32(back)) != f || math.Abs(back) > math.MaxFloat32 {
			dst = strconv.AppendFloat(dst[:start], f, format, -1, 64)
		}
	}
	return dst
}

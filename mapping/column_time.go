package mapping

import (
	"bytes"
	"fmt"
)

// Values of time are strings, spelled as MySQL spells them: 2006-01-02, 2006-01-02 15:04:05.000000, -838:59:59. The
// fraction has as many digits as the column; a shorter one is filled with zeros. The zero date and dates with a zero
// month or day are taken where the server takes them under keyrow's sql_mode, which has neither NO_ZERO_DATE nor
// NO_ZERO_IN_DATE. The zone of a TIMESTAMP is UTC, that of keyrow's connections.

// The range of TIMESTAMP every server has; MariaDB 11.5 goes on to 2106.
const (
	firstTimestamp = "1970-01-01 00:00:01"
	lastTimestamp  = "2038-01-19 03:14:07"
	zeroTimestamp  = "0000-00-00 00:00:00"
)

const lastHour = 838 // TIME ends at 838:59:59

func dateCodec(*Column) (codec, error) {
	return spelled("-0123456789", func(dst, s []byte) ([]byte, error) {
		if !date(s) {
			return dst, fmt.Errorf("%s is not a date, want YYYY-MM-DD", quote(s))
		}
		return append(dst, s...), nil
	}), nil
}

// datetimeCodec is for DATETIME and TIMESTAMP.
func datetimeCodec(c *Column) (codec, error) {
	return spelled("-0123456789 :.", func(dst, s []byte) ([]byte, error) {
		const length = len("YYYY-MM-DD HH:MM:SS")
		if len(s) < length || s[10] != ' ' || !date(s[:10]) || !clock(s[11:length]) || digits(s[11:13]) > 23 {
			return dst, fmt.Errorf("%s is not a date and time, want YYYY-MM-DD HH:MM:SS", quote(s))
		}
		if c.Type == "timestamp" && !inTimestamp(s, length) {
			return dst, fmt.Errorf("%s is out of the range of timestamp, %s to %s UTC", quote(s), firstTimestamp, lastTimestamp)
		}
		start := len(dst)
		dst, err := fraction(append(dst, s[:length]...), s, length, c.Fsp)
		if err != nil {
			return dst[:start], err
		}
		return dst, nil
	}), nil
}

// inTimestamp reports whether the date and time s, of length bytes without its fraction, is one of TIMESTAMP.
func inTimestamp(s []byte, length int) bool {
	switch t := s[:length]; {
	case string(t) == zeroTimestamp:
		return len(bytes.Trim(s[length:], ".0")) == 0
	case digits(s[5:7]) == 0 || digits(s[8:10]) == 0:
		return false
	default:
		return firstTimestamp <= string(t) && string(t) <= lastTimestamp
	}
}

func timeCodec(c *Column) (codec, error) {
	return spelled("-0123456789:.", func(dst, s []byte) ([]byte, error) {
		start := len(dst)
		t, neg := bytes.CutPrefix(s, []byte("-"))
		h := bytes.IndexByte(t, ':')
		length := h + len(":MM:SS")
		if h < 2 || h > 3 || len(t) < length || digits(t[:h]) < 0 || !clock(t[h-2:length]) {
			return dst, fmt.Errorf("%s is not a time, want HH:MM:SS", quote(s))
		}
		hours, beyond := digits(t[:h]), bytes.Trim(t[length:], ".0")
		if hours > lastHour || hours == lastHour && string(t[h:length]) == ":59:59" && len(beyond) > 0 {
			return dst, fmt.Errorf("%s is out of the range of time, -838:59:59 to 838:59:59", quote(s))
		}
		zero := len(bytes.Trim(t, "0:.")) == 0
		if neg && !zero { // MySQL has no negative zero
			dst = append(dst, '-')
		}
		whole := t[:length]
		if h == 3 && t[0] == '0' {
			whole = whole[1:]
		}
		dst, err := fraction(append(dst, whole...), t, length, c.Fsp)
		if err != nil {
			return dst[:start], err
		}
		return dst, nil
	}), nil
}

// date reports whether s is a date MySQL stores, YYYY-MM-DD.
func date(s []byte) bool {
	if len(s) != 10 || s[4] != '-' || s[7] != '-' {
		return false
	}
	y, m, d := digits(s[:4]), digits(s[5:7]), digits(s[8:])
	if y < 0 || m < 0 || m > 12 || d < 0 || d > 31 {
		return false
	}
	switch m {
	case 2:
		leap := y%4 == 0 && (y%100 != 0 || y%400 == 0 && y != 0) // the year 0 has no 29 February in MySQL
		return d <= 28 || leap && d == 29
	case 4, 6, 9, 11:
		return d <= 30
	}
	return true
}

// clock reports whether s is HH:MM:SS, whatever the hours.
func clock(s []byte) bool {
	if len(s) != 8 || s[2] != ':' || s[5] != ':' || digits(s[:2]) < 0 {
		return false
	}
	m, sec := digits(s[3:5]), digits(s[6:])
	return 0 <= m && m <= 59 && 0 <= sec && sec <= 59
}

// fraction appends the fraction that s has from start on, with fsp digits.
func fraction(dst, s []byte, start, fsp int) ([]byte, error) {
	f := s[start:]
	if len(f) > 0 {
		if f[0] != '.' || digits(f[1:]) < 0 {
			return dst, fmt.Errorf("%s has a bad fraction of the second", quote(s))
		}
		f = f[1:]
	}
	if used := bytes.TrimRight(f, "0"); len(used) > fsp {
		return dst, fmt.Errorf("%s has %d digits in the fraction of the second, at most %d", quote(s), len(used), fsp)
	}
	if fsp == 0 {
		return dst, nil
	}
	dst = append(dst, '.')
	for i := range fsp {
		c := byte('0')
		if i < len(f) {
			c = f[i]
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// digits returns the number that s spells in one or more digits, -1 if it does not. Of long ones only the sign counts.
func digits(s []byte) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return -1
		}
		n = min(n*10+int(c-'0'), 1e9)
	}
	if len(s) == 0 {
		return -1
	}
	return n
}

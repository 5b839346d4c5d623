package mapping

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

// enumCodec is for ENUM, a string that is one of the members, byte for byte.
func enumCodec(c *Column) (codec, error) {
	names, err := members(c.ColumnType, "enum")
	if err != nil {
		return codec{}, err
	}
	known := make(map[string]bool, len(names))
	for _, name := range names {
		known[name] = true
	}
	check := func(text []byte) error {
		if !known[string(text)] {
			return fmt.Errorf("%s is not a member of %s", quote(text), shorten(c.ColumnType))
		}
		return nil
	}
	return codec{
		value: func(dst []byte, v value) ([]byte, error) {
			if v.kind != '"' {
				return dst, mismatch(v, "a string")
			}
			s := v.text()
			if err := check(s); err != nil {
				return dst, err
			}
			return appendString(dst, s), nil
		},
		text: verbatim,
		arg:  stringArg,
		keys: &keyCodec{check: check, arg: func(text []byte) any { return string(text) }, members: names},
	}, nil
}

// setCodec is for SET, a string of members with commas between them. Their order is the column's.
func setCodec(c *Column) (codec, error) {
	names, err := members(c.ColumnType, "set")
	if err != nil {
		return codec{}, err
	}
	bit := make(map[string]uint64, len(names))
	for i, name := range names {
		bit[name] = 1 << i
	}
	return codec{
		value: func(dst []byte, v value) ([]byte, error) {
			if v.kind != '"' {
				return dst, mismatch(v, "a string")
			}
			var mask uint64
			for rest, more := string(v.text()), true; more && (rest != "" || mask != 0); {
				var name string
				name, rest, more = strings.Cut(rest, ",")
				m, ok := bit[name]
				if !ok {
					return dst, fmt.Errorf("%s is not a member of %s", quote([]byte(name)), shorten(c.ColumnType))
				}
				mask |= m
			}
			var list []byte
			for ; mask != 0; mask &= mask - 1 {
				if len(list) > 0 {
					list = append(list, ',')
				}
				list = append(list, names[bits.TrailingZeros64(mask)]...)
			}
			return appendString(dst, list), nil
		},
		text:  verbatim,
		arg:   stringArg,
		noKey: "a set column cannot be in a key",
	}, nil
}

// members parses the COLUMN_TYPE of an ENUM or SET: kind('a','it”s','back\\slash').
func members(columnType, kind string) ([]string, error) {
	broken := fmt.Errorf("the type %s cannot be read", shorten(columnType))
	rest, ok := strings.CutPrefix(columnType, kind+"(")
	if !ok {
		return nil, broken
	}
	var names []string
	for {
		if rest, ok = strings.CutPrefix(rest, "'"); !ok {
			return nil, broken
		}
		var name []byte
		for {
			if rest == "" {
				return nil, broken
			}
			c := rest[0]
			rest = rest[1:]
			if c == '\\' && rest != "" {
				c = rest[0]
				rest = rest[1:]
				switch c { // what MySQL's append_unescaped writes
				case '0':
					c = 0
				case 'n':
					c = '\n'
				case 'r':
					c = '\r'
				}
			} else if c == '\'' {
				if !strings.HasPrefix(rest, "'") {
					break
				}
				rest = rest[1:]
			}
			name = append(name, c)
		}
		names = append(names, string(name))
		switch {
		case rest == ")":
			if kind == "set" && len(names) > 64 {
				return nil, errors.New("more than 64 members")
			}
			return names, nil
		case !strings.HasPrefix(rest, ","):
			return nil, broken
		}
		rest = rest[1:]
	}
}

// shorten keeps the start of a long type for an error.
func shorten(columnType string) string {
	const most = 80 // bytes
	if len(columnType) <= most {
		return columnType
	}
	return strings.ToValidUTF8(columnType[:most], "") + "…"
}

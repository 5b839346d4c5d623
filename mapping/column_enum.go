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
	shown := shownIn(c.Charset)
	check := func(text []byte) error {
		if !known[string(text)] && !known[shown(string(text))] {
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

// shownIn returns what a text looks like among the members that information_schema shows of a column of the charset. It
// shows them in utf8mb3, where other characters are a ?. So what MySQL takes passes, and besides it only what differs
// from a member in such characters, which MySQL refuses.
func shownIn(charset string) func(string) string {
	if cs, known := charsets[charset]; known && !cs.has('\U0001F600') {
		return func(text string) string { return text }
	}
	return func(text string) string {
		return strings.Map(func(r rune) rune {
			if !basicPlane(r) {
				return '?'
			}
			return r
		}, text)
	}
}

// setCodec is for SET, a string of members with commas between them. Their order is the column's.
func setCodec(c *Column) (codec, error) {
	names, err := members(c.ColumnType, "set")
	if err != nil {
		return codec{}, err
	}
	place := make(map[string]int, len(names))
	for i, name := range names {
		if _, twice := place[name]; twice {
			return codec{}, fmt.Errorf("the members of %s are not told apart by information_schema", shorten(c.ColumnType))
		}
		place[name] = i
	}
	shown := shownIn(c.Charset)
	return codec{
		value: func(dst []byte, v value) ([]byte, error) {
			if v.kind != '"' {
				return dst, mismatch(v, "a string")
			}
			var mask uint64
			var given [64]string // by place: a member as it is written
			for rest, more := string(v.text()), true; more && (rest != "" || mask != 0); {
				var name string
				name, rest, more = strings.Cut(rest, ",")
				at, ok := place[name]
				if !ok {
					at, ok = place[shown(name)]
				}
				if !ok {
					return dst, fmt.Errorf("%s is not a member of %s", quote([]byte(name)), shorten(c.ColumnType))
				}
				mask |= 1 << at
				given[at] = name
			}
			var list []byte
			for ; mask != 0; mask &= mask - 1 {
				if len(list) > 0 {
					list = append(list, ',')
				}
				list = append(list, given[bits.TrailingZeros64(mask)]...)
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

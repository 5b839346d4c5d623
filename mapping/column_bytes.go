package mapping

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

// bytesCodec is for BINARY, VARBINARY and the BLOB types: base64 (RFC 4648, section 4, padded) in JSON and raw in
// keys. MySQL fills BINARY(n) with NUL up to n bytes, so a shorter value is filled here.
func bytesCodec(c *Column) (codec, error) {
	limit, fixed, blob := c.Length, 0, false
	switch c.Type {
	case "binary", "char":
		fixed = int(c.Length)
	case "varbinary", "varchar":
	default:
		limit, blob = c.Octets, true
	}
	check := func(n int) error {
		if int64(n) > limit {
			return fmt.Errorf("%d bytes, at most %d", n, limit)
		}
		return nil
	}
	text := func(dst, text []byte) ([]byte, error) {
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, text)
		return append(dst, '"'), nil
	}
	k := codec{
		form: base64Form,
		value: func(dst []byte, v value) ([]byte, error) {
			if v.kind != '"' {
				return dst, mismatch(v, "a string in base64")
			}
			s := v.text()
			b, err := base64.StdEncoding.Strict().AppendDecode(make([]byte, 0, max(len(s)/4*3, fixed)), s)
			if err != nil || bytes.ContainsAny(s, "\r\n") {
				return dst, fmt.Errorf("%s is not base64", quote(s))
			}
			if err := check(len(b)); err != nil {
				return dst, err
			}
			for len(b) < fixed {
				b = append(b, 0)
			}
			return text(dst, b)
		},
		text: text,
		arg: func(json string) any {
			b, _ := base64.StdEncoding.DecodeString(json[1 : len(json)-1])
			return b
		},
	}
	if blob {
		k.noKey = "a " + c.Type + " column cannot be in a key: MySQL cannot index all of it"
		return k, nil
	}
	k.keys = &keyCodec{
		check: func(text []byte) error {
			if len(text) < fixed {
				return fmt.Errorf("%d bytes, want all %d", len(text), fixed)
			}
			return check(len(text))
		},
		arg: func(text []byte) any { return bytes.Clone(text) },
	}
	return k, nil
}

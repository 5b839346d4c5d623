package mapping

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// Levels of nesting that a document can have.
const (
	mariaDepth  = int32(31)  // MariaDB 10.11: json_valid refuses the 32nd
	nativeDepth = int32(100) // MySQL's type JSON
)

// jsonCodec is for JSON: the document itself stands in the image. MariaDB keeps it byte for byte; MySQL writes it
// anew, so what it stores is known only once it is read back. A document null and an SQL NULL are both null in the
// image; null is written as NULL where the column allows it, else as the document.
func jsonCodec(c *Column) (codec, error) {
	l, depth := newLimit(c), nativeDepth
	k := codec{document: true, form: bareForm, noKey: "a json column cannot be in a key"}
	if c.JSON {
		depth = mariaDepth
		k.loose = l.loose
	} else {
		l = limit{chars: math.MaxInt64, octets: math.MaxInt64, cs: charsets["utf8mb4"]}
		k.loose = "MySQL writes documents of type json anew"
	}
	k.value = func(dst []byte, v value) ([]byte, error) {
		if v.depth > depth {
			return dst, fmt.Errorf("a document of %d levels, at most %d", v.depth, depth)
		}
		if err := l.check(v.raw); err != nil {
			return dst, err
		}
		return append(dst, v.raw...), nil
	}
	k.text = func(dst, text []byte) ([]byte, error) {
		if !utf8.Valid(text) {
			return dst, errNotUTF8
		}
		// MariaDB lets pass what is not JSON, as "\x" and 1.
		if !json.Valid(text) {
			return dst, errors.New("the stored document is not valid JSON")
		}
		return append(dst, bytes.Trim(text, " \t\r\n")...), nil
	}
	k.arg = verbatimArg
	return k, nil
}

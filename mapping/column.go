package mapping

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"
)

// A column is one compiled column of a mapping. It is made by [NewSet] and never changes.
type column struct {
	codec
	name   string
	quoted string // for SQL
	field  string // in the image
	label  []byte // "field": as a JSON image has it
	key    int    // which variable of the pattern holds its value; -1: none

	fieldName []byte // the field, as a hash has it

	nullable bool
	missing  absence
	later    bool   // it came while keyrow was running: an image without it is from before, see Renew
	initial  []byte // absence defaulted: the default as a JSON image has it
}

// absence is what it means that an image has no field for a column.
type absence byte

const (
	refused   absence = iota // NOT NULL without default: a SET must name it
	null                     // NULL is its default
	defaulted                // the default is known and put into the image
	computed                 // only MySQL knows the default: it stays out of the image
)

// A codec is a type of columns: how its values go from JSON, from MySQL's text and from keys to JSON and SQL. What
// hashes and strings hold is made of the JSON, see [form]. Every
// function is pure, appends to dst without changing what is there, and takes and gives no NULL. The texts that values
// and keys come as are foreign, so errors quote no more than the start of them.
type codec struct {
	value func(dst []byte, v value) ([]byte, error) // appends the canonical JSON of what a client wrote
	text  func(dst, text []byte) ([]byte, error)    // appends the canonical JSON of what MySQL holds
	arg   func(json string) any                     // the SQL argument of canonical JSON

	keys  *keyCodec // nil: no column of this type can be in a key
	noKey string    // why not

	limits *Limits // of numbers with so many digits that Redis can add to them; nil: of other types

	form     form   // how its JSON is made of plain text
	exact    string // SQL behind the column in a SELECT that makes its text exact
	loose    string // why MySQL may store another value than it is given; mostly empty
	document bool   // null is a value too
}

// keyCodec is the part of a codec for values in keys. Every value has one spelling.
type keyCodec struct {
	check    func(text []byte) error       // whether text is the spelling of a value; no allocation if it is
	arg      func(text []byte) any         // the SQL argument of such a text
	spell    func(dst, text []byte) []byte // appends the spelling of MySQL's text; nil: they are the same
	alphabet string                        // all bytes spellings have; empty: any
	alias    string                        // how MySQL takes other values for the same one; empty: it does not
	members  []string                      // ENUM: all values in their order, which is not that of their texts
}

// codecs makes the codec of each DATA_TYPE: the one place where a new type is added.
var codecs map[string]func(*Column) (codec, error)

func init() {
	codecs = map[string]func(*Column) (codec, error){
		"tinyint": integerCodec, "smallint": integerCodec, "mediumint": integerCodec, "int": integerCodec, "bigint": integerCodec,
		"year": yearCodec, "bit": bitCodec,
		"decimal": decimalCodec, "float": floatCodec, "double": floatCodec,

		"char": textCodec, "varchar": textCodec,
		"tinytext": textCodec, "text": textCodec, "mediumtext": textCodec, "longtext": textCodec,
		"enum": enumCodec, "set": setCodec, "json": jsonCodec,

		"binary": bytesCodec, "varbinary": bytesCodec,
		"tinyblob": bytesCodec, "blob": bytesCodec, "mediumblob": bytesCodec, "longblob": bytesCodec,

		"date": dateCodec, "datetime": datetimeCodec, "timestamp": datetimeCodec, "time": timeCodec,

		"uuid": uuidCodec, "inet4": inetCodec, "inet6": inetCodec,
	}
}

// spatial types have no exact form in JSON that MySQL takes back.
var spatial = map[string]bool{
	"geometry": true, "point": true, "linestring": true, "polygon": true, "multipoint": true, "multilinestring": true,
	"multipolygon": true, "geometrycollection": true, "geomcollection": true,
}

func newCodec(c *Column) (codec, error) {
	make, ok := codecs[c.Type]
	switch {
	case spatial[c.Type]:
		return codec{}, fmt.Errorf("the spatial type %s cannot be in an image", c.Type)
	case !ok:
		return codec{}, fmt.Errorf("the type %s is not supported", c.ColumnType)
	case c.JSON:
		make = jsonCodec
	}
	return make(c)
}

// mismatch says that v is not what the column takes.
func mismatch(v value, want string) error {
	kind := map[byte]string{'"': "a string", '0': "a number", 't': "true", 'f': "false", '{': "an object", '[': "an array"}[v.kind]
	return fmt.Errorf("%s, want %s", kind, want)
}

// misspelled says that text in a key is another spelling of what is spelled as right.
func misspelled(text, right []byte) error {
	return fmt.Errorf("%s in a key is spelled %s", quote(text), right)
}

// quote quotes the start of foreign text for an error.
func quote(text []byte) string {
	const most = 40 // bytes
	if len(text) <= most {
		return fmt.Sprintf("%q", text)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return fmt.Sprintf("%q…", text[:cut])
}

// quoteName quotes an identifier for SQL.
func quoteName(name string) string {
	return "`" + strings.ReplaceAll(name, "`", "``") + "`"
}

// rooms spare the check of a key an allocation: what a function value is given escapes.
var rooms = sync.Pool{New: func() any { return new([64]byte) }}

// spelled makes the codec of a type whose values are strings and have one canonical spelling each. canonical appends
// that of s, and nothing if it fails; its length is at most 64 bytes.
func spelled(alphabet string, canonical func(dst, s []byte) ([]byte, error)) codec {
	return codec{
		value: func(dst []byte, v value) ([]byte, error) {
			if v.kind != '"' {
				return dst, mismatch(v, "a string")
			}
			start := len(dst)
			dst, err := canonical(append(dst, '"'), v.text())
			if err != nil {
				return dst[:start], err
			}
			return append(dst, '"'), nil
		},
		text: verbatim,
		arg:  stringArg,
		keys: &keyCodec{
			check: func(text []byte) error {
				room := rooms.Get().(*[64]byte)
				defer rooms.Put(room)
				right, err := canonical(room[:0], text)
				if err == nil && !bytes.Equal(right, text) {
					err = misspelled(text, right)
				}
				return err
			},
			arg:      func(text []byte) any { return string(text) },
			alphabet: alphabet,
		},
	}
}

// stringArg is the arg of types whose values are strings in JSON and in SQL.
func stringArg(json string) any {
	text := json[1 : len(json)-1]
	if strings.IndexByte(text, '\\') < 0 {
		return text
	}
	return string(unescape(make([]byte, 0, len(text)), []byte(text)))
}

// verbatimArg is the arg of types whose JSON is what MySQL is given.
func verbatimArg(json string) any { return json }

// verbatim is the text of types whose text is a string in JSON.
func verbatim(dst, text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return dst, errNotUTF8
	}
	return appendString(dst, text), nil
}

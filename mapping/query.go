package mapping

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// QueryConfig is one [[query]] section of the configuration: keys that are results of a SELECT. Start from
// [DefaultQuery], then decode over it.
type QueryConfig struct {
	Name         string            `toml:"name"`              // as that of a mapping, and different from those
	Key          string            `toml:"key"`               // its key, or a pattern as that of a mapping
	SQL          string            `toml:"sql"`               // a SELECT, with {name} for the value of a variable of the key
	Variables    map[string]string `toml:"variables"`         // variable -> "users.id", whose values it takes, or integer, text, binary
	Value        string            `toml:"value"`             // json, hash, list, set, zset
	TTL          time.Duration     `toml:"ttl"`               // how long a result stays in Redis; 0: until evicted
	NegativeTTL  time.Duration     `toml:"negative_ttl"`      // how long "there are no rows" is remembered; 0: not at all
	Stale        time.Duration     `toml:"stale_while_error"` // how long after its ttl a result may be served while MySQL is down; 0: not at all
	EarlyRefresh float64           `toml:"early_refresh"`     // how early a result that is read often is read anew, see docs/mappings.md; 0: not at all
	OnRedisDown  string            `toml:"on_redis_down"`     // error, mysql: what answers GET, MGET and HGETALL while Redis cannot be reached
	MaxSelects   Rate              `toml:"max_selects"`       // runs of the SELECT; 0: no limit
}

// DefaultQueryTTL is how long a result stays: nothing else makes it follow the tables.
const DefaultQueryTTL = time.Minute

// DefaultQuery is a query with every setting that has a default.
func DefaultQuery() QueryConfig {
	return QueryConfig{Value: DefaultValueKind, TTL: DefaultQueryTTL, NegativeTTL: DefaultNegativeTTL, OnRedisDown: DefaultOnRedisDown}
}

// types of variables that are not those of a column.
var variableTypes = map[string]codec{
	"integer": whole{low: 1 << 63, high: math.MaxUint64, want: "-9223372036854775808 to 18446744073709551615"}.codec(),
	"text":    must(textCodec(&Column{Type: "varchar", Length: math.MaxInt64, Charset: "utf8mb4", Collation: "binary"})),
	"binary":  must(bytesCodec(&Column{Type: "varbinary", Length: math.MaxInt64})),
}

func must(k codec, err error) codec {
	if err != nil {
		panic(err)
	}
	return k
}

func (q *QueryConfig) validate(p *pattern, report func(setting, format string, args ...any)) {
	if p != nil {
		if _, err := parseStatement(q.SQL, p.variables); err != nil {
			report("sql", "%w", err)
		}
		for _, name := range p.variables {
			spec, ok := q.Variables[name]
			_, known := variableTypes[spec]
			switch {
			case !ok:
				report("variables", `{%s} is missing; name a column whose values it takes, as variables = { %s = "users.id" }, or integer, text or binary`, name, name)
			case !known && len(columnPath(spec)) == 0:
				report("variables", `%s: %q is neither a column, as "users.id", nor integer, text or binary`, name, spec)
			}
		}
		for _, name := range sorted(q.Variables) {
			if !slices.Contains(p.variables, name) {
				report("variables", "the key has no variable {%s}; remove it", name)
			}
		}
	}
	oneOf(report, "value", q.Value, []string{"json", "hash", "list", "set", "zset"})
	residencies(report, q.TTL, q.NegativeTTL, q.Stale)
	earlyRefresh(report, q.EarlyRefresh, q.TTL)
	q.MaxSelects.validate(report)
	queryOnRedisDown(report, q.OnRedisDown, q.Value)
}

// columnPath cuts "users.id" or "shop.users.id" into the table and the column; it is nil if spec is neither.
func columnPath(spec string) []string {
	parts := strings.Split(spec, ".")
	if n := len(parts); n < 2 || n > 3 || slices.Contains(parts, "") {
		return nil
	}
	last := len(parts) - 1
	return []string{strings.Join(parts[:last], "."), parts[last]}
}

// Overlaps reports whether a key of this query can start with prefix.
func (q *QueryConfig) Overlaps(prefix string) bool { return overlaps(q.Key, prefix) }

// Tables lists the tables whose schema [NewSet] wants to have, as the config spells them.
func Tables(cs []Config, qs []QueryConfig) []string {
	var tables []string
	for i := range cs {
		tables = append(tables, cs[i].Table)
	}
	for i := range qs {
		for _, name := range sorted(qs[i].Variables) {
			if path := columnPath(qs[i].Variables[name]); path != nil {
				tables = append(tables, path[0])
			}
		}
	}
	return tables
}

// Probe is the SELECT of a query, to be prepared, and values for it that go with it whatever its tables hold: the
// number 1 where a number may be wanted, as behind LIMIT, else NULL.
func (q *QueryConfig) Probe(schema Schema) (text string, args []any, err error) {
	p, err := parseKey(q.Key)
	if err != nil {
		return "", nil, err
	}
	s, err := parseStatement(q.SQL, p.variables)
	if err != nil {
		return "", nil, err
	}
	for _, at := range s.args {
		var arg any
		if k, _ := q.variable(p.variables[at], schema); k.form == bareForm {
			arg = int64(1)
		}
		args = append(args, arg)
	}
	return s.text, args, nil
}

// variable finds the codec of a variable.
func (q *QueryConfig) variable(name string, schema Schema) (codec, error) {
	spec := q.Variables[name]
	if k, ok := variableTypes[spec]; ok {
		return k, nil
	}
	path := columnPath(spec)
	if path == nil {
		return codec{form: quotedForm}, fmt.Errorf("%q is not a column", spec)
	}
	none := codec{form: quotedForm}
	t := schema[path[0]]
	if t == nil {
		return none, fmt.Errorf("there is no table %q that the user of mysql.dsn may see", path[0])
	}
	c := t.column(path[1])
	if c == nil {
		return none, fmt.Errorf("the table %s has no column %q%s", path[0], path[1], t.meant(path[1]))
	}
	k, err := newCodec(c)
	switch {
	case err != nil:
		return none, err
	case k.keys == nil:
		return none, errors.New(k.noKey)
	}
	return k, nil
}

// compileQuery returns nil if there is nothing to make a query of; else the findings tell whether it may be used.
func compileQuery(q *QueryConfig, schema Schema) (*Mapping, *findings) {
	f := &findings{name: q.Name, query: true}
	p, err := parseKey(q.Key)
	if err != nil {
		f.error("key", "%v", err)
		return nil, f
	}
	m := &Mapping{
		Name:         q.Name,
		Pattern:      q.Key,
		Query:        true,
		Kind:         kindOf(q.Value),
		TTL:          q.TTL,
		NegativeTTL:  q.NegativeTTL,
		Stale:        q.Stale,
		Bypass:       q.OnRedisDown == "mysql",
		EarlyRefresh: q.EarlyRefresh,
		MaxSelects:   q.MaxSelects,
		Deny:         true,
		pattern:      p,
		query:        *q,
	}
	if m.statement, err = parseStatement(q.SQL, p.variables); err != nil {
		f.error("sql", "%v", err)
		return nil, f
	}
	for _, name := range p.variables {
		k, err := q.variable(name, schema)
		if err != nil {
			f.error("variables", "%s: %v; name another column, or integer, text or binary", name, err)
			continue
		}
		if k.keys.alias != "" {
			f.warn("variables", "%s: the collation of %s takes values that differ in %s for equal: keys that differ so may have the same result",
				name, q.Variables[name], k.keys.alias)
		}
		m.keys = append(m.keys, &column{codec: k, name: name})
	}
	result := schema[q.SQL]
	switch {
	case result == nil:
		f.error("sql", "it has not been looked at")
	case result.Problem != "":
		f.error("sql", "%s", result.Problem)
	case result.Doubt != "":
		f.warn("sql", "its columns are not known, for it could not be tried with made-up values: %s", result.Doubt)
	default:
		if _, err := m.Result(result.Columns); err != nil {
			f.error("sql", "%v", err)
		}
	}
	if !f.failed {
		p.chooseRest(m.keys)
	}
	return m, f
}

// Statement is the SELECT of a query, to be prepared: its values are those of [Mapping.StatementArgs].
func (m *Mapping) Statement() string { return m.statement.text }

// StatementArgs are the values of a query's SELECT for a key. It fails with the [Mapping.Refusal] of a key that has no
// result.
func (m *Mapping) StatementArgs(key []byte) ([]any, error) {
	values, err := m.KeyArgs(nil, key)
	if err != nil {
		return nil, err
	}
	args := make([]any, len(m.statement.args))
	for i, at := range m.statement.args {
		args[i] = values[at]
	}
	return args, nil
}

// A Result makes values of the rows of one run of a query.
type Result struct {
	kind    Kind
	columns []*column
}

// Result is for rows of these columns, of which Name, Type, Unsigned and Scale are looked at. Type may be "bit" for the
// bytes of one, and "null". It fails if no value of the query's kind can be made of them.
func (m *Mapping) Result(columns []Column) (*Result, error) {
	r := &Result{kind: m.Kind}
	want, what := 0, ""
	switch m.Kind {
	case KindZset:
		want, what = 2, "the member and its score"
	case KindHash:
		want, what = 2, "the field and its value"
	case KindList:
		want, what = 1, "the element"
	case KindSet:
		want, what = 1, "the member"
	}
	if want > 0 && len(columns) != want {
		return nil, fmt.Errorf("its rows have %d columns; those of value = %q have %d: %s", len(columns), m.Kind, want, what)
	}
	for i := range columns {
		c := &columns[i]
		k, err := resultCodec(c)
		switch {
		case err != nil:
			return nil, fmt.Errorf("column %q: %w", c.Name, err)
		case m.Kind == KindZset && i == 1 && (k.form != bareForm || k.document):
			return nil, fmt.Errorf("column %q: the score has to be a number, and this is %s", c.Name, c.Type)
		case m.Kind == KindJSON && slices.ContainsFunc(columns[:i], func(o Column) bool { return o.Name == c.Name }):
			return nil, fmt.Errorf("column %q stands twice; give one of them another name with AS", c.Name)
		}
		r.columns = append(r.columns, &column{codec: k, name: c.Name, label: append(appendString(nil, []byte(c.Name)), ':')})
	}
	return r, nil
}

// resultCodec is the codec of a column of a result: only what becomes of MySQL's text counts.
func resultCodec(c *Column) (codec, error) {
	switch c.Type {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "year":
		return variableTypes["integer"], nil
	case "bit":
		return codec{form: bareForm, text: func(dst, text []byte) ([]byte, error) {
			var n uint64
			for _, b := range text {
				n = n<<8 | uint64(b)
			}
			return strconv.AppendUint(dst, n, 10), nil
		}}, nil
	case "decimal":
		return decimalCodec(&Column{Precision: maxDigits, Scale: c.Scale})
	case "float", "double", "json":
		return newCodec(c)
	case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob":
		return variableTypes["binary"], nil
	}
	if spatial[c.Type] {
		return newCodec(c)
	}
	return variableTypes["text"], nil
}

// Values appends the values of one row: of kind JSON it is an object. A row with a NULL in it is in no result of
// another kind, so nothing is appended then.
func (r *Result) Values(dst, row [][]byte) ([][]byte, error) {
	if r.kind == KindJSON {
		object, err := r.object(row)
		if err != nil {
			return dst, err
		}
		return append(dst, object), nil
	}
	if slices.ContainsFunc(row, func(text []byte) bool { return text == nil }) {
		return dst, nil
	}
	values := dst
	for i, c := range r.columns {
		text, err := c.plain(nil, row[i])
		if err != nil {
			return dst, c.wrap(err)
		}
		values = append(values, text)
	}
	if n := len(values); r.kind == KindZset {
		values[n-2], values[n-1] = values[n-1], values[n-2]
	}
	return values, nil
}

func (r *Result) object(row [][]byte) ([]byte, error) {
	b := []byte{'{'}
	for i, c := range r.columns {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, c.label...)
		if row[i] == nil {
			b = append(b, "null"...)
			continue
		}
		var err error
		if b, err = c.text(b, row[i]); err != nil {
			return nil, c.wrap(err)
		}
	}
	return append(b, '}'), nil
}

package mapping

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Config is one [[mapping]] section of the configuration. Start from [Default], then decode over it.
type Config struct {
	Name         string            `toml:"name"`              // letters, digits, '_', '-' and '.', at most 64; unique
	Key          string            `toml:"key"`               // the pattern of its keys, see parsePattern
	Table        string            `toml:"table"`             // "users" or "shop.users"
	Value        string            `toml:"value"`             // json, hash, string
	Column       string            `toml:"column"`            // the one column of value = "string"
	Columns      []string          `toml:"columns"`           // the columns of the image; none: all that are not generated
	Fields       map[string]string `toml:"fields"`            // column -> its name in the image; default: the column's name
	TTL          time.Duration     `toml:"ttl"`               // how long an image stays in Redis; 0: until evicted
	NegativeTTL  time.Duration     `toml:"negative_ttl"`      // how long "there is no such row" is remembered; 0: not at all
	Write        string            `toml:"write"`             // behind, through, cache, deny
	OnAbsent     string            `toml:"on_absent"`         // behind, through: how a key is written that is not in Redis
	Delete       string            `toml:"delete"`            // cache: DEL drops the image only; row: it deletes the row
	Stale        time.Duration     `toml:"stale_while_error"` // how long after its ttl an image may be served while MySQL is down; 0: not at all
	EarlyRefresh float64           `toml:"early_refresh"`     // how early an image that is read often is read anew, see docs/mappings.md; 0: not at all
	OnRedisDown  string            `toml:"on_redis_down"`     // error, mysql: what answers GET, MGET and HGETALL while Redis cannot be reached
	MaxSelects   Rate              `toml:"max_selects"`       // SELECTs that read its rows; 0: no limit

	Durability      string        `toml:"durability"`       // redis, replicas: what an acknowledged write has
	Replicas        int           `toml:"replicas"`         // of Redis, for that
	ReplicasTimeout time.Duration `toml:"replicas_timeout"` // how long they may take
}

// Defaults of a mapping.
const (
	DefaultValueKind   = "json"
	DefaultTTL         = 10 * time.Minute
	DefaultNegativeTTL = 5 * time.Second
	DefaultWrite       = "behind"
	DefaultOnAbsent    = "behind"
	DefaultDelete      = "cache"
)

// maxTTL keeps a TTL with its jitter far from the limit of Redis, 2^63 ms after 1970.
const maxTTL = 100 * 365 * 24 * time.Hour

const maxName = 64 // bytes

// Default is a mapping with every setting that has a default.
func Default() Config {
	return Config{
		Value:       DefaultValueKind,
		TTL:         DefaultTTL,
		NegativeTTL: DefaultNegativeTTL,
		Write:       DefaultWrite,
		OnAbsent:    DefaultOnAbsent,
		Delete:      DefaultDelete,
		OnRedisDown: DefaultOnRedisDown,

		Durability:      DefaultDurability,
		ReplicasTimeout: DefaultReplicasTimeout,
	}
}

// Validate checks what can be checked without the database and reports every problem at once, each starting with
// the path of the setting: mapping "user": key: offset 5: …
func Validate(cs []Config, qs []QueryConfig) error {
	v := &validator{}
	for i := range cs {
		c := &cs[i]
		_, report := v.begin("mapping", i, c.Name, c.Key, parsePattern)
		c.validate(report)
	}
	for i := range qs {
		q := &qs[i]
		p, report := v.begin("query", i, q.Name, q.Key, parseKey)
		q.validate(p, report)
	}
	return errors.Join(v.errs...)
}

// validator goes through the mappings and queries in turn.
type validator struct {
	errs   []error
	before []validated
}

type validated struct {
	name, where string
	pattern     *pattern // nil: it cannot be read
}

// begin checks what mappings and queries have in common, and returns what reports a problem of this one.
func (v *validator) begin(section string, i int, name, key string, parse func(string) (*pattern, error)) (*pattern, func(setting, format string, args ...any)) {
	where := fmt.Sprintf("%s %q", section, name)
	if name == "" {
		where = fmt.Sprintf("%s[%d]", section, i)
	}
	report := func(setting, format string, args ...any) {
		v.errs = append(v.errs, fmt.Errorf("%s: %s: "+format, append([]any{where, setting}, args...)...))
	}
	switch {
	case name == "":
		report("name", `missing; name the %s, as name = "user"`, section)
	case len(name) > maxName || strings.ContainsFunc(name, notInName):
		report("name", "want letters, digits, '_', '-' and '.', at most %d", maxName)
	case slices.ContainsFunc(v.before, func(o validated) bool { return o.name == name }):
		report("name", "used by an earlier mapping or query; choose another")
	}
	p, err := parse(key)
	if err != nil {
		report("key", "%w", err)
	}
	for _, o := range v.before {
		if p == nil || o.pattern == nil {
			continue
		}
		if example, both := p.conflict(o.pattern); both {
			report("key", "%q and the %q of %s can both match the key %q; make their literal text differ",
				key, o.pattern.str, o.where, example)
		}
	}
	v.before = append(v.before, validated{name, where, p})
	return p, report
}

func (c *Config) validate(report func(setting, format string, args ...any)) {
	if c.Table == "" {
		report("table", `missing; name the table, as table = "users"`)
	} else if parts := strings.Split(c.Table, "."); len(parts) > 2 || slices.Contains(parts, "") {
		report("table", `%q is neither "table" nor "schema.table"`, c.Table)
	}

	oneOf(report, "value", c.Value, []string{"json", "hash", "string"})
	oneOf(report, "write", c.Write, []string{"behind", "through", "cache", "deny"})
	oneOf(report, "on_absent", c.OnAbsent, []string{"behind", "through"})
	oneOf(report, "delete", c.Delete, []string{"cache", "row"})
	if c.Value == "hash" && (c.Write == "through" || c.OnAbsent == "through") {
		report("write", `rows of value = "hash" are changed field by field, which "through" cannot do; use json, or write = "behind"`)
	}
	if c.OnAbsent == "through" && c.Write != "behind" {
		report("on_absent", `"through" is for write = "behind": what is not in Redis is written to MySQL first; remove it`)
	}
	if c.Delete == "row" && c.Write == "cache" {
		report("delete", `"row" deletes rows, and write = "cache" writes none; remove one of them`)
	}
	if c.Delete == "row" && c.Write == "deny" {
		report("delete", `"row" deletes rows, which write = "deny" forbids; remove one of them`)
	}

	switch {
	case c.Value == "string":
		if c.Column == "" {
			report("column", `missing; name the one column of a value = "string", as column = "balance"`)
		}
		if len(c.Columns) > 0 || len(c.Fields) > 0 {
			report("columns", `value = "string" has one column and no fields; name it in column, and remove columns and fields`)
		}
	case c.Column != "":
		report("column", `only value = "string" has one column; list the columns of a %s in columns`, c.Value)
	}
	for i, name := range c.Columns {
		if name == "" {
			report("columns", "entry %d is empty", i+1)
		} else if slices.Contains(c.Columns[:i], name) {
			report("columns", "%q is listed twice", name)
		}
	}
	for _, column := range sorted(c.Fields) {
		if field := c.Fields[column]; field == "" || !utf8.ValidString(field) {
			report("fields", "the field name %q of column %q is empty or not UTF-8", field, column)
		}
	}

	residencies(report, c.TTL, c.NegativeTTL, c.Stale)
	earlyRefresh(report, c.EarlyRefresh, c.TTL)
	c.MaxSelects.validate(report)
	onRedisDown(report, c.OnRedisDown, c.Write)
	c.validateDurability(report)
}

func residencies(report func(setting, format string, args ...any), ttl, negative, stale time.Duration) {
	for _, t := range []struct {
		setting string
		d       time.Duration
	}{{"ttl", ttl}, {"negative_ttl", negative}, {"stale_while_error", stale}} {
		if t.d < 0 || t.d > maxTTL || t.d > 0 && t.d < time.Millisecond {
			report(t.setting, `%v is out of range; want "0" or 1ms to %d years`, t.d, int(maxTTL.Hours()/24/365))
		}
	}
	if stale > 0 && ttl == 0 {
		report("stale_while_error", `is the time after ttl, and ttl = "0" is without end; set ttl, or remove it`)
	}
}

// Overlaps reports whether a key of this mapping can start with prefix.
func (c *Config) Overlaps(prefix string) bool { return overlaps(c.Key, prefix) }

func overlaps(key, prefix string) bool {
	p, err := parseKey(key)
	if err != nil {
		return false // Validate says so
	}
	first := string(p.literals[0])
	return strings.HasPrefix(first, prefix) || len(p.variables) > 0 && strings.HasPrefix(prefix, first)
}

func notInName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-' || r == '.')
}

// oneOf refuses what is not in known.
func oneOf(report func(setting, format string, args ...any), setting, got string, known []string) {
	if !slices.Contains(known, got) {
		report(setting, "%q is unknown; use %s", got, strings.Join(known, " or "))
	}
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

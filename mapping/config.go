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
	Name        string            `toml:"name"`         // letters, digits, '_', '-' and '.', at most 64; unique
	Key         string            `toml:"key"`          // the pattern of its keys, see parsePattern
	Table       string            `toml:"table"`        // "users" or "shop.users"
	Value       string            `toml:"value"`        // json
	Column      string            `toml:"column"`       // the one column of value = "string"
	Columns     []string          `toml:"columns"`      // the columns of the image; none: all that are not generated
	Fields      map[string]string `toml:"fields"`       // column -> its name in the image; default: the column's name
	TTL         time.Duration     `toml:"ttl"`          // how long an image stays in Redis; 0: until evicted
	NegativeTTL time.Duration     `toml:"negative_ttl"` // how long "there is no such row" is remembered; 0: not at all
	Write       string            `toml:"write"`        // behind, deny
	OnAbsent    string            `toml:"on_absent"`    // behind: what a write does to a key that is not in Redis
	Delete      string            `toml:"delete"`       // cache: DEL drops the image only; row: it deletes the row
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
	}
}

// Validate checks what can be checked without the database and reports every problem at once, each starting with
// the path of the setting: mapping "user": key: offset 5: …
func Validate(cs []Config) error {
	var errs []error
	patterns := make([]*pattern, len(cs))
	for i := range cs {
		c, where := &cs[i], path(cs, i)
		report := func(setting, format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: %s: "+format, append([]any{where, setting}, args...)...))
		}
		switch {
		case c.Name == "":
			report("name", `missing; name the mapping, as name = "user"`)
		case len(c.Name) > maxName || strings.ContainsFunc(c.Name, notInName):
			report("name", "want letters, digits, '_', '-' and '.', at most %d", maxName)
		case slices.ContainsFunc(cs[:i], func(o Config) bool { return o.Name == c.Name }):
			report("name", "used by an earlier mapping; choose another")
		}
		p, err := parsePattern(c.Key)
		if err != nil {
			report("key", "%w", err)
		} else {
			for j, q := range patterns[:i] {
				if q == nil {
					continue
				}
				if example, both := p.conflict(q); both {
					report("key", "%q and the %q of %s can both match the key %q; make their literal text differ",
						c.Key, cs[j].Key, path(cs, j), example)
				}
			}
			patterns[i] = p
		}
		c.validate(report)
	}
	return errors.Join(errs...)
}

func (c *Config) validate(report func(setting, format string, args ...any)) {
	if c.Table == "" {
		report("table", `missing; name the table, as table = "users"`)
	} else if parts := strings.Split(c.Table, "."); len(parts) > 2 || slices.Contains(parts, "") {
		report("table", `%q is neither "table" nor "schema.table"`, c.Table)
	}

	oneOf(report, "value", c.Value, []string{"json"}, []string{"hash", "string"})
	oneOf(report, "write", c.Write, []string{"behind", "deny"}, []string{"through", "cache"})
	oneOf(report, "on_absent", c.OnAbsent, []string{"behind"}, []string{"through"})
	oneOf(report, "delete", c.Delete, []string{"cache", "row"}, nil)
	if c.Delete == "row" && c.Write == "deny" {
		report("delete", `"row" deletes rows, which write = "deny" forbids; remove one of them`)
	}

	if c.Column != "" {
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

	for _, t := range []struct {
		setting string
		d       time.Duration
	}{{"ttl", c.TTL}, {"negative_ttl", c.NegativeTTL}} {
		if t.d < 0 || t.d > maxTTL || t.d > 0 && t.d < time.Millisecond {
			report(t.setting, `%v is out of range; want "0" or 1ms to %d years`, t.d, int(maxTTL.Hours()/24/365))
		}
	}
}

// Overlaps reports whether a key of this mapping can start with prefix.
func (c *Config) Overlaps(prefix string) bool {
	p, err := parsePattern(c.Key)
	if err != nil {
		return false // Validate says so
	}
	first := string(p.literals[0])
	return strings.HasPrefix(first, prefix) || strings.HasPrefix(prefix, first)
}

// path names the i-th mapping in errors.
func path(cs []Config, i int) string {
	if cs[i].Name == "" {
		return fmt.Sprintf("mapping[%d]", i)
	}
	return fmt.Sprintf("mapping %q", cs[i].Name)
}

func notInName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-' || r == '.')
}

// oneOf refuses what is not in known; a value in planned gets a text of its own.
func oneOf(report func(setting, format string, args ...any), setting, got string, known, planned []string) {
	switch {
	case slices.Contains(known, got):
	case slices.Contains(planned, got):
		report(setting, "%q is not available yet; use %s", got, strings.Join(known, " or "))
	default:
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

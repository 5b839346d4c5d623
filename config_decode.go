package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"keyrow/mapping"
	"keyrow/proxy"
)

// decoder puts a TOML document into structs with toml tags. It goes on after a problem, so that one run shows all there
// is to change, and it is strict: a key that no struct has, and a value of another type, are problems. ${NAME} in a
// string is replaced by the environment's NAME; what that holds is not expanded again. $${NAME} is the text ${NAME}.
//
// Problems start with the path of the key. A value that should be text is never part of one: it may be a password.
type decoder struct {
	problems []error
	paths    []string // of problems
}

func (d *decoder) report(path, format string, args ...any) {
	d.problems = append(d.problems, fmt.Errorf("%s: "+format, append([]any{path}, args...)...))
	d.paths = append(d.paths, path)
}

// reported tells whether a problem was reported of the key that err starts with.
func (d *decoder) reported(err error) bool {
	return slices.ContainsFunc(d.paths, func(path string) bool { return strings.HasPrefix(err.Error(), path+": ") })
}

// value puts v into out, a pointer to a field, or leaves what is there if it does not fit.
func (d *decoder) value(path string, v any, out any) {
	switch out := out.(type) {
	case *string:
		if s, ok := v.(string); ok {
			*out = d.expand(path, s)
		} else {
			d.report(path, "want text in quotes, got %s", kind(v))
		}
	case *int:
		if n, ok := v.(int64); ok && int64(int(n)) == n {
			*out = int(n)
		} else {
			d.report(path, "want a whole number, got %s", show(v))
		}
	case *bool:
		if b, ok := v.(bool); ok {
			*out = b
		} else {
			d.report(path, "want true or false, without quotes, got %s", show(v))
		}
	case *time.Duration:
		d.duration(path, v, out)
	case *float64:
		switch v := v.(type) {
		case int64:
			*out = float64(v)
		case float64:
			*out = v
		default:
			d.report(path, "want a number, got %s", show(v))
		}
	case *mapping.Rate:
		d.rate(path, v, out)
	case *proxy.Addrs:
		if s, ok := v.(string); ok {
			*out = proxy.Addrs{d.expand(path, s)}
		} else if _, ok := v.([]any); ok {
			d.value(path, v, (*[]string)(out))
		} else {
			d.report(path, "want an address in quotes, or a list of them, got %s", kind(v))
		}
	case *[]string:
		list, ok := v.([]any)
		if !ok {
			d.report(path, "want a list of texts in quotes, got %s", kind(v))
			return
		}
		texts, before := make([]string, len(list)), len(d.problems)
		for i := range list {
			d.value(fmt.Sprintf("%s[%d]", path, i), list[i], &texts[i])
		}
		if len(d.problems) == before {
			*out = texts
		}
	case *map[string]string:
		table, ok := v.(map[string]any)
		if !ok {
			d.report(path, `want a table of texts, like { email = "mail" }, got %s`, kind(v))
			return
		}
		texts, before := make(map[string]string, len(table)), len(d.problems)
		for _, key := range sortedKeys(table) {
			var text string
			d.value(path+"."+key, table[key], &text)
			texts[key] = text
		}
		if len(d.problems) == before {
			*out = texts
		}
	case *[]mapping.Config:
		sections(d, path, v, out, mapping.Default)
	case *[]mapping.QueryConfig:
		sections(d, path, v, out, mapping.DefaultQuery)
	default:
		if table, ok := v.(map[string]any); ok {
			d.table(path+".", table, out)
		} else {
			d.report(path, "is a section, write it as [%s]", path)
		}
	}
}

// table puts a table into out, a pointer to a struct. The path of every key starts with prefix.
func (d *decoder) table(prefix string, table map[string]any, out any) {
	s := reflect.ValueOf(out).Elem()
	fields := make(map[string]any, s.NumField())
	for i := range s.NumField() {
		fields[s.Type().Field(i).Tag.Get("toml")] = s.Field(i).Addr().Interface()
	}
	for _, key := range sortedKeys(table) {
		if field, ok := fields[key]; ok {
			d.value(prefix+key, table[key], field)
		} else {
			d.report(prefix+key, "there is no such key; %s", instead(key, sortedKeys(fields)))
		}
	}
}

// sections decodes each [[path]] over its defaults.
func sections[T any](d *decoder, path string, v any, out *[]T, defaults func() T) {
	list, ok := v.([]map[string]any)
	if !ok {
		d.report(path, "write each %s below a line [[%s]], in two brackets", path, path)
	}
	for i, table := range list {
		prefix := fmt.Sprintf("%s[%d]: ", path, i)
		if name, ok := table["name"].(string); ok && name != "" {
			prefix = fmt.Sprintf("%s %q: ", path, name)
		}
		section := defaults()
		d.table(prefix, table, &section)
		*out = append(*out, section)
	}
}

// duration reads durations as Go writes them, "10m" or "1.5s", and "0". A bare number has no unit, so it is refused.
func (d *decoder) duration(path string, v any, out *time.Duration) {
	const want = `want a number and its unit in quotes, like "10m" or "100ms"`
	text, ok := v.(string)
	if !ok {
		d.report(path, want+", got %s", show(v))
		return
	}
	text = d.expand(path, text)
	if length, err := time.ParseDuration(text); err == nil {
		*out = length
	} else {
		d.report(path, want+", got %q", text)
	}
}

// rate reads "1000/s" and the like, and numbers, which are for each second.
func (d *decoder) rate(path string, v any, out *mapping.Rate) {
	const want = `want how many a second, like 1000 or "1000/s"`
	switch v := v.(type) {
	case int64:
		*out = mapping.Rate(v)
	case float64:
		*out = mapping.Rate(v)
	case string:
		r, err := mapping.ParseRate(d.expand(path, v))
		if err != nil {
			d.report(path, want+": %v", err)
			return
		}
		*out = r
	default:
		d.report(path, want+", got %s", show(v))
	}
}

var variable = regexp.MustCompile(`\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

func (d *decoder) expand(path, text string) string {
	return variable.ReplaceAllStringFunc(text, func(ref string) string {
		if ref[1] == '$' {
			return ref[1:]
		}
		name := ref[2 : len(ref)-1]
		value, ok := os.LookupEnv(name)
		if !ok {
			d.report(path, "the environment has no variable %s", name)
		}
		return value
	})
}

// kind names the type of a TOML value.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case int64, float64:
		return "a number"
	case bool:
		return "true or false without quotes"
	case time.Time:
		return "a date without quotes"
	case map[string]any, []map[string]any:
		return "a table"
	}
	return "a list"
}

// show is a value in an error, for keys that hold no secret.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case int64, bool:
		return fmt.Sprint(v)
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".eIN") {
			text += ".0" // else it would look like a whole number
		}
		return text
	}
	return kind(v)
}

// instead says which of keys was meant by key: the nearest ones, if any is near.
func instead(key string, keys []string) string {
	var near []string
	least := max(2, len(key)/3)
	for _, k := range keys {
		n := distance(strings.ToLower(key), k)
		if n < least {
			least, near = n, nil
		}
		if n == least {
			near = append(near, k)
		}
	}
	if len(near) > 0 {
		return "did you mean " + strings.Join(near, " or ") + "?"
	}
	return "there are " + strings.Join(keys, ", ")
}

// distance is how many bytes have to be put in, taken out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // from the start of a to each start of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// secret finds the lines of a configuration that hold a password or a token.
var secret = regexp.MustCompile(`\b(password|dsn|token)\b["']?\s*=`)

// syntaxError says where text is not TOML and why. The parser's own errors show the lines around, with the passwords in
// them, and words of the line.
func syntaxError(err error, text string) error {
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return err
	}
	// The parser's own line is the next one if a line ends too early.
	before := text[:min(parse.Position.Start, len(text))]
	line, column := strings.Count(before, "\n"), len(before)-strings.LastIndexByte(before, '\n')
	why := strings.ToLower(parse.Message[:1]) + strings.TrimSuffix(parse.Message[1:], ".")
	if secret.MatchString(strings.Split(text, "\n")[line]) && !strings.HasPrefix(why, "key ") {
		why = `the text cannot be read; put it in quotes, on one line, with \" and \\ for " and \`
	}
	return fmt.Errorf("line %d, column %d: %s", line+1, column, why)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

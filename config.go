package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/go-viper/mapstructure/v2"

	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/proxy"
)

// config is the configuration file. Every section belongs to the package that uses it.
type config struct {
	Proxy    proxy.Config          `toml:"proxy"`
	Redis    backend.RedisConfig   `toml:"redis"`
	MySQL    backend.MySQLConfig   `toml:"mysql"`
	Journal  backend.JournalConfig `toml:"journal"`
	Log      logConfig             `toml:"log"`
	Mappings []mapping.Config      `toml:"mapping"`
}

// logConfig is the [log] section.
type logConfig struct {
	Level  string `toml:"level"`  // debug, info, warn or error
	Format string `toml:"format"` // auto, console or json
}

func defaultConfig() config {
	return config{
		Proxy:   proxy.DefaultConfig(),
		Redis:   backend.DefaultRedis(),
		MySQL:   backend.DefaultMySQL(),
		Journal: backend.DefaultJournal(),
		Log:     logConfig{Level: "info", Format: "auto"},
	}
}

// configError is a configuration that cannot be used: everything that is wrong with it.
type configError struct {
	path string
	err  error
}

func (e *configError) Error() string {
	text := strings.ReplaceAll(e.err.Error(), "\n", "\n  ")
	return fmt.Sprintf("%s:\n  %s", e.path, text)
}

func (e *configError) Unwrap() error { return e.err }

// loadConfig reads a configuration file and reports everything that is wrong with it at once: a key that does not
// exist, a value of the wrong type, a variable that is not set, a value that is out of range.
func loadConfig(path string) (config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return config{}, fmt.Errorf("%w; name the configuration with -c, conf.toml.example shows one", err)
	}
	c, err := parseConfig(string(text))
	if err != nil {
		return config{}, &configError{path, err}
	}
	return c, nil
}

func parseConfig(text string) (config, error) {
	var raw map[string]any
	if _, err := toml.Decode(text, &raw); err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			return config{}, errors.New(strings.TrimSpace(parse.ErrorWithUsage()))
		}
		return config{}, err
	}
	var problems []error
	expand("", raw, func(key, name string) {
		problems = append(problems, fmt.Errorf("%s: the environment has no variable %s", key, name))
	})

	c := defaultConfig()
	// Each mapping starts from the defaults too, so they are decoded one by one.
	mappings := tables(raw, "mapping", &problems)
	problems = append(problems, decode("", raw, &c)...)
	for i, table := range mappings {
		m := mapping.Default()
		path := fmt.Sprintf("mapping[%d]", i)
		if name, ok := table["name"].(string); ok && name != "" {
			path = fmt.Sprintf("mapping %q", name)
		}
		problems = append(problems, decode(path, table, &m)...)
		c.Mappings = append(c.Mappings, m)
	}
	if len(problems) == 0 {
		problems = append(problems, c.Validate())
	}
	return c, errors.Join(problems...)
}

// Validate reports all that is wrong with the values.
func (c *config) Validate() error {
	errs := []error{c.Proxy.Validate(), c.Redis.Validate(), c.MySQL.Validate(), c.Journal.Validate(), c.Log.Validate(),
		mapping.Validate(c.Mappings)}
	if len(c.Mappings) == 0 {
		errs = append(errs, errors.New("mapping: there is none; add a [[mapping]] with name, key and table"))
	}
	for _, m := range c.Mappings {
		if m.Overlaps(c.Journal.Prefix + ":") {
			errs = append(errs, fmt.Errorf("mapping %q: key: %q can match keyrow's own keys below %q; "+
				"choose another key or journal.prefix", m.Name, m.Key, c.Journal.Prefix+":"))
		}
	}
	return errors.Join(errs...)
}

// Validate reports all that is wrong with the section.
func (c logConfig) Validate() error {
	var errs []error
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Level) {
		errs = append(errs, fmt.Errorf("log.level: %q is not one of debug, info, warn, error", c.Level))
	}
	if !slices.Contains([]string{"auto", "console", "json"}, c.Format) {
		errs = append(errs, fmt.Errorf("log.format: %q is not one of auto, console, json", c.Format))
	}
	return errors.Join(errs...)
}

// tables takes an array of tables out of raw.
func tables(raw map[string]any, key string, problems *[]error) []map[string]any {
	value, ok := raw[key]
	if !ok {
		return nil
	}
	delete(raw, key)
	list, ok := value.([]map[string]any)
	if !ok {
		*problems = append(*problems, fmt.Errorf("%s: write [[%s]] with two brackets, one for each", key, key))
	}
	return list
}

// decode puts table into out, a pointer to a struct with toml tags, and reports what does not fit, by path.
func decode(path string, table map[string]any, out any) []error {
	var meta mapstructure.Metadata
	dec, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result: out, TagName: "toml", Metadata: &meta, DecodeHook: decodeDuration,
		MatchName: func(key, field string) bool { return key == field },
	})
	if err != nil {
		return []error{err}
	}
	var problems []error
	if err := dec.Decode(table); err != nil {
		for _, e := range flatten(err) {
			problems = append(problems, errors.New(join(path, strings.NewReplacer("'", "", "\n", " ").Replace(e.Error()), ": ")))
		}
	}
	slices.Sort(meta.Unused)
	for _, key := range meta.Unused {
		problems = append(problems, fmt.Errorf("%s: there is no such key", join(path, key, ": ")))
	}
	return problems
}

func join(path, rest, sep string) string {
	if path == "" {
		return rest
	}
	return path + sep + rest
}

// flatten lists the errors that were joined to one.
func flatten(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var list []error
		for _, e := range many.Unwrap() {
			list = append(list, flatten(e)...)
		}
		return list
	}
	if inner := errors.Unwrap(err); inner != nil {
		if _, ok := inner.(interface{ Unwrap() []error }); ok {
			return flatten(inner)
		}
	}
	return []error{err}
}

// decodeDuration reads durations as Go writes them, "10m" or "1.5s", and "0". A bare number has no unit, so it is
// refused.
func decodeDuration(from, to reflect.Type, value any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() {
		return value, nil
	}
	text, ok := value.(string)
	if !ok {
		return nil, fmt.Errorf(`%v has no unit; write a duration as text, like "10m" or "100ms"`, value)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf(`%q is not a duration; write one like "10m" or "100ms"`, text)
	}
	return d, nil
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// expand replaces ${NAME} in every string below value by the environment's NAME and calls missing for those that are
// not set. What a variable holds is not expanded again.
func expand(path string, value any, missing func(key, name string)) any {
	switch v := value.(type) {
	case string:
		return variable.ReplaceAllStringFunc(v, func(ref string) string {
			name := ref[2 : len(ref)-1]
			text, ok := os.LookupEnv(name)
			if !ok {
				missing(path, name)
			}
			return text
		})
	case map[string]any:
		for _, key := range sortedKeys(v) {
			v[key] = expand(join(path, key, "."), v[key], missing)
		}
	case []map[string]any:
		for i := range v {
			expand(fmt.Sprintf("%s[%d]", path, i), v[i], missing)
		}
	case []any:
		for i := range v {
			v[i] = expand(fmt.Sprintf("%s[%d]", path, i), v[i], missing)
		}
	}
	return value
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

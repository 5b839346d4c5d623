package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/rs/zerolog"

	"keyrow/admin"
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
	Admin    admin.Config          `toml:"admin"`
	Log      logConfig             `toml:"log"`
	Mappings []mapping.Config      `toml:"mapping"`
	Queries  []mapping.QueryConfig `toml:"query"`
}

// logConfig is the [log] section.
type logConfig struct {
	Level  string `toml:"level"`  // debug, info, warn or error
	Format string `toml:"format"` // auto, console or json
	// Slow is how long a command takes at least that KEYROW SLOW shows; 0: none.
	Slow     time.Duration `toml:"slow"`
	SlowKeep int           `toml:"slow_keep"` // how many of them are kept
}

// Defaults and limits of KEYROW SLOW; Redis has the same defaults.
const (
	defaultSlow     = 10 * time.Millisecond
	defaultSlowKeep = 128
	maxSlowKeep     = 10000 // they take some 50 MB at most
)

func defaultConfig() config {
	return config{
		Proxy:   proxy.DefaultConfig(),
		Redis:   backend.DefaultRedis(),
		MySQL:   backend.DefaultMySQL(),
		Journal: backend.DefaultJournal(),
		Admin:   admin.DefaultConfig(),
		Log:     logConfig{Level: "info", Format: "auto", Slow: defaultSlow, SlowKeep: defaultSlowKeep},
	}
}

// configError is a configuration that cannot be used: everything that is wrong with it.
type configError struct {
	path string // empty: err names the file
	err  error
}

func (e *configError) Error() string {
	if e.path == "" {
		return e.err.Error()
	}
	text := strings.ReplaceAll(e.err.Error(), "\n", "\n  ")
	return fmt.Sprintf("%s:\n  %s", e.path, text)
}

func (e *configError) Unwrap() error { return e.err }

// loadConfig reads a configuration file and reports everything that is wrong with it at once: a key that does not
// exist, a value of the wrong type, a variable that is not set, a value that is out of range.
func loadConfig(path string) (config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return config{}, &configError{"", fmt.Errorf("%w; name the configuration with -c, conf.toml.example shows one", err)}
	}
	c, err := parseConfig(string(text))
	if err != nil {
		return config{}, &configError{path, err}
	}
	return c, nil
}

func parseConfig(text string) (config, error) {
	c := defaultConfig()
	var raw map[string]any
	if _, err := toml.Decode(text, &raw); err != nil {
		return c, syntaxError(err, text)
	}
	var d decoder
	d.table("", raw, &c)
	problems := d.problems
	for _, err := range flatten(c.Validate()) {
		if !d.reported(err) {
			problems = append(problems, err)
		}
	}
	return c, errors.Join(problems...)
}

// flatten lists the errors that errors.Join made one of.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, e := range joined.Unwrap() {
		list = append(list, flatten(e)...)
	}
	return list
}

// Validate reports all that is wrong with the values.
func (c *config) Validate() error {
	errs := []error{c.Proxy.Validate(), c.Redis.Validate(), c.MySQL.Validate(), c.Journal.Validate(), c.Admin.Validate(), c.Log.Validate(),
		mapping.Validate(c.Mappings, c.Queries)}
	if len(c.Mappings)+len(c.Queries) == 0 {
		errs = append(errs, errors.New("mapping: there is none; add a [[mapping]] with name, key and table"))
	}
	prefix := c.Journal.Prefix + ":"
	own := func(section, name, key string) {
		errs = append(errs, fmt.Errorf("%s %q: key: %q can match keyrow's own keys below %q; choose another key or journal.prefix",
			section, name, key, prefix))
	}
	for _, m := range c.Mappings {
		if m.Overlaps(prefix) {
			own("mapping", m.Name, m.Key)
		}
	}
	for _, q := range c.Queries {
		if q.Overlaps(prefix) {
			own("query", q.Name, q.Key)
		}
	}
	return errors.Join(errs...)
}

// level is the level as zerolog has it.
func (c logConfig) level() zerolog.Level {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil {
		return zerolog.InfoLevel
	}
	return level
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
	if c.Slow < 0 {
		errs = append(errs, fmt.Errorf(`log.slow: %v is negative; "0" is for no command at all`, c.Slow))
	}
	if c.SlowKeep < 1 || c.SlowKeep > maxSlowKeep {
		errs = append(errs, fmt.Errorf("log.slow_keep: %d: must be from 1 to %d", c.SlowKeep, maxSlowKeep))
	}
	return errors.Join(errs...)
}

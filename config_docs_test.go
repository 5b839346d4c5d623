package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"keyrow/mapping"
)

// documented is what docs/configuration.md says of one key.
type documented struct{ section, name, value string }

var (
	configHeading = regexp.MustCompile(`^## \[+([a-z.]+)\]+$`)
	configRow     = regexp.MustCompile("^\\| `([a-z_]+)` \\| (?:`(.*?)`|required) \\| .+ \\|(?: .+)? \\|$")
)

// documentation reads the tables of docs/configuration.md. The value is TOML, or empty where a key is required.
func documentation(t *testing.T) (keys []documented) {
	t.Helper()
	text, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	section, in := "", false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "## ") {
			section, in = "", false
			if h := configHeading.FindStringSubmatch(line); h != nil {
				section, in = h[1], true
			}
			continue
		}
		if !in || !strings.HasPrefix(line, "| `") {
			continue
		}
		row := configRow.FindStringSubmatch(line)
		if row == nil {
			t.Errorf("[%s]: this is no row of a key, its default, what it is and when to change it:\n%s", section, line)
			continue
		}
		keys = append(keys, documented{section, row[1], row[2]})
	}
	return keys
}

// docs/configuration.md has every key there is and no other, each with its default.
func TestConfigurationIsDocumented(t *testing.T) {
	t.Parallel()
	defaults := defaultConfig()
	defaults.Mappings = []mapping.Config{mapping.Default()}
	defaults.Queries = []mapping.QueryConfig{mapping.DefaultQuery()}
	missing := map[string]reflect.Value{}
	for path, value := range settings("", reflect.ValueOf(defaults)) {
		missing[path] = value
	}
	for _, key := range documentation(t) {
		path := key.section + "." + key.name
		want, ok := missing[path]
		if !ok {
			t.Errorf("docs/configuration.md has the key %s, which does not exist or stands there twice", path)
			continue
		}
		delete(missing, path)
		if key.value == "" {
			if !want.IsZero() {
				t.Errorf("docs/configuration.md says that %s is required; its default is %v", path, want)
			}
			continue
		}
		var raw map[string]any
		if _, err := toml.Decode("value = "+key.value, &raw); err != nil {
			t.Errorf("%s: the default %s: %v", path, key.value, err)
			continue
		}
		var d decoder
		got := reflect.New(want.Type())
		d.value(path, raw["value"], got.Interface())
		for _, problem := range d.problems {
			t.Error(problem)
		}
		if !same(got.Elem(), want) {
			t.Errorf("docs/configuration.md says that the default of %s is %s; it is %v", path, key.value, want)
		}
	}
	for path, value := range missing {
		t.Errorf("docs/configuration.md does not say what %s is; its default is %v", path, value)
	}
}

// same reports whether two settings are equal; a list without elements is one whether it was made or not.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Slice, reflect.Map:
		return a.Len() == 0 && b.Len() == 0 || reflect.DeepEqual(a.Interface(), b.Interface())
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// settings are the keys of a configuration as keysOf names them, with their values.
func settings(prefix string, s reflect.Value) map[string]reflect.Value {
	all := map[string]reflect.Value{}
	for i := range s.NumField() {
		f := s.Field(i)
		path := prefix + s.Type().Field(i).Tag.Get("toml")
		if f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct {
			f = f.Index(0)
		}
		if f.Kind() != reflect.Struct {
			all[path] = f
			continue
		}
		for below, value := range settings(path+".", f) {
			all[below] = value
		}
	}
	return all
}

package harness

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// config makes a conf.toml of three layers: what the harness needs, then text, then set, which wins.
func config(needed map[string]any, text string, set map[string]string) ([]byte, error) {
	all := needed
	var given map[string]any
	if _, err := toml.Decode(text, &given); err != nil {
		return nil, fmt.Errorf("Options.Config: %w", err)
	}
	merge(all, given)
	for _, path := range slices.Sorted(maps.Keys(set)) {
		var v struct{ V any }
		if _, err := toml.Decode("V = "+set[path], &v); err != nil {
			v.V = set[path] // not TOML: 10ms, redis://…, a plain word
		}
		layer := map[string]any{}
		inner := layer
		names := strings.Split(path, ".")
		for _, name := range names[:len(names)-1] {
			next := map[string]any{}
			inner[name] = next
			inner = next
		}
		inner[names[len(names)-1]] = v.V
		merge(all, layer)
	}
	var b bytes.Buffer
	err := toml.NewEncoder(&b).Encode(all)
	return b.Bytes(), err
}

// merge puts layer over all; tables are merged, everything else is replaced.
func merge(all, layer map[string]any) {
	for name, v := range layer {
		below, ok1 := all[name].(map[string]any)
		above, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			merge(below, above)
		} else {
			all[name] = v
		}
	}
}

// setting looks up a dotted path of a decoded config.
func setting[T any](conf map[string]any, path string, fallback T) T {
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		conf, _ = conf[name].(map[string]any)
	}
	if v, ok := conf[names[len(names)-1]].(T); ok {
		return v
	}
	return fallback
}

package mapping

import (
	"strings"
	"testing"
)

// Whatever tables are called, their mappings go together and fit.
func TestProposeNames(t *testing.T) {
	id := notNull(typed("id", "int(11)"))
	for _, test := range []struct {
		tables string // separated by |
		names  string // of the mappings
		keys   string
	}{
		{"users|orders", "users|orders", "users:{id}|orders:{id}"},
		{"Users|users", "Users|users", "Users:{id}|users:{id}"},
		{"_x|x y|x_y|x-y|\x01|é|--", "_x|x_y|x_y-2|x-y|table|table-2|--", "_x:{id}|x y:{id}|x_y:{id}|x-y:{id}|\x01:{id}|é:{id}|--:{id}"},
		{"a:b|a:b:c|a_b_c|a", "a_b|a_b_c|a_b_c-2|a", "a:b:{id}|a_b_c:{id}|a_b_c-2:{id}|a-2:{id}"},
		{"a|a:b:c|a_b_c-2|a_b:c", "a|a_b_c|a_b_c-2|a_b_c-3", "a:{id}|a_b_c:{id}|a_b_c-2:{id}|a_b:c:{id}"},
		{"a|:|::", "a|table|table-2", "a:{id}|::{id}|__:{id}"},
		{"keyrow|keyrow:{0}:dirty|keyro|keyrows", "keyrow|keyrow__0__dirty|keyro|keyrows",
			"keyrow-2:{id}|keyrow_{{0}}_dirty:{id}|keyro:{id}|keyrows:{id}"},
		{strings.Repeat("é", 63) + "a|" + strings.Repeat("é", 63) + ":", "a|table",
			strings.Repeat("é", 63) + "a:{id}|" + strings.Repeat("é", 63) + "::{id}"},
		{strings.Repeat("x", 63) + ".|" + strings.Repeat("x", 63) + "a|" + strings.Repeat("x", 63) + "b", "|" +
			strings.Repeat("x", 63) + "a|" + strings.Repeat("x", 63) + "b",
			"|" + strings.Repeat("x", 63) + "a:{id}|" + strings.Repeat("x", 63) + "b:{id}"},
		{strings.Repeat("x", 63) + "é|" + strings.Repeat("x", 63) + "|" + strings.Repeat("x", 62) + ":",
			strings.Repeat("x", 63) + "|" + strings.Repeat("x", 62) + "-2|" + strings.Repeat("x", 62),
			strings.Repeat("x", 63) + "é:{id}|" + strings.Repeat("x", 63) + ":{id}|" + strings.Repeat("x", 62) + "::{id}"},
	} {
		tables := strings.Split(test.tables, "|")
		schema := make(Schema)
		for _, name := range tables {
			schema[name] = users(id)["users"]
		}
		var names, keys []string
		var configs []Config
		for _, p := range Propose(tables, schema, "keyrow:") {
			names = append(names, p.Config.Name)
			keys = append(keys, p.Config.Key)
			if p.Mapped() {
				configs = append(configs, p.Config)
			}
		}
		if got := strings.Join(names, "|"); got != test.names {
			t.Errorf("%q: names %q, want %q", test.tables, got, test.names)
		}
		if got := strings.Join(keys, "|"); got != test.keys {
			t.Errorf("%q: keys %q, want %q", test.tables, got, test.keys)
		}
		if err := Validate(configs, nil); err != nil {
			t.Errorf("%q: %v", test.tables, err)
		}
		set, findings := NewSet(configs, nil, schema)
		if set == nil {
			t.Errorf("%q: %v", test.tables, findings)
		}
		for _, c := range configs {
			if c.Overlaps("keyrow:") {
				t.Errorf("%q: %q overlaps keyrow's own keys", test.tables, c.Key)
			}
		}
	}
}

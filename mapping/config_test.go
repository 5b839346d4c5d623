package mapping

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	good := Default()
	good.Name, good.Key, good.Table = "user", "user:{id}", "users"
	if err := Validate([]Config{good}, nil); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		change func(c *Config)
		want   string
	}{
		{func(c *Config) { c.Name = "" }, `mapping[0]: name: missing`},
		{func(c *Config) { c.Name = "a b" }, `mapping "a b": name: want letters`},
		{func(c *Config) { c.Key = "user:{id" }, `mapping "user": key: offset 5: a { without }`},
		{func(c *Config) { c.Table = "" }, `mapping "user": table: missing`},
		{func(c *Config) { c.Table = "a.b.c" }, `mapping "user": table: "a.b.c" is neither`},
		{func(c *Config) { c.Table = "a." }, `mapping "user": table: "a." is neither`},
		{func(c *Config) { c.Value, c.Write = "string", "deny" }, `mapping "user": column: missing; name the one column`},
		{func(c *Config) { single(c); c.Columns = []string{"a"} }, `mapping "user": columns: value = "string" has one column and no fields`},
		{func(c *Config) { c.Value = "xml" }, `mapping "user": value: "xml" is unknown; use json or hash or string`},
		{func(c *Config) { c.Write = "around" }, `mapping "user": write: "around" is unknown; use behind or through or cache or deny`},
		{func(c *Config) { c.Write, c.OnAbsent = "through", "through" }, `mapping "user": on_absent: "through" is for write = "behind"`},
		{func(c *Config) { c.Write, c.Delete = "cache", "row" }, `mapping "user": delete: "row" deletes rows, and write = "cache" writes none`},
		{func(c *Config) { c.Delete = "" }, `mapping "user": delete: "" is unknown; use cache or row`},
		{func(c *Config) { c.Delete, c.Write = "row", "deny" }, `mapping "user": delete: "row" deletes rows`},
		{func(c *Config) { c.Column = "x" }, `mapping "user": column: only value = "string"`},
		{func(c *Config) { c.Columns = []string{"a", "", "a"} }, `mapping "user": columns: entry 2 is empty`},
		{func(c *Config) { c.Columns = []string{"a", "", "a"} }, `mapping "user": columns: "a" is listed twice`},
		{func(c *Config) { c.Fields = map[string]string{"a": ""} }, `mapping "user": fields: the field name ""`},
		{func(c *Config) { c.TTL = -1 }, `mapping "user": ttl: -1ns is out of range`},
		{func(c *Config) { c.TTL = time.Microsecond }, `mapping "user": ttl: 1µs is out of range`},
		{func(c *Config) { c.NegativeTTL = 101 * 365 * 24 * time.Hour }, `mapping "user": negative_ttl: `},
		{func(c *Config) { c.Stale = time.Microsecond }, `mapping "user": stale_while_error: 1µs is out of range`},
		{func(c *Config) { c.TTL, c.Stale = 0, time.Minute }, `mapping "user": stale_while_error: is the time after ttl, and ttl = "0" is without end`},
		{func(c *Config) { c.EarlyRefresh = -1 }, `mapping "user": early_refresh: -1 is not within 0 and 1000`},
		{func(c *Config) { c.EarlyRefresh = math.NaN() }, `mapping "user": early_refresh: NaN is not within 0 and 1000`},
		{func(c *Config) { c.TTL, c.EarlyRefresh = 0, 1 }, `mapping "user": early_refresh: is about the end of ttl, and ttl = "0" is without end`},
		{func(c *Config) { c.MaxSelects = -1 }, `mapping "user": max_selects: -1/s is out of range; want 0 for no limit`},
		{func(c *Config) { c.OnRedisDown = "redis" }, `mapping "user": on_redis_down: "redis" is unknown; use error or mysql`},
		{func(c *Config) { c.OnRedisDown = "mysql" }, `mapping "user": on_redis_down: "mysql" would answer with rows from before the last writes, ` +
			`which with write = "behind" may be in Redis only; use "error", or write = "deny"`},
		{func(c *Config) { c.Durability = "disk" }, `mapping "user": durability: "disk" is unknown; use redis or replicas`},
		{func(c *Config) { c.Durability = "replicas" }, `mapping "user": replicas: 0; say how many replicas have to have a write, 1 to 100`},
		{func(c *Config) { c.Replicas = 1 }, `mapping "user": replicas: is for durability = "replicas"; set that, or remove it`},
		{func(c *Config) { c.Durability, c.Replicas, c.Write = "replicas", 1, "through" }, `mapping "user": durability: "replicas" is about rows`},
		{func(c *Config) { c.ReplicasTimeout = 0 }, `mapping "user": replicas_timeout: 0s is out of range; want 1ms to 1h`},
	} {
		c := good
		test.change(&c)
		err := Validate([]Config{c}, nil)
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

func TestValidateReportsAll(t *testing.T) {
	a, b := Default(), Default()
	a.Name, a.Key, a.Table, a.Value = "a", "user:{id}", "", "set"
	b.Name, b.Key, b.Table = "a", "user:{x}:y", "t"
	err := Validate([]Config{a, b}, nil)
	want := []string{
		`mapping "a": table: missing; name the table, as table = "users"`,
		`mapping "a": value: "set" is unknown; use json or hash or string`,
		`mapping "a": name: used by an earlier mapping or query; choose another`,
		`mapping "a": key: "user:{x}:y" and the "user:{id}" of mapping "a" can both match the key "user:1:y"; make their literal text differ`,
	}
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
	}
}

func TestOverlaps(t *testing.T) {
	for _, test := range []struct {
		key, prefix string
		want        bool
	}{
		{"user:{id}", "keyrow:", false},
		{"keyrow:{id}", "keyrow:", true},
		{"key{id}", "keyrow:", true},
		{"keyrow:{{x{id}", "keyrow:", true},
		{"keyrowuser:{id}", "keyrow:", false},
	} {
		if c := (Config{Key: test.key}); c.Overlaps(test.prefix) != test.want {
			t.Errorf("%s %s: %v", test.key, test.prefix, !test.want)
		}
	}
}

package harness

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Settled waits until the journal of this prefix has no marks and no deadlines left, and then holds the parked keys
// against the ones given: none may be missing and none may be there besides.
func Settled(t testing.TB, r *redis.Client, prefix string, parked ...string) {
	t.Helper()
	ctx := context.Background()
	err := poll(Patience, func() error {
		left, err := pending(ctx, r, prefix)
		if err != nil {
			return fmt.Errorf("read the journal: %w", err)
		}
		if len(left) > 0 {
			return fmt.Errorf("the journal has not settled:\n%s", strings.Join(left, "\n"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	names, err := journalKeys(ctx, r, prefix, "parked")
	for _, name := range names {
		var found map[string]string
		if found, err = r.HGetAll(ctx, name).Result(); err != nil {
			break
		}
		for key, why := range found {
			got[key] = why
		}
	}
	if err != nil {
		t.Fatalf("read the parked keys: %v", err)
	}
	for _, key := range parked {
		if _, ok := got[key]; !ok {
			t.Errorf("%s is not parked", key)
		}
	}
	for key, why := range got {
		if !slices.Contains(parked, key) {
			t.Errorf("%s is parked: %s", key, why)
		}
	}
}

// look describes the marks in the journal in one step: a flush moves marks back and forth between the two sets.
var look = redis.NewScript(`
local left = {}
for _, kind in ipairs({'dirty', 'flushing'}) do
  for _, name in ipairs(redis.call('KEYS', ARGV[1] .. kind)) do
    left[#left + 1] = name .. ': ' .. redis.call('ZCARD', name) .. ' marks, ' ..
      table.concat(redis.call('ZRANGE', name, 0, 9), ' ')
  end
end
return left`)

// pending describes everything in the journal that a flush has still to deal with.
func pending(ctx context.Context, r *redis.Client, prefix string) ([]string, error) {
	return look.Run(ctx, r, nil, glob(prefix+":{")+"*"+glob("}:")).StringSlice()
}

// journalKeys lists the keys <prefix>:{p}:<kind> that exist.
func journalKeys(ctx context.Context, r *redis.Client, prefix, kind string) ([]string, error) {
	return scan(ctx, r, glob(prefix+":{")+"*"+glob("}:"+kind))
}

// scan lists the keys that match a pattern, each once.
func scan(ctx context.Context, r *redis.Client, pattern string) ([]string, error) {
	var keys []string
	for it := r.Scan(ctx, 0, pattern, 1000).Iterator(); ; {
		if !it.Next(ctx) {
			slices.Sort(keys)
			return slices.Compact(keys), it.Err()
		}
		keys = append(keys, it.Val())
	}
}

// glob escapes text for a Redis pattern.
func glob(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(text)
}

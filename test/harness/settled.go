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

// pending describes everything in the journal that a flush has still to deal with.
func pending(ctx context.Context, r *redis.Client, prefix string) ([]string, error) {
	var left []string
	for _, kind := range []string{"dirty", "flushing"} {
		names, err := journalKeys(ctx, r, prefix, kind)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			n, err := r.ZCard(ctx, name).Result()
			if err != nil {
				return nil, err
			}
			some, err := r.ZRange(ctx, name, 0, 9).Result()
			if err != nil {
				return nil, err
			}
			if n > 0 {
				left = append(left, fmt.Sprintf("%s: %d marks, %q …", name, n, some))
			}
		}
	}
	return left, nil
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

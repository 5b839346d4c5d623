package test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"keyrow/test/harness"
)

// Clients that SET at a time share transactions. That shows in nothing but their number: each reads what it wrote, one
// that Redis refuses a write is the only one that hears of it, and all rows arrive.
func TestSharedTransactions(t *testing.T) {
	t.Parallel()
	s, admin := vault(t)
	defer s.restOf(admin)
	ctx := context.Background()
	// A user who may write users, but no accounts: Redis refuses a transaction with one of them in it.
	rules := []any{"ACL", "SETUSER", "clerk", "on", ">clerk-password", "+@all", "~user:*", "~" + s.prefix + ":*"}
	if err := admin.Do(ctx, rules...).Err(); err != nil {
		t.Fatal(err)
	}
	const writers = 12
	writer := make([]*redis.Client, writers)
	for i := range writer {
		writer[i] = redis.NewClient(&redis.Options{Addr: s.Addr, Username: "clerk", Password: "clerk-password", PoolSize: 1})
		t.Cleanup(func() { writer[i].Close() })
	}

	writes, refused := 0, int64(0)
	before := transactions(t, admin)
	harness.Until(t, "transactions are shared, by refused writes too", func() bool {
		var denied atomic.Int64
		var clients errgroup.Group
		for i, c := range writer {
			clients.Go(func() error {
				for n := range 20 {
					if i == 0 && n%5 == 4 {
						err := c.Set(ctx, fmt.Sprint("acct:", n), `{"n":1,"twin":"x"}`, 0).Err()
						if !redis.HasErrorPrefix(err, "NOPERM") {
							return fmt.Errorf("SET without the right to: %w", err)
						}
						denied.Add(1)
						continue
					}
					key := fmt.Sprint("user:", i)
					want := fmt.Sprintf(`{"id":%d,"name":"%d","email":null,"age":18,"balance":0.00}`, i, n)
					pipe := c.Pipeline()
					set := pipe.Set(ctx, key, fmt.Sprintf(`{"name":"%d"}`, n), 0)
					got := pipe.Get(ctx, key)
					if _, err := pipe.Exec(ctx); err != nil || set.Val() != "OK" || got.Val() != want {
						return fmt.Errorf("writer %d read %q behind its SET of %q: %w", i, got.Val(), want, err)
					}
					if err := c.Set(ctx, key, want, 0).Err(); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := clients.Wait(); err != nil {
			t.Fatal(err)
		}
		refused += denied.Load()
		writes += writers*20*2 - int(denied.Load())
		return transactions(t, admin)-before < writes && refused > 0
	})
	for i := range writers {
		if got := admin.Exists(ctx, "acct:"+strconv.Itoa(i)).Val(); got != 0 {
			t.Errorf("acct:%d was written without the right to", i)
		}
	}
}

// Who may not use MSET, which keyrow makes of many SETs, writes as well as everybody else.
func TestSharedTransactionsWithoutMSET(t *testing.T) {
	t.Parallel()
	s, admin := vault(t)
	defer s.restOf(admin)
	ctx := context.Background()
	if err := admin.Do(ctx, "ACL", "SETUSER", "clerk", "on", ">clerk-password", "+@all", "-mset", "~*").Err(); err != nil {
		t.Fatal(err)
	}
	clerk := redis.NewClient(&redis.Options{Addr: s.Addr, Username: "clerk", Password: "clerk-password", PoolSize: 1})
	defer clerk.Close()
	for round := range 3 {
		pipe := clerk.Pipeline()
		for i := range 10 {
			pipe.Set(ctx, fmt.Sprint("user:", i), fmt.Sprintf(`{"name":"%d"}`, round), 0)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			t.Fatalf("SETs of a user who may not MSET: %v", err)
		}
	}
	stats := admin.Info(ctx, "commandstats").Val()
	if m := regexp.MustCompile(`cmdstat_mset:calls=0,.*rejected_calls=(\d+)`).FindStringSubmatch(stats); m == nil || m[1] != "1" {
		t.Errorf("MSET was to be refused once, Redis says %q", m)
	}
}

// transactions is how many Redis has begun.
func transactions(t testing.TB, r *redis.Client) int {
	t.Helper()
	stats := r.Info(context.Background(), "commandstats").Val()
	m := regexp.MustCompile(`cmdstat_multi:calls=(\d+)`).FindStringSubmatch(strings.ReplaceAll(stats, "\r", ""))
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

//go:build compat

package compat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

// TestGoRedis uses go-redis through keyrow, in RESP2 and in RESP3.
func TestGoRedis(t *testing.T) {
	t.Parallel()
	server := harness.StartRedis(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
	k := keyrowFor(t, harness.Options{Redis: server}, "behind")
	through := newRelay(t, k.Addr)
	for _, protocol := range []int{2, 3} {
		p := fmt.Sprintf("go%d:", protocol)
		open := func(t *testing.T, change func(*redis.Options)) *redis.Client {
			o := &redis.Options{
				Addr: through.addr, Protocol: protocol, Username: "app", Password: "secret", ClientName: "compat",
				ReadTimeout: harness.Patience, PoolSize: 20, ContextTimeoutEnabled: true,
			}
			if change != nil {
				change(o)
			}
			c := redis.NewClient(o)
			t.Cleanup(func() { c.Close() })
			return c
		}
		for _, check := range []struct {
			name string
			do   func(*testing.T, *redis.Client)
		}{
			{"basics", func(t *testing.T, c *redis.Client) { goBasics(t, c, p) }},
			{"transactions", func(t *testing.T, c *redis.Client) { goTransactions(t, c, p) }},
			{"subscriptions", func(t *testing.T, c *redis.Client) {
				goSubscriptions(t, c, p, through)
			}},
			{"blocking", func(t *testing.T, c *redis.Client) { goBlocking(t, c, p) }},
			{"databases", func(t *testing.T, c *redis.Client) {
				ctx := t.Context()
				other := open(t, func(o *redis.Options) { o.DB = 3 })
				ok(t, other.Set(ctx, p+"db", "three", 0).Err())
				if err := c.Get(ctx, p+"db").Err(); !errors.Is(err, redis.Nil) {
					t.Errorf("the key is in database 0 as well: %v", err)
				}
			}},
			{"killed", func(t *testing.T, c *redis.Client) {
				ctx := t.Context()
				ok(t, c.Set(ctx, p+"killed", "v", 0).Err())
				through.cut(false)
				same(t, c.Get(ctx, p+"killed").Val(), "v") // go-redis repeats by itself
			}},
			{"rows", func(t *testing.T, c *redis.Client) { goRows(t, c, 6000+100*protocol) }},
		} {
			t.Run(fmt.Sprintf("RESP%d/%s", protocol, check.name), func(t *testing.T) {
				check.do(t, open(t, nil))
			})
		}
	}
	k.Settled()
	k.Equal(harness.Rows{Pattern: "user:{id}", Table: "users"})
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func goBasics(t *testing.T, c *redis.Client, p string) {
	ctx := t.Context()
	same(t, c.Ping(ctx).Val(), "PONG")
	same(t, c.Set(ctx, p+"k", "v", 0).Val(), "OK")
	same(t, c.Get(ctx, p+"k").Val(), "v")
	if err := c.Get(ctx, p+"absent").Err(); !errors.Is(err, redis.Nil) {
		t.Errorf("an absent key: %v", err)
	}
	same(t, c.ClientGetName(ctx).Val(), "compat")
	ok(t, c.HSet(ctx, p+"h", "f", "v", "g", 2).Err())
	same(t, fmt.Sprint(c.HGetAll(ctx, p+"h").Val()), "map[f:v g:2]")
	ok(t, c.ZAdd(ctx, p+"z", redis.Z{Score: 1.5, Member: "a"}, redis.Z{Score: 2, Member: "b"}).Err())
	same(t, fmt.Sprint(c.ZRangeWithScores(ctx, p+"z", 0, -1).Val()), "[{1.5 a} {2 b}]")
	if err := c.LPush(ctx, p+"k", "x").Err(); err == nil || !strings.HasPrefix(err.Error(), "WRONGTYPE") {
		t.Errorf("LPUSH on a string: %v", err)
	}
	big := strings.Repeat("x", 3<<20)
	ok(t, c.Set(ctx, p+"big", big, 0).Err())
	same(t, c.Get(ctx, p+"big").Val() == big, true)
	for i := range 50 {
		ok(t, c.Set(ctx, fmt.Sprint(p, "scan:", i), i, 0).Err())
	}
	found := map[string]bool{}
	it := c.Scan(ctx, 0, p+"scan:*", 7).Iterator()
	for it.Next(ctx) {
		found[it.Val()] = true
	}
	same(t, len(found), 50)

	cmds, err := c.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for range 2000 {
			pipe.Incr(ctx, p+"n")
		}
		return nil
	})
	ok(t, err)
	same(t, cmds[1999].(*redis.IntCmd).Val(), 2000)

	script := redis.NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")
	for _, want := range []string{"3", "6"} {
		same(t, fmt.Sprint(script.Run(ctx, c, []string{p + "s"}, 3).Val()), want)
		ok(t, c.ScriptFlush(ctx).Err())
	}
}

func goTransactions(t *testing.T, c *redis.Client, p string) {
	ctx := t.Context()
	cmds, err := c.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, p+"t", 1, 0)
		pipe.Incr(ctx, p+"t")
		return nil
	})
	ok(t, err)
	same(t, cmds[1].(*redis.IntCmd).Val(), 2)

	add := func(tx *redis.Tx) error {
		n, err := tx.Get(ctx, p+"sum").Int()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		_, err = tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
			pipe.Set(ctx, p+"sum", n+1, 0)
			return nil
		})
		return err
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for done := 0; done < 25; {
				switch err := c.Watch(ctx, add, p+"sum"); {
				case err == nil:
					done++
				case !errors.Is(err, redis.TxFailedErr):
					t.Errorf("WATCH … EXEC: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	same(t, c.Get(ctx, p+"sum").Val(), "100")
}

func goSubscriptions(t *testing.T, c *redis.Client, p string, through *relay) {
	ctx := t.Context()
	sub := c.Subscribe(ctx, p+"ch")
	defer sub.Close()
	ok(t, sub.PSubscribe(ctx, p+"p*"))
	for range 2 {
		_, err := sub.Receive(ctx)
		ok(t, err)
	}
	same(t, c.Publish(ctx, p+"ch", "one").Val(), 1)
	m, err := sub.ReceiveMessage(ctx)
	ok(t, err)
	same(t, m.Payload, "one")
	ok(t, c.Publish(ctx, p+"px", "two").Err())
	m, err = sub.ReceiveMessage(ctx)
	ok(t, err)
	same(t, m.Pattern+m.Channel+m.Payload, p+"p*"+p+"px"+"two")
	ok(t, sub.Ping(ctx))
	_, err = sub.Receive(ctx)
	ok(t, err)

	through.cut(false)
	messages := sub.Channel()
	harness.Until(t, "it has subscribed again", func() bool { return c.Publish(ctx, p+"ch", "three").Val() > 0 })
	same(t, (<-messages).Payload, "three")
}

func goBlocking(t *testing.T, c *redis.Client, p string) {
	ctx := t.Context()
	popped := make(chan []string, 1)
	go func() { popped <- c.BLPop(ctx, 0, p+"l", p+"l2").Val() }()
	ok(t, c.RPush(ctx, p+"l2", "x").Err())
	same(t, slices.Equal(<-popped, []string{p + "l2", "x"}), true)

	ok(t, c.XGroupCreateMkStream(ctx, p+"x", "g", "0").Err())
	read := make(chan string, 1)
	go func() {
		v, err := c.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{p + "x", ">"}}).Result()
		read <- fmt.Sprint(v, err)
	}()
	id := c.XAdd(ctx, &redis.XAddArgs{Stream: p + "x", Values: []string{"f", "v"}}).Val()
	if got := <-read; !strings.Contains(got, id+" map[f:v]") {
		t.Errorf("XREADGROUP: %s", got)
	}
	same(t, c.XAck(ctx, p+"x", "g", id).Val(), 1)

	// A context that ends closes the connection; what is pushed next is not lost on it.
	short, cancel := context.WithCancel(ctx)
	gone := make(chan error, 1)
	go func() { gone <- c.BLPop(short, 0, p+"gone").Err() }()
	cancel()
	if err := <-gone; err == nil {
		t.Error("BLPOP on an empty list popped something")
	}
}

func goRows(t *testing.T, c *redis.Client, at int) {
	ctx := t.Context()
	key := func(i int) string { return fmt.Sprint("user:", at+i) }
	_, err := c.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range 20 {
			pipe.Set(ctx, key(i), fmt.Sprintf(`{"id":%d,"name":"go"}`, at+i), 0)
		}
		return nil
	})
	ok(t, err)
	same(t, c.Get(ctx, key(0)).Val(), fmt.Sprintf(`{"id":%d,"name":"go","age":null}`, at))
	same(t, fmt.Sprint(c.MGet(ctx, key(1), "user:999996").Val()), fmt.Sprintf(`[{"id":%d,"name":"go","age":null} <nil>]`, at+1))
	_, err = c.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, key(2), fmt.Sprintf(`{"id":%d,"name":"renamed","age":7}`, at+2), 0)
		return nil
	})
	ok(t, err)
	same(t, c.Get(ctx, key(2)).Val(), fmt.Sprintf(`{"id":%d,"name":"renamed","age":7}`, at+2))
	// The flush of a row that was just written touches its key, so that EXEC may have to be tried again, as ever.
	for err = redis.TxFailedErr; errors.Is(err, redis.TxFailedErr); {
		err = c.Watch(ctx, func(tx *redis.Tx) error {
			_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.Set(ctx, key(3), fmt.Sprintf(`{"id":%d,"name":"watched"}`, at+3), 0)
				return nil
			})
			return err
		}, key(3))
	}
	ok(t, err)
	if err := c.Set(ctx, key(0), "nonsense", 0).Err(); err == nil || !strings.Contains(err.Error(), "keyrow") {
		t.Errorf("nonsense: %v", err)
	}
	same(t, c.Del(ctx, key(0)).Val(), 1)
}

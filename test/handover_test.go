package test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

// handovers is how often a process hands over in TestHandOver: KEYROW_HANDOVERS, or a few times.
func handovers() int {
	if n, err := strconv.Atoi(os.Getenv("KEYROW_HANDOVERS")); err == nil {
		return n
	}
	if testing.Short() {
		return 2
	}
	return 4
}

// Restarts with hand-over under load: no command fails, though the clients repeat none; neither of those that keep their
// connections nor of those that open one for each batch. What is read is what was written last.
func TestHandOver(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	load := newSteady(t, s.Addr)
	for range handovers() {
		load.more(100)
		if code := s.HandOver().Wait(); code != 0 {
			t.Errorf("exit status %d of the process that handed over", code)
		}
	}
	load.more(100)
	load.stop()
	s.rest()
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// steady is load in which no command may fail.
type steady struct {
	t    *testing.T
	addr string
	done atomic.Int64 // commands
	quit chan struct{}
	wg   sync.WaitGroup
}

func newSteady(t *testing.T, addr string) *steady {
	l := &steady{t: t, addr: addr, quit: make(chan struct{})}
	options := redis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1, PoolSize: 3, ReadTimeout: harness.Patience, ClientName: "steady"}
	for i := range 2 {
		for kind, work := range []func(c *redis.Client, id int, n int64) error{l.writeAndRead, l.pipeline, l.transaction} {
			id := i*3 + kind
			l.wg.Go(func() {
				c := redis.NewClient(&options) // keeps its connections
				defer c.Close()
				l.run(func(n int64) error { return work(c, id, n) })
			})
			l.wg.Go(func() {
				l.run(func(n int64) error {
					c := redis.NewClient(&options) // for this batch
					defer c.Close()
					return work(c, 100+id, n)
				})
			})
		}
	}
	t.Cleanup(l.stop)
	return l
}

func (l *steady) run(batch func(n int64) error) {
	for n := int64(1); ; n++ {
		select {
		case <-l.quit:
			return
		default:
		}
		if err := batch(n); err != nil {
			l.t.Error(err)
			return
		}
	}
}

func (l *steady) stop() {
	select {
	case <-l.quit:
	default:
		close(l.quit)
	}
	l.wg.Wait()
}

// more waits until n further commands are answered.
func (l *steady) more(n int64) {
	l.t.Helper()
	n += l.done.Load()
	harness.Until(l.t, "more commands are answered", func() bool { return l.done.Load() >= n || l.t.Failed() })
}

func (l *steady) got(what string, v any, err error, want any) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if want != nil && v != want {
		return fmt.Errorf("%s: got %v, want %v", what, v, want)
	}
	l.done.Add(1)
	return nil
}

func (l *steady) writeAndRead(c *redis.Client, id int, n int64) error {
	ctx := context.Background()
	key, image := account(id, n)
	v, err := c.Set(ctx, key, image, 0).Result()
	if err = l.got("SET", v, err, "OK"); err != nil {
		return err
	}
	v, err = c.Get(ctx, key).Result()
	if err = l.got("GET", v, err, image); err != nil {
		return err
	}
	name, err := c.ClientGetName(ctx).Result()
	return l.got("CLIENT GETNAME", name, err, "steady")
}

func (l *steady) pipeline(c *redis.Client, id int, n int64) error {
	ctx := context.Background()
	key, image := account(id, n)
	var counts [20]*redis.IntCmd
	var get *redis.StringCmd
	_, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, key, image, 0)
		for i := range counts {
			counts[i] = p.Incr(ctx, fmt.Sprint("counter:", id))
		}
		get = p.Get(ctx, key)
		return nil
	})
	if err = l.got("a pipeline", nil, err, nil); err != nil {
		return err
	}
	for i := range counts { // each ran once
		if err = l.got("INCR", counts[i].Val(), nil, (n-1)*int64(len(counts))+int64(i)+1); err != nil {
			return err
		}
	}
	return l.got("GET", get.Val(), nil, image)
}

func (l *steady) transaction(c *redis.Client, id int, n int64) error {
	ctx := context.Background()
	key, image := account(id, n)
	counter := fmt.Sprint("counter:", id)
	return c.Watch(ctx, func(tx *redis.Tx) error {
		before, err := tx.Get(ctx, counter).Int64()
		if err != nil && err != redis.Nil {
			return err
		}
		if err = l.got("GET", before, nil, n-1); err != nil {
			return err
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, key, image, 0)
			p.Set(ctx, counter, n, 0)
			return nil
		})
		return l.got("EXEC", nil, err, nil)
	}, counter)
}

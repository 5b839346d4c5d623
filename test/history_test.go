package test

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
	"keyrow/test/history"
)

const (
	historyTime    = 5 * time.Second
	historyClients = 30
	historyKeys    = 2                      // of each mapping at a time
	historyRound   = 200 * time.Millisecond // after which others take their place
)

// rushed is what makes images of cells come and go in a moment.
var rushed = []string{
	"ttl = \"50ms\"", "ttl = \"20ms\"", "ttl = \"30ms\"\nstale_while_error = \"1m\"",
	"ttl = \"1s\"", "ttl = \"20ms\"\nstale_while_error = \"1m\"", "ttl = \"50ms\"",
}

// mix are operations and how often they are run.
var mix = []struct {
	what  string
	often int
}{{"read", 10}, {"SET", 3}, {"SET GET", 2}, {"HSET", 5}, {"DEL", 3}, {"invalidate", 2}, {"evict", 3}}

// evicted is a script that drops an image as Redis may at maxmemory: one that has a TTL.
var evicted = redis.NewScript(`return redis.call('PTTL', KEYS[1]) > 0 and redis.call('DEL', KEYS[1])`)

// Dozens of clients of two keyrow processes read, write and delete a few rows while their images are flushed, expire, are
// evicted and invalidated: what each of them saw of a key could have come from one register.
func TestHistory(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	some := make([]cell, len(cells))
	var operations [][]string // by cell
	for i, c := range cells {
		c.extra = rushed[i]
		some[i] = c
		var list []string
		for _, m := range mix {
			if m.what == "HSET" && c.value != "hash" || strings.HasPrefix(m.what, "SET") && c.value == "hash" {
				continue
			}
			list = append(list, slices.Repeat([]string{m.what}, m.often)...)
		}
		operations = append(operations, list)
	}
	s := newShop(t, harness.Options{Config: configOf(some), Set: map[string]string{"journal.partitions": "2", "journal.interval": "5ms"}})
	for _, c := range some {
		s.sql(c.create())
	}
	s.Start()
	other := s.second(nil)

	var log history.Recorder
	var last, failed atomic.Int64
	ctx, cancel := context.WithTimeout(t.Context(), historyTime)
	defer cancel()
	var wg sync.WaitGroup
	begun := time.Now()
	for client := range historyClients {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		addr := s.Addr
		if client%2 == 1 {
			addr = other.Addr
		}
		wg.Go(func() {
			keyrow := pool(t, addr)
			for ctx.Err() == nil {
				i := random.IntN(len(some))
				c, what := some[i], operations[i][random.IntN(len(operations[i]))]
				key := c.key(historyKeys*int(time.Since(begun)/historyRound) + random.IntN(historyKeys))
				n := strconv.FormatInt(last.Add(1), 10)
				op := history.Op{Client: client, Name: what, Call: log.Now()}
				var err error
				if what == "evict" {
					err = evicted.Run(context.Background(), s.Redis.Client(), []string{key}).Err()
					if errors.Is(err, redis.Nil) {
						err = nil
					}
				} else {
					op.Saw, op.Left, err = c.do(context.Background(), keyrow, nil, what, key, n)
				}
				op.Return = log.Now()
				if err != nil {
					failed.Add(1)
					if !refusal(err) {
						t.Errorf("%s of %s: %v", what, key, err)
					}
					op.Saw, op.Return = history.Any, history.Never
					if op.Left == history.Any {
						continue
					}
				}
				log.Add(key, op)
			}
		})
	}
	wg.Wait()
	s.Settled()
	ops := 0
	for _, c := range some {
		rows := map[string]string{}
		for _, row := range s.table("SELECT id, n FROM " + c.table()) {
			rows[c.table()+":"+row[0]] = row[1]
		}
		for _, key := range log.Keys() {
			if !strings.HasPrefix(key, c.table()+":") {
				continue
			}
			for client, k := range []*shop{s, other} {
				op := history.Op{Client: -1 - client, Name: "read at last", Call: log.Now()}
				var err error
				if op.Saw, op.Left, err = c.do(t.Context(), k.Client(), nil, "read", key, ""); err != nil {
					t.Fatal(err)
				}
				op.Return = log.Now()
				log.Add(key, op)
			}
			log.Add(key, history.Op{Client: -3, Name: "SELECT at last", Saw: cmp.Or(rows[key], history.None), Call: log.Now(), Return: log.Now()})
			ops += len(log.Ops(key))
			if err := history.Check(history.None, log.Ops(key)); err != nil {
				t.Errorf("seed %d, %s: %v", seed, key, err)
			}
		}
		s.Equal(c.rows())
	}
	t.Logf("%d operations, %d of them refused", ops, failed.Load())
	for _, name := range []string{"rejected_fills", "lease_waits", "negative_hits"} {
		t.Logf("%s: %d", name, s.info(name)+other.info(name))
	}
}

// refusal reports whether a command was answered with an error that is one of keyrow's rules and no surprise: others
// took the lease away too often.
func refusal(err error) bool { return strings.Contains(err.Error(), "lease of the key") }

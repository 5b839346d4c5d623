package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

func init() { redis.SetLogger(quiet{}) } // many tests are about connections that break

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// account is the key and the image of an account; the number stands in two columns, so that half a row would show.
func account(id int, n int64) (key, image string) {
	return fmt.Sprint("acct:", id), fmt.Sprintf(`{"id":%d,"n":%d,"twin":"%d"}`, id, n, n)
}

// noRow is the number of an account that does not exist.
const noRow = -1

// traffic is clients that write, delete and read accounts. Each account has one client, so what it may hold is known
// at any time: what the last acknowledged command made of it, or what a later one would, which was not acknowledged.
type traffic struct {
	t       testing.TB
	seed    uint64
	writers int
	rounds  int // starts so far
	last    atomic.Int64

	acked   atomic.Int64 // writes
	refused atomic.Int64 // commands that were answered with an error
	dbdown  atomic.Int64 // of these, with DBDOWN
	aborted atomic.Int64 // of these, transactions in which a command was answered so

	possible [][]int64 // by account; one writer's at a time

	quit chan struct{}
	wg   sync.WaitGroup
}

// newTraffic is for accounts 0 to n-1, all without a row.
func newTraffic(t testing.TB, writers, n int) *traffic {
	w := &traffic{t: t, seed: rand.Uint64(), writers: writers, possible: make([][]int64, n)}
	t.Logf("traffic with seed %d", w.seed)
	for i := range w.possible {
		w.possible[i] = []int64{noRow}
	}
	return w
}

// start lets the clients connect to addr and go on until stop. A client whose connection breaks ends.
func (w *traffic) start(addr string) {
	w.quit = make(chan struct{})
	w.rounds++
	for i := range w.writers {
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			c := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, MaxRetries: -1, DisableIdentity: true, PoolSize: 1, DialerRetries: 1,
				ReadTimeout: harness.Patience, WriteTimeout: harness.Patience})
			defer c.Close()
			w.write(c, i, rand.New(rand.NewPCG(w.seed, uint64(w.rounds*w.writers+i))))
		}()
	}
}

// stop ends the clients after the replies to their last commands.
func (w *traffic) stop() {
	close(w.quit)
	w.wg.Wait()
}

// more waits until n further writes are acknowledged.
func (w *traffic) more(n int64) {
	w.t.Helper()
	n += w.acked.Load()
	harness.Until(w.t, "more writes are acknowledged", func() bool { return w.acked.Load() >= n })
}

func (w *traffic) write(c *redis.Client, writer int, random *rand.Rand) {
	for {
		select {
		case <-w.quit:
			return
		default:
		}
		id := writer + w.writers*random.IntN(len(w.possible)/w.writers)
		n := w.last.Add(1)
		key, image := account(id, n)
		var err error
		switch random.IntN(16) {
		case 0, 1, 2:
			err = w.read(c, id)
		case 3, 4:
			err = w.one(c, id, noRow, "DEL", key)
		case 5, 6:
			err = w.one(c, id, n, "SET", key, image, "PXAT", "1") // gone from Redis as soon as it is in MySQL
		case 7, 8:
			err = w.known(id, n, func() error {
				_, err := c.TxPipelined(w.t.Context(), func(tx redis.Pipeliner) error {
					tx.Del(w.t.Context(), key)
					return tx.Set(w.t.Context(), key, image, 0).Err()
				})
				return err
			})
		default:
			err = w.one(c, id, n, "SET", key, image)
		}
		var reply redis.Error
		var failed *net.OpError
		switch {
		case err == nil:
		case errors.As(err, &failed) && failed.Op == "dial":
			return // keyrow is gone
		case errors.As(err, &reply):
			w.refused.Add(1)
			switch code, _, _ := strings.Cut(err.Error(), " "); code {
			case "DBDOWN":
				w.dbdown.Add(1)
			case "EXECABORT":
				w.aborted.Add(1)
			}
		default:
			// The connection was closed: keyrow is gone, or that of a transaction to Redis was lost. A new one shows.
		}
	}
}

// one runs a command that makes n of an account.
func (w *traffic) one(c *redis.Client, id int, n int64, args ...any) error {
	return w.known(id, n, func() error { return c.Do(w.t.Context(), args...).Err() })
}

// known keeps account of what a write that makes n of an account may have done.
func (w *traffic) known(id int, n int64, write func() error) error {
	w.possible[id] = append(w.possible[id], n)
	if err := write(); err != nil {
		return err
	}
	w.possible[id] = []int64{n}
	w.acked.Add(1)
	return nil
}

// read reads an account. What was answered once must not be taken back, so nothing earlier is possible from here on.
func (w *traffic) read(c *redis.Client, id int) error {
	key, _ := account(id, 0)
	got, err := c.Get(w.t.Context(), key).Result()
	n := int64(noRow)
	switch {
	case errors.Is(err, redis.Nil):
	case err != nil:
		return err
	default:
		text, _, _ := strings.Cut(strings.TrimPrefix(got, fmt.Sprintf(`{"id":%d,"n":`, id)), ",")
		n, err = strconv.ParseInt(text, 10, 64)
		if _, image := account(id, n); err != nil || image != got {
			w.t.Errorf("%s is answered %s", key, got)
			return nil
		}
	}
	i := slices.Index(w.possible[id], n)
	if i < 0 {
		w.t.Errorf("%s is answered %d (%d: no row); possible are %v", key, n, noRow, w.possible[id])
		return nil
	}
	w.possible[id] = w.possible[id][i:]
	return nil
}

// check holds the rows of the accounts against what is possible, once the clients are stopped and the journal is
// settled.
func (w *traffic) check(s *shop) {
	w.t.Helper()
	rows := map[string][2]string{}
	for _, row := range s.table("SELECT id, n, twin FROM accounts") {
		rows[row[0]] = [2]string{row[1], row[2]}
	}
	for id, possible := range w.possible {
		n, row := int64(noRow), rows[strconv.Itoa(id)]
		if row[0] != "" {
			var err error
			if n, err = strconv.ParseInt(row[0], 10, 64); err != nil || row[0] != row[1] {
				w.t.Errorf("account %d: the row is %q", id, row)
			}
		}
		if !slices.Contains(possible, n) {
			w.t.Errorf("account %d is %d in mysql (%d: no row); possible are %v", id, n, noRow, possible)
		}
	}
	w.t.Logf("%d writes acknowledged, %d commands refused, of these %d with DBDOWN and %d with EXECABORT",
		w.acked.Load(), w.refused.Load(), w.dbdown.Load(), w.aborted.Load())
}

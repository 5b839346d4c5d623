package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	partitions    = 4                      // journal.partitions
	interval      = 100 * time.Millisecond // journal.interval
	upsertClients = 16
	flushBacklog  = 100_000 // rows that wait to be flushed, scaled
	visibleRows   = 400     // that are waited for one by one, scaled
)

// upsert writes a row as an application without keyrow would.
const upsert = `INSERT INTO people (id, name, email, balance) VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE
	name = VALUES(name), email = VALUES(email), balance = VALUES(balance)`

// flush compares the rate at which a backlog of rows goes to MySQL with that of clients which write them one by one, and
// measures how long after a SET its row is in MySQL.
func flush(ctx context.Context, b *bench) error {
	db := b.mysql.DB(database)
	db.SetMaxOpenConns(upsertClients)
	db.SetMaxIdleConns(upsertClients)
	truncate := func(ctx context.Context) error {
		_, err := db.ExecContext(ctx, "TRUNCATE people")
		return err
	}
	backlog := b.scaled(flushBacklog)
	flushing := &target{name: "keyrow"}
	var letGo func() error
	flushing.before = func(ctx context.Context) (err error) {
		if flushing.proxy != nil {
			flushing.proxy.kill()
		}
		if err := truncate(ctx); err != nil {
			return err
		}
		if letGo, err = b.holdFlushes(ctx); err != nil {
			return err
		}
		if flushing.proxy, err = b.startKeyrow(ctx); err != nil {
			return err
		}
		return b.write(ctx, flushing.proxy, backlog)
	}
	flushing.run = func(ctx context.Context) (outcome, error) {
		start := time.Now()
		if err := letGo(); err != nil {
			return outcome{}, err
		}
		err := b.flushed(ctx, flushing.proxy, backlog)
		return outcome{Requests: backlog, PerSecond: float64(backlog) / time.Since(start).Seconds()}, err
	}
	upserting := &target{name: "upserts", before: truncate, run: func(ctx context.Context) (outcome, error) {
		return concurrently(ctx, upsertClients, 1<<30, b.span, func(ctx context.Context, i int) error {
			_, err := db.ExecContext(ctx, upsert, firstID+i, "Person "+strconv.Itoa(i), "person"+strconv.Itoa(i)+"@example.com", "12.34")
			return err
		})
	}}
	c := contest{Scenario: "flush", Cell: cell{Command: "set", Clients: upsertClients, Pipeline: 1}}
	if err := b.alternate(ctx, c, []*target{upserting, flushing}); err != nil {
		return err
	}
	if flushing.proxy == nil {
		return nil
	}
	defer flushing.proxy.kill()
	return b.visible(ctx, flushing.proxy)
}

// holdFlushes takes the locks that owners of partitions need, and returns what gives them back.
func (b *bench) holdFlushes(ctx context.Context) (letGo func() error, err error) {
	conn, err := b.mysql.DB(database).Conn(ctx)
	if err != nil {
		return nil, err
	}
	for p := range partitions {
		// Those of a keyrow that was killed are free as soon as MySQL has noticed that.
		var got int
		err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, 30)", fmt.Sprintf("keyrow:%d", p)).Scan(&got)
		if err == nil && got != 1 {
			err = fmt.Errorf("lock keyrow:%d of mysql: it has another owner", p)
		}
		if err != nil {
			conn.Close()
			return nil, err
		}
	}
	return func() error {
		defer conn.Close()
		_, err := conn.ExecContext(context.Background(), "SELECT RELEASE_ALL_LOCKS()")
		return err
	}, nil
}

// write sets rows 0 to n-1.
func (b *bench) write(ctx context.Context, k *process, n int) error {
	rdb := client(k.addr, 1)
	defer rdb.Close()
	pipe := rdb.Pipeline()
	for i := range n {
		pipe.Set(ctx, personKey(i), person(strconv.Itoa(i)), 0)
		if pipe.Len() == 100 || i == n-1 {
			if _, err := pipe.Exec(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// flushed waits until a keyrow has flushed so many rows since it was started.
func (b *bench) flushed(ctx context.Context, k *process, backlog int) error {
	rdb := client(k.addr, 1)
	defer rdb.Close()
	return until(ctx, func() (bool, error) {
		rows, err := flushedRows(ctx, rdb)
		return rows >= backlog, err
	})
}

// flushedRows is that line of KEYROW INFO.
func flushedRows(ctx context.Context, rdb *redis.Client) (int, error) {
	info, err := rdb.Do(ctx, "KEYROW", "INFO").Text()
	if err != nil {
		return 0, fmt.Errorf("KEYROW INFO: %w", err)
	}
	_, rest, _ := strings.Cut(info, "\nflushed_rows:")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		return 0, fmt.Errorf("KEYROW INFO: flushed_rows: %w", err)
	}
	return n, nil
}

// settled waits until the journal is empty.
func (b *bench) settled(ctx context.Context) error {
	b.progress.say("waiting for the flush of what was written")
	var marks []string
	for p := range partitions {
		marks = append(marks, fmt.Sprintf("keyrow:{%d}:dirty", p), fmt.Sprintf("keyrow:{%d}:flushing", p))
	}
	return until(ctx, func() (bool, error) {
		left, err := b.redis.Client().Exists(ctx, marks...).Result()
		return left == 0, err
	})
}

// visible measures the time from the reply to a SET until its row can be read in MySQL, in units of the interval at
// which keyrow flushes. Few clients write, so that it is not the rate of flushing that is measured again, and each at
// any moment of the interval, not just after the flush that brought its last row.
func (b *bench) visible(ctx context.Context, k *process) error {
	const clients = 8
	b.progress.say("flush: waiting for single rows")
	db := b.mysql.DB(database)
	rdb := client(k.addr, clients)
	defer rdb.Close()
	if _, err := db.ExecContext(ctx, "TRUNCATE people"); err != nil {
		return err
	}
	var mu sync.Mutex
	var took []float64
	_, err := concurrently(ctx, clients, b.scaled(visibleRows), time.Hour, func(ctx context.Context, i int) error {
		if err := rest(ctx, rand.N(2*interval)); err != nil {
			return err
		}
		if err := rdb.Set(ctx, personKey(i), person(strconv.Itoa(i)), 0).Err(); err != nil {
			return err
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(ctx, b.limit)
		defer cancel()
		err := until(ctx, func() (bool, error) {
			var n int
			err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM people WHERE id = ?", firstID+i).Scan(&n)
			return n == 1, err
		})
		mu.Lock()
		took = append(took, float64(time.Since(start))/float64(interval))
		mu.Unlock()
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for a row in mysql: %w", err)
	}
	b.report.Visible = &visibility{P50: percentile(took, 0.5), P99: percentile(took, 0.99)}
	return nil
}

// rest does nothing for a while, unless ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

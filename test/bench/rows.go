package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tidwall/redcon"
	"golang.org/x/sync/errgroup"

	"keyrow/test/harness"
)

// rowClients is how many clients write and read rows.
const rowClients = 50

// firstID is that of the first row: all have as many digits, so that a random number can be put behind a 1.
const firstID = 1_000_000_000_000

func personKey(i int) string { return "person:" + strconv.Itoa(firstID+i) }

// person is the value of a row, in which number is any text of at most twelve characters.
func person(number string) string {
	return `{"name":"Person ` + number + `","email":"person` + number + `@example.com","balance":12.34}`
}

// mappedSet compares writing rows, which is more work for Redis too, with writing the same values to plain keys in Redis:
// few rows that change often, and so many that hardly one changes again before it is in MySQL.
func mappedSet(ctx context.Context, b *bench) error {
	k, err := b.startKeyrow(ctx)
	if err != nil {
		return err
	}
	defer k.kill()
	// What was written before is flushed before anything else is measured: the flush of a run would slow down the next.
	for _, rows := range []int{1_000, 50_000} {
		for _, pipeline := range []int{1, 16} {
			plain := load{clients: rowClients, pipeline: pipeline, keys: rows}
			mapped := plain
			plain.args = []string{"SET", "plain:1" + random, person(random)}
			mapped.args = []string{"SET", "person:1" + random, person(random)}
			err := b.drive(ctx, contest{Scenario: "mapped-set", Cell: cell{"set", len(person(random)), rowClients, pipeline, rows}},
				[]*target{
					{name: "plain SET", load: plain, before: b.settled},
					{name: "keyrow", proxy: k, load: mapped, before: b.settled},
				})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// coldRows is how many rows there are to read, scaled, and stride how far apart in the table one read is from the next.
const (
	coldRows = 200_000
	stride   = 7919 // a prime, so that every row comes once
)

// coldRead compares reading rows that are not in Redis with reading them from MySQL, each by its primary key.
func coldRead(ctx context.Context, b *bench) error {
	db := b.mysql.DB(database)
	rows := b.scaled(coldRows)
	b.progress.say("filling the table")
	_, err := db.ExecContext(ctx, fmt.Sprintf(`INSERT INTO people SELECT %d + seq, CONCAT('Person ', seq),
		CONCAT('person', seq, '@example.com'), seq / 100 FROM seq_0_to_%d`, firstID, rows-1))
	if err != nil {
		return err
	}
	k, err := b.startKeyrow(ctx)
	if err != nil {
		return err
	}
	defer k.kill()
	readers := make(chan *reader, rowClients)
	for range rowClients {
		r, err := newReader(ctx, k.addr)
		if err != nil {
			return err
		}
		defer r.conn.Close()
		readers <- r
	}
	db.SetMaxOpenConns(rowClients)
	db.SetMaxIdleConns(rowClients)

	selects := func(ctx context.Context, i int) error {
		var id int64
		var name, balance string
		var email sql.NullString
		return db.QueryRowContext(ctx, "SELECT id, name, email, balance FROM people WHERE id = ?", firstID+i).
			Scan(&id, &name, &email, &balance)
	}
	gets := func(_ context.Context, i int) error {
		r := <-readers
		defer func() { readers <- r }()
		return r.get(personKey(i))
	}
	forget := func(ctx context.Context) error { return b.forget(ctx, rows) }
	read := func(one func(context.Context, int) error) func(context.Context) (outcome, error) {
		return func(ctx context.Context) (outcome, error) {
			return concurrently(ctx, rowClients, rows, b.span, func(ctx context.Context, i int) error {
				return one(ctx, i*stride%rows)
			})
		}
	}
	return b.alternate(ctx, contest{Scenario: "cold-read", Cell: cell{Command: "get", Clients: rowClients, Pipeline: 1}},
		[]*target{
			{name: "SELECT", run: read(selects)},
			{name: "keyrow", proxy: k, before: forget, run: read(gets)},
		})
}

// reader is a client that reads one key at a time, and costs the machine next to nothing besides: what a client's library
// costs would be measured with the server, and is another in every language.
type reader struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

func newReader(ctx context.Context, addr string) (*reader, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &reader{conn: conn, in: bufio.NewReader(conn)}, nil
}

// get reads a key that has a value.
func (r *reader) get(key string) error {
	r.out = redcon.AppendArray(r.out[:0], 2)
	r.out = redcon.AppendBulkString(r.out, "GET")
	r.out = redcon.AppendBulkString(r.out, key)
	if err := r.conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		return err
	}
	if _, err := r.conn.Write(r.out); err != nil {
		return err
	}
	head, err := r.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(string(head), "$")))
	if err != nil || n < 0 {
		return fmt.Errorf("GET %s is answered %q", key, head)
	}
	_, err = r.in.Discard(n + len("\r\n"))
	return err
}

// forget drops the images of rows 0 to n-1 that are in Redis.
func (b *bench) forget(ctx context.Context, n int) error {
	all := make([]string, n)
	for i := range all {
		all[i] = personKey(i)
	}
	for some := range slices.Chunk(all, 10_000) {
		if err := b.redis.Client().Unlink(ctx, some...).Err(); err != nil {
			return err
		}
	}
	return nil
}

// concurrently has clients call do with 0, 1, 2 and so on until span is over or limit reached, and says how many calls
// a second returned.
func concurrently(ctx context.Context, clients, limit int, span time.Duration, do func(context.Context, int) error) (outcome, error) {
	var next, done atomic.Int64
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range clients {
		g.Go(func() error {
			for time.Since(start) < span {
				i := int(next.Add(1)) - 1
				if i >= limit {
					return nil
				}
				if err := do(ctx, i); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	err := g.Wait()
	n := int(done.Load())
	return outcome{Requests: n, PerSecond: float64(n) / time.Since(start).Seconds()}, err
}

package test

import (
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"keyrow/mapping"
	"keyrow/test/harness"
)

var backlogTime = flag.Duration("backlog.time", 0, "for how long MySQL is down in TestLongOutage, with 5,000 writes a second "+
	"on 1,000,000 keys; 0: for 80,000 writes on 40,000 keys, however long they take. Give it a -timeout of some ten minutes more")

// backlog is clients that write accounts while MySQL is down.
type backlog struct {
	*shop
	last    []int64 // by account: what was acknowledged last, 0: nothing; each account has one client
	next    atomic.Int64
	pace    <-chan time.Time // a pipeline for each; nil: as fast as they go
	highest int64            // bytes of keyrow's memory seen since the outage began
}

const (
	backlogClients = 8
	backlogPipe    = 100
	backlogRate    = 5000 // writes a second, with -backlog.time
	backlogSpare   = 1000 // room in the journal beyond the keys; those of a flush that failed are in it twice
)

// MySQL is down for long under load. No write is refused or lost, keyrow's memory stays what it is, that of Redis grows
// with the keys and not with the writes, and at max_pending writes are refused and change nothing. Then MySQL comes back,
// and gets all of it.
func TestLongOutage(t *testing.T) {
	t.Parallel()
	keys, writes := 40_000, 80_000
	if *backlogTime > 0 {
		keys, writes = 1_000_000, int(backlogTime.Seconds())*backlogRate
	}
	s := openShop(t, harness.Options{MySQL: harness.StartMySQL(t), Lean: true,
		Set: map[string]string{"mysql.timeout": "1s", "journal.max_pending": strconv.Itoa(keys + backlogSpare)}})
	b := &backlog{shop: s, last: make([]int64, keys+backlogSpare)}
	b.next.Store(1_000_000_000) // all images are of one length
	if *backlogTime > 0 {
		tick := time.NewTicker(time.Second / (backlogRate / backlogPipe))
		defer tick.Stop()
		b.pace = tick.C
	}
	b.write(atRandom(keys/4, keys/10)) // keyrow has its buffers
	s.Settled()
	redis0, keyrow0 := b.memory()
	b.highest = keyrow0
	s.MySQL.Stop()
	b.write(inTurn(0, backlogSpare/2))
	harness.Until(t, "every owner has noticed", func() bool { return s.info("owned_partitions") == 0 })
	start := time.Now()

	b.write(inTurn(0, keys/2))
	half, _ := b.memory()
	b.write(inTurn(keys/2, keys))
	all, _ := b.memory()
	b.write(atRandom(writes-keys, keys))
	again, _ := b.memory()
	t.Logf("mysql was down for %.0f s: %d writes of %d keys; redis took %d bytes a key; keyrow had %d MiB before and %d MiB at most",
		time.Since(start).Seconds(), writes, keys, (again-redis0)/int64(keys), keyrow0>>20, b.highest>>20)
	if b.highest > keyrow0+48<<20 {
		t.Errorf("keyrow grew from %d to %d MiB", keyrow0>>20, b.highest>>20)
	}
	// Twice the keys take twice the memory, but for hash tables, which double. Another write of each takes nothing.
	if first, second := half-redis0, all-half; second > 2*first || first > 2*second {
		t.Errorf("one half of the keys took %d bytes of redis, the other half %d", first, second)
	}
	if grew := again - all; grew > (all-redis0)/20 {
		t.Errorf("writing the same keys again took %d bytes of redis, writing them %d", grew, all-redis0)
	}
	b.fill(keys)

	s.MySQL.Restart()
	start = time.Now()
	for left := s.info("pending"); left > 0; left = s.info("pending") {
		harness.Until(t, "more is flushed", func() bool { return s.info("pending") < left })
	}
	took := time.Since(start)
	s.Settled()
	t.Logf("%d rows were written within %.1f s of mysql's return, %.0f a second", keys, took.Seconds(), float64(keys)/took.Seconds())
	b.check()
	if n := s.info("lost"); n != 0 {
		t.Errorf("%d writes are counted as lost", n)
	}
}

// memory is what Redis has in use and keyrow has resident, in bytes.
func (b *backlog) memory() (redis, keyrow int64) {
	b.t.Helper()
	for line := range strings.Lines(fmt.Sprint(b.Redis.Do("INFO", "memory"))) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory_dataset:"); ok {
			redis, _ = strconv.ParseInt(n, 10, 64)
		}
	}
	return redis, memory(b.t, b.PID(), "VmRSS")
}

// inTurn is the accounts of one client from one number to another.
func inTurn(from, to int) func(client int) iter.Seq[int] {
	return func(client int) iter.Seq[int] {
		return func(yield func(int) bool) {
			for id := from; id < to; id++ {
				if id%backlogClients == client && !yield(id) {
					return
				}
			}
		}
	}
}

// atRandom is as many accounts of one client at random as make n for all clients.
func atRandom(n, keys int) func(client int) iter.Seq[int] {
	return func(client int) iter.Seq[int] {
		return func(yield func(int) bool) {
			for range n / backlogClients {
				if !yield(rand.IntN(keys/backlogClients)*backlogClients + client) {
					return
				}
			}
		}
	}
}

// write has the clients write accounts, and returns once all of it is acknowledged.
func (b *backlog) write(ids func(client int) iter.Seq[int]) {
	b.t.Helper()
	var clients errgroup.Group
	for c := range backlogClients {
		clients.Go(func() error { return b.client(c, ids(c)) })
	}
	if err := clients.Wait(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *backlog) client(number int, ids iter.Seq[int]) error {
	c := redis.NewClient(&redis.Options{Addr: b.Addr, Protocol: 2, MaxRetries: -1, DisableIdentity: true, PoolSize: 1,
		ReadTimeout: harness.Patience, WriteTimeout: harness.Patience})
	defer c.Close()
	pipe, written := c.Pipeline(), map[int]int64{}
	send := func() error {
		if b.pace != nil {
			<-b.pace
		}
		if _, err := pipe.Exec(b.t.Context()); err != nil {
			return fmt.Errorf("a write is answered %w", err)
		}
		for id, n := range written {
			b.last[id] = n
		}
		clear(written)
		if number == 0 {
			b.highest = max(b.highest, memory(b.t, b.PID(), "VmRSS"))
		}
		return nil
	}
	for id := range ids {
		n := b.next.Add(1)
		key, image := account(id, n)
		pipe.Do(b.t.Context(), "SET", key, image)
		if written[id] = n; pipe.Len() == backlogPipe {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

// fill writes accounts from first on until the journal is full, and then finds that nothing more is written.
func (b *backlog) fill(first int) {
	b.t.Helper()
	most := int64(len(b.last))
	harness.Until(b.t, "the journal is full", func() bool {
		for {
			n := b.next.Add(1)
			key, image := account(first, n)
			if got := b.show("SET", key, image); strings.HasPrefix(got, "-JOURNALFULL keyrow: ") {
				return b.marks() == most // and not merely taken for full, until the next count
			} else if got != "OK" {
				b.t.Fatal(got)
			}
			b.last[first] = n
			first++
		}
	})
	pending, image := account(0, 1)
	state := func() string { // not all of it, which may be a million keys
		return fmt.Sprint(b.Redis.Do("DBSIZE"), b.marks(), b.Redis.Do("GET", pending), b.Redis.Do("PTTL", pending))
	}
	before := state()
	for _, args := range [][]any{
		{"SET", "acct:-1", `{"n":1,"twin":"1"}`}, {"SET", pending, image}, {"SETEX", pending, 1, image}, {"MSET", "plain", "x", pending, image}, {"DEL", pending},
	} {
		b.refused([]string{"JOURNALFULL keyrow: ", "max_pending", "nothing was"}, args...)
	}
	p := dial(b.t, b.Addr)
	p.do("MULTI")
	p.do("SET", "plain", "x")
	p.do("SET", pending, image)
	if got := p.do("EXEC"); !strings.HasPrefix(got, "-EXECABORT") {
		b.t.Errorf("EXEC is answered %q", got)
	}
	if after := state(); after != before {
		b.t.Errorf("what was refused has changed something: %s, before %s", after, before)
	}
	_, image = account(0, b.last[0])
	b.want(image, "GET", pending)
	b.want("OK", "SET", "plain", "x")
}

// marks is how many marks there are in Redis.
func (b *backlog) marks() (n int64) {
	b.t.Helper()
	journal := mapping.Journal{Prefix: b.prefix, Partitions: 4}
	for p := range 4 {
		n += b.Redis.Do("ZCARD", string(journal.AppendDirty(nil, p))).(int64)
		n += b.Redis.Do("ZCARD", string(journal.AppendFlushing(nil, p))).(int64)
	}
	return n
}

// check holds every row against what was acknowledged last.
func (b *backlog) check() {
	b.t.Helper()
	rows, err := b.MySQL.DB(b.DB).QueryContext(b.t.Context(), "SELECT id, n, twin FROM accounts ORDER BY id")
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	there, wrong := 0, 0
	for ; rows.Next(); there++ {
		var id int
		var n, twin int64
		if err := rows.Scan(&id, &n, &twin); err != nil {
			b.t.Fatal(err)
		}
		if id != there || n != b.last[id] || twin != n {
			wrong++
		}
	}
	written := slices.Index(append(b.last, 0), 0)
	if err := rows.Err(); err != nil || there != written || wrong > 0 {
		b.t.Errorf("of %d rows there are %d, of which %d are wrong: %v", written, there, wrong, err)
	}
}

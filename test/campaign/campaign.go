package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyrow/test/harness"
	"keyrow/test/history"
)

const (
	clients     = 12
	keysEach    = 60                    // of each kind, in a round
	keysWanted  = 6                     // of these, by half of all operations
	processes   = 3                     // of keyrow, at most
	strikes     = 14                    // in a round, each of which kills one process or two
	mostBetween = 250                   // writes acknowledged between two kills
	mostOutage  = 60 * time.Millisecond // of a server
)

// campaign is what all rounds share: the servers, and what was counted.
type campaign struct {
	t     testing.TB
	seed  uint64
	redis *harness.Redis
	mysql *harness.MySQL
	db    string
	fleet []*harness.Keyrow
	tell  func(c *campaign) // called after every kill

	kills                                      kills
	operations, acknowledged, refused, unknown atomic.Int64
	keys, lost                                 int // checked, and of these such as nothing explains
}

// kills are how often what was killed.
type kills struct{ keyrow, redis, mysql int }

func (k kills) all() int { return k.keyrow + k.redis + k.mysql }

// newCampaign starts Redis and MySQL.
func newCampaign(t testing.TB, seed uint64) *campaign {
	c := &campaign{t: t, seed: seed, db: "campaign", tell: func(*campaign) {}}
	c.redis = harness.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	c.mysql = harness.StartMySQL(t)
	c.mysql.DB(c.db)
	var config strings.Builder
	for _, k := range kinds {
		c.mysql.Exec(c.db, k.create())
		config.WriteString(k.config())
	}
	for range processes {
		c.fleet = append(c.fleet, harness.NewKeyrow(t, harness.Options{Redis: c.redis, MySQL: c.mysql, DB: c.db, Lean: true,
			Config: config.String(), Set: map[string]string{"journal.batch": "16", "journal.session_timeout": "1s", "mysql.timeout": "1s"}}))
	}
	return c
}

// round is some kills with the same processes of keyrow, on keys that are the round's own. What it does follows from the
// seed and its number.
type round struct {
	c      *campaign
	number int
	random *rand.Rand
	fleet  []*harness.Keyrow
	doors  *doors
	log    history.Recorder

	mu     sync.Mutex
	failed bool                // guarded by mu
	notes  map[string][]string // guarded by mu; of keys
}

// fail says that something is wrong, from any goroutine.
func (r *round) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
	r.c.t.Errorf("seed %d, round %d: "+format, append([]any{r.c.seed, r.number}, args...)...)
}

// round kills some processes, and then looks whether anything was lost. It reports whether all was well.
func (c *campaign) round(number int) bool {
	c.t.Helper()
	r := &round{c: c, number: number, random: rand.New(rand.NewPCG(c.seed, uint64(number)<<32)), doors: newDoors(), notes: make(map[string][]string)}
	r.fleet = c.fleet[:1+r.random.IntN(processes)]
	for _, k := range r.fleet {
		k.Start()
	}
	r.admit()
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() { r.client(client) })
	}
	for range strikes {
		r.wait(1 + r.random.Int64N(mostBetween))
		r.strike()
		c.tell(c)
	}
	r.wait(mostBetween)
	r.doors.close()
	wg.Wait()
	r.judge()
	for _, k := range r.fleet {
		k.Kill()
	}
	return !r.failed
}

// wait waits until n further writes are acknowledged.
func (r *round) wait(n int64) {
	r.c.t.Helper()
	n += r.c.acknowledged.Load()
	harness.Until(r.c.t, "more writes are acknowledged", func() bool { return r.c.acknowledged.Load() >= n })
}

// admit lets clients in to all processes but these.
func (r *round) admit(but ...*harness.Keyrow) {
	var open []string
	for _, k := range r.fleet {
		if len(but) == 0 || but[0] != k {
			open = append(open, k.Addr)
		}
	}
	r.doors.set(open)
}

// strike kills somebody, who comes back. Sometimes a server and a keyrow go at once.
func (r *round) strike() {
	victim := r.random.IntN(20)
	k := r.fleet[r.random.IntN(len(r.fleet))]
	outage := time.Duration(r.random.Int64N(int64(mostOutage)))
	both := r.random.IntN(4) == 0
	c := r.c
	if victim < 15 || both {
		r.admit(k)
		k.Kill()
		c.kills.keyrow++
		defer func() {
			k.Start()
			r.admit()
		}()
	}
	switch {
	case victim < 15:
	case victim < 18:
		c.redis.Kill()
		c.kills.redis++
		time.Sleep(outage)
		c.redis.Restart()
	default:
		c.mysql.Kill()
		c.kills.mysql++
		time.Sleep(outage)
		c.mysql.Restart()
	}
}

// judge waits until the journal has drained, and holds every row against what its clients know.
func (r *round) judge() {
	c := r.c
	r.fleet[0].Settled()
	rows := make([]harness.Rows, len(kinds))
	for i, k := range kinds {
		rows[i] = k.rows()
		numbers := r.numbers(k)
		for id := range keysEach {
			key := k.key(r.number*keysEach + id)
			ops := r.log.Ops(key)
			if len(ops) == 0 {
				continue
			}
			c.keys++
			now := r.log.Now()
			ops = append(ops, history.Op{Client: -1, Name: "SELECT at last", Saw: cmp.Or(numbers[key], history.None), Call: now, Return: r.log.Now()})
			read := k.command("read", key, "").op
			err := harness.Wait(func() error { // it may not know yet that MySQL is back
				reply, err := r.fleet[0].Do(k.command("read", key, "").args...)
				if err == nil {
					read.Saw, err = k.number(reply)
				}
				return err
			})
			if err != nil {
				r.fail("read %s at last: %v", key, err)
				continue
			}
			read.Client, read.Call, read.Return = -1, r.log.Now(), r.log.Now()
			if err := history.Check(history.None, append(ops, read)); err != nil {
				c.lost++
				r.fail("%s: %v\n\t%s", key, err, strings.Join(r.notes[key], "\n\t"))
			}
		}
	}
	r.fleet[0].Equal(rows...)
	for _, k := range kinds {
		c.mysql.Exec(c.db, "TRUNCATE "+k.name)
	}
}

// numbers are what the rows of a kind hold, by key.
func (r *round) numbers(k kind) map[string]string {
	columns := "id, n, n"
	if k.twin() {
		columns = "id, n, twin"
	}
	found, err := r.c.mysql.DB(r.c.db).Query("SELECT " + columns + " FROM " + k.name)
	if err != nil {
		r.c.t.Fatal(err)
	}
	defer found.Close()
	numbers := make(map[string]string)
	for found.Next() {
		var id int
		var n, twin string
		if err := found.Scan(&id, &n, &twin); err != nil {
			r.c.t.Fatal(err)
		}
		if n != twin {
			r.fail("half a row: %s %d holds %s and %s", k.name, id, n, twin)
		}
		numbers[k.key(id)] = n
	}
	if err := found.Err(); err != nil {
		r.c.t.Fatal(err)
	}
	return numbers
}

func (c *campaign) String() string {
	return fmt.Sprintf("%d kills (%d of keyrow, %d of redis, %d of mysql), %d operations, %d writes acknowledged, "+
		"%d refused, %d of unknown outcome; %d keys checked, %d lost",
		c.kills.all(), c.kills.keyrow, c.kills.redis, c.kills.mysql, c.operations.Load(), c.acknowledged.Load(),
		c.refused.Load(), c.unknown.Load(), c.keys, c.lost)
}

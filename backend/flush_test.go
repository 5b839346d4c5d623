package backend

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
	"keyrow/test/harness"
)

func TestFlush(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	for id := range 20 {
		fl.account(id, id*10)
	}
	p := fl.start()
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts WHERE id < 5", "0,10,20,30,40")
	fl.want("SELECT COUNT(*) FROM accounts", "20")

	fl.account(3, 7)
	fl.remove("account:4")
	fl.remove("account:99") // no such row
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts WHERE id < 6", "0,10,20,7,50")
	fl.parked(nil)
	harness.Settled(t, fl.rdb, fl.cfg.Prefix)

	s := p.Snapshot()
	if s.Rows != 23 || s.Lost != 0 || s.Retries != 0 || s.NewlyParked != 0 || s.Deletes == 0 || s.Upserts == 0 {
		t.Errorf("snapshot %+v", s)
	}
	harness.Until(t, "nothing is pending", func() bool {
		s := p.Snapshot()
		return s.Pending == 0 && s.OldestAge == 0 && len(s.Owned) == fl.cfg.Partitions
	})
}

// What a key comes to when it changes before and after the take-over, by letters: w and v write, d deletes, m marks it
// as maybe changed.
func TestFlushAroundTakeOver(t *testing.T) {
	for _, test := range []struct{ before, after, want string }{
		{"w", "", "1"},
		{"d", "", ""},
		{"wd", "", ""},
		{"dw", "", "1"},
		{"wv", "", "2"},
		{"w", "v", "2"},
		{"w", "d", ""},
		{"d", "w", "1"},
		{"wd", "v", "2"},
		{"dw", "d", ""},
		{"d", "wd", ""},
		{"w", "dv", "2"},
		{"m", "", "0"},
		{"m", "d", ""},
		{"wm", "", "1"},
		{"md", "w", "1"},
	} {
		t.Run(test.before+"|"+test.after, func(t *testing.T) {
			t.Parallel()
			fl := newAccounts(t, flushSetup{})
			fl.mysql.Exec(fl.db, "INSERT INTO accounts VALUES (1, 0)")
			do := func(steps string) {
				for _, step := range steps {
					switch step {
					case 'w':
						fl.account(1, 1)
					case 'v':
						fl.account(1, 2)
					case 'd':
						fl.remove("account:1")
					case 'm':
						fl.mark("?", "account:1")
					}
				}
			}
			do(test.before)
			var once sync.Once
			p := fl.start(hooked(HookSwept, func() { once.Do(func() { do(test.after) }) }))
			fl.drained(p)
			harness.Settled(t, fl.rdb, fl.cfg.Prefix)
			fl.want("SELECT balance FROM accounts", test.want)
			fl.parked(nil)
		})
	}
}

func TestDecide(t *testing.T) {
	for flags := range 16 {
		if flags&7 == 0 {
			continue
		}
		for _, image := range []bool{false, true} {
			got := decide(flags, image)
			switch {
			case image && got != stepUpsert:
				t.Errorf("flags %b with an image: %d", flags, got)
			case !image && got == stepUpsert:
				t.Errorf("flags %b without an image: an upsert", flags)
			case got == stepDelete && flags&markedDeleted == 0:
				t.Errorf("flags %b: a deletion nobody asked for", flags)
			case got == stepLost && flags != markedWritten && flags != markedWritten|markedMaybe:
				t.Errorf("flags %b: lost", flags)
			}
		}
	}
}

// A written key whose image is gone is a loss of Redis, and must not become one of MySQL.
func TestFlushLostImage(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	fl.mysql.Exec(fl.db, "INSERT INTO accounts VALUES (1, 0)")
	fl.mark("+", "account:1")
	fl.account(2, 2)
	p := fl.start()
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts", "0,2")
	fl.parked(map[string]string{"account:1": `{"mark":"+","table":"` + "`accounts`" + `","code":0,"error":"the key was written,`})
	if s := p.Snapshot(); s.Lost != 1 {
		t.Errorf("snapshot %+v", s)
	}
	fl.account(1, 5) // written again, it lands
	fl.drained(p)
	fl.want("SELECT balance FROM accounts WHERE id = 1", "5")
	fl.parked(nil)
}

func TestFlushParksWhatItCannotRead(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	fl.write("gone:1", `{"id":1}`, -1) // its mapping was removed
	fl.write("account:01", `{"id":1,"balance":1}`, -1)
	fl.write("account:2", `nonsense`, -1)
	fl.rdb.RPush(t.Context(), "account:3", "x")
	fl.mark("+", "account:3")
	fl.remove("gone:2")
	fl.account(4, 4)
	p := fl.start()
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(id) FROM accounts", "4")
	fl.parked(map[string]string{
		"gone:1":     `"error":"no mapping matches`,
		"gone:2":     `{"mark":"-","table":"","code":0,"error":"no mapping matches`,
		"account:01": `names no row`,
		"account:2":  `the image is not one of a row`,
		"account:3":  `the key holds a list`,
	})
	for _, key := range []string{"gone:1", "account:2"} {
		if ttl := fl.rdb.PTTL(t.Context(), key).Val(); ttl != -1 {
			t.Errorf("the image of %s has a TTL of %v", key, ttl)
		}
	}
	if got := p.Snapshot().NewlyParked; got != 5 {
		t.Errorf("%d keys parked", got)
	}

	c := mapping.Default()
	c.Name, c.Key, c.Table = "back", "gone:{id}", "accounts"
	c.Columns = []string{"id", "balance"}
	fl.mysql.Exec(fl.db, "INSERT INTO accounts VALUES (2, 0)")
	fl.write("gone:1", `{"id":1,"balance":1}`, -1)
	// What was parked for want of a mapping is flushed once there is one.
	fl.use(accountsMapping(), c)
	harness.Until(t, "gone:2 is not parked any more", func() bool { return fl.entries()["gone:2"] == "" })
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(id ORDER BY id) FROM accounts", "1,4")
}

func TestParkedCountsTries(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	p := fl.start()
	for n := 1; n <= 3; n++ {
		fl.account(1, -n)
		fl.drained(p)
		fl.parked(map[string]string{"account:1": `,"tries":` + strconv.Itoa(n) + `}`})
	}
	fl.parked(map[string]string{"account:1": `{"mark":"+","table":"` + "`accounts`" + `","code":4025,"error":"CONSTRAINT`})
}

// Writes of one key between two sweeps are one write of its row.
func TestFlushCoalesces(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	const writes = 10_000
	p := fl.start()
	pipe := fl.rdb.Pipeline()
	for n := range writes {
		key, image := account(1, n)
		pipe.Set(t.Context(), key, image, 0)
		pipe.ZAddNX(t.Context(), fl.dirty(key), redis.Z{Score: float64(time.Now().UnixMilli()), Member: "+" + key})
		if n%100 == 99 {
			if _, err := pipe.Exec(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	fl.drained(p)
	fl.want("SELECT balance FROM accounts", strconv.Itoa(writes-1))
	s := p.Snapshot()
	if s.Upserts > s.Sweeps || s.Upserts > writes/4 {
		t.Errorf("%d writes made %d upserts in %d sweeps", writes, s.Upserts, s.Sweeps)
	}
}

// A script wrote an image over one that a client had written, and both wait: what it left out is left to MySQL, wherever the
// two marks are. If they are read together, an image that is not what a reader would make of the row goes, too.
func TestFlushOfScriptBehindWrite(t *testing.T) {
	note := mapping.Default()
	note.Name, note.Key, note.Table = "note", "note:{id}", "notes"
	for batch, gone := range map[int]int64{1: 1, 256: 2} {
		fl := newFlushing(t, flushSetup{
			tables:   "CREATE TABLE notes (id INT PRIMARY KEY, title VARCHAR(20), text VARCHAR(20)); INSERT INTO notes VALUES (1, 'old', 'old')",
			mappings: []mapping.Config{note},
			journal:  func(c *JournalConfig) { c.Batch, c.Partitions = batch, 1 },
		})
		for id, script := range []string{`{"title":"script"}`, `{"text":"script","title":"script"}`} {
			key := fmt.Sprintf("note:%d", id+1)
			fl.write(key, fmt.Sprintf(`{"id":%d,"title":"new","text":"new"}`, id+1), -1)
			fl.write(key, script, -1)
			fl.mark("?", key)
		}
		fl.drained(fl.start())
		fl.want("SELECT GROUP_CONCAT(title, ' ', COALESCE(text, 'NULL') ORDER BY id) FROM notes", "script NULL,script script")
		if n := 2 - fl.rdb.Exists(t.Context(), "note:1", "note:2").Val(); n < gone {
			t.Errorf("batches of %d: %d images of a script are gone, want %d", batch, n, gone)
		}
	}
}

func TestFlushArmsResidency(t *testing.T) {
	forever := accountsMapping()
	forever.Name, forever.Key, forever.TTL = "forever", "forever:{id}", 0
	loose := mapping.Default()
	loose.Name, loose.Key, loose.Table = "loose", "loose:{id}", "stamped"
	fl := newAccounts(t, flushSetup{
		tables:   "CREATE TABLE stamped (id INT PRIMARY KEY, at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))",
		mappings: []mapping.Config{forever, loose},
		journal:  func(c *JournalConfig) { c.Partitions = 1 },
	})
	later := time.Now().Add(time.Hour).UnixMilli()
	keys := map[string]int64{"account:1": -1, "account:2": later, "account:3": 0, "account:4": time.Now().UnixMilli() - 1,
		"account:5": -1, "forever:6": -1, "loose:7": -1}
	for key, deadline := range keys {
		_, id, _ := strings.Cut(key, ":")
		image := `{"id":` + id + `,"balance":1}`
		if strings.HasPrefix(key, "loose") {
			image = `{"id":` + id + `}`
		}
		fl.write(key, image, deadline)
		if err := fl.rdb.Set(t.Context(), string(fl.keys.AppendAux(nil, []byte(key))), "token", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	held := newGate()
	var once sync.Once
	p := fl.start(
		hooked(HookCommitted, func() {
			for key := range keys {
				if ttl := fl.rdb.PTTL(context.Background(), key).Val(); strings.HasPrefix(key, "account:5") && ttl != -1 {
					t.Errorf("%s has a TTL of %v before it is settled", key, ttl)
				}
			}
			// Written again before it is settled, it stays without one.
			once.Do(func() { fl.account(5, 2) })
		}),
		hooked(HookSwept, func() {
			if fl.rdb.Get(context.Background(), "account:5").Val() == `{"id":5,"balance":2}` {
				held.pass()
			}
		}),
	)
	<-held.reached
	if ttl := fl.rdb.PTTL(t.Context(), "account:5").Val(); ttl != -1 {
		t.Errorf("account:5 is dirty and has a TTL of %v", ttl)
	}
	close(held.open)
	fl.drained(p)
	harness.Settled(t, fl.rdb, fl.cfg.Prefix)

	ttl := func(key string, low, high time.Duration) {
		t.Helper()
		if got := fl.rdb.PTTL(t.Context(), key).Val(); got < low || got > high {
			t.Errorf("%s has a TTL of %v, want %v to %v", key, got, low, high)
		}
	}
	const none, gone = -1, -2
	ttl("account:1", 8*time.Minute, 11*time.Minute)
	ttl("account:2", 59*time.Minute, time.Hour)
	ttl("account:3", gone, gone)
	ttl("account:4", gone, gone)
	ttl("account:5", 8*time.Minute, 11*time.Minute)
	ttl("forever:6", none, none)
	ttl("loose:7", gone, gone)
	for _, key := range []string{"account:3", "account:4", "loose:7"} {
		ttl(string(fl.keys.AppendAux(nil, []byte(key))), gone, gone)
	}
	for q := range fl.cfg.Partitions {
		if n := fl.rdb.HLen(t.Context(), string(fl.keys.AppendExpire(nil, q))).Val(); n != 0 {
			t.Errorf("%d deadlines are left in partition %d", n, q)
		}
	}
	fl.want("SELECT COUNT(*) FROM accounts", "6")
	fl.want("SELECT at > NOW() - INTERVAL 1 HOUR FROM stamped", "1")
}

func TestDrainSaysWhatIsLeft(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	held := newGate()
	p := fl.start(hooked(HookSwept, held.pass))
	fl.account(1, 1)
	<-held.reached
	fl.account(1, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := p.Drain(ctx); n != -1 || err == nil {
		t.Errorf("drain without time: %d, %v", n, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 3*drainPoll)
	defer cancel()
	if n, err := p.Drain(ctx); n != 2 || err == nil {
		t.Errorf("drain: %d, %v", n, err)
	}
	close(held.open)
	fl.drained(p)

	p.stop()
	// Partitions are free at once, and another process drains what this one left.
	fl.account(3, 3)
	fl.drained(fl.start())
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts", "2,3")
}

// Marks of a process whose clock is ahead are drained too.
func TestDrainForeignClock(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	key, image := account(1, 1)
	fl.rdb.Set(t.Context(), key, image, 0)
	fl.rdb.ZAddNX(t.Context(), fl.dirty(key), redis.Z{Score: float64(time.Now().Add(time.Hour).UnixMilli()), Member: "+" + key})
	fl.drained(fl.start())
	fl.want("SELECT balance FROM accounts", "1")
}

func TestFlushAutoIncrementZero(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "counter", "counter:{id}", "counters"
	fl := newFlushing(t, flushSetup{
		tables:   "CREATE TABLE counters (id INT PRIMARY KEY AUTO_INCREMENT, n INT)",
		mappings: []mapping.Config{c},
	})
	fl.write("counter:0", `{"id":0,"n":1}`, -1)
	fl.write("counter:5", `{"id":5,"n":null}`, -1)
	fl.drained(fl.start())
	fl.want("SELECT GROUP_CONCAT(id, '=', COALESCE(n, 'NULL') ORDER BY id) FROM counters", "0=1,5=NULL")
}

// At maxmemory Redis refuses what may take memory; the flush is what gives it back.
func TestFlushAtMaxMemory(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	fl.account(1, 1)
	fl.account(2, -1) // to be parked
	p := fl.start(func(*Flusher) {
		if err := fl.rdb.ConfigSet(context.Background(), "maxmemory", "1").Err(); err != nil {
			t.Error(err)
		}
	})
	fl.drained(p)
	fl.want("SELECT COUNT(*) FROM accounts", "1")
	fl.parked(map[string]string{"account:2": "4025"})
}

// With a backlog the batches grow, and no mark is lost between the steps in which a large one is read and settled.
func TestFlushGrows(t *testing.T) {
	const n, batch = 6000, 100
	fl := newAccounts(t, flushSetup{journal: func(c *JournalConfig) { c.Partitions, c.Batch = 1, batch }})
	fl.writeAll(n, func(id int) (string, string) { return account(id, id) })
	for id := range 600 {
		fl.remove(fmt.Sprintf("account:%d", id*10)) // its other mark is far away from this one
	}
	p := fl.start()
	fl.drained(p)
	fl.want("SELECT COUNT(*) FROM accounts", strconv.Itoa(n-600))
	fl.parked(nil)
	if s := p.Snapshot(); s.Batches >= n/batch || s.Rows != n {
		t.Errorf("%d rows went in %d batches", s.Rows, s.Batches)
	}
}

// slowly has Redis take too long for more than so many bytes of a reply to MGET.
type slowly int

func (slowly) DialHook(next redis.DialHook) redis.DialHook { return next }

func (slowly) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (most slowly) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if images, ok := cmd.(*redis.SliceCmd); ok && cmd.Name() == "mget" {
			n := 0
			for _, image := range images.Val() {
				n += imageSize(image)
			}
			if n > int(most) {
				err = os.ErrDeadlineExceeded
				cmd.SetErr(err)
			}
		}
		return err
	}
}

// Images that Redis cannot return together within its timeout are read in smaller batches.
func TestFlushReadsLess(t *testing.T) {
	doc := mapping.Default()
	doc.Name, doc.Key, doc.Table = "doc", "doc:{id}", "docs"
	fl := newFlushing(t, flushSetup{
		tables:   "CREATE TABLE docs (id INT PRIMARY KEY, text LONGTEXT)",
		mappings: []mapping.Config{doc},
		journal:  func(c *JournalConfig) { c.Partitions = 1 },
	})
	const docs, size = 40, 100 << 10
	fl.rdb.AddHook(slowly(16 * size))
	for id := range docs {
		fl.write(fmt.Sprintf("doc:%d", id), fmt.Sprintf(`{"id":%d,"text":%q}`, id, strings.Repeat("x", size-100)), -1)
	}
	fl.drained(fl.start())
	fl.want("SELECT COUNT(*) FROM docs", strconv.Itoa(docs))
}

// What the next batch has depends on how the last one went.
func TestNextSize(t *testing.T) {
	o := &owner{f: &Flusher{journal: &Journal{cfg: JournalConfig{Batch: 100}}}, waiting: make(map[string]*waiting)}
	locked := &item{key: "locked", end: endDefer}
	o.postpone(locked, time.Now(), errLockWait)
	for _, test := range []struct {
		what      string
		size, got int
		took      time.Duration
		locked    bool
		want      int
	}{
		{"a backlog", 100, 100, growBelow / 2, false, 200},
		{"the end of growth", 100 * maxGrowth, 100 * maxGrowth, growBelow / 2, false, 100 * maxGrowth},
		{"no backlog", 200, 20, growBelow / 2, false, 200},
		{"not fast", 200, 200, growBelow * 3 / 2, false, 200},
		{"slow", 400, 400, 3 * growBelow, false, 200},
		{"slow, as configured", 100, 100, 3 * growBelow, false, 100},
		{"after a failure", 25, 25, 3 * growBelow, false, 50},
		{"a locked row", 25, 25, growBelow / 2, true, 25},
	} {
		items := make([]*item, test.got)
		for i := range items {
			items[i] = &item{end: endLanded}
		}
		if test.locked {
			items[0] = locked
		}
		o.size = test.size
		if got := o.nextSize(items, test.took); got != test.want {
			t.Errorf("%s: %d, want %d", test.what, got, test.want)
		}
	}
}

package backend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// flushing is a journal on real servers, and what a proxy would put into it.
type flushing struct {
	t     testing.TB
	redis *harness.Redis
	rdb   *redis.Client
	mysql *harness.MySQL
	db    string
	cfg   JournalConfig
	keys  mapping.Journal
	set   atomic.Pointer[mapping.Set]
}

type flushSetup struct {
	mysql    *harness.MySQL // default: the shared one
	redis    []string       // options of redis-server
	tables   string
	mappings []mapping.Config
	journal  func(*JournalConfig)
}

var prefixes atomic.Int64

func newFlushing(t testing.TB, s flushSetup) *flushing {
	t.Helper()
	if s.mysql == nil {
		s.mysql = harness.SharedMySQL(t)
	}
	fl := &flushing{t: t, mysql: s.mysql, db: s.mysql.NewDB(t), redis: harness.StartRedis(t, s.redis...)}
	fl.cfg = DefaultJournal()
	fl.cfg.Interval = 5 * time.Millisecond
	fl.cfg.SessionTimeout = time.Minute                     // tests that want sessions to end say so; a busy machine should not
	fl.cfg.Prefix = fmt.Sprintf("flush%d", prefixes.Add(1)) // locks are of the whole server
	if s.journal != nil {
		s.journal(&fl.cfg)
	}
	fl.keys = mapping.Journal{Prefix: fl.cfg.Prefix, Partitions: fl.cfg.Partitions}
	redisConfig := DefaultRedis()
	redisConfig.Addr = fl.redis.Addr
	var err error
	if fl.rdb, err = OpenRedis(redisConfig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fl.rdb.Close() })
	if s.tables != "" {
		fl.mysql.Exec(fl.db, s.tables)
	}
	fl.use(s.mappings...)
	return fl
}

// use puts other mappings in force.
func (fl *flushing) use(configs ...mapping.Config) {
	fl.t.Helper()
	db, err := OpenMySQL(MySQLConfig{DSN: fl.mysql.DSN(fl.db), MaxOpen: 2, Timeout: 30 * time.Second})
	if err != nil {
		fl.t.Fatal(err)
	}
	defer db.Close()
	var tables []string
	for _, c := range configs {
		tables = append(tables, c.Table)
	}
	schema, err := ReadSchema(fl.t.Context(), db, tables)
	if err != nil {
		fl.t.Fatal(err)
	}
	set, findings := mapping.NewSet(configs, nil, schema)
	if set == nil {
		fl.t.Fatal(findings)
	}
	fl.set.Store(set)
}

// process is a running flusher, as one process has it.
type process struct {
	*Flusher
	cancel context.CancelFunc
	ended  chan struct{}
}

// stop ends Run and waits for it.
func (p *process) stop() {
	p.cancel()
	<-p.ended
}

// start runs a flusher of the journal until the end of the test.
func (fl *flushing) start(options ...func(*Flusher)) *process {
	fl.t.Helper()
	db, err := OpenOwners(MySQLConfig{DSN: fl.mysql.DSN(fl.db), MaxOpen: 1, Timeout: time.Minute}, fl.cfg.SessionTimeout)
	if err != nil {
		fl.t.Fatal(err)
	}
	journal, err := OpenJournal(fl.t.Context(), fl.rdb, fl.cfg, zerolog.Nop())
	if err != nil {
		fl.t.Fatal(err)
	}
	f := NewFlusher(FlusherOptions{
		Journal: journal, Redis: fl.rdb, DB: db, Mappings: fl.set.Load,
		Log: zerolog.New(zerolog.NewTestWriter(fl.t)).Level(zerolog.WarnLevel),
	})
	for _, option := range options {
		option(f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{f, cancel, make(chan struct{})}
	go func() {
		defer close(p.ended)
		if err := f.Run(ctx); err != nil {
			fl.t.Error(err)
		}
		db.Close()
	}()
	fl.t.Cleanup(p.stop)
	return p
}

// drained waits until everything marked so far has landed or is parked.
func (fl *flushing) drained(p *process) {
	fl.t.Helper()
	ctx, cancel := context.WithTimeout(fl.t.Context(), harness.Patience)
	defer cancel()
	if n, err := p.Drain(ctx); n != 0 || err != nil {
		fl.t.Fatalf("drain: %d marks are left: %v", n, err)
	}
}

// hooked has f called whenever a flush comes to point.
func hooked(point string, f func()) func(*Flusher) {
	return func(fl *Flusher) {
		earlier := fl.hook
		fl.hook = func(p string) {
			earlier(p)
			if p == point {
				f()
			}
		}
	}
}

// gate is a hook that holds up the first who comes.
type gate struct {
	once          sync.Once
	reached, open chan struct{}
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

func (g *gate) pass() {
	g.once.Do(func() {
		close(g.reached)
		<-g.open
	})
}

func (fl *flushing) dirty(key string) string {
	return string(fl.keys.AppendDirty(nil, fl.keys.Partition([]byte(key))))
}

func (fl *flushing) part(key string) int { return fl.keys.Partition([]byte(key)) }

func (fl *flushing) exec(queue func(redis.Pipeliner)) {
	fl.t.Helper()
	pipe := fl.rdb.TxPipeline()
	queue(pipe)
	if _, err := pipe.Exec(context.Background()); err != nil {
		fl.t.Error(err)
	}
}

// write is a blind SET of the proxy, with a deadline in milliseconds, 0 to evict, or -1 for none.
func (fl *flushing) write(key, image string, deadline int64) {
	fl.t.Helper()
	ctx, now := context.Background(), float64(time.Now().UnixMilli())
	fl.exec(func(pipe redis.Pipeliner) {
		pipe.Set(ctx, key, image, 0)
		if deadline >= 0 {
			pipe.HSet(ctx, string(fl.keys.AppendExpire(nil, fl.part(key))), key, deadline)
		}
		pipe.ZAddNX(ctx, fl.dirty(key), redis.Z{Score: now, Member: "+" + key})
		pipe.Del(ctx, string(fl.keys.AppendAux(nil, []byte(key))))
	})
}

// remove is a DEL of the proxy with delete = "row".
func (fl *flushing) remove(key string) {
	fl.t.Helper()
	ctx, now := context.Background(), float64(time.Now().UnixMilli())
	fl.exec(func(pipe redis.Pipeliner) {
		pipe.Del(ctx, key, string(fl.keys.AppendAux(nil, []byte(key))))
		pipe.ZAddNX(ctx, fl.dirty(key), redis.Z{Score: now, Member: "-" + key})
	})
}

// mark adds a mark and nothing else.
func (fl *flushing) mark(sign, key string) {
	fl.t.Helper()
	if err := fl.rdb.ZAddNX(context.Background(), fl.dirty(key),
		redis.Z{Score: float64(time.Now().UnixMilli()), Member: sign + key}).Err(); err != nil {
		fl.t.Error(err)
	}
}

// want compares a value of MySQL.
func (fl *flushing) want(query, want string) {
	fl.t.Helper()
	if got := fl.mysql.Text(fl.db, query); got != want {
		fl.t.Errorf("%s: %q, want %q", query, got, want)
	}
}

// parked holds the parked keys against those wanted, each with a text that its entry contains.
func (fl *flushing) parked(want map[string]string) {
	fl.t.Helper()
	got := fl.entries()
	for key, text := range want {
		if !strings.Contains(got[key], text) {
			fl.t.Errorf("%s is parked as %q, want %q", key, got[key], text)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			fl.t.Errorf("%s is parked: %s", key, got[key])
		}
	}
}

func (fl *flushing) entries() map[string]string {
	fl.t.Helper()
	all := make(map[string]string)
	for p := range fl.cfg.Partitions {
		some, err := fl.rdb.HGetAll(context.Background(), string(fl.keys.AppendParked(nil, p))).Result()
		if err != nil {
			fl.t.Fatal(err)
		}
		maps.Copy(all, some)
	}
	return all
}

// accounts is a table whose rows need no care.
const accounts = `CREATE TABLE accounts (id INT PRIMARY KEY, balance INT NOT NULL, CHECK (balance >= 0))`

func accountsMapping() mapping.Config {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "account", "account:{id}", "accounts"
	return c
}

func account(id, balance int) (key, image string) {
	return fmt.Sprintf("account:%d", id), fmt.Sprintf(`{"id":%d,"balance":%d}`, id, balance)
}

func (fl *flushing) account(id, balance int) {
	fl.t.Helper()
	key, image := account(id, balance)
	fl.write(key, image, -1)
}

func newAccounts(t testing.TB, s flushSetup) *flushing {
	t.Helper()
	s.tables = accounts + ";" + s.tables
	s.mappings = append(s.mappings, accountsMapping())
	return newFlushing(t, s)
}

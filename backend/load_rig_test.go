package backend

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// loading is a Loader on real servers, with the mappings of a test.
type loading struct {
	*Loader
	t     *testing.T
	redis *harness.Redis
	rdb   *redis.Client
	mysql *harness.MySQL
	db    string
	set   *mapping.Set
	hooks sync.Map // point -> func(), run once
}

type loaderSetup struct {
	mysql    *harness.MySQL // default: the shared one
	redis    []string       // options of redis-server
	tables   string
	mappings []mapping.Config
	queries  []mapping.QueryConfig
	timeout  time.Duration // default 30s, so that no lease runs out on a slow machine
	scripts  bool          // leases are for the scripts alone
}

// eitherWay runs a test with leases that are held in commands, and with the scripts that do what those leave.
func eitherWay(t *testing.T, test func(t *testing.T, setup loaderSetup)) {
	t.Run("held", func(t *testing.T) { test(t, loaderSetup{}) })
	t.Run("scripts", func(t *testing.T) { test(t, loaderSetup{scripts: true}) })
}

func newLoading(t *testing.T, s loaderSetup) *loading {
	t.Helper()
	if s.mysql == nil {
		s.mysql = harness.SharedMySQL(t)
	}
	if s.timeout == 0 {
		s.timeout = 30 * time.Second
	}
	lg := &loading{t: t, mysql: s.mysql, db: s.mysql.NewDB(t), redis: harness.StartRedis(t, s.redis...)}
	lg.mysql.Exec(lg.db, s.tables)
	db := openMySQL(t, MySQLConfig{DSN: s.mysql.DSN(lg.db), MaxOpen: 8, Timeout: s.timeout})

	schema, err := ReadSchema(t.Context(), db, mapping.Tables(s.mappings, s.queries))
	if err == nil {
		err = ReadQueries(t.Context(), db, s.queries, schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	set, findings := mapping.NewSet(s.mappings, s.queries, schema)
	if set == nil {
		t.Fatal(findings)
	}
	lg.set = set
	lg.rdb = openRedis(t, lg.redis.Addr)
	lg.Loader = lg.another(db, s.timeout)
	lg.holds.denied.Store(s.scripts)
	return lg
}

// another is a Loader of the same mappings, as another process would have it. Only the first runs the hooks.
func (lg *loading) another(db *sql.DB, timeout time.Duration) *Loader {
	o := LoaderOptions{Redis: lg.rdb, DB: db, Journal: mapping.Journal{Prefix: "keyrow", Partitions: 4}, Timeout: timeout}
	if lg.Loader == nil {
		o.Hook = func(point string) {
			if f, ok := lg.hooks.LoadAndDelete(point); ok {
				f.(func())()
			}
		}
	}
	l := NewLoader(o)
	lg.t.Cleanup(l.Close)
	return l
}

// on has f run when a round next comes to point.
func (lg *loading) on(point string, f func()) { lg.hooks.Store(point, f) }

func openMySQL(t *testing.T, cfg MySQLConfig) *sql.DB {
	t.Helper()
	db, err := OpenMySQL(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func openRedis(t *testing.T, addr string) *redis.Client {
	t.Helper()
	cfg := DefaultRedis()
	cfg.Addr = addr
	rdb, err := OpenRedis(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rdb.Close() })
	if err := CheckRedis(t.Context(), rdb, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	return rdb
}

// answer is what one Load came to.
type answer struct {
	image []byte
	err   error
}

func (a answer) String() string {
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.image == nil:
		return "(nil)"
	}
	return string(a.image)
}

// start starts loading a key; the answer comes on the channel.
func (lg *loading) start(l *Loader, key string) <-chan answer {
	lg.t.Helper()
	m := lg.set.Match([]byte(key))
	if m == nil {
		lg.t.Errorf("%s is not mapped", key)
	}
	c := make(chan answer, 2) // a second answer is a bug, not a reason to hang
	l.Load(m, []byte(key), func(image []byte, _ bool, err error) { c <- answer{image, err} })
	return c
}

func (lg *loading) load(key string) answer {
	lg.t.Helper()
	return <-lg.start(lg.Loader, key)
}

// want checks what loading a key comes to.
func (lg *loading) want(key, want string) {
	lg.t.Helper()
	if got := lg.load(key); got.String() != want {
		lg.t.Errorf("load %s: %s, want %s", key, got, want)
	}
}

// write does to Redis what an acknowledged SET does.
func (lg *loading) write(key, image string) {
	p := lg.journal.Partition([]byte(key))
	_, err := lg.rdb.TxPipelined(context.Background(), func(tx redis.Pipeliner) error {
		tx.Set(context.Background(), key, image, 0)
		tx.ZAddNX(context.Background(), lg.sets[p].dirty, redis.Z{Score: 1, Member: "+" + key})
		tx.Del(context.Background(), lg.aux(key))
		return nil
	})
	if err != nil {
		lg.t.Error(err)
	}
}

// remove does to Redis what an acknowledged DEL of a row does.
func (lg *loading) remove(key string) {
	p := lg.journal.Partition([]byte(key))
	_, err := lg.rdb.TxPipelined(context.Background(), func(tx redis.Pipeliner) error {
		tx.Del(context.Background(), key, lg.aux(key))
		tx.ZAddNX(context.Background(), lg.sets[p].dirty, redis.Z{Score: 1, Member: "-" + key})
		return nil
	})
	if err != nil {
		lg.t.Error(err)
	}
}

func (lg *loading) aux(key string) string { return string(lg.journal.AppendAux(nil, []byte(key))) }

// inRedis checks the image that is stored, "" for none.
func (lg *loading) inRedis(key, want string) {
	lg.t.Helper()
	if got := lg.rdb.Get(context.Background(), key).Val(); got != want {
		lg.t.Errorf("redis has %q at %s, want %q", got, key, want)
	}
}

const usersTable = "CREATE TABLE users (id BIGINT PRIMARY KEY, name VARCHAR(50) NOT NULL);"

func usersMapping() mapping.Config {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "user", "user:{id}", "users"
	return c
}

func users(t *testing.T, s loaderSetup) *loading {
	t.Helper()
	s.tables = usersTable + "INSERT INTO users SELECT seq, CONCAT('n', seq) FROM seq_1_to_1000;" + s.tables
	s.mappings = append(s.mappings, usersMapping())
	return newLoading(t, s)
}

func user(id int) string { return fmt.Sprintf(`{"id":%d,"name":"n%d"}`, id, id) }

// alone keeps other rounds than the one that a hook is called in from beginning until resume is called. Its queue is that
// of the mapping of key.
func (lg *loading) alone(key string) (q *queue, resume func()) {
	lg.mu.Lock()
	q = lg.queues[lg.set.Match([]byte(key))]
	lg.mu.Unlock()
	for range cap(q.turns) - 1 {
		q.turns <- struct{}{}
	}
	return q, func() {
		for range cap(q.turns) - 1 {
			<-q.turns
		}
	}
}

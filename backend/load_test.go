package backend

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
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

func TestLoad(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.want("user:7", user(7))
	lg.inRedis("user:7", user(7))
	if ttl := lg.rdb.PTTL(t.Context(), "user:7").Val(); ttl < 8*time.Minute || ttl > 11*time.Minute {
		t.Errorf("ttl %v, want 10m within a tenth", ttl)
	}
	if n := lg.rdb.Exists(t.Context(), lg.aux("user:7")).Val(); n != 0 {
		t.Error("the lease is left over")
	}
	lg.want("user:7", user(7))
	lg.want("user:07", "(nil)")
	lg.want("user:99999", "(nil)")
	if s := lg.Stats(); s.Selects != 2 || s.Fills != 2 || s.Hits != 1 || s.Loads != 4 {
		t.Errorf("%+v", s)
	}
}

// However many ask for one key at a time, the row is read once.
func TestLoadOnce(t *testing.T) {
	lg := users(t, loaderSetup{})
	other := lg.another(lg.Loader.db, 30*time.Second) // a second process
	var answers []<-chan answer
	lg.on(HookGranted, func() {
		for range 999 {
			answers = append(answers, lg.start(lg.Loader, "user:1"))
		}
		answers = append(answers, lg.start(other, "user:1"))
	})
	lg.want("user:1", user(1))
	for _, a := range answers {
		if got := <-a; got.String() != user(1) {
			t.Fatalf("%v", got)
		}
	}
	if s := lg.Stats(); s.Selects != 1 || s.Loads != 1000 || s.Joined != 999 {
		t.Errorf("%+v", s)
	}
	if s := other.Stats(); s.Selects != 0 || s.Waits == 0 {
		t.Errorf("the other process: %+v", s)
	}
}

func TestLoadConcurrently(t *testing.T) {
	lg := users(t, loaderSetup{})
	var wg sync.WaitGroup
	var selected atomic.Int64
	for i := range 1000 {
		wg.Go(func() {
			if got := lg.load(fmt.Sprintf("user:%d", i%10+1)); got.String() != user(i%10+1) {
				t.Error(got)
			}
			selected.Add(1)
		})
	}
	wg.Wait()
	if s := lg.Stats(); s.Rows != 10 || s.Selects > 10 {
		t.Errorf("%+v", s)
	}
}

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

// Keys that are asked for while as many rounds are under way as may be go together in the next.
func TestLoadTogether(t *testing.T) {
	lg := users(t, loaderSetup{})
	var mu sync.Mutex
	var answers []<-chan answer
	start := func() {
		mu.Lock() // the next hook may be called before this returns
		defer mu.Unlock()
		answers = append(answers, lg.start(lg.Loader, fmt.Sprintf("user:%d", len(answers)+2)))
	}
	rounds, all := 0, make(chan struct{})
	var hold func()
	hold = func() {
		if rounds++; rounds < maxRounds {
			lg.on(HookGranted, hold)
			start() // in a round of its own
			<-all
			return
		}
		for range 200 {
			start()
		}
		close(all)
	}
	lg.on(HookGranted, hold)
	lg.want("user:1", user(1))
	for i, a := range answers {
		if got := <-a; got.String() != user(i+2) {
			t.Errorf("%v, want %s", got, user(i+2))
		}
	}
	if s := lg.Stats(); s.Selects != maxRounds+1 || s.Rows != maxRounds+200 {
		t.Errorf("%+v", s)
	}
}

// That there is no row is remembered for negative_ttl; a write ends it.
func TestLoadNoRow(t *testing.T) {
	brief := usersMapping()
	brief.Name, brief.Key, brief.NegativeTTL = "brief", "brief:{id}", 50*time.Millisecond
	never := usersMapping()
	never.Name, never.Key, never.NegativeTTL = "never", "never:{id}", 0
	lg := users(t, loaderSetup{mappings: []mapping.Config{brief, never}})
	selects := func() uint64 { return lg.Stats().Selects }

	for range 5 {
		lg.want("user:5000", "(nil)")
	}
	if n := selects(); n != 1 {
		t.Errorf("%d selects for five loads, want 1", n)
	}
	if got := lg.rdb.Get(t.Context(), lg.aux("user:5000")).Val(); got != mapping.NegativeEntry {
		t.Errorf("aux is %q", got)
	}

	lg.write("user:5000", user(5000))
	lg.want("user:5000", user(5000))

	lg.want("brief:5001", "(nil)")
	n := selects()
	harness.Until(t, "the negative entry runs out", func() bool {
		return lg.rdb.Exists(t.Context(), lg.aux("brief:5001")).Val() == 0
	})
	lg.mysql.Exec(lg.db, "INSERT INTO users VALUES (5001, 'n5001')")
	lg.want("brief:5001", user(5001))
	if selects() != n+1 {
		t.Errorf("%d selects after the negative entry ran out, want 1", selects()-n)
	}

	n = selects()
	lg.want("never:5002", "(nil)")
	lg.want("never:5002", "(nil)")
	if selects() != n+2 {
		t.Errorf("%d selects without negative entries, want 2", selects()-n)
	}
}

func TestLoadForEver(t *testing.T) {
	c := usersMapping()
	c.Name, c.Key, c.TTL = "kept", "kept:{id}", 0
	lg := users(t, loaderSetup{mappings: []mapping.Config{c}})
	lg.want("kept:1", user(1))
	if ttl := lg.rdb.PTTL(t.Context(), "kept:1").Val(); ttl != -1 {
		t.Errorf("ttl %v, want none", ttl)
	}
}

// A deleted row is gone at once, though MySQL has it until the flush: while its mark is dirty, being flushed, or parked.
func TestLoadDeleted(t *testing.T) {
	lg := users(t, loaderSetup{})
	sets := func(key string) journalSets { return lg.sets[lg.journal.Partition([]byte(key))] }
	lg.remove("user:1")
	lg.rdb.ZAdd(t.Context(), sets("user:2").flushing, redis.Z{Score: 1, Member: "-user:2"})
	lg.rdb.HSet(t.Context(), sets("user:3").parked, "user:3", `{"mark":"-","why":"1451"}`)
	lg.rdb.HSet(t.Context(), sets("user:4").parked, "user:4", `{"mark":"+","why":"1452"}`)
	lg.want("user:1", "(nil)")
	lg.want("user:2", "(nil)")
	lg.want("user:3", "(nil)")
	lg.want("user:4", user(4))
	if s := lg.Stats(); s.Gone != 3 {
		t.Errorf("%+v", s)
	}
}

// What was read from MySQL before a write never lands in Redis after it, and is not answered either.
func TestLoadLosesToWrite(t *testing.T) {
	tests := []struct {
		name   string
		change func(lg *loading)
		want   string
	}{
		{"write", func(lg *loading) { lg.write("user:1", `{"id":1,"name":"new"}`) }, `{"id":1,"name":"new"}`},
		{"delete", func(lg *loading) { lg.remove("user:1") }, "(nil)"},
		{"invalidation", func(lg *loading) {
			lg.mysql.Exec(lg.db, "UPDATE users SET name='sql' WHERE id=1")
			lg.rdb.Del(context.Background(), "user:1", lg.aux("user:1"))
		}, `{"id":1,"name":"sql"}`},
		{"write past keyrow", func(lg *loading) {
			lg.rdb.Set(context.Background(), "user:1", "raw", 0)
		}, "raw"},
		{"another reader found nothing", func(lg *loading) {
			lg.rdb.Set(context.Background(), lg.aux("user:1"), mapping.NegativeEntry, time.Minute)
		}, "(nil)"},
	}
	for _, tt := range tests {
		for _, point := range []string{HookGranted, HookSelected} {
			t.Run(tt.name+" at "+point, func(t *testing.T) {
				lg := users(t, loaderSetup{})
				lg.on(point, func() { tt.change(lg) })
				lg.want("user:1", tt.want)
				if tt.want == "(nil)" {
					lg.inRedis("user:1", "")
				} else {
					lg.inRedis("user:1", tt.want)
				}
				if s := lg.Stats(); tt.name != "invalidation" && s.Rejected+s.Hits == 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// A late fill that finds no row does not hide a row that was written meanwhile.
func TestLoadNoRowLosesToWrite(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.on(HookSelected, func() { lg.write("user:5000", user(5000)) })
	lg.want("user:5000", user(5000))
	if n := lg.rdb.Exists(t.Context(), lg.aux("user:5000")).Val(); n != 0 {
		t.Error("a negative entry was left")
	}

	lg.on(HookSelected, func() { lg.rdb.Set(context.Background(), "user:5001", "raw", 0) })
	lg.want("user:5001", "raw")
}

// The interleaving of Loader.round: who joins after the fill ran, but before its reply was read, joined after a delete
// was acknowledged, and must not get the row.
func TestLoadJoinedLate(t *testing.T) {
	lg := users(t, loaderSetup{})
	var late <-chan answer
	lg.on(HookFilled, func() {
		lg.inRedis("user:1", user(1))
		lg.remove("user:1")
		late = lg.start(lg.Loader, "user:1")
	})
	lg.want("user:1", user(1))
	if got := <-late; got.String() != "(nil)" {
		t.Errorf("who asked after the delete got %s", got)
	}
	lg.inRedis("user:1", "")
	if s := lg.Stats(); s.Joined != 1 {
		t.Errorf("the second did not join the first: %+v", s)
	}
}

// The same for a row that is answered without a fill: it is for those who had joined when its acquire was sent.
func TestLoadJoinedLateDirect(t *testing.T) {
	lg := users(t, loaderSetup{timeout: 100 * time.Millisecond})
	lg.rdb.Set(t.Context(), lg.aux("user:1"), "another's", 0)
	var late <-chan answer
	lg.on(HookSelected, func() {
		lg.remove("user:1")
		late = lg.start(lg.Loader, "user:1")
	})
	lg.want("user:1", user(1))
	if got := <-late; got.String() != "(nil)" {
		t.Errorf("who asked after the delete got %s", got)
	}
}

// Another process has the lease and never fills: after a while the row is read without being cached.
func TestLoadLeaseOfAnother(t *testing.T) {
	lg := users(t, loaderSetup{timeout: 100 * time.Millisecond})
	lg.rdb.Set(t.Context(), lg.aux("user:1"), "another's", 0)
	a := lg.start(lg.Loader, "user:1")
	lg.want("user:2", user(2)) // does not wait for user:1
	if got := <-a; got.String() != user(1) {
		t.Error(got)
	}
	lg.inRedis("user:1", "")
	if got := lg.rdb.Get(t.Context(), lg.aux("user:1")).Val(); got != "another's" {
		t.Errorf("the lease of the other is %q", got)
	}
	if s := lg.Stats(); s.Direct != 1 || s.Waits < 3 {
		t.Errorf("%+v", s)
	}
}

// Another process has the lease and fills.
func TestLoadFilledByAnother(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.rdb.Set(t.Context(), lg.aux("user:1"), "another's", time.Hour)
	a := lg.start(lg.Loader, "user:1")
	harness.Until(t, "the lease was seen", func() bool { return lg.Stats().Waits > 0 })
	lg.rdb.Set(t.Context(), "user:1", user(1), 0)
	if got := <-a; got.String() != user(1) {
		t.Error(got)
	}
	if s := lg.Stats(); s.Selects != 0 || s.Hits != 1 {
		t.Errorf("%+v", s)
	}
}

// Leases that go as fast as they come, because Redis evicts them say, do not keep readers from an answer.
func TestLoadLeaseAlwaysLost(t *testing.T) {
	lg := users(t, loaderSetup{})
	var drop func()
	drop = func() {
		lg.rdb.Del(context.Background(), lg.aux("user:1"))
		lg.on(HookSelected, drop)
	}
	lg.on(HookSelected, drop)
	lg.want("user:1", user(1))
	lg.inRedis("user:1", "")
	if s := lg.Stats(); s.Rejected != maxLost || s.Direct != 1 {
		t.Errorf("%+v", s)
	}
}

// A full Redis still answers reads; nothing is cached.
func TestLoadRedisFull(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.on(HookSelected, func() { lg.redis.Do("CONFIG", "SET", "maxmemory", "1") })
	lg.want("user:1", user(1)) // full at the fill
	lg.inRedis("user:1", "")
	lg.want("user:2", user(2)) // full at the acquire
	lg.want("user:5000", "(nil)")
	if s := lg.Stats(); s.Uncached != 1 || s.Direct != 2 || s.Errors != 0 {
		t.Errorf("%+v", s)
	}
}

// A key that holds something else is an error of that key alone.
func TestLoadWrongType(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.redis.Do("RPUSH", "user:1", "x")
	var answers []<-chan answer
	lg.on(HookGranted, func() {
		_, resume := lg.alone("user:9")
		defer resume()
		for _, key := range []string{"user:1", "user:2", "user:3"} {
			answers = append(answers, lg.start(lg.Loader, key))
		}
	})
	lg.want("user:9", user(9))
	for i, want := range []string{
		"WRONGTYPE Operation against a key holding the wrong kind of value", user(2), user(3),
	} {
		if got := <-answers[i]; got.String() != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	lg.on(HookSelected, func() { lg.redis.Do("RPUSH", "user:4", "x") })
	lg.want("user:4", "WRONGTYPE Operation against a key holding the wrong kind of value")
}

// Scripts that Redis forgot are loaded again.
func TestLoadScriptsUnknown(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.redis.Do("SCRIPT", "FLUSH")
	lg.on(HookSelected, func() { lg.redis.Do("SCRIPT", "FLUSH") })
	lg.want("user:1", user(1))
	lg.inRedis("user:1", user(1))
}

func TestLoadMySQLFails(t *testing.T) {
	my := harness.StartMySQL(t)
	lg := users(t, loaderSetup{mysql: my, timeout: 5 * time.Second})
	lg.want("user:1", user(1))

	my.Kill()
	var answers []<-chan answer
	lg.on(HookGranted, func() {
		for range 100 {
			answers = append(answers, lg.start(lg.Loader, "user:2"))
		}
	})
	first := lg.load("user:2")
	for i := range answers {
		got := <-answers[i]
		if got.String() != first.String() {
			t.Fatalf("%v, but the first got %v", got, first)
		}
		var err *Error
		if !errors.As(got.err, &err) || err.Code != CodeDBDown {
			t.Fatalf("%v, want DBDOWN", got)
		}
	}
	if n := lg.rdb.Exists(t.Context(), lg.aux("user:2")).Val(); n != 0 {
		t.Error("the lease is left over")
	}
	lg.want("user:1", user(1)) // what is cached stays

	my.Restart()
	harness.Until(t, "the row is read", func() bool { return lg.load("user:2").String() == user(2) })
}

// A MySQL that does not answer is given up after the timeout.
func TestLoadMySQLHangs(t *testing.T) {
	my := harness.StartMySQL(t)
	lg := users(t, loaderSetup{mysql: my, timeout: 200 * time.Millisecond})
	lg.want("user:1", user(1))
	my.Pause()
	defer my.Resume()
	if got := lg.load("user:2"); !strings.HasPrefix(got.String(), "DBDOWN keyrow: mysql failed: ") {
		t.Error(got)
	}
}

func TestLoadTableGone(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.mysql.Exec(lg.db, "DROP TABLE users")
	if got := lg.load("user:2"); !strings.HasPrefix(got.String(), "DBDOWN keyrow: mysql failed: Error 1146") {
		t.Error(got)
	}
}

func TestLoadRedisFails(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.want("user:1", user(1))
	lg.on(HookSelected, lg.redis.Kill)
	for _, key := range []string{"user:2", "user:3"} { // at the fill, at the acquire
		var err *Error
		if got := lg.load(key); !errors.As(got.err, &err) || err.Code != CodeUpstream {
			t.Errorf("%s: %v, want UPSTREAM", key, got)
		}
	}
	lg.redis.Restart()
	lg.want("user:3", user(3))
}

func TestLoadCompositeKey(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "seat", "seat:{hall}:{no}", "seats"
	lg := newLoading(t, loaderSetup{
		tables: "CREATE TABLE seats (no INT, hall VARCHAR(20) COLLATE utf8mb4_bin, who VARCHAR(20), PRIMARY KEY (no, hall));" +
			"INSERT INTO seats VALUES (1,'a','x'), (2,'a','y'), (1,'b','z')",
		mappings: []mapping.Config{c},
	})
	var answers []<-chan answer
	keys := []string{"seat:a:1", "seat:a:2", "seat:b:1", "seat:b:2"}
	lg.on(HookGranted, func() {
		_, resume := lg.alone("seat:c:1")
		defer resume()
		for _, key := range keys {
			answers = append(answers, lg.start(lg.Loader, key))
		}
	})
	lg.want("seat:c:1", "(nil)")
	for i, want := range []string{
		`{"no":1,"hall":"a","who":"x"}`, `{"no":2,"hall":"a","who":"y"}`, `{"no":1,"hall":"b","who":"z"}`, "(nil)",
	} {
		if got := <-answers[i]; got.String() != want {
			t.Errorf("%s: %s, want %s", keys[i], got, want)
		}
	}
	if s := lg.Stats(); s.Selects != 2 {
		t.Errorf("%+v", s)
	}
}

// A collation that takes two spellings for the same does not make them one key.
func TestLoadAlias(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "login", "login:{name}", "logins"
	lg := newLoading(t, loaderSetup{
		tables: "CREATE TABLE logins (name VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT);" +
			"INSERT INTO logins VALUES ('Bob', 1), ('é', 2)",
		mappings: []mapping.Config{c},
	})
	lg.want("login:bob", "(nil)")
	lg.want("login:Bob", `{"name":"Bob","n":1}`)
	lg.want("login:BOB", "(nil)")
	lg.want("login:Bob ", "(nil)")
	lg.want("login:e", "(nil)")
	lg.want("login:é", `{"name":"é","n":2}`)
}

// Both spellings in one round.
func TestLoadAliasTogether(t *testing.T) {
	c := mapping.Default()
	c.Name, c.Key, c.Table = "login", "login:{name}", "logins"
	lg := newLoading(t, loaderSetup{
		tables: "CREATE TABLE logins (name VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT);" +
			"INSERT INTO logins VALUES ('Bob', 1), ('al', 2)",
		mappings: []mapping.Config{c},
	})
	var bob, Bob <-chan answer
	lg.on(HookGranted, func() {
		_, resume := lg.alone("login:al")
		defer resume()
		bob, Bob = lg.start(lg.Loader, "login:bob"), lg.start(lg.Loader, "login:Bob")
	})
	lg.want("login:al", `{"name":"al","n":2}`)
	if got := <-bob; got.String() != "(nil)" {
		t.Error(got)
	}
	if got := <-Bob; got.String() != `{"name":"Bob","n":1}` {
		t.Error(got)
	}
}

// The rows of keys are found by an index, however many and whatever the type of the key.
func TestSelectUsesIndex(t *testing.T) {
	var cs []mapping.Config
	for _, key := range []string{"i:{i}", "s:{s}", "l:{l}", "d:{d}", "b:{b}", "c:{i}:{s}"} {
		c := mapping.Default()
		c.Name, c.Key, c.Table = "t"+key[:1], key, "t"+key[:1]
		cs = append(cs, c)
	}
	var tables strings.Builder
	for table, key := range map[string]string{"i": "i", "s": "s", "l": "l", "d": "d", "b": "b", "c": "i,s"} {
		fmt.Fprintf(&tables, "CREATE TABLE t%s (i BIGINT, s VARCHAR(20), l VARCHAR(20) CHARACTER SET latin1, d DATE, "+
			"b VARBINARY(20), n INT, PRIMARY KEY (%s));"+
			"INSERT INTO t%s SELECT seq, seq, seq, FROM_DAYS(700000+seq), seq, seq FROM seq_1_to_5000;", table, key, table)
	}
	lg := newLoading(t, loaderSetup{tables: tables.String(), mappings: cs})
	for _, keys := range [][]string{
		{"i:1", "i:2", "i:3"}, {"s:1", "s:2", "s:3"}, {"l:1", "l:2", "l:3"}, {"b:1", "b:2", "b:3"},
		{"d:1920-01-02", "d:1920-01-03"}, {"c:1:1", "c:2:2", "c:2:3"},
	} {
		m := lg.set.Match([]byte(keys[0]))
		var args []any
		var err error
		for _, key := range keys {
			if args, err = m.KeyArgs(args, []byte(key)); err != nil {
				t.Fatal(err)
			}
		}
		var plan string
		rows, err := lg.Loader.db.Query("EXPLAIN FORMAT=JSON "+selectByKey(m, len(keys)), args...)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			if err := rows.Scan(&plan); err != nil {
				t.Fatal(err)
			}
		}
		rows.Close()
		if !strings.Contains(plan, `"access_type": "range"`) {
			t.Errorf("%s: %s", keys, plan)
		}
	}
}

// Close answers who still waits, and whoever comes later.
func TestLoadClose(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.rdb.Set(t.Context(), lg.aux("user:1"), "another's", time.Hour)
	a := lg.start(lg.Loader, "user:1")
	harness.Until(t, "the lease was seen", func() bool { return lg.Stats().Waits > 0 })
	lg.Close()
	for _, got := range []answer{<-a, lg.load("user:2")} {
		if got.String() != "ERR keyrow: shutting down: nothing was read" {
			t.Error(got)
		}
	}
	lg.mu.Lock()
	defer lg.mu.Unlock()
	if len(lg.queues) != 0 {
		t.Error("a queue is left over")
	}
}

// Nothing keeps running, nor is kept in memory, once every key is answered.
func TestLoadIdle(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.want("user:1", user(1))
	harness.Until(t, "no queue is left", func() bool {
		lg.mu.Lock()
		defer lg.mu.Unlock()
		return len(lg.queues) == 0
	})
	lg.want("user:2", user(2))
}

// Readers, writers and deleters of few keys at once: nobody reads what was overwritten before they asked.
func TestLoadNeverStale(t *testing.T) {
	lg := users(t, loaderSetup{})
	const keys = 4
	var versions [keys]atomic.Int64 // the least version whoever asks now may get
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for k := range keys {
		key := fmt.Sprintf("user:%d", k+1)
		lg.mysql.Exec(lg.db, "UPDATE users SET name='0' WHERE id=?", k+1)
		writers.Go(func() {
			for v := int64(1); v <= 100; v++ {
				// A write, its flush, and its eviction: the next reader has to ask MySQL.
				lg.write(key, fmt.Sprintf(`{"id":%d,"name":"%d"}`, k+1, v))
				versions[k].Store(v)
				lg.mysql.Exec(lg.db, "UPDATE users SET name=? WHERE id=?", fmt.Sprint(v), k+1)
				lg.rdb.Del(context.Background(), key)
			}
		})
		for range 3 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					least := versions[k].Load()
					got := lg.load(key)
					var row struct {
						Name int64 `json:",string"`
					}
					if got.err != nil || json.Unmarshal(got.image, &row) != nil || row.Name < least {
						t.Errorf("%s: %s, want version %d or later", key, got, least)
						return
					}
				}
			})
		}
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

package test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
	"keyrow/test/harness"
)

const pagesConfig = `
[[mapping]]
name = "page"
key = "page:{id}"
table = "pages"
ttl = "1h"

[[mapping]]
name = "note"
key = "note:{id}"
table = "notes"
value = "hash"
ttl = "1h"

[[mapping]]
name = "hits"
key = "hits:{id}"
table = "hits"
value = "string"
column = "n"
ttl = "1h"
`

// pressed is a shop whose Redis evicts, and what its clients were told they have written.
type pressed struct {
	*shop
	policy  string
	written map[string]string // by key: the column n of the row
}

// Redis has memory for a part of what is cached, MySQL is down, and clients go on to write rows and to fill Redis with
// what expires: Redis evicts for all it is worth, and no write among it.
func TestEvictionSparesWrites(t *testing.T) {
	t.Parallel()
	const cached, counters = 6_000, 200
	m := harness.StartMySQL(t)
	var all []*pressed
	for _, policy := range []string{"volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"} {
		s := openShop(t, harness.Options{MySQL: m, DB: newPages(t, m, cached, counters), Config: pagesConfig, Lean: true,
			Redis: harness.StartRedis(t, "--maxmemory", "6mb", "--maxmemory-policy", policy),
			Set:   map[string]string{"mysql.timeout": "1s"}})
		for id := 1; id <= cached; id += 500 {
			args := []any{"MGET"}
			for n := range 500 {
				args = append(args, fmt.Sprint("page:", id+n))
			}
			s.Must(args...)
		}
		pipe := s.Client().Pipeline()
		for id := range counters {
			pipe.Do(t.Context(), "HGET", fmt.Sprint("note:", id+1), "n")
			pipe.Do(t.Context(), "GET", fmt.Sprint("hits:", id+1))
		}
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.evicted() == 0 {
			t.Fatalf("%s: there is room for all that is cached", policy)
		}
		all = append(all, &pressed{s, policy, map[string]string{}})
	}
	m.Stop()
	for _, s := range all {
		before := s.evicted()
		s.press(cached, counters)
		kinds := s.checkPressed()
		t.Logf("%s: %d keys were evicted while %v were written", s.policy, s.evicted()-before, kinds)
		if len(kinds) != 3 || s.evicted()-before < int64(kinds["page"]) {
			t.Errorf("%s: that is no pressure", s.policy)
		}
	}
	m.Restart()
	for _, s := range all {
		s.Settled()
		for kind, table := range map[string]string{"page": "pages", "note": "notes", "hits": "hits"} {
			rows := map[string]string{}
			for _, row := range s.table("SELECT id, n FROM " + table) {
				rows[kind+":"+row[0]] = row[1]
			}
			for key, want := range s.written {
				if strings.HasPrefix(key, kind+":") && rows[key] != want {
					t.Errorf("%s: the row of %s has %s, written was %s", s.policy, key, rows[key], want)
				}
			}
		}
		if n := s.info("lost"); n != 0 {
			t.Errorf("%s: %d writes are counted as lost", s.policy, n)
		}
		// Equal would read thousands of images one by one.
		if status, v, stderr := s.verify("page"); status != 0 || !v.Complete || v.Same != v.Images {
			t.Errorf("%s: exit status %d: %+v, %s", s.policy, status, v, stderr)
		}
	}
}

// newPages makes a database of as many pages, each of a kilobyte, notes and hits.
func newPages(t testing.TB, m *harness.MySQL, pages, counters int) string {
	db := m.NewDB(t)
	m.Exec(db, fmt.Sprintf(`CREATE TABLE pages (id INT PRIMARY KEY, body TEXT NOT NULL, n INT NOT NULL);
		CREATE TABLE notes (id INT PRIMARY KEY, n INT NOT NULL);
		CREATE TABLE hits (id INT PRIMARY KEY, n INT NOT NULL);
		INSERT INTO pages SELECT seq, REPEAT('x', 1000), 0 FROM seq_1_to_%d;
		INSERT INTO notes SELECT seq, 0 FROM seq_1_to_%d;
		INSERT INTO hits SELECT seq, 0 FROM seq_1_to_%[2]d`, pages, counters))
	return db
}

// press writes rows, some of them cached and some not, beside plain keys that Redis may evict.
func (s *pressed) press(pages, counters int) {
	s.t.Helper()
	body := strings.Repeat("x", 1000)
	type write struct {
		cmd       *redis.Cmd
		key, want string
	}
	for round := range 16 {
		pipe := s.Client().Pipeline()
		var writes []write
		for n := round * 50; n < round*50+50; n++ {
			id := n*7%pages + 1
			page, note, hits := fmt.Sprint("page:", id), fmt.Sprint("note:", n%counters+1), fmt.Sprint("hits:", n%counters+1)
			image := fmt.Sprintf(`{"id":%d,"body":"%s","n":%d}`, id, body, n)
			writes = append(writes,
				write{pipe.Do(s.t.Context(), "SET", page, image), page, strconv.Itoa(n)},
				write{pipe.Do(s.t.Context(), "HSET", note, "n", n), note, strconv.Itoa(n)},
				write{pipe.Do(s.t.Context(), "INCR", hits), hits, ""})
			pipe.Do(s.t.Context(), "SET", fmt.Sprint("plain:", n), body, "EX", 3600)
			pipe.Do(s.t.Context(), "SET", fmt.Sprint("soon:", n), body, "EX", 60)
		}
		// Notes and hits that were evicted cannot be read now.
		if _, err := pipe.Exec(s.t.Context()); err != nil && !strings.HasPrefix(err.Error(), "DBDOWN ") {
			s.t.Fatal(err)
		}
		for _, w := range writes {
			if got, err := w.cmd.Result(); err == nil {
				if w.want == "" {
					w.want = fmt.Sprint(got)
				}
				s.written[w.key] = w.want
			}
		}
	}
}

// checkPressed looks in Redis for all that was written, and counts it by kind.
func (s *pressed) checkPressed() map[string]int {
	s.t.Helper()
	kinds := map[string]int{}
	images, ttls, notes := map[string]*redis.StringCmd{}, map[string]*redis.DurationCmd{}, map[string]*redis.StringCmd{}
	pipe := s.Redis.Client().Pipeline()
	for key := range s.written {
		kind, _, _ := strings.Cut(key, ":")
		kinds[kind]++
		if ttls[key] = pipe.PTTL(s.t.Context(), key); kind == "note" {
			notes[key] = pipe.HGet(s.t.Context(), key, "n")
		} else {
			images[key] = pipe.Get(s.t.Context(), key)
		}
	}
	if _, err := pipe.Exec(s.t.Context()); err != nil && !errors.Is(err, redis.Nil) {
		s.t.Fatal(err)
	}
	marked := s.marked()
	for key, want := range s.written {
		var got string
		if notes[key] != nil {
			got = notes[key].Val()
		} else if _, n, ok := strings.Cut(images[key].Val(), `"n":`); ok {
			got = strings.TrimSuffix(n, "}")
		} else {
			got = images[key].Val()
		}
		if ttl := ttls[key].Val(); got != want || ttl != -1 || !marked[key] {
			s.t.Errorf("%s: %s is %q with a TTL of %v (marked: %t), written was %s", s.policy, key, got, ttl, marked[key], want)
		}
	}
	return kinds
}

// marked is the keys that are marked in Redis.
func (s *shop) marked() map[string]bool {
	s.t.Helper()
	journal := mapping.Journal{Prefix: s.prefix, Partitions: 4}
	keys := map[string]bool{}
	for p := range 4 {
		for _, set := range [][]byte{journal.AppendDirty(nil, p), journal.AppendFlushing(nil, p)} {
			for _, mark := range s.Redis.Do("ZRANGE", string(set), 0, -1).([]any) {
				keys[mark.(string)[1:]] = true
			}
		}
	}
	return keys
}

// A Redis that has no memory left and evicts nothing refuses what is written, and whatever is refused changes nothing. What
// was written before reaches MySQL all the same, and with memory all is as ever.
func TestRedisFull(t *testing.T) {
	t.Parallel()
	s := openChanges(t, harness.Options{Set: map[string]string{"journal.interval": "1h"}})
	s.sql("INSERT INTO things (id, name, n) VALUES (1, 'Ada', 5), (2, 'Bea', 6)")
	s.sql("INSERT INTO people VALUES (7, 'Gil', 1)")
	s.owns()
	for _, key := range []string{"thing:1", "n:1", "doc:1", "name:1", "thing:2"} {
		s.want("1", "EXISTS", key)
	}
	s.want("OK", "SET", "doc:7", `{"name":"Gil","n":70}`)
	s.want("OK", "SET", "score:7", "7")
	s.want("0", "HSET", "thing:2", "n", "60")
	s.Redis.Do("CONFIG", "SET", "maxmemory", "1")
	for _, args := range [][]any{
		{"SET", "doc:1", `{"name":"x"}`}, {"SET", "doc:7", `{"name":"x"}`}, {"SET", "doc:9", `{"name":"x"}`}, {"SETEX", "doc:1", 100, `{"name":"x"}`},
		{"SET", "n:1", 7, "XX"}, {"SET", "n:1", 7, "GET"}, {"SETNX", "n:9", 1}, {"GETSET", "n:1", 7},
		{"MSET", "doc:1", `{"name":"x"}`, "doc:7", `{"name":"x"}`, "plain", "x"},
		{"INCR", "n:1"}, {"DECRBY", "score:7", 3}, {"APPEND", "name:1", "x"}, {"SETRANGE", "name:1", 1, "x"},
		{"HSET", "thing:1", "n", 7}, {"HSET", "thing:2", "n", 7}, {"HSETNX", "thing:1", "ratio", 7}, {"HINCRBY", "thing:2", "n", 1},
		{"EVAL", "return redis.call('SET', KEYS[1], 7)", 1, "n:1"},
	} {
		s.unchanged(fmt.Sprint(args), func() { s.refused([]string{"OOM"}, args...) })
	}
	s.unchanged("rows that would have to be read first", func() {
		s.refused([]string{"nothing was changed"}, "MSETNX", "n:9", 1, "score:9", 1)
	})
	s.unchanged("a transaction", func() {
		p := dial(t, s.Addr)
		p.do("MULTI")
		p.do("DEL", "doc:1")
		p.do("SET", "doc:7", `{"name":"x"}`)
		if got := p.do("EXEC"); !strings.HasPrefix(got, "-EXECABORT") {
			t.Errorf("EXEC is answered %q", got)
		}
	})
	// What is there is read, what is not is read from MySQL, and what was written is flushed.
	s.want(`{"id":7,"name":"Gil","n":70}`, "GET", "doc:7")
	s.want(`{"id":2,"name":"Bea","n":6}`, "GET", "doc:2")
	s.want("0", "KEYROW", "FLUSH", 30000)
	if got := s.row("SELECT GROUP_CONCAT(id, ' ', n ORDER BY id) FROM things"); got != "1 5,2 60,7 70" {
		t.Errorf("mysql has %s", got)
	}
	s.Redis.Do("CONFIG", "SET", "maxmemory", "0")
	s.want("OK", "SET", "doc:7", `{"name":"Gil","n":71}`)
	s.want("0", "KEYROW", "FLUSH", 30000)
	s.restChanges()
}

// The policy may be changed under a running process: from then on nothing is written that Redis might evict.
func TestPolicyChanges(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.want("OK", "SET", "user:1", `{"name":"x"}`)
	s.rest()
	s.Redis.Do("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
	harness.Until(t, "writes are refused", func() bool {
		return strings.HasPrefix(s.show("SET", "user:1", `{"name":"y"}`), "-ERR keyrow: ")
	})
	s.Settled()
	s.unchanged("writes to a Redis that may evict them", func() {
		s.refused([]string{"ERR keyrow: ", "allkeys-lfu", "set volatile-lru", "nothing was"}, "SET", "user:1", `{"name":"z"}`)
		s.refused([]string{"ERR keyrow: ", "allkeys-lfu"}, "DEL", "acct:1")
	})
	s.want("OK", "SET", "plain", "x")
	if log := s.Log(); !strings.Contains(log, "writes are refused: redis has maxmemory-policy allkeys-lfu") {
		t.Error("the log does not say so")
	}
	s.Redis.Do("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
	harness.Until(t, "writes are accepted", func() bool { return s.show("SET", "user:1", `{"name":"y"}`) == "OK" })
	s.rest()
}

// evicted is how many keys Redis has evicted.
func (s *shop) evicted() int64 {
	s.t.Helper()
	for line := range strings.Lines(fmt.Sprint(s.Redis.Do("INFO", "stats"))) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "evicted_keys:"); ok {
			v, err := strconv.ParseInt(n, 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return v
		}
	}
	s.t.Fatal("INFO stats has no evicted_keys")
	return 0
}

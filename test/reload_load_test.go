package test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

var reloads = flag.Int("reloads", 100, "how often TestReloadHundred changes the configuration")

// stage is a configuration of TestReloadHundred, and what it allows.
type stage struct {
	columns []string // of user:{id}, which is written
	extra   string   // lines of it
	page    string   // the pattern of a mapping that is only read
	paged   []string // its columns
	ages    bool     // there is a mapping of hashes
	sql     string   // of a query
}

var stages = []stage{
	{[]string{"id", "name"}, "", "p:{id}", []string{"id", "age"}, true, "SELECT id FROM users ORDER BY id"},
	{[]string{"id", "name", "email"}, "", "p:{id}", []string{"id", "balance"}, false, "SELECT id FROM users ORDER BY id"},
	{[]string{"age", "id", "name"}, `ttl = "20ms"`, "q:{id}", []string{"id", "age"}, true, "SELECT id FROM users ORDER BY id DESC"},
	{[]string{"id", "name", "age"}, `ttl = "0"`, "q:{id}", []string{"id", "age"}, true, "SELECT id FROM users ORDER BY id"},
	{[]string{"id", "name", "age"}, `early_refresh = 1.0`, "p:{id}", []string{"id", "age"}, false, "SELECT id FROM users ORDER BY id DESC"},
	{[]string{"id", "name", "email", "age"}, "ttl = \"50ms\"\nstale_while_error = \"1m\"", "q:{id}", []string{"balance", "id"}, true,
		"SELECT id FROM users ORDER BY id"},
}

func (g stage) config() string {
	list := func(columns []string) string {
		text, _ := json.Marshal(columns)
		return "columns = " + string(text)
	}
	c := section("user", "user:{id}", list(g.columns), g.extra) + section("page", g.page, list(g.paged), `write = "deny"`)
	if g.ages {
		c += section("age", "age:{id}", `value = "hash"`, `write = "deny"`, `columns = ["id", "age"]`)
	}
	return c + fmt.Sprintf("[[query]]\nname = \"ids\"\nkey = \"ids\"\nvalue = \"list\"\nsql = %q\n", g.sql)
}

// fieldsOf are the fields of a JSON image in their order, nil if it is none, and the name in it.
func fieldsOf(image any) (fields []string, name int64) {
	text, _ := image.(string)
	d := json.NewDecoder(strings.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, 0
	}
	for d.More() {
		field, _ := d.Token()
		value, _ := d.Token()
		fields = append(fields, fmt.Sprint(field))
		if field == "name" {
			name, _ = strconv.ParseInt(fmt.Sprint(value), 10, 64)
		}
	}
	return fields, name
}

// TestReloadHundred: clients read and write while the configuration changes a hundred times. Each answer is one that a
// configuration allows which was in force during its command; none is older than what was acknowledged before; no
// connection is lost; and all that was acknowledged is in MySQL.
//
// go test -run TestReloadHundred ./test -reloads 5000 runs for longer.
func TestReloadHundred(t *testing.T) {
	t.Parallel()
	const rows, readers = 4, 4
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := newShop(t, harness.Options{Config: stages[0].config(), Set: map[string]string{"journal.interval": "5ms"}})
	for id := range rows {
		s.sql(fmt.Sprintf("INSERT INTO users (id, name, age) VALUES (%d, '0', %d)", id, 20+id))
	}
	s.Start()

	var mu sync.Mutex
	history := []stage{stages[0]}
	oldest, flushed := 0, 0 // which of history may be in force, and which may be that of a write that is not in MySQL yet
	from := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return oldest, flushed
	}
	allows := func(from int, does func(g stage) bool) bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(history[from:], does)
	}

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var clients sync.WaitGroup
	var commands, connections atomic.Int64
	connect := func() *redis.Client {
		o := *s.Client().Options()
		o.PoolSize, o.OnConnect = 1, func(context.Context, *redis.Conn) error { connections.Add(1); return nil }
		client := redis.NewClient(&o)
		t.Cleanup(func() { client.Close() })
		return client
	}
	var acknowledged [rows]atomic.Int64
	for id := range rows {
		clients.Go(func() {
			client := connect()
			for n := int64(1); ctx.Err() == nil; n++ {
				if err := client.Set(context.Background(), fmt.Sprintf("user:%d", id), fmt.Sprintf(`{"name":"%d"}`, n), 0).Err(); err != nil {
					t.Errorf("seed %d: SET %d of user:%d: %v", seed, n, id, err)
					return
				}
				acknowledged[id].Store(n)
				commands.Add(1)
			}
		})
	}
	for i := range readers {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		clients.Go(func() {
			client := connect()
			for ctx.Err() == nil {
				now, unflushed := from()
				id := random.IntN(rows)
				var command []any
				var allowed func(got any) bool
				switch random.IntN(5) {
				case 0, 1:
					least := acknowledged[id].Load()
					command = []any{"GET", fmt.Sprintf("user:%d", id)}
					allowed = func(got any) bool {
						fields, name := fieldsOf(got)
						return name >= least && allows(unflushed, func(g stage) bool { return slices.Equal(fields, g.columns) })
					}
				case 2:
					pattern := []string{"p:", "q:"}[random.IntN(2)]
					command = []any{"GET", fmt.Sprintf("%s%d", pattern, id)}
					allowed = func(got any) bool {
						fields, _ := fieldsOf(got)
						return allows(now, func(g stage) bool { return !strings.HasPrefix(g.page, pattern) || slices.Equal(fields, g.paged) })
					}
				case 3:
					command = []any{"HGETALL", fmt.Sprintf("age:%d", id)}
					allowed = func(got any) bool {
						hash, _ := got.([]any)
						return allows(now, func(g stage) bool { return len(hash) == 4 || !g.ages && len(hash) == 0 })
					}
				default:
					command = []any{"LINDEX", "ids", 0}
					allowed = func(got any) bool {
						return allows(now, func(g stage) bool { return got == fmt.Sprint(rows-1) == strings.HasSuffix(g.sql, "DESC") && got != nil })
					}
				}
				got, err := client.Do(context.Background(), command...).Result()
				if err != nil && !errors.Is(err, redis.Nil) || !allowed(got) {
					t.Errorf("seed %d: %v: %v %v, reload %d", seed, command, got, err, now)
					return
				}
				commands.Add(1)
			}
		})
	}

	random := rand.New(rand.NewPCG(seed, rows))
	for i := range *reloads {
		next := stages[random.IntN(len(stages))]
		mu.Lock()
		history = append(history, next)
		mu.Unlock()
		if got := s.reload(next.config()); !strings.HasPrefix(got, "[") {
			t.Errorf("seed %d: reload %d: %s", seed, i, got)
			break
		}
		mu.Lock()
		before := oldest
		oldest = len(history) - 1
		mu.Unlock()
		if got := s.show("KEYROW", "FLUSH"); got != "0" {
			t.Errorf("seed %d: flush %d: %s", seed, i, got)
		}
		mu.Lock()
		flushed = before
		mu.Unlock()
	}
	stop()
	clients.Wait()
	if n := connections.Load(); n != rows+readers {
		t.Errorf("%d connections for %d clients", n, rows+readers)
	}
	s.Settled()
	for id := range rows {
		if got, want := s.row("SELECT name FROM users WHERE id = ?", id), fmt.Sprint(acknowledged[id].Load()); got != want {
			t.Errorf("seed %d: row %d has %s, want %s", seed, id, got, want)
		}
	}
	last := history[len(history)-1]
	s.Equal(harness.Rows{Pattern: "user:{id}", Table: "users", Columns: last.columns},
		harness.Rows{Pattern: last.page, Table: "users", Columns: last.paged})
	t.Logf("%d commands beside %d reloads", commands.Load(), *reloads)
}

package backend

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
	"keyrow/test/harness"
)

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
		harness.Until(t, "the other process waits", func() bool { return other.Stats().Waits > 0 })
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
	if s := other.Stats(); s.Selects != 0 {
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

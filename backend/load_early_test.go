package backend

import (
	"math"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// eager is users with early_refresh, as if reading a row took hours: nearly every hit that can draws its refresh.
func eager(t *testing.T, s loaderSetup) *loading {
	t.Helper()
	c := usersMapping()
	c.Name, c.Key, c.EarlyRefresh = "eager", "eager:{id}", 1000
	c.NegativeTTL = time.Hour
	s.mappings = append(s.mappings, c)
	lg := users(t, s)
	lg.slowly(lg.Loader)
	return lg
}

func (lg *loading) slowly(l *Loader) {
	l.took(lg.set.Match([]byte("eager:1")), time.Now().Add(-time.Hour))
}

// hit has Redis answer reads of key until done.
func (lg *loading) hit(l *Loader, key, what string, done func() bool) {
	lg.t.Helper()
	m := lg.set.Match([]byte(key))
	harness.Until(lg.t, what, func() bool {
		for range lookEvery {
			l.Hit(m, []byte(key))
		}
		return done()
	})
}

func (lg *loading) get(key string) string { return lg.rdb.Get(lg.t.Context(), key).Val() }

// An image that is read often is read anew before it expires, and is there all the time.
func TestEarlyRefresh(t *testing.T) {
	lg := eager(t, loaderSetup{})
	lg.want("eager:1", user(1))
	lg.rdb.PExpire(t.Context(), "eager:1", time.Minute)
	lg.mysql.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id = 1")
	lg.on(HookSelected, func() {
		lg.inRedis("eager:1", user(1))
		lg.want("eager:1", user(1)) // the lease is in nobody's way
	})
	const renewed = `{"id":1,"name":"new"}`
	lg.hit(lg.Loader, "eager:1", "the image is read anew", func() bool { return lg.get("eager:1") == renewed })
	if ttl := lg.rdb.PTTL(t.Context(), "eager:1").Val(); ttl < 8*time.Minute {
		t.Errorf("ttl %v, want 10m within a tenth", ttl)
	}

	lg.mysql.Exec(lg.db, "DELETE FROM users WHERE id = 1")
	lg.hit(lg.Loader, "eager:1", "the image is gone with its row", func() bool { return lg.get("eager:1") == "" })
	lg.want("eager:1", "(nil)")
	if s := lg.Stats(); s.Early < 2 || s.Negatives != 1 {
		t.Errorf("%+v", s)
	}
}

// Of a hash, a sorted set and so on too, even a large one.
func TestEarlyRefreshOfKinds(t *testing.T) {
	profile := usersMapping()
	profile.Name, profile.Key, profile.Value, profile.Write, profile.EarlyRefresh = "profile", "profile:{id}", "hash", "deny", 1000
	rank := mapping.DefaultQuery()
	rank.Name, rank.Key, rank.Value, rank.SQL, rank.EarlyRefresh = "rank", "rank", "zset", "SELECT name, id FROM users", 1000
	all := mapping.DefaultQuery()
	all.Name, all.Key, all.Value, all.EarlyRefresh = "all", "all", "list", 1000
	all.SQL = "SELECT CONCAT(a.name, '.', b.id) FROM users a JOIN users b WHERE b.id < 5 ORDER BY a.id, b.id"
	lg := users(t, loaderSetup{mappings: []mapping.Config{profile}, queries: []mapping.QueryConfig{rank, all}})
	for key, sql := range map[string]string{
		"profile:1": "UPDATE users SET name = 'one' WHERE id = 1", "rank": "UPDATE users SET name = 'two' WHERE id = 2",
		"all": "UPDATE users SET name = 'three' WHERE id = 3",
	} {
		lg.load(key)
		before := lg.shown(key)
		lg.took(lg.set.Match([]byte(key)), time.Now().Add(-time.Hour))
		lg.mysql.Exec(lg.db, sql)
		lg.hit(lg.Loader, key, key+" is read anew", func() bool {
			now := lg.shown(key)
			if now == "" {
				t.Fatalf("%s is not there", key)
			}
			return now != before
		})
	}
}

// What is read before the image expires is as late as any fill that a write overtakes.
func TestEarlyRefreshLosesToWrite(t *testing.T) {
	lg := eager(t, loaderSetup{})
	lg.want("eager:1", user(1))
	lg.want("eager:2", user(2))
	rejected := func() bool { return lg.Stats().Rejected > 0 }
	lg.on(HookSelected, func() { lg.write("eager:1", "written") })
	lg.hit(lg.Loader, "eager:1", "the refresh comes too late", rejected)
	lg.inRedis("eager:1", "written")

	before := lg.Stats().Rejected
	lg.on(HookSelected, func() { lg.remove("eager:2") })
	lg.hit(lg.Loader, "eager:2", "the refresh comes too late", func() bool { return lg.Stats().Rejected > before })
	lg.inRedis("eager:2", "")
	lg.want("eager:2", "(nil)")
}

// What was written is not replaced before it is flushed, whatever ttl it has.
func TestEarlyRefreshOfWritten(t *testing.T) {
	lg := eager(t, loaderSetup{})
	lg.write("eager:1", "written")
	looked := func(n uint64) func() bool { return func() bool { return lg.Stats().Looks >= n } }
	lg.hit(lg.Loader, "eager:1", "it is looked at", looked(1))
	lg.rdb.PExpire(t.Context(), "eager:1", time.Minute)
	p := lg.journal.Partition([]byte("eager:1"))
	for _, set := range []string{lg.sets[p].dirty, lg.sets[p].flushing} {
		lg.rdb.ZAdd(t.Context(), set, redis.Z{Member: "+eager:1"})
		if set != lg.sets[p].dirty {
			lg.rdb.Del(t.Context(), lg.sets[p].dirty) // not before: a look of the first loader may be under way
		}
		other := lg.another(lg.Loader.db, 30*time.Second)
		lg.slowly(other)
		lg.hit(other, "eager:1", "it is looked at", func() bool { return other.Stats().Looks >= 1 })
		other.Close()
		if s := other.Stats(); s.Selects != 0 {
			t.Errorf("%+v", s)
		}
	}
	lg.inRedis("eager:1", "written")
}

// However many processes there are, one at a time reads an image anew.
func TestEarlyRefreshOnce(t *testing.T) {
	lg := eager(t, loaderSetup{})
	other := lg.another(lg.Loader.db, 30*time.Second)
	lg.slowly(other)
	lg.want("eager:1", user(1))
	lg.on(HookGranted, func() {
		lg.hit(other, "eager:1", "the other one has looked and was too late", func() bool { return other.Stats().Looks >= 2 })
	})
	lg.hit(lg.Loader, "eager:1", "the image is read anew", func() bool { return lg.Stats().Early == 1 })
	if s := other.Stats(); s.Selects != 0 {
		t.Errorf("%+v", s)
	}
}

// A hit far from the expiry costs no memory, and asks nobody.
func TestHit(t *testing.T) {
	lg := users(t, loaderSetup{})
	c := *lg.set.Match([]byte("user:1"))
	c.EarlyRefresh = 1
	key := []byte("user:1")
	lg.want("user:1", user(1))
	known := func() bool {
		for i := range lg.early.slots {
			if s := &lg.early.slots[i]; s.key.Load() != 0 && s.expiry.Load() < math.MaxInt64 {
				return true
			}
		}
		return false
	}
	harness.Until(t, "the image is looked at", func() bool {
		for range lookEvery {
			lg.Hit(&c, key)
		}
		return known()
	})
	if n := testing.AllocsPerRun(1000, func() { lg.Hit(&c, key) }); n != 0 {
		t.Errorf("%v allocations a hit", n)
	}
	if s := lg.Stats(); s.Looks != 1 || s.Selects != 1 {
		t.Errorf("%+v", s)
	}
}

func BenchmarkHit(b *testing.B) {
	l := &Loader{early: newEarly()}
	m, key := &mapping.Mapping{EarlyRefresh: 1}, []byte("user:1234567")
	for i := range l.early.slots {
		l.early.slots[i].expiry.Store(int64(time.Hour))
	}
	l.closed = true // a sampled hit asks nobody
	b.ReportAllocs()
	for b.Loop() {
		l.Hit(m, key)
	}
}

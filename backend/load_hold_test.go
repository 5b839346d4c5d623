package backend

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

// scriptsRun is how many scripts Redis has run since the last call.
func (lg *loading) scriptsRun() (n int) {
	for _, name := range []string{"evalsha", "eval"} {
		_, stats, _ := strings.Cut(fmt.Sprint(lg.redis.Do("INFO", "commandstats")), "cmdstat_"+name+":calls=")
		var calls int
		_, _ = fmt.Sscanf(stats, "%d", &calls)
		n += calls
	}
	lg.redis.Do("CONFIG", "RESETSTAT")
	return n
}

// loadAll loads keys at a time.
func (lg *loading) loadAll(keys ...string) (answers []string) {
	var all []<-chan answer
	for _, key := range keys {
		all = append(all, lg.start(lg.Loader, key))
	}
	for _, a := range all {
		answers = append(answers, (<-a).String())
	}
	return answers
}

// Keys that nobody has looked for take no script. One whose lease is taken away in between does, and the others are
// cached all the same.
func TestHold(t *testing.T) {
	lg := users(t, loaderSetup{})
	keys, want := make([]string, 20), make([]string, 20)
	for i := range keys {
		keys[i], want[i] = fmt.Sprintf("user:%d", i+1), user(i+1)
	}
	lg.scriptsRun()
	if got := lg.loadAll(keys...); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q", got)
	}
	if n := lg.scriptsRun(); n != 0 {
		t.Errorf("%d scripts were run", n)
	}
	for i, key := range keys {
		lg.inRedis(key, want[i])
		if n := lg.rdb.Exists(t.Context(), lg.aux(key)).Val(); n != 0 {
			t.Errorf("the lease of %s is left over", key)
		}
	}

	lg.rdb.Del(t.Context(), keys...)
	lg.mysql.Exec(lg.db, "UPDATE users SET name = 'new' WHERE id = 7")
	lg.on(HookGranted, func() {
		lg.rdb.Del(context.Background(), lg.aux("user:1"))
		lg.mysql.Exec(lg.db, "UPDATE users SET name = 'newer' WHERE id = 1")
	})
	want[0], want[6] = `{"id":1,"name":"newer"}`, `{"id":7,"name":"new"}`
	if got := lg.loadAll(keys...); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q", got)
	}
	for i, key := range keys {
		lg.inRedis(key, want[i])
	}
	if s := lg.Stats(); s.Rejected != 1 || s.Fills != 40 {
		t.Errorf("%+v", s)
	}
}

// A connection that is cut while MySQL is read, for idleness say, costs nobody an answer.
func TestHoldCut(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.on(HookSelected, func() { lg.redis.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") })
	lg.want("user:1", user(1))
	lg.inRedis("user:1", user(1))
	if n := lg.rdb.Exists(t.Context(), lg.aux("user:1")).Val(); n != 0 {
		t.Error("the lease is left over")
	}
}

// With something in the journal it is looked at: rows that are deleted are not read, and what is cached is not read again.
func TestHoldBesideJournal(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.write("user:500", user(500))
	lg.remove("user:1")
	lg.remove("user:2")
	for _, sets := range lg.sets { // as a flush that has begun does
		_ = lg.rdb.Rename(t.Context(), sets.dirty, sets.flushing).Err()
	}
	lg.remove("user:3")
	p := lg.journal.Partition([]byte("user:4"))
	lg.rdb.HSet(t.Context(), lg.sets[p].parked, "user:4", `{"mark":"-user:4"}`)
	p = lg.journal.Partition([]byte("user:5"))
	lg.rdb.HSet(t.Context(), lg.sets[p].parked, "user:5", `{"mark":"+user:5"}`)
	lg.rdb.Set(t.Context(), "user:6", "cached", 0)
	lg.scriptsRun()
	got := lg.loadAll("user:1", "user:2", "user:3", "user:4", "user:5", "user:6", "user:7")
	if want := []string{"(nil)", "(nil)", "(nil)", "(nil)", user(5), "cached", user(7)}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%q", got)
	}
	for _, key := range []string{"user:1", "user:2", "user:3", "user:4", "user:5", "user:6", "user:7"} {
		if n := lg.rdb.Exists(t.Context(), lg.aux(key)).Val(); n != 0 {
			t.Errorf("the lease of %s is left over", key)
		}
	}
	if s := lg.Stats(); s.Gone != 4 || s.Hits != 1 || s.Fills != 2 || s.Waits != 0 {
		t.Errorf("%+v", s)
	}
}

// If Redis does not tell what is deleted, nothing is read from MySQL, where the row may still be.
func TestHoldJournalUnread(t *testing.T) {
	for _, command := range []string{"zmscore", "hmget"} {
		lg := users(t, loaderSetup{})
		lg.remove("user:1")
		lg.redis.Do("ACL", "SETUSER", "default", "-"+command)
		if got := lg.load("user:1"); got.err == nil || !strings.Contains(got.err.Error(), "NOPERM") {
			t.Errorf("without %s: %v", command, got)
		}
		lg.inRedis("user:1", "")
	}
}

// Without the rights to it nothing is held, and no reader waits for a lease that was taken on the way.
func TestHoldDenied(t *testing.T) {
	for _, command := range []string{"multi", "exec", "watch"} {
		t.Run(command, func(t *testing.T) {
			lg := users(t, loaderSetup{})
			lg.redis.Do("ACL", "SETUSER", "default", "-"+command)
			if got := lg.loadAll("user:1", "user:2"); got[0] != user(1) || got[1] != user(2) {
				t.Errorf("%q", got)
			}
			lg.inRedis("user:1", user(1))
			lg.want("user:3", user(3))
			if s := lg.Stats(); s.Waits != 0 || s.Fills != 3 || !lg.holds.denied.Load() {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A round that comes to nothing leaves nothing watched on the connection that others have after it.
func TestHoldGivenUp(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.mysql.Exec(lg.db, "RENAME TABLE users TO away")
	lg.want("user:1", lg.load("user:2").String()) // an error
	for range 2 * controlConns {
		_, err := lg.rdb.TxPipelined(t.Context(), func(tx redis.Pipeliner) error {
			tx.Set(t.Context(), lg.aux("user:1"), "x", 0)
			tx.Set(t.Context(), lg.aux("user:2"), "x", 0)
			return nil
		})
		if err != nil {
			t.Fatalf("a transaction of somebody else: %v", err)
		}
	}
	harness.Until(t, "the places are free", func() bool { return len(lg.holds.places) == 0 })
}

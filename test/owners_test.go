package test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"keyrow/test/harness"
)

// twoProcesses are two keyrow processes on one Redis and one MySQL. A process that is silent for longer than the
// session timeout loses its partitions to the other.
var twoProcesses = map[string]string{"journal.session_timeout": "1s", "mysql.timeout": "1s"}

// The process that owns the partitions is paused at a point of its flush, for longer than its session lasts, while the
// other takes over and goes on writing the same keys. When it is resumed it must change nothing any more.
func TestOwnerPausedAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"flush.swept", "flush.read", "flush.before-commit", "flush.committed", "flush.settled"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, point)
			first := openShop(t, harness.Options{Hooks: hooks, Set: twoProcesses})
			first.owns()
			second := first.second(nil)

			w := newTraffic(t, 4, 40)
			w.start(second.Addr)
			for range rand.IntN(10) {
				hooks.Wait(point).Release()
			}
			hooks.Wait(point)
			w.more(50) // writes that the owner, held there, may or may not have seen
			first.Pause()
			hooks.ReleaseAll()
			second.owns()
			w.more(100) // some of these are flushed by now
			first.Resume()
			w.more(100)
			w.stop()
			first.Settled()
			w.check(first)

			// Both go on, and the first takes its part again when the second ends.
			w.start(first.Addr)
			second.Kill()
			w.more(100)
			w.stop()
			first.owns()
			first.rest()
			w.check(first)
		})
	}
}

// The worst moment for a late owner to go on: the new one has flushed what the late one was at, the key was written
// again, and its new mark has just been taken over.
func TestOwnerResumedAtTheWorstMoment(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"flush.swept", "flush.read", "flush.before-commit", "flush.committed", "flush.settled"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			set := map[string]string{"journal.partitions": "1", "journal.session_timeout": "1s"}
			late, new := harness.NewHooks(t, point), harness.NewHooks(t, "flush.swept")
			first := openShop(t, harness.Options{Hooks: late, Set: set})
			first.want("OK", "SET", "acct:1", `{"n":1,"twin":"1"}`)
			first.want("OK", "SET", "acct:2", `{"n":1,"twin":"1"}`)
			late.Wait(point)
			first.want("OK", "SET", "acct:3", `{"n":1,"twin":"1"}`)
			first.Pause()
			late.ReleaseAll()
			second := first.second(nil)
			second.Settled()
			second.Kill()

			third := first.second(new)
			third.want("OK", "SET", "acct:1", `{"n":2,"twin":"2"}`)
			new.Wait("flush.swept")
			third.want("1", "DEL", "acct:2")
			first.Resume()
			harness.Until(t, "the late owner knows that it is none", func() bool {
				return first.info("owned_partitions") == 0 && first.info("flush_retries") > 0
			})
			new.ReleaseAll()
			first.rest()
			if got := fmt.Sprint(first.table("SELECT id, n FROM accounts ORDER BY id")); got != "[[1 2] [3 1]]" {
				t.Errorf("mysql has %s", got)
			}
		})
	}
}

// The same at any moment, again and again, by turns.
func TestOwnersPausedByTurns(t *testing.T) {
	t.Parallel()
	a := openShop(t, harness.Options{Set: twoProcesses})
	b := a.second(nil)
	w := newTraffic(t, 6, 60)
	random := rand.New(rand.NewPCG(w.seed, 1))
	for range 4 {
		w.start(b.Addr)
		w.more(1 + random.Int64N(500))
		a.Pause()
		b.owns()
		w.more(1 + random.Int64N(500))
		a.Resume()
		w.more(1 + random.Int64N(500))
		w.stop()
		a, b = b, a
	}
	a.rest()
	w.check(a)
}

// Two processes that both take writes and reads of the same keys, one client after the other on each key.
func TestTwoProcessesAlternate(t *testing.T) {
	t.Parallel()
	a := openShop(t, harness.Options{Set: twoProcesses})
	b := a.second(nil)
	for i := range 300 {
		one, other := a, b
		if i%2 == 1 {
			one, other = b, a
		}
		key, image := account(i%7, int64(i))
		one.want("OK", "SET", key, image)
		other.want(image, "GET", key)
		switch i % 5 {
		case 1:
			other.want("1", "DEL", key)
			one.want("nil", "GET", key)
		case 2:
			_, next := account(i%7, int64(1000+i))
			other.want("OK", "SET", key, next, "PXAT", 1)
			one.want(next, "GET", key)
		case 3:
			a.Settled()
			a.Redis.Do("DEL", key)
			other.want(image, "GET", key)
		}
	}
	a.rest()
	seen := map[string]bool{}
	for _, row := range a.table("SELECT id, n FROM accounts") {
		seen[row[0]] = true
		a.want(fmt.Sprintf(`{"id":%s,"n":%s,"twin":"%[2]s"}`, row[0], row[1]), "GET", "acct:"+row[0])
	}
	for i := range 7 {
		if key, _ := account(i, 0); !seen[fmt.Sprint(i)] {
			a.want("nil", "GET", key)
		}
	}
}

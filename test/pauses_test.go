package test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/go-sql-driver/mysql"

	"keyrow/test/harness"
)

const pauseShops = 4

var pauses = flag.Int("pauses", 48, "how often TestOwnerIsLate pauses an owner; 100 takes a minute or two")

// The process that owns the partitions is paused, again and again, at random points of its flush, and meanwhile its session
// in MySQL ends: by its timeout, or because somebody kills it, which takes less time. Another takes over, writes and deletes the same rows and
// is done; then the first is resumed. By the time it knows that it owns nothing any more, no row has changed: it committed
// nothing late, and brought back no row that was deleted.
func TestOwnerIsLate(t *testing.T) {
	t.Parallel()
	for part := range pauseShops {
		t.Run(strconv.Itoa(part), func(t *testing.T) {
			t.Parallel()
			owner := &flushing{hooks: harness.NewHooks(t, flushPoints...)}
			owner.hooks.Arm()
			owner.shop = openShop(t, harness.Options{Hooks: owner.hooks, Set: twoProcesses})
			owner.owns()
			other := &flushing{hooks: harness.NewHooks(t, flushPoints...)}
			other.hooks.Arm()
			other.shop = owner.second(other.hooks)
			w := newTraffic(t, 4, 40)
			random := rand.New(rand.NewPCG(w.seed, 1))
			for range (*pauses + pauseShops - 1) / pauseShops {
				w.start(other.Addr)
				w.more(1 + random.Int64N(30))
				owner.halt(random)
				w.more(1 + random.Int64N(30)) // which the owner may have seen or not
				other.owns()
				w.more(1 + random.Int64N(30))
				w.stop()
				other.Settled()
				w.check(other.shop)
				before := other.table("SELECT id, n, twin FROM accounts ORDER BY id")
				owner.Resume()
				harness.Until(t, "the late owner knows that it is none", func() bool { return owner.info("owned_partitions") == 0 })
				if after := other.table("SELECT id, n, twin FROM accounts ORDER BY id"); fmt.Sprint(after) != fmt.Sprint(before) {
					t.Fatalf("the late owner changed the rows from\n%v to\n%v", before, after)
				}
				owner, other = other, owner
			}
			owner.rest()
			w.check(owner.shop)
		})
	}
}

// flushing is a process that can be held in its flush.
type flushing struct {
	*shop
	hooks *harness.Hooks
}

// halt pauses the process at a random point of a flush, or at any moment, and has it lose its session.
func (f *flushing) halt(random *rand.Rand) {
	f.t.Helper()
	if random.IntN(4) > 0 {
		point := flushPoints[random.IntN(len(flushPoints))]
		f.hooks.Arm(point)
		for range random.IntN(5) {
			f.hooks.Wait(point).Release()
		}
		f.hooks.Wait(point)
	}
	f.Pause()
	f.hooks.ReleaseAll()
	if random.IntN(3) > 0 {
		f.endSessions()
	}
}

// endSessions has MySQL end the sessions that own the partitions.
func (f *flushing) endSessions() {
	f.t.Helper()
	var ids []string
	for p := range 4 {
		if id := f.row("SELECT IS_USED_LOCK(?)", fmt.Sprintf("%s:%d", f.prefix, p)); id != "NULL" {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		_, err := f.MySQL.DB(f.DB).Exec("KILL " + id)
		var gone *mysql.MySQLError
		if err != nil && !(errors.As(err, &gone) && gone.Number == 1094) { // its timeout was faster
			f.t.Fatal(err)
		}
	}
}

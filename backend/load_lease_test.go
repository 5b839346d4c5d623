package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// What was read from MySQL before a write never lands in Redis after it, and is not answered either.
func TestLoadLosesToWrite(t *testing.T) { eitherWay(t, testLoadLosesToWrite) }

func testLoadLosesToWrite(t *testing.T, setup loaderSetup) {
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
				lg := users(t, setup)
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
func TestLoadNoRowLosesToWrite(t *testing.T) { eitherWay(t, testLoadNoRowLosesToWrite) }

func testLoadNoRowLosesToWrite(t *testing.T, setup loaderSetup) {
	lg := users(t, setup)
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
func TestLoadJoinedLate(t *testing.T) { eitherWay(t, testLoadJoinedLate) }

func testLoadJoinedLate(t *testing.T, setup loaderSetup) {
	lg := users(t, setup)
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
func TestLoadJoinedLateDirect(t *testing.T) { eitherWay(t, testLoadJoinedLateDirect) }

func testLoadJoinedLateDirect(t *testing.T, setup loaderSetup) {
	setup.timeout = 100 * time.Millisecond
	lg := users(t, setup)
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
func TestLoadLeaseOfAnother(t *testing.T) { eitherWay(t, testLoadLeaseOfAnother) }

func testLoadLeaseOfAnother(t *testing.T, setup loaderSetup) {
	setup.timeout = 100 * time.Millisecond
	lg := users(t, setup)
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
func TestLoadFilledByAnother(t *testing.T) { eitherWay(t, testLoadFilledByAnother) }

func testLoadFilledByAnother(t *testing.T, setup loaderSetup) {
	lg := users(t, setup)
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
func TestLoadLeaseAlwaysLost(t *testing.T) { eitherWay(t, testLoadLeaseAlwaysLost) }

func testLoadLeaseAlwaysLost(t *testing.T, setup loaderSetup) {
	lg := users(t, setup)
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

// Readers, writers and deleters of few keys at once: nobody reads what was overwritten before they asked.
func TestLoadNeverStale(t *testing.T) { eitherWay(t, testLoadNeverStale) }

func testLoadNeverStale(t *testing.T, setup loaderSetup) {
	lg := users(t, setup)
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

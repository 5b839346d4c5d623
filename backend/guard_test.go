package backend

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"keyrow/mapping"
	"keyrow/test/harness"
)

// Once MySQL is known not to answer, reads fail at once; one of them tries it now and then, and ends it.
func TestBreaker(t *testing.T) {
	for _, test := range []struct {
		name      string
		end, mend func(*harness.MySQL)
	}{
		{"down", (*harness.MySQL).Kill, (*harness.MySQL).Restart},
		{"hanging", (*harness.MySQL).Pause, (*harness.MySQL).Resume},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			my := harness.StartMySQL(t)
			lg := users(t, loaderSetup{mysql: my, timeout: 2 * time.Second})
			lg.want("user:1", user(1))

			test.end(my)
			if got := lg.load("user:2").String(); !strings.HasPrefix(got, "DBDOWN keyrow: mysql failed: ") {
				t.Error(got)
			}
			harness.Until(t, "the breaker opens", func() bool { return lg.Stats().Silent })
			harness.Until(t, "a read fails unsent", func() bool {
				return strings.HasPrefix(lg.load("user:2").String(), "DBDOWN keyrow: mysql does not answer: ")
			})
			if s := lg.Stats(); s.Opened != 1 || s.Broken == 0 {
				t.Errorf("%+v", s)
			}
			if n := lg.rdb.Exists(t.Context(), lg.aux("user:2")).Val(); n != 0 {
				t.Error("the lease is left over")
			}
			lg.want("user:1", user(1)) // what is cached stays

			test.mend(my)
			harness.Until(t, "the row is read", func() bool { return lg.load("user:2").String() == user(2) })
			if s := lg.Stats(); s.Silent || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A table that is locked, a query that is too slow and one that fails are no reason to think that MySQL does not answer.
func TestBreakerOfOneTable(t *testing.T) {
	slow := mapping.DefaultQuery()
	slow.Name, slow.Key, slow.SQL = "slow", "slow", "SELECT id, SLEEP(60) FROM users WHERE id < 3"
	lg := users(t, loaderSetup{
		tables:  "CREATE TABLE other (id INT PRIMARY KEY); INSERT INTO other VALUES (1);",
		queries: []mapping.QueryConfig{slow},
		mappings: []mapping.Config{func() mapping.Config {
			c := usersMapping()
			c.Name, c.Key, c.Table = "other", "other:{id}", "other"
			return c
		}()},
		timeout: time.Second,
	})
	lg.guard.ping = openMySQL(t, MySQLConfig{DSN: lg.mysql.DSN(lg.db), MaxOpen: 1, Timeout: 30 * time.Second}).PingContext
	lg.mysql.Exec(lg.db, "DROP TABLE other")
	conn, err := lg.mysql.DB(lg.db).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer conn.ExecContext(t.Context(), "UNLOCK TABLES") //nolint:errcheck // the connection goes back to a pool
	if _, err := conn.ExecContext(t.Context(), "LOCK TABLES users WRITE"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"user:1", "slow"} {
		if got := lg.load(key).String(); !strings.HasPrefix(got, "DBDOWN keyrow: mysql failed: ") {
			t.Errorf("%s: %s", key, got)
		}
	}
	if got := lg.load("other:1").String(); !strings.HasPrefix(got, "DBDOWN keyrow: mysql failed: Error 1146") {
		t.Error(got)
	}
	lg.Close() // waits for the pings
	if s := lg.Stats(); s.Opened != 0 || s.Broken != 0 {
		t.Errorf("%+v", s)
	}
}

// max_selects keeps reads waiting for the timeout at most, and those that wait go together.
func TestMaxSelects(t *testing.T) {
	hourly := usersMapping()
	hourly.Name, hourly.Key, hourly.MaxSelects = "hourly", "hourly:{id}", 1.0/3600
	often := usersMapping()
	often.Name, often.Key, often.MaxSelects = "often", "often:{id}", 100
	ranking := mapping.DefaultQuery()
	ranking.Name, ranking.Key, ranking.SQL = "rank", "rank", "SELECT id FROM users LIMIT 1"
	ranking.MaxSelects = 1.0 / 60
	lg := users(t, loaderSetup{mappings: []mapping.Config{hourly, often}, queries: []mapping.QueryConfig{ranking}})
	lg.want("hourly:1", user(1))
	lg.want("hourly:2", `DBDOWN keyrow: mapping "hourly" has as many SELECTs as its max_selects = "1/h" allows, `+
		`so the turn of this read does not come within 30s: nothing was read, try again`)
	lg.want("hourly:1", user(1))
	if n := lg.rdb.Exists(t.Context(), lg.aux("hourly:2")).Val(); n != 0 {
		t.Error("the lease is left over")
	}
	lg.want("rank", `[{"id":1}]`)
	lg.rdb.Del(t.Context(), "rank")
	if got := lg.load("rank").String(); !strings.Contains(got, `query "rank" has as many SELECTs as its max_selects = "1/m" allows`) {
		t.Error(got)
	}
	if s := lg.Stats(); s.Selects != 2 || s.Throttled != 2 || s.Opened != 0 {
		t.Errorf("%+v", s)
	}

	var answers []<-chan answer
	for id := range 40 {
		answers = append(answers, lg.start(lg.Loader, fmt.Sprintf("often:%d", id+1)))
		lg.want(fmt.Sprintf("often:%d", id+41), user(id+41))
	}
	for id, a := range answers {
		if got := <-a; got.String() != user(id+1) {
			t.Errorf("often:%d: %s", id+1, got)
		}
	}

	answers = nil
	lg.on(HookGranted, func() {
		for id := 101; id <= 140; id++ {
			answers = append(answers, lg.start(lg.Loader, fmt.Sprintf("often:%d", id)))
		}
	})
	before := lg.Stats().Selects
	lg.want("often:100", user(100))
	for _, a := range answers {
		<-a
	}
	if n := lg.Stats().Selects - before; n != 2 {
		t.Errorf("%d SELECTs for those who came during one, want 1 besides", n)
	}
}

// A read whose SELECT does not begin within the timeout is not begun any more.
func TestLoadOverdue(t *testing.T) {
	lg := users(t, loaderSetup{})
	var late, soon <-chan answer
	lg.on(HookGranted, func() {
		q, resume := lg.alone("user:1")
		defer resume()
		late, soon = lg.start(lg.Loader, "user:2"), lg.start(lg.Loader, "user:3")
		lg.mu.Lock()
		defer lg.mu.Unlock()
		q.loads["user:2"].since = time.Now().Add(-time.Minute)
	})
	lg.want("user:1", user(1))
	if got := (<-late).String(); got != "DBDOWN keyrow: mysql is too slow for all that is read: the turn of this read did not come within 30s: "+
		"nothing was read, try again" {
		t.Error(got)
	}
	if got := (<-soon).String(); got != user(3) {
		t.Error(got)
	}
	lg.want("user:2", user(2))
	if s := lg.Stats(); s.Overdue != 1 || s.Errors != 1 {
		t.Errorf("%+v", s)
	}
}

// No more than mysql.max_waiting wait, whoever they wait for.
func TestLoadCrowded(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.SetMaxWaiting(3)
	var answers []<-chan answer
	lg.on(HookGranted, func() {
		_, resume := lg.alone("user:1")
		defer resume()
		for _, key := range []string{"user:1", "user:2", "user:1", "user:3"} {
			answers = append(answers, lg.start(lg.Loader, key))
		}
	})
	lg.want("user:1", user(1))
	const full = "DBDOWN keyrow: 3 reads wait for mysql, as many as mysql.max_waiting allows: nothing was read, try again"
	for i, want := range []string{user(1), user(2), full, full} {
		if got := (<-answers[i]).String(); got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
	lg.want("user:3", user(3))
	if s := lg.Stats(); s.Crowded != 2 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
}

// Warming and comparing take their turns among the SELECTs of the mapping, however long that takes.
func TestMaxSelectsOfWarmAndVerify(t *testing.T) {
	const most = 20
	const burst = most / 10
	slow := usersMapping()
	slow.Name, slow.Key, slow.MaxSelects = "slow", "slow:{id}", most
	lg := users(t, loaderSetup{mappings: []mapping.Config{slow}, timeout: 300 * time.Millisecond})
	m := lg.set.All()[0]
	started := time.Now()
	if r, err := lg.Warm(t.Context(), WarmOptions{Mapping: m, Parallel: 4}); err != nil || r.Cached != 1000 {
		t.Errorf("%+v, %v", r, err)
	}
	if s, _ := lg.verify(m, VerifyOptions{}); s.Same != 1000 {
		t.Errorf("%+v", s)
	}
	const selects = 3 * (1000/roundKeys + 1) // of the keys, of the rows, and of the rows again
	if least := time.Duration(selects-burst) * time.Second / most; time.Since(started) < least {
		t.Errorf("%d SELECTs took %v, and %v are the least", selects, time.Since(started), least)
	}
	if s := lg.Stats(); s.Throttled != 0 {
		t.Errorf("%+v", s)
	}
}

// While MySQL does not answer, warming and comparing do not ask it either.
func TestBreakerOfWarmAndVerify(t *testing.T) {
	lg := users(t, loaderSetup{})
	m := lg.set.All()[0]
	lg.warm(m)
	lg.guard.ping = func(context.Context) error { return errors.New("gone") }
	unsent := func(what string, do func() error) {
		harness.Until(t, what+" fails unsent", func() bool {
			// The breaker lets one through now and then.
			_ = lg.guard.attempt(func() error { return driver.ErrBadConn })
			harness.Until(t, "the breaker is open", func() bool { return lg.Stats().Silent })
			err := do()
			return err != nil && strings.Contains(err.Error(), "mysql does not answer: gone")
		})
	}
	unsent("warming", func() error {
		_, err := lg.Warm(t.Context(), WarmOptions{Mapping: m, Parallel: 1})
		return err
	})
	unsent("comparing", func() error {
		_, err := lg.Verify(t.Context(), VerifyOptions{Mapping: m, Set: lg.set})
		return err
	})
}

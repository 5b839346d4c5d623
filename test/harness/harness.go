// Package harness starts the real servers the tests need, each in a folder and on a port of its own, and makes sure
// that none of them outlives the test process.
//
//	r := harness.StartRedis(t)            // redis-server, stopped at the end of the test
//	m := harness.SharedMySQL(t)           // one mariadbd for the whole test process
//	db := m.NewDB(t)                      // a database in it, dropped at the end of the test
//	m.Exec(db, "CREATE TABLE users (…)")
//	k := harness.StartKeyrow(t, harness.Options{Redis: r, MySQL: m, DB: db, Config: `[[mapping]] …`})
//	k.Do("SET", "user:1", `{"id":1}`)
//	k.Settled()                           // the journal is empty
//	k.Equal(harness.Rows{Pattern: "user:{id}", Table: "users"})
//
// Linux only. What a server logged is printed when its test fails.
package harness

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// Patience is how long the harness waits for anything: far longer than it takes on a slow machine, so that running
// into it is a finding and not an accident.
const Patience = 30 * time.Second

var errPatience = errors.New("still not so after " + Patience.String())

// Until waits until done returns true and fails the test when that does not happen within [Patience]. What names the
// condition: "the row is there".
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	err := poll(Patience, func() error {
		if done() {
			return nil
		}
		return errPatience
	})
	if err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// Wait is Until for goroutines that may not fail the test: it calls try until it returns nil, and returns its last error
// when that does not happen within [Patience].
func Wait(try func() error) error { return poll(Patience, try) }

// errGiveUp wraps an error that no further try would mend.
type errGiveUp struct{ error }

func (e errGiveUp) Unwrap() error { return e.error }

// poll calls try every few milliseconds until it returns nil or errGiveUp, and returns its last error after limit.
func poll(limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		if giveUp, ok := errors.AsType[errGiveUp](err); ok {
			return giveUp.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (waited %v)", err, limit)
		case <-tick.C:
		}
	}
}

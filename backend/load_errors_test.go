package backend

import (
	"errors"
	"strings"
	"testing"
	"time"

	"keyrow/test/harness"
)

// A full Redis still answers reads; nothing is cached.
func TestLoadRedisFull(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.on(HookSelected, func() { lg.redis.Do("CONFIG", "SET", "maxmemory", "1") })
	lg.want("user:1", user(1)) // full at the fill
	lg.inRedis("user:1", "")
	lg.want("user:2", user(2)) // full at the acquire
	lg.want("user:5000", "(nil)")
	if s := lg.Stats(); s.Uncached != 1 || s.Direct != 2 || s.Errors != 0 {
		t.Errorf("%+v", s)
	}
}

// A key that holds something else is an error of that key alone.
func TestLoadWrongType(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.redis.Do("RPUSH", "user:1", "x")
	var answers []<-chan answer
	lg.on(HookGranted, func() {
		_, resume := lg.alone("user:9")
		defer resume()
		for _, key := range []string{"user:1", "user:2", "user:3"} {
			answers = append(answers, lg.start(lg.Loader, key))
		}
	})
	lg.want("user:9", user(9))
	for i, want := range []string{
		"WRONGTYPE Operation against a key holding the wrong kind of value", user(2), user(3),
	} {
		if got := <-answers[i]; got.String() != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	lg.on(HookSelected, func() { lg.redis.Do("RPUSH", "user:4", "x") })
	lg.want("user:4", "WRONGTYPE Operation against a key holding the wrong kind of value")
}

// Scripts that Redis forgot are loaded again.
func TestLoadScriptsUnknown(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.redis.Do("SCRIPT", "FLUSH")
	lg.on(HookSelected, func() { lg.redis.Do("SCRIPT", "FLUSH") })
	lg.want("user:1", user(1))
	lg.inRedis("user:1", user(1))
}

func TestLoadMySQLFails(t *testing.T) {
	my := harness.StartMySQL(t)
	lg := users(t, loaderSetup{mysql: my, timeout: 5 * time.Second})
	lg.want("user:1", user(1))

	my.Kill()
	var answers []<-chan answer
	lg.on(HookGranted, func() {
		for range 100 {
			answers = append(answers, lg.start(lg.Loader, "user:2"))
		}
	})
	first := lg.load("user:2")
	for i := range answers {
		got := <-answers[i]
		if got.String() != first.String() {
			t.Fatalf("%v, but the first got %v", got, first)
		}
		var err *Error
		if !errors.As(got.err, &err) || err.Code != CodeDBDown {
			t.Fatalf("%v, want DBDOWN", got)
		}
	}
	if n := lg.rdb.Exists(t.Context(), lg.aux("user:2")).Val(); n != 0 {
		t.Error("the lease is left over")
	}
	lg.want("user:1", user(1)) // what is cached stays

	my.Restart()
	harness.Until(t, "the row is read", func() bool { return lg.load("user:2").String() == user(2) })
}

// A MySQL that does not answer is given up after the timeout.
func TestLoadMySQLHangs(t *testing.T) {
	my := harness.StartMySQL(t)
	lg := users(t, loaderSetup{mysql: my, timeout: 200 * time.Millisecond})
	lg.want("user:1", user(1))
	my.Pause()
	defer my.Resume()
	if got := lg.load("user:2"); !strings.HasPrefix(got.String(), "DBDOWN keyrow: mysql failed: ") {
		t.Error(got)
	}
}

func TestLoadTableGone(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.mysql.Exec(lg.db, "DROP TABLE users")
	if got := lg.load("user:2"); !strings.HasPrefix(got.String(), "DBDOWN keyrow: mysql failed: Error 1146") {
		t.Error(got)
	}
}

func TestLoadRedisFails(t *testing.T) {
	lg := users(t, loaderSetup{})
	lg.want("user:1", user(1))
	lg.on(HookSelected, lg.redis.Kill)
	for _, key := range []string{"user:2", "user:3"} { // at the fill, at the acquire
		var err *Error
		if got := lg.load(key); !errors.As(got.err, &err) || err.Code != CodeUpstream {
			t.Errorf("%s: %v, want UPSTREAM", key, got)
		}
	}
	lg.redis.Restart()
	lg.want("user:3", user(3))
}

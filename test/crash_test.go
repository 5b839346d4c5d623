package test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// keyrow is killed at every labelled point of its code while clients write, delete and read, and started again: what
// was acknowledged is there.
func TestKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	for _, point := range []string{
		"set.before-exec", "set.after-exec",
		"flush.swept", "flush.read", "flush.before-commit", "flush.committed", "flush.settled",
		"load.granted", "load.selected", "load.filled",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))

			hooks := harness.NewHooks(t, point)
			s := openShop(t, harness.Options{Hooks: hooks, Set: map[string]string{"mysql.timeout": "1s"}})
			w := newTraffic(t, 4, 40)
			w.start(s.Addr)
			for range random.IntN(20) {
				hooks.Wait(point).Release()
			}
			hooks.Wait(point)
			if strings.HasPrefix(point, "flush.") {
				w.more(50) // the flush is held, the clients are not
			}
			s.Kill()
			hooks.ReleaseAll()
			w.stop()

			s.Start()
			w.start(s.Addr)
			w.more(100)
			w.stop()
			s.rest()
			w.check(s)
		})
	}
}

// keyrow is killed at any moment, several times in a row, and is never missed for more than the time it is away.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"mysql.timeout": "1s", "journal.batch": "8"}})
	w := newTraffic(t, 8, 80)
	random := rand.New(rand.NewPCG(w.seed, 1))
	for range 6 {
		w.start(s.Addr)
		w.more(1 + random.Int64N(1000))
		s.Kill()
		w.stop()
		s.Start()
	}
	s.rest()
	w.check(s)
	if w.refused.Load() > 0 {
		t.Errorf("%d commands were refused", w.refused.Load())
	}
}

// A SET that was killed before its answer is there as a whole or not at all: its image, its mark and the end of the
// lease belong together, and so do the keys of an MSET.
func TestKilledDuringMSet(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		point   string
		applied bool
	}{
		{"set.before-exec", false},
		{"set.after-exec", true},
	} {
		t.Run(test.point, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, test.point)
			s := openShop(t, harness.Options{Hooks: hooks})
			s.sql("INSERT INTO accounts VALUES (0, 1, '1')")
			s.want(`{"id":0,"n":1,"twin":"1"}`, "GET", "acct:0")
			args := []string{"MSET", "plain", "x"}
			for i := range 20 {
				key, image := account(i, 2)
				args = append(args, key, image)
			}
			dial(t, s.Addr).send(encode(args...))
			hooks.Wait(test.point)
			s.Kill()
			hooks.ReleaseAll()
			s.Start()
			s.rest()
			want, plain := "1 1", "nil"
			if test.applied {
				want, plain = "20 40", "x"
			}
			if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(n)) FROM accounts"); got != want {
				t.Errorf("mysql has %s rows and sum, want %s", got, want)
			}
			s.want(plain, "GET", "plain")
		})
	}
}

// One key that MySQL has locked for ever, so that the flush is never through, does not keep the others from being
// safe when keyrow is killed.
func TestKilledWhileARowIsLocked(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"journal.partitions": "1"}})
	s.sql("INSERT INTO accounts VALUES (7, 0, '0')")
	tx, err := s.MySQL.DB(s.DB).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("SELECT * FROM accounts WHERE id = 7 FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		key, image := account(i, 5)
		s.want("OK", "SET", key, image)
	}
	harness.Until(t, "all others are written", func() bool { return s.row("SELECT COUNT(*) FROM accounts WHERE n = 5") == "19" })
	s.Kill()
	s.Start()
	s.want("OK", "SET", "acct:7", `{"n":6,"twin":"6"}`)
	s.Kill()
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	s.Start()
	s.rest()
	if got := s.row("SELECT CONCAT(COUNT(*), ' ', SUM(n)) FROM accounts"); got != fmt.Sprint("20 ", 19*5+6) {
		t.Errorf("mysql has %s rows and sum", got)
	}
}

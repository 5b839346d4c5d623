package backend

import (
	"testing"
	"time"

	"keyrow/test/harness"
)

// oneSecond makes a session die as fast as MySQL can.
func oneSecond(c *JournalConfig) { c.SessionTimeout, c.Partitions = time.Second, 1 }

// The interleaving that the comment of owner describes.
func TestOwnerIsFenced(t *testing.T) {
	fl := newAccounts(t, flushSetup{journal: oneSecond})
	committed := newGate()
	a := fl.start(hooked(HookCommitted, committed.pass))
	fl.account(1, 1)
	<-committed.reached // a has written 1 and is paused for longer than its session lasts

	settled, swept := newGate(), newGate()
	b := fl.start(
		hooked(HookSettled, settled.pass),
		hooked(HookSwept, func() {
			select {
			case <-settled.reached:
				swept.pass() // the second sweep
			default:
			}
		}),
	)
	<-settled.reached // b owns the partition and has settled the mark that a is about to settle
	fl.account(1, 2)
	close(settled.open)
	<-swept.reached // b took over the newer mark

	refused := a.Snapshot().Retries
	close(committed.open)
	harness.Until(t, "a is refused", func() bool { return a.Snapshot().Retries > refused })
	close(swept.open)
	fl.drained(b)
	// Had a settled the newer mark, nothing would have been left to drain.
	fl.want("SELECT balance FROM accounts", "2")
}

// An owner that is paused before its commit has lost its transaction with its session.
func TestOwnerCannotCommitLate(t *testing.T) {
	fl := newAccounts(t, flushSetup{journal: oneSecond})
	before := newGate()
	a := fl.start(hooked(HookBeforeCommit, before.pass))
	fl.account(1, 1)
	<-before.reached
	fl.account(1, 2)
	b := fl.start()
	fl.drained(b)
	fl.want("SELECT balance FROM accounts", "2")
	close(before.open)
	harness.Until(t, "a is refused", func() bool { return a.Snapshot().Retries > 0 })
	fl.account(2, 0)
	fl.drained(a)
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts", "2,0")
}

// What was committed and not settled is written again.
func TestOwnerEndsBeforeSettle(t *testing.T) {
	fl := newAccounts(t, flushSetup{journal: func(c *JournalConfig) { c.Partitions = 1 }})
	fl.mysql.Exec(fl.db, "INSERT INTO accounts VALUES (3, 3)")
	fl.account(1, 1)
	fl.account(2, 2)
	fl.remove("account:3")
	committed := newGate()
	a := fl.start(hooked(HookCommitted, committed.pass))
	<-committed.reached
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts", "1,2")
	a.cancel()
	close(committed.open)
	a.stop()
	if n := fl.rdb.ZCard(t.Context(), string(fl.keys.AppendFlushing(nil, 0))).Val(); n != 3 {
		t.Fatalf("%d marks are left in flushing", n)
	}
	fl.account(2, 5)
	fl.drained(fl.start())
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts", "1,5")
	harness.Settled(t, fl.rdb, fl.cfg.Prefix)
}

// The owner that ends gives its partitions to the one that waits, and idles on without losing them.
func TestOwnersTakeTurns(t *testing.T) {
	fl := newAccounts(t, flushSetup{journal: func(c *JournalConfig) { c.SessionTimeout = 2 * time.Second }})
	owns := func(p *process) int { return len(p.Snapshot().Owned) }
	a := fl.start()
	harness.Until(t, "a owns all", func() bool { return owns(a) == fl.cfg.Partitions })
	b := fl.start()
	fl.account(1, 1)
	fl.drained(b) // by a
	if owns(b) != 0 {
		t.Errorf("b owns %v", b.Snapshot().Owned)
	}
	end := time.Now().Add(3 * time.Second)
	harness.Until(t, "an idle session would have ended", func() bool { return time.Now().After(end) })
	if got := a.Snapshot(); got.Retries != 0 || len(got.Owned) != fl.cfg.Partitions {
		t.Errorf("a, idle: %+v", got)
	}
	a.stop()
	harness.Until(t, "b owns all", func() bool { return owns(b) == fl.cfg.Partitions })
	fl.account(2, 2)
	fl.drained(b)
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts", "1,2")
}

func TestFlushMySQLRestarts(t *testing.T) {
	fl := newAccounts(t, flushSetup{mysql: harness.StartMySQL(t)})
	p := fl.start()
	fl.account(1, 1)
	fl.drained(p)
	fl.mysql.Kill()
	for id := range 20 {
		fl.account(id, 100+id)
	}
	harness.Until(t, "the flusher notices", func() bool { return p.Snapshot().Retries > 0 })
	if got := p.Snapshot(); got.Rows != 1 {
		t.Errorf("without mysql: %+v", got)
	}
	fl.mysql.Restart()
	fl.drained(p)
	fl.want("SELECT COUNT(*) FROM accounts WHERE balance = 100 + id", "20")
	fl.parked(nil)
	harness.Settled(t, fl.rdb, fl.cfg.Prefix)
}

// A connection that breaks in the middle of a commit: whether it was done is unknown, and it is done again.
func TestFlushConnectionCut(t *testing.T) {
	fl := newAccounts(t, flushSetup{journal: func(c *JournalConfig) { c.Partitions, c.Batch = 1, 4 }})
	cuts := 0
	p := fl.start(hooked(HookBeforeCommit, func() {
		if cuts++; cuts%3 == 1 && cuts < 10 {
			fl.mysql.Exec("", "BEGIN NOT ATOMIC FOR s IN (SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '"+fl.db+
				"' AND ID <> CONNECTION_ID()) DO EXECUTE IMMEDIATE CONCAT('KILL ', s.ID); END FOR; END")
		}
	}))
	for id := range 20 {
		fl.account(id, id)
	}
	fl.drained(p)
	fl.want("SELECT COUNT(*) FROM accounts WHERE balance = id", "20")
	if got := p.Snapshot(); got.Retries == 0 {
		t.Errorf("no connection was cut: %+v", got)
	}
}

// A Redis that comes back empty has no fence; the owner starts over.
func TestFlushRedisRestarts(t *testing.T) {
	fl := newAccounts(t, flushSetup{})
	p := fl.start()
	fl.account(1, 1)
	fl.drained(p)
	fl.redis.Kill()
	harness.Until(t, "the flusher notices", func() bool { return p.Snapshot().Retries > 0 })
	fl.redis.Restart()
	// After twenty refusals go-redis answers with the last one, until it has tried again by itself.
	harness.Until(t, "the client connects", func() bool { return fl.rdb.Ping(t.Context()).Err() == nil })
	fl.account(1, 2)
	fl.account(2, 2)
	fl.drained(p)
	fl.want("SELECT GROUP_CONCAT(balance ORDER BY id) FROM accounts", "2,2")
}

// TestYield: who has kept Redis busy for more than an interval leaves it to the clients for some time, but not for ever, and
// not when there is hardly room for what they write.
func TestYield(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		took, inRedis time.Duration
		pending       int64
		want          time.Duration
	}{
		{90 * ms, 80 * ms, 100, 0},
		{110 * ms, 80 * ms, 100, 10 * ms},
		{300 * ms, 120 * ms, 100, 120 * ms},
		{300 * ms, 120 * ms, 499, 120 * ms},
		{300 * ms, 120 * ms, 500, 0},
		{300 * ms, 120 * ms, 49, 0},
		{time.Minute, ms, 100, ms},
		{time.Minute, time.Minute, 100, 500 * ms},
	} {
		j := &Journal{cfg: JournalConfig{Interval: 100 * ms}}
		j.SetMaxPending(1000)
		j.counted.Store(c.pending)
		o := &owner{f: &Flusher{journal: j}, inRedis: c.inRedis, settled: 50}
		if got := o.yield(c.took); got != c.want {
			t.Errorf("after %s, of it %s in Redis, with %d marks: %s, want %s", c.took, c.inRedis, c.pending, got, c.want)
		}
	}
}

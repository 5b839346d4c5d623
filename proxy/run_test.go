package proxy

import (
	"slices"
	"strings"
	"testing"
)

func (c *upstreamConn) run(sets ...string) {
	c.t.Helper()
	keys, auxes := "", ""
	for _, set := range sets {
		key, _, _ := strings.Cut(set, " ")
		keys += " " + key
		auxes += " kr:aux:{" + key + "}"
	}
	if len(sets) > 2 {
		sets = []string{"SET " + sets[0], "MSET " + strings.Join(sets[1:], " ")}
	} else {
		for i, set := range sets {
			sets[i] = "SET " + set
		}
	}
	c.transaction(sets, keys, auxes)
}

// transaction reads the commands of a run that sets keys by those of sets.
func (c *upstreamConn) transaction(sets []string, keys, auxes string) {
	c.t.Helper()
	n := strings.Count(keys, " ")
	c.expect("MULTI")
	for _, set := range sets {
		c.expect(set)
	}
	c.expect("HDEL kr:{0}:expire" + keys)
	c.zadd(n)
	c.expect("DEL" + auxes)
	c.expect("EXEC")
}

// zadd reads the marks of n keys without looking at their times.
func (c *upstreamConn) zadd(n int) {
	c.t.Helper()
	for range 2 * (1 + 3 + 2*n) {
		if _, err := c.in.ReadString('\n'); err != nil {
			c.t.Fatal(err)
		}
		if c.in.Buffered() == 0 {
			continue
		}
		if b, _ := c.in.Peek(1); b[0] == '*' {
			return
		}
	}
}

func TestSetsShareATransaction(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send(`SET user:1 {"name":"a"}`, `SET user:2 {"name":"b"}`, "GET x")
	r.writing()
	up.run(`user:1 {"id":1,"name":"a"}`, `user:2 {"id":2,"name":"b"}`)
	up.send("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*5\r\n+OK\r\n+OK\r\n:0\r\n:2\r\n:0\r\n")
	c.expect("+OK\r\n+OK\r\n")
	up.expect("GET x") // behind the answer, not before
	up.send("$-1\r\n")
	c.expect("$-1\r\n")
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	if r.gate.marked != 2 {
		t.Errorf("the gate was told of %d marks, want 2", r.gate.marked)
	}
}

// Redis refuses one write of a shared transaction: nothing was applied, and each is sent again by itself, before
// anything that the client sent behind them.
func TestRefusedTransactionIsSentApart(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send(`SET user:1 {"name":"a"}`, `SET user:2 {"name":"b"}`, `SET user:3 {"name":"c"}`, "INCR x")
	r.writing()
	up.run(`user:1 {"id":1,"name":"a"}`, `user:2 {"id":2,"name":"b"}`, `user:3 {"id":3,"name":"c"}`)
	up.send("+OK\r\n+QUEUED\r\n-NOPERM no\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n")
	up.run(`user:1 {"id":1,"name":"a"}`)
	up.run(`user:2 {"id":2,"name":"b"}`)
	up.run(`user:3 {"id":3,"name":"c"}`)
	one := "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n:0\r\n:1\r\n:0\r\n"
	up.send(one + "+OK\r\n-NOPERM no\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT x\r\n" + one)
	c.expect("+OK\r\n-NOPERM no\r\n+OK\r\n")
	up.expect("INCR x")
}

// Of many writes Redis gets one SET and one MSET, which answers all the others.
func TestManySetsAreOneMSET(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	three := []string{`user:1 {"id":1,"name":"a"}`, `user:2 {"id":2,"name":"b"}`, `user:3 {"id":3,"name":"c"}`}
	c.send("SET "+three[0], "SET "+three[1], "SET "+three[2])
	r.writing()
	up.run(three...)
	up.send("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*5\r\n+OK\r\n-ERR late\r\n:0\r\n:3\r\n:0\r\n")
	c.expect("+OK\r\n-ERR late\r\n-ERR late\r\n")
}

// A client that may use SET and not MSET is not asked for the latter twice.
func TestManySetsOfWhoMayNotMSET(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	three := []string{`user:1 {"id":1,"name":"a"}`, `user:2 {"id":2,"name":"b"}`, `user:3 {"id":3,"name":"c"}`}
	c.send("SET "+three[0], "SET "+three[1], "SET "+three[2])
	r.writing()
	up.run(slices.Clone(three)...)
	queued := "+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n"
	up.send("+OK\r\n+QUEUED\r\n-NOPERM this user has no permissions to run the 'mset' command\r\n" + queued +
		"-EXECABORT Transaction discarded because of previous errors.\r\n")
	for _, set := range three {
		up.run(set)
	}
	one := "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n:0\r\n:1\r\n:0\r\n"
	up.send(one + one + one)
	c.expect("+OK\r\n+OK\r\n+OK\r\n")

	c.send("SET "+three[0], "SET "+three[1], "SET "+three[2])
	up.transaction([]string{"SET " + three[0], "SET " + three[1], "SET " + three[2]},
		" user:1 user:2 user:3", " kr:aux:{user:1} kr:aux:{user:2} kr:aux:{user:3}")
	up.send("+OK\r\n" + queued + queued + "*6\r\n+OK\r\n+OK\r\n+OK\r\n:0\r\n:0\r\n:0\r\n")
	c.expect("+OK\r\n+OK\r\n+OK\r\n")
}

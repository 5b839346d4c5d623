package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"keyrow/test/harness"
)

// safeConfig is changeConfig with rows that have to be with replicas, but for those of n:{id}.
func safeConfig(replicas int, timeout string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(changeConfig, "[[mapping]]") {
		if b.Len() > 0 {
			b.WriteString("[[mapping]]")
		}
		b.WriteString(part)
		if strings.Contains(part, "name = ") && !strings.Contains(part, `name = "n"`) {
			fmt.Fprintf(&b, "durability = \"replicas\"\nreplicas = %d\nreplicas_timeout = %q\n\n", replicas, timeout)
		}
	}
	return b.String()
}

// openSafe is a process with a Redis that has a replica, or several.
func openSafe(t *testing.T, o harness.Options, timeout string, needed, replicas int) (*shop, []*harness.Redis) {
	t.Helper()
	if o.Redis == nil {
		o.Redis = harness.StartRedis(t, "--repl-diskless-sync-delay", "0", "--appendonly", "yes")
	}
	var copies []*harness.Redis
	for range replicas {
		copies = append(copies, replicaOf(t, o.Redis))
	}
	return openTables(t, changeTables, safeConfig(needed, timeout), o), copies
}

// replicaOf starts a replica of r, and waits until r counts it.
func replicaOf(t *testing.T, r *harness.Redis) *harness.Redis {
	t.Helper()
	host, port, _ := net.SplitHostPort(r.Addr)
	replica := harness.StartRedis(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	harness.Until(t, "the replica follows", func() bool {
		return strings.Contains(fmt.Sprint(r.Do("INFO", "replication")), "port="+replica.Addr[len("127.0.0.1:"):]+",state=online")
	})
	return replica
}

const notReplicated = "NOTREPLICATED keyrow: it was applied, and goes to mysql"

// What is acknowledged is with the replica, whatever wrote it.
func TestReplicasHaveWhatIsAcknowledged(t *testing.T) {
	t.Parallel()
	s, replicas := openSafe(t, harness.Options{}, "1m", 1, 1)
	s.sql("INSERT INTO things (id, name, n, price) VALUES (1, 'a', 10, 1.50), (2, 'b', 20, 2.50), (3, 'c', 30, 3.50), (4, 'd', 40, 4.50)")
	replica := func(reply string, args ...any) {
		t.Helper()
		if got := show(replicas[0].Do(args...), nil); got != reply {
			t.Errorf("the replica answers %v with %s, want %s", args, got, reply)
		}
	}
	for range 5 { // the replica may be fast by chance
		s.want("OK", "SET", "name:1", "x")
		replica("x", "GET", "name:1")
		s.want("OK", "SET", "name:1", "y", "XX")
		replica("y", "GET", "name:1")
		s.want("2", "APPEND", "name:1", "z")
		replica("yz", "GET", "name:1")
		s.want("OK", "MSET", "name:1", "m", "plain", "p", "name:2", "n")
		replica("[m p n]", "MGET", "name:1", "plain", "name:2")
		s.want("0", "MSETNX", "name:1", "m", "plain", "p")
		s.want("1", "DEL", "flat:4")
		replica("0", "EXISTS", "flat:4")
		s.want("1", "HSETNX", "flat:4", "name", "d")
		replica("d", "HGET", "flat:4", "name")
		s.want("OK", "EVAL", "return redis.call('SET', KEYS[1], 'e')", 1, "name:1")
		replica("e", "GET", "name:1")
		p := dial(t, s.Addr)
		p.do("MULTI")
		p.do("SET", "name:1", "t")
		p.do("HINCRBY", "thing:3", "n", "1")
		if got := p.do("EXEC"); !strings.HasPrefix(got, "*2\r\n+OK\r\n:") {
			t.Errorf("EXEC is answered %q", got)
		}
		replica("t", "GET", "name:1")
		p.send(append(append(encode("SET", "name:1", "1"), encode("SET", "name:2", "2")...), encode("GET", "name:2")...))
		for _, want := range []string{"+OK\r\n", "+OK\r\n", "$1\r\n2\r\n"} {
			if got := p.reply(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		replica("[1 2]", "MGET", "name:1", "name:2")
	}
	if waits, writes := s.info("replica_waits"), s.info("replica_waited_writes"); waits == 0 || writes < waits || s.info("replica_missed_writes") != 0 {
		t.Errorf("%d waits for %d writes", waits, writes)
	}
	s.restChanges()
}

// What too few replicas have in time is answered that, after everything that was answered before it; it is applied all the
// same, and reaches MySQL.
func TestReplicasMissing(t *testing.T) {
	t.Parallel()
	s, replicas := openSafe(t, harness.Options{}, "100ms", 1, 1)
	s.sql("INSERT INTO things (id, name, n) VALUES (1, 'a', 10), (2, 'b', 20), (3, 'c', 30), (4, 'd', 40)")
	s.want("a", "GET", "name:1")
	s.want("4", "HLEN", "flat:4")
	replicas[0].Pause()
	missed := func(args ...any) {
		t.Helper()
		s.refused([]string{notReplicated, "after 100ms only 0 of the 1 replicas", "write it again"}, args...)
	}
	missed("SET", "name:1", "x")
	missed("SET", "name:1", "y", "XX")
	missed("APPEND", "name:1", "z")
	missed("MSET", "name:2", "m", "plain", "p")
	missed("EVAL", "return redis.call('SET', KEYS[1], 'e')", 1, "name:3")
	missed("DEL", "flat:4")
	s.want("yz", "GET", "name:1")
	s.want("OK", "SET", "n:1", "11") // which need not be with replicas
	s.refused([]string{"ERR", "syntax"}, "SET", "name:1", "x", "NX", "XX")
	s.want("OK", "EVAL", "return redis.call('SET', KEYS[1], 'plain')", 1, "plain")
	s.refused([]string{"ERR", "wrong"}, "EVAL", "return redis.error_reply('ERR wrong')", 1, "name:3")

	p := dial(t, s.Addr)
	var b []byte
	for _, args := range [][]string{{"SET", "name:1", "1"}, {"GET", "n:1"}, {"SET", "n:1", "12"}, {"SET", "name:1", "2"}, {"SET", "name:2", "3"}, {"PING"}} {
		b = append(b, encode(args...)...)
	}
	p.send(b)
	for _, want := range []string{"-" + notReplicated, "$2\r\n11", "+OK", "-" + notReplicated, "-" + notReplicated, "+PONG"} {
		if got := p.reply(); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	s.Settled() // a flush of name:1 takes the image of n:1 away, and what is queued below needs it at EXEC
	p.do("MULTI")
	for _, args := range [][]string{{"INCR", "n:1"}, {"SET", "name:1", "t"}, {"SET", "name:1", "u", "NX"}, {"GET", "name:1"}, {"HINCRBY", "flat:3", "n", "5"}} {
		if got := p.do(args...); got != "+QUEUED\r\n" {
			t.Errorf("%q is answered %q", args, got)
		}
	}
	p.send(encode("EXEC"))
	for _, want := range []string{"*5\r\n", ":13\r\n", "-" + notReplicated, "-" + notReplicated, "$1\r\n", "t\r\n", "-" + notReplicated} {
		if got := p.line(); !strings.HasPrefix(got, want) {
			t.Errorf("EXEC: got %q, want %q", got, want)
		}
	}
	p.do("MULTI")
	p.do("DEL", "flat:4")
	if got := p.do("EXEC"); !strings.HasPrefix(got, "*1\r\n-"+notReplicated) {
		t.Errorf("EXEC of a DEL alone: got %q", got)
	}
	p.send(append(encode("SET", "name:2", "last"), encode("QUIT")...))
	if got := p.rest(); !strings.HasPrefix(got, "-"+notReplicated) || !strings.HasSuffix(got, "\r\n+OK\r\n") {
		t.Errorf("got %q", got)
	}
	if s.info("replica_missed_writes") == 0 {
		t.Error("nothing is counted")
	}

	s.Settled()
	if got := fmt.Sprint(s.table("SELECT id, name, n FROM things ORDER BY id")); got != "[[1 t 13] [2 last 20] [3 e 35]]" {
		t.Errorf("mysql has %s", got)
	}
	replicas[0].Resume()
	harness.Until(t, "the replica is asked with success", func() bool { return s.show("SET", "name:1", "y") == "OK" })
	replicas[0].Kill()
	missed("SET", "name:1", "z")
	code, stdout, _ := command(t, filepath.Dir(s.Conf), nil, "check")
	if want := `mapping "name" wants each write on 1 replicas, and redis at ` + s.Redis.Addr + " has 0 that are online"; code != 0 || !strings.Contains(stdout, want) {
		t.Errorf("check: exit status %d: %s", code, stdout)
	}
	s.restChanges()
}

// Two of three replicas are enough where two are asked for, and one is not.
func TestReplicasQuorum(t *testing.T) {
	t.Parallel()
	s, replicas := openSafe(t, harness.Options{}, "200ms", 2, 3)
	replicas[0].Pause()
	harness.Until(t, "two replicas are enough", func() bool { return s.show("SET", "name:1", "1") == "OK" })
	replicas[1].Pause()
	harness.Until(t, "one has it and is not", func() bool {
		return strings.Contains(s.show("SET", "name:1", "2"), "only 1 of the 2 replicas")
	})
	replicas[0].Resume()
	replicas[1].Resume()
	s.Settled()
}

// One WAIT serves all writes that came before it.
func TestReplicasShareWait(t *testing.T) {
	t.Parallel()
	s, replicas := openSafe(t, harness.Options{}, "1m", 1, 1)
	replicas[0].Pause()
	const clients, writes = 20, 10
	var done sync.WaitGroup
	var failed atomic.Int64
	for c := range clients {
		p := dial(t, s.Addr)
		done.Go(func() {
			for w := range writes {
				p.send(encode("SET", fmt.Sprintf("name:%d", c*writes+w), "x"))
			}
			for range writes {
				if p.reply() != "+OK\r\n" {
					failed.Add(1)
				}
			}
		})
	}
	harness.Until(t, "all writes are applied", func() bool { return s.info("writes") == clients*writes })
	replicas[0].Resume()
	done.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d writes failed", n)
	}
	// The first one, which those wait for that came meanwhile, and the one that these share.
	stats := fmt.Sprint(s.Redis.Do("INFO", "commandstats"))
	if !strings.Contains(stats, "cmdstat_wait:calls=2,") || s.info("replica_waits") != 2 || s.info("replica_waited_writes") != clients*writes {
		t.Errorf("%s\n%d writes shared %d waits", stats, s.info("replica_waited_writes"), s.info("replica_waits"))
	}
	s.Settled()
}

// Redis goes while a write waits for its replicas: the client is told that nobody knows, and the write is in the journal.
func TestReplicasRedisKilled(t *testing.T) {
	t.Parallel()
	s, replicas := openSafe(t, harness.Options{Set: map[string]string{"journal.interval": "1h"}}, "2s", 1, 1)
	s.want("OK", "SET", "name:1", "1")
	replicas[0].Pause()
	p := dial(t, s.Addr)
	p.send(encode("SET", "name:1", "2"))
	harness.Until(t, "the write is applied", func() bool { return s.Redis.Do("GET", "name:1") == "2" })
	s.Redis.Kill()
	if got := p.reply(); !strings.HasPrefix(got, "-"+notReplicated) || !strings.Contains(got, "redis could not say within 2s whether a replica has it") {
		t.Errorf("got %q", got)
	}
	replicas[0].Resume()
}

// A failover between the write and the WAIT is noticed: the replicas of the new primary say nothing about the write.
func TestReplicasOfAnotherPrimary(t *testing.T) {
	t.Parallel()
	old := harness.StartRedis(t, "--repl-diskless-sync-delay", "0")
	heir := replicaOf(t, old)
	to := newRelay(t, old.Addr)
	s, _ := openSafe(t, harness.Options{Redis: old, Set: map[string]string{"redis.addr": to.addr}}, "1m", 1, 1)
	p := dial(t, s.Addr)
	if got := p.do("GET", "plain"); got != "$-1\r\n" { // over a connection to the old one
		t.Fatal(got)
	}
	heir.Do("REPLICAOF", "NO", "ONE")
	replicaOf(t, heir)
	to.target.Store(&heir.Addr) // connections that are there stay where they are
	if got := p.do("SET", "name:1", "1"); !strings.HasPrefix(got, "-NOTREPLICATED keyrow: it was applied, but redis has another primary since") {
		t.Errorf("got %q", got)
	}
	if got := heir.Do("GET", "name:1"); got != nil {
		t.Errorf("the new primary has %v", got)
	}
}

// A primary that was a replica for a while has another name, and keyrow learns it without connecting anew.
func TestReplicasPrimaryAgain(t *testing.T) {
	t.Parallel()
	s, _ := openSafe(t, harness.Options{}, "1m", 1, 1)
	p := dial(t, s.Addr)
	if got := p.do("SET", "name:1", "1"); got != "+OK\r\n" {
		t.Fatal(got)
	}
	s.Settled()
	s.Redis.Do("REPLICAOF", "127.0.0.1", "1")
	s.Redis.Do("REPLICAOF", "NO", "ONE")
	if got := p.do("SET", "name:1", "2"); !strings.Contains(got, "another primary since") {
		t.Errorf("got %q", got)
	}
	harness.Until(t, "writes are safe again", func() bool { return p.do("SET", "name:1", "3") == "+OK\r\n" })
	s.Settled()
}

// Who may not ask Redis which primary it is cannot write such rows, and changes nothing.
func TestReplicasRights(t *testing.T) {
	t.Parallel()
	s, _ := openSafe(t, harness.Options{}, "1m", 1, 1)
	s.Redis.Do("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-info")
	p := dial(t, s.Addr)
	p.do("AUTH", "app", "pw")
	s.unchanged("what cannot be", func() {
		for _, args := range [][]string{{"SET", "name:1", "1"}, {"APPEND", "name:1", "x"}, {"MSET", "name:1", "1", "plain", "x"}} {
			if got := p.do(args...); !strings.HasPrefix(got, `-ERR keyrow: mapping "name" has durability = "replicas"`) || !strings.Contains(got, "+info, nothing was changed") {
				t.Errorf("%q is answered %q", args, got)
			}
		}
	})
	s.Redis.Do("ACL", "SETUSER", "app", "+info")
	if got := p.do("SET", "n:1", "1"); got != "+OK\r\n" {
		t.Error(got)
	}
	s.Settled()
}

// relay is an address behind which there is one server, and then another.
type relay struct {
	addr   string
	target atomic.Pointer[string]
}

func newRelay(t *testing.T, target string) *relay {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &relay{addr: l.Addr().String()}
	s.target.Store(&target)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", *s.target.Load())
			if err != nil {
				in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				wg.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					way[0].Close()
					way[1].Close()
				})
			}
			context.AfterFunc(ctx, func() { in.Close(); out.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return s
}

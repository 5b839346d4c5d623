package test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"keyrow/test/harness"
)

// MSETNX of rows that are written to MySQL first makes all of them or none.
func TestThroughMsetnx(t *testing.T) {
	t.Parallel()
	s := openThroughChanges(t, harness.Options{})
	other := s.second(nil)
	s.sql("INSERT INTO things (id, name) VALUES (1, 'Ada')")
	s.want("nil", "GET", "n:2") // a negative entry
	s.want("1", "MSETNX", "n:2", "2", "price:3", "1.5")
	s.want("1", "MSETNX", "n:1", "1", "name:2", "Bo") // these rows are there, and no such values
	s.want("1", "MSETNX", "name:5", "x", "n:5", "5", "doc:6", `{"n":6}`)
	s.want("1", "MSETNX", "n:7", "6", "doc:7", `{"name":"Al"}`, "n:7", "7")
	for _, reader := range []*shop{s, other} {
		reader.want("[2 1.50 1 Bo Ada x 7]", "MGET", "n:2", "price:3", "n:1", "name:2", "name:1", "name:5", "n:7")
		reader.want(`{"id":7,"name":"Al","n":7}`, "GET", "doc:7")
	}
	if n := s.info("pending"); n != 0 {
		t.Errorf("%d writes are pending", n)
	}
	s.unchanged("what is there, and what cannot be", func() {
		s.want("0", "MSETNX", "n:8", "8", "name:1", "x")
		s.want("0", "MSETNX", "doc:3", `{"n":3}`, "n:8", "8")
		s.want("0", "MSETNX", "n:8", "8", "n:7", "7", "n:8", "9")
		s.refused([]string{"ERR wrong number of arguments for 'msetnx' command"}, "MSETNX", "n:8", "8", "n:9")
		s.refused([]string{`column "n"`}, "MSETNX", "n:8", "8", "n:9", "x")
		s.refused([]string{"spelled"}, "MSETNX", "n:8", "8", "n:09", "9")
		s.refused([]string{"MSETNX of rows that are", "through", "plain", "nothing was changed"}, "MSETNX", "n:8", "8", "plain", "x")
		s.Redis.Do("ACL", "SETUSER", "reader", ">pw", "~*", "+@all", "-msetnx", "on")
		p := dial(t, s.Addr)
		p.do("AUTH", "reader", "pw")
		if got := p.do("MSETNX", "n:8", "8"); !strings.HasPrefix(got, "-NOPERM ") {
			t.Errorf("MSETNX of who may not is answered %q", got)
		}
	})
	s.sql("ALTER TABLE things ADD CONSTRAINT odd CHECK (id <> 9)")
	s.unchanged("what mysql refuses", func() {
		s.refused([]string{"mysql refused it", "odd", "nothing was applied"}, "MSETNX", "n:8", "8", "n:9", "9")
	})
	s.restChanges()
	if got := fmt.Sprint(s.table("SELECT id, name, n, price FROM things ORDER BY id")); got !=
		"[[1 Ada 1 NULL] [2 Bo 2 NULL] [3 NULL NULL 1.50] [5 x 5 NULL] [6 NULL 6 NULL] [7 Al 7 NULL]]" {
		t.Errorf("things are %s", got)
	}
}

// Of two MSETNX with a key in common one makes all of its rows and the other none, wherever the first one is when the second
// comes.
func TestThroughMsetnxMeet(t *testing.T) {
	t.Parallel()
	points := []string{"through.read", "through.written", "through.withdrawn", "through.committed"}
	hooks := harness.NewHooks(t, points...)
	hooks.Arm()
	s := openThroughChanges(t, harness.Options{Hooks: hooks})
	other := s.second(nil)
	p, q := dial(t, s.Addr), dial(t, other.Addr)
	for i, point := range points {
		a, b, c := fmt.Sprint("n:", 10*i+1), fmt.Sprint("n:", 10*i+2), fmt.Sprint("n:", 10*i+3)
		hooks.Arm(point)
		p.send(encode("MSETNX", a, "1", b, "1"))
		hooks.Wait(point)
		q.send(encode("MSETNX", c, "2", b, "2"))
		if point != "through.committed" {
			harness.Until(t, "the other one waits for mysql, or is through", func() bool {
				return s.row("SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND "+
					"info LIKE '%things%' AND info NOT LIKE '%processlist%'") != "0" ||
					s.row("SELECT n FROM things WHERE id = "+strings.TrimPrefix(b, "n:")) == "2"
			})
		}
		hooks.ReleaseAll()
		got := p.reply() + q.reply()
		want := map[string]string{":1\r\n:0\r\n": "[1 1 nil]", ":0\r\n:1\r\n": "[nil 2 2]"}[got]
		if want == "" {
			t.Errorf("held at %s: answered %q", point, got)
			continue
		}
		for _, reader := range []*shop{s, other} {
			reader.want(want, "MGET", a, b, c)
		}
		if got := s.row(fmt.Sprintf("SELECT COUNT(*) FROM things WHERE id BETWEEN %d AND %d", 10*i, 10*i+9)); got != "2" {
			t.Errorf("held at %s: mysql has %s rows", point, got)
		}
	}
	s.restChanges()
}

// Many clients of two processes make the same rows in different order: each row is one client's, and so is what belongs to it.
func TestThroughMsetnxRace(t *testing.T) {
	t.Parallel()
	s := openThroughChanges(t, harness.Options{})
	other := s.second(nil)
	const clients, times = 6, 8
	var made [times]atomic.Int64
	var done sync.WaitGroup
	for c := range clients {
		p := dial(t, []*shop{s, other}[c%2].Addr)
		done.Go(func() {
			for i := range times {
				pairs := []string{fmt.Sprint("n:", 3*i), fmt.Sprint(c), fmt.Sprint("n:", 3*i+1), fmt.Sprint(c), fmt.Sprint("n:", 3*i+2), fmt.Sprint(c)}
				at := 2 * (c % 3)
				switch got := p.do(append(append([]string{"MSETNX"}, pairs[at:]...), pairs[:at]...)...); got {
				case ":1\r\n":
					made[i].Add(1)
				case ":0\r\n":
				default:
					t.Errorf("MSETNX is answered %q", got)
				}
			}
		})
	}
	done.Wait()
	for i := range made {
		if n := made[i].Load(); n != 1 {
			t.Errorf("the rows from %d were made %d times", 3*i, n)
		}
		if got := s.row(fmt.Sprintf("SELECT CONCAT(COUNT(*), ' by ', COUNT(DISTINCT n)) FROM things WHERE id DIV 3 = %d", i)); got != "3 by 1" {
			t.Errorf("the rows from %d are %s", 3*i, got)
		}
	}
	s.restChanges()
}

// cutter is a way to MySQL that can be cut between a commit and its answer.
type cutter struct {
	addr  string
	armed atomic.Bool
}

func newCutter(t *testing.T, mysql string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{addr: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", mysql)
			if err != nil {
				client.Close()
				continue
			}
			all.Go(func() { c.relay(client, server) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return c
}

// relay ends with the connection, which the client or the server closes, or it itself: when the answer to a COMMIT is there.
func (c *cutter) relay(client, server net.Conn) {
	var cut atomic.Bool
	var back sync.WaitGroup
	back.Go(func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil || cut.Load() {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if bytes.Contains(buf[:n], []byte("\x03COMMIT")) && c.armed.CompareAndSwap(true, false) {
			cut.Store(true)
		}
		if _, failed := server.Write(buf[:n]); err != nil || failed != nil {
			break
		}
	}
	server.Close()
	back.Wait()
}

// If the answer to a commit is lost, the client is told that it is unknown whether the write was applied, and readers get what
// MySQL has, which is all of it here; if MySQL is gone before the commit, nothing of it.
func TestThroughCommitUnknown(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"the answer", "the commit"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			hooks := harness.NewHooks(t, "through.withdrawn")
			hooks.Arm()
			my := harness.SharedMySQL(t)
			if lost == "the commit" {
				my = harness.StartMySQL(t)
			}
			cut := newCutter(t, my.Addr)
			o := harness.Options{MySQL: my, DB: my.NewDB(t), Redis: harness.StartRedis(t), Config: throughChangeConfig, Hooks: hooks}
			my.Exec(o.DB, changeTables)
			o.Set = map[string]string{"mysql.dsn": "root@tcp(" + cut.addr + ")/" + o.DB, "mysql.timeout": "1s", "journal.session_timeout": "1s"}
			s := openShop(t, o)
			s.sql("INSERT INTO things (id, name, ratio) VALUES (1, 'Ada', 0.5)")
			s.want("[Ada 0.5 nil nil]", "MGET", "name:1", "ratio:1", "n:2", "n:3")
			after := "[AdBob 0.75 2 3]"
			writes := [][]string{{"SETRANGE", "name:1", "2", "Bob"}, {"INCRBYFLOAT", "ratio:1", "0.25"}, {"MSETNX", "n:2", "2", "n:3", "3"}}
			if lost == "the commit" {
				after = "[Ada 0.5 nil nil]"
				hooks.Arm("through.withdrawn")
				var clients []*peer
				for _, args := range writes[1:] { // the first one waits for the lock of the second one's row
					p := dial(t, s.Addr)
					p.send(encode(args...))
					clients = append(clients, p)
				}
				for range clients {
					hooks.Wait("through.withdrawn")
				}
				my.Kill()
				hooks.ReleaseAll()
				for _, p := range clients {
					if got := p.reply(); !strings.HasPrefix(got, "-DBDOWN keyrow: mysql failed at the commit") || !strings.Contains(got, "unknown") {
						t.Errorf("answered %q", got)
					}
				}
				my.Restart()
			} else {
				for _, args := range writes {
					cut.armed.Store(true)
					if got := dial(t, s.Addr).do(args...); !strings.HasPrefix(got, "-DBDOWN keyrow: mysql failed at the commit") || !strings.Contains(got, "unknown") {
						t.Errorf("%q is answered %q", args, got)
					}
				}
			}
			harness.Until(t, "readers get what mysql has", func() bool { return s.show("MGET", "name:1", "ratio:1", "n:2", "n:3") == after })
			s.restChanges()
			s.want(after, "MGET", "name:1", "ratio:1", "n:2", "n:3")
		})
	}
}

// Inside MULTI nothing is written through: EXEC and the commit cannot be one step. What is refused makes EXEC fail, as an error
// of Redis does, and the error says what to do.
func TestThroughTransactions(t *testing.T) {
	t.Parallel()
	s := openThroughChanges(t, harness.Options{})
	s.sql("INSERT INTO things (id, name, n) VALUES (1, 'Ada', 5)")
	s.want("Ada", "GET", "name:1")
	s.unchanged("what is refused inside MULTI", func() {
		for _, test := range []struct{ args, mapping, instead string }{
			{"SET name:1 x", "name", "send it outside of MULTI"},
			{"SET name:1 x NX GET", "name", "send it outside of MULTI"},
			{"SETEX name:1 10 x", "name", "send it outside of MULTI"},
			{"SETNX name:2 x", "name", "send it outside of MULTI"},
			{"GETSET name:1 x", "name", "send it outside of MULTI"},
			{"APPEND name:1 x", "name", "send it outside of MULTI"},
			{"SETRANGE name:1 0 x", "name", "send it outside of MULTI"},
			{"INCR n:1", "n", "send it outside of MULTI"},
			{"DECRBY n:1 2", "n", "send it outside of MULTI"},
			{"INCRBYFLOAT ratio:1 2", "ratio", "send it outside of MULTI"},
			{"GETDEL n:1", "n", "send it outside of MULTI"},
			{"DEL n:1", "n", "send it outside of MULTI"},
			{"MSET name:1 x", "name", "send it outside of MULTI"},
			{"MSETNX name:2 x", "name", "send it outside of MULTI"},
			{"EVAL return(1) 1 n:1", "n", "send the commands themselves"},
			{"FCALL f 1 n:1", "n", "send the commands themselves"},
			{"RENAME n:1 n:2", "n", "read the row and write the other key instead"},
			{"LPUSH n:1 x", "n", "SET its value instead"},
		} {
			p, words := dial(t, s.Addr), strings.Fields(test.args)
			got := p.do("MULTI") + p.do("SET", "plain", "x")
			if refusal := p.do(words...); !strings.HasPrefix(refusal, "-ERR keyrow: "+words[0]+" ") || !strings.Contains(refusal, fmt.Sprintf("mapping %q", test.mapping)) ||
				!strings.Contains(refusal, test.instead) || !strings.Contains(refusal, "nothing was changed") {
				t.Errorf("%s in MULTI is answered %q", test.args, refusal)
			}
			got += p.do("GET", "plain") + p.do("EXEC")
			if want := "+OK\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n"; got != want {
				t.Errorf("with %s: %q", test.args, got)
			}
			if got := p.do("GET", "plain"); got != "$-1\r\n" {
				t.Errorf("after %s plain is %q", test.args, got)
			}
		}
		for _, name := range []string{"EVAL", "EVALSHA", "FCALL"} {
			s.refused([]string{name + " is not supported", `mapping "n"`, "through", name + "_RO", "nothing was changed"}, name, "return 1", 1, "n:1")
		}
	})
	// What is not written to MySQL is taken.
	p := dial(t, s.Addr)
	p.do("MULTI")
	p.do("GETDEL", "name:1")
	p.do("DEL", "name:1")
	p.do("EVAL_RO", "return redis.call('GET', KEYS[1])", "1", "n:1")
	if got := p.do("EXEC"); got != "*3\r\n$3\r\nAda\r\n:0\r\n$1\r\n5\r\n" {
		t.Errorf("EXEC is answered %q", got)
	}
	s.restChanges()
}

package test

import (
	"fmt"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// What begins and ends a transaction is what Redis makes of it: keyrow never takes a command for queued that Redis runs
// at once, nor the other way round.
func TestWhereTransactionsEnd(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.Redis.Do("ACL", "SETUSER", "endless", ">pw", "~*", "+@all", "-discard", "on")
	s.Redis.Do("ACL", "SETUSER", "plain", ">pw", "~*", "+@all", "-multi", "on")
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	const queued = "+QUEUED\r\n"
	say := func(p *peer, want string, args ...string) {
		t.Helper()
		if got := p.do(args...); !strings.HasPrefix(got, want) {
			t.Errorf("%q is answered %q, want %q", args, got, want)
		}
	}
	login := func(user string) *peer {
		p := dial(t, s.Addr)
		say(p, "+OK\r\n", "AUTH", user, "pw")
		return p
	}

	// An EXEC with an argument is refused and ends the transaction.
	p := dial(t, s.Addr)
	say(p, "+OK\r\n", "MULTI")
	say(p, "-EXECABORT", "EXEC", "x")
	say(p, "+OK\r\n", "SET", "user:1", `{"name":"a"}`)
	say(p, "-ERR EXEC without MULTI", "EXEC")

	// A MULTI within is refused and no part of it: what counts is where the transaction led the client.
	say(p, "+OK\r\n", "MULTI")
	say(p, "-ERR MULTI", "MULTI")
	say(p, queued, "SET", "user:2", `{"name":"b"}`)
	say(p, queued, "SELECT", "1")
	say(p, "*2\r\n+OK\r\n+OK\r\n", "EXEC")
	say(p, "+OK\r\n", "SET", "user:2", "plain")
	say(p, "+OK\r\n", "SELECT", "0")
	say(p, "+OK\r\n", "SET", "user:3", `{"name":"c"}`)

	// A DISCARD that is refused does not end it, for nobody who is given the connection next.
	p = login("endless")
	say(p, "+OK\r\n", "MULTI")
	say(p, queued, "SET", "user:4", `{"name":"no"}`)
	say(p, "-NOPERM", "DISCARD")
	say(p, "-EXECABORT", "EXEC")
	p = login("endless")
	say(p, "+OK\r\n", "MULTI")
	say(p, "-ERR keyrow", "INCR", "user:4")
	say(p, "-EXECABORT", "EXEC") // keyrow has to end it itself, and cannot
	if got := p.rest(); got != "" {
		t.Errorf("a client whose transaction cannot be ended gets %q", got)
	}
	p = login("endless")
	say(p, "+OK\r\n", "MULTI")
	say(p, queued, "SET", "user:5", `{"name":"e"}`)
	say(p, "*1\r\n+OK\r\n", "EXEC")

	// Where MULTI is refused, nothing is queued.
	p = login("plain")
	p.send(append(encode("MULTI"), encode("GET", "user:42")...))
	if got := p.reply() + p.reply(); !strings.HasPrefix(got, "-NOPERM") || !strings.HasSuffix(got, ada+"\r\n") {
		t.Errorf("a GET behind a MULTI that is refused is answered %q", got)
	}
	say(p, "-NOPERM", "MULTI")
	say(p, "-NOPERM", "SET", "user:6", `{"name":"no"}`)
	s.rest()
	if got := fmt.Sprint(s.table("SELECT id, name FROM users ORDER BY id")); got != "[[1 a] [2 b] [3 c] [5 e] [42 Ada]]" {
		t.Errorf("users are %s", got)
	}
}

// A transaction may log in. It writes no rows behind that: their marks would be set as somebody who perhaps may not.
func TestLoginInTransaction(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.Redis.Do("ACL", "SETUSER", "full", ">pw", "~*", "+@all", "on")
	s.Redis.Do("ACL", "SETUSER", "nojournal", ">pw", "~user:*", "+@all", "-select", "on")
	for _, login := range [][]string{{"AUTH", "nojournal", "pw"}, {"HELLO", "2", "AUTH", "nojournal", "pw"}} {
		for _, forbidden := range [][]string{
			{"SET", "user:1", `{"name":"x"}`}, {"MSET", "user:1", `{"name":"x"}`}, {"SETEX", "user:1", "9", `{"name":"x"}`}, {"SELECT", "1"},
		} {
			s.unchanged(fmt.Sprint(login, forbidden), func() {
				p := dial(t, s.Addr)
				p.do("AUTH", "full", "pw")
				p.do("MULTI")
				p.do(login...)
				if got := p.do(forbidden...); !strings.HasPrefix(got, "-ERR keyrow: ") {
					t.Errorf("%q behind a login is answered %q", forbidden, got)
				}
				if got := p.do("EXEC"); !strings.HasPrefix(got, "-EXECABORT ") {
					t.Errorf("EXEC is answered %q", got)
				}
				if got := p.do("ACL", "WHOAMI"); got != "$4\r\nfull\r\n" {
					t.Errorf("afterwards the client is %q", got)
				}
			})
		}
		writer := dial(t, s.Addr)
		writer.do("AUTH", "full", "pw")
		writer.do("MULTI")
		writer.do("SET", "user:2", `{"name":"x"}`)
		writer.do(login...)
		if got := writer.do("EXEC"); !strings.HasPrefix(got, "*2\r\n+OK\r\n") {
			t.Errorf("a SET before %q is answered %q", login, got)
		}
		s.Settled()
		p := dial(t, s.Addr)
		p.do("MULTI")
		p.do(login...)
		p.do("GET", "user:42")
		if got := p.do("EXEC"); !strings.HasSuffix(got, ada+"\r\n") {
			t.Errorf("a GET behind %q is answered %q", login, got)
		}
		// From here on the client has the rights of that user, and its own connection is nobody else's.
		if got := p.do("SET", "user:42", `{"name":"x"}`); !strings.HasPrefix(got, "-NOPERM ") {
			t.Errorf("a SET after %q is answered %q", login, got)
		}
		other := dial(t, s.Addr)
		other.do("MULTI")
		other.do("ACL", "WHOAMI")
		if got := other.do("EXEC"); got != "*1\r\n$7\r\ndefault\r\n" {
			t.Errorf("somebody else is %q", got)
		}
	}
	s.rest()
}

// A key of a row that holds something else, because it was written past keyrow, is Redis's matter inside MULTI too: its
// own WRONGTYPE comes out of EXEC, and the rest of the transaction is run.
func TestWrongTypeInTransaction(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.sql("INSERT INTO accounts VALUES (1, 1, '1'), (2, 2, '2')")
	s.Redis.Do("RPUSH", "user:1", "x", "y")
	s.Redis.Do("RPUSH", "acct:1", "x")
	const wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
	for i, watched := range [][]string{nil, {"WATCH", "user:1"}} {
		p := dial(t, s.Addr)
		if watched != nil {
			p.do(watched...)
		}
		p.do("MULTI")
		for _, args := range [][]string{
			{"GET", "user:1"}, {"GET", "user:42"}, {"STRLEN", "user:1"}, {"MGET", "user:1", "user:42"}, {"LLEN", "user:1"}, {"INCR", "n"},
		} {
			if got := p.do(args...); got != "+QUEUED\r\n" {
				t.Errorf("%q is answered %q", args, got)
			}
		}
		row := fmt.Sprintf("$%d\r\n%s\r\n", len(ada), ada)
		want := "*6\r\n" + wrong + row + wrong + "*2\r\n$-1\r\n" + row + fmt.Sprintf(":2\r\n:%d\r\n", i+1)
		if got := p.do("EXEC"); got != want {
			t.Errorf("after %q EXEC is answered\n%q, want\n%q", watched, got, want)
		}
	}
	// What deletes such a key deletes its row.
	p := dial(t, s.Addr)
	p.do("MULTI")
	p.do("DEL", "acct:1")
	if got := p.do("EXEC"); got != "*1\r\n:1\r\n" {
		t.Errorf("EXEC of a DEL is answered %q", got)
	}
	s.want("2", "DEL", "user:1", "acct:2")
	s.rest()
	if got := s.row("SELECT COUNT(*) FROM accounts"); got != "0" {
		t.Errorf("%s accounts are left", got)
	}
}

//go:build compat

package compat

import (
	"strings"
	"testing"

	"keyrow/test/harness"
)

// exceptions are where keyrow answers otherwise than Redis, and why: the last command of each script, after Redis has
// been told the first ones directly. docs/commands.md has them in words.
var exceptions = []struct {
	name          string
	direct        []string // run on Redis itself, after the login
	commands      []string
	redis, keyrow string // how the last reply begins
}{
	{"a connection of its own with a password that is gone, which only a new login could get",
		[]string{"ACL SETUSER alice resetpass >new"}, []string{"MULTI"}, "+OK\r\n", "-WRONGPASS keyrow: "},
	{"CLIENT REPLY inside MULTI, whose missing replies would be taken for those of other commands",
		nil, []string{"MULTI", "CLIENT REPLY ON"}, "+QUEUED\r\n", "-ERR keyrow: "},
	{"rows written in a transaction that logs in, whose marks would be set as somebody else",
		nil, []string{"MULTI", "AUTH alice secret", `SET user:1 {"name":"x"}`}, "+QUEUED\r\n", "-ERR keyrow: "},
	{"SELECT behind a login in a transaction: whether it succeeds is not known before EXEC",
		nil, []string{"MULTI", "AUTH alice secret", "SELECT 1"}, "+QUEUED\r\n", "-ERR keyrow: "},
	{"several channels at once in a transaction, for which Redis sends more replies than it announces",
		nil, []string{"MULTI", "SUBSCRIBE a b"}, "+QUEUED\r\n", "-ERR keyrow: "},
	{"a right that only keyrow's way of writing rows needs",
		[]string{"ACL SETUSER alice -multi"}, []string{`SET user:1 {"name":"x"}`}, "+OK\r\n", "-NOPERM this user has no permissions to run the 'multi' command"},
	{"what would drop rows in a transaction, which cannot wait until they are in MySQL",
		nil, []string{"MULTI", "FLUSHALL"}, "+QUEUED\r\n", "-ERR keyrow: "},
}

func TestExceptions(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t)
	k := keyrowFor(t, harness.Options{Redis: harness.StartRedis(t)}, "behind")
	for _, x := range exceptions {
		for _, side := range []struct {
			name, addr string
			control    *peer
			want       string
		}{
			{"redis", r.Addr, dial(t, r.Addr), x.redis},
			{"keyrow", k.Addr, dial(t, k.Redis.Addr), x.keyrow},
		} {
			side.control.must(t, "ACL", "SETUSER", "alice", "reset", "on", ">secret", "~*", "&*", "+@all")
			p := dial(t, side.addr)
			same(t, p.must(t, "AUTH", "alice", "secret"), "+OK\r\n")
			same(t, p.must(t, "PING"), "+PONG\r\n")
			for _, c := range x.direct {
				side.control.must(t, strings.Fields(c)...)
			}
			var reply string
			for _, c := range x.commands {
				reply = p.must(t, strings.Fields(c)...)
			}
			if !strings.HasPrefix(reply, side.want) {
				t.Errorf("%s: %s answers %q with %q, want %q", x.name, side.name, x.commands, reply, side.want)
			}
			p.Close()
		}
	}
}

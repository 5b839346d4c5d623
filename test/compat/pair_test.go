//go:build compat

package compat

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// target is a server that scripts are run against: Redis itself, or keyrow in front of another Redis.
type target struct {
	addr  string
	redis *harness.Redis // the one behind it
	pass  string         // of redis
	own   []string       // keyrow's own keys, which stay
}

// pair is two targets that must not be told apart.
type pair struct{ direct, keyrow target }

const usersTable = `CREATE TABLE users (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(100) NOT NULL, age INT);
	CREATE TABLE notes (id BIGINT NOT NULL PRIMARY KEY, text VARCHAR(100))`

const usersConfig = `
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"
write = "%s"

[[mapping]]
name = "note"
key = "note:{id}"
table = "notes"
write = "%[1]s"
`

// keyrowFor is a keyrow with the tables above; o may say more.
func keyrowFor(t testing.TB, o harness.Options, write string) *harness.Keyrow {
	t.Helper()
	o.MySQL = harness.SharedMySQL(t)
	o.DB = o.MySQL.NewDB(t)
	for _, query := range strings.Split(usersTable, ";") {
		o.MySQL.Exec(o.DB, query)
	}
	o.Config = fmt.Sprintf(usersConfig, write) + o.Config
	o.Set = maps.Clone(o.Set)
	if o.Set == nil {
		o.Set = map[string]string{}
	}
	o.Set["journal.prefix"] = "keyrow-" + o.DB // its locks belong to the whole MySQL server
	return harness.StartKeyrow(t, o)
}

// newPair starts the servers; options are redis-server's.
func newPair(t testing.TB, readonly bool, options ...string) pair {
	t.Helper()
	var p pair
	set := map[string]string{"redis.lanes": "1"} // whoever holds up a lane holds up all the others
	for i, o := range options {
		if o == "--requirepass" {
			p.direct.pass = options[i+1]
			set["redis.password"] = options[i+1]
		}
	}
	options = append([]string{"--enable-debug-command", "yes", "--busy-reply-threshold", "10"}, options...)
	write := "behind"
	if readonly {
		write = "deny"
		set["redis.db"] = "15" // keyrow's own keys are not to be among those that are flushed and counted
	}
	p.keyrow.pass = p.direct.pass
	p.direct.redis = harness.StartRedis(t, options...)
	p.direct.addr = p.direct.redis.Addr
	p.keyrow.redis = harness.StartRedis(t, options...)
	k := keyrowFor(t, harness.Options{Redis: p.keyrow.redis, Set: set}, write)
	p.keyrow.addr = k.Addr
	if !readonly {
		p.own(t, "keyrow-"+k.DB)
	}
	return p
}

// own puts keys of the same names as keyrow's into the other Redis, so that both count and list the same.
func (p *pair) own(t testing.TB, prefix string) {
	t.Helper()
	behind, err := p.keyrow.control()
	if err != nil {
		t.Fatal(err)
	}
	defer behind.Close()
	harness.Until(t, "keyrow owns its journal", func() bool {
		reply := parse([]byte(behind.must(t, "KEYS", prefix+":*")))
		p.keyrow.own = nil
		for _, key := range reply.items {
			p.keyrow.own = append(p.keyrow.own, key.head)
		}
		return len(reply.items) == 1+4 // the layout and a fence for each partition
	})
	p.direct.own = p.keyrow.own
	direct, err := p.direct.control()
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	for _, key := range p.direct.own {
		direct.must(t, "SET", key, "x")
	}
}

// control opens a connection to the Redis of the target, past keyrow.
func (g target) control() (*peer, error) {
	p, err := connect(g.redis.Addr)
	if err == nil && g.pass != "" {
		_, err = p.do("AUTH", g.pass)
	}
	return p, err
}

// empty makes the server as good as new.
func (g target) empty() error {
	c, err := g.control()
	if err != nil {
		return err
	}
	defer c.Close()
	for _, kind := range []string{"SCRIPT", "FUNCTION"} { // what a failed script may have left running
		if _, err := c.do(kind, "KILL"); err != nil {
			return err
		}
	}
	const others = `
		for db = 0, 15 do
			redis.call('SELECT', db)
			for _, key in ipairs(redis.call('KEYS', '*')) do
				local own = false
				for _, k in ipairs(ARGV) do own = own or k == key end
				if not own then redis.call('DEL', key) end
			end
		end`
	for _, args := range [][]string{
		{"CLIENT", "UNPAUSE"}, append([]string{"EVAL", others, "0"}, g.own...), {"SCRIPT", "FLUSH"}, {"FUNCTION", "FLUSH"}, {"CONFIG", "RESETSTAT"},
		{"SLOWLOG", "RESET"}, {"LATENCY", "RESET"}, {"ACL", "LOG", "RESET"},
	} {
		reply, err := c.do(args...)
		if err != nil || reply[0] == '-' {
			return fmt.Errorf("%v: %s %w", args, reply, err)
		}
	}
	users, err := c.do("ACL", "USERS")
	if err != nil {
		return err
	}
	n := parse([]byte(users))
	for _, u := range n.items {
		if u.head != "default" {
			if _, err := c.do("ACL", "DELUSER", u.head); err != nil {
				return err
			}
		}
	}
	return until(c, "blocked_clients:0", "INFO", "clients")
}

// until asks the server until its reply contains text.
func until(c *peer, text string, args ...string) error {
	var lost error
	err := harness.Wait(func() error {
		var reply string
		if reply, lost = c.do(args...); lost == nil && !strings.Contains(reply, text) {
			return fmt.Errorf("redis still answers %v with %.300q", args, reply)
		}
		return nil
	})
	return errors.Join(err, lost)
}

package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyrow/test/harness"
)

var changeSeed = flag.Uint64("change.seed", 0, "seed of TestRandomChanges; 0: another one each time")

// changer makes random commands on one key.
type changer struct {
	*rand.Rand
	key string
}

func (c *changer) pick(of ...string) string { return of[c.IntN(len(of))] }

// value is one that mostly fits the column.
func (c *changer) value(column string) string {
	switch column {
	case "n":
		return c.pick("0", "7", "-3", "41", "9223372036854775807", "-9223372036854775808", "9007199254740993", "x", "9223372036854775808")
	case "small":
		return c.pick("0", "7", "250", "255", "256", "-1", "12")
	case "data":
		return c.pick("", "a", "\x00\xff", "0123456789abcdef", "0123456789abcdefg", "10")
	}
	return c.pick("", "Ada", "10", "äöü", "twelve chars", "thirteen char", "\xff", "-5")
}

func (c *changer) increment() string {
	return c.pick("1", "-1", "5", "200", "-200", "9223372036854775807", "-9223372036854775808", "x", "1.5", "")
}

// next is a command; atomic leaves out what is not to be had inside MULTI.
func (c *changer) next(atomic bool) []string {
	column, _, _ := strings.Cut(c.key, ":")
	if column == "flat" {
		return c.nextOfHash(atomic)
	}
	commands := []string{"SET", "SET", "SETNX", "GETSET", "GET", "INCR", "DECR", "INCRBY", "DECRBY", "APPEND", "SETRANGE", "INCRBYFLOAT", "STRLEN", "MSET", "SETEX", "EXISTS", "TYPE", "HSET", "LPUSH"}
	if column == "n" {
		commands = append(commands, "GETDEL", "DEL")
	}
	name := c.pick(commands...)
	if atomic && (column != "n" || strings.HasSuffix(name, "FLOAT")) && strings.Contains("INCR DECR INCRBY DECRBY INCRBYFLOAT", name) ||
		atomic && (name == "APPEND" || name == "SETRANGE" || name == "HSET" || name == "LPUSH") {
		name = "GET"
	}
	args := []string{name, c.key}
	if column == "n" && (name == "APPEND" || name == "SETRANGE") {
		if name == "SETRANGE" {
			args = append(args, c.pick("0", "1", "2", "-1"))
		}
		return append(args, c.pick("5", "41", "x")) // a 0 may make another spelling of a number
	}
	switch name {
	case "SET":
		args = append(args, c.value(column))
		for _, option := range []string{"NX", "XX", "GET", "KEEPTTL", "EX"} {
			if c.IntN(4) == 0 {
				args = append(args, option)
				if option == "EX" {
					args = append(args, c.pick("100", "1000", "0", "x"))
				}
			}
		}
	case "SETNX", "GETSET", "APPEND", "MSET":
		args = append(args, c.value(column))
	case "SETEX":
		args = append(args, "100", c.value(column))
	case "SETRANGE":
		args = append(args, c.pick("0", "1", "2", "5", "11", "-1", "x", "536870912"), c.value(column))
	case "INCRBY", "DECRBY":
		args = append(args, c.increment())
	case "INCRBYFLOAT":
		args = append(args, c.pick("1", "-2", "3e2", "x", "0.5", "inf"))
	case "HSET":
		args = append(args, "f", "v")
	case "LPUSH":
		args = append(args, "v")
	}
	return args
}

func (c *changer) nextOfHash(atomic bool) []string {
	name := c.pick("HSET", "HSET", "HMSET", "HSETNX", "HDEL", "HINCRBY", "HINCRBYFLOAT", "HGET", "HMGET", "HLEN", "HEXISTS", "INCR", "HSTRLEN")
	field := c.pick("name", "n", "small", "data")
	if atomic && (name == "INCR" || strings.HasPrefix(name, "HINCRBY")) {
		name, field = "HINCRBY", c.pick("n", "small")
	}
	args := []string{name, c.key}
	switch name {
	case "HSET", "HMSET":
		args = append(args, field, c.value(field))
		for range c.IntN(3) {
			field = c.pick("name", "n", "small", "data")
			args = append(args, field, c.value(field))
		}
		if c.IntN(20) == 0 {
			args = append(args, "name")
		}
	case "HSETNX":
		args = append(args, field, c.value(field))
	case "HDEL":
		args = append(args, c.pick("name", "n", "data", "nothing"), c.pick("name", "n", "small"))
	case "HINCRBY":
		args = append(args, field, c.increment())
	case "HINCRBYFLOAT":
		args = append(args, field, c.pick("1", "-2", "3e2", "x", "0.5"))
	case "HGET", "HEXISTS", "HSTRLEN":
		args = append(args, field)
	case "HMGET":
		args = append(args, field, "nothing", "small")
	}
	return args
}

// Random commands on a mapped key are answered as the same commands on a key that is not, byte for byte; what keyrow
// refuses changes nothing. Now and then the image leaves Redis, and is read again.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	s := openChanges(t, harness.Options{Set: map[string]string{"journal.interval": "5ms"}})
	seed := *changeSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	for proto := 2; proto <= 3; proto++ {
		for i, column := range []string{"n", "name", "data", "flat"} {
			t.Run(column+strconv.Itoa(proto), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, uint64(proto*10+i)))
				s.compareChanges(t, &changer{r, column + ":" + strconv.Itoa(10*proto+i)}, proto)
				if t.Failed() {
					t.Logf("again: go test -run TestRandomChanges -change.seed=%d", seed)
				}
			})
		}
	}
	s.restChanges()
}

func (s *shop) compareChanges(t *testing.T, c *changer, proto int) {
	mapped, direct := dial(t, s.Addr), dial(t, s.Redis.Addr)
	for _, p := range []*peer{mapped, direct} {
		p.do("HELLO", strconv.Itoa(proto))
	}
	twin := "twin-" + c.key
	_, id, _ := strings.Cut(c.key, ":")
	s.sql("INSERT IGNORE INTO things (id, name, n) VALUES (" + id + ", 'Bo', 5)")
	again := func() {
		mapped.do("TYPE", c.key)
		direct.do("DEL", twin)
		direct.do("COPY", c.key, twin)
		direct.do("PERSIST", twin)
	}
	onTwin := func(args []string) []string {
		args = append([]string(nil), args...)
		args[1] = twin
		return args
	}
	again()
	const refusal = "-ERR keyrow: "
	var history []string
	for i := range 300 {
		switch c.IntN(40) {
		case 0: // the image leaves Redis
			s.Settled()
			s.Redis.Do("DEL", c.key)
			history = append(history, "evicted")
			again()
			continue
		case 1, 2, 3, 4, 5:
			var theirs, ours []byte
			n := 1 + c.IntN(3)
			for range n {
				args := c.next(true)
				history = append(history, fmt.Sprintf("queued %q", args))
				theirs, ours = append(theirs, encode(onTwin(args)...)...), append(ours, encode(args...)...)
			}
			mapped.send(append(append(encode("MULTI"), ours...), encode("EXEC")...))
			var got string
			for range n + 2 {
				got += mapped.reply()
			}
			if strings.Contains(got, refusal) {
				again()
				continue
			}
			direct.send(append(append(encode("MULTI"), theirs...), encode("EXEC")...))
			var want string
			for range n + 2 {
				want += direct.reply()
			}
			if got != want {
				t.Fatalf("step %d\n got %q\nwant %q\nafter %s", i, got, want, strings.Join(last(history, 12), "\n"))
			}
			continue
		}
		args := c.next(false)
		history = append(history, fmt.Sprintf("%q", args))
		got := mapped.do(args...)
		if strings.HasPrefix(got, refusal) {
			continue
		}
		if want := direct.do(onTwin(args)...); got != want {
			t.Fatalf("step %d\n got %q\nwant %q\nafter %s", i, got, want, strings.Join(last(history, 12), "\n"))
		}
	}
}

func last(list []string, n int) []string { return list[max(0, len(list)-n):] }

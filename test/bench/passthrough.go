package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxInFlight bounds the bytes of all commands and replies that can be under way at once. They lie in the memory of
// redis-benchmark, the proxy and Redis at the same time.
const maxInFlight = 1 << 30

// How many values MGET and LRANGE return.
const (
	mgetKeys   = 10
	listLength = 100
)

// command is one that passes through.
type command struct {
	name   string
	values int // that go over the wire; 0: the size of values does not matter
	args   func(size int) []string
}

var commands = []command{
	{"get", 1, func(size int) []string { return []string{"GET", key(size, random)} }},
	{"set", 1, func(size int) []string { return []string{"SET", key(size, random), value(size)} }},
	{"incr", 0, func(int) []string { return []string{"INCR", "counter:" + random} }},
	{"mget", mgetKeys, func(size int) []string {
		return append([]string{"MGET"}, slices.Repeat([]string{key(size, random)}, mgetKeys)...)
	}},
	{"lrange", listLength, func(size int) []string { return []string{"LRANGE", list(size), "0", strconv.Itoa(listLength - 1)} }},
}

func key(size int, number string) string { return fmt.Sprintf("value%d:%s", size, number) }
func list(size int) string               { return fmt.Sprintf("list%d", size) }
func value(size int) string              { return strings.Repeat("x", size) }

// passthrough compares commands on keys that are no rows with a direct connection.
func passthrough(ctx context.Context, b *bench) error {
	targets, err := b.startProxies(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, t := range targets {
			if t.proxy != nil {
				t.proxy.kill()
			}
		}
	}()
	if err := b.seed(ctx); err != nil {
		return err
	}
	contests := b.passes()
	for i, c := range contests {
		b.progress.prefix = fmt.Sprintf("[%d/%d] ", i+1, len(contests))
		if c.LeftOut != "" {
			b.enter(c)
			continue
		}
		for _, t := range targets {
			t.load = load{clients: c.Cell.Clients, pipeline: c.Cell.Pipeline, keys: keys, args: arguments(c.Cell)}
		}
		if err := b.drive(ctx, c, targets); err != nil {
			return err
		}
	}
	b.progress.prefix = ""
	return nil
}

// startProxies starts what is asked for and installed, and puts the direct connection before it.
func (b *bench) startProxies(ctx context.Context) ([]*target, error) {
	targets := []*target{{name: "direct"}}
	for _, known := range []struct {
		name, program string
		start         func(context.Context) (*process, error)
	}{
		{"keyrow", b.keyrow, b.startKeyrow},
		{"twemproxy", "nutcracker", b.startTwemproxy},
		{"haproxy", "haproxy", b.startHAProxy},
	} {
		if !slices.Contains(b.proxies, known.name) {
			continue
		}
		if program(known.program) == "" {
			b.progress.note("%s is not installed and left out", known.name)
			continue
		}
		p, err := known.start(ctx)
		if err != nil {
			return targets, err
		}
		targets = append(targets, &target{name: known.name, proxy: p})
	}
	return targets, nil
}

// seed fills Redis with what the commands find there.
func (b *bench) seed(ctx context.Context) error {
	b.progress.say("filling redis")
	pipe := b.redis.Client().Pipeline()
	for _, size := range b.sizes {
		v := value(size)
		for i := range keys {
			pipe.Set(ctx, key(size, fmt.Sprintf("%012d", i)), v, 0)
			if pipe.Len()*size > 1<<20 || i == keys-1 {
				if _, err := pipe.Exec(ctx); err != nil {
					return err
				}
			}
		}
		for range listLength {
			pipe.RPush(ctx, list(size), v)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// passes are the contests that were asked for.
func (b *bench) passes() []contest {
	var all []contest
	for _, command := range commands {
		if !slices.Contains(b.commands, command.name) {
			continue
		}
		sizes := b.sizes
		if command.values == 0 {
			sizes = []int{0}
		}
		for _, size := range sizes {
			for _, clients := range b.clients {
				for _, pipeline := range b.pipelines {
					c := contest{Scenario: "passthrough", Cell: cell{command.name, size, clients, pipeline, 0}}
					if command.values*size*clients*pipeline > maxInFlight {
						c.LeftOut = "more than 1 GiB would be under way at a time"
					}
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// arguments are those of the command in a cell.
func arguments(c cell) []string {
	i := slices.IndexFunc(commands, func(known command) bool { return known.name == c.Command })
	return commands[i].args(c.Size)
}

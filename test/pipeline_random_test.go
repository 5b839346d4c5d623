package test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrow/test/harness"
)

var pipelineSeed = flag.Uint64("pipeline.seed", 0, "seed of TestRandomPipelines; 0: another one each time")

// pipeliner makes random commands on rows and other keys that nobody else has.
type pipeliner struct {
	*rand.Rand
	id int
	in bool // a MULTI
}

func (c *pipeliner) pick(of ...string) string { return of[c.IntN(len(of))] }

func (c *pipeliner) key() string {
	if c.IntN(4) == 0 {
		return fmt.Sprintf("plain:%d:%d", c.id, c.IntN(2))
	}
	return fmt.Sprintf("n:%d", 10*c.id+c.IntN(3))
}

func (c *pipeliner) value() string { return strconv.Itoa(c.IntN(1000)) }

func (c *pipeliner) next() []string {
	if name := c.pick("MULTI", "EXEC", "", "", "", "", "", ""); name == "MULTI" && !c.in || name == "EXEC" && c.in {
		c.in = !c.in
		if name == "EXEC" && c.IntN(4) == 0 {
			name = "DISCARD"
		}
		return []string{name}
	}
	const get, incr = "return redis.call('GET', KEYS[1])", "return redis.call('INCR', KEYS[1])"
	all := [][]string{
		{"GET", c.key()}, {"GET", c.key()}, {"MGET", c.key(), c.key(), c.key()}, {"EXISTS", c.key(), c.key()}, {"STRLEN", c.key()}, {"TYPE", c.key()},
		{"SET", c.key(), c.value()}, {"SET", c.key(), c.value()}, {"SET", c.key(), c.value()}, {"SET", c.key(), c.value(), c.pick("NX", "XX", "GET", "KEEPTTL")},
		{"SETEX", c.key(), "1000", c.value()}, {"SETNX", c.key(), c.value()}, {"GETSET", c.key(), c.value()}, {"GETDEL", c.key()}, {"GETEX", c.key()},
		{"MSET", c.key(), c.value(), c.key(), c.value()}, {"MSETNX", c.key(), c.value(), c.key(), c.value()},
		{"INCR", c.key()}, {"DECRBY", c.key(), "3"}, {"DEL", c.key(), c.key()}, {"UNLINK", c.key()}, {"EXPIRE", c.key(), "1000"},
		{"EVAL", get, "1", c.key()}, {"EVAL", incr, "1", c.key()},
		{"ECHO", c.value()}, {"HGET", c.key(), "f"}, {"CLIENT", "SETNAME", "x"}, {"SELECT", c.pick("0", "0", "1")},
	}
	if !c.in {
		all = append(all, []string{"WATCH", fmt.Sprintf("plain:%d:0", c.id)}, []string{"UNWATCH"}, []string{"HELLO", c.pick("2", "3")})
	}
	return all[c.IntN(len(all))]
}

// What clients send in pipelines, with transactions in them, is answered as Redis answers it, in the same order.
func TestRandomPipelines(t *testing.T) {
	t.Parallel()
	s := openChanges(t, harness.Options{Set: map[string]string{"journal.interval": "5ms"}})
	plain := harness.StartRedis(t)
	seed := *pipelineSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	var wg sync.WaitGroup
	for id := range 6 {
		mapped, direct := dial(t, s.Addr), dial(t, plain.Addr)
		c := &pipeliner{Rand: rand.New(rand.NewPCG(seed, uint64(id))), id: id + 1}
		wg.Go(func() { s.comparePipelines(t, c, mapped, direct) })
	}
	wg.Wait()
	if t.Failed() {
		t.Logf("again: go test -run TestRandomPipelines -pipeline.seed=%d", seed)
	}
	s.restChanges()
}

func (s *shop) comparePipelines(t *testing.T, c *pipeliner, mapped, direct *peer) {
	var history []string
	for range 150 {
		var b []byte
		n := 1 + c.IntN(20)
		for range n {
			args := c.next()
			history = append(history, strings.Join(args, " "))
			b = append(b, encode(args...)...)
		}
		mapped.send(b)
		direct.send(b)
		for i := range n {
			got, want := mapped.reply(), direct.reply()
			if strings.HasPrefix(history[len(history)-n+i], "HELLO") && got[0] == want[0] {
				continue
			}
			if strings.Contains(got, "left redis before EXEC") { // a deleted row was flushed meanwhile
				return
			}
			if got != want {
				t.Errorf("client %d: %s\n got %q\nwant %q\nafter %s", c.id, history[len(history)-n+i], got, want,
					strings.Join(last(history[:len(history)-n+i], 30), "\n"))
				return
			}
		}
	}
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
	"keyrow/test/history"
)

// breath is how long a client waits that was refused: Redis or MySQL is away.
const breath = 2 * time.Millisecond

// doors are the addresses of the processes that run, where clients come in.
type doors struct {
	mu     sync.Mutex
	moved  sync.Cond
	open   []string // guarded by mu
	closed bool     // guarded by mu; for good
}

func newDoors() *doors {
	d := &doors{}
	d.moved.L = &d.mu
	return d
}

func (d *doors) set(open []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = open
	d.moved.Broadcast()
}

func (d *doors) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.moved.Broadcast()
}

// enter waits until there is a door, and returns one; "" once they are closed.
func (d *doors) enter(random *rand.Rand) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.open) == 0 && !d.closed {
		d.moved.Wait()
	}
	if d.closed {
		return ""
	}
	return d.open[random.IntN(len(d.open))]
}

func (d *doors) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// client runs operations until the doors are closed. Which, depends on the seed alone; to which process they go and what
// becomes of them, on who is killed when.
func (r *round) client(client int) {
	random := rand.New(rand.NewPCG(r.c.seed, uint64(r.number)<<32|uint64(client)+1))
	paths := rand.New(rand.NewPCG(r.c.seed, uint64(r.number)<<32|1<<31|uint64(client)))
	for n := 0; ; {
		addr := r.doors.enter(paths)
		if addr == "" {
			return
		}
		c := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, MaxRetries: -1, DisableIdentity: true, PoolSize: 1,
			DialerRetries: 1, ReadTimeout: harness.Patience, WriteTimeout: harness.Patience})
		for there := true; there && !r.doors.isClosed(); n++ {
			// Numbers that differ, with room between them for what is added.
			there = r.run(c, client, r.choose(random, strconv.Itoa((1+n*clients+client)*10_000)))
		}
		c.Close()
	}
}

// choose makes an operation. Half of them are on a few keys that all clients want.
func (r *round) choose(random *rand.Rand, n string) operation {
	pick := func(k kind) string {
		most := keysEach
		if random.IntN(2) == 0 {
			most = keysWanted
		}
		return k.key(r.number*keysEach + random.IntN(most))
	}
	k := kinds[random.IntN(len(kinds))]
	return k.choose(random, pick(k), n, func() (kind, string) { return kinds[1], pick(kinds[1]) })
}

// fate is what became of a command.
type fate int

const (
	done    fate = iota
	refused      // it was not applied
	unknown      // perhaps it was, or will be
	unsent       // the process is gone
)

// run runs an operation and records it. It is false when the client has to connect anew.
func (r *round) run(c *redis.Client, client int, o operation) (there bool) {
	ctx := context.Background()
	cmds := make([]*redis.Cmd, len(o.commands))
	call := r.log.Now()
	var err error
	if o.multi {
		_, err = c.TxPipelined(ctx, func(tx redis.Pipeliner) error {
			for i, cmd := range o.commands {
				cmds[i] = tx.Do(ctx, cmd.args...)
			}
			return nil
		})
	} else {
		cmds[0] = c.Do(ctx, o.commands[0].args...)
		err = cmds[0].Err()
	}
	back := r.log.Now()
	whole := r.fateOf(o, err)
	there = whole != unsent && !broken(err)
	applied := false
	for i, cmd := range o.commands {
		fate := whole
		if o.multi && there && !aborted(err) {
			fate = r.fateOf(o, cmds[i].Err())
		}
		op := cmd.op
		op.Client, op.Call, op.Return = client, call, back
		if fate == done {
			reply, _ := cmds[i].Result()
			if err := cmd.see(reply, &op); err != nil {
				r.fail("%v: %v", cmd.args, err)
			}
		}
		writes := cmd.op.Left != history.Any || cmd.op.Add != 0
		switch {
		case fate == done && writes:
			r.c.acknowledged.Add(1)
			applied = true
		case fate == done:
			applied = true
		case fate == unknown && writes:
			r.c.unknown.Add(1)
			op.Saw, op.Return = history.Any, history.Never
		case fate == unknown:
			continue
		case fate == refused:
			r.c.refused.Add(1)
			r.note(cmd.key, fmt.Sprintf("%s was refused: %v", &op, cmp.Or(cmds[i].Err(), err)))
			continue
		default:
			continue
		}
		if !cmd.part {
			r.log.Add(cmd.key, op)
		}
	}
	r.c.operations.Add(1)
	if there && !applied {
		time.Sleep(breath)
	}
	return there
}

// note keeps what is told of a key besides its history, if that holds a contradiction.
func (r *round) note(key, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes[key] = append(r.notes[key], text)
}

func aborted(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "EXECABORT ") }

// broken reports whether err is one of the connection.
func broken(err error) bool {
	var reply redis.Error
	return err != nil && !errors.Is(err, redis.Nil) && !errors.As(err, &reply)
}

// refusals are the errors that are to be expected while servers come and go.
var refusals = []string{"UPSTREAM keyrow: ", "DBDOWN keyrow: ", "LOADING ", "EXECABORT ",
	"ERR keyrow: the lease of the key", "left redis before EXEC", "leaves redis as soon as it is there", "leaves redis again and again"}

// fateOf takes keyrow at its word: an error says if it is not known what became of the command.
func (r *round) fateOf(o operation, err error) fate {
	var failed *net.OpError
	switch {
	case err == nil, errors.Is(err, redis.Nil):
		return done
	case errors.As(err, &failed) && failed.Op == "dial":
		return unsent
	case broken(err) || strings.Contains(err.Error(), "unknown"):
		return unknown
	}
	for _, text := range refusals {
		if strings.Contains(err.Error(), text) {
			return refused
		}
	}
	r.fail("%v: %v", o.args(), err)
	return unknown
}

func (o operation) args() string {
	var all []string
	for _, cmd := range o.commands {
		all = append(all, fmt.Sprint(cmd.args...))
	}
	return strings.Join(all, "; ")
}

func init() { redis.SetLogger(quiet{}) } // connections that break are what it is about

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// Campaign kills keyrow, Redis and MySQL at random under load, as kill -9 does, and looks whether anything is lost that
// was acknowledged.
//
//	go run ./test/campaign                      1000 kills, which takes ten to twenty minutes
//	go run ./test/campaign -kills 100
//	go run ./test/campaign -seed 17 -round 3    one round again: what clients send, and who is killed after how many writes
//
// One to three keyrow processes serve clients that SET, INCR, HSET, DEL and read the same few hundred keys, alone and in
// MULTI; some are written behind, some through. Redis runs with appendfsync always. After each round of 16 kills or so the
// journal has to drain, and each row to be what its last acknowledged write made of it, or a later one that was not
// acknowledged: so that one order of everything explains what all clients saw of a key, its row in the end included, see
// package history.
//
// It starts its own servers, on free ports and in temporary folders.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"keyrow/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "campaign:", err)
		os.Exit(1)
	}
}

var errLost = errors.New("keyrow did not keep what it acknowledged")

func run(ctx context.Context, args []string, out, messages io.Writer) error {
	f := flag.NewFlagSet("campaign", flag.ContinueOnError)
	f.SetOutput(messages)
	kills := f.Int("kills", 1000, "how many processes to kill at least")
	seed := f.Uint64("seed", rand.Uint64(), "of all that is random; 0 to 2^64-1")
	only := f.Int("round", -1, "run this round alone; -1: all")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("unknown argument %q: -help lists the flags", f.Arg(0))
	case *kills < 1:
		return errors.New("-kills has to be positive")
	}
	fmt.Fprintf(out, "seed %d\n", *seed)
	p := newProgress(messages, *kills)
	s := harness.NewStage(messages)
	return s.Run(func() error {
		c := newCampaign(s, *seed)
		defer func() {
			p.clear()
			fmt.Fprintln(out, c)
		}()
		if *only >= 0 {
			c.tell = p.silent
			return c.again(*only)
		}
		c.tell = p.tell
		for number := 0; c.kills.all() < *kills; number++ {
			if err := c.again(number); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return errors.New("stopped")
			}
		}
		return nil
	})
}

// again runs a round, and says how to see it again if something was wrong.
func (c *campaign) again(number int) error {
	ended := false
	defer func() {
		if !ended {
			c.t.Logf("to see it again: %s", c.command(number))
		}
	}()
	well := c.round(number)
	ended = true
	if !well {
		return fmt.Errorf("%w; to see it again: %s", errLost, c.command(number))
	}
	return nil
}

func (c *campaign) command(round int) string {
	return fmt.Sprintf("go run ./test/campaign -seed %d -round %d", c.seed, round)
}

// progress tells how far the campaign is: on a terminal with a line that changes, elsewhere with a line now and then.
type progress struct {
	out      io.Writer
	kills    int
	terminal bool
	began    time.Time
	told     time.Time
}

// tellEvery is how often a line tells how far it is where there is no terminal.
const tellEvery = 10 * time.Second

func newProgress(out io.Writer, kills int) *progress {
	p := &progress{out: out, kills: kills, began: time.Now(), told: time.Now()}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) tell(c *campaign) {
	begin, end := "", "\n"
	if p.terminal {
		begin, end = "\r\x1b[K", ""
	} else if time.Since(p.told) < tellEvery {
		return
	}
	p.told = time.Now()
	done := c.kills.all()
	rate := float64(done) / time.Since(p.began).Seconds()
	left := time.Duration(float64(max(0, p.kills-done)) / rate * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(p.out, "%s%d of %d kills, %.1f/s, %v left; %d writes acknowledged, %d keys checked, %d lost%s",
		begin, done, p.kills, rate, left, c.acknowledged.Load(), c.keys, c.lost, end)
}

// silent tells nothing: a single round says how it ended.
func (*progress) silent(*campaign) {}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

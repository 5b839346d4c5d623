// Command demo shows the whole of keyrow on a machine that has Go and nothing else:
//
//	go -C test/demo run .            # everything runs, and a prompt to play with
//	go -C test/demo run . -script    # a short tour that checks itself
//
// One process holds a server that speaks Redis's protocol and one that speaks MySQL's, with a small shop in it, builds
// keyrow from this very tree and runs it in front of both. Nothing is left behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const defaultListen = "127.0.0.1:6380"

// tourDeadline bounds a whole -script run once everything is up.
const tourDeadline = 2 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for the first
	switch err := run(ctx, os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// usageError is a wrong command line, which package flag has explained already.
type usageError struct{ error }

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	listen := flags.String("listen", defaultListen, "`address` keyrow listens on; port 0 takes any free one")
	script := flags.Bool("script", false, "run a short tour, check every answer and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return usageError{err}
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(flags.Output(), "unexpected argument %q\n", flags.Arg(0))
		flags.Usage()
		return usageError{errors.New("usage")}
	}
	addr, err := freeAddr(*listen)
	if err != nil {
		return err
	}
	out := newScreen(os.Stdout, !*script && isTerminal(os.Stdin) && isTerminal(os.Stdout))
	d, err := start(ctx, addr, out)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted before it was up")
	}
	if err != nil {
		return err
	}
	err = d.play(ctx, *script)
	return errors.Join(err, d.stop())
}

// demo is everything that runs.
type demo struct {
	out    *screen
	redis  *redisServer
	mysql  *mysqlServer
	keyrow *child
	addr   string // of keyrow
}

// start brings up both servers, then keyrow in front of them.
func start(ctx context.Context, addr string, out *screen) (d *demo, err error) {
	d = &demo{out: out, addr: addr}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	if d.redis, err = startRedis(); err != nil {
		return nil, err
	}
	if d.mysql, err = startMySQL(ctx, turnWait); err != nil {
		return nil, err
	}
	out.line("starting: a redis at %s and a mysql at %s, both inside this process", d.redis.addr, d.mysql.addr)
	out.line("building keyrow ...")
	d.keyrow, err = startKeyrow(ctx, addr, d.redis.addr, d.mysql.addr, out)
	return d, err
}

// stop ends everything, keyrow first, since it flushes into the servers on its way out.
func (d *demo) stop() error {
	var err error
	if d.keyrow != nil {
		err = d.keyrow.stop()
	}
	if d.mysql != nil {
		d.mysql.close()
	}
	if d.redis != nil {
		d.redis.close()
	}
	return err
}

// play runs the tour or the prompt until it is over, ctx ends or keyrow does.
func (d *demo) play(ctx context.Context, script bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if script {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, tourDeadline, errors.New("the tour took too long"))
		defer stop()
	}
	counters := &watch{addr: d.addr, out: d.out}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return counters.run(ctx) })
	group.Go(func() error {
		select {
		case <-d.keyrow.ended:
			return d.keyrow.failure()
		case <-ctx.Done():
			return nil
		}
	})
	group.Go(func() error {
		defer cancel(nil)
		if script {
			return d.tour(ctx, counters)
		}
		d.out.text(d.welcome())
		return d.prompt(ctx, os.Stdin)
	})
	return group.Wait()
}

// freeAddr is listen, with a port 0 replaced by one that is free now. It fails if somebody listens there already.
func freeAddr(listen string) (string, error) {
	l, err := net.Listen("tcp", listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return "", fmt.Errorf("%s is taken, maybe by another demo or a keyrow: stop it, or take another address, like "+
			"`go -C test/demo run . -listen 127.0.0.1:0`", listen)
	}
	if err != nil {
		return "", fmt.Errorf("-listen %s: %w", listen, err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

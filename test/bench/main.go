// Bench measures keyrow against a direct connection to Redis, or to MySQL, and against other proxies.
//
//	go run ./test/bench                      everything, which takes about an hour
//	go run ./test/bench -scenario passthrough -clients 50 -pipelines 1,16 -sizes 100 -commands get,set
//	go run ./test/bench -keyrow ./keyrow     a program that is built already
//	go run ./test/bench -markdown            the tables of docs/performance.md
//
// It starts redis-server, mariadbd, keyrow and, where they are installed, twemproxy and HAProxy, on free ports and in
// temporary folders, and drives them in turns: in every round the direct connection first and then each of the
// others, so that all of them see the same machine. docs/performance.md says what the numbers mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keyrow/test/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o, err := parseOptions(args, progress)
	if err != nil {
		return err
	}
	var r report
	s := harness.NewStage(progress)
	// What was measured is worth printing also when the rest was not.
	err = s.Run(func() error { return measure(ctx, s, o, &r, progress) })
	return errors.Join(err, r.write(out, o.form))
}

// scaled is a number that belongs to a run of a second, for the runs that were asked for.
func (o options) scaled(perSecond int) int { return max(16, int(o.span.Seconds()*float64(perSecond))) }

// measure runs the scenarios and collects what they find in r.
func measure(ctx context.Context, s *harness.Stage, o options, r *report, progress io.Writer) error {
	b, err := newBench(s, o, r, progress)
	if err != nil {
		return err
	}
	for _, scenario := range scenarios {
		if !slices.Contains(o.scenarios, scenario.name) {
			continue
		}
		if err := scenario.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", scenario.name, err)
		}
		if err := b.clear(ctx); err != nil {
			return err
		}
	}
	return nil
}

// scenarios in the order in which they run. Each starts the proxies it needs on a Redis and a table without content.
var scenarios = []struct {
	name string
	run  func(context.Context, *bench) error
}{
	{"passthrough", passthrough},
	{"mapped-set", mappedSet},
	{"cold-read", coldRead},
	{"flush", flush},
}

// options are the command line.
type options struct {
	scenarios, proxies, commands []string
	clients, pipelines, sizes    []int

	rounds int
	span   time.Duration // how long one run is to take
	limit  time.Duration // after which it is killed
	keyrow string        // path of the program; "": built from the source
	form   string        // of the output: text, json or markdown
}

func parseOptions(args []string, out io.Writer) (options, error) {
	o := options{
		proxies: []string{"keyrow", "twemproxy", "haproxy"},
		clients: []int{1, 50, 1000}, pipelines: []int{1, 16, 100}, sizes: []int{100, 10 << 10},
		form: "text",
	}
	for _, s := range scenarios {
		o.scenarios = append(o.scenarios, s.name)
	}
	for _, c := range commands {
		o.commands = append(o.commands, c.name)
	}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error is told by main
	f.Var(&names{&o.scenarios, slices.Clone(o.scenarios)}, "scenario", "`names` of what to measure")
	f.Var(&names{&o.commands, slices.Clone(o.commands)}, "commands", "`names` of commands that pass through")
	f.Var(&names{&o.proxies, append([]string{"direct"}, o.proxies...)}, "proxies", "`names` of what they pass through; direct is always measured")
	f.Var(numbers{&o.clients}, "clients", "`numbers` of clients")
	f.Var(numbers{&o.pipelines}, "pipelines", "`numbers` of commands that a client has under way")
	f.Var(numbers{&o.sizes}, "sizes", "`bytes` of a value")
	f.IntVar(&o.rounds, "rounds", 5, "how often everything is measured")
	seconds := f.Float64("seconds", 1, "how long one run takes on the direct connection")
	f.DurationVar(&o.limit, "limit", 30*time.Second, "when a run is killed that does not end")
	f.StringVar(&o.keyrow, "keyrow", "", "`path` of the program, instead of building it")
	asJSON := f.Bool("json", false, "print every sample, as JSON")
	asMarkdown := f.Bool("markdown", false, "print the tables of docs/performance.md")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(out, "usage: go run ./test/bench [flags]")
			f.SetOutput(out)
			f.PrintDefaults()
		}
		return o, err
	}
	o.span = time.Duration(*seconds * float64(time.Second))
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unknown argument %q: -help lists the flags", f.Arg(0))
	case o.rounds < 1 || o.span <= 0 || o.limit <= 0:
		return o, errors.New("-rounds, -seconds and -limit have to be positive")
	case *asJSON && *asMarkdown:
		return o, errors.New("-json and -markdown exclude each other")
	case *asJSON:
		o.form = "json"
	case *asMarkdown:
		o.form = "markdown"
	}
	return o, nil
}

// names is a flag of names from a list, separated by commas.
type names struct {
	to    *[]string
	known []string
}

func (n *names) String() string {
	if n.to == nil {
		return ""
	}
	return strings.Join(*n.to, ",")
}

func (n *names) Set(text string) error {
	given := strings.Split(text, ",")
	for _, name := range given {
		if !slices.Contains(n.known, name) {
			return fmt.Errorf("no %q: there are %s", name, strings.Join(n.known, ", "))
		}
	}
	*n.to = given
	return nil
}

// numbers is a flag of positive numbers, separated by commas.
type numbers struct{ to *[]int }

func (n numbers) String() string {
	if n.to == nil {
		return ""
	}
	text := make([]string, len(*n.to))
	for i, v := range *n.to {
		text[i] = strconv.Itoa(v)
	}
	return strings.Join(text, ",")
}

func (n numbers) Set(text string) error {
	var given []int
	for word := range strings.SplitSeq(text, ",") {
		v, err := strconv.Atoi(word)
		if err != nil || v < 1 {
			return fmt.Errorf("%q is not a positive number", word)
		}
		given = append(given, v)
	}
	*n.to = given
	return nil
}

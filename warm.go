package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"keyrow/backend"
	"keyrow/mapping"
)

// Defaults of the flags of keyrow warm.
const defaultParallel = 2

// warmOptions are the command line of keyrow warm.
type warmOptions struct {
	conf, name string
	from       string
	rate       int
	parallel   int
	json       bool
}

func newWarm() *cobra.Command {
	var o warmOptions
	cmd := &cobra.Command{
		Use:   "warm NAME",
		Short: "Read the rows of a mapping from MySQL into Redis ahead of their readers",
		Long: `warm caches all rows of the mapping NAME, in the order of its key, as their readers would one by
one: before a cutover, say, or after Redis was emptied. Rows stay for the mapping's ttl, so those
that nobody reads are gone again after that.

It may run while keyrow serves, and beside writes: each row is read under a lease that a write takes
away. Rows that are in Redis already are left as they are, and so are those that were deleted, that
somebody else is reading, or that Redis remembers not to exist.

It stops, with an error, when Redis uses 95% of its maxmemory, before it evicts what clients use.

When it is interrupted, or fails, it says with which --from to go on. NAME can also be a query, if its
key has no variables; one with variables has no list of its keys, so it cannot be warmed.

On a terminal a bar shows how far it is, elsewhere a line every 10 seconds, both on stderr; how many
rows there are is MySQL's estimate. The exit status is 1 if something is left to be done or a row
could not be cached.

With --json it prints one object:

  mapping   NAME
  complete  whether all was gone through
  from      if not, the --from to go on with, left out if that is the start
  error     why not, left out if complete
  seconds   how long it took
  rows      how many rows it went through; of these
    cached    are in Redis now and were not before
    present   were in Redis already
    deleted   are deleted in Redis, and in MySQL with the next flush
    leased    somebody else was reading
    negative  are new: Redis remembered that they do not exist, for negative_ttl
    changed   were written or deleted meanwhile
    absent    were gone when they were read, or NULL in the one column of a value = "string"
    keyless   have values that make no key: an empty one, or one with the text between two variables in it
    failed    cannot be shown as a value
  reasons   why, for some of those that failed, left out if none did`,
		Example: "  keyrow warm user\n" +
			"  keyrow warm user --rate 5000\n" +
			"  keyrow warm user --from user:1000000",
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return warm(cmd.Context(), o)
		},
	}
	cmd.ValidArgsFunction = completeNames(&o.conf)
	configFlag(cmd.Flags(), &o.conf)
	flags := cmd.Flags()
	flags.StringVar(&o.from, "from", "", "the key to start at, whether it has a row or not; it may stand in quotes, with \\x00 for bytes")
	flags.IntVar(&o.rate, "rate", 0, "the most rows to go through in a second; 0: no limit")
	flags.IntVar(&o.parallel, "parallel", defaultParallel, "batches of rows to be read from MySQL at a time, 1 to 64")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

func oneName(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("want the name of one mapping, not %d arguments", len(args))}
	}
	return nil
}

// warmed is what warm prints with --json. The names of its fields are a promise.
type warmed struct {
	Mapping  string  `json:"mapping"`
	Complete bool    `json:"complete"`
	From     string  `json:"from,omitempty"`
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds"`
	backend.WarmStats
	Reasons []string `json:"reasons,omitempty"`
}

func warm(ctx context.Context, o warmOptions) error {
	switch {
	case o.rate < 0:
		return usageError{fmt.Errorf("--rate: %d is negative", o.rate)}
	case o.parallel < 1 || o.parallel > 64:
		return usageError{fmt.Errorf("--parallel: %d is not within 1 and 64", o.parallel)}
	}
	from, err := parseKeyText(o.from)
	if err != nil {
		return usageError{fmt.Errorf("--from: %w", err)}
	}
	t, err := openTarget(ctx, o.conf, o.name)
	if err != nil {
		return err
	}
	defer t.close()
	m := t.mapping
	if m.Query && m.OneKey() == nil {
		return usageError{fmt.Errorf("the key %q of query %q has variables, so there is no list of its keys: it cannot be warmed",
			m.Pattern, m.Name)}
	}
	switch {
	case len(from) == 0:
		from = nil
	case m.OneKey() != nil:
		return usageError{fmt.Errorf("--from: query %q has one key; leave it out", m.Name)}
	case t.set.Match(from) != m:
		return usageError{fmt.Errorf("--from: %q is no key of mapping %q, whose keys are %q", from, m.Name, m.Pattern)}
	default:
		if err := m.Refusal(from); err != nil {
			return usageError{fmt.Errorf("--from: %w", err)}
		}
	}

	started := time.Now()
	total, err := t.loader.Estimate(ctx, m, from)
	if err != nil {
		return err
	}
	p := newProgress(os.Stderr, "warm "+m.Name, "rows")
	p.set(0, total)
	r, err := t.loader.Warm(ctx, backend.WarmOptions{
		Mapping: m, From: from, Rate: o.rate, Parallel: o.parallel,
		Progress: func(s backend.WarmStats) { p.set(int64(s.Rows), total) },
	})
	p.clear()

	took := time.Since(started)
	w := warmed{Mapping: m.Name, Complete: err == nil, Seconds: took.Seconds(), WarmStats: r.WarmStats, Reasons: r.Reasons}
	if err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		w.Error = err.Error()
		if r.Last == nil {
			r.Last = from
		}
		if r.Last != nil {
			w.From = keyText(r.Last)
		}
		err = fmt.Errorf("%w; go on with: %s", err, o.again(w.From))
	} else if r.Failed > 0 {
		err = fmt.Errorf("%d rows could not be cached", r.Failed)
	}
	if o.json {
		return errors.Join(writeJSON(os.Stdout, w), err)
	}
	for _, reason := range r.Reasons {
		fmt.Fprintln(os.Stderr, "keyrow:", printable(reason))
	}
	fmt.Println(w.summary(took))
	if m.TTL > 0 && took > m.TTL {
		fmt.Printf("the first of them have left Redis again: it took longer than the ttl of %v\n", m.TTL)
	}
	return err
}

// again is the command that goes on from a key, empty: from the start.
func (o *warmOptions) again(from string) string {
	words := []string{"keyrow", "warm", o.name}
	if o.conf != defaultConf {
		words = append(words, "-c", o.conf)
	}
	if o.rate != 0 {
		words = append(words, "--rate", strconv.Itoa(o.rate))
	}
	if o.parallel != defaultParallel {
		words = append(words, "--parallel", strconv.Itoa(o.parallel))
	}
	if from != "" {
		words = append(words, "--from", from)
	}
	for i, word := range words {
		if strings.ContainsFunc(word, notInWord) {
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// notInWord tells what a shell does not take as it is.
func notInWord(r rune) bool {
	return !(unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_./:,@%+=", r))
}

func (w *warmed) summary(took time.Duration) string {
	text := fmt.Sprintf("%s: %d rows in %v", w.Mapping, w.Rows, took.Round(10*time.Millisecond))
	if seconds := took.Seconds(); w.Rows > 0 && seconds > 0 {
		text += fmt.Sprintf(", %.0f a second", float64(w.Rows)/seconds)
	}
	text += fmt.Sprintf(": %d cached", w.Cached)
	for _, s := range []struct {
		n    uint64
		what string
	}{
		{w.Present, "in Redis already"},
		{w.Deleted, "deleted and not flushed yet"},
		{w.Leased, "being read by somebody else"},
		{w.Negative, "remembered as missing"},
		{w.Changed, "written meanwhile"},
		{w.Absent, "gone or NULL"},
		{w.Keyless, "without a key"},
		{w.Failed, "that cannot be shown"},
	} {
		if s.n > 0 {
			text += fmt.Sprintf(", %d %s", s.n, s.what)
		}
	}
	return text
}

// keyText is a key as a flag, a line or JSON can have it: as it is, or in quotes, with escapes, if that could not be
// read.
func keyText(key []byte) string {
	text := string(key)
	if utf8.Valid(key) && !strings.HasPrefix(text, `"`) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return text
	}
	return strconv.Quote(text)
}

// parseKeyText is the key that keyText was given.
func parseKeyText(text string) ([]byte, error) {
	if !strings.HasPrefix(text, `"`) {
		return []byte(text), nil
	}
	key, err := strconv.Unquote(text)
	if err != nil {
		return nil, fmt.Errorf(`%s is not a text in quotes: write \" for a quote in it and \\ for a \`, text)
	}
	return []byte(key), nil
}

// target is a mapping or query by its name, with both servers.
type target struct {
	*parts
	mapping *mapping.Mapping
	loader  *backend.Loader
}

// openTarget connects to both servers, as serving does, for work on one mapping or query.
func openTarget(ctx context.Context, conf, name string) (*target, error) {
	c, err := loadConfig(conf)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range c.Mappings {
		names = append(names, m.Name)
	}
	for _, q := range c.Queries {
		names = append(names, q.Name)
	}
	if !slices.Contains(names, name) {
		return nil, usageError{fmt.Errorf("there is no mapping %q in %s; it has %s", name, conf, strings.Join(names, ", "))}
	}
	p, err := connect(ctx, c, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	t := &target{parts: p}
	if p.set == nil {
		err = &configError{err: errors.New("the configuration does not fit the tables; keyrow check lists what to change")}
	} else {
		// With the partitions of another configuration it would be looked for deleted rows where there are none.
		err = backend.CheckLayout(ctx, p.rdb, c.Journal)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	for _, m := range slices.Concat(p.set.All(), p.set.Queries()) {
		if m.Name == name {
			t.mapping = m
		}
	}
	t.loader = backend.NewLoader(backend.LoaderOptions{
		Redis: p.rdb, DB: p.db, Journal: mapping.Journal{Prefix: c.Journal.Prefix, Partitions: c.Journal.Partitions},
		Timeout: c.MySQL.Timeout, Log: zerolog.Nop(), Hook: hook,
	})
	return t, nil
}

func (t *target) close() {
	t.loader.Close()
	t.parts.close()
}

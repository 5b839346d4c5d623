package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrow/backend"
)

// verifyOptions are the command line of keyrow verify.
type verifyOptions struct {
	conf, name string
	sample     int
	repair     bool
	json       bool
}

func newVerify() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify NAME",
		Short: "Compare the rows that Redis has of a mapping with MySQL",
		Long: `verify walks through what Redis has of the mapping NAME, compares it with the rows, and prints what
differs and how: rows that something else than keyrow changed in MySQL, or keys that something else
wrote in Redis. It may run while keyrow serves, and beside writes: what is not flushed yet is not
compared, and what differs is looked at again before it is told. A row remembered as missing that is
there counts, too.

With --repair, what differs is dropped from Redis, so that the next reader reads the row. What was
written and is not in MySQL yet is never dropped.

On a terminal a bar shows how far it is, elsewhere a line every 10 seconds, both on stderr. The exit
status is 1 if something differs and was not repaired. No more than 100 bytes of a value are shown.

With --json it prints one object:

  mapping      NAME
  differences  a list, in no order
    key          the key, in quotes with escapes if it is not text
    why          why the values cannot be compared by column, left out if they can
    columns      a list of what differs
      column       its name; empty: the value as a whole
      cached       what Redis has, as it stands in the value, cut if it is long
      row          what it would be, read from the row
    repaired     whether it was dropped
  complete     whether all was gone through
  error        why not, left out if complete
  seconds      how long it took
  images       how many keys were looked at; of these
    same         are what their rows say
    differ       are not
    pending      are written and not flushed yet
    parked       are written and refused by MySQL
    gone         left Redis or changed before they could be compared
  repaired     how many of those that differ were dropped
  foreign      keys besides that look like the mapping's and name no row, as user:007`,
		Example: "  keyrow verify user\n" +
			"  keyrow verify user --sample 10000\n" +
			"  keyrow verify user --repair",
		Args: oneName,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return verify(cmd.Context(), o)
		},
	}
	cmd.ValidArgsFunction = completeNames(&o.conf)
	configFlag(cmd.Flags(), &o.conf)
	flags := cmd.Flags()
	flags.IntVar(&o.sample, "sample", 0, "how many keys to compare, from a place chosen at random; 0: all")
	flags.BoolVar(&o.repair, "repair", false, "drop from Redis what differs")
	flags.BoolVar(&o.json, "json", false, "print JSON")
	return cmd
}

// verified is what verify prints with --json, after the list of differences. The names of its fields are a promise.
type verified struct {
	Complete bool    `json:"complete"`
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds"`
	backend.VerifyStats
}

// differing is one of its differences.
type differing struct {
	Key      string            `json:"key"`
	Why      string            `json:"why,omitempty"`
	Columns  []differingColumn `json:"columns,omitempty"`
	Repaired bool              `json:"repaired"`
}

type differingColumn struct {
	Column string `json:"column"`
	Cached string `json:"cached"`
	Row    string `json:"row"`
}

func verify(ctx context.Context, o verifyOptions) error {
	if o.sample < 0 {
		return usageError{fmt.Errorf("--sample: %d is negative", o.sample)}
	}
	t, err := openTarget(ctx, o.conf, o.name)
	if err != nil {
		return err
	}
	defer t.close()
	if t.mapping.Query {
		return usageError{fmt.Errorf("%q is a query, whose results may be as old as its ttl; verify is for mappings", o.name)}
	}

	out := &differences{out: os.Stdout, json: o.json, name: o.name}
	out.begin()
	started := time.Now()
	p := newProgress(os.Stderr, "verify "+o.name, "keys")
	stats, err := t.loader.Verify(ctx, backend.VerifyOptions{
		Mapping: t.mapping, Set: t.set, Sample: o.sample, Repair: o.repair,
		Differs: func(d backend.Differing) {
			p.clear()
			out.add(d)
		},
		Progress: func(s backend.VerifyStats, share float64) {
			var total int64
			if share > 0 {
				total = int64(float64(s.Images) / share)
			}
			p.set(int64(s.Images), total)
		},
	})
	p.clear()
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	v := verified{Complete: err == nil, Seconds: time.Since(started).Seconds(), VerifyStats: stats}
	if err != nil {
		v.Error = err.Error()
	} else if left := stats.Differ - stats.Repaired; left > 0 {
		err = fmt.Errorf("%d keys differ; --repair drops them from Redis", left)
	}
	return errors.Join(out.end(v), err)
}

// differences prints what differs while it is found.
type differences struct {
	out  io.Writer
	json bool
	name string
	n    int
	err  error
}

func (p *differences) print(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format, args...)
	}
}

func (p *differences) begin() {
	if p.json {
		p.print("{\n  \"mapping\": %q,\n  \"differences\": [", p.name)
	}
}

func (p *differences) add(d backend.Differing) {
	p.n++
	if p.json {
		one := differing{Key: keyText(d.Key), Why: d.Why, Repaired: d.Repaired}
		for _, c := range d.Differences {
			one.Columns = append(one.Columns, differingColumn{c.Column, c.Image, c.Row})
		}
		p.print("%s\n    %s", ","[:min(p.n-1, 1)], compact(one))
		return
	}
	end := ""
	if d.Repaired {
		end = "; repaired"
	}
	if d.Why != "" {
		p.print("%s: %s%s\n", printable(keyText(d.Key)), printable(d.Why), end)
	}
	for _, c := range d.Differences {
		column := "the value"
		if c.Column != "" {
			column = fmt.Sprintf("column %q", c.Column)
		}
		p.print("%s: %s\n", printable(keyText(d.Key)), printable(fmt.Sprintf("%s: cached %s, row %s%s", column, c.Image, c.Row, end)))
	}
}

// end prints the sums.
func (p *differences) end(v verified) error {
	if p.json {
		if p.n > 0 {
			p.print("\n  ")
		}
		var b strings.Builder
		if err := writeJSON(&b, v); err != nil {
			return err
		}
		p.print("],%s", strings.TrimPrefix(b.String(), "{"))
		return p.err
	}
	text := fmt.Sprintf("%s: %d keys in %.2fs: %d are what their rows say, %d differ", p.name, v.Images, v.Seconds, v.Same, v.Differ)
	if v.Repaired > 0 {
		text += fmt.Sprintf(" (%d repaired)", v.Repaired)
	}
	for _, s := range []struct {
		n    int
		what string
	}{{v.Pending, "not flushed yet"}, {v.Parked, "parked"}, {v.Gone, "gone or changed meanwhile"}} {
		if s.n > 0 {
			text += fmt.Sprintf(", %d %s", s.n, s.what)
		}
	}
	if v.Foreign > 0 {
		text += fmt.Sprintf("; besides, %d keys name no row", v.Foreign)
	}
	p.print("%s\n", text)
	return p.err
}

// compact is JSON on one line.
func compact(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // texts, which it can always write
	return strings.TrimSuffix(b.String(), "\n")
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"keyrow/backend"
	"keyrow/mapping"
)

// flushPatience is how long keyrow journal flush waits unless told otherwise.
const flushPatience = 30 * time.Second

// journalOptions are the flags of the commands below keyrow journal.
type journalOptions struct {
	conf    string
	asJSON  bool
	all     bool
	limit   int
	timeout time.Duration
}

func newJournal() *cobra.Command {
	var o journalOptions
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Look at what is not in MySQL yet, flush it, retry or drop what MySQL refuses",
		Long: `journal works on what was written to Redis and is not in MySQL yet: the writes that wait to be
flushed, and the rows that are parked because MySQL refuses them. It goes by the configuration,
to the servers themselves, and needs no keyrow that runs. With --json it prints JSON.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("journal needs a command: status, flush, parked, retry or drop; keyrow journal --help describes them")}
		},
	}
	configFlag(cmd.PersistentFlags(), &o.conf)
	cmd.PersistentFlags().BoolVar(&o.asJSON, "json", false, "print JSON")
	cmd.AddCommand(journalStatus(&o), journalFlush(&o), journalParked(&o), journalRetry(&o), journalDrop(&o))
	return cmd
}

func journalStatus(o *journalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Print how much waits, how long, and how fast it is flushed, which takes a second to measure",
		Long: `status prints what waits in the journal. With --json, one object:

  pending            marks that wait to be flushed, about one for each key written
  oldest_pending_ms  age of the oldest in milliseconds, 0 if none waits
  settled_per_second marks worked off a second, by all keyrow processes
  parked             keys whose rows MySQL refuses`,
		Example: "  keyrow journal status\n  keyrow journal status --json | jq .oldest_pending_ms",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withJournal(cmd.Context(), o, func(ctx context.Context, j *backend.Journal) error {
				s, err := j.Status(ctx)
				if err != nil {
					return err
				}
				if o.asJSON {
					return writeJSON(os.Stdout, map[string]int64{
						"pending": s.Pending, "oldest_pending_ms": s.OldestAge.Milliseconds(),
						"settled_per_second": s.Rate, "parked": s.Parked,
					})
				}
				_, err = fmt.Printf("pending  %d writes wait for mysql, the oldest for %v\nrate     %d a second\n"+
					"parked   %d rows that mysql refuses\n", s.Pending, s.OldestAge.Round(time.Millisecond), s.Rate, s.Parked)
				return err
			})
		},
	}
}

func journalFlush(o *journalOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flush [KEY]",
		Short: "Wait until what is pending now is in MySQL, all of it or that of one key",
		Long: `flush waits until every write that is in the journal now is in MySQL, or parked. The keyrow
processes that run do that; flush does it itself where none of them does. What is written while
it waits is not waited for. The exit status is 3 if time ran out; nothing is lost then.

With --json it prints one object: remaining, how many marks are left.`,
		Example: "  keyrow journal flush\n  keyrow journal flush user:42 --timeout 5s",
		Args:    atMostOneKey,
		RunE: func(cmd *cobra.Command, keys []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
			defer cancel()
			c, err := loadConfig(o.conf)
			if err != nil {
				return err
			}
			left, err := flushJournal(ctx, c, keys)
			if left == 0 && err == nil {
				if o.asJSON {
					return writeJSON(os.Stdout, map[string]int{"remaining": 0})
				}
				_, err = fmt.Println("flushed: what was written is in mysql, or parked")
				return err
			}
			if left >= 0 && o.asJSON {
				err = errors.Join(err, writeJSON(os.Stdout, map[string]int{"remaining": left}))
			}
			if left > 0 {
				return &remainderError{left, err}
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&o.timeout, "timeout", flushPatience, "how long to wait")
	return cmd
}

// flushJournal contends for the partitions like any keyrow, and waits until all marks that there are, or those of one
// key, are worked off.
func flushJournal(ctx context.Context, c config, keys []string) (left int, err error) {
	log := newLog(c.Log, os.Stderr).Level(zerolog.WarnLevel)
	p, err := connect(ctx, c, log)
	if err != nil {
		return -1, err
	}
	defer p.close()
	if p.set == nil {
		return -1, &configError{err: errors.New("the configuration does not fit the tables; keyrow check lists what to change")}
	}
	journal, err := backend.OpenJournal(ctx, p.rdb, c.Journal, log)
	if err != nil {
		return -1, err
	}
	owners, err := backend.OpenOwners(c.MySQL, c.Journal.SessionTimeout)
	if err != nil {
		return -1, err
	}
	defer func() { _ = owners.Close() }()
	set := p.set
	flusher := backend.NewFlusher(backend.FlusherOptions{
		Journal: journal, Redis: p.rdb, DB: owners, Mappings: func() *mapping.Set { return set }, Log: log,
	})
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- flusher.Run(running) }()
	if len(keys) == 0 {
		left, err = flusher.Drain(ctx)
	} else {
		left, err = flusher.DrainKey(ctx, keys[0])
	}
	stop()
	return left, errors.Join(err, <-ended)
}

func journalParked(o *journalOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "parked",
		Short: "List the rows that MySQL refuses, and why",
		Long: `parked lists the keys whose rows MySQL refuses, those that were parked first in front. They keep
their values in Redis and are served. With --json it prints a list of objects:

  key    the key
  mark   "+": the row was to be written, "-": to be deleted, "?": a script had the key at hand
  table  the table, "" if no mapping matches the key
  code   the error number of MySQL, 0 if it is no error of MySQL
  error  the words of MySQL, or of keyrow
  since  when it was parked first
  tries  how often it was tried`,
		Example: "  keyrow journal parked\n  keyrow journal parked --json | jq -r '.[].key'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withJournal(cmd.Context(), o, func(ctx context.Context, j *backend.Journal) error {
				rows, err := j.Parked(ctx, o.limit)
				if err != nil {
					return err
				}
				if o.asJSON {
					return writeJSON(os.Stdout, parkedRows(rows))
				}
				return writeParked(os.Stdout, rows)
			})
		},
	}
	cmd.Flags().IntVar(&o.limit, "limit", 1000, "how many keys to list at most")
	return cmd
}

// parkedRow is a parked key in JSON; the names of its fields are a promise.
type parkedRow struct {
	Key   string    `json:"key"`
	Mark  string    `json:"mark"`
	Table string    `json:"table"`
	Code  uint16    `json:"code"`
	Error string    `json:"error"`
	Since time.Time `json:"since"`
	Tries int       `json:"tries"`
}

func parkedRows(rows []mapping.Parked) []parkedRow {
	out := make([]parkedRow, len(rows))
	for i, r := range rows {
		out[i] = parkedRow{r.Key, string(r.Mark), r.Table, r.Code, r.Error, r.Since.UTC(), r.Tries}
	}
	return out
}

func writeParked(out io.Writer, rows []mapping.Parked) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(rows) > 0 {
		fmt.Fprintln(w, "KEY\tMARK\tTABLE\tSINCE\tTRIES\tERROR")
	}
	for _, r := range rows {
		why := r.Error
		if r.Code != 0 {
			why = fmt.Sprintf("%d: %s", r.Code, why)
		}
		fmt.Fprintf(w, "%s\t%c\t%s\t%s\t%d\t%s\n", printable(r.Key), r.Mark, r.Table,
			r.Since.Format(time.DateTime), r.Tries, printable(why))
	}
	return w.Flush()
}

func journalRetry(o *journalOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retry KEY... | --all",
		Short: "Have parked rows tried again",
		Long: `retry puts the marks of parked keys back, so that a keyrow that runs, or keyrow journal flush, tries
them again. They are parked until they are written, and stay so if MySQL refuses them still. It prints
how many were not under way already; with --json one object: retried, how many.`,
		Example: "  keyrow journal retry user:42\n  keyrow journal retry --all",
		Args:    keysOrAll(o),
		RunE: func(cmd *cobra.Command, keys []string) error {
			return withJournal(cmd.Context(), o, func(ctx context.Context, j *backend.Journal) error {
				n, err := j.Retry(ctx, keys...)
				return errors.Join(err, o.tell("retried", n))
			})
		},
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "all parked keys")
	return cmd
}

func journalDrop(o *journalOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drop KEY... | --all",
		Short: "Give up what was written to parked rows",
		Long: `drop gives up what was written to parked keys: it is lost. Their values leave Redis, and who reads
them next gets the rows as MySQL has them. It prints how many of the keys were parked, and on stderr
what each of them was parked for. With --json it prints one object: dropped, how many.`,
		Example: "  keyrow journal drop user:42\n  keyrow journal drop --all",
		Args:    keysOrAll(o),
		RunE: func(cmd *cobra.Command, keys []string) error {
			return withJournal(cmd.Context(), o, func(ctx context.Context, j *backend.Journal) error {
				if !o.all {
					n, err := j.Drop(ctx, keys...)
					return errors.Join(err, o.tell("dropped", n))
				}
				rows, err := j.Parked(ctx, int(^uint(0)>>1))
				if err != nil {
					return err
				}
				for _, r := range rows {
					keys = append(keys, r.Key)
				}
				n, err := j.Drop(ctx, keys...)
				return errors.Join(err, o.tell("dropped", n))
			})
		},
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "all parked keys")
	return cmd
}

// tell prints how many keys something was done to.
func (o *journalOptions) tell(what string, n int) error {
	if o.asJSON {
		return writeJSON(os.Stdout, map[string]int{what: n})
	}
	_, err := fmt.Printf("%s %d\n", what, n)
	return err
}

func keysOrAll(o *journalOptions) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if o.all == (len(args) > 0) {
			return usageError{errors.New("name the keys, or give --all")}
		}
		return nil
	}
}

func atMostOneKey(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError{fmt.Errorf("one key at most: %s", strings.Join(args, " "))}
	}
	return nil
}

// withJournal opens the journal of the configuration; of the servers it needs Redis alone.
func withJournal(ctx context.Context, o *journalOptions, do func(context.Context, *backend.Journal) error) error {
	c, err := loadConfig(o.conf)
	if err != nil {
		return err
	}
	log := newLog(c.Log, os.Stderr).Level(zerolog.WarnLevel)
	rdb, err := backend.OpenRedis(c.Redis)
	if err != nil {
		return &configError{err: err}
	}
	defer rdb.Close()
	if err := backend.CheckRedis(ctx, rdb, log); err != nil {
		return err
	}
	journal, err := backend.OpenJournal(ctx, rdb, c.Journal, log)
	if err != nil {
		return err
	}
	return do(ctx, journal)
}

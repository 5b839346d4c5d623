package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mattn/go-isatty"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"keyrow/backend"
	"keyrow/mapping"
)

func newCheck() *cobra.Command {
	var conf string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare the configuration with Redis and the tables of MySQL",
		Long: `check reads the configuration, connects to Redis and MySQL as serving would, compares every
mapping with its table, tries every query, and prints all it finds, one line a finding, with the line to change.
It changes nothing. The exit status is 1 if keyrow would not start, which warnings do not keep
it from, and 2 if the configuration itself is wrong. What is wrong with the file alone, a key
that does not exist say, is said on stderr, before anything is compared.

With --json it prints one object:

  ok        whether keyrow would start
  mappings  how many there are
  queries   how many there are
  findings  a list, in the order of the mappings, errors before warnings
    severity  "error" or "warning"
    mapping   the name of the mapping, left out if it is none's
    query     the name of the query, left out if it is none's
    setting   the key of the mapping or query to change, "columns" say; left out where both are
    text      what is wrong and the way out`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(conf)
			if err != nil {
				return err
			}
			r := check(cmd.Context(), c)
			if asJSON {
				err = writeJSON(os.Stdout, r)
			} else {
				err = r.write(os.Stdout, colours(os.Stdout))
			}
			return errors.Join(err, r.err)
		},
	}
	configFlag(cmd.Flags(), &conf)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// checked is what check found. The names of its fields in JSON are a promise.
type checked struct {
	OK       bool      `json:"ok"`
	Mappings int       `json:"mappings"`
	Queries  int       `json:"queries"`
	Findings []finding `json:"findings"`

	err error // of the command, if not OK
}

type finding struct {
	Severity string `json:"severity"`
	Mapping  string `json:"mapping,omitempty"`
	Query    string `json:"query,omitempty"`
	Setting  string `json:"setting,omitempty"`
	Text     string `json:"text"`
}

// check finds whatever would keep keyrow from starting, and more. It goes on after an error, so that one run shows all
// there is to change.
func check(ctx context.Context, c config) *checked {
	r := &checked{OK: true, Mappings: len(c.Mappings), Queries: len(c.Queries), Findings: []finding{}}
	if err := c.Proxy.TLS.Check(); err != nil {
		r.error(&configError{err: err})
	}
	if warning := c.Admin.Warning(); warning != "" {
		r.add(finding{Severity: mapping.Warning.String(), Text: warning})
	}
	rdb, err := connectRedis(ctx, c, zerolog.Nop())
	if err != nil {
		r.error(err)
	} else {
		r.redis(ctx, rdb, c)
		_ = rdb.Close()
	}
	db, _, findings, err := connectMySQL(ctx, c)
	if err != nil {
		r.error(err)
	} else {
		_ = db.Close()
	}
	for _, f := range findings {
		one := finding{Severity: f.Severity.String(), Setting: f.Setting, Text: f.Text}
		if f.Query {
			one.Query = f.Mapping
		} else {
			one.Mapping = f.Mapping
		}
		r.add(one)
	}
	return r
}

func (r *checked) redis(ctx context.Context, rdb *redis.Client, c config) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := backend.CheckLayout(ctx, rdb, c.Journal); err != nil {
		r.error(err)
	}
	if !writes(c) {
		return
	}
	warnings, err := durability(ctx, rdb, c)
	for _, warning := range warnings {
		r.add(finding{Severity: mapping.Warning.String(), Text: warning})
	}
	if err != nil {
		r.error(err)
	}
}

func (r *checked) error(err error) {
	r.add(finding{Severity: mapping.Error.String(), Text: err.Error()})
	var conf *configError
	if errors.As(err, &conf) {
		r.err = &configError{err: errWouldNotStart}
	}
}

func (r *checked) add(f finding) {
	if f.Severity == mapping.Error.String() && r.err == nil {
		r.OK, r.err = false, errWouldNotStart
	}
	r.Findings = append(r.Findings, f)
}

var errWouldNotStart = errors.New("keyrow would not start with this configuration")

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// The colours of a terminal, by their numbers.
const (
	red    = 31
	green  = 32
	yellow = 33
)

// write prints a line for each finding.
func (r *checked) write(out io.Writer, coloured bool) error {
	paint := func(colour int, text string) string {
		if !coloured {
			return text
		}
		return fmt.Sprintf("\x1b[%dm%s\x1b[m", colour, text)
	}
	for _, f := range r.Findings {
		colour := yellow
		if f.Severity == mapping.Error.String() {
			colour = red
		}
		where := ""
		switch {
		case f.Mapping != "":
			where = fmt.Sprintf("mapping %q: %s: ", f.Mapping, f.Setting)
		case f.Query != "":
			where = fmt.Sprintf("query %q: %s: ", f.Query, f.Setting)
		}
		if _, err := fmt.Fprintf(out, "%s: %s\n", paint(colour, f.Severity), printable(where+f.Text)); err != nil {
			return err
		}
	}
	if !r.OK {
		return nil
	}
	_, err := fmt.Fprintf(out, "%s: %d mappings fit their tables\n", paint(green, "ok"), r.Mappings)
	if err == nil && r.Queries > 0 {
		_, err = fmt.Fprintf(out, "%s: %d queries run\n", paint(green, "ok"), r.Queries)
	}
	return err
}

// colours reports whether what is written to f may have colours: on a terminal that knows them, unless NO_COLOR says
// otherwise (no-color.org).
func colours(f *os.File) bool {
	return isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

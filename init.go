package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"keyrow/backend"
	"keyrow/mapping"
)

// dsnVariable is where init finds the dsn if no flag has it.
const dsnVariable = "KEYROW_DSN"

// passwordVariable stands in the file for a password that was given.
const passwordVariable = "MYSQL_PASSWORD"

// initOptions are the flags of keyrow init.
type initOptions struct {
	dsn   string // as given: the file gets its variables, not what is in them
	redis string
	out   string // empty: stdout
	force bool
}

func newInit() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a configuration for the tables of a database",
		Long: `init reads the schema of a database and writes a configuration with a mapping for each of its
tables, ready to serve. Comments in it say what to know of a table, and why one has no mapping and
what to do about it. Nothing is changed in the database; Redis is not asked.

A password never gets into the file: a variable of the environment takes its place there.`,
		Example: "  export KEYROW_DSN='keyrow:secret@tcp(127.0.0.1:3306)/shop'\n" +
			"  keyrow init --out conf.toml\n\n" +
			"  keyrow init --dsn 'keyrow:${MYSQL_PASSWORD}@tcp(127.0.0.1:3306)/shop' --redis 127.0.0.1:6379",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, set := os.LookupEnv(dsnVariable); !set && o.dsn == "${"+dsnVariable+"}" {
				return usageError{errors.New("no database is named; give --dsn 'user:password@tcp(host:port)/database' or set " +
					dsnVariable + " to that")}
			}
			return initialise(cmd.Context(), o, os.Stdout)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.dsn, "dsn", "${"+dsnVariable+"}", "the database, as mysql.dsn has it; ${NAME} is a variable of the environment")
	flags.StringVar(&o.redis, "redis", backend.DefaultRedisAddr, "the address of Redis")
	flags.StringVarP(&o.out, "out", "o", "", "the file to write, instead of stdout")
	flags.BoolVar(&o.force, "force", false, "overwrite the file")
	must(cobra.MarkFlagFilename(flags, "out", "toml"))
	return cmd
}

// initialise writes a configuration for the tables of a database.
func initialise(ctx context.Context, o initOptions, stdout io.Writer) error {
	var d decoder
	my := backend.DefaultMySQL()
	my.DSN = d.expand("--dsn", o.dsn)
	r := backend.DefaultRedis()
	r.Addr = d.expand("--redis", o.redis)
	if err := errors.Join(d.problems...); err != nil {
		return usageError{err}
	}
	if err := my.Validate(); err != nil {
		return usageError{fmt.Errorf("--dsn: %s", strings.TrimPrefix(err.Error(), "mysql.dsn: "))}
	}
	if err := r.Validate(); err != nil {
		return usageError{fmt.Errorf("--redis: %s", strings.TrimPrefix(err.Error(), "redis.addr: "))}
	}
	if _, err := os.Stat(o.out); o.out != "" && err == nil && !o.force {
		return usageError{fmt.Errorf("%s exists; name another file with --out, or overwrite it with --force", o.out)}
	}

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	db, err := backend.OpenMySQL(my)
	if err != nil {
		return usageError{err}
	}
	defer db.Close()
	database, tables, err := backend.Tables(ctx, db)
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		return fmt.Errorf("there is no table in the database %s that the user of the dsn may see; create one or grant SELECT on it", database)
	}
	schema, err := backend.ReadSchema(ctx, db, tables)
	if err != nil {
		return err
	}

	draft := draft{database: database, redis: o.redis}
	draft.dsn, draft.hidden = hidePassword(o.dsn)
	draft.proposals = mapping.Propose(tables, schema, backend.DefaultJournalPrefix+":")
	mapped := draft.mapped()
	text := draft.String()
	if o.out == "" {
		if _, err := io.WriteString(stdout, text); err != nil {
			return err
		}
	} else {
		if err := writeFile(o.out, text, o.force); err != nil {
			return err
		}
		next := "keyrow check -c " + o.out
		if draft.hidden {
			next = "export " + passwordVariable + "=...; " + next
		}
		others := ""
		if mapped < len(tables) {
			others = ", comments say why the others have none"
		}
		fmt.Fprintf(stdout, "%s: %d of %d tables have a mapping%s; next:\n  %s\n", o.out, mapped, len(tables), others, next)
	}
	if mapped == 0 {
		return errors.New("no table can be mapped; comments in the configuration say why")
	}
	return nil
}

// writeFile writes a file that was not there, or any if forced to.
func writeFile(name, text string, force bool) error {
	how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(name, how, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// hidePassword puts passwordVariable in the place of the password of a dsn, user:password@net(address)/database?params,
// unless there is a variable already.
func hidePassword(dsn string) (text string, hidden bool) {
	end := strings.LastIndexByte(dsn, '/')
	if end < 0 {
		end = len(dsn) // in a variable
	}
	at := strings.LastIndexByte(dsn[:end], '@')
	colon := strings.IndexByte(dsn[:max(at, 0)], ':')
	if colon < 0 {
		return dsn, false
	}
	if password := dsn[colon+1 : at]; password == "" || strings.HasPrefix(password, "${") && variable.FindString(password) == password {
		return dsn, false
	}
	return dsn[:colon+1] + "${" + passwordVariable + "}" + dsn[at:], true
}

// draft is a configuration to be written.
type draft struct {
	database  string
	dsn       string
	hidden    bool // dsn has passwordVariable in the place of a password
	redis     string
	proposals []mapping.Proposal
}

func (d *draft) mapped() (n int) {
	for i := range d.proposals {
		if d.proposals[i].Mapped() {
			n++
		}
	}
	return n
}

func (d *draft) String() string {
	w := &writer{}
	w.comment("The configuration of keyrow for the database %s. What is not set has its default; conf.toml.example, which "+
		"comes with keyrow, has all there is. %d of %d tables have a mapping; look for \"no mapping\".",
		d.database, d.mapped(), len(d.proposals))
	w.line("#")
	if d.hidden {
		w.line("#   export %s=...", passwordVariable)
	}
	w.line("#   keyrow check -c conf.toml    compares it with Redis and MySQL and says what to change")
	w.line("#   keyrow -c conf.toml          serves")

	w.line("\n[redis]")
	w.set("addr", d.redis)
	w.line(`# password = "${REDIS_PASSWORD}"`)

	w.line("\n[mysql]")
	if d.hidden {
		w.comment("The password is taken from the environment, so that it does not stand here.")
	}
	w.set("dsn", d.dsn)

	for _, p := range d.proposals {
		w.line("")
		if !p.Mapped() {
			w.comment("no mapping of the table %s: %s", p.Table, strings.Join(p.Notes, "; "))
			continue
		}
		for _, note := range p.Notes {
			w.comment("%s", note)
		}
		w.line("[[mapping]]")
		w.set("name", p.Config.Name)
		w.set("key", escape(p.Config.Key))
		w.set("table", escape(p.Config.Table))
		w.set("value", p.Config.Value)
		if p.Config.Columns != nil {
			columns := make([]string, len(p.Config.Columns))
			for i, name := range p.Config.Columns {
				columns[i] = escape(name)
			}
			w.set("columns", columns)
		}
		w.set("ttl", fmt.Sprintf("%.0fm", p.Config.TTL.Minutes()))
		w.set("write", p.Config.Write)
	}
	return w.String()
}

// escape keeps what looks like a variable in a name from being replaced by one.
func escape(name string) string { return variable.ReplaceAllString(name, "$$$0") }

// writer writes TOML.
type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// set writes a key, with its value as TOML spells it.
func (w *writer) set(key string, value any) {
	text, err := toml.Marshal(map[string]any{key: value})
	if err != nil {
		panic(err) // texts and lists of them make none
	}
	w.Write(text)
}

// comment writes lines of at most about 110 characters.
func (w *writer) comment(format string, args ...any) {
	const most = 110
	line := "#"
	for word := range strings.FieldsSeq(printable(fmt.Sprintf(format, args...))) {
		if line != "#" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > most {
			w.line("%s", line)
			line = "#"
		}
		line += " " + word
	}
	w.line("%s", line)
}

// printable keeps foreign text, a name in MySQL say, from ending a line or doing worse on a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

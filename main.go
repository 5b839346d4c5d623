// keyrow is a Redis-protocol caching proxy in front of Redis that knows how keys map to rows of MySQL.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit statuses.
const (
	exitFine      = 0
	exitFailure   = 1 // a finding of check, or a failure
	exitUsage     = 2 // wrong usage or configuration
	exitRemainder = 3 // drained, but writes remain in Redis that are not in MySQL yet
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version = "dev"

// hook is called at labelled points by the parts that have them. It is nil but in builds for tests.
var hook func(point string)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "keyrow:", err)
	}
	os.Exit(status(err))
}

// usageError is a command line that cannot be run.
type usageError struct{ error }

// status is the exit status that an error of run stands for.
func status(err error) int {
	var usage usageError
	var conf *configError
	var left *remainderError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &left):
		return exitRemainder
	case errors.As(err, &usage), errors.As(err, &conf):
		return exitUsage
	}
	return exitFailure
}

func run(ctx context.Context, args []string) error {
	var conf string
	root := &cobra.Command{
		Use:   "keyrow -c conf.toml",
		Short: "A caching proxy for Redis that reads rows from MySQL and writes them back",
		Long: `keyrow stands between applications and Redis and knows which keys are rows of MySQL.
A GET that Redis cannot answer is read from MySQL and cached; a SET is answered by Redis
and flushed to MySQL behind it; everything else passes through.`,
		Example: "  keyrow init --out conf.toml  write a configuration for the tables of a database\n" +
			"  keyrow check -c conf.toml    compare it with Redis and the tables of MySQL\n" +
			"  keyrow -c conf.toml          serve\n" +
			"  keyrow journal status        look at what is not in MySQL yet\n" +
			"  keyrow health                ask the keyrow that serves whether it is ready",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(conf)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), conf, c, newLog(c.Log, os.Stderr))
		},
	}
	configFlag(root.Flags(), &conf)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; keyrow --help lists the flags", err)}
	})
	root.SetVersionTemplate("keyrow {{.Version}}\n")
	root.SetUsageTemplate(root.UsageTemplate() + `
Exit status: 0 fine, 1 a finding or failure, 2 wrong usage or configuration,
3 stopped with writes left in Redis that are not in MySQL yet.
`)
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newInit(), newCheck(), newWarm(), newVerify(), newJournal(), newHealth(), newVersion(), newCompletion())
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// defaultConf is the configuration file unless another is named.
const defaultConf = "conf.toml"

// configFlag adds the flag that names the configuration.
func configFlag(flags *pflag.FlagSet, path *string) {
	flags.StringVarP(path, "config", "c", defaultConf, "the configuration file")
	must(cobra.MarkFlagFilename(flags, "config", "toml"))
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown command %q; keyrow --help lists the commands", args[0])}
	}
	return nil
}

// newLog writes for people on a terminal and JSON elsewhere, unless configured otherwise.
func newLog(c logConfig, out *os.File) zerolog.Logger {
	var w io.Writer = out
	if c.Format == "console" || c.Format == "auto" && isatty.IsTerminal(out.Fd()) {
		w = zerolog.ConsoleWriter{Out: out, NoColor: !colours(out), TimeFormat: "15:04:05.000"}
	}
	zerolog.TimeFieldFormat = zerolog.TimeFormatUnixMs
	zerolog.SetGlobalLevel(c.level()) // which a reload changes
	return zerolog.New(w).With().Timestamp().Logger()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"keyrow/backend"
)

func newCheck() *cobra.Command {
	var conf string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare the configuration with Redis and the tables of MySQL",
		Long: `check reads the configuration, connects to Redis and MySQL as serving would, compares every
mapping with its table, and prints all it finds, one line a finding, with the line to change.
It changes nothing. The exit status is 1 if keyrow would not start.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(conf)
			if err != nil {
				return err
			}
			return check(cmd.Context(), c, os.Stdout)
		},
	}
	configFlag(cmd, &conf)
	return cmd
}

// check prints every finding and fails if keyrow would not start.
func check(ctx context.Context, c config, out io.Writer) error {
	p, err := connect(ctx, c, zerolog.Nop())
	if err != nil {
		return err
	}
	defer p.close()
	for _, f := range p.findings {
		if _, err := fmt.Fprintf(out, "%s: mapping %q: %s\n", f.Severity, f.Mapping, f.Text); err != nil {
			return err
		}
	}
	layout := backend.CheckLayout(ctx, p.rdb, c.Journal)
	if layout != nil {
		if _, err := fmt.Fprintf(out, "error: %v\n", layout); err != nil {
			return err
		}
	}
	switch {
	case p.set == nil:
		return errors.New("the configuration does not fit the tables")
	case layout != nil:
		return errors.New("the configuration does not fit the journal in redis")
	}
	_, err = fmt.Fprintf(out, "ok: %d mappings fit their tables\n", len(c.Mappings))
	return err
}

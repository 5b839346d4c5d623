package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrow/admin"
	"keyrow/backend"
)

func newHealth() *cobra.Command {
	var conf string
	var live, asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the keyrow that serves whether it is ready",
		Long: `health asks the admin listener of the keyrow that serves with this configuration, on this machine or in
this container, whether it is ready: whether Redis answers, its tables were compared, and every part of
the journal has an owner. With --live it asks only whether the process is there. The exit status is 1 if not.

In a Dockerfile:

  HEALTHCHECK CMD ["/keyrow", "health", "-c", "/etc/keyrow/conf.toml"]

With --json it prints one object:

  ok     whether it is ready, or alive with --live
  error  why not, left out if it is`,
		Example: "  keyrow health\n  keyrow health --live --timeout 1s",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(conf)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			path, well := "/readyz", "ready"
			if live {
				path, well = "/healthz", "alive"
			}
			err = admin.Ask(ctx, c.Admin, path)
			if asJSON {
				h := health{OK: err == nil}
				if err != nil {
					h.Error = err.Error()
				}
				return errors.Join(writeJSON(os.Stdout, h), err)
			}
			if err == nil {
				_, err = fmt.Println(well)
			}
			return err
		},
	}
	configFlag(cmd.Flags(), &conf)
	cmd.Flags().BoolVar(&live, "live", false, "ask only whether the process is there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	return cmd
}

// health is what health prints with --json. The names of its fields are a promise.
type health struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// checks are what the admin listener looks at. The tables were compared with the mappings before keyrow serves, so there
// is nothing to wait for; a mapping that was suspended since does not keep the others from being served. Nor does MySQL.
func checks(p *parts, watch *backend.Watch, flusher *backend.Flusher) []admin.Check {
	return []admin.Check{
		{Name: "redis", Server: true, Needed: true, Ask: func(ctx context.Context) error { return p.rdb.Ping(ctx).Err() }},
		{Name: "mysql", Server: true, Ask: p.db.PingContext},
		{Name: "journal", Needed: true, Ask: func(context.Context) error {
			if of := flusher.Snapshot().Ownerless; len(of) > 0 {
				return fmt.Errorf("no owner is known yet of the partitions %v", of)
			}
			return nil
		}},
		{Name: "tables", Ask: func(context.Context) error {
			var names []string
			for _, m := range watch.Mappings().All() {
				if m.Unfit() != nil {
					names = append(names, m.Name)
				}
			}
			if len(names) > 0 {
				return errors.New("no longer fit the mappings: " + strings.Join(names, ", "))
			}
			return nil
		}},
	}
}

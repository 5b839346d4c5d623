package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print which keyrow this is, and of what it was built",
		Long: `version prints the version, which is "dev" unless the build set one, and what the build noted. With --json it
prints one object:

  version   as keyrow --version
  revision  of the source, with "+changes" if there were any; left out if the build did not note it
  time      of that revision, left out with it
  go        the version of Go
  platform  what it was built for`,
		Example: "  keyrow version\n  keyrow version --json",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := builtFrom()
			if asJSON {
				return writeJSON(os.Stdout, b)
			}
			text := "keyrow " + b.Version
			if b.Revision != "" {
				text += fmt.Sprintf("\nrevision %s of %s", b.Revision, b.Time)
			}
			_, err := fmt.Printf("%s\n%s, %s\n", text, b.Go, b.Platform)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// built is what version prints with --json. The names of its fields are a promise.
type built struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func builtFrom() built {
	b := built{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed {
		b.Revision += "+changes"
	}
	return b
}

package proxy

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Defaults of the [proxy] section.
const (
	DefaultListen     = "127.0.0.1:6380"
	DefaultMaxClients = 10000
	// DefaultOutputLimit leaves room for one reply of the largest value Redis has, 512 MiB, to a slow client.
	DefaultOutputLimit = 640 << 20
)

// Config is the [proxy] section.
type Config struct {
	Listen      string `toml:"listen"`       // host:port (port 0: any free one) or unix:///path
	MaxClients  int    `toml:"max_clients"`  // connections at one time; more are told so and closed
	MaxBulk     int    `toml:"max_bulk"`     // bytes of one argument of a command
	OutputLimit int    `toml:"output_limit"` // bytes of replies that may wait for one client before it is closed
}

// DefaultConfig is the section when nothing is configured.
func DefaultConfig() Config {
	return Config{Listen: DefaultListen, MaxClients: DefaultMaxClients, MaxBulk: MaxBulk, OutputLimit: DefaultOutputLimit}
}

// Validate reports all problems at once, each with the key it is about.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("proxy."+key+": "+format, args...))
	}
	if path, ok := strings.CutPrefix(c.Listen, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			bad("listen", "%q: a unix socket is written unix:///path", c.Listen)
		}
	} else if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen", `%q is neither host:port nor unix:///path, like %q`, c.Listen, DefaultListen)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		bad("listen", "%q: port %q is not a number from 0 to 65535", c.Listen, port)
	}
	if c.MaxClients < 1 {
		bad("max_clients", "%d: must be at least 1", c.MaxClients)
	}
	if c.MaxBulk < 1<<20 || c.MaxBulk > MaxBulk {
		bad("max_bulk", "%d bytes: must be from 1 MiB to 512 MiB, redis's own limit", c.MaxBulk)
	}
	if c.OutputLimit < 1<<20 {
		bad("output_limit", "%d bytes: must be at least 1 MiB", c.OutputLimit)
	}
	return errors.Join(errs...)
}

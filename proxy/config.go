package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"
)

// Defaults of the [proxy] section.
const (
	DefaultListen     = "127.0.0.1:6380"
	DefaultMaxClients = 10000
	// DefaultOutputLimit leaves room for one reply of the largest value Redis has, 512 MiB, to a slow client.
	DefaultOutputLimit = 640 << 20
	// DefaultTCPKeepAlive is Redis's.
	DefaultTCPKeepAlive     = 300 * time.Second
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultHandoverTimeout  = time.Minute
)

// maxKeepAlive is Linux's own limit.
const maxKeepAlive = 32767 * time.Second

// Config is the [proxy] section.
type Config struct {
	Listen      Addrs  `toml:"listen"`       // without TLS; may be empty if [proxy.tls] has addresses
	UnixMode    string `toml:"unix_mode"`    // octal mode of unix sockets, "0770"; empty: as the umask has it
	MaxClients  int    `toml:"max_clients"`  // connections at one time; more are told so and closed
	MaxBulk     int    `toml:"max_bulk"`     // bytes of one argument of a command
	OutputLimit int    `toml:"output_limit"` // bytes of replies that may wait for one client before it is closed
	// IdleTimeout closes a client that was neither sent nor asked anything for so long, and up to a quarter longer.
	// Clients that wait for something are let be: blocked ones, subscribers, monitors. 0: never.
	IdleTimeout time.Duration `toml:"idle_timeout"`
	// TCPKeepAlive is after how long a silent connection is probed; it is given up after twice that. 0: never.
	TCPKeepAlive time.Duration `toml:"tcp_keepalive"`
	// ProxyProtocol says that every connection, on each address, begins with a header of the PROXY protocol, version 1
	// or 2. One that does not is closed.
	ProxyProtocol bool `toml:"proxy_protocol"`
	// HandshakeTimeout is how long a client may take for the PROXY header and the TLS handshake together.
	HandshakeTimeout time.Duration `toml:"handshake_timeout"`
	// HandoverTimeout is how long clients that cannot be handed over may stay with the old process.
	HandoverTimeout time.Duration `toml:"handover_timeout"`
	TLS             TLSConfig     `toml:"tls"`
}

// DefaultConfig is the section when nothing is configured.
func DefaultConfig() Config {
	return Config{
		Listen: Addrs{DefaultListen}, MaxClients: DefaultMaxClients, MaxBulk: MaxBulk, OutputLimit: DefaultOutputLimit,
		TCPKeepAlive: DefaultTCPKeepAlive, HandshakeTimeout: DefaultHandshakeTimeout, HandoverTimeout: DefaultHandoverTimeout,
		TLS: TLSConfig{MinVersion: "1.2"},
	}
}

// Validate reports all problems at once, each with the key it is about.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("proxy."+key+": "+format, args...))
	}
	if len(c.Listen)+len(c.TLS.Listen) == 0 {
		bad("listen", `there is no address; name one, like %q, here or in [proxy.tls]`, DefaultListen)
	}
	c.Listen.validate("listen", bad)
	if _, ok := c.unixMode(); !ok && c.UnixMode != "" {
		bad("unix_mode", `%q is not a mode in octal digits, like "0770"`, c.UnixMode)
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
	if c.IdleTimeout != 0 && c.IdleTimeout < time.Second {
		bad("idle_timeout", `%v: must be "0" for never, or at least 1s`, c.IdleTimeout)
	}
	if c.TCPKeepAlive != 0 && (c.TCPKeepAlive < time.Second || c.TCPKeepAlive > maxKeepAlive) {
		bad("tcp_keepalive", `%v: must be "0" for never, or from 1s to %v`, c.TCPKeepAlive, maxKeepAlive)
	}
	if c.HandshakeTimeout < 10*time.Millisecond || c.HandshakeTimeout > time.Hour {
		bad("handshake_timeout", "%v: must be from 10ms to 1h", c.HandshakeTimeout)
	}
	if c.HandoverTimeout < 0 || c.HandoverTimeout > 24*time.Hour {
		bad("handover_timeout", "%v: must be from 0s to 24h", c.HandoverTimeout)
	}
	c.TLS.validate(bad)
	return errors.Join(errs...)
}

// unixMode is the mode of unix sockets, if one is configured.
func (c Config) unixMode() (fs.FileMode, bool) {
	n, err := strconv.ParseUint(c.UnixMode, 8, 16)
	return fs.FileMode(n), err == nil && n <= 0o777
}

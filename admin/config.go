package admin

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// DefaultListen is where the admin listener is unless configured otherwise.
const DefaultListen = "127.0.0.1:9121"

// minToken is the least length of a token, in bytes: nobody can try them all.
const minToken = 16

// Config is the [admin] section.
type Config struct {
	Listen string `toml:"listen"` // host:port, port 0: any free one; empty: nowhere
	// Token is what whoever asks for more than the health must show; it is a secret. Empty: nothing.
	Token string `toml:"token"`
	// Hosts are the names by which it may be asked, besides addresses, localhost and the machine's own name. They do
	// not matter if there is a Token.
	Hosts []string `toml:"hosts"`
	Pprof bool     `toml:"pprof"` // serve /debug/pprof
}

// DefaultConfig is the section when nothing is configured.
func DefaultConfig() Config { return Config{Listen: DefaultListen, Hosts: []string{}} }

// Validate reports all problems at once, each with the key it is about.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("admin."+key+": "+format, args...))
	}
	if c.Listen != "" {
		_, port, err := net.SplitHostPort(c.Listen)
		if err != nil {
			bad("listen", "%q is not host:port, like %q", c.Listen, DefaultListen)
		} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			bad("listen", "%q: port %q is not a number from 0 to 65535", c.Listen, port)
		}
	}
	switch {
	case c.Token == "":
	case len(c.Token) < minToken:
		bad("token", "has %d characters, at least %d; make one with: openssl rand -hex 16", len(c.Token), minToken)
	case strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		bad("token", "has a blank or a character beyond ASCII; make one with: openssl rand -hex 16")
	}
	for _, host := range c.Hosts {
		if host == "" || strings.ContainsAny(host, ":/@ ") {
			bad("hosts", "%q is not the name of a host, without a port", host)
		}
	}
	return errors.Join(errs...)
}

// Warning is what is dangerous about the section, if anything is.
func (c Config) Warning() string {
	if c.Listen == "" || c.Token != "" || c.local() {
		return ""
	}
	return fmt.Sprintf("admin.listen: whoever reaches %s can see names of tables, keys and errors there; set admin.token, or "+
		"listen on 127.0.0.1", c.Listen)
}

// local reports whether only processes of this machine reach the listener.
func (c Config) local() bool {
	host, _, _ := net.SplitHostPort(c.Listen)
	return isLocal(host)
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

package proxy

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/rs/zerolog"

	"keyrow/certs"
)

// TLSConfig is the [proxy.tls] section. The files are in PEM, and are read again when they change.
type TLSConfig struct {
	Listen Addrs `toml:"listen"` // where clients speak TLS; empty: nowhere
	// Cert is the file of the server's certificate, with the chain behind it, Key that of its key.
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
	// ClientCA is the file of the authorities of which every client must show a certificate. Empty: of none.
	ClientCA   string `toml:"client_ca"`
	MinVersion string `toml:"min_version"` // "1.2" or "1.3"
}

var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func (c TLSConfig) validate(bad func(key, format string, args ...any)) {
	c.Listen.validate("tls.listen", bad)
	if tlsVersions[c.MinVersion] == 0 {
		bad("tls.min_version", `%q is neither "1.2" nor "1.3"`, c.MinVersion)
	}
	if len(c.Listen) == 0 {
		if c.Cert != "" || c.Key != "" || c.ClientCA != "" {
			bad("tls.listen", `there is no address to use the certificate on; name one, like "127.0.0.1:6443"`)
		}
		return
	}
	if c.Cert == "" {
		bad("tls.cert", "missing; name the file of the certificate, in PEM")
	}
	if c.Key == "" {
		bad("tls.key", "missing; name the file of the certificate's key, in PEM")
	}
}

// open reads the files and returns what every listener for TLS works with. Session tickets stay valid when the
// certificate changes, for their keys belong to the configuration that stays.
func (c TLSConfig) open(log zerolog.Logger) (*tls.Config, error) {
	now, err := certs.Load(log, c.read, c.Cert, c.Key, c.ClientCA)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return now.Current(), nil },
	}, nil
}

// Check reads the files and reports what is wrong with them.
func (c TLSConfig) Check() error {
	if len(c.Listen) == 0 {
		return nil
	}
	_, err := c.read()
	return err
}

func (c TLSConfig) read() (*tls.Config, error) {
	pair, err := certs.Pair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("proxy.tls: %w", err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tlsVersions[c.MinVersion]}
	if c.ClientCA != "" {
		if conf.ClientCAs, err = certs.Pool(c.ClientCA); err != nil {
			return nil, fmt.Errorf("proxy.tls.client_ca: %w", err)
		}
		conf.ClientAuth = tls.RequireAndVerifyClientCert
		conf.SessionTicketsDisabled = true // a ticket would let a client in whose authority is not trusted any more
	}
	return conf, nil
}

// secured is a client's connection over TLS.
type secured struct {
	*tls.Conn
	below *socket
}

func newSecured(conn net.Conn, conf *tls.Config) *secured {
	k := &socket{Conn: conn}
	k.raw, _ = conn.(syscall.Conn).SyscallConn()
	k.attempt = func(fd uintptr) bool {
		for {
			k.n, k.err = syscall.Read(int(fd), k.into)
			if k.err != syscall.EINTR {
				return true
			}
		}
	}
	k.readable = func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), k.peeked[:], syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	}
	return &secured{tls.Server(k, conf), k}
}

// Close ends the connection without a word. To say goodbye, CloseWrite before: it may have to wait for the client, and
// those who close must not.
func (c *secured) Close() error { return c.below.Close() }

// socket is the connection below TLS. After the handshake its Read does not wait for the client but fails with
// errNothing; TLS takes that for a timeout, keeps what it has, and can be asked again once wait returned. So a session
// waits without a buffer for what comes next. Only the session's goroutine reads.
type socket struct {
	net.Conn
	raw   syscall.RawConn
	hasty bool // Read does not wait

	into     []byte // argument and results of attempt
	n        int
	err      error
	attempt  func(fd uintptr) bool
	peeked   [1]byte
	readable func(fd uintptr) bool
}

func (k *socket) Read(b []byte) (int, error) {
	if !k.hasty {
		return k.Conn.Read(b)
	}
	k.into = b
	err := k.raw.Read(k.attempt)
	k.into = nil
	switch {
	case err != nil: // closed, or past the deadline
		return 0, err
	case k.err == syscall.EAGAIN:
		return 0, errNothing
	case k.err != nil:
		return 0, os.NewSyscallError("read", k.err)
	case k.n == 0:
		return 0, io.EOF
	}
	return k.n, nil
}

// wait returns nil once there is something to read, be it the end.
func (k *socket) wait() error { return k.raw.Read(k.readable) }

// errNothing says that the client has sent nothing more so far.
var errNothing net.Error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "the client has sent nothing more" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true } // what crypto/tls asks for

package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// dial connects a client to any address of the server's.
func (r *rig) dial(network, addr string) *testClient {
	r.t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return &testClient{conn, r.t}
}

// socketPath is a path that is short enough for a unix socket.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func TestListenOnSeveral(t *testing.T) {
	path := socketPath(t)
	r, a := newSecureRig(t, func(o *Options) {
		o.Config.Listen = Addrs{"127.0.0.1:0", "unix://" + path, "[::1]:0"}
		o.Config.UnixMode = "0660"
	})
	up := r.upstream()
	addrs := r.srv.Addrs()
	if len(addrs) != 4 || addrs[0] != r.srv.Addr().String() || addrs[1] != "unix://"+path ||
		!strings.HasPrefix(addrs[2], "[::1]:") || addrs[3] != "tls://"+r.tlsAddr() {
		t.Errorf("the addresses are %q", addrs)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v, want mode 0660", info.Mode(), err)
	}
	for _, c := range []*testClient{r.client(), r.dial("unix", path), r.dial("tcp", addrs[2]), r.secure(a.Client())} {
		c.send("PING")
		up.expect("PING")
		up.send("+PONG\r\n")
		c.expect("+PONG\r\n")
	}
	c := r.dial("unix", path)
	c.send("CLIENT INFO")
	up.expect("CLIENT INFO")
	up.send("$13\r\naddr= laddr=\n\r\n")
	if c.line(); c.line() != "addr="+path+":0 laddr="+path+":0\n" {
		t.Error("the address of a client on a unix socket is not the socket's")
	}
	r.srv.Shutdown(t.Context())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestUnixSocketLeftBehind(t *testing.T) {
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	r := newRig(t, func(o *Options) { o.Config.Listen = Addrs{"unix://" + path} })
	r.upstream()
	r.dial("unix", path)

	// A second server takes neither the socket of the first nor a file that is none, and leaves nothing open.
	file := path + ".file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{path, file} {
		first := path + ".first"
		srv := New(Options{Config: Config{Listen: Addrs{"unix://" + first, "unix://" + taken}}})
		if err := srv.Listen(); !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "proxy.listen: ") {
			t.Errorf("%s: %v", taken, err)
		}
		if _, err := os.Stat(first); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", first, err)
		}
		if _, err := os.Stat(taken); err != nil {
			t.Error(err)
		}
	}
	r.dial("unix", path)
}

func TestTCPKeepAlive(t *testing.T) {
	for _, tt := range []struct {
		every                     time.Duration
		on, idle, interval, count int
	}{{300 * time.Second, 1, 300, 100, 3}, {time.Second, 1, 1, 1, 3}, {0, 0, 0, 0, 0}} {
		r := newRig(t, func(o *Options) { o.Config.TCPKeepAlive = tt.every })
		up := r.upstream()
		c := r.client()
		c.send("PING")
		up.expect("PING")
		one := r.srv.client(func(*session) bool { return true })
		for _, o := range []struct{ level, option, want int }{
			{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, tt.on},
			{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, tt.idle},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, tt.interval},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, tt.count},
		} {
			if got, err := syscall.GetsockoptInt(one.fd(), o.level, o.option); err != nil || got != o.want && o.want != 0 ||
				o.option == syscall.SO_KEEPALIVE && got != o.want {
				t.Errorf("%v: option %d of level %d is %d, %v, want %d", tt.every, o.option, o.level, got, err, o.want)
			}
		}
	}
}

func TestMaxClients(t *testing.T) {
	r, a := newSecureRig(t, func(o *Options) { o.Config.MaxClients = 1 })
	up := r.upstream()
	first := r.client()
	first.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	first.expect("+PONG\r\n")
	second := r.client()
	second.expect("-ERR max number of clients reached\r\n")
	second.ended()
	if _, err := r.secure(a.Client()).Write([]byte("PING\r\n")); err == nil {
		t.Error("a client over TLS got in")
	}
	if n := r.srv.stats.Refused.Load(); n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
	first.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	first.expect("+PONG\r\n")
}

// exhausted is a listener that cannot accept for a while. To have no file descriptor left is not for a test that shares
// them with others.
type exhausted struct {
	net.Listener
	mu   sync.Mutex
	left []error
}

func (e *exhausted) Accept() (net.Conn, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.left) == 0 {
		return e.Listener.Accept()
	}
	err := e.left[0]
	e.left = e.left[1:]
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
}

// What keeps a client from being accepted passes, and does not fill the log.
func TestAcceptFails(t *testing.T) {
	var log syncBuffer
	r := newRig(t, func(o *Options) { o.Log = zerolog.New(&log) })
	r.upstream()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	for range 3 {
		errs = append(errs, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPROTO)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.srv.acceptFrom(&listener{Listener: &exhausted{Listener: l, left: errs[:7]}})
	}()
	c := r.dial("tcp", l.Addr().String())
	c.send("QUIT")
	c.expect("+OK\r\n")
	_ = l.Close()
	<-done
	if n := strings.Count(log.String(), "clients cannot be accepted"); n == 0 || n > 5 {
		t.Errorf("%d lines of log:\n%s", n, log.String())
	}
}

// syncBuffer is a buffer that several goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Clients that come and go at once, in whatever state, leave nothing behind and keep nobody waiting.
func TestComingAndGoing(t *testing.T) {
	r, a := newSecureRig(t, nil)
	up := r.upstream()
	conf := a.Client()
	steady := r.client()
	var going sync.WaitGroup
	for worker := range 4 {
		going.Go(func() {
			for n := range 250 {
				addr, part := r.srv.Addr().String(), "*2\r\n$3\r\nGE"
				if worker%2 == 1 {
					addr, part = r.tlsAddr(), "\x16\x03\x01\x02" // a handshake begins
				}
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				switch n % 5 {
				case 0: // not a byte
				case 1:
					_, _ = io.WriteString(conn, part)
				case 2:
					_, _ = io.WriteString(conn, "QUIT\r\n")
				case 3:
					_ = conn.(*net.TCPConn).SetLinger(0) // ends with RST
				case 4:
					if worker%2 == 1 && n%50 == 4 {
						conn = r.secureOver(conn, conf)
					}
					_, _ = io.WriteString(conn, "QUIT\r\n")
				}
				_ = conn.Close()
			}
		})
	}
	gone := make(chan struct{})
	go func() { going.Wait(); close(gone) }()
	for served := 0; ; served++ {
		steady.send("PING")
		up.expect("PING")
		up.send("+PONG\r\n")
		steady.expect("+PONG\r\n")
		select {
		case <-gone:
			if served == 0 {
				t.Error("nobody was served meanwhile")
			}
			r.srv.Shutdown(context.Background()) // returns when every session has ended
			if n := r.srv.clients.Load(); n != 0 || len(r.srv.sessions) != 0 {
				t.Errorf("%d clients, %d sessions are left", n, len(r.srv.sessions))
			}
			return
		default:
		}
	}
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel() // it lasts as long as the timeouts, which are long enough for a busy machine
	r, a := newSecureRig(t, func(o *Options) { o.Config.IdleTimeout = 500 * time.Millisecond })
	up := r.upstream()
	owed, subscriber := r.client(), r.client()
	owed.send("GET slow")
	up.expect("GET slow")
	subscriber.send("SUBSCRIBE news")
	own := r.upstream()
	own.expect("CLIENT ID")
	own.send(":7\r\n")
	own.expect("SUBSCRIBE news")
	own.expect("PING")
	own.send("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n")
	subscriber.line()

	// As long as it takes to close several idle ones, one after the other.
	for range 2 {
		half, secured := r.client(), r.secure(a.Client())
		_, _ = io.WriteString(half, "*1\r\n$4\r\nPI")
		_, _ = secured.Write([]byte("\r\n"))
		half.ended()
		secured.goodbye()
	}
	if n := r.srv.stats.Idle.Load(); n != 4 {
		t.Errorf("%d closed for being idle, want 4", n)
	}
	up.send("+here\r\n")
	owed.expect("+here\r\n")
	own.send("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n")
	subscriber.expect("$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n")
	owed.ended()
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct {
		change func(*Config)
		want   string // each line; "": valid
	}{
		{func(c *Config) { c.Listen = nil }, `proxy.listen: there is no address; name one, like "127.0.0.1:6380", here or in [proxy.tls]`},
		{func(c *Config) { c.Listen = nil; c.TLS = TLSConfig{Addrs{":0"}, "c", "k", "", "1.3"} }, ""},
		{func(c *Config) { c.Listen = Addrs{":0", ":0", "unix:///a", "[::1]:1"} }, ""},
		{func(c *Config) { c.Listen = Addrs{":1", "host", "unix://a", "unix:///", ":x", ":65536", ":1"} },
			`proxy.listen: "host" is neither host:port nor unix:///path, like "127.0.0.1:6380"
proxy.listen: "unix://a": a unix socket is written unix:///path
proxy.listen: "unix:///": a unix socket is written unix:///path
proxy.listen: ":x": port "x" is not a number from 0 to 65535
proxy.listen: ":65536": port "65536" is not a number from 0 to 65535
proxy.listen: ":1" is there twice`},
		{func(c *Config) { c.UnixMode = "0770" }, ""},
		{func(c *Config) { c.UnixMode = "rw" }, `proxy.unix_mode: "rw" is not a mode in octal digits, like "0770"`},
		{func(c *Config) { c.UnixMode = "1777" }, `proxy.unix_mode: "1777" is not a mode in octal digits, like "0770"`},
		{func(c *Config) { c.IdleTimeout = time.Millisecond; c.TCPKeepAlive = -1; c.HandshakeTimeout = 0 },
			`proxy.idle_timeout: 1ms: must be "0" for never, or at least 1s
proxy.tcp_keepalive: -1ns: must be "0" for never, or from 1s to 9h6m7s
proxy.handshake_timeout: 0s: must be from 10ms to 1h`},
		{func(c *Config) { c.TLS = TLSConfig{Listen: Addrs{"x"}, MinVersion: "1.1"} },
			`proxy.tls.listen: "x" is neither host:port nor unix:///path, like "127.0.0.1:6380"
proxy.tls.min_version: "1.1" is neither "1.2" nor "1.3"
proxy.tls.cert: missing; name the file of the certificate, in PEM
proxy.tls.key: missing; name the file of the certificate's key, in PEM`},
		{func(c *Config) { c.TLS.Cert = "c" },
			`proxy.tls.listen: there is no address to use the certificate on; name one, like "127.0.0.1:6443"`},
	} {
		c := DefaultConfig()
		tt.change(&c)
		got := ""
		if err := c.Validate(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s\nwant\n%s", got, tt.want)
		}
	}
}

// fd is the descriptor of the client's connection.
func (s *session) fd() (fd int) {
	if s.point != nil {
		return s.point.fd
	}
	raw, _ := s.conn.(syscall.Conn).SyscallConn()
	_ = raw.Control(func(is uintptr) { fd = int(is) })
	return fd
}

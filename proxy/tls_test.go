package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyrow/test/harness"
)

// newSecureRig is newRig with TLS at a second address, with a certificate of the authority.
func newSecureRig(t testing.TB, change func(*Options)) (*rig, *harness.Authority) {
	t.Helper()
	a := harness.NewAuthority(t)
	own := a.Issue("127.0.0.1")
	return newRig(t, func(o *Options) {
		o.Config.TLS = TLSConfig{Listen: Addrs{"127.0.0.1:0"}, Cert: own.Cert, Key: own.Key, MinVersion: "1.2"}
		if change != nil {
			change(o)
		}
	}), a
}

// tlsAddr is where the server speaks TLS.
func (r *rig) tlsAddr() string { return r.srv.listeners[len(r.srv.listeners)-1].Addr().String() }

// secure connects a client over TLS; the handshake is still to come.
func (r *rig) secure(conf *tls.Config) *testClient {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.tlsAddr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return r.secureOver(conn, conf)
}

func (r *rig) secureOver(conn net.Conn, conf *tls.Config) *testClient {
	return &testClient{tls.Client(abrupt{conn}, conf), r.t}
}

// abrupt makes an error of an end below TLS, which crypto/tls would take for an orderly one.
type abrupt struct{ net.Conn }

func (a abrupt) Read(b []byte) (int, error) {
	n, err := a.Conn.Read(b)
	if err == io.EOF {
		err = errors.New("the connection was cut")
	}
	return n, err
}

// eachTLS runs a test with both versions of TLS.
func eachTLS(t *testing.T, test func(t *testing.T, version uint16)) {
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) { test(t, version) })
	}
}

func TestTLSForward(t *testing.T) {
	eachTLS(t, func(t *testing.T, version uint16) {
		r, a := newSecureRig(t, nil)
		up := r.upstream()
		conf := a.Client()
		conf.MaxVersion = version
		c, plain := r.secure(conf), r.client()
		for _, key := range []string{"x", strings.Repeat("y", 40<<10), strings.Repeat("z", 1<<20)} {
			c.send("GET "+key, "INCR "+key)
			up.expect("GET " + key)
			up.expect("INCR " + key)
			plain.send("PING")
			up.expect("PING")
			go up.send("$" + "1048576\r\n" + strings.Repeat("v", 1<<20) + "\r\n:1\r\n+PONG\r\n")
			c.expect("$1048576\r\n" + strings.Repeat("v", 1<<20) + "\r\n:1\r\n")
			plain.expect("+PONG\r\n")
		}
	})
}

// pieces writes what TLS gives it a byte or two at a time.
type pieces struct{ net.Conn }

func (p pieces) Write(b []byte) (int, error) {
	for i := 0; i < len(b); i += 2 {
		if _, err := p.Conn.Write(b[i:min(i+2, len(b))]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// Records that arrive in pieces are put together although the session does not wait inside of TLS.
func TestTLSInPieces(t *testing.T) {
	eachTLS(t, func(t *testing.T, version uint16) {
		r, a := newSecureRig(t, nil)
		up := r.upstream()
		conn, err := net.Dial("tcp", r.tlsAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.(*net.TCPConn).SetNoDelay(true)
		conf := a.Client()
		conf.MaxVersion = version
		c := &testClient{tls.Client(pieces{conn}, conf), t}
		for range 100 {
			c.send("GET x", "GET y")
			up.expect("GET x")
			up.expect("GET y")
			up.send("$-1\r\n$-1\r\n")
			c.expect("$-1\r\n$-1\r\n")
		}
	})
}

// Clients over TLS hold no buffer while they are idle: one after the other, they get by with a few.
func TestTLSIdleHoldsNoBuffer(t *testing.T) {
	var made atomic.Int64
	before := readBuffers.New
	readBuffers.New = func() any { made.Add(1); return before() }
	defer func() { readBuffers.New = before }()
	r, a := newSecureRig(t, nil)
	up := r.upstream()
	const clients = 100
	for range clients {
		c := r.secure(a.Client())
		c.send("PING")
		up.expect("PING")
		up.send("+PONG\r\n")
		c.expect("+PONG\r\n")
	}
	// The pool itself drops some, and every fourth under the race detector.
	if n := made.Load(); n > clients*3/4 {
		t.Errorf("%d buffers were made for %d idle clients", n, clients)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.srv.Shutdown(ctx) // nobody else may look at New while it is put back
}

func TestTLSRefusals(t *testing.T) {
	a, stranger := harness.NewAuthority(t), harness.NewAuthority(t)
	own := a.Issue("127.0.0.1")
	old := a.Client(own)
	old.MaxVersion = tls.VersionTLS12
	for _, tt := range []struct {
		name   string
		client *tls.Config // nil: no TLS
		want   string      // what the client gets to see; "": it gets in
	}{
		{"known", a.Client(own), ""},
		{"no certificate", a.Client(), "certificate required"},
		{"of a stranger", a.Client(stranger.Issue("127.0.0.1")), "certificate"},
		{"old version", old, "protocol version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(o *Options) {
				o.Config.TLS = TLSConfig{Listen: Addrs{"127.0.0.1:0"}, Cert: own.Cert, Key: own.Key, ClientCA: a.File, MinVersion: "1.3"}
			})
			up := r.upstream()
			c := r.secure(tt.client)
			_, err := c.Write([]byte("PING\r\n"))
			if tt.want == "" {
				up.expect("PING")
				up.send("+PONG\r\n")
				c.expect("+PONG\r\n")
				return
			}
			if err == nil { // with TLS 1.3 the server's refusal comes after the client's last word
				_, err = c.Read(make([]byte, 1))
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			_ = c.Close()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			r.srv.Shutdown(ctx)
			if n := r.srv.stats.Failed.Load(); n != 1 {
				t.Errorf("%d failed, want 1", n)
			}
		})
	}
}

// Without TLS nobody gets in where TLS is spoken.
func TestTLSRefusesPlain(t *testing.T) {
	r, _ := newSecureRig(t, nil)
	r.upstream()
	conn, err := net.Dial("tcp", r.tlsAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "PING\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(conn); errors.Is(err, context.DeadlineExceeded) || bytes.Contains(b, []byte("PONG")) {
		t.Errorf("%q, %v", b, err)
	}
}

// Clients that never complete their handshake keep nobody else out, and are gone after the timeout.
func TestTLSHandshakeTooLate(t *testing.T) {
	r, a := newSecureRig(t, func(o *Options) { o.Config.HandshakeTimeout = 2 * time.Second }) // enough for the last client
	up := r.upstream()
	var silent []*testClient
	for range 20 {
		conn, err := net.Dial("tcp", r.tlsAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, &testClient{conn, t})
	}
	_, _ = silent[0].Write([]byte{0x16, 3, 1, 2, 0, 1}) // a ClientHello begins
	plain := r.client()
	plain.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	plain.expect("+PONG\r\n")
	for _, c := range silent {
		c.ended()
	}
	c := r.secure(a.Client())
	c.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	c.expect("+PONG\r\n")
}

// Shutdown does not wait for handshakes.
func TestTLSShutdownInHandshake(t *testing.T) {
	r, _ := newSecureRig(t, func(o *Options) { o.Config.HandshakeTimeout = time.Hour })
	r.upstream()
	for _, first := range []string{"", "\x16\x03\x01\x02"} {
		conn, err := net.Dial("tcp", r.tlsAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, first)
	}
	r.srv.Shutdown(context.Background())
	if n := r.srv.clients.Load(); n != 0 {
		t.Errorf("%d clients are left", n)
	}
}

// Draining answers what was sent and then says goodbye, so that the client knows that nothing was cut off.
func TestTLSShutdown(t *testing.T) {
	eachTLS(t, func(t *testing.T, version uint16) {
		r, a := newSecureRig(t, nil)
		up := r.upstream()
		conf := a.Client()
		conf.MaxVersion = version
		c, idle := r.secure(conf), r.secure(conf)
		idle.send("PING")
		up.expect("PING")
		up.send("+PONG\r\n")
		idle.expect("+PONG\r\n")
		c.send("PING")
		up.expect("PING")
		done := make(chan struct{})
		go func() { r.srv.Shutdown(context.Background()); close(done) }()
		up.send("+PONG\r\n")
		c.expect("+PONG\r\n")
		c.goodbye()
		idle.goodbye()
		<-done
	})
}

// goodbye waits for the server to end TLS in an orderly way.
func (c *testClient) goodbye() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		c.t.Fatalf("%d, %v, want the end", n, err)
	}
}

// A client that has said all it has to say, and says so, gets its replies.
func TestTLSHalfClose(t *testing.T) {
	eachTLS(t, func(t *testing.T, version uint16) {
		r, a := newSecureRig(t, nil)
		up := r.upstream()
		conf := a.Client()
		conf.MaxVersion = version
		c := r.secure(conf)
		c.send("GET x", "GET y")
		if err := c.Conn.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		up.expect("GET x")
		up.expect("GET y")
		up.send("$1\r\nx\r\n$1\r\ny\r\n")
		c.expect("$1\r\nx\r\n$1\r\ny\r\n")
		c.goodbye()
	})
}

// A client over TLS that does not read is closed at its limit, and nobody waits for it.
func TestTLSOutputLimit(t *testing.T) {
	r, a := newSecureRig(t, func(o *Options) { o.Config.OutputLimit = 1 << 20 })
	up := r.upstream()
	slow, other := r.secure(a.Client()), r.client()
	slow.send("GET x")
	up.expect("GET x")
	other.send("PING")
	up.expect("PING")
	up.send("$25165824\r\n")
	up.send(strings.Repeat("x", 24<<20) + "\r\n")
	up.send("+PONG\r\n")
	other.expect("+PONG\r\n")
	_ = slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, _ := io.Copy(io.Discard, slow); n >= 24<<20 {
		t.Errorf("the slow client got all %d bytes, so the limit was not at work", n)
	}
}

// The header of a balancer stands before the handshake.
func TestTLSBehindProxyHeader(t *testing.T) {
	r, a := newSecureRig(t, func(o *Options) { o.Config.ProxyProtocol = true })
	up := r.upstream()
	conn, err := net.Dial("tcp", r.tlsAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, headers[0].header)
	c := &testClient{tls.Client(conn, a.Client()), t}
	c.send("CLIENT INFO")
	up.expect("CLIENT INFO")
	up.send("$6\r\naddr=\n\r\n")
	c.expect("$21\r\naddr=192.0.2.1:12345\n\r\n")
}

package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"keyrow/mapping"
)

// loopsFlag is for several loops, whatever the processors, or none, as where there is no poller.
var loopsFlag = flag.Int("loops", 3, "how many loops there are")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstreamConn is one connection that the server under test opened to the upstream a test plays. A real Redis
// cannot be made to answer late, in halves, or not at all; for everything else the tests in ../test use one.
type upstreamConn struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

// expect reads a command and compares it with want, its words separated by blanks.
func (c *upstreamConn) expect(want string) {
	c.t.Helper()
	if got := c.command(want); got != want {
		c.t.Fatalf("the upstream got %q, want %q", got, want)
	}
}

// command reads a command, which want describes.
func (c *upstreamConn) command(want string) string {
	c.t.Helper()
	var args []string
	var n, size int
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fscanf(c.in, "*%d\r\n", &n); err != nil {
		c.t.Fatalf("the upstream waits for %q: %v", want, err)
	}
	for range n {
		if _, err := fmt.Fscanf(c.in, "$%d\r\n", &size); err != nil {
			c.t.Fatal(err)
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(c.in, b); err != nil {
			c.t.Fatal(err)
		}
		args = append(args, string(b[:size]))
	}
	return strings.Join(args, " ")
}

func (c *upstreamConn) send(reply string) {
	c.t.Helper()
	if _, err := c.Write([]byte(reply)); err != nil {
		c.t.Fatal(err)
	}
}

// rig is a server under test between clients and an upstream, both played by the test.
type rig struct {
	t        testing.TB
	srv      *Server
	listener net.Listener
	gate     *testGate
	loader   *testLoader
}

type testGate struct {
	mu      sync.Mutex
	refusal error
	marked  int
}

func (g *testGate) Admit() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refusal
}

func (g *testGate) Marked(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.marked += n
}

// testLoader hands every load to the test, which answers when it wants.
type testLoader struct{ loads chan load }

type load struct {
	key  string
	done func([]byte, error)
}

func (l *testLoader) Bypass(*mapping.Mapping, []byte, func([][]byte, error)) {
	panic("no mapping is read without redis here")
}

func (l *testLoader) Hit(*mapping.Mapping, []byte) {}

func (l *testLoader) Load(_ *mapping.Mapping, key []byte, done func([]byte, bool, error)) {
	l.loads <- load{string(key), func(image []byte, err error) { done(image, false, err) }}
}

var testCommands = func() *Commands {
	key := func(name string, flags ...any) any {
		group := "@string"
		if name[0] == 'h' {
			group = "@hash"
		}
		return []any{name, int64(-2), flags, int64(1), int64(1), int64(1), []any{"@fast", group}}
	}
	keyless := func(name string, arity int64, subs ...any) any {
		return []any{name, arity, []any{}, int64(0), int64(0), int64(0), []any{}, []any{}, []any{}, subs}
	}
	c, err := ParseCommands([]any{
		key("get", "readonly", "fast"), key("strlen", "readonly"), key("hget", "readonly"), key("set", "write"), key("incr", "write"), key("append", "write"),
		[]any{"ping", int64(-1), []any{}, int64(0), int64(0), int64(0)},
		[]any{"mget", int64(-2), []any{"readonly"}, int64(1), int64(-1), int64(1)},
		[]any{"mset", int64(-3), []any{"write"}, int64(1), int64(-1), int64(2)},
		[]any{"del", int64(-2), []any{"write"}, int64(1), int64(-1), int64(1)},
		[]any{"blpop", int64(-3), []any{"write", "blocking"}, int64(1), int64(-2), int64(1)},
		keyless("quit", -1), keyless("flushall", -1), keyless("subscribe", -2), keyless("unsubscribe", -1), keyless("monitor", 1), keyless("reset", 1), keyless("exec", 1), keyless("watch", -2), keyless("client", -2, keyless("client|info", 2)),
		keyless("hello", -1), keyless("multi", 1), keyless("select", 2), keyless("auth", -2), keyless("migrate", -6),
		keyless("config", -2, keyless("config|get", -3), keyless("config|set", -4)), keyless("acl", -2, keyless("acl|setuser", -3)),
	})
	if err != nil {
		panic(err)
	}
	return c
}()

func testMappings(t testing.TB, change ...func(*mapping.Config)) *mapping.Set {
	m := mapping.Default()
	m.Name, m.Key, m.Table = "user", "user:{id}", "users"
	for _, change := range change {
		change(&m)
	}
	set, findings := mapping.NewSet([]mapping.Config{m}, nil, mapping.Schema{"users": {
		Schema: "shop", Name: "users", Engine: "InnoDB",
		Columns: []mapping.Column{
			{Name: "id", Type: "bigint", ColumnType: "bigint(20)", Precision: 19},
			{Name: "name", Type: "varchar", ColumnType: "varchar(20)", Length: 20, Octets: 80, Nullable: true,
				Charset: "utf8mb4", Collation: "utf8mb4_bin"},
		},
		Indexes: []mapping.Index{{Name: "PRIMARY", Unique: true, Columns: []string{"id"}}},
	}})
	if set == nil {
		t.Fatal(findings)
	}
	return set
}

// newRig starts a server with one lane; change adjusts its options.
func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, listener: l, gate: &testGate{}, loader: &testLoader{loads: make(chan load, 1000)}}
	o := Options{
		Config: DefaultConfig(),
		Upstream: Upstream{
			Addr: l.Addr().String(), Lanes: 1, Timeout: 10 * time.Second,
			Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
			},
		},
		Commands: testCommands, Mappings: testMappings(t), Journal: mapping.Journal{Prefix: "kr", Partitions: 1},
		Loader: r.loader, Gate: r.gate, Log: zerolog.Nop(),
	}
	o.Config.Listen = Addrs{"127.0.0.1:0"}
	if change != nil {
		change(&o)
	}
	r.srv = New(o)
	r.srv.loopCount = *loopsFlag
	r.srv.upstream.probed.Store(time.Now().Add(time.Hour).UnixNano()) // no probes between the connections that tests expect
	if err := r.srv.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.srv.Serve() }()
	t.Cleanup(func() {
		_ = l.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r.srv.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

// upstream takes the next connection that the server opens, and greets it.
func (r *rig) upstream() *upstreamConn {
	r.t.Helper()
	c := r.accept()
	c.expect("PING")
	c.send("+PONG\r\n")
	return c
}

func (r *rig) accept() *upstreamConn {
	r.t.Helper()
	conn, err := r.listener.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return &upstreamConn{Conn: conn, t: r.t, in: bufio.NewReader(conn)}
}

// own takes the connection that a session opens for itself.
func (r *rig) own() *upstreamConn {
	r.t.Helper()
	c := r.upstream()
	c.expect("CLIENT ID")
	c.send(":7\r\n")
	return c
}

// writing lets the server find out that MULTI is allowed.
func (r *rig) writing() {
	r.t.Helper()
	c := r.upstream()
	c.expect("MULTI")
	c.send("+OK\r\n")
}

// client connects a client.
func (r *rig) client() *testClient {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.srv.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return &testClient{conn, r.t}
}

type testClient struct {
	net.Conn
	t testing.TB
}

// send sends commands, one a line, their words separated by blanks.
func (c *testClient) send(lines ...string) {
	c.t.Helper()
	var b []byte
	for _, line := range lines {
		var args [][]byte
		for _, w := range strings.Split(line, " ") {
			args = append(args, []byte(w))
		}
		b = appendCommand(b, args...)
	}
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads exactly want.
func (c *testClient) expect(want string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		c.t.Fatalf("the client got %q, %v, want %q", got[:n], err, want)
	}
}

// line reads one line.
func (c *testClient) line() string {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var line []byte
	for one := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, one[0]) {
		if _, err := c.Read(one); err != nil {
			c.t.Fatalf("the client got %q, %v", line, err)
		}
	}
	return string(line)
}

// ended waits for the server to close the connection.
func (c *testClient) ended() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := io.Copy(io.Discard, c); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("the connection is open: %d bytes, %v", n, err)
	}
}

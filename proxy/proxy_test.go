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
	"runtime"
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
	if got := strings.Join(args, " "); got != want {
		c.t.Fatalf("the upstream got %q, want %q", got, want)
	}
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
		keyless("quit", -1), keyless("flushall", -1), keyless("subscribe", -2), keyless("client", -2, keyless("client|info", 2)),
		keyless("hello", -1), keyless("multi", 1), keyless("select", 2), keyless("auth", -2), keyless("migrate", -6),
		keyless("config", -2, keyless("config|get", -3), keyless("config|set", -4)), keyless("acl", -2, keyless("acl|setuser", -3)),
	})
	if err != nil {
		panic(err)
	}
	return c
}()

func testMappings(t testing.TB) *mapping.Set {
	m := mapping.Default()
	m.Name, m.Key, m.Table = "user", "user:{id}", "users"
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
	conn, err := r.listener.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	c := &upstreamConn{Conn: conn, t: r.t, in: bufio.NewReader(conn)}
	c.expect("PING")
	c.send("+PONG\r\n")
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

func TestForward(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	a, b := r.client(), r.client()
	a.send("GET x", "INCR y", "NOSUCH z")
	for _, want := range []string{"GET x", "INCR y", "NOSUCH z"} {
		up.expect(want)
	}
	b.send("PING")
	up.expect("PING")
	// In pieces, with two clients' replies in one of them.
	up.send("$1\r\n")
	up.send("1\r\n:2\r")
	up.send("\n-ERR unknown command 'NOSUCH'\r\n+PONG\r\n")
	a.expect("$1\r\n1\r\n:2\r\n-ERR unknown command 'NOSUCH'\r\n")
	b.expect("+PONG\r\n")
}

// A session that asks Redis something on a connection of its own keeps nobody waiting, whatever loop they share.
func TestTriesAside(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	a, b := r.client(), r.client()
	served := func() {
		t.Helper()
		b.send("PING")
		up.expect("PING")
		up.send("+PONG\r\n")
		b.expect("+PONG\r\n")
	}
	a.send("HELLO 2 AUTH u p")
	tried := r.upstream()
	tried.expect("HELLO 2 AUTH u p")
	served()
	tried.send("-WRONGPASS\r\n")
	a.expect("-WRONGPASS\r\n")

	a.send("STRLEN user:1")
	tried = r.upstream()
	tried.expect("MULTI")
	served()
	tried.send("+OK\r\n")
	up.expect("STRLEN user:1")
	up.send(":1\r\n")
	a.expect(":1\r\n")

	a.send("MULTI")
	own := r.upstream()
	own.expect("CLIENT ID")
	own.send(":7\r\n")
	own.expect("MULTI")
	own.send("+OK\r\n")
	a.expect("+OK\r\n")
	a.send("SELECT 1")
	tried = r.upstream()
	tried.expect("SELECT 1")
	served()
	tried.send("+OK\r\n")
	own.expect("SELECT 1")
	own.send("+QUEUED\r\n")
	a.expect("+QUEUED\r\n")
}

// A loaded row comes in its place among replies that were there earlier.
func TestMissKeepsOrder(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("GET user:1", "GET x", "GET user:2", "INCR y", "GET user:3")
	for _, want := range []string{"GET user:1", "GET x", "GET user:2", "INCR y", "GET user:3"} {
		up.expect(want)
	}
	up.send("$-1\r\n$1\r\nx\r\n$-1\r\n:1\r\n$5\r\nthree\r\n")
	first, second := <-r.loader.loads, <-r.loader.loads
	second.done(nil, nil)
	c.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	first.done([]byte("one"), nil)
	c.expect("$3\r\none\r\n$1\r\nx\r\n$-1\r\n:1\r\n$5\r\nthree\r\n+PONG\r\n")
}

// A write waits for the reads of its session that went before, so that a row still being loaded cannot be answered
// with what is written behind it.
func TestWriteWaitsForReads(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("GET user:1", `SET user:1 {"name":"b"}`)
	up.expect("GET user:1")
	up.send("$-1\r\n")
	l := <-r.loader.loads
	l.done([]byte("old"), nil) // the write is sent only now
	r.writing()
	up.expect("MULTI")
	c.expect("$3\r\nold\r\n")
	up.expect(`SET user:1 {"id":1,"name":"b"}`)
}

func (c *upstreamConn) run(sets ...string) {
	c.t.Helper()
	c.expect("MULTI")
	keys, auxes := "", ""
	for _, set := range sets {
		key, _, _ := strings.Cut(set, " ")
		c.expect("SET " + set)
		keys += " " + key
		auxes += " kr:aux:{" + key + "}"
	}
	c.expect("HDEL kr:{0}:expire" + keys)
	c.zadd(len(sets))
	c.expect("DEL" + auxes)
	c.expect("EXEC")
}

// zadd reads the marks of n keys without looking at their times.
func (c *upstreamConn) zadd(n int) {
	c.t.Helper()
	for range 2 * (1 + 3 + 2*n) {
		if _, err := c.in.ReadString('\n'); err != nil {
			c.t.Fatal(err)
		}
		if c.in.Buffered() == 0 {
			continue
		}
		if b, _ := c.in.Peek(1); b[0] == '*' {
			return
		}
	}
}

func TestSetsShareATransaction(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send(`SET user:1 {"name":"a"}`, `SET user:2 {"name":"b"}`, "GET x")
	r.writing()
	up.run(`user:1 {"id":1,"name":"a"}`, `user:2 {"id":2,"name":"b"}`)
	up.send("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*5\r\n+OK\r\n+OK\r\n:0\r\n:2\r\n:0\r\n")
	c.expect("+OK\r\n+OK\r\n")
	up.expect("GET x") // behind the answer, not before
	up.send("$-1\r\n")
	c.expect("$-1\r\n")
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	if r.gate.marked != 2 {
		t.Errorf("the gate was told of %d marks, want 2", r.gate.marked)
	}
}

// Redis refuses one write of a shared transaction: nothing was applied, and each is sent again by itself, before
// anything that the client sent behind them.
func TestRefusedTransactionIsSentApart(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send(`SET user:1 {"name":"a"}`, `SET user:2 {"name":"b"}`, `SET user:3 {"name":"c"}`, "INCR x")
	r.writing()
	up.run(`user:1 {"id":1,"name":"a"}`, `user:2 {"id":2,"name":"b"}`, `user:3 {"id":3,"name":"c"}`)
	up.send("+OK\r\n+QUEUED\r\n+QUEUED\r\n-NOPERM no\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n")
	up.run(`user:1 {"id":1,"name":"a"}`)
	up.run(`user:2 {"id":2,"name":"b"}`)
	up.run(`user:3 {"id":3,"name":"c"}`)
	one := "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n:0\r\n:1\r\n:0\r\n"
	up.send(one + "+OK\r\n-NOPERM no\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT x\r\n" + one)
	c.expect("+OK\r\n-NOPERM no\r\n+OK\r\n")
	up.expect("INCR x")
}

// A lane that is lost answers everything on it, in order, sends nothing twice, and is there again.
func TestLaneLost(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	a, b := r.client(), r.client()
	a.send("INCR x", "INCR x", "INCR x")
	up.expect("INCR x")
	up.expect("INCR x")
	up.expect("INCR x")
	b.send("GET user:2")
	up.expect("GET user:2")
	up.send(":1\r\n")
	a.expect(":1\r\n")
	_ = up.Close()
	for range 2 {
		if line := a.line(); !strings.HasPrefix(line, "-UPSTREAM keyrow: connection to redis lost, so it is unknown") {
			t.Errorf("got %q", line)
		}
	}
	if line := b.line(); !strings.HasPrefix(line, "-UPSTREAM keyrow: ") {
		t.Errorf("got %q", line)
	}
	up = r.upstream()
	a.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	a.expect("+PONG\r\n")
}

// When half of a reply is with the client no error can follow it: the client is closed, the others are not.
func TestLaneLostInReply(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	a, b := r.client(), r.client()
	a.send("GET x")
	up.expect("GET x")
	b.send("GET y")
	up.expect("GET y")
	up.send("$10\r\nabc")
	a.expect("$10\r\nabc")
	_ = up.Close()
	a.ended()
	if line := b.line(); !strings.HasPrefix(line, "-UPSTREAM keyrow: ") {
		t.Errorf("got %q", line)
	}
}

// While Redis cannot be reached commands are answered at once.
func TestUpstreamDown(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("PING")
	up.expect("PING")
	up.send("+PONG\r\n")
	c.expect("+PONG\r\n")
	_ = r.listener.Close()
	_ = up.Close()
	for {
		c.send("INCR x")
		line := c.line()
		if strings.Contains(line, "was not sent: redis at "+r.listener.Addr().String()+" is not available") {
			return
		}
		if !strings.HasPrefix(line, "-UPSTREAM keyrow: ") {
			t.Fatalf("got %q", line)
		}
	}
}

func TestUpstreamSilent(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Upstream.Timeout = 50 * time.Millisecond })
	up := r.upstream()
	c := r.client()
	c.send("PING")
	up.expect("PING")
	if line := c.line(); !strings.Contains(line, "no reply within 50ms") {
		t.Errorf("got %q", line)
	}
}

func TestUpstreamTalksNonsense(t *testing.T) {
	for name, reply := range map[string]string{
		"unasked": "+PONG\r\n+PONG\r\n", "unknown type": "?\r\n", "bad length": "$x\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			up := r.upstream()
			c := r.client()
			c.send("PING")
			up.expect("PING")
			up.send(reply)
			c.line()
			r.upstream() // a new connection
		})
	}
}

// A client that does not read is closed at its limit, and nobody waits for it.
func TestOutputLimit(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Config.OutputLimit = 1 << 20 })
	up := r.upstream()
	slow, other := r.client(), r.client()
	slow.send("GET x")
	up.expect("GET x")
	other.send("PING")
	up.expect("PING")
	up.send("$67108864\r\n")
	up.send(strings.Repeat("x", 64<<20) + "\r\n")
	up.send("+PONG\r\n")
	other.expect("+PONG\r\n")
	_ = slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, _ := io.Copy(io.Discard, slow); n >= 64<<20 {
		t.Errorf("the slow client got all %d bytes, so the limit was not at work", n)
	}
}

// A client that sends without reading is not read from any more; what it sent is answered once it reads.
func TestBackpressure(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	const n = 20000
	go func() {
		_, _ = c.Write(bytes.Repeat(appendCommand(nil, []byte("PING")), n))
	}()
	for range maxOwed + 1 {
		up.expect("PING")
	}
	// At most one more read's worth of commands may follow while nothing is answered.
	most := maxOwed + 2*readChunk/len(appendCommand(nil, []byte("PING")))
	s := r.srv.client(func(*session) bool { return true })
	var owed int64
	for waiting := false; !waiting; runtime.Gosched() {
		s.mu.Lock()
		if waiting = s.waiting; waiting {
			owed = s.owed
		}
		s.mu.Unlock()
	}
	if owed > int64(most) {
		t.Errorf("%d commands were taken in, want at most %d", owed, most)
	}
	go func() {
		for range maxOwed + 1 {
			_, _ = up.Write([]byte("+PONG\r\n"))
		}
		for range n - maxOwed - 1 {
			up.expect("PING")
			_, _ = up.Write([]byte("+PONG\r\n"))
		}
	}()
	c.expect(strings.Repeat("+PONG\r\n", n))
}

// Commands before a bad frame are run and answered, then the error, then the connection ends.
func TestProtocolError(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("PING")
	_, _ = c.Write([]byte("*1\r\n$-5\r\n"))
	up.expect("PING")
	up.send("+PONG\r\n")
	c.expect("+PONG\r\n-ERR Protocol error: invalid bulk length\r\n")
	c.ended()
}

// Draining answers what was sent and closes.
func TestShutdown(t *testing.T) {
	r := newRig(t, nil)
	up := r.upstream()
	c := r.client()
	c.send("PING")
	up.expect("PING")
	done := make(chan struct{})
	go func() { r.srv.Shutdown(context.Background()); close(done) }()
	up.send("+PONG\r\n")
	c.expect("+PONG\r\n")
	c.ended()
	<-done
	r.srv.mu.Lock()
	defer r.srv.mu.Unlock()
	if n := len(r.srv.sessions); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A session that is only starting when the server gives up waiting opens no connections that nobody closes.
func TestShutdownBeforeASession(t *testing.T) {
	r := newRig(t, nil)
	r.upstream()
	r.srv.Shutdown(context.Background())
	set := r.srv.upstream.acquire(laneKey{})
	if err := set.pick(nil).submit(new(session), []byte("x"), nil); err == nil || !strings.Contains(err.Error(), errClosed.Error()) {
		t.Errorf("a command is taken after the end: %v", err)
	}
	r.srv.upstream.release(set)
	if err := r.srv.Serve(); err != nil {
		t.Error(err)
	}
}

package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

// Clients go over with all that they have made of their connection, and with half of a command.
func TestHandOverState(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	s := openShop(t, harness.Options{Set: map[string]string{
		"proxy.listen": fmt.Sprintf(`["127.0.0.1:0", "unix://%s"]`, path),
	}})
	s.Redis.Do("ACL", "SETUSER", "ada", "on", ">sec\xffret", "~*", "+@all")
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")

	p := dial(t, s.Addr)
	p.want("+OK\r\n", "AUTH", "ada", "sec\xffret")
	p.want("+OK\r\n", "SELECT", "5")
	p.want("+OK\r\n", "CLIENT", "SETNAME", "one")
	id := p.do("CLIENT", "ID")
	third := dial(t, s.Addr)
	third.do("HELLO", "3", "SETNAME", "third")
	silent := dial(t, s.Addr)
	silent.send(encode("CLIENT", "REPLY", "OFF"))
	half := dial(t, s.Addr)
	half.want("+PONG\r\n", "PING")
	whole := encode("SET", "greeting", strings.Repeat("x", 3000))
	half.send(whole[:len(whole)/2])
	local := redis.NewClient(&redis.Options{Network: "unix", Addr: path, MaxRetries: -1, PoolSize: 1})
	defer local.Close()
	if err := local.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}

	if code := s.HandOver().Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}

	p.want("$3\r\nada\r\n", "ACL", "WHOAMI")
	p.want("$3\r\none\r\n", "CLIENT", "GETNAME")
	p.want(id, "CLIENT", "ID")
	if got := p.do("CLIENT", "INFO"); !strings.Contains(got, " db=5 ") || !strings.Contains(got, p.LocalAddr().String()) {
		t.Errorf("CLIENT INFO is %q", got)
	}
	third.want("_\r\n", "GET", "nothing")
	third.want("$5\r\nthird\r\n", "CLIENT", "GETNAME")
	silent.send(encode("SET", "quiet", "1"))
	silent.send(encode("CLIENT", "REPLY", "ON"))
	if got := silent.reply(); got != "+OK\r\n" {
		t.Errorf("a silent client gets %q", got)
	}
	half.send(whole[len(whole)/2:])
	if got := half.reply(); got != "+OK\r\n" {
		t.Errorf("half a command and its other half: %q", got)
	}
	if got, err := local.Get(t.Context(), "user:42").Result(); got != ada || err != nil {
		t.Errorf("over the unix socket: %s, %v", got, err)
	}

	resp, err := http.Get("http://" + s.Admin + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	s.rest()
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

// want runs a command and compares the bytes of its reply.
func (p *peer) want(reply string, args ...string) {
	p.t.Helper()
	if got := p.do(args...); got != reply {
		p.t.Errorf("%v\n got %q\nwant %q", args, got, reply)
	}
}

// Clients with a connection of their own stay with the old process until they have done with it, and then go over.
func TestHandOverLater(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	subscriber, transaction, blocked := dial(t, s.Addr), dial(t, s.Addr), dial(t, s.Addr)
	message := "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n"
	subscriber.want("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n", "SUBSCRIBE", "news")
	transaction.want("+OK\r\n", "MULTI")
	transaction.want("+QUEUED\r\n", "SET", "acct:1", `{"id":1,"n":1,"twin":"1"}`)
	blocked.send(encode("BLPOP", "queue", "0"))
	harness.Until(t, "the client is blocked", func() bool {
		return strings.Contains(fmt.Sprint(s.Redis.Do("CLIENT", "LIST")), "cmd=blpop")
	})

	old := s.HandOver()
	s.Redis.Do("PUBLISH", "news", "hi")
	if got := subscriber.reply(); got != message {
		t.Errorf("the subscriber gets %q", got)
	}
	transaction.want("*1\r\n+OK\r\n", "EXEC")
	transaction.want("$25\r\n"+`{"id":1,"n":1,"twin":"1"}`+"\r\n", "GET", "acct:1")
	s.Redis.Do("RPUSH", "queue", "work")
	if got := blocked.reply(); got != "*2\r\n$5\r\nqueue\r\n$4\r\nwork\r\n" {
		t.Errorf("the blocked client gets %q", got)
	}
	if old.Exited() {
		t.Error("the process ended under a subscriber")
	}
	// Another hand-over meanwhile: who comes late goes on to the last.
	next := s.HandOver()
	subscriber.want("*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n", "UNSUBSCRIBE", "news")
	for _, p := range []*harness.Predecessor{old, next} {
		if code := p.Wait(); code != 0 {
			t.Errorf("exit status %d", code)
		}
	}
	for _, p := range []*peer{subscriber, transaction, blocked} {
		p.want("+PONG\r\n", "PING")
	}
	if got := s.info("clients"); got != 4 { // and the one that asks
		t.Errorf("%d clients", got)
	}
	s.rest()
}

// Clients that have not gone over by the end of handover_timeout are closed, those over TLS among them.
func TestHandOverTimeout(t *testing.T) {
	t.Parallel()
	a := harness.NewAuthority(t)
	own := a.Issue("127.0.0.1")
	s := openShop(t, harness.Options{Set: map[string]string{"proxy.handover_timeout": "200ms",
		"proxy.tls.listen": "127.0.0.1:0", "proxy.tls.cert": own.Cert, "proxy.tls.key": own.Key}})
	p := dial(t, s.Addr)
	p.do("SUBSCRIBE", "news")
	addr := tlsAddr(t, s.Keyrow)
	secure := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 1, TLSConfig: a.Client()})
	defer secure.Close()
	id, err := secure.ClientID(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	if code := s.HandOver().Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if got := p.rest(); got != "" {
		t.Errorf("the subscriber gets %q", got)
	}
	harness.Until(t, "the log tells", func() bool { return strings.Contains(s.Log(), `"handed_over":0,"closed":2`) })
	again, err := secure.ClientID(t.Context()).Result() // it sees the end, and connects again
	if err != nil || again == id {
		t.Errorf("over TLS, the client that was %d is %d, %v", id, again, err)
	}
	s.rest()
}

// A process that cannot take over changes nothing: the old one goes on, and the log says why.
func TestHandOverFails(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	p := dial(t, s.Addr)
	p.want("+PONG\r\n", "PING")
	conf, err := os.ReadFile(s.Conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Conf, append([]byte("nonsense = 1\n"), conf...), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGUSR2)
	harness.Until(t, "the log says why", func() bool {
		return strings.Contains(s.Log(), "nonsense") && strings.Contains(s.Log(), "not handed over, going on")
	})
	p.want("+PONG\r\n", "PING")
	dial(t, s.Addr).want("+PONG\r\n", "PING")
	if err := os.WriteFile(s.Conf, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := s.HandOver().Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	p.want("+PONG\r\n", "PING")
	s.rest()
}

// The PROXY header comes once with a connection, so it is not asked for again.
func TestHandOverBehindBalancer(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"proxy.proxy_protocol": "true", "proxy.handover_timeout": "1s"}})
	header := []byte("PROXY TCP4 192.0.2.7 192.0.2.8 4711 6380\r\n")
	p, silent := dial(t, s.Addr), dial(t, s.Addr)
	p.send(header)
	p.want("+PONG\r\n", "PING")
	silent.send(header[:10])
	if code := s.HandOver().Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if got := p.do("CLIENT", "INFO"); !strings.Contains(got, " addr=192.0.2.7:4711 laddr=192.0.2.8:6380 ") {
		t.Errorf("CLIENT INFO is %q", got)
	}
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.same()
}

// A process that takes over and then stands still does not keep the old one: that ends once handover_timeout is over.
func TestHandOverToOneThatStandsStill(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"proxy.handover_timeout": "1s", "journal.drain": "1s"}})
	var clients []*peer
	for range 20 {
		p := dial(t, s.Addr)
		p.do("CLIENT", "SETNAME", strings.Repeat("x", 30000)) // more than fits between the two
		p.do("MULTI")
		clients = append(clients, p)
	}
	old := s.HandOver()
	s.Signal(syscall.SIGSTOP)
	for _, p := range clients {
		p.send(encode("DISCARD"))
	}
	if code := old.Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	s.Signal(syscall.SIGCONT)
	dial(t, s.Addr).want("+PONG\r\n", "PING")
	s.rest()
}

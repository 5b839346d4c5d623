package test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

const secureMapping = `
[[mapping]]
name = "user"
key = "user:{id}"
table = "users"
`

// secureDB is a database with the table of secureMapping and one row in it.
func secureDB(t *testing.T) (m *harness.MySQL, db string) {
	t.Helper()
	m = harness.SharedMySQL(t)
	db = m.NewDB(t)
	m.Exec(db, "CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20))")
	m.Exec(db, "INSERT INTO users VALUES (1, 'Ada')")
	return m, db
}

// tlsAddr is where k logged that it speaks TLS.
func tlsAddr(t *testing.T, k *harness.Keyrow) string {
	t.Helper()
	found := regexp.MustCompile(`tls://([^"]+)`).FindAllStringSubmatch(k.Log(), -1)
	if found == nil {
		t.Fatalf("no address for TLS in the log:\n%s", k.Log())
	}
	return found[len(found)-1][1]
}

// through does what takes each kind of connection to Redis: shared ones, one of the session's own, keyrow's. The row
// has the name was before, and another afterwards.
func through(t *testing.T, c *redis.Client, k *harness.Keyrow, was string) {
	t.Helper()
	ctx := t.Context()
	want := func(what, want string, got any, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %v, %v, want %s", what, got, err, want)
		}
	}
	got, err := c.Get(ctx, "user:1").Result()
	want("a miss", `{"id":1,"name":"`+was+`"}`, got, err)
	got, err = c.Set(ctx, "user:2", `{"name":"Bob"}`, 0).Result()
	want("a write", "OK", got, err)
	big := strings.Repeat("x", 1<<20)
	got, err = c.Set(ctx, "plain", big, 0).Result()
	want("a large request", "OK", got, err)
	got, err = c.Get(ctx, "plain").Result()
	if err != nil || got != big {
		t.Errorf("a large reply: %d bytes, %v", len(got), err)
	}
	var swapped *redis.StatusCmd
	_, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		swapped = p.Set(ctx, "user:1", `{"name":"Eve"}`, 0)
		return nil
	})
	want("a transaction", "OK", swapped.Val(), err)
	sub := c.Subscribe(ctx, "news")
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(ctx, "news", "hello").Err(); err != nil {
		t.Error(err)
	}
	message, err := sub.ReceiveMessage(ctx)
	if err != nil || message.Payload != "hello" {
		t.Errorf("a message: %v, %v", message, err)
	}
	k.Settled()
	k.Equal(harness.Rows{Pattern: "user:{id}", Table: "users"})
}

// TLS on both sides, with certificates of each end's own, beside a port without.
func TestSecureOnBothSides(t *testing.T) {
	t.Parallel()
	a := harness.NewAuthority(t)
	r := harness.StartSecureRedis(t, a)
	m, db := secureDB(t)
	server, own := a.Issue("127.0.0.1"), a.Issue("client")
	k := harness.StartKeyrow(t, harness.Options{Redis: r, MySQL: m, DB: db, Config: secureMapping, Set: map[string]string{
		"redis.addr": r.TLSAddr, "redis.tls.enabled": "true", "redis.tls.ca": a.File, "redis.tls.cert": own.Cert, "redis.tls.key": own.Key,
		"proxy.tls.listen": "127.0.0.1:0", "proxy.tls.cert": server.Cert, "proxy.tls.key": server.Key, "proxy.tls.client_ca": a.File,
	}})
	addr := tlsAddr(t, k)
	c := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, MaxRetries: -1, TLSConfig: a.Client(own)})
	defer c.Close()
	through(t, c, k, "Ada")
	k.Must("GET", "user:1") // without TLS

	stranger := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, MaxRetries: -1, TLSConfig: a.Client()})
	defer stranger.Close()
	if err := stranger.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("a client without a certificate: %v", err)
	}

	// Redis comes back, and the lanes with it.
	r.Restart() // without what it held
	harness.Until(t, "redis is reached again", func() bool { return c.Get(t.Context(), "plain").Err() == redis.Nil })
	// keyrow's own connections follow within a second.
	harness.Until(t, "rows are read again", func() bool { return c.Get(t.Context(), "user:999").Err() == redis.Nil })
	through(t, c, k, "Eve")

	// The certificate is renewed.
	a.IssueTo(&server, "127.0.0.1")
	harness.Until(t, "clients are shown the new certificate", func() bool {
		conn, err := tls.Dial("tcp", addr, a.Client(own))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64() == server.Serial
	})
	if code := k.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
}

// Unix sockets on both sides, a user of keyrow's own, and Redis's own words to the clients.
func TestUnixSocketsOnBothSides(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t, "--unixsocket", "s", "--user", "keyrow", "on", ">pass", "~*", "&*", "+@all")
	m, db := secureDB(t)
	socket := filepath.Join(r.Dir, "k")
	k := harness.StartKeyrow(t, harness.Options{Redis: r, MySQL: m, DB: db, Config: secureMapping + `
[proxy]
listen = ["127.0.0.1:0", "unix://` + socket + `"]
unix_mode = "0600"
`, Set: map[string]string{
		"redis.addr": "unix://" + filepath.Join(r.Dir, "s"), "redis.username": "keyrow", "redis.password": "pass",
	}})
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, Protocol: 2, MaxRetries: -1})
	defer c.Close()
	through(t, c, k, "Ada")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", info.Mode(), err)
	}
	info, err := c.Do(t.Context(), "CLIENT", "INFO").Text()
	if err != nil || !strings.Contains(info, " addr="+socket+":0 ") {
		t.Errorf("CLIENT INFO: %q, %v", info, err)
	}
	// What kill -9 leaves behind does not keep the next one from listening.
	k.Kill()
	k.Start()
	if err := c.Ping(context.Background()).Err(); err != nil {
		t.Error(err)
	}
	k.Term()
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// With the PROXY protocol a client's address is that of the header.
func TestProxyProtocolEndToEnd(t *testing.T) {
	t.Parallel()
	m, db := secureDB(t)
	k := harness.StartKeyrow(t, harness.Options{MySQL: m, DB: db, Config: secureMapping,
		Set: map[string]string{"proxy.proxy_protocol": "true"}})
	c := redis.NewClient(&redis.Options{Addr: k.Addr, Protocol: 2, MaxRetries: -1,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err == nil {
				_, err = conn.Write([]byte("PROXY TCP4 192.0.2.7 192.0.2.8 4711 6379\r\n"))
			}
			return conn, err
		}})
	defer c.Close()
	info, err := c.Do(t.Context(), "CLIENT", "INFO").Text()
	if err != nil || !strings.Contains(info, " addr=192.0.2.7:4711 laddr=192.0.2.8:6379 ") {
		t.Errorf("CLIENT INFO: %q, %v", info, err)
	}
	through(t, c, k, "Ada")
}

// What is wrong with certificates is said at the start, with the key to change, and as a wrong configuration.
func TestSecureConfigProblems(t *testing.T) {
	t.Parallel()
	a := harness.NewAuthority(t)
	one, other := a.Issue("127.0.0.1"), a.Issue("127.0.0.1")
	m, db := secureDB(t)
	r := harness.StartRedis(t)
	for _, tt := range []struct {
		set  map[string]string
		want string
	}{
		{map[string]string{"proxy.tls.listen": "127.0.0.1:0", "proxy.tls.cert": one.Cert, "proxy.tls.key": other.Key},
			"proxy.tls: " + one.Cert + " and " + other.Key + ": tls: private key does not match public key"},
		{map[string]string{"proxy.tls.listen": "127.0.0.1:0", "proxy.tls.cert": one.Cert, "proxy.tls.key": one.Key, "proxy.tls.client_ca": one.Key},
			"proxy.tls.client_ca: " + one.Key + ": there is no certificate in PEM in it"},
		{map[string]string{"redis.tls.enabled": "true", "redis.tls.ca": "/nowhere/ca.pem"},
			"redis.tls.ca: open /nowhere/ca.pem: no such file or directory"},
	} {
		for _, args := range [][]string{nil, {"check"}} {
			k := harness.NewKeyrow(t, harness.Options{Redis: r, MySQL: m, DB: db, Config: secureMapping, Set: tt.set, Args: args})
			if code, printed := k.Run(); code != 2 || !strings.Contains(printed, tt.want) {
				t.Errorf("%v: exit status %d, %s\nwant 2 and %s", args, code, printed, tt.want)
			}
		}
	}
	k := harness.NewKeyrow(t, harness.Options{Redis: harness.StartSecureRedis(t, a, "--tls-auth-clients", "no"), MySQL: m, DB: db,
		Config: secureMapping, Set: map[string]string{"redis.tls.enabled": "true", "redis.tls.insecure_skip_verify": "true"}})
	if code, printed := k.Run(); code != 1 || !strings.Contains(printed, "redis.tls.insecure_skip_verify") {
		t.Errorf("TLS to a port without: exit status %d, %s", code, printed)
	}
}

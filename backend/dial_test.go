package backend

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"keyrow/test/harness"
)

func TestRedisOverTLS(t *testing.T) {
	a, stranger := harness.NewAuthority(t), harness.NewAuthority(t)
	own, named := a.Issue("keyrow"), a.Issue("redis.test")
	open, asking := harness.StartSecureRedis(t, a, "--tls-auth-clients", "no"), harness.StartSecureRedis(t, a)
	elsewhere := harness.StartSecureRedis(t, a, "--tls-cert-file", named.Cert, "--tls-key-file", named.Key, "--tls-auth-clients", "no")
	for _, tt := range []struct {
		name string
		r    *harness.Redis
		tls  RedisTLSConfig
		want string // "": it works
	}{
		{"authority", open, RedisTLSConfig{CA: a.File}, ""},
		{"other authority", open, RedisTLSConfig{CA: stranger.File}, "signed by unknown authority"},
		{"authorities of the system", open, RedisTLSConfig{}, "signed by unknown authority"},
		{"not checked", open, RedisTLSConfig{InsecureSkipVerify: true}, ""},
		{"own certificate", asking, RedisTLSConfig{CA: a.File, Cert: own.Cert, Key: own.Key}, ""},
		{"no own certificate", asking, RedisTLSConfig{CA: a.File}, "does not answer"}, // in words, or with a reset
		{"other name", elsewhere, RedisTLSConfig{CA: a.File}, "127.0.0.1"},
		{"name given", elsewhere, RedisTLSConfig{CA: a.File, ServerName: "redis.test"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultRedis()
			cfg.Addr, cfg.TLS = tt.r.TLSAddr, tt.tls
			cfg.TLS.Enabled = true
			rdb, err := OpenRedis(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer rdb.Close()
			err = CheckRedis(t.Context(), rdb, zerolog.Nop())
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), cfg.Addr)):
				t.Errorf("%v, want %s and the address", err, tt.want)
			}
		})
	}
}

// A certificate of keyrow's own that was renewed is what the next connection shows.
func TestRedisOverTLSRenewed(t *testing.T) {
	a, stranger := harness.NewAuthority(t), harness.NewAuthority(t)
	r := harness.StartSecureRedis(t, a)
	own := stranger.Issue("keyrow")
	cfg := DefaultRedis()
	cfg.Addr = r.TLSAddr
	cfg.TLS = RedisTLSConfig{Enabled: true, CA: a.File, Cert: own.Cert, Key: own.Key}
	rdb, err := OpenRedis(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if err := rdb.Ping(t.Context()).Err(); err == nil {
		t.Fatal("redis takes any certificate")
	}
	a.IssueTo(&own, "keyrow")
	harness.Until(t, "redis is shown the new certificate", func() bool { return rdb.Ping(t.Context()).Err() == nil })
}

func TestRedisOnUnixSocket(t *testing.T) {
	r := harness.StartRedis(t, "--unixsocket", "s") // below its folder
	path := filepath.Join(r.Dir, "s")
	rdb := openRedis(t, "unix://"+path)
	if err := CheckRedis(t.Context(), rdb, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	conn, err := Dial(rdb)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().Network(); got != "unix" {
		t.Errorf("connected over %s", got)
	}
}

func TestRedisTLSValidate(t *testing.T) {
	for _, tt := range []struct {
		change func(*RedisConfig)
		want   string
	}{
		{func(c *RedisConfig) { c.TLS.Enabled = true }, ""},
		{func(c *RedisConfig) { c.TLS.CA = "ca.pem" },
			"redis.tls.enabled: is false, so nothing else in the section has an effect: set it to true, or take out the rest"},
		{func(c *RedisConfig) { c.Addr, c.TLS.Enabled = "unix:///run/redis", true },
			"redis.tls.enabled: redis does not speak tls on a unix socket: name its tls-port in redis.addr, or set it to false"},
		{func(c *RedisConfig) { c.TLS = RedisTLSConfig{Enabled: true, Key: "k"} },
			"redis.tls.cert: goes together with redis.tls.key: set both, or neither"},
		{func(c *RedisConfig) { c.TCPKeepAlive = 0 }, ""},
		{func(c *RedisConfig) { c.TCPKeepAlive = time.Millisecond }, "redis.tcp_keepalive: 1ms is not within 1s and 9h6m7s"},
	} {
		c := DefaultRedis()
		tt.change(&c)
		got := ""
		if err := c.Validate(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestRedisTLSFilesMissing(t *testing.T) {
	cfg := DefaultRedis()
	for _, tls := range []RedisTLSConfig{{Enabled: true, CA: "/nowhere/ca"}, {Enabled: true, Cert: "/nowhere/cert", Key: "/nowhere/key"}} {
		cfg.TLS = tls
		rdb, err := OpenRedis(cfg)
		if err == nil {
			rdb.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), "redis.tls") || !strings.Contains(err.Error(), "/nowhere/") {
			t.Errorf("%+v: %v", tls, err)
		}
	}
}

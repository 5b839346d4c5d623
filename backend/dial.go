package backend

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/certs"
	"keyrow/rawio"
)

// RedisTLSConfig is the section [redis.tls]. The files are in PEM; connections that are opened after they changed use
// what is in them then.
type RedisTLSConfig struct {
	Enabled bool `toml:"enabled"`
	// CA is the file of the authorities one of which must have signed Redis's certificate. Empty: those of the system.
	CA string `toml:"ca"`
	// Cert and Key are the files of keyrow's own certificate, for a Redis that asks for one (tls-auth-clients).
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
	// ServerName that Redis's certificate must be for. Empty: the host of redis.addr.
	ServerName string `toml:"server_name"`
	// InsecureSkipVerify takes any certificate, so that whoever is in the way can read and change everything.
	InsecureSkipVerify bool `toml:"insecure_skip_verify"`
}

func (c RedisTLSConfig) validate(ps *problems, addr string) {
	rest := c
	rest.Enabled = false
	switch network, _, _ := redisAddr(addr); {
	case !c.Enabled && rest != RedisTLSConfig{}:
		ps.add("redis.tls.enabled", "is false, so nothing else in the section has an effect: set it to true, or take out the rest")
	case c.Enabled && network == "unix":
		ps.add("redis.tls.enabled", "redis does not speak tls on a unix socket: name its tls-port in redis.addr, or set it to false")
	}
	if (c.Cert == "") != (c.Key == "") {
		ps.add("redis.tls.cert", "goes together with redis.tls.key: set both, or neither")
	}
}

// read makes the configuration of what is in the files; host is Redis's, from redis.addr.
func (c RedisTLSConfig) read(host string) (*tls.Config, error) {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: host,
		InsecureSkipVerify: c.InsecureSkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if c.ServerName != "" {
		conf.ServerName = c.ServerName
	}
	var err error
	if c.CA != "" {
		if conf.RootCAs, err = certs.Pool(c.CA); err != nil {
			return nil, fmt.Errorf("redis.tls.ca: %w", err)
		}
	}
	if c.Cert != "" {
		pair, err := certs.Pair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("redis.tls: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// Dial opens connections to the Redis of rdb, in the same way as rdb, for those who read and write sockets themselves.
func Dial(rdb *redis.Client) func(context.Context) (net.Conn, error) {
	o := rdb.Options()
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := o.Dialer(ctx, o.Network, o.Addr)
		if err != nil {
			return nil, err
		}
		return rawio.Unwrap(conn), nil
	}
}

// dial opens connections, to Redis or MySQL.
type dial func(ctx context.Context, network, addr string) (net.Conn, error)

// raw has the drivers read and write what d opens in raw system calls.
func (d dial) raw(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return rawio.Wrap(conn), nil
}

// dialer opens connections to Redis, each in redisDial at most, the TLS handshake included.
func dialer(cfg RedisConfig, log zerolog.Logger) (dial, error) {
	plain := net.Dialer{KeepAlive: -1}
	if every := cfg.TCPKeepAlive; every > 0 {
		plain.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: every, Interval: max(every/3, time.Second), Count: 3}
	}
	timeout := min(redisDial, cfg.Timeout)
	if !cfg.TLS.Enabled {
		plain.Timeout = timeout
		return plain.DialContext, nil
	}
	host, _, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("redis.addr: %w", err)
	}
	conf, err := certs.Load(log, func() (*tls.Config, error) { return cfg.TLS.read(host) }, cfg.TLS.CA, cfg.TLS.Cert, cfg.TLS.Key)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		below, err := plain.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(below, conf.Current())
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = below.Close()
			return nil, fmt.Errorf("tls handshake: %w", err)
		}
		return secured{conn, below}, nil
	}, nil
}

// secured is a connection over TLS that ends without a word. Those who close it must not wait until Redis has room for
// one, and to Redis it is the same.
type secured struct {
	*tls.Conn
	below net.Conn
}

func (c secured) Close() error { return c.below.Close() }

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

// bench is what all scenarios share: the servers that everything is measured on, and where the results go.
type bench struct {
	options
	tb       testing.TB
	dir      string // of the configurations
	redis    *harness.Redis
	mysql    *harness.MySQL
	redisPID int
	mysqlPID int
	report   *report
	progress *progress
}

// database is the one of MySQL, and people the table in it, whose rows are the keys person:{id}.
const database = "bench"

const people = `CREATE TABLE people (
	id      BIGINT PRIMARY KEY,
	name    VARCHAR(40)   NOT NULL,
	email   VARCHAR(100),
	balance DECIMAL(10,2) NOT NULL DEFAULT 0.00
)`

// newBench starts Redis and MySQL.
func newBench(t testing.TB, o options, r *report, out io.Writer) (*bench, error) {
	b := &bench{options: o, tb: t, report: r, progress: &progress{out: out}}
	var err error
	if b.dir, err = os.MkdirTemp("", "keyrow-bench-"); err != nil {
		return nil, err
	}
	t.Cleanup(func() { os.RemoveAll(b.dir) })
	b.progress.say("starting redis-server and mariadbd")
	b.redis = harness.StartRedis(t, "--tcp-backlog", "1024")
	// What the harness takes away from durability is given back, and what it saves in memory: both make MySQL slower
	// or faster than it is.
	b.mysql = harness.StartMySQL(t, "--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=512M",
		"--innodb-log-file-size=96M")
	b.mysql.DB(database)
	b.mysql.Exec(database, people)
	if b.redisPID, err = redisPID(b.redis); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(b.mysql.Dir, "pid"))
	if err != nil {
		return nil, err
	}
	if b.mysqlPID, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return nil, fmt.Errorf("read the process id of mariadbd: %w", err)
	}
	if b.keyrow == "" {
		b.progress.say("building keyrow")
		b.keyrow = filepath.Join(b.dir, "keyrow")
		if out, err := exec.Command("go", "build", "-buildvcs=auto", "-o", b.keyrow, "keyrow").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build keyrow: %w\n%s", err, out)
		}
	} else if b.keyrow, err = filepath.Abs(b.keyrow); err != nil {
		return nil, err
	}
	r.Machine, err = describe(b.keyrow)
	return b, err
}

// redisPID asks the server, since the harness keeps the process to itself.
func redisPID(r *harness.Redis) (int, error) {
	info, err := r.Client().InfoMap(context.Background(), "server").Result()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(info["Server"]["process_id"])
}

// clear takes all content out of Redis and MySQL.
func (b *bench) clear(ctx context.Context) error {
	if err := b.redis.Client().FlushAll(ctx).Err(); err != nil {
		return err
	}
	_, err := b.mysql.DB(database).ExecContext(ctx, "TRUNCATE people")
	return err
}

// startKeyrow starts a keyrow with its defaults, and people mapped.
func (b *bench) startKeyrow(ctx context.Context) (*process, error) {
	return b.start(ctx, "keyrow", func(addr, dir string) ([]string, error) {
		conf := filepath.Join(dir, "keyrow.toml")
		return []string{b.keyrow, "-c", conf}, os.WriteFile(conf, fmt.Appendf(nil, `
[proxy]
listen = %q
[redis]
addr = %q
[mysql]
dsn = %q
[admin]
listen = ""
[log]
level = "warn"
[[mapping]]
name = "person"
key = "person:{id}"
table = "people"
`, addr, b.redis.Addr, b.mysql.DSN(database)), 0o600)
	})
}

// startTwemproxy starts a twemproxy with one server and one connection to it, which is its default.
func (b *bench) startTwemproxy(ctx context.Context) (*process, error) {
	return b.start(ctx, "twemproxy", func(addr, dir string) ([]string, error) {
		stats, err := freeAddr()
		if err != nil {
			return nil, err
		}
		host, port, _ := net.SplitHostPort(stats)
		conf := filepath.Join(dir, "twemproxy.yml")
		return []string{program("nutcracker"), "-c", conf, "-a", host, "-s", port}, os.WriteFile(conf, fmt.Appendf(nil, `
bench:
  listen: %s
  redis: true
  hash: fnv1a_64
  distribution: ketama
  auto_eject_hosts: false
  preconnect: true
  backlog: 1024
  servers:
   - %s:1
`, addr, b.redis.Addr), 0o600)
	})
}

// startHAProxy starts an HAProxy that forwards connections and looks into none.
func (b *bench) startHAProxy(ctx context.Context) (*process, error) {
	return b.start(ctx, "haproxy", func(addr, dir string) ([]string, error) {
		conf := filepath.Join(dir, "haproxy.cfg")
		return []string{program("haproxy"), "-db", "-f", conf}, os.WriteFile(conf, fmt.Appendf(nil, `
global
  maxconn 4000
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
listen bench
  bind %s
  server redis %s
`, addr, b.redis.Addr), 0o600)
	})
}

// start starts a proxy on a free port with the command line that configure makes, and returns when it passes on a PING.
// It is killed at the end of the bench, or before by whoever has no more use for it.
func (b *bench) start(ctx context.Context, name string, configure func(addr, dir string) ([]string, error)) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	argv, err := configure(addr, b.dir)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(name, addr, b.dir, argv...)
	if err != nil {
		return nil, err
	}
	b.tb.Cleanup(p.kill)
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	if err := until(ctx, func() (bool, error) { return ping(addr), p.alive() }); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func ping(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(c, "*1\r\n$4\r\nPING\r\n"); err != nil {
		return false
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && line == "+PONG\r\n"
}

// freeAddr finds a port that is free now.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// until asks every few milliseconds until the answer is yes, an error comes, or ctx ends.
func until(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// client is a client of a proxy, or of Redis, with as many connections as clients.
func client(addr string, clients int) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: addr, Protocol: 2, PoolSize: clients, MaxRetries: -1, DisableIdentity: true, ReadTimeout: harness.Patience,
	})
}

package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Redis is a redis-server of a test's own.
type Redis struct {
	Addr    string // host:port, the same over restarts
	TLSAddr string // the same with TLS, see [StartSecureRedis]
	Dir     string // its folder, removed at the end of the test

	t    testing.TB
	args []string
	log  *logbook
	proc *process // nil only before the first start

	mu     sync.Mutex
	client *redis.Client // guarded by mu; made on first use
}

// StartRedis starts a redis-server that saves nothing, and stops it at the end of the test. Args are further options:
// "--appendonly", "yes".
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	return startRedis(t, false, args)
}

func startRedis(t testing.TB, secure bool, args []string) *Redis {
	t.Helper()
	dir, err := newDir("r")
	if err != nil {
		t.Fatal(err)
	}
	r := &Redis{Dir: dir, t: t, args: args, log: new(logbook)}
	t.Cleanup(r.close)
	for range 5 {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		r.Addr = "127.0.0.1:" + strconv.Itoa(port)
		if secure {
			if port, err = freePort(); err != nil {
				t.Fatal(err)
			}
			r.TLSAddr = "127.0.0.1:" + strconv.Itoa(port)
		}
		err = r.start()
		if err == nil {
			return r
		}
		if !strings.Contains(r.log.String(), "in use") {
			t.Fatal(err)
		}
	}
	t.Fatalf("start redis-server: five ports in turn were taken")
	return nil
}

// locked reports whether the server wants a password that is the test's own.
func (r *Redis) locked() bool { return slices.Contains(r.args, "--requirepass") }

func (r *Redis) start() error {
	_, port, _ := net.SplitHostPort(r.Addr)
	argv := append([]string{"redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", r.Dir, "--save", "",
		"--daemonize", "no", "--tcp-backlog", "128",
		"--user", ownUser, "on", ">" + redisPassword, "~*", "&*", "+@all"}, r.args...)
	if r.TLSAddr != "" {
		_, port, _ := net.SplitHostPort(r.TLSAddr)
		argv = append(argv, "--tls-port", port)
	}
	from := r.log.len()
	proc, err := startProcess(r.log, r.Dir, nil, argv...)
	if err != nil {
		return fmt.Errorf("start redis-server (test/run installs it): %w", err)
	}
	r.proc = proc
	// Its log and not a connection tells when it is ready: the log is its own for sure, whereas some other server may
	// have taken the port meanwhile, and a connection would not be let in where the test set a password.
	return poll(Patience, func() error {
		if strings.Contains(r.log.since(from), "Ready to accept connections") {
			return nil
		}
		if proc.exited() {
			return errGiveUp{fmt.Errorf("redis-server ended with status %d:\n%s", proc.code(), r.log.tail(20))}
		}
		return fmt.Errorf("redis-server is not ready:\n%s", r.log.tail(20))
	})
}

func (r *Redis) close() {
	if r.proc != nil {
		r.proc.kill()
	}
	r.mu.Lock()
	if r.client != nil {
		r.client.Close()
	}
	r.mu.Unlock()
	r.log.printIfFailed(r.t, "redis-server at "+r.Addr)
	os.RemoveAll(r.Dir)
}

// Kill ends the server as kill -9 does.
func (r *Redis) Kill() { r.proc.kill() }

// Stop ends the server in an orderly way, which writes its append-only file to disk.
func (r *Redis) Stop() {
	r.t.Helper()
	if !r.proc.terminate(Patience) {
		r.t.Fatalf("redis-server did not stop within %v", Patience)
	}
}

// Restart starts the server again at the same address with the data on its disk, after stopping it if it runs.
func (r *Redis) Restart() {
	r.t.Helper()
	r.Stop()
	if err := r.start(); err != nil {
		r.t.Fatalf("restart: %v", err)
	}
}

// Pause halts the server (SIGSTOP): connections stay open and nothing answers.
func (r *Redis) Pause() {
	r.t.Helper()
	if err := r.proc.pause(); err != nil {
		r.t.Fatal(err)
	}
}

// Resume lets a paused server go on.
func (r *Redis) Resume() { r.proc.resume() }

// Client returns a client of the server, one for the test. It speaks RESP2 and repeats nothing.
func (r *Redis) Client() *redis.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		r.client = newClient(r.Addr, 0)
	}
	return r.client
}

// Do runs a command and returns its reply, nil for a nil reply. Anything else than a reply fails the test.
func (r *Redis) Do(args ...any) any {
	r.t.Helper()
	v, err := r.Client().Do(context.Background(), args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		r.t.Fatalf("redis %v: %v", args, err)
	}
	return v
}

func newClient(addr string, db int) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr:            addr,
		DB:              db,
		Protocol:        2,
		MaxRetries:      -1,
		DisableIdentity: true,
		ReadTimeout:     Patience,
		WriteTimeout:    Patience,
		DialTimeout:     5 * time.Second,

		ContextTimeoutEnabled: true,
	})
}

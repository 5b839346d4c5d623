package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/redis/go-redis/v9"
)

// Options of one keyrow process.
type Options struct {
	Redis  *Redis            // nil: one of its own
	MySQL  *MySQL            // nil: the shared one
	DB     string            // the database of MySQL it works on; "": a new one
	Config string            // the text of conf.toml: [[mapping]]s, and any section whose defaults do not suit
	Set    map[string]string // settings over Config by dotted path: "journal.interval": "1h", "redis.db": "3"
	Env    []string          // NAME=value, added to the environment of the tests
	Args   []string          // after "-c conf.toml"
	Hooks  *Hooks            // where the process is to be held, see [NewHooks]
	Listen []*os.File        // sockets that it is passed as by systemd
	Lean   bool              // the program as it is delivered, for tests of memory: no hooks and no race detector
}

// Keyrow is a running keyrow process.
type Keyrow struct {
	Addr  string // host:port it listens on; a new one with every start
	Admin string // the same of its admin listener; "": it has none
	Redis *Redis
	MySQL *MySQL
	DB    string
	Conf  string // path of its conf.toml

	t       testing.TB
	options Options
	conf    atomic.Pointer[map[string]any] // what Conf says
	dir     string
	log     *logbook
	proc    *process
	guarded sync.Once // see guard

	mu     sync.Mutex
	client *redis.Client // guarded by mu; made on first use
}

// StartKeyrow builds keyrow, starts it, and kills it at the end of the test. The test fails if it does not come up,
// and also when it printed a panic or a data race at any time.
func StartKeyrow(t testing.TB, o Options) *Keyrow {
	t.Helper()
	k := NewKeyrow(t, o)
	k.Start()
	return k
}

// NewKeyrow prepares a process that [Keyrow.Start] or [Keyrow.Run] starts.
func NewKeyrow(t testing.TB, o Options) *Keyrow {
	t.Helper()
	if o.Redis == nil {
		o.Redis = StartRedis(t)
	}
	if o.MySQL == nil {
		o.MySQL = SharedMySQL(t)
	}
	if o.DB == "" {
		o.DB = o.MySQL.NewDB(t)
	}
	dir, err := newDir("k")
	if err != nil {
		t.Fatal(err)
	}
	k := &Keyrow{Redis: o.Redis, MySQL: o.MySQL, DB: o.DB, Conf: filepath.Join(dir, "conf.toml"), t: t, options: o,
		dir: dir, log: new(logbook)}
	t.Cleanup(k.close)
	if err := k.Configure(o.Config, o.Set); err != nil {
		t.Fatal(err)
	}
	return k
}

// Configure writes conf.toml anew, as NewKeyrow does; a process that runs reads it when it is told to. Unless the test has
// a login of its own for Redis, keyrow has the harness's.
func (k *Keyrow) Configure(own string, set map[string]string) error {
	o := k.options
	needed := func() map[string]any {
		return map[string]any{
			"proxy":   map[string]any{"listen": "127.0.0.1:0"},
			"redis":   map[string]any{"addr": o.Redis.Addr},
			"mysql":   map[string]any{"dsn": ownUser + ":" + mysqlPassword + "@tcp(" + o.MySQL.Addr + ")/" + o.DB},
			"journal": map[string]any{"interval": "20ms"},
			"admin":   map[string]any{"listen": "127.0.0.1:0"},
			"log":     map[string]any{"format": "json"},
		}
	}
	text, err := config(needed(), own, set)
	if err != nil {
		return err
	}
	var conf map[string]any
	if _, err := toml.Decode(string(text), &conf); err != nil {
		return err
	}
	if setting(conf, "redis.password", "")+setting(conf, "redis.username", "") == "" && !o.Redis.locked() {
		all := needed()
		all["redis"] = map[string]any{"addr": o.Redis.Addr, "username": ownUser, "password": redisPassword}
		if text, err = config(all, own, set); err != nil {
			return err
		}
		conf = nil
		if _, err := toml.Decode(string(text), &conf); err != nil {
			return err
		}
	}
	k.conf.Store(&conf)
	return os.WriteFile(k.Conf, text, 0o600)
}

// Start starts the process, a second time after it ended, and returns when it listens.
func (k *Keyrow) Start() {
	k.t.Helper()
	if err := k.start(); err != nil {
		k.t.Fatal(err)
	}
}

// Run starts the process where it is expected to end by itself, and returns its exit status and what it printed.
func (k *Keyrow) Run() (code int, printed string) {
	k.t.Helper()
	from := k.log.len()
	if err := k.spawn(); err != nil {
		k.t.Fatal(err)
	}
	return k.WaitExit(), k.log.since(from)
}

func (k *Keyrow) spawn() error {
	program := Binary
	if k.options.Lean {
		program = leanBinary
	}
	binary, err := program()
	if err != nil {
		return err
	}
	env := append(os.Environ(), "GOTRACEBACK=all")
	env = append(env, k.options.Env...)
	if k.options.Hooks != nil {
		env = append(env, k.options.Hooks.env()...)
	}
	argv := append([]string{binary, "-c", k.Conf}, k.options.Args...)
	if n := len(k.options.Listen); n > 0 { // the shell is the one who knows its process id before the program runs
		argv = append([]string{"/bin/sh", "-c", fmt.Sprintf(`LISTEN_PID=$$ LISTEN_FDS=%d exec "$0" "$@"`, n)}, argv...)
	}
	k.proc, err = startWith(k.options.Listen, k.log, k.dir, env, argv...)
	return err
}

func (k *Keyrow) start() error {
	k.disconnect()
	from := k.log.len()
	if err := k.spawn(); err != nil {
		return err
	}
	return poll(Patience, func() error {
		if addr, admin := listening(k.log.since(from)); addr != "" {
			k.Addr, k.Admin = addr, admin
			return nil
		}
		if k.proc.exited() {
			return errGiveUp{fmt.Errorf("keyrow ended with status %d:\n%s", k.proc.code(), k.log.tail(50))}
		}
		return fmt.Errorf("keyrow has not logged that it listens:\n%s", k.log.tail(50))
	})
}

// listening finds the line of keyrow's log that says where clients connect.
func listening(log string) (addr, admin string) {
	for line := range strings.Lines(log) {
		var entry struct{ Message, Addr, Admin string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "listening" {
			return entry.Addr, entry.Admin
		}
	}
	return "", ""
}

// crashed finds what no keyrow may ever print.
var crashed = regexp.MustCompile(`(?m)^(WARNING: DATA RACE|panic: .*|fatal error: .*)$`)

func (k *Keyrow) close() {
	k.t.Helper()
	k.scan()
	if k.proc != nil {
		k.proc.kill()
	}
	k.disconnect()
	k.tells("the log", k.log.String())
	if found := crashed.FindString(k.log.String()); found != "" {
		k.t.Errorf("keyrow printed %q", found)
	}
	k.log.printIfFailed(k.t, "keyrow")
	os.RemoveAll(k.dir)
}

func (k *Keyrow) disconnect() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client != nil {
		k.client.Close()
		k.client = nil
	}
}

// Client returns a client of the process, one for each start, in the database of the mappings. It speaks RESP2 and
// repeats nothing.
func (k *Keyrow) Client() *redis.Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.client == nil {
		k.client = newClient(k.Addr, k.database())
	}
	return k.client
}

// Do runs a command and returns its reply, nil for a nil reply, or the error it was answered with.
func (k *Keyrow) Do(args ...any) (any, error) {
	v, err := k.Client().Do(context.Background(), args...).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return v, err
}

// Must is Do where an error fails the test.
func (k *Keyrow) Must(args ...any) any {
	k.t.Helper()
	v, err := k.Do(args...)
	if err != nil {
		k.t.Fatalf("keyrow %v: %v", args, err)
	}
	return v
}

// Dial opens a raw connection, closed at the end of the test.
func (k *Keyrow) Dial() net.Conn {
	k.t.Helper()
	c, err := net.DialTimeout("tcp", k.Addr, Patience)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { c.Close() })
	return c
}

// Kill ends the process as kill -9 does.
func (k *Keyrow) Kill() { k.proc.kill() }

// Term asks the process to drain and end (SIGTERM), and returns its exit status.
func (k *Keyrow) Term() int {
	k.t.Helper()
	if !k.proc.terminate(2 * Patience) {
		k.t.Fatalf("keyrow did not end within %v of SIGTERM", 2*Patience)
	}
	return k.proc.code()
}

// WaitExit waits for the process to end by itself and returns its exit status.
func (k *Keyrow) WaitExit() int {
	k.t.Helper()
	Until(k.t, "keyrow ends", k.proc.exited)
	return k.proc.code()
}

// Pause halts the process (SIGSTOP): connections stay open and nothing answers.
func (k *Keyrow) Pause() {
	k.t.Helper()
	if err := k.proc.pause(); err != nil {
		k.t.Fatal(err)
	}
}

// Resume lets a paused process go on.
func (k *Keyrow) Resume() { k.proc.resume() }

// PID is the process id.
func (k *Keyrow) PID() int { return k.proc.pid }

// Log is what the process has printed so far, over all its starts.
func (k *Keyrow) Log() string { return k.log.String() }

// Settled waits until nothing of this process's journal is left to flush, see [Settled].
func (k *Keyrow) Settled(parked ...string) {
	k.t.Helper()
	Settled(k.t, k.cache(), setting(k.config(), "journal.prefix", "keyrow"), parked...)
}

// Equal holds every cached image against its row, see [Equal].
func (k *Keyrow) Equal(rows ...Rows) {
	k.t.Helper()
	Equal(k.t, k.cache(), k.MySQL.DB(k.DB), rows...)
}

// database is the one of Redis in which keys are mapped.
func (k *Keyrow) config() map[string]any { return *k.conf.Load() }

func (k *Keyrow) database() int { return int(setting(k.config(), "redis.db", int64(0))) }

// cache returns a client of the database in Redis that the process works on, past the process.
func (k *Keyrow) cache() *redis.Client {
	if k.database() == 0 {
		return k.Redis.Client()
	}
	o := *k.Redis.Client().Options()
	o.DB = k.database()
	c := redis.NewClient(&o)
	k.t.Cleanup(func() { c.Close() })
	return c
}

package backend

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/tidwall/redcon"

	"keyrow/test/harness"
)

func TestCheckRedis(t *testing.T) {
	r := harness.StartRedis(t)
	rdb := openRedis(t, r.Addr)
	if r.Do("SCRIPT", "EXISTS", acquireScript.Hash()).([]any)[0] != int64(1) {
		t.Error("the scripts were not loaded")
	}
	if info := rdb.ClientList(t.Context()).Val(); strings.Contains(info, "lib-name=go-redis") {
		t.Errorf("the client introduces itself: %s", info)
	}
	commands, err := Commands(t.Context(), rdb)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, c := range commands {
		if c := c.([]any); c[0] == "get" {
			found = c[1] == int64(2)
		}
	}
	if !found || len(commands) < 200 {
		t.Errorf("%d commands, and get is not as it should be", len(commands))
	}
}

func TestRedisOverUnixSocket(t *testing.T) {
	r := harness.StartRedis(t, "--unixsocket", "sock")
	openRedis(t, "unix://"+filepath.Join(r.Dir, "sock"))
}

func TestCheckRedisRefuses(t *testing.T) {
	tests := []struct {
		name string
		info string // of a server that is not at hand here
		want string
	}{
		{"too old", "redis_version:6.0.16\r\nredis_mode:standalone\r\n", "is version 6.0.16: keyrow needs 6.2 or newer"},
		{"ancient", "redis_version:5.9.9\r\n", "is version 5.9.9: keyrow needs 6.2 or newer"},
		{"cluster", "redis_version:7.2.0\r\nredis_mode:cluster\r\n", "is a cluster node"},
		{"6.2", "redis_version:6.2.0\r\nredis_mode:standalone\r\n", ""},
		{"valkey", "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n", ""},
		{"10", "redis_version:10.0\r\n", ""},
		{"embedded", "", ""},
		{"strange", "redis_version:unstable\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rdb := redis.NewClient(&redis.Options{Addr: fakeRedis(t, tt.info), Protocol: 2, MaxRetries: -1, DisableIdentity: true})
			defer rdb.Close()
			err := CheckRedis(t.Context(), rdb, zerolog.Nop())
			if got := ""; tt.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err != nil {
				got = err.Error()
				if !strings.Contains(got, tt.want) {
					t.Errorf("%s, want %s", got, tt.want)
				}
			} else {
				t.Error("no error")
			}
		})
	}
}

// fakeRedis answers INFO with a text, for what the redis-server here cannot show; without one it has no such command.
func fakeRedis(t *testing.T, info string) string {
	t.Helper()
	s := redcon.NewServerNetwork("tcp", "127.0.0.1:0", func(c redcon.Conn, cmd redcon.Command) {
		switch strings.ToLower(string(cmd.Args[0])) {
		case "ping":
			c.WriteString("PONG")
		case "info":
			if info == "" {
				c.WriteError("ERR unknown command 'info'")
			} else {
				c.WriteBulkString(info)
			}
		case "script":
			c.WriteBulkString(strings.Repeat("0", 40))
		default:
			c.WriteError("ERR unknown command")
		}
	}, nil, nil)
	listening := make(chan error, 1)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.ListenServeAndSignal(listening)
	}()
	if err := <-listening; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	return s.Addr().String()
}

func TestCheckRedisNotLetIn(t *testing.T) {
	r := harness.StartRedis(t, "--requirepass", "right")
	for _, password := range []string{"", "hunter2"} {
		cfg := DefaultRedis()
		cfg.Addr, cfg.Password = r.Addr, password
		rdb, err := OpenRedis(cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = CheckRedis(t.Context(), rdb, zerolog.Nop())
		rdb.Close()
		if err == nil || !strings.Contains(err.Error(), r.Addr) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("password %q: %v", password, err)
		}
	}
}

func TestCheckRedisNotThere(t *testing.T) {
	r := harness.StartRedis(t)
	r.Stop()
	cfg := DefaultRedis()
	cfg.Addr = r.Addr
	rdb, err := OpenRedis(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	want := "redis at " + r.Addr + " does not answer: "
	if err := CheckRedis(t.Context(), rdb, zerolog.Nop()); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestCheckEviction(t *testing.T) {
	r := harness.StartRedis(t)
	rdb := openRedis(t, r.Addr)
	for policy, ok := range map[string]bool{
		"noeviction": true, "volatile-lru": true, "volatile-ttl": true,
		"allkeys-lru": false, "allkeys-lfu": false, "allkeys-random": false,
	} {
		r.Do("CONFIG", "SET", "maxmemory-policy", policy)
		err := CheckEviction(t.Context(), rdb)
		if ok != (err == nil) {
			t.Errorf("%s: %v", policy, err)
		}
		if err != nil && !strings.Contains(err.Error(), "set maxmemory-policy volatile-lru or noeviction") {
			t.Errorf("%s: %v", policy, err)
		}
	}
}

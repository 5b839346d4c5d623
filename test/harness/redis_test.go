package harness

import (
	"context"
	"net"
	"os"
	"testing"
	"time"
)

func TestRedis(t *testing.T) {
	r := StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	if got := r.Do("SET", "k", "v"); got != "OK" {
		t.Fatalf("SET: %v", got)
	}
	if got := r.Do("GET", "absent"); got != nil {
		t.Fatalf("GET of an absent key: %v", got)
	}

	r.Kill()
	if c, err := net.Dial("tcp", r.Addr); err == nil {
		c.Close()
		t.Fatal("a killed server takes connections")
	}
	r.Restart()
	if got := r.Do("GET", "k"); got != "v" {
		t.Fatalf("after kill -9 and a restart: %v", got)
	}
	r.Restart()
	if got := r.Do("GET", "k"); got != "v" {
		t.Fatalf("after a restart: %v", got)
	}

	r.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	one := r.Client().Conn()
	defer one.Close()
	if err := one.Ping(ctx).Err(); err == nil {
		t.Fatal("a paused server answers")
	}
	r.Resume()
	if got := r.Do("PING"); got != "PONG" {
		t.Fatalf("after Resume: %v", got)
	}
}

func TestRedisLeavesNothing(t *testing.T) {
	var r *Redis
	t.Run("start", func(t *testing.T) { r = StartRedis(t) })
	if !r.proc.exited() {
		t.Error("the server outlives its test")
	}
	if _, err := os.Stat(r.Dir); !os.IsNotExist(err) {
		t.Errorf("its folder is still there: %v", err)
	}
}

func TestRedisBadOption(t *testing.T) {
	r := &Redis{Addr: "127.0.0.1:1", Dir: t.TempDir(), t: t, args: []string{"--no-such-option", "1"}, log: new(logbook)}
	if err := r.start(); err == nil {
		r.Kill()
		t.Fatal("started with an unknown option")
	}
}

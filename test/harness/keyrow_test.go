package harness

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
	"time"
)

const users = `
	[[mapping]]
	name = "user"
	key = "user:{id}"
	table = "users"
`

func TestKeyrow(t *testing.T) {
	m := SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, "CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20))")
	k := StartKeyrow(t, Options{MySQL: m, DB: db, Config: users, Set: map[string]string{"redis.db": "2"}})

	if got := k.Must("PING"); got != "PONG" {
		t.Errorf("PING: %v", got)
	}
	if got, err := k.Do("GET", "absent"); got != nil || err != nil {
		t.Errorf("GET of an absent key: %v, %v", got, err)
	}
	if _, err := k.Do("NOSUCHCOMMAND"); err == nil {
		t.Error("an unknown command was not answered with an error")
	}
	c := k.Dial()
	fmt.Fprint(c, "PING\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "+PONG\r\n" {
		t.Errorf("raw PING: %q, %v", line, err)
	}
	k.Must("SET", "user:1", `{"id":1,"name":"Ann"}`)
	k.Settled()
	k.Equal(Rows{Pattern: "user:{id}", Table: "users"})
	if got := m.Text(db, "SELECT name FROM users WHERE id = 1"); got != "Ann" {
		t.Errorf("the row: %q", got)
	}

	k.Pause()
	fmt.Fprint(c, "PING\r\n")
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("a paused process sent %d bytes", n)
	}
	k.Resume()

	first := k.PID()
	k.Kill()
	if code := k.WaitExit(); code != 128+9 {
		t.Errorf("status %d after kill -9", code)
	}
	k.Start()
	if k.PID() == first || k.Must("PING") != "PONG" {
		t.Error("it was not started again")
	}
	if code := k.Term(); code != 0 {
		t.Errorf("status %d after SIGTERM", code)
	}
}

func TestKeyrowDoesNotStart(t *testing.T) {
	k := NewKeyrow(t, Options{Set: map[string]string{"proxy.no_such_setting": "1"}})
	code, printed := k.Run()
	if code != 2 || !strings.Contains(printed, "no_such_setting") {
		t.Errorf("status %d, printed %q", code, printed)
	}
	if err := k.start(); err == nil || !strings.Contains(err.Error(), "status 2") {
		t.Errorf("start: %v", err)
	}
}

func TestKeyrowHooks(t *testing.T) {
	m := SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, "CREATE TABLE users (id INT PRIMARY KEY, name VARCHAR(20))")
	const point = "flush.committed"
	h := NewHooks(t, point)
	k := StartKeyrow(t, Options{MySQL: m, DB: db, Config: users, Hooks: h})

	k.Must("SET", "user:1", `{"id":1,"name":"Ann"}`)
	if s := h.Wait(point); s.PID != k.PID() {
		t.Errorf("process %d is held instead of %d", s.PID, k.PID())
	}
	if got := m.Text(db, "SELECT name FROM users"); got != "Ann" {
		t.Errorf("the row after the commit: %q", got)
	}
	if left, err := pending(t.Context(), k.Redis.Client(), "keyrow"); len(left) != 1 || err != nil {
		t.Errorf("marks before they are settled: %q, %v", left, err)
	}
	k.Kill()

	k.Start()
	s := h.Wait(point) // the flush is repeated
	if s.PID != k.PID() {
		t.Errorf("process %d is held instead of %d", s.PID, k.PID())
	}
	s.Release()
	h.ReleaseAll()
	k.Settled()
	k.Equal(Rows{Pattern: "user:{id}", Table: "users"})
}

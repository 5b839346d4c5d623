package test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// logged are the lines of a log with a message.
func logged(t *testing.T, log, message string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(log) {
		entry := map[string]any{}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry["level"] == nil || entry["time"] == nil || entry["message"] == "" {
			t.Fatalf("%q is no line of a log: %v", line, err)
		}
		if strings.HasPrefix(entry["message"].(string), message) {
			lines = append(lines, entry)
		}
	}
	return lines
}

// The log tells that a server went away and that it came back, once each, and does not grow with what clients do meanwhile.
func TestOutagesInTheLog(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{MySQL: harness.StartMySQL(t), Set: map[string]string{"mysql.timeout": "200ms"}})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	s.want(ada, "GET", "user:42")
	wait := func(message string) {
		t.Helper()
		harness.Until(t, "the log says that "+message, func() bool { return len(logged(t, s.Log(), message)) == 1 })
	}

	s.MySQL.Kill()
	s.Must("SET", "user:42", `{"id":42,"name":"Eve"}`)
	for i := range 300 {
		if _, err := s.Do("GET", fmt.Sprint("user:", i)); err == nil && i != 42 {
			t.Fatal("a row was read without mysql")
		}
	}
	wait("mysql does not answer")
	harness.Until(t, "the log says that a flush failed", func() bool { return len(logged(t, s.Log(), "")) > len(logged(t, s.Log(), "mysql")) })
	before := len(logged(t, s.Log(), ""))
	if before > 30 {
		t.Errorf("there are %d lines:\n%s", before, s.Log())
	}
	s.MySQL.Restart()
	harness.Until(t, "mysql is asked again", func() bool {
		_, err := s.Do("GET", "user:7")
		return err == nil
	})
	wait("mysql answers again")

	s.Redis.Kill()
	wait("redis cannot be reached")
	for range 300 {
		if _, err := s.Do("GET", "plain"); err == nil {
			t.Fatal("redis is still there")
		}
	}
	s.Redis.Restart()
	harness.Until(t, "redis answers", func() bool {
		_, err := s.Do("GET", "plain")
		return err == nil
	})
	wait("redis is reached again")
	if n := len(logged(t, s.Log(), "redis cannot be reached")); n != 1 {
		t.Errorf("that redis cannot be reached is said %d times", n)
	}
	s.rest()
}

package harness

import (
	"os"
	"strings"
	"testing"
)

func TestMySQL(t *testing.T) {
	m := StartMySQL(t, "--lower-case-table-names=1")
	m.DSN("shop")
	m.Exec("shop", "CREATE TABLE users (id INT PRIMARY KEY, at TIMESTAMP NULL); INSERT users VALUES (?, ?), (2, NULL)",
		1, "2026-01-02 03:04:05")
	check := func() {
		t.Helper()
		if got := m.Text("shop", "SELECT at FROM users WHERE id = 1"); got != "2026-01-02 03:04:05" {
			t.Errorf("row 1: %s", got)
		}
		if got := m.Text("shop", "SELECT at FROM users WHERE id = 2"); got != "NULL" {
			t.Errorf("row 2: %s", got)
		}
		if got := m.Text("shop", "SELECT at FROM users WHERE id = 3"); got != "" {
			t.Errorf("row 3: %s", got)
		}
	}
	check()

	m.Kill()
	if err := m.pool("").Ping(); err == nil {
		t.Error("a killed server answers")
	}
	m.Restart()
	check()
	m.Restart()
	check()

	m.Pause()
	m.Resume()
	before := m.Status("Com_select")
	check()
	if n := m.Status("Com_select") - before; n != 3 {
		t.Errorf("three queries were counted as %d", n)
	}
	if got := m.Text("", "SELECT @@lower_case_table_names"); got != "1" {
		t.Errorf("the option was not set: %s", got)
	}
}

func TestMySQLLeavesNothing(t *testing.T) {
	var m *MySQL
	t.Run("start", func(t *testing.T) { m = StartMySQL(t) })
	if !m.proc.exited() {
		t.Error("the server outlives its test")
	}
	if _, err := os.Stat(m.Dir); !os.IsNotExist(err) {
		t.Errorf("its folder is still there: %v", err)
	}
}

func TestMySQLBadOption(t *testing.T) {
	s, err := startMySQL([]string{"--no-such-option"})
	defer s.close()
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Fatalf("started with an unknown option: %v", err)
	}
}

func TestSharedMySQL(t *testing.T) {
	var first string
	t.Run("first", func(t *testing.T) {
		m := SharedMySQL(t)
		first = m.NewDB(t)
		m.Exec(first, "CREATE TABLE a (id INT PRIMARY KEY)")
	})
	t.Run("second", func(t *testing.T) {
		m := SharedMySQL(t)
		second := m.NewDB(t)
		if second == first {
			t.Errorf("two databases called %s", first)
		}
		m.Exec(second, "CREATE TABLE a (id INT PRIMARY KEY)")
		if got := m.Text("", "SHOW DATABASES LIKE ?", first); got != "" {
			t.Errorf("%s outlives its test", first)
		}
	})
}

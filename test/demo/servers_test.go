package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sync/errgroup"
)

func mysqlForTest(t *testing.T, wait time.Duration) *mysqlServer {
	t.Helper()
	m, err := startMySQL(t.Context(), wait)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.close)
	return m
}

// Without turns, this loses about half of the rows.
func TestConcurrentTransactionsLoseNothing(t *testing.T) {
	m := mysqlForTest(t, time.Minute)
	const writers, each = 4, 50
	group, ctx := errgroup.WithContext(t.Context())
	for w := range writers {
		group.Go(func() error {
			for i := range each {
				if err := transfer(ctx, m.db, 1000+w*each+i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 2 {
		group.Go(func() error {
			for range each {
				if _, err := m.rows(ctx, "SELECT * FROM users"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := m.db.QueryRow("SELECT COUNT(*) FROM users WHERE id >= 1000").Scan(&n); err != nil || n != writers*each {
		t.Fatalf("%d rows, %v; want %d", n, err, writers*each)
	}
}

// transfer adds a user, by a transaction or, every second time, by a statement alone.
func transfer(ctx context.Context, db *sql.DB, id int) error {
	const insert = "INSERT INTO users (id, name) VALUES (?, 'x') ON DUPLICATE KEY UPDATE name = VALUES(name)"
	if id%2 == 0 {
		_, err := db.ExecContext(ctx, insert, id)
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, insert, id); err != nil {
		return err
	}
	return tx.Commit()
}

func TestTurnEnds(t *testing.T) {
	m := mysqlForTest(t, 200*time.Millisecond)
	for _, end := range []string{"COMMIT", "ROLLBACK", "close"} {
		t.Run(end, func(t *testing.T) {
			conn, err := m.db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, statement := range []string{"BEGIN", "UPDATE users SET balance = balance + 1 WHERE id = 1", "SELECT nonsense"} {
				if _, err := conn.ExecContext(t.Context(), statement); err != nil && statement != "SELECT nonsense" {
					t.Fatal(err)
				}
			}
			_, err = m.db.Exec("UPDATE users SET balance = 0 WHERE id = 1")
			if wantNumber(err, 1205) != nil {
				t.Fatalf("a statement beside an open transaction: %v; want 1205", err)
			}
			if end == "close" {
				conn.Raw(func(driver any) error { return driver.(interface{ Close() error }).Close() })
			} else if _, err := conn.ExecContext(t.Context(), end); err != nil {
				t.Fatal(err)
			}
			if _, err := m.db.Exec("UPDATE users SET balance = 0 WHERE id = 1"); err != nil {
				t.Fatalf("after %s: %v", end, err)
			}
		})
	}
}

// The owner of a named lock must be able to work while another waits for that lock.
func TestNamedLockNeedsNoTurn(t *testing.T) {
	m := mysqlForTest(t, time.Minute)
	owner, err := m.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	var got int
	if err := owner.QueryRowContext(t.Context(), "SELECT GET_LOCK('a', 0)").Scan(&got); err != nil || got != 1 {
		t.Fatal(got, err)
	}
	waited := make(chan error, 1)
	go func() {
		var got int
		err := m.db.QueryRow("SELECT GET_LOCK('a', 10)").Scan(&got)
		if err == nil && got != 1 {
			err = errors.New("not locked")
		}
		waited <- err
	}()
	for range 100 {
		if _, err := owner.ExecContext(t.Context(), "UPDATE users SET balance = 1 WHERE id = 1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := owner.ExecContext(t.Context(), "SELECT RELEASE_LOCK('a')"); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
}

func wantNumber(err error, number uint16) error {
	var e *mysql.MySQLError
	if !errors.As(err, &e) || e.Number != number {
		return fmt.Errorf("error %v, want number %d", err, number)
	}
	return nil
}

func TestErrorNumbers(t *testing.T) {
	m := mysqlForTest(t, time.Minute)
	if _, err := m.db.Exec(`CREATE TABLE odd (id INT PRIMARY KEY, n INT NOT NULL CHECK (n > 0), d DATETIME, e ENUM('a'), j JSON)`); err != nil {
		t.Fatal(err)
	}
	for statement, number := range map[string]uint16{
		"INSERT INTO users (id, name) VALUES (7, REPEAT('x', 41))":         1406,
		"INSERT INTO users (id, name) VALUES (7, NULL)":                    1048,
		"INSERT INTO users (id) VALUES (7)":                                1364,
		"INSERT INTO users (id, name) VALUES (1, 'x')":                     1062,
		"INSERT INTO users (id, name, balance) VALUES (7, 'x', 999999999)": 1264,
		"INSERT INTO products VALUES ('x', 'x', 1, -1)":                    1264,
		"INSERT INTO odd (id, n) VALUES (1, 0)":                            3819,
		"INSERT INTO odd (id, n, d) VALUES (1, 1, '2024-02-31 00:00:00')":  1292,
		"INSERT INTO odd (id, n, e) VALUES (1, 1, 'b')":                    1265,
		"INSERT INTO odd (id, n, j) VALUES (1, 1, '{')":                    3140,
		"INSERT INTO users (nope) VALUES (7)":                              1054,
		"INSERT INTO nope VALUES (7)":                                      1146,
		"SELECT FROM":                                                      1064,
		"SET SESSION nope = 1":                                             1193,
	} {
		if _, err := m.db.Exec(statement); wantNumber(err, number) != nil {
			t.Errorf("%s: %v", statement, wantNumber(err, number))
		}
	}
	if _, err := m.db.Exec("SET SESSION innodb_lock_wait_timeout = 5"); err != nil {
		t.Error(err)
	}
}

func TestRedisAnswers(t *testing.T) {
	r, err := startRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	c, err := dial(t.Context(), r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	for _, test := range []struct {
		line, want string // a want that ends in "…" is a beginning
	}{
		{"CONFIG GET maxmemory-*", "1) maxmemory-policy\n2) noeviction"},
		{"CONFIG GET nope", "(empty array)"},
		{"CLIENT SETINFO LIB-NAME x", "OK"},
		{"CLIENT ID", "(integer) 1"},
		{"ACL WHOAMI", "default"},
		{"INFO server", "# Server\nredis_version:7.0.0\n…"},
		{"INFO memory", "# Memory\nused_memory:0\nmaxmemory:0\nmaxmemory_policy:noeviction"},
		{"COMMAND GETKEYS MSET a 1 b 2", "1) a\n2) b"},
		{"COMMAND GETKEYS EVAL x 2 a b c", "1) a\n2) b"},
		{"COMMAND INFO getdel nope", "1) 1) getdel\n   2) (integer) 2\n   3) 1) write\n      2) fast\n   4) (integer) 1\n   5) (integer) 1\n   6) (integer) 1\n2) (nil)"},
		{"SELECT 1", "OK"},
		{"SET a 1", "OK"},
		{"RESET", "RESET"},
		{"GET a", "(nil)"},
		{"MULTI", "OK"},
		{"SET a 1", "QUEUED"},
		{"EXEC", "1) OK"},
		{"EVAL \"return redis.call('INFO', 'memory')\" 0", "# Memory…"},
		{"EVAL \"return redis.call('GET', KEYS[1])\" 1 a", "1"},
	} {
		args, err := split(test.line)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.do(t.Context(), args...)
		if err != nil {
			t.Fatal(test.line, err)
		}
		if err := (step{want: test.want}).holds(format(reply)); err != nil {
			t.Errorf("%s: %s\n%v", test.line, format(reply), err)
		}
	}
}

// Every command the server has stands in its table, once, and the table has no other.
func TestCommandTable(t *testing.T) {
	r, err := startRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	own := []string{"acl", "config", "reset"}
	seen := map[string]bool{}
	for _, c := range r.commands {
		if seen[c.name] {
			t.Errorf("%s stands there twice", c.name)
		}
		seen[c.name] = true
		if !r.mini.Server().IsRegisteredCommand(c.name) && !slices.Contains(own, c.name) {
			t.Errorf("%s is not there", c.name)
		}
	}
	for _, name := range strings.Fields("get set mget del getdel getex eval evalsha blpop blmove hello info config client zadd") {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

package harness

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// MySQL is a mariadbd: a test's own, or the one its test process shares.
type MySQL struct {
	*mysqld
	t testing.TB
}

type mysqld struct {
	Addr   string // host:port, the same over restarts
	Socket string // path of its unix socket
	Dir    string // its folder, removed at the end

	shared bool
	args   []string
	log    *logbook
	proc   *process

	mu  sync.Mutex
	dbs map[string]*sql.DB // guarded by mu; by name of the database, "" for none
}

// StartMySQL starts a mariadbd with a user root without a password, and stops it at the end of the test. Args are
// further options: "--lower-case-table-names=1". It takes about half a second: [SharedMySQL] does where the test
// neither stops the server nor sets its options.
func StartMySQL(t testing.TB, args ...string) *MySQL {
	t.Helper()
	s, err := startMySQL(args)
	if s != nil {
		t.Cleanup(func() {
			s.close()
			s.log.printIfFailed(t, "mariadbd at "+s.Addr)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return &MySQL{s, t}
}

var sharedMySQL = sync.OnceValues(func() (*mysqld, error) {
	s, err := startMySQL(nil)
	if err != nil {
		if s != nil {
			s.close()
		}
		return nil, err
	}
	s.shared = true
	return s, nil
})

// SharedMySQL returns the one mariadbd of the test process, which ends with it. Tests take a database of their own
// in it with [MySQL.NewDB] and leave its global settings alone.
func SharedMySQL(t testing.TB) *MySQL {
	t.Helper()
	s, err := sharedMySQL()
	if err != nil {
		t.Fatal(err)
	}
	return &MySQL{s, t}
}

func startMySQL(args []string) (*mysqld, error) {
	dir, err := newDir("m")
	if err != nil {
		return nil, err
	}
	s := &mysqld{Dir: dir, Socket: filepath.Join(dir, "s"), args: args, log: new(logbook), dbs: map[string]*sql.DB{}}
	if err := clone(filepath.Join(dir, "data")); err != nil {
		return s, err
	}
	for range 5 {
		port, err := freePort()
		if err != nil {
			return s, err
		}
		s.Addr = "127.0.0.1:" + strconv.Itoa(port)
		err = s.start()
		if err == nil {
			return s, s.letIn()
		}
		if !strings.Contains(s.log.String(), "in use") {
			return s, err
		}
	}
	return s, fmt.Errorf("start mariadbd: five ports in turn were taken")
}

func (s *mysqld) start() error {
	_, port, _ := net.SplitHostPort(s.Addr)
	argv := []string{program("mariadbd"), "--no-defaults",
		"--datadir=" + filepath.Join(s.Dir, "data"), "--socket=" + s.Socket, "--tmpdir=" + s.Dir,
		"--pid-file=" + filepath.Join(s.Dir, "pid"), "--port=" + port, "--bind-address=127.0.0.1",
		"--skip-name-resolve", "--max-connections=1000",
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci",
		"--performance-schema=OFF", "--innodb-buffer-pool-size=32M", "--key-buffer-size=1M",
		"--aria-pagecache-buffer-size=8M",
		"--innodb-buffer-pool-dump-at-shutdown=OFF", "--innodb-buffer-pool-load-at-startup=OFF",
		// A commit reaches the kernel but not the disk: it outlives kill -9 of the server, which is all tests do.
		"--innodb-flush-log-at-trx-commit=2", "--sync-frm=OFF",
	}
	argv = append(argv, installOptions...)
	if os.Getuid() == 0 {
		argv = append(argv, "--user=root")
	}
	argv = append(argv, s.args...)
	if err := os.Remove(s.Socket); err != nil && !os.IsNotExist(err) { // left by kill -9
		return err
	}
	proc, err := startProcess(s.log, s.Dir, nil, argv...)
	if err != nil {
		return fmt.Errorf("start mariadbd (test/run installs it): %w", err)
	}
	s.proc = proc
	// It listens on the socket, which nobody else can have taken, after it listens on the port.
	return poll(Patience, func() error {
		c, err := net.Dial("unix", s.Socket)
		if err == nil {
			return c.Close()
		}
		if proc.exited() {
			return errGiveUp{fmt.Errorf("mariadbd ended with status %d:\n%s", proc.code(), s.log.tail(20))}
		}
		return fmt.Errorf("mariadbd is not ready: %w\n%s", err, s.log.tail(20))
	})
}

// letIn makes the root that may come in over tcp; the one of the installation may use the socket only.
func (s *mysqld) letIn() error {
	db, err := sql.Open("mysql", "root@unix("+s.Socket+")/")
	if err != nil {
		return err
	}
	defer db.Close()
	for _, query := range []string{
		"CREATE USER IF NOT EXISTS root@'127.0.0.1'",
		"GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION",
		"CREATE USER IF NOT EXISTS " + ownUser + "@'127.0.0.1' IDENTIFIED BY '" + mysqlPassword + "'",
		"GRANT ALL ON *.* TO " + ownUser + "@'127.0.0.1' WITH GRANT OPTION",
	} {
		if _, err := db.Exec(query); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return nil
}

func (s *mysqld) close() {
	if s.proc != nil {
		s.proc.kill()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, db := range s.dbs {
		db.Close()
	}
	os.RemoveAll(s.Dir)
}

// pool returns the connections to a database, which are opened with the session settings keyrow's have: what a test
// reads is UTC and exact text. Arguments are put into the query, so that replies come as text.
func (s *mysqld) pool(name string) *sql.DB {
	s.mu.Lock()
	defer s.mu.Unlock()
	if db := s.dbs[name]; db != nil {
		return db
	}
	c := mysql.NewConfig()
	c.User, c.Net, c.Addr, c.DBName = "root", "tcp", s.Addr, name
	c.InterpolateParams, c.MultiStatements = true, true
	c.Logger = silent{} // connections that break are what some tests are about
	c.Params = map[string]string{"time_zone": "'+00:00'", "sql_mode": "'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'"}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		panic(err) // only a wrong option above makes one
	}
	db := sql.OpenDB(connector)
	s.dbs[name] = db
	return db
}

type silent struct{}

func (silent) Print(...any) {}

// DSN returns the data source name of a database for keyrow or the driver: root, without a password, over tcp. The
// database is made if there is none of that name; "" is for none.
func (m *MySQL) DSN(db string) string {
	m.t.Helper()
	if db != "" {
		m.Exec("", "CREATE DATABASE IF NOT EXISTS "+quote(db))
	}
	return "root@tcp(" + m.Addr + ")/" + db
}

// DB returns a pool of connections to a database, as [MySQL.DSN] has it. Time zone is UTC, replies are text, and one
// query may hold several statements.
func (m *MySQL) DB(db string) *sql.DB {
	m.t.Helper()
	m.DSN(db)
	return m.pool(db)
}

var databases atomic.Int64

// NewDB makes a database of a name that no other has, and drops it at the end of t.
func (m *MySQL) NewDB(t testing.TB) string {
	t.Helper()
	name := "t" + strconv.FormatInt(databases.Add(1), 10)
	m = &MySQL{m.mysqld, t}
	m.DSN(name)
	t.Cleanup(func() {
		m.mu.Lock()
		db := m.dbs[name]
		delete(m.dbs, name)
		m.mu.Unlock()
		if db != nil {
			db.Close()
		}
		if m.proc.exited() {
			return
		}
		// Not m.Exec: what a test still has locked here must not hold up or fail the others.
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		_, err := m.pool("").ExecContext(ctx, "SET STATEMENT lock_wait_timeout=5 FOR DROP DATABASE "+quote(name))
		if err != nil {
			t.Logf("drop database %s: %v", name, err)
		}
	})
	return name
}

// Exec runs statements in a database ("" for none), separated by semicolons, and fails the test if one fails.
func (m *MySQL) Exec(db, query string, args ...any) {
	m.t.Helper()
	if _, err := m.pool(db).ExecContext(context.Background(), query, args...); err != nil {
		m.t.Fatalf("mysql %s: %v", query, err)
	}
}

// Text returns the first column of the first row of a query as MySQL's text, "NULL" for NULL and "" for no row.
func (m *MySQL) Text(db, query string, args ...any) string {
	m.t.Helper()
	rows, err := m.pool(db).QueryContext(context.Background(), query, args...)
	if err != nil {
		m.t.Fatalf("mysql %s: %v", query, err)
	}
	defer rows.Close()
	table, err := readText(rows)
	if err != nil {
		m.t.Fatalf("mysql %s: %v", query, err)
	}
	switch {
	case len(table) == 0:
		return ""
	case table[0][0] == nil:
		return "NULL"
	default:
		return string(table[0][0])
	}
}

// readText reads all rows as MySQL's text, nil for NULL.
func readText(rows *sql.Rows) ([][][]byte, error) {
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var table [][][]byte
	for rows.Next() {
		row := make([][]byte, len(columns))
		into := make([]any, len(columns))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		table = append(table, row)
	}
	return table, rows.Err()
}

// Status returns a counter of SHOW GLOBAL STATUS: "Com_select".
func (m *MySQL) Status(name string) int64 {
	m.t.Helper()
	var variable string
	var value int64
	row := m.pool("").QueryRow("SHOW GLOBAL STATUS WHERE Variable_name = ?", name)
	if err := row.Scan(&variable, &value); err != nil {
		m.t.Fatalf("mysql status %s: %v", name, err)
	}
	return value
}

// Kill ends the server as kill -9 does.
func (m *MySQL) Kill() {
	m.t.Helper()
	m.own("Kill")
	m.proc.kill()
}

// Stop ends the server in an orderly way.
func (m *MySQL) Stop() {
	m.t.Helper()
	m.own("Stop")
	if !m.proc.terminate(Patience) {
		m.t.Fatalf("mariadbd did not stop within %v", Patience)
	}
}

// Restart starts the server again at the same address with its data, after stopping it if it runs.
func (m *MySQL) Restart() {
	m.t.Helper()
	m.Stop()
	if err := m.start(); err != nil {
		m.t.Fatalf("restart: %v", err)
	}
}

// Pause halts the server (SIGSTOP): connections stay open and nothing answers.
func (m *MySQL) Pause() {
	m.t.Helper()
	m.own("Pause")
	if err := m.proc.pause(); err != nil {
		m.t.Fatal(err)
	}
}

// Resume lets a paused server go on.
func (m *MySQL) Resume() { m.proc.resume() }

// own refuses to disturb other tests.
func (m *MySQL) own(what string) {
	m.t.Helper()
	if m.shared {
		m.t.Fatalf("%s of the shared mysql: start one with StartMySQL", what)
	}
}

// quote quotes an identifier for SQL.
func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

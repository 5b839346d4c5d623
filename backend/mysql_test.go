package backend

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"keyrow/test/harness"
)

// Whatever the DSN asks for, a session is set up as the rest of keyrow relies on.
func TestSession(t *testing.T) {
	my := harness.SharedMySQL(t)
	dsn := my.DSN(my.NewDB(t))
	for _, params := range []string{
		"",
		"?sql_mode=''&charset=latin1&collation=latin1_bin&parseTime=true&interpolateParams=false" +
			"&multiStatements=true&allowAllFiles=true&clientFoundRows=false&columnsWithAlias=true",
	} {
		db := openMySQL(t, MySQLConfig{DSN: dsn + params, MaxOpen: 1, Timeout: harness.Patience})
		var mode, zone, charset, results, at string
		err := db.QueryRow("SELECT @@sql_mode, @@time_zone, @@character_set_connection, @@character_set_results, "+
			"TIMESTAMP'2020-01-02 03:04:05' at").Scan(&mode, &zone, &charset, &results, &at)
		if err != nil {
			t.Fatal(err)
		}
		modes := strings.Split(mode, ",")
		slices.Sort(modes)
		if !slices.Equal(modes, []string{"NO_AUTO_VALUE_ON_ZERO", "STRICT_ALL_TABLES"}) || zone != "+00:00" || charset != "utf8mb4" ||
			results != "utf8mb4" || at != "2020-01-02 03:04:05" {
			t.Errorf("%q: %s %s %s %s %s", params, mode, zone, charset, results, at)
		}
		if _, err := db.Exec("SELECT 1; SELECT 2"); err == nil {
			t.Errorf("%q: two statements in one", params)
		}
	}

	db := openMySQL(t, MySQLConfig{DSN: dsn + "?time_zone=%27%2B02%3A00%27", MaxOpen: 1, Timeout: harness.Patience})
	var zone string
	if err := db.QueryRow("SELECT @@time_zone").Scan(&zone); err != nil || zone != "+02:00" {
		t.Errorf("time zone of the dsn: %s %v", zone, err)
	}
}

// The connection of an owner goes with it, and so does its lock; and the server ends a session that was silent.
func TestOwnersSession(t *testing.T) {
	my := harness.SharedMySQL(t)
	cfg := MySQLConfig{DSN: my.DSN(my.NewDB(t)), MaxOpen: 1, Timeout: harness.Patience}
	db, err := OpenOwners(cfg, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	owner, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got, wait, lockWait int
	if err := owner.QueryRowContext(t.Context(), "SELECT GET_LOCK('owners',0), @@wait_timeout, @@innodb_lock_wait_timeout").
		Scan(&got, &wait, &lockWait); err != nil {
		t.Fatal(err)
	}
	if got != 1 || wait != 1 || lockWait != int(harness.Patience/time.Second) {
		t.Errorf("lock %d, wait_timeout %d, innodb_lock_wait_timeout %d", got, wait, lockWait)
	}
	second, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := second.QueryRowContext(t.Context(), "SELECT GET_LOCK('owners',0)").Scan(&got); err != nil || got != 0 {
		t.Errorf("a second owner got the lock: %d %v", got, err)
	}
	owner.Close()
	// Waits for the server to see the first connection go.
	if err := second.QueryRowContext(t.Context(), "SELECT GET_LOCK('owners',20)").Scan(&got); err != nil || got != 1 {
		t.Errorf("the lock was not given back: %d %v", got, err)
	}
	harness.Until(t, "the silent session is ended", func() bool {
		return my.Text("", "SELECT IS_FREE_LOCK('owners')") == "1"
	})
}

// A statement beyond max_allowed_packet is an error of the statement, and the connection is none the worse: it must
// not look like a failure that passes.
func TestPacketTooLarge(t *testing.T) {
	my := harness.StartMySQL(t, "--max-allowed-packet=1M")
	db := openMySQL(t, MySQLConfig{DSN: my.DSN("d"), MaxOpen: 1, Timeout: harness.Patience})
	_, err := db.Exec("DO LENGTH('" + string(make([]byte, 2<<20)) + "')")
	if !errors.Is(err, mysql.ErrPktTooLarge) || classify(err) != row {
		t.Errorf("%v", err)
	}
	my.Exec("d", "CREATE TABLE t (x LONGBLOB)")
	_, err = db.Exec("INSERT INTO t VALUES (?)", make([]byte, 2<<20))
	if err == nil || classify(err) != row {
		t.Errorf("as an argument: %v", err)
	}
	if err := db.Ping(); err != nil {
		t.Error(err)
	}
}

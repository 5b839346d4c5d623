package backend

import (
	"database/sql"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/rs/zerolog"
)

// sqlMode of every connection: a value that does not fit is an error and never changed to fit, and an explicit 0 in
// an AUTO_INCREMENT column stays 0. Backslash escapes and double quotes keep their default meaning.
const sqlMode = "'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'"

// utc is the time zone of every connection whose DSN sets no other, so that a TIMESTAMP reads the same whatever the
// server's own time zone is.
const utc = "'+00:00'"

// connIdle is how long an unused connection of the read path is kept; connLife how long any is, so that a server that
// was added behind a name gets its share.
const (
	connIdle = 5 * time.Minute
	connLife = time.Hour
)

// MySQLAddr is where MySQL is and which database, for people to read; without who logs in and how.
func MySQLAddr(cfg MySQLConfig) string {
	conf, err := mysql.ParseDSN(cfg.DSN)
	if err != nil {
		return ""
	}
	return conf.Addr + "/" + conf.DBName
}

// OpenMySQL returns the pool of the read path. It does not connect yet.
func OpenMySQL(cfg MySQLConfig) (*sql.DB, error) {
	conf, err := session(cfg)
	if err != nil {
		return nil, err
	}
	db, err := open(conf)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(cfg.MaxOpen)
	db.SetMaxIdleConns(cfg.MaxOpen)
	db.SetConnMaxIdleTime(connIdle)
	db.SetConnMaxLifetime(connLife)
	return db, nil
}

// OpenOwners returns the pool of the owners of partitions: each takes one connection and holds its lock and runs its
// transactions there. A connection that is given back is closed, so that its lock never outlives its owner. The server
// ends a session that was silent for idle (whole seconds), and with it the lock.
func OpenOwners(cfg MySQLConfig, idle time.Duration) (*sql.DB, error) {
	conf, err := session(cfg)
	if err != nil {
		return nil, err
	}
	// A statement may wait for a row lock before it does anything, and the answer must be MySQL's error 1205, not a
	// broken connection; so the wait ends well before reading does.
	lockWait := max(1, int(cfg.Timeout/time.Second))
	conf.Params["wait_timeout"] = strconv.Itoa(int(idle / time.Second))
	conf.Params["innodb_lock_wait_timeout"] = strconv.Itoa(lockWait)
	conf.ReadTimeout = time.Duration(lockWait)*time.Second + cfg.Timeout
	db, err := open(conf)
	if err != nil {
		return nil, err
	}
	db.SetMaxIdleConns(-1)
	return db, nil
}

// OpenThrough returns the pool of those who write rows while a client waits. The server ends a session that was silent
// for idle, so whoever is paused within a transaction cannot commit it later than that.
func OpenThrough(cfg MySQLConfig, idle time.Duration) (*sql.DB, error) {
	db, err := OpenOwners(cfg, idle)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(cfg.MaxOpen)
	db.SetMaxIdleConns(cfg.MaxOpen)
	db.SetConnMaxIdleTime(idle / 2)
	db.SetConnMaxLifetime(connLife)
	return db, nil
}

// ThroughLease is how long a key is kept from being filled while its row is written: longer than the transaction can
// stay open, and then be committed.
func ThroughLease(cfg MySQLConfig, idle time.Duration) time.Duration {
	return idle + cfg.Timeout + leaseMargin
}

// session is how every connection of keyrow is set up, whatever else the DSN asks for.
func session(cfg MySQLConfig) (*mysql.Config, error) {
	conf, err := mysql.ParseDSN(cfg.DSN)
	if err != nil {
		return nil, fmt.Errorf("mysql.dsn: %s", dsnProblem(err))
	}
	// The text protocol: results are the digits MySQL shows, and a statement is one round trip.
	conf.InterpolateParams = true
	// An UPDATE that changes nothing has found its row nonetheless.
	conf.ClientFoundRows = true
	conf.ParseTime = false
	conf.MultiStatements = false
	conf.AllowAllFiles = false
	conf.ColumnsWithAlias = false
	// 0: the server's own max_allowed_packet. A statement beyond it is refused before it is sent; the server would
	// close the connection over it, which looks like a failure that passes.
	conf.MaxAllowedPacket = 0
	conf.DialFunc = dial(new(net.Dialer).DialContext).raw
	conf.Timeout = cfg.Timeout
	conf.ReadTimeout = cfg.Timeout
	conf.WriteTimeout = cfg.Timeout
	conf.Logger = driverLog{}
	if err := conf.Apply(mysql.Charset("utf8mb4", "")); err != nil {
		return nil, fmt.Errorf("mysql: %w", err)
	}
	if conf.Params == nil {
		conf.Params = map[string]string{}
	}
	for name := range conf.Params {
		if strings.EqualFold(name, "sql_mode") {
			delete(conf.Params, name)
		}
	}
	conf.Params["sql_mode"] = sqlMode
	if _, ok := conf.Params["time_zone"]; !ok {
		conf.Params["time_zone"] = utc
	}
	return conf, nil
}

func open(conf *mysql.Config) (*sql.DB, error) {
	connector, err := mysql.NewConnector(conf)
	if err != nil {
		return nil, fmt.Errorf("mysql.dsn: %s", dsnProblem(err))
	}
	return sql.OpenDB(connector), nil
}

// drivers is where the drivers of MySQL and Redis log to; nil: nowhere.
var drivers atomic.Pointer[zerolog.Logger]

// LogDrivers sends what the drivers of MySQL and Redis would print to stderr to log, at level debug: whoever runs into
// an error gets it returned as well.
func LogDrivers(log zerolog.Logger) { drivers.Store(&log) }

// driverLog is the logger of the MySQL driver.
type driverLog struct{}

func (driverLog) Print(v ...any) {
	if log := drivers.Load(); log != nil {
		log.Debug().Str("driver", "mysql").Msg(fmt.Sprint(v...))
	}
}

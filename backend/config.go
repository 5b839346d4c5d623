package backend

import (
	"errors"
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Defaults of the sections [redis], [mysql] and [journal].
const (
	DefaultRedisAddr    = "127.0.0.1:6379"
	DefaultRedisTimeout = 30 * time.Second
	// DefaultTCPKeepAlive is Redis's own.
	DefaultTCPKeepAlive = 300 * time.Second

	DefaultMySQLMaxOpen = 32
	// DefaultMySQLMaxWaiting is what a MySQL that reads 20,000 rows a second is through with within DefaultMySQLTimeout.
	DefaultMySQLMaxWaiting = 100_000
	DefaultMySQLTimeout    = 5 * time.Second

	DefaultJournalPrefix         = "keyrow"
	DefaultJournalPartitions     = 4
	DefaultJournalInterval       = 100 * time.Millisecond
	DefaultJournalBatch          = 256
	DefaultJournalMaxPending     = 1_000_000
	DefaultJournalSessionTimeout = 10 * time.Second
	DefaultJournalDrain          = 30 * time.Second
)

// Limits of the same sections.
const (
	maxLanes      = 256
	maxOpen       = 10_000
	maxWaiting    = 100_000_000
	maxPartitions = 1024
	maxBatch      = 10_000
	maxPending    = 1_000_000_000
	// maxPrefix keeps "<prefix>:<partition>" within the 64 characters MySQL allows a GET_LOCK name.
	maxPrefix = 40

	minTimeout = 10 * time.Millisecond
	maxTimeout = time.Hour
	// maxKeepAlive is Linux's own, 32767 seconds.
	maxKeepAlive = 32767 * time.Second
	minInterval  = time.Millisecond
	// A session_timeout below 1s cannot be told to MySQL, whose wait_timeout counts whole seconds.
	minSessionTimeout = time.Second
)

// RedisConfig is the section [redis].
type RedisConfig struct {
	// Addr is "host:port" or "unix:///path".
	Addr string `toml:"addr"`
	// Username and Password are those of keyrow itself; a client never gets them lent. Without a Password nobody
	// logs in; a Username alone is refused.
	Username string `toml:"username"`
	Password string `toml:"password"`
	DB       int    `toml:"db"`
	// Lanes is the number of shared connections for each identity, database and protocol; 0: one for each loop.
	Lanes int `toml:"lanes"`
	// Timeout of one command, from its write to its reply.
	Timeout time.Duration `toml:"timeout"`
	// TCPKeepAlive is after how long a silent connection is probed; it is given up after twice that. 0: never.
	TCPKeepAlive time.Duration  `toml:"tcp_keepalive"`
	TLS          RedisTLSConfig `toml:"tls"`
}

// MySQLConfig is the section [mysql].
type MySQLConfig struct {
	// DSN as github.com/go-sql-driver/mysql reads it. It holds the password, so no error and no log shows it.
	DSN string `toml:"dsn"`
	// MaxOpen bounds the connections of the read path; the owners of partitions have one each besides.
	MaxOpen int `toml:"max_open"`
	// MaxWaiting bounds the reads that wait for MySQL.
	MaxWaiting int `toml:"max_waiting"`
	// Timeout of connecting and of one SELECT of the read path, the wait for a free connection included.
	Timeout time.Duration `toml:"timeout"`
}

// JournalConfig is the section [journal].
type JournalConfig struct {
	// Prefix of keyrow's own keys in Redis, and of its lock names in MySQL.
	Prefix     string `toml:"prefix"`
	Partitions int    `toml:"partitions"`
	// Interval between two sweeps of a partition.
	Interval time.Duration `toml:"interval"`
	// Batch is the number of marks one transaction flushes; up to maxGrowth times as many while there is a backlog.
	Batch int `toml:"batch"`
	// MaxPending is the number of marks from which on new writes are refused.
	MaxPending int `toml:"max_pending"`
	// SessionTimeout is the MySQL wait_timeout of a partition's owner: one that is silent for longer has lost the
	// partition. Whole seconds.
	SessionTimeout time.Duration `toml:"session_timeout"`
	// Drain bounds the last flush at SIGTERM.
	Drain time.Duration `toml:"drain"`
}

// DefaultRedis is [redis] with nothing set.
func DefaultRedis() RedisConfig {
	return RedisConfig{Addr: DefaultRedisAddr, Timeout: DefaultRedisTimeout,
		TCPKeepAlive: DefaultTCPKeepAlive}
}

// DefaultMySQL is [mysql] with nothing set. It is not valid: the dsn has no default.
func DefaultMySQL() MySQLConfig {
	return MySQLConfig{MaxOpen: DefaultMySQLMaxOpen, MaxWaiting: DefaultMySQLMaxWaiting, Timeout: DefaultMySQLTimeout}
}

// DefaultJournal is [journal] with nothing set.
func DefaultJournal() JournalConfig {
	return JournalConfig{
		Prefix:         DefaultJournalPrefix,
		Partitions:     DefaultJournalPartitions,
		Interval:       DefaultJournalInterval,
		Batch:          DefaultJournalBatch,
		MaxPending:     DefaultJournalMaxPending,
		SessionTimeout: DefaultJournalSessionTimeout,
		Drain:          DefaultJournalDrain,
	}
}

// Validate reports every problem of the section at once, one a line, each starting with its key.
func (c RedisConfig) Validate() error {
	var ps problems
	if _, _, err := redisAddr(c.Addr); err != nil {
		ps.add("redis.addr", "%v", err)
	}
	if c.Username != "" && c.Password == "" {
		ps.add("redis.username", "needs redis.password to log in with (any text, for a user with nopass)")
	}
	if c.DB < 0 {
		ps.add("redis.db", "%d is negative", c.DB)
	}
	ps.between("redis.lanes", c.Lanes, 0, maxLanes)
	ps.within("redis.timeout", c.Timeout, minTimeout, maxTimeout)
	if c.TCPKeepAlive != 0 {
		ps.within("redis.tcp_keepalive", c.TCPKeepAlive, time.Second, maxKeepAlive)
	}
	c.TLS.validate(&ps, c.Addr)
	return ps.err()
}

// Validate reports every problem of the section at once, one a line, each starting with its key. It never shows the
// dsn, nor a part of it.
func (c MySQLConfig) Validate() error {
	var ps problems
	switch conf, err := mysql.ParseDSN(c.DSN); {
	case c.DSN == "":
		ps.add("mysql.dsn", `missing: set it, like "user:password@tcp(127.0.0.1:3306)/shop"`)
	case err != nil:
		ps.add("mysql.dsn", `%s; it should read like "user:password@tcp(127.0.0.1:3306)/shop"`, dsnProblem(err))
	case conf.DBName == "":
		ps.add("mysql.dsn", `names no database: put it after the slash, like "user:password@tcp(127.0.0.1:3306)/shop"`)
	}
	ps.between("mysql.max_open", c.MaxOpen, 1, maxOpen)
	ps.between("mysql.max_waiting", c.MaxWaiting, 1, maxWaiting)
	ps.within("mysql.timeout", c.Timeout, minTimeout, maxTimeout)
	return ps.err()
}

// Validate reports every problem of the section at once, one a line, each starting with its key.
func (c JournalConfig) Validate() error {
	var ps problems
	switch i := strings.IndexFunc(c.Prefix, notPrefix); {
	case c.Prefix == "":
		ps.add("journal.prefix", "is empty: name the prefix of keyrow's own keys, like %q", DefaultJournalPrefix)
	case i >= 0:
		ps.add("journal.prefix", "%q is not allowed (offset %d), only letters, digits, '_', '.' and '-'",
			[]rune(c.Prefix[i:])[0], i)
	case len(c.Prefix) > maxPrefix:
		ps.add("journal.prefix", "has %d characters, at most %d", len(c.Prefix), maxPrefix)
	}
	ps.between("journal.partitions", c.Partitions, 1, maxPartitions)
	ps.within("journal.interval", c.Interval, minInterval, maxTimeout)
	ps.between("journal.batch", c.Batch, 1, maxBatch)
	ps.between("journal.max_pending", c.MaxPending, 1, maxPending)
	ps.within("journal.session_timeout", c.SessionTimeout, minSessionTimeout, maxTimeout)
	if c.SessionTimeout%time.Second != 0 {
		ps.add("journal.session_timeout", "%v is not in whole seconds, as MySQL counts its wait_timeout", c.SessionTimeout)
	}
	ps.within("journal.drain", c.Drain, 0, maxTimeout)
	return ps.err()
}

func notPrefix(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_', r == '.', r == '-':
		return false
	}
	return true
}

// redisAddr splits the address of Redis into what net.Dial takes.
func redisAddr(addr string) (network, address string, err error) {
	const want = `"host:port" or "unix:///path"`
	if p, ok := strings.CutPrefix(addr, "unix://"); ok {
		if !path.IsAbs(p) || strings.HasSuffix(p, "/") {
			return "", "", fmt.Errorf("%q names no socket: want %s", addr, want)
		}
		return "unix", p, nil
	}
	if strings.Contains(addr, "@") {
		// Never quoted: what stands before the @ may be a password.
		return "", "", fmt.Errorf("is a URL: want %s, and the password in redis.password", want)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return "", "", fmt.Errorf("%q is not an address: want %s", addr, want)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("%q has no port from 1 to 65535: want %s", addr, want)
	}
	return "tcp", addr, nil
}

// dsnProblem says what is wrong with a dsn without repeating any of it: most errors of the parser quote the text at
// fault, which may be the password.
func dsnProblem(err error) string {
	switch text := err.Error(); text {
	case "invalid DSN: did you forget to escape a param value?",
		"invalid DSN: network address not terminated (missing closing brace)",
		"invalid DSN: missing the slash separating the database name",
		"invalid DSN: interpolateParams can not be used with unsafe collations":
		return text
	}
	return "invalid DSN"
}

// problems gathers what is wrong with a section.
type problems []error

func (ps *problems) add(key, format string, args ...any) {
	*ps = append(*ps, fmt.Errorf(key+": "+format, args...))
}

func (ps *problems) between(key string, n, min, max int) {
	if n < min || n > max {
		ps.add(key, "%d is not within %d and %d", n, min, max)
	}
}

func (ps *problems) within(key string, d, min, max time.Duration) {
	if d < min || d > max {
		ps.add(key, "%v is not within %v and %v", d, min, max)
	}
}

func (ps problems) err() error { return errors.Join(ps...) }

package backend

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/rs/zerolog"
)

// Oldest Redis that has what the journal's scripts and commands need.
const minRedisMajor, minRedisMinor = 6, 2

// controlConns is the number of connections keyrow's own work may have at a time: rounds of fills, flushes, checks.
// Each carries whole pipelines, so few are needed.
const controlConns = 16

// redisDial bounds connecting, which is never as slow as a command may be.
const redisDial = 5 * time.Second

// OpenRedis returns the client of keyrow's own work: leases, fills, the journal. Commands of clients never go through
// it. It does not connect yet; see CheckRedis.
func OpenRedis(cfg RedisConfig) (*redis.Client, error) {
	o, err := redisOptions(cfg)
	if err != nil {
		return nil, err
	}
	return redis.NewClient(o), nil
}

func redisOptions(cfg RedisConfig) (*redis.Options, error) {
	network, addr, err := redisAddr(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("redis.addr: %w", err)
	}
	log := zerolog.Nop()
	if l := drivers.Load(); l != nil {
		log = *l
	}
	dial, err := dialer(cfg, log)
	if err != nil {
		return nil, err
	}
	redis.SetLogger(redisLog{})
	return &redis.Options{
		Network:  network,
		Addr:     addr,
		Dialer:   dial.raw,
		Username: cfg.Username,
		Password: cfg.Password,
		DB:       cfg.DB,
		Protocol: 2,
		// A command that was written may have been run; sending it again is for those who know that it may be.
		MaxRetries:            -1,
		DialTimeout:           min(redisDial, cfg.Timeout),
		DialerRetries:         1,
		ReadTimeout:           cfg.Timeout,
		WriteTimeout:          cfg.Timeout,
		PoolTimeout:           cfg.Timeout,
		ContextTimeoutEnabled: true,
		PoolSize:              controlConns,
		MaxActiveConns:        controlConns,
		PipelinePoolSize:      -1,
		ConnMaxIdleTime:       5 * time.Minute,
		DisableIdentity:       true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}, nil
}

// CheckRedis says whether Redis is there and fit for keyrow, and makes keyrow's scripts known to it. A server that does
// not tell its version is taken as it is.
func CheckRedis(ctx context.Context, rdb *redis.Client, log zerolog.Logger) error {
	addr := rdb.Options().Addr
	if err := rdb.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redis at %s does not answer: %w", addr, err)
	}
	info, err := info(ctx, rdb, "server")
	if err != nil {
		return fmt.Errorf("redis at %s: info server: %w", addr, err)
	}
	version := info["redis_version"]
	if major, minor, ok := parseVersion(version); !ok {
		log.Debug().Str("addr", addr).Str("redis_version", version).Msg("redis does not say which version it is")
	} else if major < minRedisMajor || major == minRedisMajor && minor < minRedisMinor {
		return fmt.Errorf("redis at %s is version %s: keyrow needs %d.%d or newer", addr, version,
			minRedisMajor, minRedisMinor)
	}
	if info["redis_mode"] == "cluster" {
		return fmt.Errorf("redis at %s is a cluster node: keyrow keeps a key and its journal in one transaction, "+
			"so point redis.addr at a server without cluster-enabled", addr)
	}
	if err := loadScripts(ctx, rdb); err != nil {
		return fmt.Errorf("redis at %s: script load: %w", addr, err)
	}
	return nil
}

// CheckEviction is nil unless Redis may evict keys that have no TTL, which is what a written key waiting for its flush
// is. It is asked at start and again from time to time, for the policy can be changed under way.
func CheckEviction(ctx context.Context, rdb *redis.Client) error {
	info, err := info(ctx, rdb, "memory")
	if err != nil {
		return fmt.Errorf("redis at %s: info memory: %w", rdb.Options().Addr, err)
	}
	policy := info["maxmemory_policy"]
	if !strings.HasPrefix(policy, "allkeys-") {
		return nil
	}
	return fmt.Errorf("redis at %s has maxmemory-policy %s, which may evict a written key before it reaches mysql: "+
		"set maxmemory-policy volatile-lru or noeviction, or write = \"deny\" in every mapping", rdb.Options().Addr, policy)
}

// CheckDurability warns of a Redis that forgets writes when it is killed: those that are not in MySQL yet are nowhere
// else. A server that does not tell is taken as it is.
func CheckDurability(ctx context.Context, rdb *redis.Client) (warning string, err error) {
	addr := rdb.Options().Addr
	info, err := info(ctx, rdb, "persistence")
	switch {
	case err != nil:
		return "", fmt.Errorf("redis at %s: info persistence: %w", addr, err)
	case info["aof_enabled"] == "0":
		return fmt.Sprintf("redis at %s has no append-only file, so writes that are not in mysql yet are lost with it; "+
			"set appendonly yes", addr), nil
	}
	return "", nil
}

// Commands is the reply of COMMAND: for every command of the server its name, arity, flags and keys.
func Commands(ctx context.Context, rdb *redis.Client) ([]any, error) {
	commands, err := rdb.Do(ctx, "COMMAND").Slice()
	if err != nil {
		return nil, fmt.Errorf("redis at %s: command: %w", rdb.Options().Addr, err)
	}
	return commands, nil
}

// info is a section of INFO; empty if the server has no such command.
func info(ctx context.Context, rdb *redis.Client, section string) (map[string]string, error) {
	text, err := rdb.Info(ctx, section).Result()
	if err != nil && !(isRedisError(err) && strings.HasPrefix(err.Error(), "ERR ")) {
		return nil, err
	}
	return fieldsOf(text), nil
}

func fieldsOf(info string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

func parseVersion(v string) (major, minor int, ok bool) {
	parts := strings.SplitN(v, ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err1 == nil && err2 == nil
}

// isRedisError tells an error Redis replied with from one of the way to it.
func isRedisError(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && !errors.Is(err, redis.Nil)
}

// fromRedis is the error a client gets for one that a call of Redis returned: Redis's own words, or UPSTREAM.
func fromRedis(err error, outcome string) error {
	if isRedisError(err) {
		return redisError{err}
	}
	return &Error{CodeUpstream, fmt.Sprintf("redis failed: %v: %s", err, outcome)}
}

// redisLog is the logger of the Redis driver.
type redisLog struct{}

func (redisLog) Printf(_ context.Context, format string, v ...any) {
	if log := drivers.Load(); log != nil {
		log.Debug().Str("driver", "redis").Msg(fmt.Sprintf(format, v...))
	}
}

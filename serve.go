package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/admin"
	"keyrow/backend"
	"keyrow/handover"
	"keyrow/mapping"
	"keyrow/proxy"
)

// startTimeout bounds everything that is asked of Redis and MySQL before keyrow serves.
const startTimeout = 30 * time.Second

// remainderError says that keyrow stopped before everything written was in MySQL.
type remainderError struct {
	left int // -1: unknown
	err  error
}

func (e *remainderError) Error() string {
	if e.left < 0 {
		return "stopped without knowing what is in redis that is not in mysql yet; it stays there and the next keyrow flushes it: " +
			e.err.Error()
	}
	text := fmt.Sprintf("stopped with %d writes in redis that are not in mysql yet; they stay there and the next keyrow flushes them", e.left)
	if e.err != nil {
		text += ": " + e.err.Error()
	}
	return text
}

func (e *remainderError) Unwrap() error { return e.err }

// parts are the two servers that keyrow stands between, connected and compared with the configuration.
type parts struct {
	rdb      *redis.Client
	db       *sql.DB
	set      *mapping.Set // nil if a finding is an error
	findings []mapping.Finding
}

// connect opens both servers and compares the configuration with them.
func connect(ctx context.Context, c config, log zerolog.Logger) (_ *parts, err error) {
	p := &parts{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err := c.Proxy.TLS.Check(); err != nil {
		return nil, &configError{err: err}
	}
	if p.rdb, err = connectRedis(ctx, c, log); err != nil {
		return nil, err
	}
	p.db, p.set, p.findings, err = connectMySQL(ctx, c)
	return p, err
}

// connectRedis opens Redis and finds out whether it is fit for the configuration.
func connectRedis(ctx context.Context, c config, log zerolog.Logger) (*redis.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	rdb, err := backend.OpenRedis(c.Redis)
	if err != nil {
		return nil, &configError{err: err}
	}
	err = backend.CheckRedis(ctx, rdb, log)
	if err == nil && writes(c) {
		err = backend.CheckEviction(ctx, rdb)
	}
	if err != nil {
		_ = rdb.Close()
		return nil, err
	}
	return rdb, nil
}

// writes reports whether any mapping has rows that are only in Redis for a while.
func writes(c config) bool {
	return slices.ContainsFunc(c.Mappings, func(m mapping.Config) bool { return m.Write == "behind" })
}

// durability warns of what may be lost with Redis.
func durability(ctx context.Context, rdb *redis.Client, c config) (warnings []string, err error) {
	warning, err := backend.CheckDurability(ctx, rdb)
	if err != nil {
		return nil, err
	}
	if warning != "" {
		warnings = append(warnings, warning)
	}
	few, err := backend.CheckReplicas(ctx, rdb, c.Mappings)
	return append(warnings, few...), err
}

// connectMySQL opens MySQL and compares the mappings with their tables; set is nil if a finding is an error.
func connectMySQL(ctx context.Context, c config) (db *sql.DB, set *mapping.Set, findings []mapping.Finding, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	db, err = backend.OpenMySQL(c.MySQL)
	if err != nil {
		return nil, nil, nil, err
	}
	schema, err := backend.ReadSchema(ctx, db, mapping.Tables(c.Mappings, c.Queries))
	if err == nil {
		err = backend.ReadQueries(ctx, db, c.Queries, schema)
	}
	if err != nil {
		_ = db.Close()
		return nil, nil, nil, err
	}
	set, findings = mapping.NewSet(c.Mappings, c.Queries, schema)
	return db, set, findings, nil
}

func (p *parts) close() {
	if p.rdb != nil {
		_ = p.rdb.Close()
	}
	if p.db != nil {
		_ = p.db.Close()
	}
}

// logFinding logs a finding.
func logFinding(log zerolog.Logger, f mapping.Finding) {
	level := zerolog.WarnLevel
	if f.Severity == mapping.Error {
		level = zerolog.ErrorLevel
	}
	log.WithLevel(level).Str(f.Section(), f.Mapping).Str("setting", f.Setting).Msg(f.Text)
}

// serve runs keyrow with the configuration c, which path has, until ctx ends, then drains; or until it has handed over to
// another process.
func serve(ctx context.Context, path string, c config, log zerolog.Logger) error {
	hangups := make(chan os.Signal, 1) // one is enough: what is read after it is newer
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	upgrades := make(chan os.Signal, 1)
	signal.Notify(upgrades, syscall.SIGUSR2)
	defer signal.Stop(upgrades)
	sockets, before, err := handover.Inherit()
	if err != nil {
		return err
	}
	backend.LogDrivers(log)
	stopGiving := giveMemoryBack()
	defer stopGiving()
	if c.Redis.TLS.InsecureSkipVerify {
		log.Warn().Msg("redis.tls.insecure_skip_verify: redis's certificate is not checked; set redis.tls.ca instead")
	}
	p, err := connect(ctx, c, log)
	if err != nil {
		return err
	}
	defer p.close()
	for _, f := range p.findings {
		logFinding(log, f)
	}
	if p.set == nil {
		return &configError{err: errors.New("the configuration does not fit the tables; keyrow check lists what to change")}
	}
	table, err := backend.Commands(ctx, p.rdb)
	if err != nil {
		return err
	}
	commands, err := proxy.ParseCommands(table)
	if err != nil {
		return err
	}
	if writes(c) {
		warnings, err := durability(ctx, p.rdb, c)
		if err != nil {
			return err
		}
		for _, warning := range warnings {
			log.Warn().Msg(warning)
		}
	}
	journal, err := backend.OpenJournal(ctx, p.rdb, c.Journal, log)
	if err != nil {
		return err
	}
	owners, err := backend.OpenOwners(c.MySQL, c.Journal.SessionTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = owners.Close() }()
	through, err := backend.OpenThrough(c.MySQL, c.Journal.SessionTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = through.Close() }()

	ping, err := backend.OpenMySQL(backend.MySQLConfig{DSN: c.MySQL.DSN, MaxOpen: 1, Timeout: c.MySQL.Timeout})
	if err != nil {
		return err
	}
	defer func() { _ = ping.Close() }()

	metrics := admin.NewMetrics(version)
	var server *proxy.Server
	var reloads *reloader
	watch := backend.NewWatch(backend.WatchOptions{
		DB: p.db, Set: p.set, Swap: func(set *mapping.Set) { server.SetMappings(set) }, Log: log,
	})
	flusher := backend.NewFlusher(backend.FlusherOptions{
		Journal: journal, Redis: p.rdb, DB: owners, Mappings: watch.Mappings, Look: watch.Look, Flushed: metrics.Flushed,
		Log: log, Hook: hook,
	})
	loader := backend.NewLoader(backend.LoaderOptions{
		Redis: p.rdb, DB: p.db, Journal: journal.Keys(), Timeout: c.MySQL.Timeout, Altered: watch.Ask,
		Watch: watch, MaxWaiting: c.MySQL.MaxWaiting, Ping: ping.PingContext, Selected: metrics.Selected, Log: log, Hook: hook,
	})
	writer := backend.NewWriter(backend.WriterOptions{
		Redis: p.rdb, DB: through, Journal: journal.Keys(), Mappings: watch.Mappings, Watch: watch, Altered: watch.Ask,
		Lease: backend.ThroughLease(c.MySQL, c.Journal.SessionTimeout), Written: metrics.WrittenThrough, Log: log, Hook: hook,
	})
	replicas, err := backend.NewReplicas(c.Redis, journal.Keys(), metrics.Replicated)
	if err != nil {
		return err
	}
	defer replicas.Close()
	server = proxy.New(proxy.Options{
		Config: c.Proxy,
		Upstream: proxy.Upstream{
			Addr: c.Redis.Addr, DB: c.Redis.DB, Lanes: c.Redis.Lanes, Timeout: c.Redis.Timeout, Dial: backend.Dial(p.rdb),
		},
		Commands: commands, Mappings: p.set, Journal: journal.Keys(), Loader: loader, Control: loader, Writer: writer,
		Replicas: replicas, Gate: journal, Parking: journal, Drainer: flusher,
		Slow: proxy.SlowConfig{After: c.Log.Slow, Keep: c.Log.SlowKeep},
		Log:  log, Report: report(loader, flusher, replicas), JournalReport: reportJournal(flusher),
		Reload: func() ([]string, error) { return reloads.reload() }, Timed: metrics.Timed,
		Inherit: sockets.Take, Hook: hook,
	})
	reloading, stopReloading := context.WithCancel(ctx)
	defer stopReloading()
	reloads = &reloader{
		ctx: reloading, path: path, rdb: p.rdb, db: p.db, watch: watch, journal: journal, loader: loader, server: server, metrics: metrics,
		log: log, config: c,
	}
	if err := server.Listen(); err != nil {
		return err
	}
	metrics.Pool(p.db, "read")
	metrics.Pool(owners, "flush")
	metrics.Pool(through, "through")
	desk := admin.New(admin.Options{
		Config: c.Admin, Version: version, Metrics: metrics, Proxy: server, Flusher: flusher, Loader: loader, Replicas: replicas, Writer: writer,
		Mappings: watch.Mappings, MaxPending: journal.MaxPending, Redis: c.Redis.Addr, MySQL: backend.MySQLAddr(c.MySQL),
		Checks: checks(p, watch, flusher), Parking: journal, Log: log, Inherit: sockets.Take,
	})
	defer desk.Close()
	if err := desk.Listen(); err != nil {
		return err
	}
	if warning := c.Admin.Warning(); warning != "" {
		log.Warn().Msg(warning)
	}
	if err := sockets.Rest(); err != nil {
		return &configError{err: err}
	}
	if before != nil {
		if err := before.Ready(); err != nil {
			return err
		}
	}

	flushing, stopFlushing := context.WithCancel(context.Background())
	defer stopFlushing()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		var reloading sync.WaitGroup
		reloading.Go(func() { reloads.run(hangups) })
		watch.Run(flushing)
		reloading.Wait()
	}()
	ended := make(chan error, 3)
	go func() { ended <- desk.Serve() }()
	go func() { ended <- flusher.Run(flushing) }()
	go func() { ended <- server.Serve() }()
	listening := log.Info().Stringer("addr", server.Addr())
	if addrs := server.Addrs(); len(addrs) > 1 {
		listening.Strs("addrs", addrs[1:])
	}
	listening.Str("version", version).Int("mappings", len(c.Mappings)).Int("queries", len(c.Queries))
	if addr := desk.Addr(); addr != nil {
		listening.Stringer("admin", addr)
	}
	listening.Msg("listening")

	defer feed(func() { server.Snapshot(); flusher.Snapshot() })()
	tell(log, "READY=1", "STATUS=serving at "+server.Addr().String())
	adopted := make(chan struct{})
	if before == nil {
		close(adopted)
	} else {
		go func() {
			defer close(adopted)
			adopt(before, server, log)
		}()
		defer func() { before.Close(); <-adopted }()
	}

	r := &running{
		config: c, rdb: p.rdb, sockets: sockets, server: server, desk: desk, loader: loader, flusher: flusher, stopFlushing: stopFlushing, stopReloading: stopReloading,
		adopted: adopted, watched: watched, ended: ended, waiting: cap(ended), log: log,
	}
	for {
		select {
		case <-ctx.Done():
			return r.drain(nil)
		case failure := <-ended: // none of them ends by itself but by a failure
			r.waiting--
			return r.drain(failure)
		case <-upgrades:
			next, err := r.succeed(ctx)
			if err == nil {
				return r.handOver(ctx, next)
			}
			log.Error().Err(err).Msg("not handed over, going on")
		}
	}
}

// report adds the lines of others than the server to KEYROW INFO.
func report(loader *backend.Loader, flusher *backend.Flusher, replicas *backend.Replicas) func(line func(name string, n int64)) {
	return func(line func(name string, n int64)) {
		loads, flush, copies := loader.Stats(), flusher.Snapshot(), replicas.Stats()
		for _, l := range []struct {
			name string
			n    int64
		}{
			{"loads", int64(loads.Loads)},
			{"selects", int64(loads.Selects)},
			{"selected_rows", int64(loads.Rows)},
			{"fills", int64(loads.Fills)},
			{"rejected_fills", int64(loads.Rejected)},
			{"negative_hits", int64(loads.Negatives)},
			{"lease_waits", int64(loads.Waits)},
			{"load_errors", int64(loads.Errors)},
			{"stale_loads", int64(loads.Stale)},
			{"early_refreshes", int64(loads.Early)},
			{"early_looks", int64(loads.Looks)},
			{"bypasses", int64(loads.Bypasses)},
			{"bypass_errors", int64(loads.BypassErrors)},
			{"waiting_loads", int64(loads.Waiting)},
			{"refused_loads", int64(loads.Crowded)},
			{"overdue_loads", int64(loads.Overdue)},
			{"throttled_selects", int64(loads.Throttled)},
			{"mysql_silent", number(loads.Silent)},
			{"mysql_silences", int64(loads.Opened)},
			{"unsent_selects", int64(loads.Broken)},
			{"pending", flush.Pending},
			{"oldest_pending_ms", flush.OldestAge.Milliseconds()},
			{"parked", flush.Parked},
			{"lost", flush.Lost},
			{"journal_losses", flush.Losses},
			{"sweeps", flush.Sweeps},
			{"batches", flush.Batches},
			{"flushed_rows", flush.Rows},
			{"upserts", flush.Upserts},
			{"row_deletes", flush.Deletes},
			{"flush_retries", flush.Retries},
			{"owned_partitions", int64(len(flush.Owned))},
			{"replica_waits", copies.Waits},
			{"replica_waited_writes", copies.Writes},
			{"replica_missed_writes", copies.Missed},
		} {
			line(l.name, l.n)
		}
	}
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// reportJournal makes the lines of KEYROW JOURNAL.
func reportJournal(flusher *backend.Flusher) func(line func(name string, n int64)) {
	return func(line func(name string, n int64)) {
		flush := flusher.Snapshot()
		line("pending", flush.Pending)
		line("oldest_pending_ms", flush.OldestAge.Milliseconds())
		line("settled_per_second", flush.Rate)
		line("parked", flush.Parked)
		line("lost", flush.Lost)
		line("journal_losses", flush.Losses)
	}
}

package admin

import (
	"database/sql"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/proxy"
)

// durations are the bounds of the buckets of histograms of times, in seconds.
var durations = []float64{.000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// keys are the bounds of the buckets of histograms of how many keys go together.
var keys = prometheus.ExponentialBuckets(1, 2, 13)

// Metrics takes what is observed while keyrow serves. What is merely counted is asked for when somebody wants to see
// it: see state.
type Metrics struct {
	registry *prometheus.Registry

	total, upstream, own prometheus.Histogram
	selects, selectKeys  *prometheus.HistogramVec
	flush, flushKeys     prometheus.Histogram
	reloads              *prometheus.CounterVec
	reloaded             prometheus.Gauge
	waits, waitWrites    prometheus.Histogram
	through, throughRows prometheus.Histogram
}

// What came of a reload, for Metrics.Reloaded.
const (
	ReloadApplied    = "applied"
	ReloadUnchanged  = "unchanged"
	ReloadRefused    = "refused"
	ReloadIncomplete = "incomplete" // it is in force, but outdated copies could not be dropped from Redis
)

// NewMetrics returns Metrics with nothing in them but what there is to know of the process.
func NewMetrics(version string) *Metrics {
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: "keyrow", Name: name, Help: help, Buckets: buckets}
	}
	const sampled = "Sampled: at most one command in a millisecond on each shared connection to Redis, the last one of " +
		"those that were written together; rows that had to be loaded count until Redis said that it has none."
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		total: prometheus.NewHistogram(histogram("command_duration_seconds",
			"Time from when a command arrived until its reply was written. "+sampled, durations)),
		upstream: prometheus.NewHistogram(histogram("command_upstream_duration_seconds",
			"Of command_duration_seconds, what Redis and the way there took.", durations)),
		own: prometheus.NewHistogram(histogram("command_internal_duration_seconds",
			"Of command_duration_seconds, what keyrow itself took.", durations)),
		selects: prometheus.NewHistogramVec(histogram("select_duration_seconds",
			"Time of a SELECT that loads rows, with the reading of its rows.", durations), []string{"mapping"}),
		selectKeys: prometheus.NewHistogramVec(histogram("select_keys",
			"Keys that were loaded with one SELECT.", keys), []string{"mapping"}),
		flush: prometheus.NewHistogram(histogram("flush_duration_seconds",
			"Time of one batch of the flush, from reading the images to taking the marks out of the journal.", durations)),
		flushKeys: prometheus.NewHistogram(histogram("flush_batch_keys", "Keys of one batch of the flush.", keys)),
		waits: prometheus.NewHistogram(histogram("replica_wait_duration_seconds",
			"Time that Redis took for one WAIT for its replicas, durability = \"replicas\".", durations)),
		waitWrites: prometheus.NewHistogram(histogram("replica_wait_writes", "Writes that shared one such WAIT.", keys)),
		through: prometheus.NewHistogram(histogram("through_duration_seconds",
			"Time of a write that goes to MySQL before it is answered, from its first statement until Redis shows it; failed ones not "+
				"included.", durations)),
		throughRows: prometheus.NewHistogram(histogram("through_rows", "Rows of such a write.", keys)),
	}
	m.reloads = prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "keyrow", Name: "reloads_total",
		Help: "Reloads of the configuration, by outcome."}, []string{"outcome"})
	for _, outcome := range []string{ReloadApplied, ReloadUnchanged, ReloadRefused, ReloadIncomplete} {
		m.reloads.WithLabelValues(outcome)
	}
	m.reloaded = prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "keyrow", Name: "config_loaded_timestamp_seconds",
		Help: "When the configuration that is in force was read last: at the start, or by a reload that succeeded."})
	m.reloaded.SetToCurrentTime()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "keyrow", Name: "build_info", Help: "Always 1; the labels say what was built.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.total, m.upstream, m.own, m.selects, m.selectKeys, m.flush, m.flushKeys, m.reloads, m.reloaded, m.waits, m.waitWrites,
		m.through, m.throughRows, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Reloaded counts a reload.
func (m *Metrics) Reloaded(outcome string) {
	m.reloads.WithLabelValues(outcome).Inc()
	if outcome == ReloadApplied || outcome == ReloadUnchanged {
		m.reloaded.SetToCurrentTime()
	}
}

// Timed is for proxy.Options.Timed.
func (m *Metrics) Timed(upstream, own time.Duration) {
	m.total.Observe((upstream + own).Seconds())
	m.upstream.Observe(upstream.Seconds())
	m.own.Observe(own.Seconds())
}

// Selected is for backend.LoaderOptions.Selected.
func (m *Metrics) Selected(mapping string, keys int, took time.Duration) {
	m.selects.WithLabelValues(mapping).Observe(took.Seconds())
	m.selectKeys.WithLabelValues(mapping).Observe(float64(keys))
}

// Flushed is for backend.FlusherOptions.Flushed.
func (m *Metrics) Flushed(keys int, took time.Duration) {
	m.flush.Observe(took.Seconds())
	m.flushKeys.Observe(float64(keys))
}

// Replicated is for backend.NewReplicas.
func (m *Metrics) Replicated(writes int, took time.Duration) {
	m.waits.Observe(took.Seconds())
	m.waitWrites.Observe(float64(writes))
}

// WrittenThrough is for backend.WriterOptions.Written.
func (m *Metrics) WrittenThrough(rows int, took time.Duration) {
	m.through.Observe(took.Seconds())
	m.throughRows.Observe(float64(rows))
}

// Pool shows the connections of a pool to MySQL.
func (m *Metrics) Pool(db *sql.DB, name string) {
	m.registry.MustRegister(collectors.NewDBStatsCollector(db, name))
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyrow_"+name, help, labels, nil)
}

var (
	descCommands = describe("commands_total", "Commands, by the group that Redis puts them in and by what became of them: "+
		"passed to Redis as they came, about a row, answered by keyrow, refused by keyrow.", "group", "outcome")
	descSlow     = describe("slow_commands_total", "Commands that took longer than log.slow, by how they were answered.", "how")
	descErrors   = describe("error_replies_total", "Error replies of Redis that were passed on.")
	descFailed   = describe("commands_failed_total", "Commands that were answered -UPSTREAM, by whether they were sent to Redis.", "sent")
	descClients  = describe("clients", "Clients connected.")
	descMost     = describe("max_clients", "The limit of clients, proxy.max_clients.")
	descRefused  = describe("clients_refused_total", "Clients turned away at proxy.max_clients.")
	descGreeted  = describe("handshakes_failed_total", "Clients that did not get through the TLS handshake or the PROXY header.")
	descClosed   = describe("clients_closed_total", "Clients closed, by reason: idle for longer than proxy.idle_timeout, or more than proxy.output_limit left unread.", "reason")
	descPauses   = describe("backpressure_pauses_total", "Times the reading of a client paused, by cause: its replies were left unread, or Redis took no more commands.", "cause")
	descBuffered = describe("buffered_bytes", "Bytes that wait, by direction: replies for clients, commands for Redis.", "direction")

	descLanes    = describe("lanes", "Connections to Redis that clients share, by state.", "state")
	descBreaker  = describe("breaker_open", "1 if commands are answered with an error at once, since the server is not available.", "server")
	descPinned   = describe("pinned_lanes", "Connections to Redis that one client has for itself, by reason.", "reason")
	descSpare    = describe("spare_lanes", "Such connections that no client uses now.")
	descFailures = describe("redis_connect_failures_total", "Connections to Redis that could not be made.")
	descLost     = describe("redis_connections_lost_total", "Shared connections to Redis that ended by themselves.")
	descUp       = describe("up", "1 if the server answered when it was last asked.", "server")

	descHits      = describe("hits_total", "Keys of rows that a read found in Redis.", "mapping")
	descMisses    = describe("misses_total", "Keys of rows that a read did not find in Redis.", "mapping")
	descNegatives = describe("negative_hits_total", "Misses of keys that were remembered to have no row.", "mapping")
	descFills     = describe("fills_total", "Rows, and absences of rows, that were cached.", "mapping")
	descRejected  = describe("rejected_fills_total", "Rows that were not cached, since the key was written, deleted or evicted meanwhile.", "mapping")
	descWaits     = describe("lease_waits_total", "Looks at a key that another process was loading.", "mapping")
	descSuspended = describe("mapping_suspended", "1 if the table no longer fits the mapping, so that it is neither read nor written.", "mapping")
	descPaused    = describe("mapping_paused", "1 if the table could not be written at the last try, so that what was written waits.", "mapping")
	descWaiting   = describe("load_waiting", "Reads of rows that wait for MySQL now.")
	descStale     = describe("stale_replies_total", "Reads of rows that were answered with an image past its ttl, since MySQL was down.")
	descEarly     = describe("early_refreshes_total", "Images that were read anew before they expired.")
	descBypasses  = describe("bypassed_reads_total", "Reads of rows that MySQL answered, since Redis could not be reached.")
	descKept      = describe("selects_suppressed_total", "SELECTs that were not sent, by reason: the breaker was open, or max_selects was reached.", "reason")
	descOpened    = describe("breaker_opened_total", "Times that the breaker opened.", "server")
	descJoined    = describe("coalesced_loads_total", "Reads of rows that waited for a SELECT of another reader of the same row.")
	descCrowded   = describe("loads_refused_total", "Reads of rows that were refused at mysql.max_waiting.")
	descOverdue   = describe("loads_overdue_total", "Rows whose SELECT did not begin within mysql.timeout.")
	descLoadFails = describe("load_errors_total", "Reads of rows that ended in an error.")

	descWrites    = describe("writes_total", "Writes of rows that were acknowledged.")
	descCoalesced = describe("coalesced_writes_total", "Of writes_total, such to a key that waited to be flushed already.")
	descDeletes   = describe("row_deletes_total", "Deletions of rows that were acknowledged.")
	descWaited    = describe("replicated_writes_total", "Writes with durability = \"replicas\", by whether the replicas had them in time.", "reached")

	descPending    = describe("journal_pending", "Keys that wait to be flushed to MySQL, of all processes.")
	descMaxPending = describe("journal_max_pending", "The limit of journal_pending from which on writes are refused, journal.max_pending.")
	descOldest     = describe("journal_oldest_age_seconds", "For how long the oldest of journal_pending has waited: how far MySQL is behind.")
	descParked     = describe("journal_parked", "Keys that are parked, of all processes: MySQL refused their rows.")
	descOwned      = describe("journal_owned_partitions", "Partitions of the journal that this process flushes.")
	descOwnerless  = describe("journal_ownerless_partitions", "Partitions of the journal of which this process has known no owner since its start.")
	descNewParked  = describe("parked_total", "Keys that this process parked.")
	descLostWrites = describe("lost_writes_total", "Keys that were written and whose value was gone from Redis before it was flushed.")
	descLosses     = describe("journal_losses_total", "Times that Redis came back without the journal.")
	descSweeps     = describe("flush_sweeps_total", "Take-overs of what was written.")
	descRows       = describe("flushed_rows_total", "Rows written to MySQL and deleted there.")
	descStatements = describe("flush_statements_total", "Statements sent for that, failed ones included.", "kind")
	descRetries    = describe("flush_retries_total", "Batches that failed and are tried again, by class of the failure.", "class")
	descDeferred   = describe("flush_deferred_total", "Keys put back, since their rows wait for another row, a lock or a table.")

	descThrough        = describe("through_statements_total", "Statements sent for writes that go to MySQL before they are answered, failed ones included.", "kind")
	descThroughRetries = describe("through_retries_total", "Times that such a write was tried again, since it fell to a deadlock or another made the same row.")
	descThroughFails   = describe("through_failures_total", "Such writes that were answered with an error, by class of the failure.", "class")
)

// states are the gauges and counters that are read off the parts of keyrow for each scrape.
type states struct{ server *Server }

// Describe says nothing: which labels there are depends on the mappings.
func (states) Describe(chan<- *prometheus.Desc) {}

// Collect reads the parts off.
func (s states) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := s.server.look()

	p := &st.proxy
	for g, name := range proxy.Groups {
		for o, outcome := range proxy.Outcomes {
			if n := p.Commands[g][o]; n > 0 || outcome == "passed" {
				counter(descCommands, n, name, outcome)
			}
		}
	}
	for i, how := range proxy.Ways {
		counter(descSlow, p.Slow[i], how)
	}
	counter(descErrors, p.Errors)
	counter(descFailed, p.Unsent, "no")
	counter(descFailed, p.Unknown, "unknown")
	gauge(descClients, float64(p.Clients))
	gauge(descMost, float64(p.MaxClients))
	counter(descRefused, p.Refused)
	counter(descGreeted, p.Failed)
	counter(descClosed, p.Idle, "idle")
	counter(descClosed, p.Unread, "unread")
	counter(descPauses, p.Paused, "replies")
	counter(descPauses, p.Backlog, "commands")
	gauge(descBuffered, float64(p.Replies), "replies")
	gauge(descBuffered, float64(p.Queued), "commands")
	for i, state := range proxy.LaneStates {
		gauge(descLanes, float64(p.Lanes[i]), state)
	}
	gauge(descBreaker, truth(p.Broken()), "redis")
	gauge(descBreaker, truth(st.loads.Silent), "mysql")
	for i, reason := range proxy.PinReasons {
		gauge(descPinned, float64(p.Pinned[i]), reason)
	}
	gauge(descSpare, float64(p.Spare))
	counter(descFailures, p.Failures)
	counter(descLost, p.Lost)
	for _, c := range st.checks {
		if c.Server {
			gauge(descUp, truth(c.err == nil), c.Name)
		}
	}

	paused := make(map[string]bool)
	for _, name := range st.flush.Paused {
		paused[name] = true
	}
	for _, m := range st.mappings {
		n := m.Counts
		counter(descHits, n.Hits.Load(), m.Name)
		counter(descMisses, n.Misses.Load(), m.Name)
		counter(descNegatives, n.Negatives.Load(), m.Name)
		counter(descFills, n.Fills.Load(), m.Name)
		counter(descRejected, n.Rejected.Load(), m.Name)
		counter(descWaits, n.Waits.Load(), m.Name)
		if !m.Query {
			gauge(descSuspended, truth(m.Unfit() != nil), m.Name)
			gauge(descPaused, truth(paused[m.Name]), m.Name)
		}
	}
	counter(descLoadFails, int64(st.loads.Errors))
	counter(descJoined, int64(st.loads.Joined))
	counter(descCrowded, int64(st.loads.Crowded))
	counter(descOverdue, int64(st.loads.Overdue))
	counter(descOpened, int64(st.loads.Opened), "mysql")
	gauge(descWaiting, float64(st.loads.Waiting))
	counter(descStale, int64(st.loads.Stale))
	counter(descEarly, int64(st.loads.Early))
	counter(descBypasses, int64(st.loads.Bypasses))
	counter(descKept, int64(st.loads.Broken), "breaker")
	counter(descKept, int64(st.loads.Throttled), "max_selects")

	counter(descWrites, p.Writes)
	counter(descCoalesced, p.Coalesced)
	counter(descDeletes, p.Deletes)
	counter(descWaited, st.replicas.Writes-st.replicas.Missed, "yes")
	counter(descWaited, st.replicas.Missed, "no")

	f := &st.flush
	gauge(descPending, float64(f.Pending))
	gauge(descMaxPending, float64(s.server.o.MaxPending()))
	gauge(descOldest, f.OldestAge.Seconds())
	gauge(descParked, float64(f.Parked))
	gauge(descOwned, float64(len(f.Owned)))
	gauge(descOwnerless, float64(len(f.Ownerless)))
	counter(descNewParked, f.NewlyParked)
	counter(descLostWrites, f.Lost)
	counter(descLosses, f.Losses)
	counter(descSweeps, f.Sweeps)
	counter(descRows, f.Rows)
	counter(descStatements, f.Upserts, "upsert")
	counter(descStatements, f.Deletes, "delete")
	for i, class := range backend.RetryClasses {
		counter(descRetries, f.Retried[i], class)
	}
	counter(descDeferred, f.Deferred)

	w := &st.through
	counter(descThrough, w.Upserts, "upsert")
	counter(descThrough, w.Deletes, "delete")
	counter(descThroughRetries, w.Retries)
	for i, class := range backend.ThroughFailures {
		counter(descThroughFails, w.Failed[i], class)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// served are the mappings and queries of a set.
func served(set *mapping.Set) []*mapping.Mapping {
	return append(append([]*mapping.Mapping(nil), set.All()...), set.Queries()...)
}

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/proxy"
)

// Parking is where rows are that MySQL refused. Its errors are for people to read.
type Parking interface {
	// Parked returns at most limit of them, those that were parked first in front.
	Parked(ctx context.Context, limit int) ([]mapping.Parked, error)
	// Retry has those of keys that are parked tried again, and returns how many these are.
	Retry(ctx context.Context, keys ...string) (marked int, err error)
	// Drop gives up what was written to those of keys that are parked, and returns how many these were.
	Drop(ctx context.Context, keys ...string) (dropped int, err error)
}

// parkedRow is a row of /parked. The names of its fields in JSON are a promise.
type parkedRow struct {
	Key    string    `json:"key"`
	ID     []byte    `json:"id"`     // the bytes of the key, in base64
	Delete bool      `json:"delete"` // it is the deletion that was refused
	Table  string    `json:"table"`
	Code   uint16    `json:"code"` // of MySQL; 0: none
	Error  string    `json:"error"`
	Since  time.Time `json:"since"`
	Tries  int       `json:"tries"`
}

// status is /status. The names of its fields in JSON are a promise.
type status struct {
	Version string        `json:"version"`
	At      time.Time     `json:"at"`
	Uptime  float64       `json:"uptime_seconds"`
	Ready   bool          `json:"ready"`
	Drains  bool          `json:"draining"`
	Checks  []checkStatus `json:"checks"`

	Redis   redisStatus     `json:"redis"`
	MySQL   mysqlStatus     `json:"mysql"`
	Clients clientStatus    `json:"clients"`
	Command commandStatus   `json:"commands"`
	Journal journalStatus   `json:"journal"`
	Mapping []mappingStatus `json:"mappings"`
	Actions bool            `json:"actions"` // parked rows can be retried and dropped
}

type checkStatus struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"`
	Error  string `json:"error,omitempty"`
}

type redisStatus struct {
	Addr        string           `json:"addr"`
	Up          bool             `json:"up"`
	Lanes       map[string]int64 `json:"lanes"`
	Pinned      map[string]int64 `json:"pinned"`
	BreakerOpen bool             `json:"breaker_open"`
}

type mysqlStatus struct {
	Addr string `json:"addr"`
	Up   bool   `json:"up"`
}

type clientStatus struct {
	Now      int64 `json:"connected"`
	Max      int64 `json:"max"`
	Refused  int64 `json:"refused"`
	Buffered int64 `json:"buffered_bytes"`
	Pauses   int64 `json:"backpressure_pauses"`
}

type commandStatus struct {
	Total   int64            `json:"total"`
	Groups  map[string]int64 `json:"groups"`
	Refused int64            `json:"refused"`
	Errors  int64            `json:"error_replies"`
	Failed  int64            `json:"failed"`
	// Counts of the buckets of keyrow_command_duration_seconds, each without those before it, with one more for what is
	// above the last bound.
	Bounds  []float64 `json:"latency_bounds_seconds"`
	Latency []uint64  `json:"latency_counts"`
}

type journalStatus struct {
	Pending    int64            `json:"pending"`
	MaxPending int              `json:"max_pending"`
	Oldest     float64          `json:"oldest_age_seconds"`
	Parked     int64            `json:"parked"`
	Lost       int64            `json:"lost"`
	Owned      []int            `json:"owned_partitions"`
	Ownerless  []int            `json:"ownerless_partitions"`
	Writes     int64            `json:"writes"`
	Coalesced  int64            `json:"coalesced_writes"`
	Rows       int64            `json:"flushed_rows"`
	Retries    map[string]int64 `json:"retries"`
}

type mappingStatus struct {
	Name      string `json:"name"`
	Query     bool   `json:"query"`
	Key       string `json:"key"`
	Kind      string `json:"kind"`
	Deny      bool   `json:"read_only"`
	Suspended string `json:"suspended,omitempty"` // why
	Paused    bool   `json:"paused"`
	Hits      int64  `json:"hits"`
	Misses    int64  `json:"misses"`
	Negatives int64  `json:"negative_hits"`
	Fills     int64  `json:"fills"`
	Rejected  int64  `json:"rejected_fills"`
	Waits     int64  `json:"lease_waits"`
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := s.look()
	p, f := &st.proxy, &st.flush
	out := status{
		Version: s.o.Version, At: st.at, Uptime: time.Since(s.since).Seconds(),
		Ready: st.ready() == nil && !s.drains.Load(), Drains: s.drains.Load(),
		Checks: []checkStatus{},
		Redis: redisStatus{Addr: s.o.Redis, BreakerOpen: p.Broken(), Lanes: named(proxy.LaneStates[:], p.Lanes[:]),
			Pinned: named(proxy.PinReasons[:], p.Pinned[:])},
		MySQL: mysqlStatus{Addr: s.o.MySQL},
		Clients: clientStatus{Now: p.Clients, Max: p.MaxClients, Refused: p.Refused, Buffered: p.Replies + p.Queued,
			Pauses: p.Paused + p.Backlog},
		Command: commandStatus{Groups: map[string]int64{}, Errors: p.Errors, Failed: p.Unsent + p.Unknown},
		Journal: journalStatus{
			Pending: f.Pending, MaxPending: s.o.MaxPending(), Oldest: f.OldestAge.Seconds(), Parked: f.Parked, Lost: f.Lost,
			Owned: append([]int{}, f.Owned...), Ownerless: append([]int{}, f.Ownerless...), Writes: p.Writes,
			Coalesced: p.Coalesced, Rows: f.Rows, Retries: named(backend.RetryClasses[:], f.Retried[:]),
		},
		Mapping: []mappingStatus{},
		Actions: s.mayAct(),
	}
	for _, c := range st.checks {
		one := checkStatus{Name: c.Name, OK: c.err == nil, Needed: c.Needed}
		if c.err != nil {
			one.Error = c.err.Error()
		}
		out.Checks = append(out.Checks, one)
		switch {
		case c.Server && c.Name == "redis":
			out.Redis.Up = one.OK
		case c.Server && c.Name == "mysql":
			out.MySQL.Up = one.OK
		}
	}
	for g, name := range proxy.Groups {
		sum := int64(0)
		for o, n := range p.Commands[g] {
			sum += n
			if proxy.Outcomes[o] == "refused" {
				out.Command.Refused += n
			}
		}
		out.Command.Groups[name] = sum
		out.Command.Total += sum
	}
	out.Command.Bounds, out.Command.Latency = buckets(s.o.Metrics.total)
	paused := map[string]bool{}
	for _, name := range f.Paused {
		paused[name] = true
	}
	for _, m := range st.mappings {
		n := m.Counts
		one := mappingStatus{
			Name: m.Name, Query: m.Query, Key: m.Pattern, Kind: m.Kind.String(), Deny: m.Deny, Paused: paused[m.Name],
			Hits: n.Hits.Load(), Misses: n.Misses.Load(), Negatives: n.Negatives.Load(), Fills: n.Fills.Load(),
			Rejected: n.Rejected.Load(), Waits: n.Waits.Load(),
		}
		if why := m.Unfit(); why != nil {
			one.Suspended = why.Error()
		}
		out.Mapping = append(out.Mapping, one)
	}
	answerJSON(w, out)
}

// buckets are the bounds of a histogram and how many observations are between each two of them.
func buckets(h prometheus.Histogram) (bounds []float64, counts []uint64) {
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		return nil, nil
	}
	before := uint64(0)
	for _, b := range m.GetHistogram().GetBucket() {
		bounds = append(bounds, b.GetUpperBound())
		counts = append(counts, b.GetCumulativeCount()-before)
		before = b.GetCumulativeCount()
	}
	return bounds, append(counts, m.GetHistogram().GetSampleCount()-before)
}

func named(names []string, n []int64) map[string]int64 {
	m := make(map[string]int64, len(names))
	for i, name := range names {
		m[name] = n[i]
	}
	return m
}

// shownParked is how many parked rows are listed.
const shownParked = 100

// parked lists parked rows.
func (s *Server) parked(w http.ResponseWriter, r *http.Request) {
	found, err := s.o.Parking.Parked(r.Context(), shownParked)
	if err != nil {
		say(w, http.StatusBadGateway, err.Error()+"\n")
		return
	}
	rows := []parkedRow{}
	for _, f := range found {
		rows = append(rows, parkedRow{Key: f.Key, ID: []byte(f.Key), Delete: f.Mark == mapping.MarkDeleted, Table: f.Table,
			Code: f.Code, Error: f.Error, Since: f.Since, Tries: f.Tries})
	}
	answerJSON(w, rows)
}

// mayAct reports whether rows may be retried and dropped here: not by whoever comes along from somewhere else.
func (s *Server) mayAct() bool { return s.o.Config.Token != "" || s.o.Config.local() }

// act serves what is done about a parked row, the key of which is in the body: {"id": "<base64>"}.
func (s *Server) act(do func(p Parking, ctx context.Context, keys ...string) (int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var row struct {
			ID []byte `json:"id"`
		}
		switch err := json.NewDecoder(r.Body).Decode(&row); {
		case !s.mayAct():
			say(w, http.StatusForbidden, "set admin.token, or listen on 127.0.0.1, to change anything here\n")
		case err != nil || len(row.ID) == 0:
			say(w, http.StatusBadRequest, `send {"id": "the key in base64"}`+"\n")
		default:
			n, err := do(s.o.Parking, r.Context(), string(row.ID))
			if err == nil && n == 0 {
				err = errors.New("it is not parked, or is being tried already")
			}
			if err != nil {
				say(w, http.StatusConflict, err.Error()+"\n")
				return
			}
			s.o.Log.Info().Str("what", r.URL.Path).Bytes("key", row.ID).Str("from", r.RemoteAddr).Msg("somebody had a parked row retried or dropped on the status page")
			w.WriteHeader(http.StatusNoContent)
		}
	}
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// Package admin is the HTTP side of keyrow: metrics for Prometheus, health for whoever starts and balances processes,
// and a page for people.
//
// [Metrics] takes what the others observe while they serve. [Server] asks them for the rest when somebody wants to see
// it, at most twice a second however many look. /healthz and /readyz are for everybody who reaches the listener; the
// rest is for those who show the token, if there is one.
package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/proxy"
)

const (
	// maxRequests is how many requests are answered at a time; more are told to come back.
	maxRequests = 16
	// maxConns is how many connections there are at a time; more are closed.
	maxConns = 256
	// maxBody is how many bytes a request may have, after its header.
	maxBody = 1 << 20
)

// Proxy is what the server asks the RESP side.
type Proxy interface{ Snapshot() proxy.Snapshot }

// Flusher is what the server asks the write path.
type Flusher interface{ Snapshot() backend.Snapshot }

// Loader is what the server asks the read path.
type Loader interface{ Stats() backend.LoadStats }

// Replicas is what the server asks of durability = "replicas".
type Replicas interface{ Stats() backend.ReplicaStats }

// Writer is what the server asks those who write to MySQL first.
type Writer interface{ Stats() backend.ThroughStats }

// Options are what a Server works with; all are required unless said otherwise.
type Options struct {
	Config     Config
	Version    string
	Metrics    *Metrics
	Proxy      Proxy
	Flusher    Flusher
	Loader     Loader
	Replicas   Replicas
	Writer     Writer
	Mappings   func() *mapping.Set
	MaxPending func() int // journal.max_pending
	Redis      string     // where Redis is, for people to read
	MySQL      string     // the same of MySQL
	Checks     []Check
	Parking    Parking
	Log        zerolog.Logger
	// Inherit returns the socket that a setting has at an address if somebody opened it before, else nil; optional.
	Inherit func(key, addr string) net.Listener
}

// Server answers on the admin listener.
type Server struct {
	o        Options
	http     *http.Server
	listener net.Listener
	slots    chan struct{}
	conns    atomic.Int64
	since    time.Time
	drains   atomic.Bool
	closed   sync.Once
	done     chan struct{}
	hostname string

	mu    sync.Mutex
	state *state
}

// New makes a server; Listen and Serve start it.
func New(o Options) *Server {
	s := &Server{o: o, slots: make(chan struct{}, maxRequests), since: time.Now(), done: make(chan struct{})}
	s.hostname, _ = os.Hostname()
	o.Metrics.registry.MustRegister(states{s})
	s.http = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute, // a profile takes 30 seconds
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnState:         s.connState,
		ErrorLog:          log.New(io.Discard, "", 0), // what clients do wrong
	}
	return s
}

// Listen opens the address that is configured, if there is one.
func (s *Server) Listen() error {
	if s.o.Config.Listen == "" {
		return nil
	}
	if s.o.Inherit != nil {
		if s.listener = s.o.Inherit(listenKey, s.o.Config.Listen); s.listener != nil {
			return nil
		}
	}
	l, err := net.Listen("tcp", s.o.Config.Listen)
	if err != nil {
		return fmt.Errorf(`admin.listen: %w; choose another address, or "" for none`, err)
	}
	s.listener = l
	return nil
}

// listenKey is the setting that the listener is of.
const listenKey = "admin.listen"

// Listeners calls yield for what the server listens on, if anything, with the setting it is of and what that says.
func (s *Server) Listeners(yield func(key, addr string, l net.Listener) error) error {
	if s.listener == nil {
		return nil
	}
	return yield(listenKey, s.o.Config.Listen, s.listener)
}

// Leave ends the server when it has answered what it was asked, or with ctx. What it listens on is left to others who have
// it too.
func (s *Server) Leave(ctx context.Context) {
	_ = s.http.Shutdown(ctx)
	s.Close()
}

// Addr is where the server listens; nil: nowhere.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Serve answers until Close.
func (s *Server) Serve() error {
	if s.listener == nil {
		<-s.done
		return nil
	}
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Drain has /readyz say that keyrow is about to end.
func (s *Server) Drain() { s.drains.Store(true) }

// Close ends the server, and with it the requests under way.
func (s *Server) Close() {
	s.closed.Do(func() {
		close(s.done)
		_ = s.http.Close()
		if s.listener != nil {
			_ = s.listener.Close() // which the other does only once it serves
		}
	})
}

// connState closes connections beyond maxConns.
func (s *Server) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.conns.Add(1) > maxConns {
			_ = conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		s.conns.Add(-1)
	}
}

func (s *Server) handler() http.Handler {
	guarded := http.NewServeMux()
	guarded.Handle("GET /metrics", promhttp.HandlerFor(s.o.Metrics.registry, promhttp.HandlerOpts{}))
	guarded.HandleFunc("GET /status", s.status)
	guarded.HandleFunc("GET /parked", s.parked)
	guarded.HandleFunc("POST /parked/retry", s.act(Parking.Retry))
	guarded.HandleFunc("POST /parked/drop", s.act(Parking.Drop))
	guarded.HandleFunc("GET /{$}", s.page)
	if s.o.Config.Pprof {
		guarded.HandleFunc("GET /debug/pprof/", pprof.Index)
		guarded.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		guarded.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		guarded.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		guarded.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	all := http.NewServeMux()
	all.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") })
	all.HandleFunc("GET /readyz", s.bounded(s.readyz))
	// Whoever shows the token was given it; a browser that sends it along for another site's page shows where that is.
	all.HandleFunc("/", s.bounded(http.NewCrossOriginProtection().Handler(s.allowed(guarded)).ServeHTTP))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		all.ServeHTTP(w, r)
	})
}

// bounded lets maxRequests through at a time.
func (s *Server) bounded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			next(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			say(w, http.StatusServiceUnavailable, fmt.Sprintf("%d requests are being answered already; try again\n", maxRequests))
		}
	}
}

// allowed asks for the token. If there is none, it asks by which name keyrow was called: a page of another site can have
// its own name lead here and then be read what is answered (DNS rebinding), but not have the browser call it by ours.
func (s *Server) allowed(next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(s.o.Config.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.o.Config.Token != "":
			got := sha256.Sum256([]byte(shown(r)))
			if subtle.ConstantTimeCompare(got[:], want[:]) == 0 {
				w.Header().Set("WWW-Authenticate", `Basic realm="keyrow: any name, and admin.token as the password"`)
				say(w, http.StatusUnauthorized, "show admin.token, as a bearer token or as a password\n")
				return
			}
		case !s.ours(r.Host):
			say(w, http.StatusForbidden, fmt.Sprintf("%.100q is not known as a name of this machine; add it to admin.hosts, "+
				"or set admin.token\n", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// shown is the token that a request shows.
func shown(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Bearer") {
		return ""
	}
	return token
}

// ours reports whether hostport names this machine.
func (s *Server) ours(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	listen, _, _ := net.SplitHostPort(s.o.Config.Listen)
	is := func(name string) bool { return name != "" && strings.EqualFold(name, host) }
	return net.ParseIP(strings.Trim(host, "[]")) != nil || is("localhost") || is(s.hostname) || is(listen) ||
		slices.ContainsFunc(s.o.Config.Hosts, is)
}

// readyz says whether clients may be sent here.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.drains.Load() {
		say(w, http.StatusServiceUnavailable, "not ready: draining\n")
		return
	}
	if err := s.look().ready(); err != nil {
		say(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
		return
	}
	say(w, http.StatusOK, "ready\n")
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}

// Ask asks the admin listener of the keyrow that runs with this configuration whether it is well: at path /healthz or
// /readyz. The error says what it is not.
func Ask(ctx context.Context, c Config, path string) error {
	host, port, _ := net.SplitHostPort(c.Listen)
	switch {
	case c.Listen == "":
		return errors.New("admin.listen is empty, so there is nobody to ask; set it")
	case port == "0":
		return errors.New("admin.listen has port 0, so it is not known where to ask; set a port")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text := make([]byte, 4096)
	n, _ := resp.Body.Read(text)
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(text[:n])))
	}
	return nil
}

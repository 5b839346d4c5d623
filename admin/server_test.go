package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/rs/zerolog"

	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/proxy"
)

// Parts of keyrow, as they are at one time.
type (
	fakeProxy   proxy.Snapshot
	fakeFlusher backend.Snapshot
	fakeLoader  backend.LoadStats
	fakeWriter  backend.ThroughStats
)

func (f *fakeProxy) Snapshot() proxy.Snapshot     { return proxy.Snapshot(*f) }
func (f *fakeFlusher) Snapshot() backend.Snapshot { return backend.Snapshot(*f) }
func (f *fakeLoader) Stats() backend.LoadStats    { return backend.LoadStats(*f) }
func (f *fakeWriter) Stats() backend.ThroughStats { return backend.ThroughStats(*f) }

type fakeReplicas struct{}

func (fakeReplicas) Stats() backend.ReplicaStats { return backend.ReplicaStats{} }

// fakeParked has one row, and notes what is done about it.
type fakeParked struct{ did []string }

func (f *fakeParked) Parked(context.Context, int) ([]mapping.Parked, error) {
	return []mapping.Parked{{Key: "user:\xff", Table: "users", Code: 1062, Error: "Duplicate entry", Since: time.Unix(0, 0), Tries: 2}}, nil
}

func (f *fakeParked) Retry(_ context.Context, keys ...string) (int, error) {
	f.did = append(f.did, "retry "+keys[0])
	return 1, nil
}

func (f *fakeParked) Drop(_ context.Context, keys ...string) (int, error) {
	if keys[0] == "gone" {
		return 0, nil
	}
	f.did = append(f.did, "drop "+keys[0])
	return 1, nil
}

// newTest makes a server whose parts do nothing; change adjusts its options.
func newTest(t *testing.T, change func(*Options)) *Server {
	t.Helper()
	o := Options{
		Config: DefaultConfig(), Version: "v1", Metrics: NewMetrics("v1"), Proxy: &fakeProxy{}, Flusher: &fakeFlusher{},
		Loader: &fakeLoader{}, Replicas: fakeReplicas{}, Writer: &fakeWriter{}, Mappings: func() *mapping.Set { return &mapping.Set{} }, MaxPending: func() int { return 10 }, Parking: &fakeParked{}, Log: zerolog.Nop(),
	}
	if change != nil {
		change(&o)
	}
	return New(o)
}

// ask has the server answer one request.
func ask(s *Server, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, r)
	return w
}

const (
	token = "0123456789abcdef"
	local = "http://127.0.0.1:9121"
	idOf  = `{"id":"dXNlcjox"}` // user:1
)

// Who gets to see what, and to change what.
func TestWhoMay(t *testing.T) {
	open, tokened := DefaultConfig(), DefaultConfig()
	tokened.Token = token
	wide, named, profiled := open, open, open
	wide.Listen = "0.0.0.0:9121"
	named.Hosts = []string{"keyrow-1.internal"}
	profiled.Pprof = true
	for _, test := range []struct {
		name   string
		config Config
		method string
		target string
		header []string
		want   int
	}{
		{"by address", open, "GET", local + "/metrics", nil, 200},
		{"by address of version 6", open, "GET", "http://[::1]:9121/metrics", nil, 200},
		{"by localhost", open, "GET", "http://LocalHost:9121/status", nil, 200},
		{"by a stranger's name", open, "GET", "http://evil.example:9121/metrics", nil, 403},
		{"the page by a stranger's name", open, "GET", "http://evil.example/", nil, 403},
		{"the health by any name", open, "GET", "http://evil.example:9121/healthz", nil, 200},
		{"readiness by any name", open, "GET", "http://evil.example:9121/readyz", nil, 200},
		{"by a name of ours", named, "GET", "http://KEYROW-1.internal:9121/metrics", nil, 200},

		{"without the token", tokened, "GET", local + "/metrics", nil, 401},
		{"the page without the token", tokened, "GET", local + "/", nil, 401},
		{"with another token", tokened, "GET", local + "/metrics", []string{"Authorization", "Bearer " + token + "x"}, 401},
		{"with the token as something else", tokened, "GET", local + "/metrics", []string{"Authorization", "Digest " + token}, 401},
		{"with the token", tokened, "GET", "http://any.example/metrics", []string{"Authorization", "Bearer " + token}, 200},
		{"with the token as a password", tokened, "GET", local + "/", []string{"Authorization", "Basic OjAxMjM0NTY3ODlhYmNkZWY="}, 200},
		{"the health without the token", tokened, "GET", local + "/healthz", nil, 200},

		{"retry", open, "POST", local + "/parked/retry", nil, 204},
		{"retry from our page", open, "POST", local + "/parked/retry",
			[]string{"Origin", local, "Sec-Fetch-Site", "same-origin"}, 204},
		{"retry from another site", open, "POST", local + "/parked/retry", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"retry from another origin", open, "POST", local + "/parked/retry", []string{"Origin", "http://evil.example"}, 403},
		{"retry from another site with the token", tokened, "POST", local + "/parked/retry",
			[]string{"Sec-Fetch-Site", "cross-site", "Authorization", "Bearer " + token}, 403},
		{"retry by a stranger's name", open, "POST", "http://evil.example/parked/retry",
			[]string{"Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}, 403},
		{"retry where anybody may come", wide, "POST", local + "/parked/retry", nil, 403},
		{"retry with GET", open, "GET", local + "/parked/retry", nil, 405},
		{"drop", open, "POST", local + "/parked/drop", nil, 204},

		{"no profiles", open, "GET", local + "/debug/pprof/", nil, 404},
		{"profiles", profiled, "GET", local + "/debug/pprof/", nil, 200},
		{"nothing else", open, "GET", local + "/etc/passwd", nil, 404},
	} {
		t.Run(test.name, func(t *testing.T) {
			parked := &fakeParked{}
			s := newTest(t, func(o *Options) { o.Config, o.Parking = test.config, parked })
			r := ask(s, test.method, test.target, idOf, test.header...)
			if r.Code != test.want {
				t.Errorf("%s %s: %d, want %d: %s", test.method, test.target, r.Code, test.want, r.Body.String())
			}
			if acted := len(parked.did) > 0; acted != (test.want == 204) {
				t.Errorf("%s %s did %q", test.method, test.target, parked.did)
			}
			for _, h := range []string{"Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options"} {
				if r.Header().Get(h) == "" {
					t.Errorf("there is no header %s", h)
				}
			}
		})
	}
}

func TestParkedRows(t *testing.T) {
	parked := &fakeParked{}
	s := newTest(t, func(o *Options) { o.Parking = parked })
	var rows []parkedRow
	if err := json.NewDecoder(ask(s, "GET", local+"/parked", "").Body).Decode(&rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || string(rows[0].ID) != "user:\xff" || rows[0].Code != 1062 {
		t.Errorf("parked rows are %+v", rows)
	}
	// The very bytes of the key come back, though it is no text.
	body, _ := json.Marshal(rows[0])
	if r := ask(s, "POST", local+"/parked/drop", string(body)); r.Code != 204 || !slices.Equal(parked.did, []string{"drop user:\xff"}) {
		t.Errorf("drop: %d, did %q", r.Code, parked.did)
	}
	for body, want := range map[string]int{`{"id":"Z29uZQ=="}`: 409, `{}`: 400, `{"id":"%"}`: 400, ``: 400,
		`{"id":"` + strings.Repeat("A", maxBody) + `"}`: 400} {
		if r := ask(s, "POST", local+"/parked/drop", body); r.Code != want {
			t.Errorf("drop %.20s: %d, want %d", body, r.Code, want)
		}
	}
}

func TestReady(t *testing.T) {
	var down error
	var mysqlDown error
	s := newTest(t, func(o *Options) {
		o.Checks = []Check{
			{Name: "redis", Server: true, Needed: true, Ask: func(context.Context) error { return down }},
			{Name: "mysql", Server: true, Ask: func(context.Context) error { return mysqlDown }},
		}
	})
	is := func(want string) {
		t.Helper()
		s.mu.Lock()
		s.state = nil
		s.mu.Unlock()
		r := ask(s, "GET", local+"/readyz", "")
		if got := r.Body.String(); got != want || (r.Code == http.StatusOK) != (want == "ready\n") {
			t.Errorf("readiness is %d %q, want %q", r.Code, got, want)
		}
	}
	is("ready\n")
	mysqlDown = errors.New("refused") // rows in Redis are still served
	is("ready\n")
	down = errors.New("refused")
	is("not ready: redis: refused\n")
	down = nil
	s.Drain()
	is("not ready: draining\n")
}

// However many look, the parts of keyrow are asked now and then only.
func TestLooksAreShared(t *testing.T) {
	asked := 0
	s := newTest(t, func(o *Options) {
		o.Checks = []Check{{Name: "redis", Ask: func(context.Context) error { asked++; return nil }}}
	})
	first := s.look()
	for s.look() == first { // until it is no longer fresh
		if asked != 1 {
			t.Fatalf("asked %d times for one look", asked)
		}
	}
}

func TestTooManyRequests(t *testing.T) {
	s := newTest(t, nil)
	for range maxRequests {
		s.slots <- struct{}{}
	}
	if r := ask(s, "GET", local+"/metrics", ""); r.Code != 503 || r.Header().Get("Retry-After") == "" {
		t.Errorf("one more is answered %d", r.Code)
	}
	if r := ask(s, "GET", local+"/healthz", ""); r.Code != 200 {
		t.Errorf("the health is answered %d", r.Code)
	}
}

func TestTooManyConnections(t *testing.T) {
	s := newTest(t, func(o *Options) { o.Config.Listen = "127.0.0.1:0" })
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	var all []net.Conn
	for range maxConns {
		all = append(all, dial())
	}
	more := dial()
	if _, err := more.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more is not closed: %v", err)
	}
	c := all[0]
	if _, err := c.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(io.LimitReader(c, 15)); string(b) != "HTTP/1.1 200 OK" {
		t.Errorf("the first is answered %q, %v", b, err)
	}
	for _, c := range append(all, more) {
		_ = c.Close()
	}
	s.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// The page has nothing from elsewhere, and the policy lets in what it has.
func TestPage(t *testing.T) {
	r := ask(newTest(t, nil), "GET", local+"/", "")
	page, policy := r.Body.String(), r.Header().Get("Content-Security-Policy")
	for _, part := range []string{pageCSS, pageJS} {
		if strings.Count(page, part) != 1 || !strings.Contains(policy, hash(part)) {
			t.Errorf("a part of the page is not there, or not in the policy %s", policy)
		}
	}
	for _, bad := range []string{"http://", "https://", "//cdn", "style=", "onclick=", "innerHTML"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %s", policy)
	}
}

// The names and texts are as Prometheus wants them, and everything there is to count is there from the start.
func TestMetricNames(t *testing.T) {
	s := newTest(t, func(o *Options) {
		o.Checks = []Check{{Name: "redis", Server: true, Ask: func(context.Context) error { return nil }}}
	})
	s.o.Metrics.Timed(time.Millisecond, time.Microsecond)
	s.o.Metrics.Selected("user", 3, time.Millisecond)
	s.o.Metrics.Flushed(3, time.Millisecond)
	families, err := s.o.Metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	for _, want := range []string{"keyrow_build_info", "keyrow_commands_total", "keyrow_command_duration_seconds", "keyrow_up",
		"keyrow_journal_pending", "keyrow_breaker_open", "keyrow_flush_batch_keys", "process_resident_memory_bytes"} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no %s", want)
		}
	}
}

func TestAsk(t *testing.T) {
	s := newTest(t, func(o *Options) { o.Config.Listen = "127.0.0.1:0" })
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	_, port, _ := net.SplitHostPort(s.Addr().String())
	for _, listen := range []string{"127.0.0.1:" + port, "0.0.0.0:" + port, ":" + port} {
		if err := Ask(t.Context(), Config{Listen: listen}, "/readyz"); err != nil {
			t.Errorf("%s: %v", listen, err)
		}
	}
	s.Drain()
	if err := Ask(t.Context(), Config{Listen: "127.0.0.1:" + port}, "/readyz"); err == nil || err.Error() != "not ready: draining" {
		t.Errorf("of one that drains: %v", err)
	}
	s.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	for _, listen := range []string{"127.0.0.1:" + port, "127.0.0.1:0", ""} {
		if err := Ask(t.Context(), Config{Listen: listen}, "/healthz"); err == nil {
			t.Errorf("%q is healthy, but nobody is there", listen)
		}
	}
}

func TestWarning(t *testing.T) {
	for _, test := range []struct {
		config Config
		want   bool
	}{
		{Config{}, false}, {DefaultConfig(), false}, {Config{Listen: "[::1]:9121"}, false}, {Config{Listen: "localhost:0"}, false},
		{Config{Listen: ":9121"}, true}, {Config{Listen: "10.0.0.1:9121"}, true}, {Config{Listen: "host:9121"}, true},
		{Config{Listen: ":9121", Token: token}, false},
	} {
		if got := test.config.Warning(); (got != "") != test.want {
			t.Errorf("the warning about %+v is %q", test.config, got)
		}
	}
}

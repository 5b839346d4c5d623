// Package proxy is the RESP side of keyrow: it takes commands from clients, sends them to Redis over shared
// connections, and leads reads and writes of mapped keys through the read path and the write path.
//
// [Server] accepts clients. A session (one goroutine a client) cuts commands out of the client's bytes and dispatches
// them; a lane (one connection to Redis, a writer and a reader goroutine) carries them and hands the replies to the
// clients' outboxes. Follow a GET from session.commands through dispatch and get to lane.consume, and a SET through
// set and run.
package proxy

import (
	"context"
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"keyrow/mapping"
)

// Loader materialises the row of a key that Redis does not have.
type Loader interface {
	// Load calls done exactly once, from any goroutine: with the image, with nil if the row does not exist, or with
	// an error, which goes to the client as it is if it has a method RESP() string. key is not kept.
	Load(m *mapping.Mapping, key []byte, done func(image []byte, err error))
}

// Gate says whether the journal takes more marks.
type Gate interface {
	// Admit returns nil, or why no further write may be logged now.
	Admit() error
	// Marked says that n marks were added.
	Marked(n int)
}

// Stats counts what sessions did with mapped keys since the start.
type Stats struct {
	Hits    atomic.Int64 // mapped reads answered by Redis
	Misses  atomic.Int64 // mapped reads that went to the loader
	Writes  atomic.Int64 // mapped writes acknowledged
	Deletes atomic.Int64 // commands acknowledged that deleted rows

	Refused atomic.Int64 // clients over max_clients
	Failed  atomic.Int64 // clients that did not get through the PROXY header or the TLS handshake
	Idle    atomic.Int64 // clients closed after idle_timeout
}

// Options are what a Server works with; all are required unless said otherwise.
type Options struct {
	Config   Config
	Upstream Upstream
	Commands *Commands
	Mappings *mapping.Set
	Journal  mapping.Journal
	Loader   Loader
	Gate     Gate
	Log      zerolog.Logger
	// Report adds the lines of KEYROW INFO that others know of; optional.
	Report func(line func(name string, n int64))
	// Hook is called at labelled points, for tests; optional.
	Hook func(point string)
}

// Server serves clients.
type Server struct {
	cfg      Config
	up       Upstream
	upstream *upstream
	commands *Commands
	maps     atomic.Pointer[mapping.Set]
	journal  mapping.Journal
	loader   Loader
	gate     Gate
	log      zerolog.Logger
	report   func(line func(name string, n int64))
	at       func(point string)
	stats    Stats

	listeners []*listener
	tls       *tls.Config // of the listeners for TLS
	rare      zerolog.Logger
	clients   atomic.Int64
	ids       atomic.Int64
	done      chan struct{}
	wg        sync.WaitGroup // sessions, accepting, and the tending of lanes

	mu       sync.Mutex
	sessions map[*session]struct{}
	draining bool
}

// New makes a server; Listen and Serve start it.
func New(o Options) *Server {
	s := &Server{
		cfg: o.Config, up: o.Upstream, upstream: newUpstream(o.Upstream, o.Log), commands: o.Commands,
		journal: o.Journal, loader: o.Loader, gate: o.Gate, log: o.Log, report: o.Report, at: o.Hook,
		rare: rarely(o.Log),
		done: make(chan struct{}), sessions: map[*session]struct{}{},
	}
	// Ids of clients are nobody else's: not those of Redis's own connections, nor of a keyrow that was started in
	// another second. And they are exact as the doubles of JavaScript.
	s.ids.Store(time.Now().Unix() << 20)
	s.upstream.dismissed = s.dismissed
	s.maps.Store(o.Mappings)
	if s.report == nil {
		s.report = func(func(string, int64)) {}
	}
	if s.at == nil {
		s.at = func(string) {}
	}
	return s
}

// dismissed closes the clients that use a lane set.
func (s *Server) dismissed(set *laneSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for client := range s.sessions {
		if client.home.Load() == set {
			client.kill(errDismissed)
		}
	}
}

// client finds a client of keyrow's.
func (s *Server) client(is func(*session) bool) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for client := range s.sessions {
		if is(client) {
			return client
		}
	}
	return nil
}

// blockedAs is the id by which Redis knows the connection of the session that keyrow calls id, or 0 if it has none of
// its own.
func (s *Server) blockedAs(id int64) int64 {
	s.upstream.mu.Lock()
	defer s.upstream.mu.Unlock()
	for l := range s.upstream.owned {
		if client := l.private.session(); client != nil && client.id == id {
			return l.private.id
		}
	}
	return 0
}

// wait lets client's connection be read for d from now on, or without end if d is 0. It returns false when the server
// is draining: then no client has any time left.
func (s *Server) wait(client *session, d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	_ = client.conn.SetReadDeadline(until)
	return true
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Shutdown stops accepting and reading, lets every command that was read be answered, and closes. When ctx ends first
// the remaining clients are cut off. It returns once every goroutine of the server has ended; a second call does
// nothing.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return
	}
	s.draining = true
	for client := range s.sessions {
		_ = client.conn.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	close(s.done)
	s.closeListeners()
	ended := make(chan struct{})
	go func() { s.wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		s.mu.Lock()
		for client := range s.sessions {
			client.kill(errClosed)
		}
		s.mu.Unlock()
		s.upstream.close()
		<-ended
		return
	}
	s.upstream.close()
}

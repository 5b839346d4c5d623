// Package proxy is the RESP side of keyrow: it takes commands from clients, sends them to Redis over shared
// connections, and leads reads and writes of mapped keys through the read path and the write path.
//
// [Server] accepts clients. A loop waits for all of their connections and runs the session of each that has sent
// something: it cuts commands out of the client's bytes and dispatches them. A lane (one connection to Redis) carries
// them and hands the replies to the clients' outboxes. Follow a GET from session.commands through dispatch and get to
// lane.consume, and a SET through set and run.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"keyrow/mapping"
	"keyrow/rarely"
)

// Loader materialises the row of a key that Redis does not have.
type Loader interface {
	// Load calls done exactly once, from any goroutine: with the image, with nil if there is nothing, or with an error,
	// which goes to the client as it is if it has a method RESP() string. Unless the mapping's kind is a text, the image
	// is in Redis then, and what done is given is empty. leased says that another process was loading it, which was waited
	// for. key is not kept.
	Load(m *mapping.Mapping, key []byte, done func(image []byte, leased bool, err error))
	// Bypass is Load without Redis, while that cannot be reached; done gets the values of the image, as mapping.Kind has
	// them.
	Bypass(m *mapping.Mapping, key []byte, done func(values [][]byte, err error))
	// Hit is told of reads that Redis could answer, if m.EarlyRefresh is not 0. It must not wait, nor keep key.
	Hit(m *mapping.Mapping, key []byte)
}

// Control runs scripts as keyrow itself, for what a client may know and has not the rights to find out.
type Control interface {
	// Integer calls done exactly once, from any goroutine, with the integer that the script returned.
	Integer(script string, keys, args []string, done func(n int64, err error))
}

// Writer writes rows to MySQL at once.
type Writer interface {
	// Write makes all of the changes or none, and waits for it. It returns how many rows of those to be deleted were
	// there. The error goes to the client as that of Loader does; it is mapping.ErrWaits if a key has to be written
	// otherwise, and nothing was changed then.
	Write(changes []mapping.Change) (deleted int64, err error)
	// Change writes the row of key as compute says, which is given the image that it has, nil if there is none, while
	// nobody else can write it; unless that says to write nothing. It may be called several times, and the last time counts.
	// The image that MySQL has made of what was written is returned, nil if there is none.
	Change(m *mapping.Mapping, key []byte, compute func(image []byte) (c mapping.Change, write bool, err error)) (image []byte, err error)
	// Create makes all of the changes if none of their keys has an image, which nobody else can give them meanwhile, or
	// none; made tells which.
	Create(changes []mapping.Change) (made bool, err error)
}

// Gate says whether the journal takes more marks.
type Gate interface {
	// Admit returns nil, or why no further write may be logged now.
	Admit() error
	// Marked says that n marks were added.
	Marked(n int)
}

// Stats counts what sessions and lanes did since the start. What was read is counted by mapping.Counts.
type Stats struct {
	Writes    atomic.Int64 // mapped writes acknowledged
	Coalesced atomic.Int64 // of these, such to a key that was marked already
	Deletes   atomic.Int64 // commands acknowledged that deleted rows

	Refused  atomic.Int64 // clients over max_clients
	Failed   atomic.Int64 // clients that did not get through the PROXY header or the TLS handshake
	Idle     atomic.Int64 // clients closed after idle_timeout
	Unread   atomic.Int64 // clients closed at output_limit
	Paused   atomic.Int64 // times a client was left unread, for it was owed too much
	Backlog  atomic.Int64 // times a client was left unread, for its lane had too much to write
	Errors   atomic.Int64 // error replies of Redis that were passed on as they came
	Unsent   atomic.Int64 // commands answered that they were not sent to Redis
	Unknown  atomic.Int64 // commands answered that it is unknown what became of them: the connection was lost
	Failures atomic.Int64 // connections to Redis that could not be made
	Lost     atomic.Int64 // connections to Redis that ended by themselves
}

// Options are what a Server works with; all are required unless said otherwise.
type Options struct {
	Config   Config
	Upstream Upstream
	Commands *Commands
	Mappings *mapping.Set
	Journal  mapping.Journal
	Loader   Loader
	Control  Control
	Writer   Writer
	Replicas Replicas
	Gate     Gate
	Parking  Parking
	Drainer  Drainer
	Log      zerolog.Logger
	// Slow says what KEYROW SLOW keeps.
	Slow SlowConfig
	// Report adds the lines of KEYROW INFO that others know of; optional.
	Report func(line func(name string, n int64))
	// Reload reads the configuration again and puts it in force, or fails having changed nothing, or says what it could not
	// do. It returns what changed, a line each; optional.
	Reload func() (changes []string, err error)
	// JournalReport makes the lines of KEYROW JOURNAL; optional.
	JournalReport func(line func(name string, n int64))
	// Timed is told how long a command took, at most a thousand times a second for each lane: Redis and the way there,
	// and keyrow itself. It must not block; optional.
	Timed func(upstream, own time.Duration)
	// Inherit returns the socket that a setting has at an address if somebody opened it before, else nil; optional.
	Inherit func(key, addr string) net.Listener
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
	control  Control
	writer   Writer
	replicas Replicas
	gate     Gate
	parking  Parking
	drainer  Drainer
	log      zerolog.Logger
	report   func(line func(name string, n int64))
	reload   func() (changes []string, err error)

	journalReport func(line func(name string, n int64))
	slow          *slowLog

	at     func(point string)
	hooked bool // at may wait
	stats  Stats
	tally  tally // of sessions that are not on a loop

	inherit   func(key, addr string) net.Listener
	listeners []*listener
	accepting sync.WaitGroup // a goroutine of each listener
	tls       *tls.Config    // of the listeners for TLS
	rare      zerolog.Logger
	loops     []*loop
	loopCount int
	nextLoop  atomic.Uint32
	leaders   sync.WaitGroup // a goroutine of each loop
	clients   atomic.Int64
	most      atomic.Int64 // of them
	streams   atomic.Int64 // large commands that are passed on as they come
	ids       atomic.Int64
	drains    atomic.Bool // draining, without mu
	successor atomic.Pointer[successor]
	serving   chan struct{} // closed once there are loops
	done      chan struct{}
	wg        sync.WaitGroup // sessions, accepting, and the tending of lanes

	mu       sync.Mutex
	sessions map[*session]struct{}
	empty    chan struct{} // to be closed once there are no sessions; nil: nobody waits for that
	draining bool
}

// New makes a server; Listen and Serve start it.
func New(o Options) *Server {
	s := &Server{
		cfg: o.Config, up: o.Upstream, upstream: newUpstream(o.Upstream, rarely.Log(o.Log)), commands: o.Commands,
		journal: o.Journal, loader: o.Loader, control: o.Control, writer: o.Writer, replicas: o.Replicas, gate: o.Gate, log: o.Log, report: o.Report, at: o.Hook,
		parking: o.Parking, drainer: o.Drainer, journalReport: o.JournalReport,
		reload: o.Reload, rare: rarely.Log(o.Log),
		serving: make(chan struct{}), done: make(chan struct{}), sessions: map[*session]struct{}{}, loopCount: loopsFor(o.Upstream.Lanes),
	}
	s.slow = newSlowLog(o.Slow, s.rare)
	// Ids of clients are nobody else's: not those of Redis's own connections, nor of a keyrow that was started in
	// another second. And they are exact as the doubles of JavaScript.
	s.ids.Store(time.Now().Unix() << 20)
	s.SetMaxClients(o.Config.MaxClients)
	s.upstream.dismissed, s.upstream.bypassable, s.upstream.durable = s.dismissed, s.bypassable, s.durable
	s.upstream.stats, s.upstream.timed = &s.stats, o.Timed
	if s.upstream.timed == nil {
		s.upstream.timed = func(time.Duration, time.Duration) {}
	}
	s.maps.Store(o.Mappings)
	if s.report == nil {
		s.report = func(func(string, int64)) {}
	}
	if s.reload == nil {
		s.reload = func() ([]string, error) { return nil, errors.New("there is no configuration to read again") }
	}
	if s.journalReport == nil {
		s.journalReport = func(func(string, int64)) {}
	}
	if s.inherit = o.Inherit; s.inherit == nil {
		s.inherit = func(string, string) net.Listener { return nil }
	}
	if s.hooked = s.at != nil; !s.hooked {
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
	if client.conn != nil {
		var until time.Time
		if d > 0 {
			until = time.Now().Add(d)
		}
		_ = client.conn.SetReadDeadline(until)
	}
	return true
}

// startLoops starts the loops. It returns false when there is nothing to serve.
func (s *Server) startLoops() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false, nil
	}
	loops, err := newLoops(s.loopCount)
	if err != nil {
		return false, err
	}
	s.loops, s.upstream.loops = loops, loops
	for _, l := range loops {
		s.leaders.Add(1)
		go l.lead(s.loopEnded)
	}
	return true, nil
}

// loop is the loop for the next session, or nil if there are none.
func (s *Server) loop() *loop {
	if len(s.loops) == 0 {
		return nil
	}
	return s.loops[int(s.nextLoop.Add(1))%len(s.loops)]
}

// loopEnded is called by a loop that was closed.
func (s *Server) loopEnded() { s.leaders.Done() }

// left forgets a session that has ended.
func (s *Server) left(client *session) {
	s.mu.Lock()
	delete(s.sessions, client)
	if len(s.sessions) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
	s.mu.Unlock()
	s.clients.Add(-1)
	s.wg.Done()
}

// lookAround has sessions on loops see whether their clients are idle, until the server drains.
func (s *Server) lookAround() {
	tick := time.NewTicker(s.cfg.IdleTimeout / idleTicks)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
			s.mu.Lock()
			for client := range s.sessions {
				client.mu.Lock()
				if client.point != nil {
					client.look.Store(true)
					client.nudge()
				}
				client.mu.Unlock()
			}
			s.mu.Unlock()
		}
	}
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
	s.drains.Store(true)
	for client := range s.sessions {
		client.mu.Lock()
		client.wake()
		client.mu.Unlock()
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
	}
	s.upstream.close()
	for _, l := range s.loops {
		l.close()
	}
	s.leaders.Wait()
}

package admin

import (
	"context"
	"fmt"
	"sync"
	"time"

	"keyrow/backend"
	"keyrow/mapping"
	"keyrow/proxy"
)

const (
	// fresh is how long what was read off the parts of keyrow is shown again, so that many who look cost no more than one.
	fresh = 500 * time.Millisecond
	// askTimeout is how long a server may take to answer whether it is there.
	askTimeout = time.Second
)

// Check is something that may be well or not.
type Check struct {
	Name   string
	Server bool // it asks a server, the Name of which is that
	Needed bool // keyrow is not ready without
	Ask    func(context.Context) error
}

type answer struct {
	Check
	err error
}

// state is what was read off the parts of keyrow at one time.
type state struct {
	at       time.Time
	proxy    proxy.Snapshot
	flush    backend.Snapshot
	loads    backend.LoadStats
	replicas backend.ReplicaStats
	through  backend.ThroughStats
	mappings []*mapping.Mapping
	checks   []answer
}

// look returns a state that is fresh.
func (s *Server) look() *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil || time.Since(s.state.at) >= fresh {
		s.state = s.read()
	}
	return s.state
}

func (s *Server) read() *state {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	st := &state{checks: make([]answer, len(s.o.Checks))}
	var asking sync.WaitGroup
	for i, c := range s.o.Checks {
		asking.Go(func() { st.checks[i] = answer{c, c.Ask(ctx)} })
	}
	asking.Wait()
	st.proxy, st.flush, st.loads = s.o.Proxy.Snapshot(), s.o.Flusher.Snapshot(), s.o.Loader.Stats()
	st.replicas = s.o.Replicas.Stats()
	st.through = s.o.Writer.Stats()
	st.mappings = served(s.o.Mappings())
	st.at = time.Now()
	return st
}

// ready is nil, or what keyrow is not ready for.
func (st *state) ready() error {
	for _, c := range st.checks {
		if c.Needed && c.err != nil {
			return fmt.Errorf("%s: %w", c.Name, c.err)
		}
	}
	return nil
}

package proxy

// Snapshot is the state of a Server, for metrics. What counts, counts since the start.
type Snapshot struct {
	Commands [len(Groups)][len(Outcomes)]int64 // as Groups and Outcomes have them

	Clients    int64 // connected now
	MaxClients int64
	Refused    int64 // over max_clients
	Failed     int64 // not through the PROXY header or the TLS handshake
	Idle       int64 // closed after idle_timeout
	Unread     int64 // closed at output_limit

	Paused  int64 // times a client was left unread, for it was owed too much
	Backlog int64 // times a client was left unread, for its lane had too much to write
	Replies int64 // bytes of replies that wait for clients now
	Queued  int64 // bytes of commands that wait for Redis now

	Writes    int64 // writes of rows that were acknowledged
	Coalesced int64 // of these, such to a key that was marked already
	Deletes   int64 // rows deleted

	Slow [ways]int64 // commands that were slow, as Ways has them

	Errors   int64 // error replies of Redis that were passed on
	Unsent   int64 // commands answered that they were not sent to Redis
	Unknown  int64 // commands answered that it is unknown what became of them
	Failures int64 // connections to Redis that could not be made
	Lost     int64 // connections to Redis that ended by themselves

	Lanes  [len(LaneStates)]int64 // shared lanes now, as LaneStates has them
	Pinned [len(PinReasons)]int64 // lanes that one session owns now, as PinReasons has them
	Spare  int64                  // such lanes that nobody uses
}

// Broken reports whether the breaker of Redis is open: all shared lanes are down, so commands are answered at once.
func (s *Snapshot) Broken() bool {
	return s.Lanes[laneDown] > 0 && s.Lanes[laneUp]+s.Lanes[laneConnecting] == 0
}

// LaneStates are the states of a lane. While it is down, its breaker is open: commands are answered at once.
var LaneStates = [...]string{laneConnecting: "connecting", laneUp: "up", laneDown: "down"}

// pinReason is why a session owns a lane.
type pinReason int32

const (
	pinOther pinReason = iota
	pinTransaction
	pinWatch
	pinState  // something was set on the connection
	pinBlock  // a command that may block
	pinPubSub // subscriptions
	pinRelay  // MONITOR, replication, the Lua debugger
	pinStream // a large command that is passed on as it comes
)

// PinReasons are the names of the reasons.
var PinReasons = [...]string{"other", "transaction", "watch", "state", "blocking", "subscription", "relay", "stream"}

// reason is why the session of p owns it, as far as can be seen from outside.
func (p *private) reason(s *session) pinReason {
	switch {
	case p.endless.Load():
		return pinRelay
	case p.subscribed.Load() > 0 || s.subscriber.Load():
		return pinPubSub
	}
	return pinReason(p.why.Load())
}

// Snapshot looks at every session and every lane, so it is not for each command.
func (s *Server) Snapshot() Snapshot {
	st := &s.stats
	snap := Snapshot{
		Clients: s.clients.Load(), MaxClients: s.most.Load(),
		Refused: st.Refused.Load(), Failed: st.Failed.Load(), Idle: st.Idle.Load(), Unread: st.Unread.Load(),
		Paused: st.Paused.Load(), Backlog: st.Backlog.Load(),
		Writes: st.Writes.Load(), Coalesced: st.Coalesced.Load(), Deletes: st.Deletes.Load(),
		Errors: st.Errors.Load(), Unsent: st.Unsent.Load(), Unknown: st.Unknown.Load(),
		Failures: st.Failures.Load(), Lost: st.Lost.Load(),
	}
	for i := range s.slow.counts {
		snap.Slow[i] = s.slow.counts[i].Load()
	}
	s.mu.Lock()
	tallies := []*tally{&s.tally}
	for _, l := range s.loops {
		tallies = append(tallies, &l.tally)
	}
	for client := range s.sessions {
		snap.Replies += client.pending.Load()
	}
	s.mu.Unlock()
	for _, t := range tallies {
		for g := range t.commands {
			for o := range t.commands[g] {
				snap.Commands[g][o] += t.commands[g][o].Load()
			}
		}
	}
	u := s.upstream
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, set := range u.sets {
		for _, l := range set.lanes {
			l.count(&snap)
		}
	}
	for _, set := range u.retired {
		for _, l := range set.lanes {
			l.count(&snap)
		}
	}
	for l := range u.owned {
		if client := l.private.session(); client != nil {
			snap.Pinned[l.private.reason(client)]++
		} else {
			snap.Spare++
		}
	}
	return snap
}

func (l *lane) count(snap *Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	snap.Queued += int64(l.out.size)
	if l.state != laneClosed {
		snap.Lanes[l.state]++
	}
}

// reads is how many keys of rows and results commands found in Redis, and how many they did not.
func (s *Server) reads() (hits, misses int64) {
	for _, c := range s.maps.Load().Counts() {
		hits, misses = hits+c.Hits.Load(), misses+c.Misses.Load()
	}
	return hits, misses
}

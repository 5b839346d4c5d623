package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// peers are the two ends of a client's connection, as CLIENT INFO and the log show them.
type peers struct{ addr, laddr string }

// addrs is where the client comes from and where it connected to: as the PROXY header has it, if there was one.
func (s *session) addrs() (addr, laddr string) {
	p := s.peers.Load()
	return p.addr, p.laddr
}

// ends names the two ends of conn.
func ends(conn net.Conn) *peers {
	local := conn.LocalAddr()
	if local.Network() == "unix" {
		path := local.String() + ":0" // as Redis writes both; the client's end has no name
		return &peers{path, path}
	}
	return &peers{conn.RemoteAddr().String(), local.String()}
}

// handshake does what comes before the first command: the PROXY header and the TLS handshake.
func (s *session) handshake() error {
	cfg := &s.srv.cfg
	over, isTLS := s.conn.(*secured)
	if isTLS || cfg.ProxyProtocol {
		if !s.srv.wait(s, cfg.HandshakeTimeout) {
			return errClosed
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(cfg.HandshakeTimeout))
		if err := s.greet(over); err != nil {
			// Balancers connect and close to see whether somebody listens, and a server that drains waits for nobody.
			if !errors.Is(err, io.EOF) && !(errors.Is(err, errLate) && s.srv.isDraining()) {
				s.srv.stats.Failed.Add(1)
				addr, _ := s.addrs()
				s.srv.rare.Warn().Err(err).Str("client", addr).Msg("client closed before its first command")
			}
			return err
		}
		_ = s.conn.SetWriteDeadline(time.Time{})
	} else if cfg.IdleTimeout == 0 {
		return nil // there is no deadline to set, which is the usual case
	}
	if !s.srv.wait(s, cfg.IdleTimeout/idleTicks) {
		return errClosed
	}
	return nil
}

// greet takes the header and then shakes hands, unless over is nil, before the deadlines that are set.
func (s *session) greet(over *secured) error {
	if s.srv.cfg.ProxyProtocol {
		conn := s.conn
		if over != nil {
			conn = over.below.Conn
		}
		p, err := readProxyHeader(conn)
		if err != nil {
			return fmt.Errorf("PROXY header: %w", late(err))
		}
		if p != nil {
			s.peers.Store(p)
		}
	}
	if over == nil {
		return nil
	}
	if err := over.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", late(err))
	}
	over.below.hasty = true
	return nil
}

// late says it in plain words if the client took too long.
func late(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errLate
	}
	return err
}

var errLate = errors.New("not complete within handshake_timeout")

// idleTicks is how often within idle_timeout a silent client is looked at.
const idleTicks = 4

// idleness is what was seen of a client that is silent.
type idleness struct {
	moved int64 // reads and replies so far
	quiet int   // ticks since they changed
}

var errIdle = errors.New("idle for longer than idle_timeout")

// linger returns nil if the client is still to be waited for after its read ended with err: nothing came for a tick, and
// idle_timeout is not over. Like Redis's, it does not apply to clients that wait for something themselves.
func (s *session) linger(err error) error {
	timeout := s.srv.cfg.IdleTimeout
	if timeout == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	waits := s.answered.Load() < s.owed || s.pending.Load() > 0 || s.pinned() && s.lane.private.leisurely()
	// Neither is ever taken back, so the sum stays the same only if both do.
	moved := s.fetched + s.answered.Load()
	if s.idle.quiet++; waits || moved != s.idle.moved {
		s.idle = idleness{moved: moved}
	}
	if s.idle.quiet == idleTicks {
		s.srv.stats.Idle.Add(1)
		return errIdle
	}
	if !s.srv.wait(s, timeout/idleTicks) {
		return err
	}
	return nil
}

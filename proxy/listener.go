package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"keyrow/rarely"
)

// Limits of the pause after an accept that failed.
const (
	shortPause = 5 * time.Millisecond
	longPause  = time.Second
)

// Addrs are addresses to listen on: host:port (port 0: any free one) or unix:///path. In a configuration it is one
// text or a list of them.
type Addrs []string

// listener is one address that clients connect to.
type listener struct {
	net.Listener
	key, addr string // the setting it is of, and what that says
	tls       bool
	inherited bool
}

// String is the address as it is logged.
func (l *listener) String() string {
	addr := l.Addr().String()
	if l.Addr().Network() == "unix" {
		addr = "unix://" + addr
	}
	if l.tls {
		addr = "tls://" + addr
	}
	return addr
}

// splitAddr makes of an address what net.Listen takes.
func splitAddr(addr string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") {
			return "", "", fmt.Errorf("%q: a unix socket is written unix:///path", addr)
		}
		return "unix", path, nil
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", fmt.Errorf("%q is neither host:port nor unix:///path, like %q", addr, DefaultListen)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("%q: port %q is not a number from 0 to 65535", addr, port)
	}
	return "tcp", addr, nil
}

// Listen opens every address that is configured, or none.
func (s *Server) Listen() (err error) {
	defer func() {
		if err != nil {
			s.closeListeners()
		}
	}()
	if len(s.cfg.TLS.Listen) > 0 {
		if s.tls, err = s.cfg.TLS.open(s.log); err != nil {
			return err
		}
	}
	for _, addr := range s.cfg.Listen {
		if err := s.listen("proxy.listen", addr, false); err != nil {
			return err
		}
	}
	for _, addr := range s.cfg.TLS.Listen {
		if err := s.listen("proxy.tls.listen", addr, true); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) listen(key, addr string, tls bool) error {
	if l := s.inherit(key, addr); l != nil {
		s.listeners = append(s.listeners, &listener{Listener: l, key: key, addr: addr, tls: tls, inherited: true})
		return nil
	}
	network, address, err := splitAddr(addr)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	conf := net.ListenConfig{KeepAlive: -1, KeepAliveConfig: keepAlive(s.cfg.TCPKeepAlive)}
	mode, limited := s.cfg.unixMode()
	limited = limited && network == "unix"
	if limited {
		// The socket's own mode is where that of the file comes from, so at no time may more people connect than
		// unix_mode says.
		conf.Control = func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), uint32(mode)) })
			return errors.Join(err, failed)
		}
	}
	if network == "unix" {
		if err := removeStale(address); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	l, err := conf.Listen(context.Background(), network, address)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	s.listeners = append(s.listeners, &listener{Listener: l, key: key, addr: addr, tls: tls})
	if limited {
		err = os.Chmod(address, mode) // what the umask took away
	}
	return err
}

// keepAlive is Redis's way to probe a silent connection: three times within every, after every.
func keepAlive(every time.Duration) net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: every > 0, Idle: every, Interval: max(every/3, time.Second), Count: 3}
}

// removeStale removes a socket that no process listens on any more.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return nil // net.Listen says what is wrong, if anything is
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return nil
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return nil // somebody is there, though busy, or it is not for us to know
	}
	return os.Remove(path)
}

// Addr is where the server listens first of all.
func (s *Server) Addr() net.Addr { return s.listeners[0].Addr() }

// Addrs is all of where the server listens, proxy.listen before proxy.tls.listen.
func (s *Server) Addrs() []string {
	list := make([]string, len(s.listeners))
	for i, l := range s.listeners {
		list[i] = l.String()
	}
	return list
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close() // which removes a unix socket as well
	}
}

// Serve accepts clients until Shutdown or HandOver, then returns nil.
func (s *Server) Serve() error {
	if ok, err := s.startLoops(); !ok {
		return err
	}
	close(s.serving)
	// The anonymous lanes stand before the first client comes, so that whether Redis wants authentication is known.
	set := s.upstream.acquire(laneKey{})
	defer s.upstream.release(set)
	s.limitFiles()
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return nil
	}
	s.wg.Go(func() { s.upstream.tend(s.done) })
	if s.cfg.IdleTimeout > 0 && len(s.loops) > 0 {
		s.wg.Go(s.lookAround)
	}
	for _, l := range s.listeners {
		s.accepting.Add(1)
		s.wg.Go(func() {
			defer s.accepting.Done()
			s.acceptFrom(l)
		})
	}
	s.mu.Unlock()
	s.accepting.Wait()
	return nil
}

// limitFiles warns of a limit on open files that clients run into before max_clients.
func (s *Server) limitFiles() {
	const others = 100 // lanes, connections to MySQL, files
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	most := s.most.Load()
	if need := uint64(most) + others; limit.Cur < need {
		s.log.Warn().Uint64("open_files", limit.Cur).Uint64("needed", need).Int64("max_clients", most).
			Msg("the limit on open files is too low for max_clients; raise it (ulimit -n, LimitNOFILE) or lower max_clients")
	}
}

// acceptFrom accepts clients until l is closed. Any other error passes, so it is waited for: there are too many open
// files, there is no memory, or it is an error of the network that Linux reports here.
func (s *Server) acceptFrom(l *listener) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = shortPause, longPause
	log := rarely.Log(s.log)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause.Reset()
			s.accept(l, conn)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			log.Error().Err(err).Stringer("addr", l).Msg("clients cannot be accepted; trying again")
			if !s.rest(pause.NextBackOff()) {
				return
			}
		}
	}
}

// rest waits for d; it returns false when the server is shut down meanwhile.
func (s *Server) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.done:
		return false
	}
}

var errTooMany = []byte("-ERR max number of clients reached\r\n")

func (s *Server) accept(l *listener, conn net.Conn) {
	if most := s.most.Load(); s.clients.Add(1) > most {
		s.clients.Add(-1)
		s.stats.Refused.Add(1)
		s.rare.Warn().Stringer("client", conn.RemoteAddr()).Int64("max_clients", most).
			Msg("client refused: there are max_clients already; raise proxy.max_clients if all of them are wanted")
		if !l.tls { // as with Redis, who speaks TLS is not told: it would take a handshake
			_ = conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = conn.Write(errTooMany)
		}
		_ = conn.Close()
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok && l.inherited {
		_ = tcp.SetKeepAliveConfig(keepAlive(s.cfg.TCPKeepAlive))
	}
	if l.tls {
		conn = newSecured(conn, s.tls)
	}
	client := newSession(s, conn, s.ids.Add(1))
	if !s.joins(client) {
		s.clients.Add(-1)
		_ = conn.Close()
		return
	}
	if l.tls || s.cfg.ProxyProtocol || !client.board() {
		go client.serve()
	}
}

// joins takes in a session, unless the server is draining.
func (s *Server) joins(client *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.sessions[client] = struct{}{}
	s.wg.Add(1)
	return true
}

// validate calls bad for every address that cannot be listened on.
func (a Addrs) validate(key string, bad func(key, format string, args ...any)) {
	for i, addr := range a {
		if _, _, err := splitAddr(addr); err != nil {
			bad(key, "%v", err)
		} else if slices.Contains(a[:i], addr) && !strings.HasSuffix(addr, ":0") {
			bad(key, "%q is there twice", addr)
		}
	}
}

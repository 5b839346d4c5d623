package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// Sockets are listening sockets that were there before the process began.
type Sockets struct{ list []*socket }

type socket struct {
	Listener
	l     net.Listener
	taken bool
}

// Take returns the socket that setting key has at addr, host:port or unix:///path, or nil if there is none. Those of
// another keyrow know for which setting they were opened; those of a service manager are known by their address.
func (s *Sockets) Take(key, addr string) net.Listener {
	for _, one := range s.list {
		switch {
		case one.taken:
		case one.Key == key && one.Addr == addr, one.Key == "" && isAt(one.l.Addr(), addr):
			one.taken = true
			one.Key, one.Addr = key, addr
			if l, ok := one.l.(*net.UnixListener); ok {
				l.SetUnlinkOnClose(!one.Theirs)
			}
			return one.l
		}
	}
	return nil
}

// isAt reports whether l is where addr says. A host that stands for all addresses is the same whether written as IPv4 or
// IPv6.
func isAt(l net.Addr, addr string) bool {
	if path, ok := strings.CutPrefix(addr, "unix://"); ok {
		return l.Network() == "unix" && l.String() == path
	}
	at, ok := l.(*net.TCPAddr)
	host, port, err := net.SplitHostPort(addr)
	if !ok || err != nil || port != strconv.Itoa(at.Port) {
		return false
	}
	if host == "" {
		return at.IP.IsUnspecified()
	}
	want, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return false
	}
	return at.IP.Equal(want.IP) || at.IP.IsUnspecified() && want.IP.IsUnspecified()
}

// Theirs reports whether the socket that was taken for a setting belongs to the service manager.
func (s *Sockets) Theirs(key, addr string) bool {
	for _, one := range s.list {
		if one.taken && one.Key == key && one.Addr == addr {
			return one.Theirs
		}
	}
	return false
}

// Rest closes what was not taken. That is an error where a service manager goes on listening there: clients would wait
// for ever.
func (s *Sockets) Rest() error {
	var errs []error
	for _, one := range s.list {
		switch {
		case one.taken:
			continue
		case one.Theirs:
			errs = append(errs, fmt.Errorf("there is a socket at %s from systemd, where nothing is configured to listen; name the "+
				"address in proxy.listen, proxy.tls.listen or admin.listen, or take it out of the .socket unit", one.l.Addr()))
		case one.l.Addr().Network() == "unix":
			_ = os.Remove(one.l.Addr().String())
		}
		_ = one.l.Close()
	}
	return errors.Join(errs...)
}

package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"keyrow/systemd"
)

// Predecessor is the old process, as the new one sees it.
type Predecessor struct{ ch *channel }

// Inherit returns the sockets that this process was started with, and the process that it replaces, or nil if it
// replaces none.
func Inherit() (*Sockets, *Predecessor, error) {
	number := os.Getenv(variable)
	if number == "" {
		sockets, err := managed()
		return sockets, nil, err
	}
	_ = os.Unsetenv(variable)
	fd, err := strconv.Atoi(number)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", variable, err)
	}
	ch, err := newChannel(os.NewFile(uintptr(fd), "handover"))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", variable, err)
	}
	p := &Predecessor{ch}
	sockets, err := p.sockets()
	if err != nil {
		p.Close()
		return nil, nil, fmt.Errorf("the keyrow that hands over: %w", err)
	}
	return sockets, p, nil
}

// managed are the sockets of the service manager.
func managed() (*Sockets, error) {
	list, err := systemd.Listeners()
	if err != nil {
		return nil, err
	}
	s := &Sockets{}
	for _, l := range list {
		s.list = append(s.list, &socket{Listener: Listener{Theirs: true}, l: l})
	}
	return s, nil
}

func (p *Predecessor) sockets() (*Sockets, error) {
	var theirs int
	if err := p.ch.expect("hello", &theirs); err != nil {
		return nil, err
	}
	if theirs != format {
		return nil, fmt.Errorf("it speaks format %d, this one %d; stop it and start this one instead", theirs, format)
	}
	s := &Sockets{}
	for {
		m, f, err := p.ch.receive()
		switch {
		case err != nil:
			return nil, err
		case m.Kind == "all" && f == nil:
			return s, nil
		case m.Kind != "listener" || f == nil:
			return nil, fmt.Errorf("said %q instead of %q", m.Kind, "listener")
		}
		one := &socket{}
		err = json.Unmarshal(m.Body, &one.Listener)
		if err == nil {
			one.l, err = net.FileListener(f)
		}
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		s.list = append(s.list, one)
	}
}

// Ready says that this process could serve, and returns when the other accepts nobody any more. If the other has ended
// instead, nobody else serves, so there is no error.
func (p *Predecessor) Ready() error {
	err := p.ch.send("ready", nil, -1)
	if err == nil {
		err = p.ch.expect("serve", nil)
	}
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("the keyrow that hands over: %w", err)
}

// Clients calls adopt for every client that is handed over, until the other process has none left. adopt has the
// connection from then on, and keeps state no longer than the call.
func (p *Predecessor) Clients(adopt func(state []byte, conn net.Conn)) error {
	for {
		m, f, err := p.ch.receive()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		case f == nil:
			continue
		}
		conn, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return err
		}
		adopt(m.Body, conn)
	}
}

// Close ends Clients.
func (p *Predecessor) Close() { _ = p.ch.conn.Close() }

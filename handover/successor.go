package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// variable has the number of the file that is the channel, in the environment of the new process.
const variable = "KEYROW_HANDOVER"

// Successor is the new process, as the old one sees it.
type Successor struct {
	PID int

	ch   *channel
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended, before which err is set
	err  error
}

// Start starts the program that this process was started as, as it is in its place now, with the same arguments, and tells
// it of the sockets.
func Start(each func(yield func(l Listener, socket net.Listener) error) error) (*Successor, error) {
	program, err := exec.LookPath(os.Args[0])
	if err != nil {
		return nil, err
	}
	ch, other, err := pair()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{other}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), isOurs), variable+"=3")
	err = cmd.Start()
	_ = other.Close()
	if err != nil {
		_ = ch.conn.Close()
		return nil, err
	}
	s := &Successor{PID: cmd.Process.Pid, ch: ch, cmd: cmd, done: make(chan struct{})}
	go func() {
		s.err = cmd.Wait()
		close(s.done)
	}()
	if err := s.introduce(each); err != nil {
		err = s.why(err)
		s.Kill()
		return nil, err
	}
	return s, nil
}

// isOurs reports whether a variable is meant for this process alone: the watchdog of systemd is fed by whoever is the main
// process, unless it is named.
func isOurs(assignment string) bool {
	name, _, _ := strings.Cut(assignment, "=")
	return name == "WATCHDOG_PID" || name == variable
}

func (s *Successor) introduce(each func(yield func(l Listener, socket net.Listener) error) error) error {
	if err := s.ch.send("hello", format, -1); err != nil {
		return err
	}
	err := each(func(l Listener, socket net.Listener) error {
		raw, err := socket.(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		var sent error
		err = raw.Control(func(fd uintptr) { sent = s.ch.send("listener", l, int(fd)) })
		return errors.Join(err, sent)
	})
	if err != nil {
		return err
	}
	return s.ch.send("all", nil, -1)
}

// why is err, or how the process ended, if that is what lies behind it.
func (s *Successor) why(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	select {
	case <-s.done:
		if s.err != nil {
			return fmt.Errorf("it ended: %w; its own messages say why", s.err)
		}
		return errors.New("it ended")
	case <-time.After(time.Second): // it closed the channel and goes on
		return err
	}
}

// Ready waits until the new process has said that it could serve. If it does not, be it that ctx ends before, it is
// killed.
func (s *Successor) Ready(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.ch.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err := s.ch.expect("ready", nil)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	err = s.why(err)
	s.Kill()
	return err
}

// Serve tells it to accept clients.
func (s *Successor) Serve() error { return s.ch.send("serve", nil, -1) }

// Client passes on a client; state is what is known of it, as JSON.
func (s *Successor) Client(state []byte, fd int) error {
	return s.ch.send("client", json.RawMessage(state), fd)
}

// Close says that there are no more clients. The new process goes on.
func (s *Successor) Close() { _ = s.ch.conn.Close() }

// Kill ends the new process.
func (s *Successor) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
	s.Close()
}

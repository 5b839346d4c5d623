// Package handover passes what keyrow listens on, and its clients, from one process to the next, so that a new program or
// configuration takes over without a client noticing.
//
// The old process starts the new one with [Start], which leaves one end of a unix socket with it, and [Inherit] finds it
// there. What is said:
//
//	old to new  hello     the format of all the rest
//	old to new  listener  one for each socket, with the socket
//	old to new  all       that was the last of them
//	new to old  ready     everything was connected and compared; until then it may fail, and the old process goes on
//	old to new  serve     nobody is accepted any more by the old process
//	old to new  client    one for each client, with its connection, until the old process ends
//
// Whoever waits to be accepted meanwhile waits in the queue of the socket, which both have. Sockets of their own on the
// same port (SO_REUSEPORT) would each have a queue, and what is in one is reset when it is closed.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// format is of the messages below, and of the clients in them.
const format = 1

// maxPacket is more than any message has, in bytes.
const maxPacket = 128 << 10

// packet is one message, as JSON in a packet of its own; a socket may come with it.
type packet struct {
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Listener is a socket that the old process listens on.
type Listener struct {
	Key    string `json:"key"`              // of the setting it was opened for, like "proxy.listen"
	Addr   string `json:"addr"`             // what the setting says
	Theirs bool   `json:"theirs,omitempty"` // the service manager's, who will close it
}

// channel is one end of the socket.
type channel struct {
	conn *net.UnixConn
	mu   sync.Mutex // of sending
	buf  []byte
}

func newChannel(f *os.File) (*channel, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("not a unix socket")
	}
	return &channel{conn: unix}, nil
}

// pair is two channels, of which the other is to be given to another process.
func pair() (mine *channel, other *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	other = os.NewFile(uintptr(fds[1]), "handover")
	if mine, err = newChannel(os.NewFile(uintptr(fds[0]), "handover")); err != nil {
		_ = other.Close()
	}
	return mine, other, err
}

// send sends a message, and a socket with it unless fd is -1.
func (c *channel) send(kind string, body any, fd int) error {
	var p packet
	var err error
	p.Kind = kind
	if body != nil {
		if p.Body, err = json.Marshal(body); err != nil {
			return err
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if len(b) > maxPacket {
		return fmt.Errorf("a message of %d bytes, at most %d", len(b), maxPacket)
	}
	var rights []byte
	if fd >= 0 {
		rights = syscall.UnixRights(fd)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, err = c.conn.WriteMsgUnix(b, rights, nil)
	return err
}

// receive returns the next message and the socket that came with it, which is the caller's, or nil.
func (c *channel) receive() (p packet, socket *os.File, err error) {
	if c.buf == nil {
		c.buf = make([]byte, maxPacket)
	}
	rights := make([]byte, syscall.CmsgSpace(4))
	n, m, flags, _, err := c.conn.ReadMsgUnix(c.buf, rights)
	if err != nil {
		return p, nil, err
	}
	if m > 0 {
		messages, err := syscall.ParseSocketControlMessage(rights[:m])
		if err != nil {
			return p, nil, err
		}
		fds, err := syscall.ParseUnixRights(&messages[0])
		if err != nil {
			return p, nil, err
		}
		syscall.CloseOnExec(fds[0])
		socket = os.NewFile(uintptr(fds[0]), "handed over")
	}
	if flags&syscall.MSG_TRUNC != 0 || flags&syscall.MSG_CTRUNC != 0 {
		err = errors.New("a message was cut off")
	} else {
		err = json.Unmarshal(c.buf[:n], &p)
	}
	if err != nil && socket != nil {
		_ = socket.Close()
		socket = nil
	}
	return p, socket, err
}

// expect is receive of a message of one kind, without a socket.
func (c *channel) expect(kind string, body any) error {
	p, socket, err := c.receive()
	if err != nil {
		return err
	}
	if socket != nil {
		_ = socket.Close()
	}
	if p.Kind != kind {
		return fmt.Errorf("said %q instead of %q", p.Kind, kind)
	}
	if body == nil {
		return nil
	}
	return json.Unmarshal(p.Body, body)
}

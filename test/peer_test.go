package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/test/harness"
)

// peer is a raw connection to keyrow or to Redis.
type peer struct {
	*net.TCPConn
	t     testing.TB
	in    *bufio.Reader
	asked int // calls of until
}

// dial connects, until the end of the test. Whatever the peer waits for, it waits for as long as harness.Patience.
func dial(t testing.TB, addr string) *peer {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, harness.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	return &peer{TCPConn: c.(*net.TCPConn), t: t, in: bufio.NewReader(c)}
}

// encode is a command as RESP.
func encode(args ...string) []byte {
	b := redcon.AppendArray(nil, len(args))
	for _, a := range args {
		b = redcon.AppendBulkString(b, a)
	}
	return b
}

// send writes raw bytes; a connection that the other side has closed is found out when its replies are read.
func (p *peer) send(b []byte) {
	p.t.Helper()
	p.patient()
	if _, err := p.Write(b); err != nil && !closed(err) {
		p.t.Fatal(err)
	}
}

func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// do runs a command and returns the bytes of its reply.
func (p *peer) do(args ...string) string {
	p.t.Helper()
	p.send(encode(args...))
	return p.reply()
}

// reply reads the bytes of one reply.
func (p *peer) reply() string {
	p.t.Helper()
	var b strings.Builder
	if err := p.read(&b); err != nil {
		p.t.Fatalf("after %q: %v", b.String(), err)
	}
	return b.String()
}

func (p *peer) read(b *strings.Builder) error {
	line, err := p.in.ReadString('\n')
	b.WriteString(line)
	if err != nil || len(line) < 3 {
		return err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch line[0] {
	case '$':
		if n >= 0 {
			_, err = io.CopyN(b, p.in, int64(n)+2)
		}
	case '*', '~', '%', '>':
		if line[0] == '%' {
			n *= 2
		}
		for range n {
			if err = p.read(b); err != nil {
				break
			}
		}
	}
	return err
}

// line reads one line of a reply.
func (p *peer) line() string {
	p.t.Helper()
	line, err := p.in.ReadString('\n')
	if err != nil {
		p.t.Fatalf("after %q: %v", line, err)
	}
	return line
}

// until runs a command and returns all that comes before the reply to another one: replies that are missing or too many
// show. The other one is unknown to every server, which says so whatever the client may do.
func (p *peer) until(args ...string) string {
	p.t.Helper()
	p.asked++
	end := fmt.Sprintf("-ERR unknown command 'end-of-%d', with args beginning with: \r\n", p.asked)
	p.send(append(encode(args...), encode(fmt.Sprintf("end-of-%d", p.asked))...))
	var b strings.Builder
	for {
		got := p.reply()
		if got == end {
			return b.String()
		}
		b.WriteString(got)
	}
}

// rest reads everything until the other side closes.
func (p *peer) rest() string {
	p.t.Helper()
	b, err := io.ReadAll(p.in)
	if err != nil && !closed(err) {
		p.t.Fatalf("after %q: the connection was not closed: %v", b, err)
	}
	return string(b)
}

//go:build compat

package compat

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
)

// patience is how long a reply may take before it counts as missing.
const patience = 10 * time.Second

// encode is a command as RESP.
func encode(args ...string) []byte {
	b := redcon.AppendArray(nil, len(args))
	for _, a := range args {
		b = redcon.AppendBulkString(b, a)
	}
	return b
}

// peer is a raw connection to keyrow or to Redis.
type peer struct {
	*net.TCPConn
	in *bufio.Reader
}

func connect(addr string) (*peer, error) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	return &peer{c.(*net.TCPConn), bufio.NewReaderSize(c, 64<<10)}, nil
}

// dial connects until the end of the test.
func dial(t testing.TB, addr string) *peer {
	t.Helper()
	p, err := connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// must runs a command and returns its reply.
func (p *peer) must(t testing.TB, args ...string) string {
	t.Helper()
	reply, err := p.do(args...)
	if err != nil {
		t.Fatalf("%.200q: %v", args, err)
	}
	return reply
}

func (p *peer) do(args ...string) (string, error) {
	if err := p.write(encode(args...)); err != nil {
		return "", err
	}
	b, err := p.frame()
	return string(b), err
}

func (p *peer) write(b []byte) error {
	p.SetWriteDeadline(time.Now().Add(patience)) //nolint:errcheck // Write fails then
	_, err := p.Write(b)
	return err
}

// frame reads one reply or push and returns its bytes.
func (p *peer) frame() ([]byte, error) {
	if err := p.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return p.append(nil)
}

func (p *peer) append(b []byte) ([]byte, error) {
	line, err := p.in.ReadSlice('\n')
	b = append(b, line...)
	if err != nil {
		return b, err
	}
	if len(line) < 3 {
		return b, fmt.Errorf("not RESP: %q", line)
	}
	kind, count := line[0], 0
	if strings.IndexByte("$=!*~>%|", kind) >= 0 {
		if count, err = strconv.Atoi(string(line[1 : len(line)-2])); err != nil {
			return b, fmt.Errorf("not RESP: %q", line)
		}
	}
	switch kind {
	case '$', '=', '!':
		if count >= 0 {
			n := len(b)
			b = append(b, make([]byte, count+2)...)
			var got int
			got, err = io.ReadFull(p.in, b[n:])
			b = b[:n+got]
		}
	case '*', '~', '>', '%', '|':
		if kind == '%' || kind == '|' {
			count *= 2
		}
		if kind == '|' { // what the attribute is about follows
			count++
		}
		for range count {
			if b, err = p.append(b); err != nil {
				break
			}
		}
	case '+', '-', ':', '_', ',', '#', '(':
	default:
		err = fmt.Errorf("not RESP: %q", line)
	}
	return b, err
}

// arrived is what can be read without waiting.
func (p *peer) arrived() []byte {
	if n := p.in.Buffered(); n > 0 {
		b, _ := p.in.Peek(n)
		return append([]byte(nil), b...)
	}
	raw, err := p.SyscallConn()
	if err != nil {
		return nil
	}
	b := make([]byte, 256)
	n := 0
	raw.Control(func(fd uintptr) { //nolint:errcheck // then nothing is read
		n, _, _ = syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return b[:max(n, 0)]
}

// rest reads until the other side closes.
func (p *peer) rest() ([]byte, error) {
	if err := p.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(p.in)
	if errors.Is(err, syscall.ECONNRESET) {
		err = nil
	}
	return b, err
}

// node is a parsed reply.
type node struct {
	kind  byte
	head  string // the line without kind and end; of bulks the content
	items []node // of a map: key, value, key, value …
}

// parse reads a whole reply.
func parse(b []byte) node {
	n, _ := parseNode(string(b))
	return n
}

func parseNode(s string) (n node, rest string) {
	line, rest, _ := strings.Cut(s, "\r\n")
	n = node{kind: line[0], head: line[1:]}
	count, _ := strconv.Atoi(n.head)
	switch n.kind {
	case '$', '=', '!':
		if count >= 0 {
			n.head, rest = rest[:count], rest[count+2:]
		} else {
			n.kind = '_'
		}
		return n, rest
	case '%':
		count *= 2
	case '|':
		count = 2*count + 1
	case '*', '~', '>':
	default:
		return n, rest
	}
	for range count {
		var item node
		item, rest = parseNode(rest)
		n.items = append(n.items, item)
	}
	return n, rest
}

// text renders a reply for people and for comparisons after a normaliser: the kind before every element is kept.
func (n node) text() string {
	if n.items == nil {
		return string(n.kind) + n.head
	}
	parts := make([]string, len(n.items))
	for i, item := range n.items {
		parts[i] = item.text()
	}
	return string(n.kind) + "[" + strings.Join(parts, " ") + "]"
}

// payload is the content of a reply that has no elements.
func payload(b []byte) string {
	return parse(b).head
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// replyTimeout bounds one command of the demo's own, so that a blocking one does not block the prompt for good.
const replyTimeout = 10 * time.Second

// Replies are: status, failure, int64, string (a bulk), nil and []any.
type (
	status  string
	failure string
)

func (f failure) Error() string { return string(f) }

// client is a connection that speaks RESP2, one command at a time.
type client struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(ctx context.Context, addr string) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &client{conn, bufio.NewReader(conn)}, nil
}

func (c *client) close() { c.conn.Close() }

// do sends a command and waits for its reply; an error reply is a failure in reply, err is that of the connection,
// which is of no use afterwards. It also ends with ctx.
func (c *client) do(ctx context.Context, args ...string) (reply any, err error) {
	c.conn.SetDeadline(time.Now().Add(replyTimeout))
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.conn.Write(appendCommand(nil, args...)); err != nil {
		return nil, err
	}
	return readReply(c.r)
}

func appendCommand(b []byte, args ...string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(args))
	for _, arg := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b
}

func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errors.New("an empty line is no reply")
	}
	switch rest := line[1:]; line[0] {
	case '+':
		return status(rest), nil
	case '-':
		return failure(rest), nil
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return nil, err
		}
		bulk := make([]byte, n+len("\r\n"))
		if _, err := io.ReadFull(r, bulk); err != nil {
			return nil, err
		}
		return string(bulk[:n]), nil
	case '*':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return nil, err
		}
		replies := make([]any, n)
		for i := range replies {
			if replies[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return replies, nil
	}
	return nil, fmt.Errorf("%q is no reply of RESP2", line)
}

// format shows a reply as redis-cli does, but for a bulk of printable text, which stands as it is: JSON in quotes is
// hard to read.
func format(reply any) string {
	switch v := reply.(type) {
	case nil:
		return "(nil)"
	case status:
		return string(v)
	case failure:
		return "(error) " + string(v)
	case int64:
		return fmt.Sprintf("(integer) %d", v)
	case string:
		if v == "" || !utf8.ValidString(v) || strings.ContainsFunc(v, unprintable) {
			return strconv.Quote(v)
		}
		return strings.TrimRight(strings.ReplaceAll(v, "\r\n", "\n"), "\n")
	case []any:
		if len(v) == 0 {
			return "(empty array)"
		}
		lines := make([]string, len(v))
		for i, item := range v {
			head := fmt.Sprintf("%d) ", i+1)
			lines[i] = head + indent(format(item), strings.Repeat(" ", len(head)))
		}
		return strings.Join(lines, "\n")
	}
	return fmt.Sprint(reply)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\r' && r != '\t' }

// indent puts prefix before every line but the first.
func indent(text, prefix string) string { return strings.ReplaceAll(text, "\n", "\n"+prefix) }

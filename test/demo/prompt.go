package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// welcome says what runs and what to do with it.
func (d *demo) welcome() string {
	port, host := portOf(d.addr), strings.TrimSuffix(d.addr, ":"+portOf(d.addr))
	return fmt.Sprintf(`
keyrow runs on %[1]s, in front of both; its config is %[2]s

  redis-cli -h %[3]s -p %[4]s GET user:42
  redis-cli -h %[3]s -p %[4]s SET user:42 '%[5]s'
  mysql -h 127.0.0.1 -P %[6]s -u root shop -e 'SELECT * FROM users'

Without those two programs, type here instead:

%[7]s
`, d.addr, d.keyrow.conf, host, port, adaKing, portOf(d.mysql.addr), usage)
}

const usage = `  GET user:42                           any command of Redis, through keyrow
  SET user:42 '{"id":42,"name":"Ada"}'  the row changes a moment later; what is left out takes its default
  GET product:moth                      a table of its own; keyrow is told not to write it
  GET order:42:1                        a key of two columns
  SQL SELECT * FROM users               a statement for MySQL, past keyrow
  REDIS KEYS *                          a command for Redis, past keyrow
  KEYROW INFO                           keyrow's counters; those that move are shown as they do
  HELP, QUIT`

// prompt answers the lines of in until QUIT, the end of in or that of ctx. Where in holds nothing at all the demo goes
// on, for then it was started without a terminal.
func (d *demo) prompt(ctx context.Context, in io.Reader) error {
	lines := make(chan string)
	ended := make(chan struct{})
	// This one is left behind at the end: nothing but input can wake a read of a terminal.
	go func() {
		defer close(ended)
		for scanner := bufio.NewScanner(in); scanner.Scan(); {
			d.out.asked()
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	p := &player{demo: d}
	defer p.close()
	entered := false
	for {
		d.out.ask()
		select {
		case line := <-lines:
			entered = true
			if !d.out.terminal {
				d.out.line("%s%s", promptText, line)
			}
			if !p.enter(ctx, line) {
				return nil
			}
		case <-ended:
			d.out.asked()
			if d.out.terminal {
				d.out.line("")
			}
			if d.out.terminal || entered {
				return nil
			}
			ended = nil
		case <-ctx.Done():
			d.out.asked()
			d.out.line("")
			return nil
		}
	}
}

// player runs the commands that are typed or scripted.
type player struct {
	demo          *demo
	keyrow, redis *client
}

func (p *player) close() {
	for _, c := range []*client{p.keyrow, p.redis} {
		if c != nil {
			c.close()
		}
	}
}

// enter answers one line; false means to leave.
func (p *player) enter(ctx context.Context, line string) bool {
	line = strings.TrimSuffix(strings.TrimSpace(line), ";")
	switch strings.ToUpper(line) {
	case "":
	case "QUIT", "EXIT":
		return false
	case "HELP", "?":
		p.demo.out.text(usage)
	default:
		p.demo.out.text(p.answer(ctx, line))
	}
	return true
}

// answer is what comes of a line: a statement behind SQL, a command for Redis behind REDIS, else one for keyrow.
func (p *player) answer(ctx context.Context, line string) string {
	word, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(word) {
	case "SQL":
		result, err := p.demo.mysql.query(ctx, rest)
		if err != nil {
			return "(error) " + err.Error()
		}
		return result
	case "REDIS":
		return p.command(ctx, &p.redis, p.demo.redis.addr, rest)
	}
	return p.command(ctx, &p.keyrow, p.demo.addr, line)
}

// streams are commands that one reply does not end, or that change what replies look like.
var streams = map[string]bool{
	"SUBSCRIBE": true, "PSUBSCRIBE": true, "SSUBSCRIBE": true, "MONITOR": true, "SYNC": true, "PSYNC": true, "HELLO": true,
}

// command is the answer to a command as it was typed.
func (p *player) command(ctx context.Context, conn **client, addr, line string) string {
	args, err := split(line)
	switch {
	case err != nil:
		return "(error) " + err.Error()
	case len(args) == 0:
		return usage
	case streams[strings.ToUpper(args[0])]:
		return fmt.Sprintf("%s needs a connection of its own: redis-cli -p %s %s", args[0], portOf(addr), line)
	}
	reply, err := p.do(ctx, conn, addr, args...)
	if err != nil {
		return "(error) " + err.Error()
	}
	return format(reply)
}

// do runs a command on the connection, which is made, and made again, as needed.
func (p *player) do(ctx context.Context, conn **client, addr string, args ...string) (any, error) {
	if *conn == nil {
		c, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		*conn = c
	}
	reply, err := (*conn).do(ctx, args...)
	if err != nil {
		(*conn).close()
		*conn = nil
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("no reply within %v: the connection was closed", replyTimeout)
		}
	}
	return reply, err
}

// split cuts a line into arguments as redis-cli does: 'as it is', "with \" and \n and \x00".
func split(line string) ([]string, error) {
	var args []string
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" {
			return args, nil
		}
		var arg string
		var err error
		if arg, line, err = splitOne(line); err != nil {
			return nil, err
		}
		if line != "" && line[0] != ' ' && line[0] != '\t' {
			return nil, fmt.Errorf("a closing quote must be followed by a space, not by %q", line)
		}
		args = append(args, arg)
	}
}

// splitOne reads the argument line begins with.
func splitOne(line string) (arg, rest string, err error) {
	switch quote := line[0]; quote {
	case '\'':
		arg, rest, ok := strings.Cut(line[1:], "'")
		if !ok {
			return "", "", errors.New("a ' is not closed")
		}
		return arg, rest, nil
	case '"':
		var b strings.Builder
		for i := 1; i < len(line); i++ {
			switch line[i] {
			case '"':
				return b.String(), line[i+1:], nil
			case '\\':
				n := unescape(&b, line[i+1:])
				i += n
			default:
				b.WriteByte(line[i])
			}
		}
		return "", "", errors.New(`a " is not closed`)
	}
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return line[:i], line[i:], nil
	}
	return line, "", nil
}

// unescape writes the character that stands behind a backslash and says how many bytes it took.
func unescape(b *strings.Builder, s string) int {
	if s == "" {
		return 0
	}
	var code byte
	if n, _ := fmt.Sscanf(s, "x%02x", &code); n == 1 && len(s) >= 3 {
		b.WriteByte(code)
		return 3
	}
	if i := strings.IndexByte("nrtab", s[0]); i >= 0 {
		b.WriteByte("\n\r\t\a\b"[i])
	} else {
		b.WriteByte(s[0])
	}
	return 1
}

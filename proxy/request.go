package proxy

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tidwall/redcon"
)

// Limits of a request, as Redis has them in src/server.h and src/networking.c.
const (
	MaxBulk       = 512 << 20   // bytes of one argument (proto-max-bulk-len)
	maxArgs       = 1<<31 - 1   // arguments of one command …
	maxArgsBefore = 1024 * 1024 // … and before Redis 7
	maxLine       = 64 << 10    // bytes of an inline command or of a header line
	maxArgsNoAuth = 10          // arguments of one command before authentication
	maxBulkNoAuth = 16 << 10    // bytes of one argument before authentication
)

// maxCommand is what one command may take, in bytes: its own, and argCost for each argument. Redis has no limit for it
// but that of its memory.
const (
	maxCommand = 1 << 30
	argCost    = 40 // a span and a slice
)

// readChunk is the room offered to one read of a client's socket, in bytes.
const readChunk = 64 << 10

// protocolError is a frame that Redis would refuse as well; its text is what Redis answers before it closes.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// errShort says that the bytes read so far hold no further whole command.
var errShort = errors.New("incomplete command")

// request is one command of a client. Both slices point into the framer's buffer and are valid until the next
// call of its more.
type request struct {
	raw  []byte   // the command as RESP multibulk, ready to be forwarded
	args [][]byte // name first; never empty
	made bool     // raw was written anew, into a buffer that the next such command takes
}

// requestFramer cuts a client's bytes into commands. It keeps where it stopped in an incomplete command, so no
// argument is cut twice however the bytes arrive, and it takes memory only for bytes that did arrive: a length that a
// frame claims is compared with the limits and otherwise believed only as far as bytes follow.
//
//	command   = multibulk | inline
//	multibulk = "*" count CRLF { "$" length CRLF bytes CRLF }     count <= 0: nothing, ignored
//	inline    = words separated by blanks, "quoted" or 'quoted', ended by LF
type requestFramer struct {
	buf   []byte // bytes received; those before start are consumed
	start int    // first byte of the command being cut
	pos   int    // next byte to look at
	args  []span // arguments cut so far, relative to start
	left  int    // arguments still to come; 0: between commands
	bulk  int    // length of the argument being awaited; -1: its header is next
	// odd says that Redis accepts the frame although a line does not end in CRLF; such a frame is written anew, so
	// that what the upstream parses is what was looked at here.
	odd     bool
	maxArgs int
	maxBulk int
	maxSize int // bytes of a command, as maxCommand

	flowing bool // the command being cut is taken by flow, piece by piece
	rest    int  // bytes of the argument at hand that are still to flow, its CRLF included

	out     [][]byte
	rewrite []byte
}

type span struct{ from, to int }

func newRequestFramer(maxArgs, maxBulk int) requestFramer {
	return requestFramer{bulk: -1, maxArgs: maxArgs, maxBulk: maxBulk, maxSize: maxCommand}
}

// next cuts the next command out of the bytes received. It returns errShort when more bytes are needed, and a
// protocolError when the stream is beyond repair. noAuth applies the tighter limits of unauthenticated clients.
func (f *requestFramer) next(noAuth bool) (request, error) {
	for {
		if f.left == 0 {
			if f.pos == len(f.buf) {
				return request{}, errShort
			}
			f.start = f.pos
			if !noAuth && f.whole() {
				return request{raw: f.buf[f.start:f.pos], args: f.out}, nil
			}
			f.odd = false
			f.args = f.args[:0]
			if f.buf[f.pos] != '*' {
				req, err := f.inline()
				if err != nil || len(req.args) > 0 {
					return req, err
				}
				continue
			}
			n, err := f.header("too big mbulk count string", "invalid multibulk length", f.maxArgs)
			if err != nil {
				return request{}, err
			}
			if n > maxArgsNoAuth && noAuth {
				return request{}, protocolError("unauthenticated multibulk length")
			}
			if n <= 0 {
				continue
			}
			f.left, f.bulk = n, -1
		}
		if err := f.arguments(noAuth); err != nil {
			return request{}, err
		}
		req := request{raw: f.buf[f.start:f.pos], args: f.out[:0]}
		for _, a := range f.args {
			req.args = append(req.args, f.buf[f.start+a.from:f.start+a.to:f.start+a.to])
		}
		f.out = req.args
		if f.odd {
			req.raw, req.made = f.encode(req.args), true
		}
		return req, nil
	}
}

// whole cuts the next command if it is there as a whole and written as clients do. If not, nothing is cut, and it
// remains to be seen why.
func (f *requestFramer) whole() bool {
	b := f.buf
	n, at := count(b, f.pos, '*')
	if n == 0 || n > f.maxArgs {
		return false
	}
	args := f.out[:0]
	for range n {
		var size int
		size, at = count(b, at, '$')
		end := at + size
		if at == 0 || size > f.maxBulk || end+2 > len(b) || b[end] != '\r' || b[end+1] != '\n' {
			f.out = args
			return false
		}
		args = append(args, b[at:end:end])
		at = end + 2
	}
	if at-f.pos+argCost*n > f.maxSize {
		return false
	}
	f.out, f.pos = args, at
	return true
}

// count reads a header line at b[at:] that begins with kind and has up to nine digits, and returns the number and
// where the next line begins, or zeros if there is something else.
func count(b []byte, at int, kind byte) (n, next int) {
	if at >= len(b) || b[at] != kind {
		return 0, 0
	}
	for i := at + 1; i < len(b) && i < at+11; i++ {
		c := b[i]
		if digit := c - '0'; digit <= 9 {
			n = n*10 + int(digit)
			continue
		}
		// Redis takes no zeros in front.
		if c != '\r' || i+1 >= len(b) || b[i+1] != '\n' || i == at+1 || b[at+1] == '0' && i > at+2 {
			break
		}
		return n, i + 2
	}
	return 0, 0
}

// arguments cuts the arguments that are still to come.
func (f *requestFramer) arguments(noAuth bool) error {
	for f.left > 0 {
		if f.bulk < 0 {
			if err := f.argument(noAuth); err != nil {
				return err
			}
		}
		if f.pos-f.start+f.bulk+argCost*len(f.args) > f.maxSize {
			return protocolError("a command of more than 1 GiB")
		}
		if len(f.buf)-f.pos < f.bulk+2 {
			return errShort
		}
		from := f.pos - f.start
		f.args = append(f.args, span{from, from + f.bulk})
		f.pos += f.bulk
		if f.buf[f.pos] != '\r' || f.buf[f.pos+1] != '\n' {
			f.odd = true
		}
		f.pos += 2
		f.bulk = -1
		f.left--
	}
	return nil
}

// argument reads the header of the next argument.
func (f *requestFramer) argument(noAuth bool) error {
	if f.pos == len(f.buf) {
		return errShort
	}
	if c := f.buf[f.pos]; c != '$' {
		// Redis looks at the type only once the line is whole.
		if _, err := f.line("too big bulk count string"); err != nil {
			return err
		}
		return protocolError(fmt.Sprintf("expected '$', got '%c'", c))
	}
	n, err := f.header("too big bulk count string", "invalid bulk length", f.maxBulk)
	if err != nil {
		return err
	}
	if n < 0 {
		return protocolError("invalid bulk length")
	}
	if n > maxBulkNoAuth && noAuth {
		return protocolError("unauthenticated bulk length")
	}
	f.bulk = n
	return nil
}

// large returns the arguments in front of one that is longer than size and has not arrived yet, if that is what next is
// waiting for.
func (f *requestFramer) large(size int) [][]byte {
	if f.left == 0 || f.bulk <= size || len(f.args) == 0 || f.odd {
		return nil
	}
	f.out = f.out[:0]
	for _, a := range f.args {
		f.out = append(f.out, f.buf[f.start+a.from:f.start+a.to:f.start+a.to])
	}
	return f.out
}

// flow takes as much of the command being cut as has arrived: what it returns is valid until the next call of more.
// last reports that the command ends there.
func (f *requestFramer) flow(noAuth bool) (b []byte, last bool, err error) {
	from := f.pos
	if !f.flowing {
		f.flowing, from = true, f.start
		f.rest, f.bulk = f.bulk+2, -1
	}
	for f.left > 0 {
		if f.rest == 0 {
			if err = f.argument(noAuth); err != nil {
				break
			}
			f.rest, f.bulk = f.bulk+2, -1
		}
		take := min(f.rest, len(f.buf)-f.pos)
		f.pos += take
		if f.rest -= take; f.rest > 0 {
			break
		}
		f.left--
	}
	if err == errShort {
		err = nil
	}
	last = f.left == 0
	f.flowing = !last
	return f.buf[from:f.pos], last, err
}

// line finds the header line at pos, without its type byte and end, and leaves pos where it is. The type byte may be
// the end itself.
func (f *requestFramer) line(tooBig string) ([]byte, error) {
	b := f.buf[f.pos:]
	end := bytes.IndexByte(b[:min(len(b), maxLine+1)], '\r')
	switch {
	case end < 0 && len(b) > maxLine:
		return nil, protocolError(tooBig)
	case end < 0 || end+1 == len(b):
		return nil, errShort
	}
	return b[min(1, end):end], nil
}

// header reads the number on the header line at pos and moves behind the line. A number over limit or with any
// spelling but the canonical one is invalid, as in Redis's string2ll.
func (f *requestFramer) header(tooBig, invalid string, limit int) (int, error) {
	line, err := f.line(tooBig)
	if err != nil {
		return 0, err
	}
	n, ok := parseInt(line)
	if !ok || n > int64(limit) {
		return 0, protocolError(invalid)
	}
	f.pos += len(line) + 3
	if f.buf[f.pos-1] != '\n' {
		f.odd = true
	}
	return int(n), nil
}

// inline cuts an inline command; one with no words in it yields a request without arguments.
func (f *requestFramer) inline() (request, error) {
	b := f.buf[f.pos:]
	end := bytes.IndexByte(b[:min(len(b), maxLine+1)], '\n')
	switch {
	case end < 0 && len(b) > maxLine:
		return request{}, protocolError("too big inline request")
	case end < 0:
		return request{}, errShort
	}
	line := b[:end]
	if end > 0 && line[end-1] == '\r' {
		line = line[:end-1]
	}
	args, ok := splitArgs(f.out[:0], line)
	if !ok {
		return request{}, protocolError("unbalanced quotes in request")
	}
	f.out = args
	f.pos += end + 1
	if len(args) == 0 {
		return request{}, nil
	}
	return request{raw: f.encode(args), args: args, made: true}, nil
}

func (f *requestFramer) encode(args [][]byte) []byte {
	f.rewrite = appendCommand(f.rewrite[:0], args...)
	return f.rewrite
}

// more makes room for the next read and returns it; read says how much of it was filled. Bytes of commands that
// were cut already are given up, and with them the requests that point there.
func (f *requestFramer) more() []byte {
	if keep := f.keep(); keep > 0 {
		n := copy(f.buf, f.buf[keep:])
		f.buf = f.buf[:n]
		f.pos -= keep
		f.start = 0
	}
	if cap(f.buf)-len(f.buf) < readChunk/2 {
		// Doubling what has arrived bounds the memory by twice the bytes that the client really sent.
		grown := make([]byte, len(f.buf), 2*len(f.buf)+readChunk)
		copy(grown, f.buf)
		f.buf = grown
	}
	return f.buf[len(f.buf):cap(f.buf)]
}

func (f *requestFramer) read(n int) { f.buf = f.buf[:len(f.buf)+n] }

// keep is the first byte that is still needed.
func (f *requestFramer) keep() int {
	if f.left > 0 && !f.flowing {
		return f.start
	}
	return f.pos
}

// unread is how many bytes were received and not cut yet.
func (f *requestFramer) unread() int { return len(f.buf) - f.keep() }

// held is what was received and not cut yet, valid until the next call of more.
func (f *requestFramer) held() []byte { return f.buf[f.keep():] }

// idle reports whether no byte is held back, so that the buffer can be given away with release.
func (f *requestFramer) idle() bool { return f.keep() == len(f.buf) }

// move goes over to the buffer b with what is held back, for which b has room, and returns the buffer from before. The
// requests that point there are given up.
func (f *requestFramer) move(b []byte) []byte {
	before, keep := f.buf, f.keep()
	f.buf = append(b[:0], before[keep:]...)
	f.pos -= keep
	f.start = 0
	if cap(f.rewrite) > idleKeep {
		f.rewrite = nil
	}
	if f.left == 0 && cap(f.args) > 1024 {
		f.args, f.out = nil, nil
	}
	clear(f.out[:cap(f.out)]) // the arguments of the last command keep a buffer that has grown
	return before
}

// parseInt reads a number as Redis's string2ll does: no sign but a minus, no leading zeros, no blanks.
func parseInt(b []byte) (int64, bool) {
	if len(b) == 1 && b[0] == '0' {
		return 0, true
	}
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 || b[0] < '1' || b[0] > '9' {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0') // 19 digits stay below 2^64
	}
	switch {
	case neg && n <= 1<<63:
		return int64(-n), true
	case !neg && n < 1<<63:
		return int64(n), true
	}
	return 0, false
}

// splitArgs cuts an inline command into words as Redis's sdssplitargs does: "…" knows \n \r \t \b \a \xHH and \c
// for any other c, '…' knows \' alone, and a closing quote must be followed by a blank or the end.
func splitArgs(dst [][]byte, line []byte) ([][]byte, bool) {
	i := 0
	for {
		for i < len(line) && blank(line[i]) {
			i++
		}
		if i == len(line) || line[i] == 0 {
			return dst, true
		}
		word := []byte{}
		for i < len(line) && !blank(line[i]) && line[i] != 0 {
			q := line[i]
			if q != '"' && q != '\'' {
				word = append(word, q)
				i++
				continue
			}
			var ok bool
			if word, i, ok = quoted(word, line, i+1, q); !ok {
				return dst, false
			}
			if i < len(line) && !blank(line[i]) && line[i] != 0 {
				return dst, false
			}
		}
		dst = append(dst, word)
	}
}

// quoted reads up to the closing quote q and returns the place behind it.
func quoted(word, line []byte, i int, q byte) ([]byte, int, bool) {
	for ; i < len(line); i++ {
		c := line[i]
		switch {
		case c == q:
			return word, i + 1, true
		case c != '\\' || i+1 == len(line):
			word = append(word, c)
		case q == '\'':
			if line[i+1] == '\'' {
				i++
				c = '\''
			}
			word = append(word, c)
		case line[i+1] == 'x' && i+3 < len(line) && hexDigit(line[i+2]) >= 0 && hexDigit(line[i+3]) >= 0:
			word = append(word, byte(hexDigit(line[i+2])<<4|hexDigit(line[i+3])))
			i += 3
		default:
			i++
			word = append(word, unescape(line[i]))
		}
	}
	return word, i, false
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// blank is isspace of the C locale.
func blank(c byte) bool { return c == ' ' || ('\t' <= c && c <= '\r') }

// appendCommand appends a command as RESP multibulk.
func appendCommand(b []byte, args ...[]byte) []byte {
	b = redcon.AppendArray(b, len(args))
	for _, a := range args {
		b = redcon.AppendBulk(b, a)
	}
	return b
}

package proxy

import (
	"bytes"
	"errors"
	"fmt"
)

// Limits of a reply. Redis itself nests by at most the depth of its own replies and the Lua conversion's; a line is
// a status, a number or an error text.
const (
	maxDepth     = 128
	maxReplyLine = 1 << 20
)

// replyFramer finds where replies end in a stream of RESP2 or RESP3, without keeping any of it: bytes it has been
// fed can be forwarded at once, so that a reply of any size passes through in pieces.
type replyFramer struct {
	skip  int64   // bytes of a bulk, its CRLF included, still to pass
	depth []int64 // elements still to come of each open aggregate, outermost first
}

var errLongLine = errors.New("a line of a reply from redis is longer than 1 MiB")

// feed consumes the bytes of b that belong to the reply under way and reports whether it ended there. A line that is
// not whole yet is not consumed: n may be less than len(b) without done, even 0; feed it again with more behind it.
func (f *replyFramer) feed(b []byte) (n int, done bool, err error) {
	for n < len(b) {
		if f.skip > 0 {
			take := min(f.skip, int64(len(b)-n))
			f.skip -= take
			n += int(take)
			if f.skip > 0 {
				return n, false, nil
			}
			if f.ended() {
				return n, true, nil
			}
			continue
		}
		if open := len(f.depth); open > 0 && b[n] == '$' { // most of what is long
			if n = f.strings(b, n); len(f.depth) == 0 {
				return n, true, nil
			}
			if n == len(b) || len(f.depth) < open {
				continue
			}
		}
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			if len(b)-n > maxReplyLine {
				return n, false, errLongLine
			}
			return n, false, nil
		}
		line := b[n : n+end]
		if end < 2 || line[end-1] != '\r' {
			return n, false, fmt.Errorf("redis sent a malformed reply line %.32q", line)
		}
		leaf, err := f.line(line[:end-1])
		if err != nil {
			return n, false, err
		}
		n += end + 1
		if leaf && f.ended() {
			return n, true, nil
		}
	}
	return n, false, nil
}

// strings consumes the whole bulk strings at b[n:] that the innermost open aggregate has next, and returns where it
// stands.
func (f *replyFramer) strings(b []byte, n int) int {
	left := &f.depth[len(f.depth)-1]
	for {
		size, at := count(b, n, '$')
		if at == 0 || at+size+2 > len(b) {
			return n
		}
		n = at + size + 2
		if *left == 1 {
			f.ended()
			return n
		}
		*left--
	}
}

// simple is the length of the reply that b begins with, if it is a whole one and no aggregate, else 0.
func simple(b []byte) int {
	switch b[0] {
	case '$':
		if size, at := count(b, 0, '$'); at > 0 && at+size+2 <= len(b) {
			return at + size + 2
		}
	case '+', ':', '-':
		if end := bytes.IndexByte(b, '\n'); end > 1 && b[end-1] == '\r' {
			return end + 1
		}
	}
	return 0
}

// line takes in one line and reports whether it completes an element by itself.
func (f *replyFramer) line(line []byte) (leaf bool, err error) {
	switch line[0] {
	case '+', '-', ':', '_', ',', '#', '(':
		return true, nil
	case '$', '=', '!':
		size, ok := parseInt(line[1:])
		if !ok || size < -1 {
			return false, fmt.Errorf("redis sent a malformed length %.32q", line)
		}
		if size < 0 {
			return true, nil
		}
		f.skip = size + 2
		return false, nil
	case '*', '~', '>', '%', '|':
		count, ok := parseInt(line[1:])
		if !ok || count < -1 || count > 1<<40 {
			return false, fmt.Errorf("redis sent a malformed count %.32q", line)
		}
		switch line[0] {
		case '%':
			count *= 2
		case '|': // an attribute stands before the element that it describes
			count = 2*count + 1
		}
		if count <= 0 {
			return true, nil
		}
		if len(f.depth) == maxDepth {
			return false, fmt.Errorf("redis sent a reply nested by more than %d", maxDepth)
		}
		f.depth = append(f.depth, count)
		return false, nil
	}
	return false, fmt.Errorf("redis sent a reply of unknown type %.32q", line)
}

// ended counts a finished element and reports whether the reply ended with it.
func (f *replyFramer) ended() bool {
	for len(f.depth) > 0 {
		last := len(f.depth) - 1
		f.depth[last]--
		if f.depth[last] > 0 {
			return false
		}
		f.depth = f.depth[:last]
	}
	return true
}

// idle reports whether the framer stands between two replies.
func (f *replyFramer) idle() bool { return f.skip == 0 && len(f.depth) == 0 }

// rewind has the framer stand where the reply under way began.
func (f *replyFramer) rewind() { f.skip, f.depth = 0, f.depth[:0] }

// element cuts the first element off a whole reply.
func element(b []byte) (elem, rest []byte, err error) {
	var f replyFramer
	n, done, err := f.feed(b)
	if err == nil && !done {
		err = fmt.Errorf("redis sent a malformed reply %.32q", b)
	}
	return b[:n], b[n:], err
}

// elements cuts a whole array reply into its elements; nil is no array at all (a nil array, an error, …).
func elements(dst [][]byte, b []byte) ([][]byte, bool) {
	if len(b) == 0 || b[0] != '*' {
		return dst, false
	}
	end := bytes.IndexByte(b, '\n')
	count, ok := parseInt(b[1 : end-1])
	if !ok || count < 0 {
		return dst, false
	}
	rest := b[end+1:]
	for range count {
		var elem []byte
		var err error
		if elem, rest, err = element(rest); err != nil {
			return dst, false
		}
		dst = append(dst, elem)
	}
	return dst, true
}

// isNil reports whether a whole reply is the null of RESP2 or RESP3.
func isNil(b []byte) bool {
	return len(b) > 2 && (b[0] == '_' || (b[0] == '$' || b[0] == '*') && b[1] == '-')
}

package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// cut feeds stream to a framer in pieces and renders what comes out: the commands, then the error if there is one.
func cut(stream []byte, pieces []int, noAuth bool) []string {
	f := newRequestFramer(maxArgs, MaxBulk)
	var out []string
	for i := 0; ; {
		req, err := f.next(noAuth)
		switch {
		case err == nil:
			out = append(out, fmt.Sprintf("%q", req.args))
			again := newRequestFramer(maxArgs, MaxBulk)
			copy(again.more(), req.raw)
			again.read(len(req.raw))
			if same, err := again.next(false); err != nil || fmt.Sprintf("%q", same.args) != fmt.Sprintf("%q", req.args) {
				out = append(out, fmt.Sprintf("what is forwarded, %q, reads %q, %v", req.raw, same.args, err))
			}
		case !errors.Is(err, errShort):
			return append(out, err.Error())
		case len(stream) == 0:
			return out
		default:
			if i%2 == 1 {
				f.move(make([]byte, 0, f.unread()))
			}
			n := len(stream)
			if i < len(pieces) {
				n = min(pieces[i], n)
				i++
			}
			n = copy(f.more(), stream[:n])
			f.read(n)
			stream = stream[n:]
		}
	}
}

var requests = []struct {
	name, in string
	noAuth   bool
	want     []string
}{
	{name: "one", in: "*1\r\n$4\r\nPING\r\n", want: []string{`["PING"]`}},
	{name: "two", in: "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n", want: []string{`["PING"]`, `["GET" ""]`}},
	{name: "binary", in: "*2\r\n$3\r\nGET\r\n$4\r\n\r\n\x00$\r\n", want: []string{`["GET" "\r\n\x00$"]`}},
	{name: "empty multibulk", in: "*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n", want: []string{`["PING"]`}},
	{name: "inline", in: "PING\r\nset  k 'a b'\n\r\n\n", want: []string{`["PING"]`, `["set" "k" "a b"]`}},
	{name: "inline escapes", in: `echo "\x41\n\q" 'it\'s' ""` + "\r\n", want: []string{`["echo" "A\nq" "it's" ""]`}},
	{name: "inline unbalanced", in: "echo \"a\r\n", want: []string{"Protocol error: unbalanced quotes in request"}},
	{name: "inline glued quotes", in: "echo \"a\"b\r\n", want: []string{"Protocol error: unbalanced quotes in request"}},
	{name: "inline too long", in: strings.Repeat("a", maxLine+2), want: []string{"Protocol error: too big inline request"}},
	{name: "count too large", in: "*2147483648\r\n", want: []string{"Protocol error: invalid multibulk length"}},
	{name: "count overflows", in: "*99999999999999999999\r\n", want: []string{"Protocol error: invalid multibulk length"}},
	{name: "count with sign", in: "*+1\r\n", want: []string{"Protocol error: invalid multibulk length"}},
	{name: "count with zero", in: "*01\r\n", want: []string{"Protocol error: invalid multibulk length"}},
	{name: "count missing", in: "*\r\n", want: []string{"Protocol error: invalid multibulk length"}},
	{name: "count endless", in: "*" + strings.Repeat("1", maxLine+2), want: []string{"Protocol error: too big mbulk count string"}},
	{name: "bulk missing", in: "*1\r\nPING\r\n", want: []string{"Protocol error: expected '$', got 'P'"}},
	{name: "bulk line empty", in: "*1\r\n\r\n", want: []string{"Protocol error: expected '$', got '\r'"}},
	{name: "bulk negative", in: "*1\r\n$-1\r\n", want: []string{"Protocol error: invalid bulk length"}},
	{name: "bulk too large", in: "*1\r\n$536870913\r\n", want: []string{"Protocol error: invalid bulk length"}},
	{name: "bulk overflows", in: "*1\r\n$9223372036854775808\r\n", want: []string{"Protocol error: invalid bulk length"}},
	{name: "bulk endless", in: "*1\r\n$" + strings.Repeat("1", maxLine+2), want: []string{"Protocol error: too big bulk count string"}},
	{name: "good then bad", in: "*1\r\n$4\r\nPING\r\n*1\r\n!", want: []string{`["PING"]`}},
	{name: "largest claims", in: "*2147483647\r\n$536870912\r\nabc", want: nil},
	{name: "odd line ends", in: "*1\rX$4\r\rPINGab", want: []string{`["PING"]`}},
	{name: "many before auth", in: "*11\r\n", noAuth: true, want: []string{"Protocol error: unauthenticated multibulk length"}},
	{name: "large before auth", in: "*1\r\n$16385\r\n", noAuth: true, want: []string{"Protocol error: unauthenticated bulk length"}},
	{name: "enough before auth", in: "*10\r\n$16384\r\n", noAuth: true, want: nil},
}

func TestRequestFramer(t *testing.T) {
	for _, tt := range requests {
		t.Run(tt.name, func(t *testing.T) {
			if got := cut([]byte(tt.in), nil, tt.noAuth); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("whole: got %v, want %v", got, tt.want)
			}
			if len(tt.in) > 1000 {
				return
			}
			for at := 1; at < len(tt.in); at++ {
				if got := cut([]byte(tt.in), []int{at}, tt.noAuth); fmt.Sprint(got) != fmt.Sprint(tt.want) {
					t.Errorf("split at %d: got %v, want %v", at, got, tt.want)
				}
			}
		})
	}
}

// A claimed length takes no memory; only bytes do.
func TestRequestFramerMemory(t *testing.T) {
	f := newRequestFramer(maxArgs, MaxBulk)
	f.read(copy(f.more(), "*2147483647\r\n$536870912\r\n"))
	for range 64 {
		if _, err := f.next(false); !errors.Is(err, errShort) {
			t.Fatal(err)
		}
		room := f.more()
		f.read(min(len(room), 1000))
	}
	if c := cap(f.buf); c > 4*readChunk+2*64*1000 {
		t.Errorf("64,000 bytes of a 512 MiB argument take %d bytes", c)
	}
}

// A command is bounded as a whole: by its bytes, and by what its arguments cost besides.
func TestRequestFramerSize(t *testing.T) {
	for _, tt := range []struct{ name, args string }{
		{"long", strings.Repeat("$400\r\n"+strings.Repeat("x", 400)+"\r\n", 10)},
		{"many", strings.Repeat("$0\r\n\r\n", 100)},
		{"claimed", "$4001\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, limit := range []int{4000, 6000} {
				f := newRequestFramer(maxArgs, MaxBulk)
				f.maxSize = limit
				f.read(copy(f.more(), "*100\r\n"+tt.args))
				_, err := f.next(false)
				_, refused := err.(protocolError)
				if refused != (limit == 4000) {
					t.Errorf("with a limit of %d: %v", limit, err)
				}
			}
		})
	}
}

// Before Redis 7 a command has fewer arguments, and Redis ends the connection, which others share, that has more.
func TestMaxArgsBefore(t *testing.T) {
	f := newRequestFramer(maxArgsBefore, MaxBulk)
	f.read(copy(f.more(), "*1048577\r\n"))
	if _, err := f.next(false); fmt.Sprint(err) != "Protocol error: invalid multibulk length" {
		t.Errorf("got %v", err)
	}
	f = newRequestFramer(3, MaxBulk)
	f.read(copy(f.more(), "*4\r\n$3\r\nDEL\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"))
	if _, err := f.next(false); fmt.Sprint(err) != "Protocol error: invalid multibulk length" {
		t.Errorf("a command that is there as a whole: got %v", err)
	}
}

func FuzzRequestFramer(f *testing.F) {
	for _, tt := range requests {
		f.Add([]byte(tt.in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		whole := cut(stream, nil, false)
		pieces := make([]int, len(stream))
		for i := range pieces {
			pieces[i] = int(step)%16 + 1
		}
		if parts := cut(stream, pieces, false); fmt.Sprint(parts) != fmt.Sprint(whole) {
			t.Errorf("%q whole gives %v, in pieces of %d %v", stream, whole, pieces[0], parts)
		}
		for _, got := range whole {
			if strings.HasPrefix(got, "what is forwarded") {
				t.Error(got)
			}
		}
	})
}

// frame feeds a reply stream in pieces and returns where replies end.
func frame(stream []byte, step int) (ends []int, err error) {
	var f replyFramer
	used, at := 0, 0
	for at < len(stream) || used < at {
		at = min(at+step, len(stream))
		for used < at {
			n, done, err := f.feed(stream[used:at])
			if err != nil {
				return ends, err
			}
			used += n
			if done {
				ends = append(ends, used)
			} else {
				break
			}
		}
		if at == len(stream) {
			return ends, nil
		}
	}
	return ends, nil
}

var replies = []struct {
	name, in string
	ends     []int
	bad      bool
}{
	{name: "status", in: "+OK\r\n", ends: []int{5}},
	{name: "several", in: "+OK\r\n:12\r\n-ERR x\r\n$-1\r\n*-1\r\n", ends: []int{5, 10, 18, 23, 28}},
	{name: "bulk", in: "$3\r\na\r\n\r\n$0\r\n\r\n", ends: []int{9, 15}},
	{name: "array", in: "*2\r\n$1\r\na\r\n*1\r\n:1\r\n+OK\r\n", ends: []int{19, 24}},
	{name: "arrays of strings", in: "*3\r\n$1\r\na\r\n$-1\r\n*2\r\n$2\r\nbb\r\n$0\r\n\r\n*2\r\n*1\r\n$1\r\nx\r\n$1\r\ny\r\n", ends: []int{34, 56}},
	{name: "empty array", in: "*0\r\n*1\r\n*0\r\n", ends: []int{4, 12}},
	{name: "map", in: "%1\r\n+a\r\n#t\r\n", ends: []int{12}},
	{name: "attribute", in: "|1\r\n+a\r\n:1\r\n$1\r\nx\r\n,1.5\r\n", ends: []int{19, 25}},
	{name: "push and set", in: ">1\r\n_\r\n~1\r\n(12\r\n=5\r\ntxt:a\r\n", ends: []int{7, 16, 27}},
	{name: "incomplete", in: "*2\r\n:1\r\n"},
	{name: "unknown type", in: "?\r\n", bad: true},
	{name: "negative length", in: "$-2\r\n", bad: true},
	{name: "bare newline", in: "+OK\n", bad: true},
	{name: "nested too deep", in: strings.Repeat("*1\r\n", maxDepth+1), bad: true},
}

func TestReplyFramer(t *testing.T) {
	for _, tt := range replies {
		t.Run(tt.name, func(t *testing.T) {
			for step := 1; step <= len(tt.in); step++ {
				ends, err := frame([]byte(tt.in), step)
				if fmt.Sprint(ends) != fmt.Sprint(tt.ends) || (err != nil) != tt.bad {
					t.Errorf("in pieces of %d: got %v, %v, want %v, error %v", step, ends, err, tt.ends, tt.bad)
				}
			}
		})
	}
}

func FuzzReplyFramer(f *testing.F) {
	for _, tt := range replies {
		f.Add([]byte(tt.in), uint8(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		whole, err := frame(stream, len(stream)+1)
		parts, perr := frame(stream, int(step)%16+1)
		if fmt.Sprint(whole) != fmt.Sprint(parts) || (err == nil) != (perr == nil) {
			t.Errorf("%q whole ends at %v, %v, in pieces at %v, %v", stream, whole, err, parts, perr)
		}
		from := 0
		for _, end := range whole {
			if elem, rest, err := element(stream[from:]); err != nil || len(elem) != end-from || !bytes.Equal(rest, stream[end:]) {
				t.Errorf("element of %q is %q, %v", stream[from:], elem, err)
			}
			elements(nil, stream[from:end])
			isNil(stream[from:end])
			from = end
		}
	})
}

// What flows is what came, however it came, and the next command is cut as ever.
func TestFlow(t *testing.T) {
	large := appendCommand(nil, []byte("RPUSH"), []byte("k"), bytes.Repeat([]byte("x"), 40), nil, bytes.Repeat([]byte("y"), 30))
	next := appendCommand(nil, []byte("GET"), []byte("k"))
	wire := slices.Concat(next, large, next)
	for piece := 1; piece <= len(wire); piece++ {
		f := newRequestFramer(maxArgs, MaxBulk)
		var got, flown []byte
		commands := 0
		for from := 0; from < len(wire); from += piece {
			n := copy(f.more(), wire[from:min(from+piece, len(wire))])
			f.read(n)
			for {
				if f.flowing || f.large(20) != nil {
					b, last, err := f.flow(false)
					if err != nil {
						t.Fatal(err)
					}
					if flown = append(flown, b...); !last {
						break
					}
					commands++
					got = append(got, flown...)
				}
				req, err := f.next(false)
				if err == errShort {
					if !f.flowing && f.large(20) != nil {
						continue
					}
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				commands++
				got = append(got, req.raw...)
			}
		}
		if !bytes.Equal(got, wire) || commands != 3 || !f.idle() {
			t.Fatalf("in pieces of %d bytes: %d commands, %q", piece, commands, got)
		}
	}
}

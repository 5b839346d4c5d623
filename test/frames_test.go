package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// what a server does once it has read a frame.
type reaction int

const (
	goesOn reaction = iota // it answers, and then the next command
	closes                 // it says what is wrong and closes
	waits                  // for the rest of the frame
)

const line64K = 64 << 10

var frames = []struct {
	name  string
	frame string
	reaction
}{
	{"nothing", "", goesOn},
	{"line feeds", "\n\r\n\r\n\n", goesOn},
	{"blanks", "   \t \r\n", goesOn},
	{"inline", "PING\r\n", goesOn},
	{"inline without carriage return", "PING\n", goesOn},
	{"inline with arguments", "ECHO  hello\t\r\n", goesOn},
	{"inline quotes", `ECHO "a\x00\r\n\"b\" 'c'"` + "\r\n", goesOn},
	{"inline single quotes", `ECHO 'it\'s \x41'` + "\r\n", goesOn},
	{"inline quotes within a word", `ECHO a"b"` + "\r\n", goesOn},
	{"inline quote that does not end", `ECHO "a` + "\r\n", closes},
	{"inline quote that ends too early", `ECHO "a"b` + "\r\n", closes},
	{"inline of 64 KiB", "ECHO " + strings.Repeat("a", line64K-100) + "\r\n", goesOn},
	{"inline without an end", strings.Repeat("a", line64K+line64K), closes},
	{"inline unknown", "foo bar\r\n", goesOn},
	{"http", "GET / HTTP/1.1\r\n", goesOn},
	{"http header", "Host: localhost\r\n\r\n", closes},
	{"http post", "POST / HTTP/1.1\r\n\r\n", closes},

	{"empty array", "*0\r\n", goesOn},
	{"null array", "*-1\r\n", goesOn},
	{"negative count", "*-5\r\n", goesOn},
	{"most negative count", "*-9223372036854775808\r\n", goesOn},
	{"empty argument", "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", goesOn},
	{"empty command", "*1\r\n$0\r\n\r\n", goesOn},
	{"binary argument", "*2\r\n$4\r\nECHO\r\n$8\r\n\r\n$-1\r\n\x00\xff\r\n", goesOn},
	{"argument ended by anything", "*1\r\n$4\r\nPINGxy", goesOn},
	{"header ended by anything", "*1\rx$4\r\xffPING\r\n", goesOn},
	{"count zero with more digits", "*00\r\n", closes},
	{"count with a zero", "*01\r\n$4\r\nPING\r\n", closes},
	{"count with a plus", "*+1\r\n$4\r\nPING\r\n", closes},
	{"count with a blank", "* 1\r\n$4\r\nPING\r\n", closes},
	{"count with letters", "*1a\r\n", closes},
	{"no count", "*\r\n", closes},
	{"count over 32 bits", "*4294967297\r\n", closes},
	{"count over 63 bits", "*9223372036854775808\r\n", closes},
	{"count over 64 bits", "*18446744073709551617\r\n", closes},
	{"count without an end", "*" + strings.Repeat("1", 2*line64K), closes},
	{"no length", "*1\r\n$\r\n", closes},
	{"empty length line", "*1\r\n\r\n", closes},
	{"line feed for a length line", "*1\r\n\n\r\n", closes},
	{"length missing", "*1\r\nPING\r\n", closes},
	{"length of another type", "*1\r\n:4\r\nPING\r\n", closes},
	{"nested array", "*1\r\n*1\r\n$4\r\nPING\r\n", closes},
	{"negative length", "*1\r\n$-1\r\n", closes},
	{"more negative length", "*2\r\n$4\r\nECHO\r\n$-2\r\n", closes},
	{"length with a plus", "*1\r\n$+4\r\nPING\r\n", closes},
	{"length with a zero", "*1\r\n$04\r\nPING\r\n", closes},
	{"length over the limit", "*1\r\n$536870913\r\n", closes},
	{"length over 32 bits", "*1\r\n$4294967300\r\nPING\r\n", closes},
	{"length over 63 bits", "*1\r\n$9223372036854775808\r\n", closes},
	{"length without an end", "*1\r\n$" + strings.Repeat("1", 2*line64K), closes},
	{"good, then bad", "*1\r\n$4\r\nPING\r\n*1\r\n!4\r\n", closes},
	{"bad, then good", "*1\r\n!4\r\n*1\r\n$4\r\nPING\r\n", closes},
	{"good, inline, good", "*1\r\n$4\r\nPING\r\nPING a\r\n*1\r\n$4\r\nPING\r\n", goesOn},

	{"star", "*", waits},
	{"half a count", "*1", waits},
	{"count alone", "*2\r\n", waits},
	{"half a line end", "*1\r", waits},
	{"half an argument", "*1\r\n$4\r\nPI", waits},
	{"argument without its end", "*1\r\n$4\r\nPING", waits},
	{"good, then half", "*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n", waits},
	{"largest count", "*2147483647\r\n", waits},
	{"largest length", "*1\r\n$536870912\r\nabc", waits},
	{"both", "*2147483647\r\n$536870912\r\nabc", waits},
	{"half an inline", "PIN", waits},

	{"a million arguments", "*1100000\r\n$4\r\nECHO\r\n" + strings.Repeat("$0\r\n\r\n", 1100000-1), goesOn},
	{"an argument of 4 MiB", fmt.Sprintf("*2\r\n$6\r\nSTRLEN\r\n$%d\r\n%s\r\n", 4<<20, strings.Repeat("\r\n$1", 1<<20)), goesOn},
	{"a long name", fmt.Sprintf("*1\r\n$%d\r\n%s\r\n", 1000, strings.Repeat("x", 1000)), goesOn},
}

// What is no command is answered as Redis answers it, byte for byte, and ends the connection if Redis ends it,
// wherever the network cuts it. Nobody else notices.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	for _, test := range frames {
		t.Run(test.name, func(t *testing.T) {
			want := exchange(t, s.Redis.Addr, test.reaction, test.frame)
			if got := exchange(t, s.Addr, test.reaction, test.frame); got != want {
				t.Errorf("keyrow answers %.300q, redis %.300q", got, want)
			}
			if len(test.frame) > 60 {
				return
			}
			for at := 1; at < len(test.frame); at++ {
				if got := exchange(t, s.Addr, test.reaction, test.frame[:at], test.frame[at:]); got != want {
					t.Errorf("cut at %d: keyrow answers %.300q, redis %.300q", at, got, want)
				}
			}
		})
	}
	// Redis has no limit for how long it waits for the end of a line with a zero byte in it.
	exchange(t, s.Addr, waits, "PI\x00NG\r\n")
	exchange(t, s.Addr, waits, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n") // a TLS hello
	s.want("PONG", "PING")
	s.rest()
}

// exchange sends parts, in one write each, and returns all that comes back.
func exchange(t *testing.T, addr string, r reaction, parts ...string) string {
	t.Helper()
	p := dial(t, addr)
	defer p.Close()
	for i, part := range parts {
		if i > 0 {
			// Another connection's reply makes it likely that the part before was read by itself.
			dial(t, addr).do("PING")
		}
		p.send([]byte(part))
	}
	switch r {
	case closes:
		return p.rest()
	case waits:
		if err := p.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		return p.rest()
	}
	const end = "the end of it"
	p.send(encode("ECHO", end))
	var got strings.Builder
	for !strings.HasSuffix(got.String(), end+"\r\n") {
		got.WriteString(p.reply())
	}
	return got.String()
}

// A connection that claims to send much takes memory for what it did send. Others are served meanwhile.
func TestClaimedLengthsTakeNoMemory(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	const clients = 100
	sent := bytes.Repeat([]byte("x"), 64<<10)
	before := memory(t, s.PID(), "VmHWM")
	var peers []*peer
	for i := range clients {
		p := dial(t, s.Addr)
		switch i % 4 {
		case 0:
			p.send([]byte("*2\r\n$4\r\nECHO\r\n$536870912\r\n"))
			p.send(sent)
		case 1:
			p.send([]byte("*3\r\n$3\r\nSET\r\n$6\r\nuser:1\r\n$536870912\r\n"))
			p.send(sent)
		case 2:
			p.send([]byte("*2147483647\r\n$3\r\nDEL\r\n"))
			p.send(bytes.Repeat([]byte("$1\r\na\r\n"), 5000))
		case 3:
			p.send([]byte("*2147483647\r\n$536870912\r\n"))
			p.send(sent)
		}
		peers = append(peers, p)
	}
	harness.Until(t, "it has read all of it", func() bool { return s.info("clients") == clients+1 && unread(t, s.Addr) == 0 })
	s.want(ada, "GET", "user:42")
	s.want("OK", "SET", "user:43", `{"name":"Bea"}`)
	// 100 x 64 KiB were sent; the rest is for the garbage collector and the race detector, which needs eight times as
	// much. One claim alone would be 512 MiB.
	if grown := memory(t, s.PID(), "VmHWM") - before; grown > 200<<20 {
		t.Errorf("it took %d MiB for %d KiB from %d clients", grown>>20, clients*len(sent)>>10, clients)
	}
	for _, p := range peers {
		p.Close()
	}
	harness.Until(t, "they are gone", func() bool { return s.info("clients") == 1 })
	s.rest()
}

// memory is a line of /proc/<pid>/status, in bytes.
func memory(t testing.TB, pid int, name string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB$`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("no %s in\n%s", name, status)
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// unread is how many bytes the kernel holds for the process that listens on addr.
func unread(t *testing.T, addr string) int64 {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(addr, ":")
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // sl local_address rem_address st tx_queue:rx_queue …
		if len(f) < 5 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) || f[3] != "01" {
			continue
		}
		_, queue, _ := strings.Cut(f[4], ":")
		bytes, err := strconv.ParseInt(queue, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		total += bytes
	}
	return total
}

// A client that does not read its replies is not served further, and takes no more than what is stated; others do not
// wait for it.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{Set: map[string]string{"proxy.output_limit": "4194304"}})
	s.Redis.Do("SET", "large", strings.Repeat("x", 1<<20))
	before := memory(t, s.PID(), "VmHWM")
	slow := dial(t, s.Addr)
	for range 40 {
		slow.send(encode("GET", "large"))
	}
	for i := range 100 {
		key, image := account(i, 1)
		s.want("OK", "SET", key, image)
	}
	// It was closed, or left unread until it reads; either way what it gets is whole replies.
	if got := slow.rest(); len(got) > 40*(1<<20+20) {
		t.Errorf("it got %d bytes", len(got))
	}
	if grown := memory(t, s.PID(), "VmHWM") - before; grown > 150<<20 {
		t.Errorf("it took %d MiB for a client that does not read", grown>>20)
	}
	s.rest()
}

// Clients that leave in the middle of anything, some with a reset, leave nothing behind.
func TestClientsThatLeave(t *testing.T) {
	t.Parallel()
	s := openShop(t, harness.Options{})
	s.sql("INSERT INTO users SELECT seq, 'x', NULL, 1, 1 FROM seq_0_to_99")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var b []byte
		for range 1 + random.IntN(20) {
			id := random.IntN(100)
			key, image := account(id, int64(random.IntN(1000)))
			b = append(b, [][]byte{
				encode("GET", fmt.Sprint("user:", id)), encode("SET", key, image), encode("DEL", key),
				encode("MGET", "user:1", fmt.Sprint("user:", id), key), encode("MULTI"), encode("EXEC"), encode("WATCH", key),
				encode("BLPOP", "nolist", "0"), encode("SUBSCRIBE", "c"), encode("GET", "plain"), encode("SELECT", fmt.Sprint(id%2)),
			}[random.IntN(11)]...)
		}
		p := dial(t, s.Addr)
		p.send(b[:random.IntN(len(b)+1)])
		if random.IntN(2) == 0 {
			p.SetLinger(0) //nolint:errcheck // it is closed next
		}
		p.Close()
	}
	harness.Until(t, "they are gone", func() bool { return s.info("clients") == 1 })
	harness.Until(t, "redis is rid of their connections", func() bool {
		return !strings.Contains(fmt.Sprint(s.Redis.Do("CLIENT", "LIST")), "cmd=blpop")
	})
	s.rest()
	if got := s.row("SELECT COUNT(*) FROM accounts WHERE twin <> n"); got != "0" {
		t.Errorf("%s accounts are halves of two", got)
	}
}

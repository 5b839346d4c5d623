//go:build compat

package compat

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrow/test/harness"
)

// TestCutFrames ends connections at random bytes of what they send. What was sent whole may be applied, nothing else
// is; a client beside them notices nothing.
func TestCutFrames(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("COMPAT_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("again with the same cuts: COMPAT_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	r := harness.StartRedis(t)
	k := keyrowFor(t, harness.Options{Redis: r}, "behind")

	stop := make(chan struct{})
	var beside sync.WaitGroup
	p := dial(t, k.Addr)
	beside.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if got, err := p.do("INCR", "beside"); got != fmt.Sprintf(":%d\r\n", i) {
				t.Errorf("the client beside: %q %v, want %d", got, err, i)
				return
			}
		}
	})

	before := [][]string{
		nil, {"MULTI"}, {"SUBSCRIBE", "ch"}, {"WATCH", "w"}, {"HELLO", "3"}, {"SELECT", "0"}, {"BLPOP", "absent", "0"},
		{"SET", "user:7", `{"id":7,"name":"n"}`}, {"GET", "user:8"},
	}
	keys := map[string]int{}
	for i := range 300 {
		var wire []byte
		if first := before[i%len(before)]; first != nil {
			wire = encode(first...)
		}
		key := fmt.Sprint("cut:", i)
		one := encode("APPEND", key, "x")
		start := len(wire)
		wire = append(wire, bytes.Repeat(one, 5)...)
		at := rnd.IntN(len(wire) + 1)
		keys[key] = max(0, at-start) / len(one)
		c, err := net.Dial("tcp", k.Addr)
		ok(t, err)
		for sent := 0; sent < at; {
			n := min(at-sent, 1+rnd.IntN(len(wire)))
			if _, err := c.Write(wire[sent : sent+n]); err != nil {
				break
			}
			sent += n
		}
		if rnd.IntN(2) == 0 {
			c.(*net.TCPConn).SetLinger(0) //nolint:errcheck // it is closed next
		}
		c.Close()
	}
	closeAll := sync.OnceFunc(func() { close(stop); beside.Wait() })
	defer closeAll()
	harness.Until(t, "the cut clients are gone", func() bool { return info(t, k, "clients") <= 2 }) // p and the one asking
	for key, most := range keys {
		if n := r.Do("STRLEN", key).(int64); n > int64(most) {
			t.Errorf("%s: %d commands were applied, %d were sent whole", key, n, most)
		}
	}
	closeAll()
	k.Settled()
	k.Equal(harness.Rows{Pattern: "user:{id}", Table: "users"})
}

// info is a number of KEYROW INFO.
func info(t testing.TB, k *harness.Keyrow, name string) int64 {
	t.Helper()
	for line := range strings.SplitSeq(fmt.Sprint(k.Must("KEYROW", "INFO")), "\r\n") {
		if n, found := strings.CutPrefix(line, name+":"); found {
			v, err := strconv.ParseInt(n, 10, 64)
			ok(t, err)
			return v
		}
	}
	t.Fatalf("KEYROW INFO has no line %q", name)
	return 0
}

// TestPieces sends the same commands whole and in pieces of all sizes: the replies are the same.
func TestPieces(t *testing.T) {
	t.Parallel()
	k := keyrowFor(t, harness.Options{}, "behind")
	commands := [][]string{
		{"SET", "k", strings.Repeat("v", 100)}, {"GET", "k"}, {"NOSUCH", "x\r\ny"}, {"MULTI"}, {"GET", "k"}, {"EXEC"},
		{"SET", "user:1", `{"id":1,"name":"a"}`}, {"GET", "user:1"}, {"MGET", "k", "user:1", "user:2"}, {"BLPOP", "l", "0.01"},
		{"SELECT", "2"}, {"GET", "k"}, {"SELECT", "0"}, {"ECHO", ""},
	}
	var wire []byte
	for _, c := range commands {
		wire = append(wire, encode(c...)...)
	}
	wire = append(wire, "GET k\r\n\r\nPING\n"...)
	all := func(p *peer) string {
		var got []byte
		for range len(commands) + 2 {
			b, err := p.frame()
			ok(t, err)
			got = append(got, b...)
		}
		return string(got)
	}
	whole := dial(t, k.Addr)
	ok(t, whole.write(wire))
	want := all(whole)
	for _, size := range []int{1, 2, 3, 5, 7, 16, 33, 100} {
		p := dial(t, k.Addr)
		ok(t, p.SetNoDelay(true))
		for at := 0; at < len(wire); at += size {
			ok(t, p.write(wire[at:min(len(wire), at+size)]))
		}
		if got := all(p); got != want {
			t.Errorf("in pieces of %d:\n got %q\nwant %q", size, got, want)
		}
	}
}

package proxy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"keyrow/test/harness"
)

// Commands whose replies are large reach Redis as the replies before them come, in their order and whole, and small ones
// as they are.
func TestLargeRepliesAreAskedForInParts(t *testing.T) {
	const clients, size = 20, 240 << 10
	r := newRig(t, nil)
	up := r.upstream()
	large := fmt.Sprintf("$%d\r\n%s\r\n", size, strings.Repeat("x", size))
	first := r.client()
	for range 10 * windowSample {
		first.send("GET x")
		up.expect("GET x")
		go up.Write([]byte(large)) //nolint:errcheck // what is missing is missed below
		first.expect(large)
	}

	var l *lane
	for _, set := range r.srv.upstream.sets {
		l = set.lanes[0]
	}
	const ahead = 5 // the replies to four are not more than a window yet
	all := make([]*testClient, clients)
	for i := range all {
		all[i] = r.client()
		all[i].send(fmt.Sprintf("GET %02d", i))
		harness.Until(t, "the command is there, and in its order", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.expected == l.window.done+uint64(i)+1 && l.out.size == max(0, i+1-ahead)*len("*2\r\n$3\r\nGET\r\n$2\r\n00\r\n")
		})
	}
	for i, c := range all {
		up.expect(fmt.Sprintf("GET %02d", i))
		go up.Write([]byte(large)) //nolint:errcheck // what is missing is missed below
		c.expect(large)
	}

	for range 10 * windowSample {
		first.send("GET x")
		up.expect("GET x")
		up.send("$-1\r\n")
		first.expect("$-1\r\n")
	}
	for i, c := range all {
		c.send(fmt.Sprintf("GET %02d", i))
		up.expect(fmt.Sprintf("GET %02d", i))
	}
	for _, c := range all {
		up.send("$-1\r\n")
		c.expect("$-1\r\n")
	}
}

// However commands are queued, written in part and answered, what is open ends where one of them ends, is never none
// while nothing is under way, and behind a window of replies there is never more than what was queued together.
func TestWindow(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var ends, replies []uint64 // of what was queued
		var written, expected, done uint64
		size := rnd.IntN(3 * maxWindow)
		w := window{each: min(float64(size), maxWindow)}
		for range 300 {
			switch rnd.IntN(3) {
			case 0:
				n := 1 + rnd.IntN(100)
				w.queue(n, expected)
				expected += uint64(1 + rnd.IntN(5))
				ends, replies = append(ends, w.queued), append(replies, expected)
			case 1:
				if w.queued == written {
					continue
				}
				open := w.open(int(w.queued - written))
				sent := uint64(0)
				for i, end := range ends {
					if end <= written {
						sent = replies[i]
					}
				}
				if open == 0 && sent == done {
					t.Fatalf("nothing is open after %d replies of %d, all that were asked for", done, sent)
				}
				for i, end := range ends {
					if end == written+uint64(open) && i > 0 && ends[i-1] >= written && float64(replies[i-1]-done)*w.each > maxWindow {
						t.Fatalf("open is what is behind %d replies of %v bytes", replies[i-1]-done, w.each)
					}
				}
				at := written + uint64(open)
				if at != written && at != w.queued && !slices.Contains(ends, at) {
					t.Fatalf("open ends in a command, at %d of %v", at, ends)
				}
				written += uint64(rnd.IntN(open + 1))
			case 2:
				sent := uint64(0)
				for i, end := range ends {
					if end <= written {
						sent = replies[i]
					}
				}
				if sent > done {
					n := 1 + rnd.Uint64N(sent-done)
					done += n
					w.take(int(n)*size, done)
				}
			}
		}
	}
}

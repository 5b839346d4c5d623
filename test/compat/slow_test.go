//go:build compat

package compat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrow/test/harness"
)

// TestSlowReader leaves 64 MB of replies unread on one connection. A client on each lane works on beside it, and the
// slow one gets everything once it reads.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	r := harness.StartRedis(t)
	k := keyrowFor(t, harness.Options{Redis: r}, "behind")
	big := strings.Repeat("x", 1<<20)
	r.Do("SET", "big", big)
	const n = 64
	slow := dial(t, k.Addr)
	ok(t, slow.write(bytes.Repeat(encode("GET", "big"), n)))
	harness.Until(t, "the first reply has come", func() bool { return len(slow.arrived()) > 0 })
	var beside sync.WaitGroup
	for i := range 4 {
		p := dial(t, k.Addr)
		beside.Go(func() {
			for at := 1; at <= 500; at++ {
				if got, err := p.do("INCR", fmt.Sprint("n", i)); got != fmt.Sprintf(":%d\r\n", at) {
					t.Errorf("beside the slow reader: %q %v", got, err)
					return
				}
			}
		})
	}
	beside.Wait()
	for i := range n {
		b, err := slow.frame()
		if err != nil || len(b) != len(big)+len("$1048576\r\n\r\n") {
			t.Fatalf("reply %d: %d bytes, %v", i, len(b), err)
		}
	}
}

// TestSlowSubscriber leaves messages unread on one connection. Redis itself gives such a subscriber up at 32 MB (its
// client-output-buffer-limit); another subscriber gets all of them.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	k := keyrowFor(t, harness.Options{}, "behind")
	slow, quick, publisher := dial(t, k.Addr), dial(t, k.Addr), dial(t, k.Addr)
	slow.must(t, "SUBSCRIBE", "ch")
	quick.must(t, "SUBSCRIBE", "ch")
	const n = 1600
	text := strings.Repeat("x", 64<<10)
	var reading sync.WaitGroup
	reading.Go(func() {
		for i := range n {
			if b, err := quick.frame(); err != nil || len(b) < len(text) {
				t.Errorf("the other subscriber: message %d: %d bytes, %v", i, len(b), err)
				return
			}
		}
	})
	for range n {
		publisher.must(t, "PUBLISH", "ch", text)
	}
	reading.Wait()
	ok(t, slow.SetReadDeadline(time.Now().Add(patience)))
	got, err := io.Copy(io.Discard, slow.in)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the slow subscriber was not closed: it got %d MB, and redis gives up at 32", got>>20)
	}
	same(t, publisher.must(t, "PUBSUB", "NUMSUB", "ch"), "*2\r\n$2\r\nch\r\n:1\r\n")
}

package test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"keyrow/test/harness"
)

// A client that leaves 64 MiB of replies unread for a while gets all of them once it reads, and holds up nobody.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const replies, size = 64, 1 << 20
	s := openShop(t, harness.Options{})
	value := strings.Repeat("x", size)
	s.Redis.Do("SET", "large", value)
	beside := newBystanders(s)
	slow := dial(t, s.Addr)
	slow.send(bytes.Repeat(encode("GET", "large"), replies))
	harness.Until(t, "redis has answered all of it", func() bool { return s.gets() >= replies })
	beside.work()
	want := fmt.Sprintf("$%d\r\n%s\r\n", size, value)
	for i := range replies {
		slow.patient()
		if got := slow.reply(); got != want {
			t.Fatalf("reply %d has %d bytes: %.50q", i, len(got), got)
		}
	}
	s.rest()
}

// A subscriber that leaves messages unread is given up where Redis gives it up by itself, at 32 MB (its
// client-output-buffer-limit). Another one gets all of them.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	const messages, size, most = 1600, 64 << 10, 64 << 20
	s := openShop(t, harness.Options{})
	slow, quick, publisher := dial(t, s.Addr), dial(t, s.Addr), dial(t, s.Addr)
	slow.do("SUBSCRIBE", "ch")
	quick.do("SUBSCRIBE", "ch")
	text := strings.Repeat("x", size)
	want := fmt.Sprintf("*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$%d\r\n%s\r\n", size, text)
	var reading sync.WaitGroup
	reading.Go(func() {
		for i := range messages {
			quick.patient()
			if got, err := quick.next(); err != nil || got != want {
				t.Errorf("the other subscriber: message %d has %d bytes, %v", i, len(got), err)
				return
			}
		}
	})
	for range messages {
		publisher.patient()
		publisher.do("PUBLISH", "ch", text)
	}
	reading.Wait()
	slow.patient()
	got, err := io.Copy(io.Discard, slow.in)
	if err != nil && !closed(err) || got > most {
		t.Errorf("the slow subscriber was sent %d MiB and then %v", got>>20, err)
	}
	harness.Until(t, "redis has one subscriber", func() bool {
		return publisher.do("PUBSUB", "NUMSUB", "ch") == "*2\r\n$2\r\nch\r\n:1\r\n"
	})
	s.rest()
}

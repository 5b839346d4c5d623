package test

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrow/test/harness"
)

// connect is dial for goroutines other than the test's.
func connect(addr string) (*peer, error) {
	c, err := net.DialTimeout("tcp", addr, harness.Patience)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(harness.Patience))
	return &peer{TCPConn: c.(*net.TCPConn), in: bufio.NewReader(c)}, nil
}

// patient lets the peer wait for harness.Patience from now on.
func (p *peer) patient() { _ = p.SetDeadline(time.Now().Add(harness.Patience)) }

// ask is do for goroutines other than the test's, and as often as one likes: each reply may take harness.Patience.
func (p *peer) ask(args ...string) (string, error) {
	p.patient()
	if _, err := p.Write(encode(args...)); err != nil {
		return "", err
	}
	return p.next()
}

// next is reply for goroutines other than the test's.
func (p *peer) next() (string, error) {
	var b strings.Builder
	err := p.read(&b)
	return b.String(), err
}

// bulk is text as a reply.
func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

// blocked waits until n clients of Redis wait for something in a command that blocks.
func (s *shop) blocked(n int) {
	s.t.Helper()
	harness.Until(s.t, fmt.Sprintf("redis has %d blocked clients", n), func() bool {
		return strings.Contains(fmt.Sprint(s.Redis.Do("INFO", "clients")), fmt.Sprintf("\r\nblocked_clients:%d\r\n", n))
	})
}

// bystanders are clients who have nothing to do with what a test is about, and must not notice it.
type bystanders struct {
	t      testing.TB
	peers  []*peer
	rounds int
}

func newBystanders(s *shop) *bystanders {
	b := &bystanders{t: s.t}
	for range 4 { // some on every lane
		b.peers = append(b.peers, dial(s.t, s.Addr))
	}
	return b
}

// work has each bystander complete 500 commands, checks the replies, and returns how long the slowest hundredth took.
func (b *bystanders) work() (p99 time.Duration) {
	b.t.Helper()
	const commands = 500
	took := make([]time.Duration, commands*len(b.peers))
	var all sync.WaitGroup
	for w, p := range b.peers {
		all.Go(func() {
			for i := range commands {
				start := time.Now()
				got, err := p.ask("INCR", fmt.Sprint("bystander:", w))
				took[commands*w+i] = time.Since(start)
				if want := fmt.Sprintf(":%d\r\n", b.rounds*commands+i+1); err != nil || got != want {
					b.t.Errorf("bystander %d is answered %q, %v; want %q", w, got, err, want)
					return
				}
			}
		})
	}
	all.Wait()
	b.rounds++
	slices.Sort(took)
	return took[len(took)*99/100]
}

// during has the bystanders work while something goes on, and prints how that compares with before.
func (b *bystanders) during(what string, before time.Duration) {
	b.t.Helper()
	now := b.work()
	b.t.Logf("beside %s the slowest hundredth of other clients' commands takes %.1f times as long (%v, %v without)", what,
		float64(now)/float64(before), now, before)
}

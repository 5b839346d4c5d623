package proxy

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// The end of a connection to Redis is seen also if the poller tells of it together with the last replies: it does so
// only once.
func TestLaneEndsBehindReplies(t *testing.T) {
	loops, err := newLoops(1)
	if err != nil {
		t.Fatal(err)
	}
	defer loops[0].poller.close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	redis, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	replies := &gathered{}
	l := &lane{loop: loops[0], failed: make(chan error, 1), fifo: []entry{{op: replies, n: 2}}}
	l.work.L, l.room.L = &l.mu, &l.mu
	l.point = loops[0].adopt(conn)
	defer l.point.close()
	if err := loops[0].watch(l.point, nil, l); err != nil {
		t.Fatal(err)
	}

	_, _ = redis.Write([]byte("+one\r\n"))
	_ = redis.Close()
	var told readiness
	for deadline := time.Now().Add(10 * time.Second); told&ended == 0 && time.Now().Before(deadline); {
		told = 0 // only the last event, as if the loop had been busy before
		loops[0].poller.poll()
		for i := range loops[0].poller.n {
			_, r, _ := loops[0].poller.event(i)
			told |= r
		}
	}
	for more := l.turn(told); more; {
		more = l.turn(readable)
	}
	if len(*replies) != 1 {
		t.Errorf("the replies before the end are %q", *replies)
	}
	select {
	case err := <-l.failed:
		if !errors.Is(err, io.EOF) {
			t.Errorf("it ended with %v", err)
		}
	default:
		t.Error("the end was not seen")
	}
}

// gathered keeps the replies to one command.
type gathered []string

func (g *gathered) reply(_ *lane, b []byte) { *g = append(*g, string(b)) }
func (g *gathered) lost(error)              {}

package proxy

import "testing"

// Once nothing is subscribed any more an array is a reply, whatever stands in it.
func TestArrayBehindUnsubscribe(t *testing.T) {
	for _, reply := range []string{"*0\r\n", "*2\r\n$7\r\nmessage\r\n$1\r\ny\r\n"} {
		r := newRig(t, nil)
		r.upstream()
		c := r.client()
		c.send("SUBSCRIBE a", "UNSUBSCRIBE a", "MGET x y", "MULTI")
		own := r.own()
		confirmed := "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
		own.expect("SUBSCRIBE a")
		own.expect("PING")
		own.send(confirmed + "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
		c.expect(confirmed)
		confirmed = "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"
		own.expect("UNSUBSCRIBE a")
		own.expect("PING")
		own.send(confirmed + "+PONG\r\n")
		c.expect(confirmed)
		own.expect("MGET x y")
		own.send(reply)
		own.expect("MULTI")
		own.send("+OK\r\n")
		c.expect(reply + "+OK\r\n")
		c.send("SELECT 1") // which waits until the client is owed nothing
		r.upstream().expect("SELECT 1")
	}
}

package proxy

import (
	"strings"
	"testing"

	"keyrow/mapping"
)

// testReplicas hands every question to the test, which answers when it wants.
type testReplicas chan func(err error)

func (r testReplicas) Await(_ mapping.Durability, _ string, _ int, done func(err error)) { r <- done }

// A reply that waits for replicas is still its own when it is let go, whatever the lane has read since into the memory that
// it came in: that of a run of single writes, and that of an MSET.
func TestHeldReplyIsNotOverwritten(t *testing.T) {
	asked := make(testReplicas, 1)
	r := newRig(t, func(o *Options) {
		o.Replicas = asked
		o.Mappings = testMappings(t, func(m *mapping.Config) { m.Durability, m.Replicas = "replicas", 1 })
	})
	tell := func(up *upstreamConn) {
		up.expect("INFO replication")
		up.send("$22\r\n\nmaster_replid:primary\r\r\n")
	}
	up := r.upstream()
	tell(up)
	writer, reader := r.client(), r.client()
	for i, writes := range []struct{ command, reply string }{
		{`MSET user:1 {"name":"a"} user:2 {"name":"b"}`, "+OK\r\n"},
		{`SET user:1 {"name":"a"}` + "\n" + `SET user:2 {"name":"b"}`, "+OK\r\n+OK\r\n"},
	} {
		writer.send(strings.Split(writes.command, "\n")...)
		if i == 0 {
			tell(r.upstream())
			r.writing()
		}
		up.run(`user:1 {"id":1,"name":"a"}`, `user:2 {"id":2,"name":"b"}`)
		up.send("+OK\r\n" + strings.Repeat("+QUEUED\r\n", 5) + "*5\r\n+OK\r\n+OK\r\n:0\r\n:2\r\n:0\r\n")
		done := <-asked
		other := strings.Repeat("x", 1000)
		reader.send("GET y")
		up.expect("GET y")
		up.send("$1000\r\n" + other + "\r\n")
		reader.expect("$1000\r\n" + other + "\r\n")
		done(nil)
		writer.expect(writes.reply)
	}
}

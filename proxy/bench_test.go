package proxy

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// BenchmarkPassThrough sends commands on unmapped keys through one session and one lane, both ends played by loops
// that allocate nothing. The allocations reported are keyrow's, per command.
func BenchmarkPassThrough(b *testing.B) {
	set := appendCommand(nil, []byte("SET"), []byte("key:000000000042"), bytes.Repeat([]byte("x"), 100))
	hget := appendCommand(nil, []byte("HGET"), []byte("key:000000000042"), []byte("field"))
	for _, test := range []struct {
		name    string
		command []byte
		depth   int
	}{{"SET", set, 1}, {"SET", set, 16}, {"SET", set, 100}, {"HGET", hget, 16}} {
		b.Run(fmt.Sprintf("%s/pipeline=%d", test.name, test.depth), func(b *testing.B) {
			r := newRig(b, nil)
			up := r.upstream()
			c := r.client()
			command, depth := test.command, test.depth
			reply := []byte("+OK\r\n")
			go echo(up, len(command), reply)
			out, in := bytes.Repeat(command, depth), make([]byte, depth*len(reply))
			roundTrip := func() {
				if _, err := c.Write(out); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, in); err != nil {
					b.Fatal(err)
				}
			}
			for range 100 {
				roundTrip() // buffers reach their size
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += depth {
				roundTrip()
			}
		})
	}
}

// BenchmarkHit is BenchmarkPassThrough for reads of mapped keys that Redis has.
func BenchmarkHit(b *testing.B) {
	for _, name := range []string{"GET", "STRLEN"} {
		b.Run(name, func(b *testing.B) { benchmarkHit(b, name) })
	}
}

func benchmarkHit(b *testing.B, name string) {
	r := newRig(b, nil)
	up := r.upstream()
	c := r.client()
	const depth = 16
	// So that nobody asks whether MULTI is allowed.
	r.srv.upstream.acquire(laneKey{}).multi.Store(true)
	command := appendCommand(nil, []byte(name), []byte("user:42"))
	reply := []byte("$18\r\n{\"id\":42,\"name\":1}\r\n")
	go echo(up, len(command), reply)
	out, in := bytes.Repeat(command, depth), make([]byte, depth*len(reply))
	b.ReportAllocs()
	for n := 0; n < b.N; n += depth {
		if _, err := c.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			b.Fatal(err)
		}
	}
}

// echo answers every size bytes with reply.
func echo(conn io.ReadWriter, size int, reply []byte) {
	buf, replies := make([]byte, 256<<10), bytes.Repeat(reply, 256<<10/size+1)
	have := 0
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		have += n
		if _, err := conn.Write(replies[:have/size*len(reply)]); err != nil {
			return
		}
		have %= size
	}
}

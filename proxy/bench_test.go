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
	for _, depth := range []int{1, 16, 100} {
		b.Run(fmt.Sprintf("pipeline=%d", depth), func(b *testing.B) {
			r := newRig(b, nil)
			up := r.upstream()
			c := r.client()
			command := appendCommand(nil, []byte("SET"), []byte("key:000000000042"), bytes.Repeat([]byte("x"), 100))
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

// BenchmarkHit is BenchmarkPassThrough for GETs of mapped keys that Redis has.
func BenchmarkHit(b *testing.B) {
	r := newRig(b, nil)
	up := r.upstream()
	c := r.client()
	const depth = 16
	command := appendCommand(nil, []byte("GET"), []byte("user:42"))
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

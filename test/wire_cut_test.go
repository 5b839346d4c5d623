package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"keyrow/test/harness"
)

// mixture makes pipelines of all kinds of commands on keys of one owner, whose replies do not depend on what others do
// nor on keyrow: rows are read and written in the very words in which keyrow stores them.
type mixture struct {
	*rand.Rand
	owner int
}

// command is one command and what it does to the transaction it may stand in.
func (m mixture) command() []byte {
	key := fmt.Sprintf("cut:%d:%d", m.owner, m.IntN(5))
	id := 100*m.owner + m.IntN(5)
	row, image := account(id, int64(m.IntN(1000)))
	value := strings.Repeat("\r\n*1\r\n$4\r\nPING"[m.IntN(5):], m.IntN(20))
	if m.IntN(20) == 0 {
		value = strings.Repeat(value+"x", 1000)
	}
	text := func(s string, args ...any) []byte { return encode(strings.Fields(fmt.Sprintf(s, args...))...) }
	switch m.IntN(24) {
	case 0, 1:
		return encode("SET", key, value)
	case 2, 3:
		return encode("GET", key)
	case 4:
		return encode("APPEND", key, value)
	case 5:
		return text("STRLEN %s", key)
	case 6:
		return text("INCR count%s", key)
	case 7:
		return text("RPUSH list%s %s a b c", key, image)
	case 8:
		return text("LRANGE list%s 0 -1", key)
	case 9:
		return text("LPOP list%s 2", key)
	case 10:
		return text("HSET hash%s f%d x g y", key, m.IntN(100))
	case 11:
		return text("HGETALL hash%s", key)
	case 12:
		return encode("SET", row, image)
	case 13:
		return encode("GET", row)
	case 14:
		return encode("MGET", key, row, "nothing", row)
	case 15:
		return encode("DEL", key, row)
	case 16:
		return encode("ECHO", value)
	case 17:
		return []byte("PING inline\r\n\r\n")
	case 18:
		return []byte("*0\r\n*-1\r\nECHO \"in\\x00line\" \n")
	case 19:
		return encode("NOSUCH", value)
	case 20:
		return text("GET %s %s", key, row)
	case 21:
		return text("BLPOP list%s none%s 0.001", key, key)
	case 22:
		return bytes.Join([][]byte{text("MULTI"), text("INCR count%s", key), encode("GET", row), encode("SET", row, image), text("EXEC")}, nil)
	default:
		return bytes.Join([][]byte{text("WATCH %s", key), text("MULTI"), text("NOSUCH"), encode("SET", key, value), text("EXEC"), text("LPUSH %s x", key)}, nil)
	}
}

// pipeline is some commands; the reply to the last one says where their replies end.
func (m mixture) pipeline(end string) []byte {
	var wire []byte
	for range 1 + m.IntN(40) {
		wire = append(wire, m.command()...)
	}
	return append(wire, encode("ECHO", end)...)
}

// Pipelines that the network cuts at any byte are answered as Redis answers them when they come whole, byte for byte.
func TestPipelinesInPieces(t *testing.T) {
	t.Parallel()
	const clients, pipelines = 8, 40
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := openShop(t, harness.Options{})
	direct := harness.StartRedis(t)
	var all sync.WaitGroup
	for i := range clients {
		whole, cut := dial(t, direct.Addr), dial(t, s.Addr)
		other := dial(t, s.Addr)
		all.Go(func() {
			m := mixture{rand.New(rand.NewPCG(seed, uint64(i))), i}
			for n := range pipelines {
				end := fmt.Sprintf("end of %d", n)
				wire := m.pipeline(end)
				want, err := whole.answers([][]byte{wire}, end, nil)
				if err != nil {
					t.Errorf("client %d, pipeline %d: redis answers %.300q, %v", i, n, want, err)
					return
				}
				pieces := m.cut(wire)
				got, err := cut.answers(pieces, end, func() {
					if m.IntN(8) == 0 {
						// Another connection's reply makes it likely that the piece before was read by itself.
						other.ask("PING") //nolint:errcheck // the replies that matter are compared
					}
				})
				if err != nil || got != want {
					at := 0
					for at < min(len(got), len(want)) && got[at] == want[at] {
						at++
					}
					from := max(0, at-100)
					t.Errorf("client %d, pipeline %d of %d bytes in %d pieces, %v: from reply byte %d on\n got %.300q\nwant %.300q",
						i, n, len(wire), len(pieces), err, from, got[from:], want[from:])
					return
				}
			}
		})
	}
	all.Wait()
	s.rest()
}

// cut cuts at random bytes: few, many, or all of a stretch.
func (m mixture) cut(wire []byte) (pieces [][]byte) {
	most := []int{1, 3, 20, 1000, 20000}[m.IntN(5)]
	if len(wire) > 5000 {
		most = max(most, 100)
	}
	for len(wire) > 0 {
		n := min(len(wire), 1+m.IntN(most))
		pieces = append(pieces, wire[:n])
		wire = wire[n:]
	}
	return pieces
}

// answers sends pieces, one write each, and returns all replies up to the one to ECHO end.
func (p *peer) answers(pieces [][]byte, end string, between func()) (string, error) {
	p.patient()
	sent := make(chan error, 1)
	go func() {
		for _, piece := range pieces {
			if _, err := p.Write(piece); err != nil {
				sent <- err
				return
			}
			if between != nil {
				between()
			}
		}
		sent <- nil
	}()
	var got strings.Builder
	var err error
	for err == nil && !strings.HasSuffix(got.String(), end+"\r\n") {
		err = p.read(&got)
	}
	if err != nil {
		p.Close()
	}
	if failed := <-sent; err == nil {
		err = failed
	}
	return got.String(), err
}

// A command that blocks, which was sent behind the read of a row, is not sent on before the row is there: the read may have to
// be sent again, and would come behind it. What stands behind both is answered in its turn.
func TestRowBeforeBlocking(t *testing.T) {
	t.Parallel()
	hooks := harness.NewHooks(t, "load.selected")
	s := openShop(t, harness.Options{Hooks: hooks})
	s.sql("INSERT INTO users VALUES (42, 'Ada', NULL, 36, 12.5)")
	popped := "*2\r\n$4\r\nlist\r\n$1\r\nx\r\n"
	row := bulk(ada)
	for _, test := range []struct{ read, reply string }{
		{"GET user:42", row},
		{"MGET user:42 plain", "*2\r\n" + row + "$-1\r\n"},
	} {
		p := dial(t, s.Addr)
		s.Redis.Do("DEL", "user:42")
		s.Redis.Do("RPUSH", "list", "x", "x")
		p.send(bytes.Join([][]byte{
			encode("BLPOP", "list", "0"), encode(strings.Fields(test.read)...), encode("BLPOP", "list", "0"), encode("ECHO", "end"),
		}, nil))
		loading := hooks.Wait("load.selected")
		if left := s.Redis.Do("LLEN", "list"); left != int64(1) {
			t.Errorf("%s: %v elements are left while the row is loaded", test.read, left)
		}
		loading.Release()
		for _, want := range []string{popped, test.reply, popped, "$3\r\nend\r\n"} {
			if got := p.reply(); got != want {
				t.Errorf("%s: got %q, want %q", test.read, got, want)
			}
		}
	}
	s.rest()
}

package test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrow/test/harness"
)

var cutSeed = flag.Uint64("cut.seed", 0, "seed of TestPipelinesInPieces; 0: another one each time")

// mixture makes pipelines of all kinds of commands on keys of one owner, whose replies do not depend on what others do
// nor on keyrow: rows are read and written in the very words in which keyrow stores them.
type mixture struct {
	*rand.Rand
	owner int
}

func words(s string, args ...any) []byte { return encode(strings.Fields(fmt.Sprintf(s, args...))...) }

func (m mixture) key() string { return fmt.Sprintf("cut:%d:%d", m.owner, m.IntN(5)) }

func (m mixture) row() (key, image string) {
	return account(100*m.owner+m.IntN(5), int64(m.IntN(1000)))
}

func (m mixture) value() string {
	value := strings.Repeat("\r\n*1\r\n$4\r\nPING"[m.IntN(5):], m.IntN(20))
	if m.IntN(20) == 0 {
		value = strings.Repeat(value+"x", 1000)
	}
	return value
}

// plain is one command that changes nothing but what keys hold.
func (m mixture) plain() []byte {
	key, value := m.key(), m.value()
	row, image := m.row()
	switch m.IntN(27) {
	case 0, 1:
		return encode("SET", key, value)
	case 2, 3:
		return encode("GET", key)
	case 4:
		return encode("APPEND", key, value)
	case 5:
		return words("STRLEN %s", key)
	case 6:
		return words("INCR count%s", key)
	case 7:
		return words("RPUSH list%s %s a b c", key, image)
	case 8:
		return words("LRANGE list%s 0 -1", key)
	case 9:
		return words("LPOP list%s 2", key)
	case 10:
		return words("HSET hash%s f%d x g y", key, m.IntN(100))
	case 11:
		return words("HGETALL hash%s", key)
	case 12, 13:
		return encode("SET", row, image)
	case 14:
		return encode("GET", row)
	case 15:
		return encode("MGET", key, row, "nothing", row)
	case 16:
		return encode("DEL", key, row)
	case 17:
		return encode("ECHO", value)
	case 18:
		return []byte("PING inline\r\n\r\n")
	case 19:
		return []byte("*0\r\n*-1\r\nECHO \"in\\x00line\" \n")
	case 20:
		return encode("NOSUCH", value)
	case 21:
		return words("GET %s %s", key, row)
	case 22:
		return words([]string{"STRLEN %s", "TYPE %s", "EXISTS %s nothing", "GETRANGE %s 1 4"}[m.IntN(4)], row)
	case 23:
		return encode("SET", row, image, []string{"NX", "XX", "GET", "KEEPTTL"}[m.IntN(4)])
	case 24:
		return words([]string{"EVAL return{redis.call('GET',KEYS[1]),ARGV[1]} 1 %s %s", "SETEX %s 1000 %s", "GETSET %s %s"}[m.IntN(3)], row, image)
	case 25:
		other, it := m.row()
		return words([]string{"MSET %s %s %s %s %s v", "MSETNX %s %s %s %s %s v"}[m.IntN(2)], row, image, other, it, key)
	default:
		return words("EVAL return{redis.call('INCR',KEYS[1]),{ok='fine'}} 1 count%s", key)
	}
}

func (m mixture) several(most int) (wire []byte) {
	for range m.IntN(most + 1) {
		wire = append(wire, m.plain()...)
	}
	return wire
}

// command is one command, or several that belong together.
func (m mixture) command() []byte {
	key, value := m.key(), m.value()
	row, image := m.row()
	some := m.several(4)
	list := func(commands ...[]byte) []byte { return bytes.Join(commands, nil) }
	switch m.IntN(50) {
	case 0:
		return list(words("BLPOP list%s none%s 0.001", key, key), some)
	case 1:
		return words("XREAD BLOCK 1 COUNT 1 STREAMS stream%s %s", key, []string{"0", "$"}[m.IntN(2)])
	case 2:
		return list(words("XADD stream%s %d-1 f v", key, 1+m.IntN(9)), words("XREAD COUNT 2 STREAMS stream%s 0", key))
	case 3:
		return list(some, words("WAIT %d 1", m.IntN(2)))
	case 4: // somebody else answers
		return list(some, words("RPUSH asked:%d x", m.owner), words("BLPOP told:%d 0", m.owner), some)
	case 5, 6:
		return list(words("MULTI"), words("INCR count%s", key), encode("GET", row), encode("SET", row, image), words("EXEC"))
	case 7, 8:
		return list(words("MULTI"), some, words("%s", []string{"EXEC", "EXEC", "DISCARD", "RESET"}[m.IntN(4)]))
	case 9:
		return list(words("WATCH %s", key), words("MULTI"), words("NOSUCH"), encode("SET", key, value), words("EXEC"), words("LPUSH list%s x", key))
	case 10:
		return list(words("WATCH %s", key), some, words("MULTI"), words("GET %s", key), some, words("EXEC"))
	case 11:
		return list(words("WATCH %s", row), some, words("UNWATCH"))
	case 12, 13:
		return list(words("CLIENT REPLY OFF"), some, words("CLIENT REPLY ON"))
	case 14:
		return list(words("CLIENT REPLY SKIP"), [][]byte{words("GET %s", row), words("SET %s %s", row, image), words("GET %s", key), words("NOSUCH")}[m.IntN(4)])
	case 15:
		return list(words("SELECT %d", 1+m.IntN(2)), some, words("SELECT 0"))
	case 16:
		return list(some, words("RESET"))
	case 17:
		return list(words("CLIENT SETNAME n%d", m.IntN(5)), words("CLIENT GETNAME"))
	case 18:
		return words("CLIENT NO-EVICT ON")
	case 19, 20: // while something is subscribed RESP2 takes nothing else
		return list(words([]string{"PING", "WATCH %s"}[m.IntN(2)], key), words("SUBSCRIBE a%d b%[1]d", m.owner), words("PSUBSCRIBE n*"),
			words("GET %s", key), encode("PING", value), words("UNSUBSCRIBE b%d", m.owner), words("UNSUBSCRIBE"), words("PUNSUBSCRIBE"),
			words("LRANGE none%s 0 -1", key), some)
	case 21, 22:
		return list(words("HELLO 3"), some, words("SUBSCRIBE a%d", m.owner), some, encode("PUBLISH", fmt.Sprintf("a%d", m.owner), value),
			words("ECHO x"), words("UNSUBSCRIBE"), m.several(3), words("HELLO 2"))
	case 23:
		return list(words("HELLO 3"), some, words("%s", []string{"HELLO 2", "RESET"}[m.IntN(2)]))
	case 24, 25: // rows behind rows
		var run []byte
		for range 1 + m.IntN(12) {
			row, image = m.row()
			run = append(run, encode("SET", row, image)...)
		}
		return run
	case 26:
		if m.IntN(8) > 0 {
			return some
		}
		return list(some, encode("SET", "large"+key, strings.Repeat("\r\n$5\r\nlarge", 1<<17+m.IntN(1<<14))), encode("GETRANGE", "large"+key, "9", "99999"), some)
	default:
		return m.plain()
	}
}

// pipeline is some commands; the reply to the last one says where their replies end.
func (m mixture) pipeline(end string) []byte {
	var wire []byte
	for range 1 + m.IntN(30) {
		wire = append(wire, m.command()...)
	}
	return append(wire, encode("ECHO", end)...)
}

// idOf is what HELLO says of the client that is its own.
var idOf = regexp.MustCompile(`\$2\r\nid\r\n:\d+`)

// Pipelines that the network cuts at any byte are answered as Redis answers them when they come whole, byte for byte.
func TestPipelinesInPieces(t *testing.T) {
	t.Parallel()
	const clients, pipelines = 8, 15
	seed := cmp.Or(*cutSeed, rand.Uint64())
	t.Logf("seed %d", seed)
	s := openShop(t, harness.Options{})
	direct := harness.StartRedis(t)
	var all sync.WaitGroup
	for i := range clients {
		whole, cut := dial(t, direct.Addr), dial(t, s.Addr)
		if i%2 == 0 {
			_ = cut.SetReadBuffer(32 << 10) // so what it is answered does not all go at once
		}
		other := dial(t, s.Addr)
		for _, addr := range []string{direct.Addr, s.Addr} {
			go dial(t, addr).tell(i)
		}
		all.Go(func() {
			m := mixture{rand.New(rand.NewPCG(seed, uint64(i))), i}
			for n := range pipelines {
				end := fmt.Sprintf("end of %d", n)
				wire := m.pipeline(end)
				last := n == pipelines-1
				if last {
					// The client sends nothing more, and is answered all the same, unless it is in the middle of something that blocks.
					wire = append(m.several(40), encode("ECHO", end)...)
				}
				want, err := whole.answers([][]byte{wire}, end, nil, false)
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
				}, last)
				got, want = idOf.ReplaceAllString(got, ""), idOf.ReplaceAllString(want, "")
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

// tell answers a client that waits, as often as it asks, until the connection is closed.
func (p *peer) tell(client int) {
	for p.SetDeadline(time.Time{}) == nil {
		if _, err := p.Write(encode("BLPOP", fmt.Sprint("asked:", client), "0")); err != nil {
			return
		}
		if _, err := p.next(); err != nil {
			return
		}
		if _, err := p.ask("RPUSH", fmt.Sprint("told:", client), "x"); err != nil {
			return
		}
	}
}

// cut cuts at random bytes: few, many, or all of a stretch.
func (m mixture) cut(wire []byte) (pieces [][]byte) {
	most := []int{1, 3, 20, 1000, 20000}[m.IntN(5)]
	if len(wire) > 5000 {
		most = max(most, 100, len(wire)/100)
	}
	for len(wire) > 0 {
		n := min(len(wire), 1+m.IntN(most))
		pieces = append(pieces, wire[:n])
		wire = wire[n:]
	}
	return pieces
}

// answers sends pieces, one write each, and nothing behind them if they are the last ones. It returns all replies up to the
// one to ECHO end.
func (p *peer) answers(pieces [][]byte, end string, between func(), last bool) (string, error) {
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
		if last {
			sent <- p.CloseWrite()
			return
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

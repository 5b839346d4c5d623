package proxy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/tidwall/redcon"
)

// KEYROW SLOW: what SLOWLOG is to Redis. An entry has what SLOWLOG has, and behind it how the command was answered, how
// long Redis or MySQL took of it, and how many other commands were answered late together with it.
//
// Who may use it is who may use SLOWLOG: Redis is asked.

// Limits of what is shown of a command, as Redis has them in src/slowlog.h.
const (
	shownArgs  = 32
	shownBytes = 128 // of one argument
)

// shownWhole is how long a command is at most, as RESP, that is within the limits for sure.
const shownWhole = shownBytes + len("*2\r\n$1\r\nX\r\n$129\r\n\r\n")

// redacted stands for what is nobody's business, as with Redis.
const redacted = "(redacted)"

// SlowConfig says which commands are slow, and how many of them are kept.
type SlowConfig struct {
	After time.Duration // 0: none
	Keep  int           // the latest ones; each takes up to 5 KiB
}

// slowLog keeps the latest commands that were slow.
type slowLog struct {
	after  time.Duration
	log    zerolog.Logger
	counts [ways]atomic.Int64

	mu   sync.Mutex
	ring []slowCommand // of Keep; the one with the id i is in place i % Keep
	ids  int64         // the next id
	kept int           // how many there are
}

// slowCommand is one entry.
type slowCommand struct {
	id           int64
	at           time.Time
	took, waited time.Duration // waited: for Redis or MySQL
	args         []byte        // the array of them, as RESP
	addr, name   string        // of the client
	how          way
	others       int // that were slow with it
}

func newSlowLog(c SlowConfig, log zerolog.Logger) *slowLog {
	l := &slowLog{after: c.After, log: log, ring: make([]slowCommand, max(1, c.Keep))}
	if c.After == 0 {
		l.after = math.MaxInt64
	}
	return l
}

func (l *slowLog) off() bool { return l.after == math.MaxInt64 }

func (l *slowLog) is(took time.Duration) bool { return took >= l.after }

// add takes in a command of s; args appends the array of its arguments, as it is to be shown.
func (l *slowLog) add(s *session, took, waited time.Duration, how way, others int, args func(b []byte) []byte) {
	l.counts[how].Add(1 + int64(others))
	addr, _ := s.addrs()
	name := s.called()
	l.mu.Lock()
	id := l.ids
	l.ids++
	e := &l.ring[id%int64(len(l.ring))]
	*e = slowCommand{id, time.Now(), took, waited, args(e.args[:0]), addr, name, how, others}
	l.kept = min(l.kept+1, len(l.ring))
	elems, _ := elements(nil, e.args)
	command := strings.ToUpper(string(bulk(elems[0])))
	l.mu.Unlock()
	l.log.Info().Int64("slow", id).Str("command", command).Str("client", addr).Str("name", name).Str("how", Ways[how]).
		Dur("took", took).Dur("waited", waited).Int("others", others).Msg("slow command; KEYROW SLOW GET has its arguments")
}

// latest returns the latest n entries as RESP, the last one in front.
func (l *slowLog) latest(n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, l.kept)
	b := redcon.AppendArray(nil, n)
	for i := range n {
		e := &l.ring[(l.ids-1-int64(i))%int64(len(l.ring))]
		b = redcon.AppendArray(b, 9)
		b = redcon.AppendInt(b, e.id)
		b = redcon.AppendInt(b, e.at.Unix())
		b = redcon.AppendInt(b, e.took.Microseconds())
		b = append(b, e.args...)
		b = redcon.AppendBulkString(b, e.addr)
		b = redcon.AppendBulkString(b, e.name)
		b = redcon.AppendBulkString(b, Ways[e.how])
		b = redcon.AppendInt(b, e.waited.Microseconds())
		b = redcon.AppendInt(b, int64(e.others))
	}
	return b
}

func (l *slowLog) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept
}

func (l *slowLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = 0
	clear(l.ring)
}

var slowHelp = []string{
	"KEYROW SLOW <subcommand> [<arg>]. Subcommands are:",
	"GET [<count>]",
	"    Return the latest <count> commands that were slow (default: 10, -1 means all).",
	"    Entries are made of:",
	"    id, timestamp, time in microseconds, arguments array, client IP and port, client name,",
	"    how it was answered, microseconds of that for Redis or MySQL, commands that were slow with it",
	"LEN",
	"    Return how many there are.",
	"RESET",
	"    Forget them.",
	"HELP",
	"    Print this help.",
}

// keyrowSlow serves KEYROW SLOW and its subcommands; args is what follows.
func (s *session) keyrowSlow(args [][]byte) {
	sub := ""
	if len(args) > 0 {
		sub, args = strings.ToUpper(string(args[0])), args[1:]
	}
	slow := s.srv.slow
	switch {
	case sub == "GET" && len(args) <= 1:
		n := int64(10)
		if len(args) == 1 {
			var ok bool
			if n, ok = parseInt(args[0]); !ok || n < -1 {
				s.refuse(redisReply("ERR count should be greater than or equal to -1"))
				return
			}
		}
		if n == -1 {
			n = math.MaxInt
		}
		if s.allowed("SLOWLOG", "GET", "0") {
			s.answer(slow.latest(int(n)))
		}
	case sub == "LEN" && len(args) == 0:
		if s.allowed("SLOWLOG", "LEN") {
			s.answer(redcon.AppendInt(nil, int64(slow.len())))
		}
	case sub == "RESET" && len(args) == 0:
		if s.mayQueue([]byte("SLOWLOG"), []byte("RESET")) {
			slow.reset()
			s.answer([]byte("+OK\r\n"))
		}
	case sub == "HELP" && len(args) == 0:
		b := redcon.AppendArray(nil, len(slowHelp))
		for _, line := range slowHelp {
			b = redcon.AppendString(b, line)
		}
		s.answer(b)
	default:
		s.refuse(refused("KEYROW SLOW knows GET [count], LEN, RESET and HELP"))
	}
}

// appendShown appends the array of a command's arguments, cut and with its secrets hidden.
func appendShown(b []byte, c *command, req request) []byte {
	if c.secrets == nil && len(req.raw) <= shownWhole {
		return append(b, req.raw...)
	}
	return appendCut(b, c.secrets, req.args)
}

// appendCut is appendShown for arguments that may have to be cut. secrets tells which of them are hidden; nil: none.
func appendCut(b []byte, secrets func(args [][]byte, i int) bool, args [][]byte) []byte {
	b = redcon.AppendArray(b, min(len(args), shownArgs))
	for i, arg := range args {
		switch more := len(arg) - shownBytes; {
		case i == shownArgs-1 && len(args) > shownArgs:
			return redcon.AppendBulkString(b, fmt.Sprintf("... (%d more arguments)", len(args)-i))
		case secrets != nil && secrets(args, i):
			b = redcon.AppendBulkString(b, redacted)
		case more > 0:
			b = redcon.AppendBulkString(b, string(arg[:shownBytes])+"... ("+strconv.Itoa(more)+" more bytes)")
		default:
			b = redcon.AppendBulk(b, arg)
		}
	}
	return b
}

// secretive are the commands whose arguments may be secrets, with those of them that are: what Redis hides in its
// SLOWLOG, and whatever else may be a password.
var secretive = map[string]func(args [][]byte, i int) bool{
	"auth":   func(_ [][]byte, i int) bool { return i > 0 },
	"hello":  func(args [][]byte, i int) bool { return behind(args, i, "AUTH", 2) },
	"config": func(args [][]byte, i int) bool { return i > 2 && sensitive(string(args[i-1])) },
	"acl": func(args [][]byte, i int) bool {
		return i > 1 && strings.HasSuffix(strings.ToUpper(string(args[1])), "USER") // SETUSER, DELUSER, GETUSER
	},
	"migrate": func(args [][]byte, i int) bool { return behind(args, i, "AUTH", 1) || behind(args, i, "AUTH2", 2) },
}

// behind reports whether argument i is one of the n that follow word.
func behind(args [][]byte, i int, word string, n int) bool {
	for at := max(1, i-n); at < i; at++ {
		if strings.EqualFold(string(args[at]), word) {
			return true
		}
	}
	return false
}

// sensitive reports whether a parameter of CONFIG SET is a password or says whose it is.
func sensitive(parameter string) bool {
	low := strings.ToLower(parameter)
	return strings.Contains(low, "pass") || strings.HasSuffix(low, "auth") || strings.HasSuffix(low, "user")
}

package proxy

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"
)

// Commands about the session itself. A session shares its connections, so what Redis keeps per connection is kept
// here, and who the client is decides which connections it shares.

// auth serves AUTH: Redis itself decides, on a connection of its own, and from then on the session uses the lanes of
// that identity.
func (s *session) auth(_ *command, req request) {
	switch len(req.args) {
	case 2:
		s.logIn(identity{pass: string(req.args[1])}, req.args, true)
	case 3:
		s.logIn(identity{user: string(req.args[1]), pass: string(req.args[2])}, req.args, true)
	default:
		s.forward(req) // Redis refuses it
	}
}

// logIn takes on id if Redis accepts it; ack says whether success is answered, failure always is.
func (s *session) logIn(id identity, auth [][]byte, ack bool) bool {
	s.settle()
	reply, err := s.srv.upstream.try(laneKey{}, auth...)
	if err != nil {
		s.refuse(notApplied(err))
		return false
	}
	if reply[0] == '+' {
		s.enter(laneKey{identity: id, authed: true, db: s.key.db})
		if !ack {
			return true
		}
	}
	s.answer([]byte(reply + "\r\n"))
	return reply[0] == '+'
}

// hello serves HELLO for RESP2. RESP3 is refused in Redis's words, upon which clients stay with RESP2.
func (s *session) hello(_ *command, req request) {
	args := req.args[1:]
	if len(args) == 0 {
		s.forward(req)
		return
	}
	version, ok := parseInt(args[0])
	if !ok {
		s.answer([]byte("-ERR Protocol version is not an integer or out of range\r\n"))
		return
	}
	if version != 2 {
		s.answer([]byte("-NOPROTO unsupported protocol version\r\n"))
		return
	}
	var id *identity
	name, named := "", false
	for args = args[1:]; len(args) > 0; {
		switch {
		case bytes.EqualFold(args[0], []byte("AUTH")) && len(args) > 2:
			id = &identity{user: string(args[1]), pass: string(args[2])}
			args = args[3:]
		case bytes.EqualFold(args[0], []byte("SETNAME")) && len(args) > 1:
			if !validName(args[1]) {
				s.answer(badName)
				return
			}
			name, named = string(args[1]), true
			args = args[2:]
		default:
			s.answer(appendError(nil, redisReply(fmt.Sprintf("ERR Syntax error in HELLO option '%.128s'", args[0]))))
			return
		}
	}
	if id != nil && !s.logIn(*id, id.auth(), false) {
		return
	}
	if named {
		s.name = name
	}
	// The lanes speak RESP2 already, so this changes nothing for those who share them.
	wire := appendCommand(nil, []byte("HELLO"), []byte("2"))
	s.forward(request{raw: wire, args: [][]byte{wire}, made: true})
}

// selectDB serves SELECT: a lane that is connected to the database shows that Redis allows it, else it is tried.
func (s *session) selectDB(_ *command, req request) {
	if len(req.args) != 2 {
		s.forward(req)
		return
	}
	s.settle()
	db, ok := parseInt(req.args[1])
	key := s.key
	key.db = int(db)
	if !ok || key != s.key && !s.srv.upstream.stands(key) {
		base := s.key
		base.db = 0
		reply, err := s.srv.upstream.try(base, req.args...)
		switch {
		case err != nil:
			s.refuse(notApplied(err))
			return
		case reply[0] != '+' || !ok:
			s.answer([]byte(reply + "\r\n"))
			return
		}
	}
	if key != s.key {
		s.enter(key)
	}
	if s.admitted() {
		s.answer([]byte("+OK\r\n"))
	}
}

// reset serves RESET: the session is as new.
func (s *session) reset(_ *command, req request) {
	if len(req.args) != 1 {
		s.forward(req)
		return
	}
	s.settle()
	s.name = ""
	if s.key != (laneKey{}) {
		s.enter(laneKey{})
	}
	s.answer([]byte("+RESET\r\n"))
}

// goodbye serves QUIT.
func (s *session) goodbye(*command, request) {
	s.answer([]byte("+OK\r\n"))
	s.quit = true
}

// wrongProtocol ends a connection on which a browser was made to speak HTTP.
func (s *session) wrongProtocol(*command, request) { s.quit = true }

var badName = []byte("-ERR Client names cannot contain spaces, newlines or special characters.\r\n")

func validName(name []byte) bool {
	for _, c := range name {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

func (s *session) clientSetName(c *command, req request) {
	switch {
	case len(req.args) != 3:
		s.forward(req)
	case !s.admitted():
	case !validName(req.args[2]):
		s.answer(badName)
	default:
		s.name = string(req.args[2])
		s.answer([]byte("+OK\r\n"))
	}
}

func (s *session) clientGetName(c *command, req request) {
	if len(req.args) != 2 {
		s.forward(req)
		return
	}
	if !s.admitted() {
		return
	}
	if s.name == "" {
		s.answer(redcon.AppendNull(nil))
		return
	}
	s.answer(redcon.AppendBulkString(nil, s.name))
}

// clientSetInfo serves CLIENT SETINFO. The lanes are keyrow's, so what a client's library is called is of no use there.
func (s *session) clientSetInfo(c *command, req request) {
	if len(req.args) != 4 {
		s.forward(req)
		return
	}
	if s.admitted() {
		s.answer([]byte("+OK\r\n"))
	}
}

// clientID serves CLIENT ID with an id of keyrow's own: no connection of Redis is this client's.
func (s *session) clientID(c *command, req request) {
	if len(req.args) != 2 {
		s.forward(req)
		return
	}
	if s.admitted() {
		s.answer(redcon.AppendInt(nil, s.id))
	}
}

// keyrow serves KEYROW INFO: what `INFO` is to Redis, for keyrow.
func (s *session) keyrow(_ *command, req request) {
	if !s.admitted() {
		return
	}
	if len(req.args) != 2 || !bytes.EqualFold(req.args[1], []byte("INFO")) {
		s.refuse(refused("KEYROW knows the subcommand INFO"))
		return
	}
	var b strings.Builder
	line := func(name string, n int64) { b.WriteString(name + ":" + strconv.FormatInt(n, 10) + "\r\n") }
	line("clients", s.srv.clients.Load())
	line("hits", s.srv.stats.Hits.Load())
	line("misses", s.srv.stats.Misses.Load())
	line("writes", s.srv.stats.Writes.Load())
	line("deletes", s.srv.stats.Deletes.Load())
	s.srv.report(line)
	s.answer(redcon.AppendBulkString(nil, b.String()))
}

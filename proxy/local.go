package proxy

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"
)

// Commands about the session itself. A session shares its connections, so what Redis keeps per connection is kept
// here, and who the client is decides which connections it shares. CLIENT and its subcommands are in client.go.

// auth serves AUTH: Redis itself decides, on a connection of its own, and from then on the session uses the lanes of
// that identity.
func (s *session) auth(_ *command, req request) {
	id, ok := credentials(req.args[1:])
	if !ok {
		s.forward(req) // Redis refuses it
		return
	}
	s.unpinIfClean()
	key := s.key
	key.identity, key.authed = id, true
	reply, err := s.ask(laneKey{}, req.args...)
	if err != nil {
		s.refuse(notApplied(err))
		return
	}
	if reply[0] == '+' {
		s.move(key)
	}
	s.answer(reply)
}

// credentials reads the arguments of AUTH.
func credentials(args [][]byte) (id identity, ok bool) {
	switch len(args) {
	case 1:
		return identity{pass: string(args[0])}, true
	case 2:
		return identity{user: string(args[0]), pass: string(args[1])}, true
	}
	return identity{}, false
}

// unpinIfClean waits until the session is owed nothing, and gives its own connection back if nothing is bound to it.
func (s *session) unpinIfClean() {
	s.settle()
	if s.pinned() && s.clean() {
		s.unpin(true)
	}
}

// ask runs a command that changes the state of a connection: on the session's own, or else on one that is thrown away.
func (s *session) ask(key laneKey, args ...[]byte) ([]byte, error) {
	if s.pinned() {
		return s.call(args...)
	}
	return s.try(key, args...)
}

// allowed asks Redis, by a command that changes nothing, whether the client may run one that keyrow serves itself. If
// not, the client gets Redis's own answer.
func (s *session) allowed(args ...string) bool {
	wire := redcon.AppendArray(nil, len(args))
	for _, a := range args {
		wire = redcon.AppendBulkString(wire, a)
	}
	reply, err := s.callRaw(wire)
	switch {
	case err != nil:
		s.refuse(err)
	case reply[0] == '-':
		s.answer(reply)
	default:
		return true
	}
	return false
}

// greeting is what a HELLO asks for.
type greeting struct {
	proto *int8 // as in laneKey
	id    *identity
	name  *string
}

// parseGreeting reads the arguments of HELLO; refusal is what Redis answers if they are wrong.
func parseGreeting(args [][]byte) (g greeting, refusal []byte) {
	if len(args) == 0 {
		return g, nil
	}
	version, ok := parseInt(args[0])
	switch {
	case !ok:
		return g, []byte("-ERR Protocol version is not an integer or out of range\r\n")
	case version != 2 && version != 3:
		return g, []byte("-NOPROTO unsupported protocol version\r\n")
	}
	g.proto = new(int8)
	if version == 3 {
		*g.proto = 3
	}
	for args = args[1:]; len(args) > 0; {
		switch {
		case bytes.EqualFold(args[0], []byte("AUTH")) && len(args) > 2:
			g.id = &identity{user: string(args[1]), pass: string(args[2])}
			args = args[3:]
		case bytes.EqualFold(args[0], []byte("SETNAME")) && len(args) > 1:
			if !validName(args[1]) {
				return g, []byte("-ERR Client names cannot contain spaces, newlines or special characters.\r\n")
			}
			name := string(args[1])
			g.name = &name
			args = args[2:]
		default:
			return g, appendError(nil, redisReply(fmt.Sprintf("ERR Syntax error in HELLO option '%.128s'", args[0])))
		}
	}
	return g, nil
}

// key is where a client that stands at key is once Redis has accepted the greeting.
func (g *greeting) key(key laneKey) laneKey {
	if g.proto != nil {
		key.proto = *g.proto
	}
	if g.id != nil {
		key.identity, key.authed = *g.id, true
	}
	return key
}

// command is the greeting without the name, of which Redis has no use: the connection is keyrow's.
func (g *greeting) command() [][]byte {
	args := [][]byte{[]byte("HELLO")}
	if g.proto != nil {
		args = append(args, []byte(strconv.Itoa(max(2, int(*g.proto)))))
	}
	if g.id != nil {
		args = append(args, []byte("AUTH"), []byte(g.id.user), []byte(g.id.pass))
	}
	return args
}

// hello serves HELLO, on a connection of the session's own: Redis answers it even while it is busy with a script,
// which a shared lane may be waiting for.
func (s *session) hello(_ *command, req request) {
	g, refusal := parseGreeting(req.args[1:])
	if refusal != nil {
		s.answer(refusal)
		return
	}
	s.unpinIfClean()
	was, key := s.key, g.key(s.key)
	hello := g.command()
	switch {
	case s.pinned():
	case g.id != nil || s.shutOut():
		// As a new client would; there may be no lanes that let it in.
		reply, err := s.try(laneKey{}, hello...)
		if err != nil {
			s.refuse(notApplied(err))
			return
		}
		if reply[0] != '-' {
			s.move(key)
			s.rename(g.name)
		}
		s.answer(s.withOwnID(reply))
		return
	default:
		if key != was {
			s.move(key)
		}
		if !s.pinTo() {
			s.move(was)
			return
		}
	}
	accepted := false
	p := s.lane.private
	s.forwardFor(request{raw: appendCommand(nil, hello...), args: hello, made: true}, &seen{s, func(reply []byte) []byte {
		if accepted = reply[0] != '-'; accepted {
			p.speaks(key.proto)
			s.rename(g.name)
		}
		return s.withOwnID(reply)
	}}, false)
	s.settle()
	if !accepted {
		key = was
	}
	if key != s.key {
		s.move(key)
	}
	s.unpinIfClean()
}

// shutOut reports whether Redis wants a login of the client, as far as is known.
func (s *session) shutOut() bool { return !s.key.authed && s.srv.upstream.noAuth.Load() }

// selectDB serves SELECT, on a lane that is connected to the database already, or else on a connection that is thrown
// away.
func (s *session) selectDB(_ *command, req request) {
	if len(req.args) != 2 {
		s.forward(req)
		return
	}
	s.unpinIfClean()
	db, ok := parseInt(req.args[1])
	was, key := s.key, s.key
	key.db = int(db)
	if ok && key == was && !s.pinned() {
		s.forward(req)
		return
	}
	var reply []byte
	var err error
	if ok && !s.pinned() && s.srv.upstream.stands(key) {
		s.move(key)
		if reply, err = s.call(req.args...); err != nil || reply[0] != '+' {
			s.move(was)
		}
	} else {
		base := was
		base.db = 0
		if reply, err = s.ask(base, req.args...); err == nil && reply[0] == '+' && ok && key != was {
			s.move(key)
		}
	}
	if err != nil {
		s.refuse(notApplied(err))
		return
	}
	s.answer(reply)
}

// reset serves RESET: the session is as new.
func (s *session) reset(_ *command, req request) {
	if len(req.args) != 1 {
		s.forward(req)
		return
	}
	if s.pinned() {
		// Whatever still arrives there is not for the client any more.
		s.turnAway()
	}
	s.settle()
	s.name.Store(nil)
	s.silent = false
	s.mute(false)
	s.welcomed()
	s.enter(laneKey{})
	s.answer([]byte("+RESET\r\n"))
}

// goodbye serves QUIT.
func (s *session) goodbye(*command, request) {
	s.answer([]byte("+OK\r\n"))
	s.quit = true
}

// wrongProtocol ends a connection on which a browser was made to speak HTTP.
func (s *session) wrongProtocol(*command, request) { s.quit = true }

// keyrow serves KEYROW: what INFO is to Redis, and what there is to do about the journal.
func (s *session) keyrow(_ *command, req request) {
	if !s.admitted() {
		return
	}
	sub, args := "", req.args[1:]
	if len(args) > 0 {
		sub, args = strings.ToUpper(string(args[0])), args[1:]
	}
	switch {
	case sub == "INFO" && len(args) == 0:
		s.answer(redcon.AppendBulkString(nil, s.srv.lines(s.srv.info)))
	case sub == "JOURNAL":
		s.keyrowJournal(args)
	case sub == "FLUSH":
		s.keyrowFlush(args)
	case sub == "SLOW":
		s.keyrowSlow(args)
	case sub == "INVALIDATE" && len(args) > 0:
		s.keyrowInvalidate(args)
	case sub == "RELOAD" && len(args) == 0:
		s.keyrowReload()
	default:
		s.refuse(refused("KEYROW knows INFO, JOURNAL, FLUSH [milliseconds [key]], SLOW, INVALIDATE key ..., and RELOAD"))
	}
}

// info is what KEYROW INFO says.
func (s *Server) info(line func(name string, n int64)) {
	line("clients", s.clients.Load())
	line("refused_clients", s.stats.Refused.Load())
	line("failed_handshakes", s.stats.Failed.Load())
	line("idle_clients_closed", s.stats.Idle.Load())
	hits, misses := s.reads()
	line("hits", hits)
	line("misses", misses)
	line("writes", s.stats.Writes.Load())
	line("deletes", s.stats.Deletes.Load())
	s.report(line)
}

// lines is a report as text, a line for each number.
func (s *Server) lines(report func(line func(name string, n int64))) string {
	var b strings.Builder
	report(func(name string, n int64) { b.WriteString(name + ":" + strconv.FormatInt(n, 10) + "\r\n") })
	return b.String()
}

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
		s.logIn(identity{pass: string(req.args[1])}, true)
	case 3:
		s.logIn(identity{user: string(req.args[1]), pass: string(req.args[2])}, true)
	default:
		s.forward(req) // Redis refuses it
	}
}

// logIn takes on id if Redis accepts it; ack says whether success is answered, failure always is.
func (s *session) logIn(id identity, ack bool) bool {
	s.unpinIfClean()
	key := laneKey{identity: id, authed: true, db: s.key.db, proto: s.key.proto}
	reply, err := s.ask(laneKey{}, id.auth()...)
	if err != nil {
		s.refuse(notApplied(err))
		return false
	}
	ok := reply[0] == '+'
	if ok {
		s.move(key)
	}
	if ack || !ok {
		s.answer(reply)
	}
	return ok
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

// hello serves HELLO. The reply is that of a lane that speaks the protocol asked for.
func (s *session) hello(_ *command, req request) {
	args := req.args[1:]
	key := s.key
	var id *identity
	if len(args) > 0 {
		version, ok := parseInt(args[0])
		switch {
		case !ok:
			s.answer([]byte("-ERR Protocol version is not an integer or out of range\r\n"))
			return
		case version != 2 && version != 3:
			s.answer([]byte("-NOPROTO unsupported protocol version\r\n"))
			return
		}
		key.proto = int8(version)
		if key.proto == 2 {
			key.proto = 0
		}
		args = args[1:]
	}
	name, named := "", false
	for len(args) > 0 {
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
	if id != nil {
		if !s.logIn(*id, false) {
			return
		}
		key.identity, key.authed = *id, true
	}
	s.unpinIfClean()
	hello := [][]byte{[]byte("HELLO"), []byte("2")}
	if key.proto == 3 {
		hello[1] = []byte("3")
	}
	if s.pinned() || key != s.key && !s.srv.upstream.stands(key) {
		reply, err := s.ask(s.key, hello...)
		if err != nil {
			s.refuse(notApplied(err))
			return
		}
		if reply[0] == '-' {
			s.answer(reply)
			return
		}
		if s.pinned() {
			s.lane.private.pubsub.Store(key.proto != 3 && s.lane.private.subscribed.Load() > 0)
			s.move(key)
			if named {
				s.name = name
			}
			s.answer(reply)
			return
		}
	}
	if key != s.key {
		s.move(key)
	}
	if named {
		s.name = name
	}
	// The lanes speak the protocol already, so this changes nothing for those who share them.
	wire := appendCommand(nil, hello...)
	s.forward(request{raw: wire, args: hello, made: true})
}

// selectDB serves SELECT: a lane that is connected to the database shows that Redis allows it, else it is tried.
func (s *session) selectDB(_ *command, req request) {
	if len(req.args) != 2 {
		s.forward(req)
		return
	}
	s.unpinIfClean()
	db, ok := parseInt(req.args[1])
	key := s.key
	key.db = int(db)
	if s.pinned() || !ok || key != s.key && !s.srv.upstream.stands(key) {
		base := s.key
		base.db = 0
		reply, err := s.ask(base, req.args...)
		switch {
		case err != nil:
			s.refuse(notApplied(err))
			return
		case reply[0] != '+' || !ok:
			s.answer(reply)
			return
		}
	}
	if key != s.key {
		s.move(key)
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
	if s.pinned() {
		// Whatever still arrives there is not for the client any more.
		if !s.lane.private.endless.Load() {
			s.settle()
		}
		s.unpin(false)
	}
	s.settle()
	s.name, s.silent = "", false
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

var badName = []byte("-ERR Client names cannot contain spaces, newlines or special characters.\r\n")

func validName(name []byte) bool {
	for _, c := range name {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

func (s *session) clientSetName(_ *command, req request) {
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

// clientGetName serves CLIENT GETNAME.
func (s *session) clientGetName(_ *command, req request) {
	if s.name == "" {
		s.instead(req, []byte(s.null()))
	} else {
		s.instead(req, redcon.AppendBulkString(nil, s.name))
	}
}

// instead answers with reply what Redis answers without an error.
func (s *session) instead(req request, reply []byte) { s.forwardFor(req, &replaced{s, reply}, false) }

type replaced struct {
	s  *session
	by []byte
}

func (o *replaced) reply(_ *lane, b []byte) {
	if b[0] != '-' {
		b = o.by
	}
	o.s.deliver(b, 1)
}

func (o *replaced) lost(err error) { o.s.deliverErrors(err, 1) }

// clientSetInfo serves CLIENT SETINFO. The lanes are keyrow's, so what a client's library is called is of no use there.
func (s *session) clientSetInfo(_ *command, req request) {
	if len(req.args) != 4 {
		s.forward(req)
		return
	}
	if s.admitted() {
		s.answer([]byte("+OK\r\n"))
	}
}

// clientID serves CLIENT ID with an id of keyrow's own: no connection of Redis is this client's.
func (s *session) clientID(_ *command, req request) { s.instead(req, redcon.AppendInt(nil, s.id)) }

// clientInfo serves CLIENT INFO: the line of the connection that is used, with what is the client's own put in.
func (s *session) clientInfo(_ *command, req request) {
	if len(req.args) != 2 {
		s.forward(req)
		return
	}
	s.forwardFor(req, &clientLine{s, s.name}, false)
}

type clientLine struct {
	s    *session
	name string
}

func (o *clientLine) reply(_ *lane, b []byte) {
	end := bytes.IndexByte(b, '\n')
	if b[0] != '$' && b[0] != '=' || end < 0 {
		o.s.deliver(b, 1)
		return
	}
	addr, laddr := o.s.addrs()
	own := map[string]string{"id": strconv.FormatInt(o.s.id, 10), "addr": addr, "laddr": laddr, "name": o.name}
	text := strings.TrimRight(string(b[end+1:]), "\r\n")
	text = strings.TrimPrefix(text, "txt:")
	fields := strings.Split(text, " ")
	for i, f := range fields {
		name, _, _ := strings.Cut(f, "=")
		if value, ok := own[name]; ok {
			fields[i] = name + "=" + value
		}
	}
	text = strings.Join(fields, " ") + "\n"
	if b[0] == '=' {
		text = "txt:" + text
	}
	o.s.deliver(append(append(append([]byte{b[0]}, strconv.Itoa(len(text))...), "\r\n"+text...), "\r\n"...), 1)
}

func (o *clientLine) lost(err error) { o.s.deliverErrors(err, 1) }

// clientUnblock serves CLIENT UNBLOCK: the id is one that CLIENT ID gave, so it is translated to the one that Redis
// knows the blocked session's own connection by.
func (s *session) clientUnblock(_ *command, req request) {
	if len(req.args) > 2 {
		if id, ok := parseInt(req.args[2]); ok {
			args := append([][]byte(nil), req.args...)
			args[2] = strconv.AppendInt(nil, s.srv.blockedAs(id), 10)
			s.forward(request{raw: appendCommand(nil, args...), args: args, made: true})
			return
		}
	}
	s.forward(req)
}

// clientKill serves CLIENT KILL ID and CLIENT KILL addr:port for clients of keyrow's; other forms are about the
// connections that Redis has.
func (s *session) clientKill(c *command, req request) {
	args := req.args[2:]
	var victim *session
	switch {
	case len(args) == 1:
		victim = s.srv.client(func(o *session) bool { addr, _ := o.addrs(); return addr == string(args[0]) })
	case len(args) == 2 && bytes.EqualFold(args[0], []byte("ID")):
		if id, ok := parseInt(args[1]); ok {
			victim = s.srv.client(func(o *session) bool { return o.id == id })
		}
	}
	if victim == nil || victim == s && len(args) == 2 {
		s.own(c, req)
		return
	}
	if !s.admitted() || !s.permitted() {
		return
	}
	if len(args) == 1 {
		s.answer([]byte("+OK\r\n"))
	} else {
		s.answer([]byte(":1\r\n"))
	}
	if victim == s {
		s.quit = true
	} else {
		victim.kill(errKilled)
	}
}

// clientReply serves CLIENT REPLY. Redis goes on answering; keyrow keeps the answers from the client.
func (s *session) clientReply(_ *command, req request) {
	if len(req.args) != 3 {
		s.forward(req)
		return
	}
	switch {
	case !s.admitted():
	case bytes.EqualFold(req.args[2], []byte("ON")):
		s.settle()
		s.silent = false
		s.mute(false)
		s.answer([]byte("+OK\r\n"))
	case bytes.EqualFold(req.args[2], []byte("OFF")):
		s.settle()
		s.silent = true
		s.mute(true)
	case bytes.EqualFold(req.args[2], []byte("SKIP")):
		s.skip = !s.silent
	default:
		s.answer(appendError(nil, errSyntax))
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
	line("refused_clients", s.srv.stats.Refused.Load())
	line("failed_handshakes", s.srv.stats.Failed.Load())
	line("idle_clients_closed", s.srv.stats.Idle.Load())
	line("hits", s.srv.stats.Hits.Load())
	line("misses", s.srv.stats.Misses.Load())
	line("writes", s.srv.stats.Writes.Load())
	line("deletes", s.srv.stats.Deletes.Load())
	s.srv.report(line)
	s.answer(redcon.AppendBulkString(nil, b.String()))
}

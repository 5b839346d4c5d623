package proxy

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"
)

// CLIENT: what Redis knows of a connection is, for a client of keyrow's, what keyrow knows of the session. Redis is
// asked all the same, with a command that changes nothing on the connection: it decides whether the client may.

// show forwards a command and lets see look at the reply and say what the client gets. It is called by the lane's
// reader; inside MULTI, once EXEC has run the command.
func (s *session) show(req request, see func(reply []byte) []byte) {
	if s.pinned() && s.pin.tx != nil && s.transacting() {
		s.pin.tx.tap(see)
		s.forward(req)
		return
	}
	s.forwardFor(req, &seen{s, see}, false)
}

// seen is a command whose reply is looked at before the client gets it, or something in its place.
type seen struct {
	s   *session
	see func(reply []byte) []byte
}

func (o *seen) reply(_ *lane, b []byte) { o.s.deliver(o.see(b), 1) }
func (o *seen) lost(err error)          { o.s.deliverErrors(err, 1) }

// rename gives the session a name, unless that is nil.
func (s *session) rename(name *string) {
	if name != nil {
		s.name.Store(name)
	}
}

// called is the session's name.
func (s *session) called() string {
	if name := s.name.Load(); name != nil {
		return *name
	}
	return ""
}

func validName(name []byte) bool {
	for _, c := range name {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

// clientSetName serves CLIENT SETNAME. Redis is asked to take the name off a connection that has none.
func (s *session) clientSetName(_ *command, req request) {
	if len(req.args) != 3 || !validName(req.args[2]) {
		s.forward(req) // Redis refuses it
		return
	}
	name := string(req.args[2])
	s.show(withLast(req.args, ""), func(reply []byte) []byte {
		if reply[0] == '+' {
			s.rename(&name)
		}
		return reply
	})
}

// clientSetInfo serves CLIENT SETINFO, which is of no use with a connection that many share.
func (s *session) clientSetInfo(_ *command, req request) {
	if len(req.args) == 4 && validName(req.args[3]) {
		req = withLast(req.args, "")
	}
	s.forward(req)
}

// withLast is the command with another last argument.
func withLast(args [][]byte, last string) request {
	args = slices.Clone(args)
	args[len(args)-1] = []byte(last)
	return request{raw: appendCommand(nil, args...), args: args, made: true}
}

// clientGetName serves CLIENT GETNAME. No connection has a name, so Redis answers with the null of the protocol.
func (s *session) clientGetName(_ *command, req request) {
	s.show(req, func(reply []byte) []byte {
		if name := s.called(); name != "" && isNil(reply) {
			return redcon.AppendBulkString(nil, name)
		}
		return reply
	})
}

// clientID serves CLIENT ID with an id of keyrow's own: no connection of Redis is this client's.
func (s *session) clientID(_ *command, req request) {
	s.show(req, func(reply []byte) []byte { return withNumber(reply, ":", func(int64) int64 { return s.id }) })
}

// withOwnID puts the session's id into the answer to HELLO.
func (s *session) withOwnID(reply []byte) []byte {
	return withNumber(reply, "$2\r\nid\r\n:", func(int64) int64 { return s.id })
}

// withNumber replaces the number behind the first place where reply has mark.
func withNumber(reply []byte, mark string, f func(int64) int64) []byte {
	before, rest, found := bytes.Cut(reply, []byte(mark))
	digits, after, _ := bytes.Cut(rest, []byte("\r\n"))
	n, ok := parseInt(digits)
	if !found || !ok || reply[0] == '-' {
		return reply
	}
	b := append(slices.Clone(before), mark...)
	b = strconv.AppendInt(b, f(n), 10)
	return append(append(b, "\r\n"...), after...)
}

// clientInfo serves CLIENT INFO: the line of the connection that is used, with what is the client's own put in.
func (s *session) clientInfo(_ *command, req request) {
	s.show(req, func(reply []byte) []byte {
		return withText(reply, func(text string) string { return s.srv.clientLine(s, text) })
	})
}

// clientList serves CLIENT LIST: the clients of keyrow in place of the connections that keyrow has for them.
func (s *session) clientList(_ *command, req request) {
	var ids []int64
	if args := req.args[2:]; len(args) > 1 && bytes.EqualFold(args[0], []byte("ID")) {
		for _, a := range args[1:] {
			id, ok := parseInt(a)
			if !ok {
				s.show(req, func(reply []byte) []byte { return reply }) // Redis refuses it
				return
			}
			ids = append(ids, id)
		}
		list := req.args[:2]
		req = request{raw: appendCommand(nil, list...), args: list, made: true}
	}
	s.show(req, func(reply []byte) []byte {
		return withText(reply, func(text string) string {
			lines := s.srv.clientLines(text)
			if ids == nil {
				return strings.Join(lines, "")
			}
			var b strings.Builder
			for _, id := range ids {
				for _, line := range lines {
					if strings.HasPrefix(line, "id="+strconv.FormatInt(id, 10)+" ") {
						b.WriteString(line)
						break
					}
				}
			}
			return b.String()
		})
	})
}

// withText changes the text of a reply, if it is one.
func withText(reply []byte, f func(text string) string) []byte {
	end := bytes.IndexByte(reply, '\n')
	if reply[0] != '$' && reply[0] != '=' || end < 0 || isNil(reply) {
		return reply
	}
	text, verbatim := strings.CutPrefix(string(reply[end+1:len(reply)-2]), "txt:")
	text = f(text)
	if verbatim {
		text = "txt:" + text
	}
	return append(append(append([]byte{reply[0]}, strconv.Itoa(len(text))...), "\r\n"+text...), "\r\n"...)
}

// clientLine is a line of CLIENT LIST about a connection as one about a client that uses it.
func (s *Server) clientLine(client *session, line string) string {
	addr, laddr := client.addrs()
	own := map[string]string{"id": strconv.FormatInt(client.id, 10), "addr": addr, "laddr": laddr, "name": client.called()}
	line, end := strings.CutSuffix(line, "\n")
	fields := strings.Split(line, " ")
	for i, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		if name == "redir" {
			if id, ok := parseInt([]byte(value)); ok && id > 0 {
				fields[i] = "redir=" + strconv.FormatInt(s.knownAs(id), 10)
			}
		} else if v, ok := own[name]; ok {
			fields[i] = name + "=" + v
		}
	}
	if line = strings.Join(fields, " "); end {
		line += "\n"
	}
	return line
}

// clientLines is CLIENT LIST with a line for each client of keyrow that uses a connection, in place of the line of the
// connection. The lanes of a set are as one: which client uses which of them is nobody's business.
func (s *Server) clientLines(text string) (lines []string) {
	users := s.users()
	for line := range strings.Lines(text) {
		_, addr, _ := strings.Cut(line, " addr=")
		addr, _, _ = strings.Cut(addr, " ")
		clients, ours := users[addr]
		if !ours {
			lines = append(lines, line)
		}
		for _, client := range clients {
			lines = append(lines, s.clientLine(client, line))
		}
	}
	return lines
}

// users finds the clients that use each of keyrow's connections to Redis, by the address that Redis sees. Of the lanes
// of a set only the first has them, and connections that nobody uses have none.
func (s *Server) users() map[string][]*session {
	sharing := map[*laneSet][]*session{}
	s.mu.Lock()
	for client := range s.sessions {
		if set := client.home.Load(); set != nil {
			sharing[set] = append(sharing[set], client)
		}
	}
	s.mu.Unlock()

	users := map[string][]*session{}
	own := map[*session]bool{}
	u := s.upstream
	u.mu.Lock()
	defer u.mu.Unlock()
	for l := range u.owned {
		if addr := l.addr(); addr != "" {
			users[addr] = nil
			if client := l.private.session(); client != nil {
				users[addr] = []*session{client}
				own[client] = true
			}
		}
	}
	use := func(set *laneSet) {
		clients := slices.DeleteFunc(sharing[set], func(client *session) bool { return own[client] })
		slices.SortFunc(clients, func(a, b *session) int { return int(a.id - b.id) })
		for _, l := range set.lanes {
			if addr := l.addr(); addr != "" {
				users[addr], clients = clients, nil
			}
		}
	}
	for _, set := range u.sets {
		use(set)
	}
	for _, set := range u.retired {
		use(set)
	}
	return users
}

// addr is the lane's end of its connection, or "" if it has none.
func (l *lane) addr() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.local
}

// knownTo is the id by which Redis knows the connection of the client that keyrow calls id: 0 if that has none of its
// own, and id itself if keyrow has no such client.
func (s *Server) knownTo(id int64) int64 {
	if s.client(func(o *session) bool { return o.id == id }) == nil {
		return id
	}
	return s.blockedAs(id)
}

// knownAs is what keyrow calls the client whose own connection Redis calls id, and id itself if there is none.
func (s *Server) knownAs(id int64) int64 {
	s.upstream.mu.Lock()
	defer s.upstream.mu.Unlock()
	for l := range s.upstream.owned {
		if client := l.private.session(); client != nil && l.private.id == id {
			return client.id
		}
	}
	return id
}

// withKnown is the command with the id of a client at that place as Redis has it.
func (s *session) withKnown(req request, at int) request {
	id, ok := parseInt(req.args[at])
	if !ok {
		return req
	}
	args := slices.Clone(req.args)
	args[at] = strconv.AppendInt(nil, s.srv.knownTo(id), 10)
	return request{raw: appendCommand(nil, args...), args: args, made: true}
}

// clientUnblock serves CLIENT UNBLOCK.
func (s *session) clientUnblock(_ *command, req request) {
	if len(req.args) > 2 {
		req = s.withKnown(req, 2)
	}
	s.forward(req)
}

// clientTracking serves CLIENT TRACKING, whose messages may be redirected to another client.
func (s *session) clientTracking(c *command, req request) {
	s.stick(c, s.redirected(req))
}

func (s *session) queueTracking(c *command, req request) {
	s.queueStick(c, s.redirected(req))
}

func (s *session) redirected(req request) request {
	for i, a := range req.args[:len(req.args)-1] {
		if bytes.EqualFold(a, []byte("REDIRECT")) {
			return s.withKnown(req, i+1)
		}
	}
	return req
}

// clientTrackingInfo serves CLIENT TRACKINGINFO and CLIENT GETREDIR.
func (s *session) clientTrackingInfo(c *command, req request) {
	mark := "$8\r\nredirect\r\n:"
	if c.name == "CLIENT GETREDIR" {
		mark = ":"
	}
	if s.pinTo() {
		s.show(req, func(reply []byte) []byte { return withNumber(reply, mark, s.srv.knownAs) })
	}
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
	if !s.allowed("CLIENT", "KILL", "ADDR", "nobody") {
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
	mode := strings.ToUpper(string(req.args[len(req.args)-1]))
	switch {
	case len(req.args) != 3 || mode != "ON" && mode != "OFF" && mode != "SKIP":
		s.forward(req) // Redis refuses it
	case !s.allowed("CLIENT", "REPLY", "ON"):
	case mode == "SKIP":
		s.skip = !s.silent
	default:
		s.settle()
		s.silent = mode == "OFF"
		s.mute(s.silent)
		if !s.silent {
			s.answer([]byte("+OK\r\n"))
		}
	}
}

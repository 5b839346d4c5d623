package proxy

import (
	"bytes"
	"fmt"
	"strings"
)

// handlers are the commands that are more than forwarding; "name|sub" is a subcommand.
var handlers = map[string]handler{
	"get":  (*session).get,
	"mget": (*session).mget,

	"set":    (*session).set,
	"setex":  (*session).setex,
	"psetex": (*session).setex,
	"mset":   (*session).mset,
	"del":    (*session).del,
	"unlink": (*session).del,

	"flushall": (*session).flushing,
	"flushdb":  (*session).flushing,
	"swapdb":   (*session).flushing,

	"auth":           (*session).auth,
	"hello":          (*session).hello,
	"select":         (*session).selectDB,
	"reset":          (*session).reset,
	"quit":           (*session).goodbye,
	"client|setname": (*session).clientSetName,
	"client|getname": (*session).clientGetName,
	"client|setinfo": (*session).clientSetInfo,
	"client|id":      (*session).clientID,
	"keyrow":         (*session).keyrow,
	"post":           (*session).wrongProtocol,
	"host:":          (*session).wrongProtocol,

	"xread":      (*session).xread,
	"xreadgroup": (*session).xread,
}

// pinning are the commands that change or need a connection's own state, so that they cannot run on a lane.
var pinning = []string{
	"multi", "exec", "discard", "watch", "unwatch", "subscribe", "psubscribe", "ssubscribe", "unsubscribe",
	"punsubscribe", "sunsubscribe", "monitor", "sync", "psync", "replconf", "wait", "waitaof", "asking", "readonly",
	"readwrite", "script|debug", "client|tracking", "client|trackinginfo", "client|caching", "client|getredir",
	"client|reply", "client|info", "client|no-evict", "client|no-touch", "client|setname", "failover",
}

// install gives the table's rows their handlers, and rows to commands that only keyrow knows.
func (t *Commands) install() {
	for _, name := range pinning {
		t.row(name).handle = (*session).pinned
	}
	for name, h := range handlers {
		t.row(name).handle = h
	}
	// Scripts may write what they are given as keys, whatever their flags say.
	for _, name := range []string{"eval", "evalsha", "fcall"} {
		if c := t.byName[name]; c != nil {
			c.writes = true
		}
	}
}

// row returns the row of a command or subcommand, made if Redis has none.
func (t *Commands) row(name string) *command {
	name, sub, isSub := strings.Cut(name, "|")
	c := t.byName[name]
	if c == nil {
		c = &command{name: strings.ToUpper(name)}
		t.byName[name] = c
	}
	if !isSub {
		return c
	}
	if c.subs == nil {
		c.subs = map[string]*command{}
	}
	if c.subs[sub] == nil {
		c.subs[sub] = &command{name: c.name + " " + strings.ToUpper(sub)}
	}
	return c.subs[sub]
}

// dispatch decides what becomes of one command. From here a GET goes on in read.go, a SET in write.go, and whatever
// touches no mapped key through pass to the lane.
func (s *session) dispatch(req request) {
	c := s.srv.commands.find(req.args)
	switch {
	case c == nil:
		s.pass(&unknown, req)
	case c.handle != nil:
		c.handle(s, c, req)
	default:
		s.pass(c, req)
	}
}

// unknown stands for commands that Redis did not list. Redis refuses them, unless a module has been loaded since.
var unknown = command{name: "a command that redis did not list when keyrow started", writes: true, scan: true}

// pass forwards a command unless it would write a mapped key, or touch a key of keyrow's own, behind keyrow's back.
func (s *session) pass(c *command, req request) {
	if err := s.objection(c, req.args); err != nil {
		s.refuseKnown(err)
		return
	}
	s.forward(req)
}

func (s *session) objection(c *command, args [][]byte) (err error) {
	if s.key.db != s.srv.up.DB && c.name != "COPY" && c.name != "MOVE" { // these reach into other databases
		return nil
	}
	maps := s.srv.maps.Load()
	c.visit(args, func(key []byte) bool {
		if s.srv.journal.Reserved(key) {
			err = s.reserved()
		} else if c.writes {
			if m := maps.Match(key); m != nil {
				err = refused(fmt.Sprintf("%s is not supported on %.100q, which is a row of mapping %q; "+
					"SET the whole row instead, nothing was changed", c.name, key, m.Name))
			}
		}
		return err == nil
	})
	return err
}

func (s *session) reserved() error {
	return refused(fmt.Sprintf("keys below %q are keyrow's own; nothing was changed", s.srv.journal.Prefix+":"))
}

// refuseKnown refuses with words about mappings, which are not for somebody whom Redis would not let in.
func (s *session) refuseKnown(err error) {
	if s.admitted() {
		s.refuse(err)
	}
}

// admitted makes sure that Redis would serve this client. A client that has not authenticated although Redis wants
// it gets Redis's own answer, and admitted is false.
func (s *session) admitted() bool {
	if s.key.authed || !s.srv.upstream.noAuth.Load() {
		return true
	}
	reply, err := s.call([]byte("PING"))
	switch {
	case err != nil:
		s.refuse(err)
	case reply[0] == '-':
		s.answer(reply)
	default:
		s.srv.upstream.noAuth.Store(false)
		return true
	}
	return false
}

// call runs a command on the session's lane and waits for its reply.
func (s *session) call(args ...[]byte) ([]byte, error) {
	s.settle()
	c := &call{s: s, done: make(chan struct{})}
	if err := s.lane.submit(appendCommand(nil, args...), []entry{{s: s, op: c, n: 1}}); err != nil {
		return nil, err
	}
	<-c.done
	return c.b, c.err
}

// call waits for one reply.
type call struct {
	s    *session
	b    []byte
	err  error
	done chan struct{}
}

func (c *call) reply(_ *lane, b []byte) {
	c.b = append([]byte(nil), b...)
	close(c.done)
}

func (c *call) lost(err error) {
	c.err = err
	close(c.done)
}

// pinned refuses a command that needs a connection of its own.
func (s *session) pinned(c *command, _ request) {
	s.refuseKnown(refused(c.name + " needs a connection to redis of its own, which keyrow does not offer yet; " +
		"connect to redis directly for it, nothing was changed"))
}

// xread forwards what does not block.
func (s *session) xread(c *command, req request) {
	for _, a := range req.args[1:] {
		if bytes.EqualFold(a, []byte("STREAMS")) {
			break
		}
		if bytes.EqualFold(a, []byte("BLOCK")) {
			s.pinned(&command{name: c.name + " BLOCK"}, req)
			return
		}
	}
	s.pass(c, req)
}

// flushing guards what would drop written rows that are not in MySQL yet.
func (s *session) flushing(c *command, req request) {
	behind := false
	for _, m := range s.srv.maps.Load().All() {
		behind = behind || !m.Deny
	}
	if !behind || c.name == "FLUSHDB" && s.key.db != s.srv.up.DB {
		s.forward(req)
		return
	}
	s.refuseKnown(refused(c.name + " would drop rows that were written but are not in mysql yet; delete keys by name, " +
		"or run it on redis directly once KEYROW INFO says pending:0; nothing was changed"))
}

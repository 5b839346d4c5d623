package proxy

import (
	"bytes"
	"fmt"
	"strings"
)

// handlers are the commands that are more than forwarding; "name|sub" is a subcommand. queued is what they are inside
// MULTI, if not just queued.
var handlers = map[string]struct{ handle, queued handler }{
	"get":  {(*session).get, (*session).queueRead},
	"mget": {(*session).mget, (*session).queueRead},

	"set":    {(*session).set, (*session).queueSet},
	"setex":  {(*session).set, (*session).queueSet},
	"psetex": {(*session).set, (*session).queueSet},
	"mset":   {(*session).mset, (*session).queueMset},
	"msetnx": {(*session).msetnx, (*session).queueMsetnx},
	"del":    {(*session).del, (*session).queueDel},
	"unlink": {(*session).del, (*session).queueDel},

	"expire":    {(*session).expire, (*session).queueExpire},
	"pexpire":   {(*session).expire, (*session).queueExpire},
	"expireat":  {(*session).expire, (*session).queueExpire},
	"pexpireat": {(*session).expire, (*session).queueExpire},
	"persist":   {(*session).expire, (*session).queueExpire},
	"getex":     {(*session).expire, (*session).queueExpire},

	"ttl":         {nil, (*session).queueTTL},
	"pttl":        {nil, (*session).queueTTL},
	"expiretime":  {nil, (*session).queueTTL},
	"pexpiretime": {nil, (*session).queueTTL},

	"flushall": {(*session).empty, (*session).empty},
	"flushdb":  {(*session).empty, (*session).empty},
	"swapdb":   {(*session).empty, (*session).empty},

	"multi":   {(*session).multi, nil},
	"exec":    {(*session).exec, (*session).exec},
	"discard": {(*session).discard, (*session).discard},
	"watch":   {(*session).watch, nil},
	"unwatch": {(*session).unwatch, nil},

	"subscribe":    {(*session).subscription, (*session).queueSubscription},
	"psubscribe":   {(*session).subscription, (*session).queueSubscription},
	"ssubscribe":   {(*session).subscription, (*session).queueSubscription},
	"unsubscribe":  {(*session).subscription, (*session).queueSubscription},
	"punsubscribe": {(*session).subscription, (*session).queueSubscription},
	"sunsubscribe": {(*session).subscription, (*session).queueSubscription},

	"monitor":      {(*session).hijack, nil},
	"sync":         {(*session).hijack, nil},
	"psync":        {(*session).hijack, nil},
	"replconf":     {(*session).replconf, (*session).queueStick},
	"script|debug": {(*session).hijack, nil},

	// What ends a script that is running must not queue behind it.
	"script|kill":   {(*session).own, nil},
	"function|kill": {(*session).own, nil},
	"shutdown":      {(*session).own, nil},

	"wait":       {(*session).wait, nil},
	"waitaof":    {(*session).wait, nil},
	"xread":      {(*session).xread, nil},
	"xreadgroup": {(*session).xread, nil},

	"auth":   {(*session).auth, (*session).queueAuth},
	"hello":  {(*session).hello, (*session).queueHello},
	"select": {(*session).selectDB, (*session).queueSelect},
	"reset":  {(*session).reset, (*session).reset},
	"quit":   {(*session).goodbye, (*session).goodbye},

	"client|setname":      {(*session).clientSetName, (*session).clientSetName},
	"client|getname":      {(*session).clientGetName, (*session).clientGetName},
	"client|setinfo":      {(*session).clientSetInfo, (*session).clientSetInfo},
	"client|id":           {(*session).clientID, (*session).clientID},
	"client|info":         {(*session).clientInfo, (*session).clientInfo},
	"client|list":         {(*session).clientList, (*session).clientList},
	"client|unblock":      {(*session).clientUnblock, (*session).clientUnblock},
	"client|kill":         {(*session).clientKill, nil},
	"client|unpause":      {(*session).own, nil},
	"client|reply":        {(*session).clientReply, (*session).queueNever},
	"client|tracking":     {(*session).clientTracking, (*session).queueTracking},
	"client|caching":      {(*session).stick, (*session).queueStick},
	"client|trackinginfo": {(*session).clientTrackingInfo, (*session).clientTrackingInfo},
	"client|getredir":     {(*session).clientTrackingInfo, (*session).clientTrackingInfo},
	"client|no-evict":     {(*session).stick, (*session).queueStick},
	"client|no-touch":     {(*session).stick, (*session).queueStick},

	"keyrow": {(*session).keyrow, nil},
	"post":   {(*session).wrongProtocol, (*session).wrongProtocol},
	"host:":  {(*session).wrongProtocol, (*session).wrongProtocol},
}

// install gives the table's rows their handlers, and rows to commands that only keyrow knows.
func (t *Commands) install() {
	for name, h := range handlers {
		if !t.known(name) {
			continue
		}
		c := t.row(name)
		c.handle, c.queued = h.handle, h.queued
	}
	for _, name := range scripts {
		if c := t.byName[name]; c != nil {
			c.writes, c.handle, c.queued, c.forRows = true, (*session).script, (*session).queueScript, true
		}
	}
	for name := range changes {
		if c := t.byName[name]; c != nil {
			c.handle, c.queued, c.forRows = (*session).change, (*session).queueChange, true
		}
	}
	for _, name := range []string{"set", "setex", "psetex"} {
		if c := t.byName[name]; c != nil {
			c.forRows = true
		}
	}
	for name, secrets := range secretive {
		if c := t.byName[name]; c != nil {
			c.secrets = secrets
			for _, sub := range c.subs {
				sub.secrets = secrets
			}
		}
	}
	for _, name := range telling {
		if c := t.byName[name]; c != nil {
			c.telling = c.reads
		}
	}
}

// known reports whether a command has to be handled: Redis lists it, or lists no subcommands where it is one, or it is
// for keyrow alone. What Redis does not know is for Redis to refuse.
func (t *Commands) known(name string) bool {
	name, sub, isSub := strings.Cut(name, "|")
	c := t.byName[name]
	switch {
	case name == "keyrow" || name == "post" || name == "host:":
		return true
	case c == nil:
		return false
	case !isSub || c.subs[sub] != nil:
		return true
	}
	// Redis before 7 lists no subcommands; CLIENT SETINFO and NO-TOUCH are younger.
	return !c.listed && sub != "setinfo" && sub != "no-touch"
}

// row returns the row of a command or subcommand, made if Redis has none.
func (t *Commands) row(name string) *command {
	name, sub, isSub := strings.Cut(name, "|")
	c := t.byName[name]
	if c == nil {
		c = &command{name: strings.ToUpper(name), group: groupOther}
		t.byName[name] = c
	}
	if !isSub {
		return c
	}
	if c.subs == nil {
		c.subs = map[string]*command{}
	}
	if c.subs[sub] == nil {
		c.subs[sub] = &command{name: c.name + " " + strings.ToUpper(sub), sub: true, group: c.group}
	}
	return c.subs[sub]
}

// dispatch decides what becomes of one command. From here a GET goes on in read.go, a SET in write.go and run.go, a MULTI
// in tx.go and tx_queue.go, and whatever touches no mapped key through pass to the lane.
func (s *session) dispatch(req request) {
	c := s.lookUp(req.args)
	s.command, s.maps = req.raw, s.srv.maps.Load()
	s.counting.now = kind{c.group, fatePassed}
	s.way, s.waited = wayRedis, 0
	asked := s.asked()
	s.lead(c, req)
	s.clocked(c, req, asked)
}

// lead leads a command to what it needs.
func (s *session) lead(c *command, req request) {
	if s.skip {
		s.skip = false
		s.settle()
		s.mute(true)
		defer func() {
			s.settle()
			s.mute(s.silent)
		}()
	}
	switch {
	case s.pinned() && s.lane.private.endless.Load():
		s.relayed(c, req)
	case !c.fits(req.args) && c.name != "EXEC", s.listening(c):
		s.forward(req) // for Redis to refuse
	case s.pinned() && s.pin.tx != nil:
		s.queue(c, req)
	case c.handle != nil:
		c.handle(s, c, req)
	default:
		s.pass(c, req)
	}
}

// lookUp finds the row of a command. A client mostly sends what it sent before.
func (s *session) lookUp(args [][]byte) *command {
	if s.latest != nil && string(args[0]) == s.latestName {
		return s.latest
	}
	c := s.srv.commands.find(args)
	switch {
	case c == nil:
		return &unknown
	case c.subs == nil && !c.sub && c != s.latest:
		s.latest, s.latestName = c, string(args[0])
	}
	return c
}

// unknown stands for commands that Redis did not list. Redis refuses them, unless a module has been loaded since.
var unknown = command{name: "a command that redis did not list when keyrow started", writes: true, scan: true, group: groupOther}

// pass forwards a command unless it would write a mapped key, or touch a key of keyrow's own, behind keyrow's back.
func (s *session) pass(c *command, req request) {
	err := s.objection(c, req.args)
	switch {
	case err == nil && c.reads && s.view(c, req), err == nil && c.writes && s.overwrite(c, req):
	case err == nil, c == &unknown && s.outside():
		s.forward(req)
	default:
		s.refuseKnown(err)
	}
}

func (s *session) objection(c *command, args [][]byte) (err error) {
	if !s.here() && c.name != "COPY" && c.name != "MOVE" { // these reach into other databases
		return nil
	}
	if c.onlyKey && len(args) > 1 {
		return s.objectionTo(c, args[1])
	}
	c.visit(args, func(key []byte) bool {
		err = s.objectionTo(c, key)
		return err == nil
	})
	return err
}

func (s *session) objectionTo(c *command, key []byte) error {
	if s.srv.journal.Reserved(key) {
		return s.reserved()
	}
	if !c.writes {
		return nil
	}
	switch m := s.maps.Match(key); {
	case m == nil, m.Cache:
		return nil
	case m.Deny:
		return refused(fmt.Sprintf("%s is not supported on %.100q: %s; nothing was changed", c.name, key, denial(m)))
	default:
		return refused(fmt.Sprintf("%s is not supported on %.100q, which is a row of mapping %q; "+
			"%s instead, nothing was changed", c.name, key, m.Name, advice(c, m)))
	}
}

func (s *session) reserved() error {
	return refused(fmt.Sprintf("keys below %q are keyrow's own; nothing was changed", s.srv.journal.Prefix+":"))
}

// refuseKnown refuses with words about mappings, which are not for somebody whom Redis would not let run the command. That
// the connection to Redis failed is for everybody: it says whether the command may have been applied, which asking Redis
// again would not.
func (s *session) refuseKnown(err error) {
	if isUpstream(err) || s.admitted() && s.permitted() {
		s.refuse(err)
	}
}

// permitted asks Redis whether it would run the command at hand: it checks commands and rights when a command is queued,
// and the transaction is discarded. If not, the client gets Redis's own answer, and permitted is false.
func (s *session) permitted() bool {
	raw := s.command
	if s.pinned() {
		return s.mayQueue(argsOf(raw)...)
	}
	if !s.pinTo() {
		return false
	}
	var reply []byte
	multi, err := s.call([]byte("MULTI"))
	clean := true
	switch {
	case err != nil:
	case multi[0] == '+':
		reply, err = s.callRaw(raw)
		if err == nil {
			var discard []byte
			discard, err = s.call([]byte("DISCARD"))
			clean = err == nil && discard[0] == '+'
		}
	default:
		reply = multi
		if harmless := s.harmless(raw); harmless != nil {
			var refusal []byte
			if refusal, err = s.call(harmless...); err == nil && bytes.HasPrefix(refusal, []byte("-NOPERM ")) {
				reply = refusal
			}
		}
	}
	s.unpin(clean && err == nil)
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

// harmless is a command that writes rows in a form that Redis refuses for its arguments, or that changes nothing,
// once it has found that the user may run it. It is nil for commands that have no such form.
func (s *session) harmless(raw []byte) [][]byte {
	args := argsOf(raw)
	if len(args) < 2 {
		return nil
	}
	switch strings.ToUpper(string(args[0])) {
	case "SET":
		return append(args, []byte("NX"), []byte("XX"))
	case "SETEX", "PSETEX":
		return append(args[:2], []byte("0"), nil)
	case "MSET":
		return append(args, args[1])
	case "DEL", "UNLINK":
		return [][]byte{args[0], s.srv.journal.AppendAux(nil, args[1])} // a lease at most
	}
	return nil
}

// argsOf are the arguments of a command that is RESP.
func argsOf(raw []byte) [][]byte {
	args, _ := elements(nil, raw)
	for i, w := range args {
		args[i] = w[bytes.IndexByte(w, '\n')+1 : len(w)-2]
	}
	return args
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

// outside reports whether the client has not authenticated although Redis wants it, so that Redis runs nothing of what
// it is sent.
func (s *session) outside() bool {
	if s.key.authed || !s.srv.upstream.noAuth.Load() {
		return false
	}
	reply, err := s.call([]byte("PING"))
	return err == nil && bytes.HasPrefix(reply, []byte("-NOAUTH"))
}

// call runs a command on the session's lane and waits for its reply.
func (s *session) call(args ...[]byte) ([]byte, error) { return s.callRaw(appendCommand(nil, args...)) }

func (s *session) callRaw(wire []byte) ([]byte, error) {
	s.settle()
	c := &call{s: s, done: make(chan struct{})}
	if err := s.lane.submit(s, wire, []entry{{s: s, op: c, n: 1}}); err != nil {
		return nil, err
	}
	s.stepAside()
	defer s.waits(clock())
	<-c.done
	s.latestCall = c.receipt
	return c.b, c.err
}

// tapped is a command whose reply goes to the client and is looked at.
type tapped struct {
	s   *session
	tap func(b []byte)
}

func (o *tapped) reply(_ *lane, b []byte) {
	o.tap(b)
	o.s.deliver(b, 1)
}

func (o *tapped) lost(err error) { o.s.deliverErrors(err, 1) }

// call waits for one reply.
type call struct {
	s       *session
	b       []byte
	err     error
	receipt receipt
	done    chan struct{}
}

func (c *call) reply(l *lane, b []byte) {
	c.b = append([]byte(nil), b...)
	c.receipt.on, c.receipt.primary = l, l.primary.name()
	close(c.done)
}

func (c *call) lost(err error) {
	c.err = err
	close(c.done)
}

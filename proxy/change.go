package proxy

import (
	"bytes"
	"crypto/sha1" // #nosec G505 -- the name Redis gives a script
	_ "embed"
	"encoding/hex"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

//go:embed lua/change.lua
var changeScript []byte

var changeSHA = func() []byte {
	sum := sha1.Sum(changeScript) // #nosec G401
	return []byte(hex.EncodeToString(sum[:]))
}()

const (
	// maxAbsent is how often a row is asked for whose image, or whose absence, Redis forgets at once.
	maxAbsent = 8
	// maxOther is how often a value is computed anew that somebody else changed meanwhile. Each time somebody's command
	// was run, so all of them come through.
	maxOther = 1000
)

// change is a command that writes one mapped key, and needs what is there. It runs as a script, see lua/change.lua. What
// it writes is checked before, where the command says it; within the script, where that is a sum of a number column;
// else the script only says what would come of it, and a second call puts that there once it was checked, if the key
// still holds what it was made of.
type change struct {
	c         *command
	m         *mapping.Mapping
	key       []byte
	field     []byte   // empty: the image is a string
	what      [][]byte // for the script: what to do
	residency string
	answer    answered
	limits    *mapping.Limits // of a sum
	makes     bool            // a hash that is not there is made
	given     [][]byte        // the fields that the command gives it

	asked bool     // MySQL has no image for the key
	made  [][]byte // the other fields of a hash that is made
}

// answered is how the client learns what was written.
type answered byte

const (
	asRedis   answered = iota // by what Redis replied
	asInteger                 // by the number, as an integer
	asText                    // by the text
	asLength                  // by the length of the text
)

// changes are the commands that are changes, but for SET with its options, and how each is read. They are called with as
// many arguments as Redis takes, and a key that may be written.
var changes = map[string]func(x *change, args [][]byte) error{
	"setnx":        (*change).setnx,
	"getset":       (*change).getset,
	"getdel":       (*change).getdel,
	"append":       func(x *change, args [][]byte) error { return x.edit(asLength, args) },
	"setrange":     func(x *change, args [][]byte) error { return x.edit(asLength, args) },
	"incr":         (*change).add,
	"decr":         (*change).add,
	"incrby":       (*change).add,
	"decrby":       (*change).add,
	"incrbyfloat":  (*change).addFloat,
	"hset":         (*change).hset,
	"hmset":        (*change).hset,
	"hsetnx":       (*change).hsetnx,
	"hdel":         (*change).hdel,
	"hincrby":      (*change).hadd,
	"hincrbyfloat": (*change).hadd,
}

// change serves the commands of changes, and SET with options that make it one.
func (s *session) change(c *command, req request) {
	m := s.mapped(req.args[1])
	switch {
	case m == nil || m.Cache:
		s.pass(c, req)
		return
	case !wellFormed(c, req.args):
		s.forward(req)
		return
	case m.Through && !(c.name == "GETDEL" && !m.DeleteRow):
		s.changeThrough(c, req, m)
		return
	}
	x, err := s.changeBy(c, m, req.args)
	if err == nil {
		if !s.admitted() {
			return
		}
		s.settle()
		var reply []byte
		if reply, err = x.run(s); err == nil {
			s.answerWritten(x.durability(), 1, reply)
			return
		}
	}
	if plain, ok := err.(redisReply); ok && !plain.denies() {
		s.refuse(err)
		return
	}
	s.refuseKnown(err)
}

// durability is what the change has to have; the cached copy alone is nothing that could be lost.
func (x *change) durability() mapping.Durability {
	if string(x.what[0]) == "take" && !x.m.DeleteRow {
		return mapping.Durability{}
	}
	return x.m.Durability
}

// denies reports whether an error of Redis says that the user may not run the script, or something in it.
func (e redisReply) denies() bool {
	return strings.HasPrefix(string(e), "NOPERM") || strings.Contains(string(e), "script")
}

// wellFormed is false for what Redis refuses whatever the key holds, without the table saying so.
func wellFormed(c *command, args [][]byte) bool {
	return c.name != "HSET" && c.name != "HMSET" || len(args)%2 == 0
}

// changeBy reads a change of a key of m.
func (s *session) changeBy(c *command, m *mapping.Mapping, args [][]byte) (*change, error) {
	x := &change{c: c, m: m, key: bytes.Clone(args[1]), residency: "keep"}
	if m.Through && editable(c, m) && (c.name != "GETDEL" || m.DeleteRow) {
		return nil, s.queueable(c, m)
	}
	if c.name == "SET" {
		w, _, err := s.writtenBy(c, request{args: args})
		if err == nil {
			err = s.writable(m, x.key)
		}
		if err != nil {
			return nil, err
		}
		return x, x.set(&w)
	}
	if !takes(m, c) {
		return nil, s.objectionTo(c, x.key)
	}
	if err := s.writable(m, x.key); err != nil {
		return nil, err
	}
	return x, changes[strings.ToLower(c.name)](x, args)
}

// takes reports whether the rows of m take a change.
func takes(m *mapping.Mapping, c *command) bool {
	switch {
	case m.Query:
		return false
	case m.Kind == mapping.KindJSON:
		return c.name == "SETNX" || c.name == "GETSET" || c.name == "GETDEL"
	}
	return c.name[0] == 'H' == (m.Kind == mapping.KindHash)
}

// image is the value of a client as it is stored.
func (x *change) image(value []byte) ([]byte, error) { return x.m.Canonical(nil, x.key, value) }

// runs has the script run a command.
func (x *change) runs(when string, command ...[]byte) {
	x.what = append([][]byte{[]byte("run"), []byte(when)}, command...)
}

func (x *change) set(w *written) error {
	image, err := x.image(w.value)
	if err != nil {
		return err
	}
	command := [][]byte{[]byte("SET"), x.key, image}
	when := "always"
	if w.when != "" {
		when = w.when
		command = append(command, []byte(w.when))
	}
	if w.get {
		command = append(command, []byte("GET"))
	}
	switch {
	case w.deadline != 0:
		x.residency = strconv.FormatInt(w.deadline, 10)
	case !w.keep:
		x.residency = "drop"
	}
	x.runs(when, command...)
	return nil
}

func (x *change) setnx(args [][]byte) error {
	image, err := x.image(args[2])
	x.residency = "drop"
	x.runs("nonzero", args[0], x.key, image)
	return err
}

func (x *change) getset(args [][]byte) error {
	image, err := x.image(args[2])
	x.residency = "drop"
	x.runs("always", args[0], x.key, image)
	return err
}

func (x *change) getdel([][]byte) error {
	meaning := "cache"
	if x.m.DeleteRow {
		meaning = "row"
	}
	x.what = [][]byte{[]byte("take"), []byte(meaning)}
	return nil
}

// edit is a command whose result has to be seen to be checked.
func (x *change) edit(answer answered, args [][]byte) error {
	x.answer = answer
	x.what = append([][]byte{[]byte("try"), x.field}, args...)
	return nil
}

func (x *change) add(args [][]byte) error {
	x.limits = x.m.Limits(x.field)
	if x.limits == nil || x.limits.Scale > 0 {
		return x.edit(asInteger, args)
	}
	x.answer = asInteger
	x.adds(nil, args)
	return nil
}

func (x *change) addFloat(args [][]byte) error {
	x.limits = x.m.Limits(x.field)
	if x.limits == nil {
		return x.edit(asText, args)
	}
	units, ok, err := x.limits.Units(args[len(args)-1])
	switch {
	case err != nil:
		return err
	case !ok:
		return x.edit(asText, args) // Redis refuses it
	}
	if _, fits := parseInt(units); !fits && x.limits.Scale > 0 {
		return refused(fmt.Sprintf("%s of %.100q by %.40q is out of range, the column takes %s; nothing was changed",
			x.c.name, x.key, args[len(args)-1], x.limits))
	}
	x.answer = asText
	x.adds(units, args)
	return nil
}

// adds has the script add to a number.
func (x *change) adds(units []byte, command [][]byte) {
	x.what = append([][]byte{[]byte("add"), x.field, strconv.AppendInt(nil, int64(x.limits.Scale), 10),
		[]byte(x.limits.Low), []byte(x.limits.High), units}, command...)
}

func (x *change) hset(args [][]byte) error {
	pairs, err := x.m.Fields(nil, x.key, args[2:])
	if err != nil {
		return err
	}
	x.makes = true
	for i := 0; i < len(pairs); i += 2 {
		x.given = append(x.given, pairs[i])
	}
	x.runs("always", append([][]byte{args[0], x.key}, pairs...)...)
	return nil
}

func (x *change) hsetnx(args [][]byte) error {
	if err := x.hset(args); err != nil {
		return err
	}
	x.what[1] = []byte("nonzero")
	return nil
}

func (x *change) hdel(args [][]byte) error {
	for _, field := range args[2:] {
		if err := x.m.Removable(field); err != nil {
			return err
		}
	}
	x.runs("nonzero", args...)
	return nil
}

func (x *change) hadd(args [][]byte) error {
	x.field, x.makes, x.given = args[2], true, args[2:3]
	if err := x.m.HasField(x.field); err != nil {
		return err
	}
	if x.c.name == "HINCRBYFLOAT" {
		return x.addFloat(args)
	}
	return x.add(args)
}

// run runs the change and returns the client's reply.
func (x *change) run(s *session) ([]byte, error) {
	s.way = wayJournal
	absent, other := 0, 0
	for {
		reply, err := x.eval(s)
		if err != nil {
			return nil, err
		}
		out, err := readOutcome(reply)
		if err != nil {
			return nil, err
		}
		switch out.word {
		case "DONE":
			return x.done(s, out), nil
		case "ABSENT":
			if absent++; absent > maxAbsent {
				return nil, refused("the row leaves redis as soon as it is there; nothing was changed, try again")
			}
			err = x.ask(s)
		case "NONE":
			err = x.make()
		case "RANGE":
			err = x.outOfRange(out)
		case "TRIED":
			if isNil(out.elems[2]) {
				return bytes.Clone(out.elems[3]), nil // nothing would come of it
			}
			err = x.judge(out)
		case "OTHER":
			if other++; other > maxOther {
				return nil, refused("others change the value faster than it can be computed; nothing was changed, try again")
			}
			x.what = x.again()
		}
		if err != nil {
			return nil, err
		}
	}
}

// ask looks for the row in MySQL; if there is one with an image, that is in Redis then. That there is none is
// remembered in Redis, where the script sees it, and sees that nothing was written since; unless the mapping has no
// negative_ttl.
func (x *change) ask(s *session) error {
	d := deletion{keys: [][]byte{x.key}, how: []deletedKey{{m: x.m}}}
	err := d.lookUp(s, []int64{1})
	x.asked = d.how[0].known == '0' && x.m.NegativeTTL == 0
	return err
}

// make finds what a row has that is made.
func (x *change) make() (err error) {
	x.made, err = x.m.Remainder([][]byte{}, x.key, x.given...)
	return err
}

func (x *change) outOfRange(out outcome) error {
	return refused(fmt.Sprintf("%s of %.100q would be %s, and the column takes %s; nothing was changed",
		x.c.name, x.key, bulk(out.elems[1]), x.limits))
}

// judge checks what a command would make of a value, and has the script put it there.
func (x *change) judge(out outcome) error {
	old, text := bulk(out.elems[1]), bulk(out.elems[2])
	value, err := x.m.Value(x.key, x.field, text)
	if err == nil && x.answer == asInteger {
		err = inexact(x.c, x.key, text, value)
	}
	if err != nil {
		return err
	}
	there := []byte{'0'}
	if old != nil {
		there[0] = '1'
	}
	x.what = append([][]byte{[]byte("swap"), x.field, there, old, value, text}, x.what[2:]...)
	return nil
}

// inexact refuses an integer that a column would hold as another, as FLOAT does beyond 2^24: the next reader would get
// what nobody was answered.
func inexact(c *command, key, sum, held []byte) error {
	if bytes.Equal(sum, held) {
		return nil
	}
	a, ok := new(big.Rat).SetString(string(sum))
	b, is := new(big.Rat).SetString(string(held))
	if ok && is && a.Cmp(b) == 0 {
		return nil
	}
	return refused(fmt.Sprintf("%s of %.100q would be %s, of which the column would make %s; nothing was changed", c.name, key, sum, held))
}

// again is what to do after a swap that came too late: the command that the value was made of.
func (x *change) again() [][]byte { return append([][]byte{[]byte("try"), x.field}, x.what[6:]...) }

// done is the client's reply.
func (x *change) done(s *session, out outcome) []byte {
	s.srv.wrote(1, out.marks)
	var value, number []byte
	switch {
	case x.answer == asRedis:
		return bytes.Clone(out.elems[2])
	case string(x.what[0]) == "swap":
		value, number = x.what[4], x.what[5]
	default:
		value = bulk(out.elems[2])
		number = value
	}
	switch x.answer {
	case asInteger:
		return append(append([]byte{':'}, number...), '\r', '\n')
	case asLength:
		return redcon.AppendInt(nil, int64(len(value)))
	}
	return redcon.AppendBulk(nil, value)
}

// eval runs the script on the client's lane, so with the client's own rights.
func (x *change) eval(s *session) ([]byte, error) {
	s.at("change.before-script")
	defer s.at("change.after-script")
	args := x.args(s.srv.journal)
	reply, err := s.call(args...)
	if err == nil && bytes.HasPrefix(reply, []byte("-NOSCRIPT")) {
		args[0], args[1] = []byte("EVAL"), changeScript
		reply, err = s.call(args...)
	}
	return reply, err
}

func (x *change) args(j mapping.Journal) [][]byte {
	args := make([][]byte, 0, 10+len(x.made)+len(x.what))
	asked, made := "", len(x.made)
	if x.asked {
		asked = "asked"
	}
	if x.makes && x.made == nil {
		made = -1
	}
	args = append(args, []byte("EVALSHA"), changeSHA, []byte{'1'}, x.key, []byte(j.Prefix),
		strconv.AppendInt(nil, int64(j.Partition(x.key)), 10), strconv.AppendInt(nil, time.Now().UnixMilli(), 10),
		[]byte(asked), []byte(x.residency), strconv.AppendInt(nil, int64(made), 10), x.what[0])
	args = append(args, x.made...)
	return append(args, x.what[1:]...)
}

// outcome is what the script returned.
type outcome struct {
	word  string
	elems [][]byte
	marks int
}

func readOutcome(reply []byte) (out outcome, err error) {
	if reply[0] == '-' {
		return out, redisReply(bytes.TrimRight(reply[1:], "\r\n"))
	}
	out.elems, _ = elements(nil, reply)
	if len(out.elems) > 0 {
		out.word = string(bulk(out.elems[0]))
	}
	want, known := map[string]int{"DONE": 3, "ABSENT": 1, "NONE": 1, "RANGE": 2, "TRIED": 4, "OTHER": 1}[out.word]
	if !known || len(out.elems) != want {
		return out, upstreamError(fmt.Sprintf("redis answered a write with %.64q, so it is unknown whether it was applied", reply))
	}
	if out.word == "DONE" {
		n, _ := parseInt(bytes.TrimRight(out.elems[1][1:], "\r\n"))
		out.marks = int(n)
	}
	return out, nil
}

// bulk is the text of a bulk reply, nil if it is none.
func bulk(elem []byte) []byte {
	if len(elem) == 0 || elem[0] != '$' || isNil(elem) {
		return nil
	}
	text := elem[bytes.IndexByte(elem, '\n')+1 : len(elem)-2]
	return text[:len(text):len(text)]
}

// queueChange queues a change. What comes of it is known in EXEC only, so what has to be seen to be checked is refused.
func (s *session) queueChange(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	m := s.mapped(req.args[1])
	if m == nil || m.Cache || !wellFormed(c, req.args) {
		s.queuePlain(c, req)
		return
	}
	x, err := s.changeBy(c, m, req.args)
	if err == nil && string(x.what[0]) == "try" {
		err = refused(fmt.Sprintf("%s inside MULTI is supported on columns of whole numbers and decimals only, of up to 18 digits; "+
			"WATCH the key and SET what it makes", c.name))
	}
	s.settle()
	if err == nil {
		err = x.ask(s)
	}
	if err != nil {
		s.abort(err)
		return
	}
	var unmade error
	if x.makes {
		unmade = x.make()
	}
	s.pin.tx.writes(x.durability())
	s.pin.tx.tap(func(reply []byte) []byte {
		out, err := readOutcome(reply)
		switch {
		case err != nil:
			return reply
		case out.word == "DONE":
			return x.done(s, out)
		case out.word == "NONE":
			err = unmade
		case out.word == "RANGE":
			err = x.outOfRange(out)
		default:
			err = refused(fmt.Sprintf("the row of %.100q left redis before EXEC: %s was not applied, what else is in the "+
				"transaction was; try it again", x.key, c.name))
		}
		return appendError(nil, err)
	})
	args := x.args(s.srv.journal)
	args[0], args[1] = []byte("EVAL"), changeScript
	s.forward(request{raw: appendCommand(nil, args...), args: args, made: true})
}

// advice says what to do in place of a command that a row of m does not take.
func advice(c *command, m *mapping.Mapping) string {
	switch {
	case strings.HasPrefix(c.name, "RENAME"), c.name == "COPY", c.name == "MOVE", c.name == "RESTORE", c.name == "MIGRATE":
		return "read the row and write the other key"
	case strings.HasSuffix(c.name, "STORE"), c.name == "SORT", c.name == "GEORADIUS", c.name == "GEORADIUSBYMEMBER",
		c.name == "BITOP", c.name == "PFMERGE":
		return "store to another key"
	case m.Kind == mapping.KindHash:
		return "HSET its fields"
	case m.Kind == mapping.KindString:
		return "SET its value"
	}
	return "SET the whole row"
}

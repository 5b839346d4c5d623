package proxy

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"keyrow/mapping"
)

//go:embed lua/set.lua
var setScript []byte

var setSHA = scriptName(setScript)

// writeThrough serves a SET of a row that is written to MySQL first.
func (s *session) writeThrough(req request, m *mapping.Mapping, w written) {
	change, err := s.rowOf(m, w)
	switch {
	case err != nil:
		s.refuseKnown(err)
	case s.entitled(req):
		s.through(change)
	}
}

// writePresent serves a SET of a row that is written to MySQL first only if it is not in Redis.
func (s *session) writePresent(req request, m *mapping.Mapping, w written) {
	change, err := s.rowOf(m, w)
	if err != nil {
		s.refuseKnown(err)
		return
	}
	if !s.admitted() {
		return
	}
	s.settle()
	s.beforeWrite()
	j, key := s.srv.journal, change.Key
	p := j.Partition(key)
	asked := false
	for range maxViews {
		s.at("present.before-script")
		reply, err := s.eval(setScript, setSHA, [][]byte{[]byte("6"), key, j.AppendAux(nil, key), j.AppendDirty(nil, p), j.AppendFlushing(nil, p),
			j.AppendParked(nil, p), j.AppendExpire(nil, p), change.Image, strconv.AppendInt(nil, change.Deadline, 10),
			strconv.AppendInt(nil, time.Now().UnixMilli(), 10)})
		s.at("present.after-script")
		var done []int64
		if err == nil {
			done, err = integers(reply)
		}
		switch {
		case err != nil:
			s.refuseKnown(err)
			return
		case done[0] == 1:
			s.srv.gate.Marked(int(done[1]))
			s.srv.stats.Writes.Add(1)
			s.answerWritten(m.Durability, 1, []byte("+OK\r\n"))
			return
		}
		if !asked && !s.entitled(req) {
			return
		}
		asked = true
		if s.through(change) {
			return
		}
	}
	s.refuse(refused("the key is written and leaves redis again and again; nothing was applied, try again"))
}

// rowOf is a row as SET wants it; what it points to is its own.
func (s *session) rowOf(m *mapping.Mapping, w written) (mapping.Change, error) {
	c := mapping.Change{Mapping: m, Key: bytes.Clone(w.key), Deadline: w.deadline}
	err := s.writable(m, w.key)
	if err == nil {
		c.Image, err = m.Canonical([]byte{}, w.key, w.value) // nil would delete the row
	}
	return c, err
}

// through makes changes in MySQL and answers the client. It is false, and nothing is done, if one of them has to go
// behind another one that is in the journal and that its mapping lets it overtake.
func (s *session) through(changes ...mapping.Change) bool {
	s.settle()
	s.beforeWrite()
	_, err := s.writeMySQL(changes)
	switch {
	case errors.Is(err, mapping.ErrWaits) && !changes[0].Mapping.Through:
		return false
	case errors.Is(err, mapping.ErrWaits):
		s.refuse(waits(err))
	case err != nil:
		s.refuse(err)
	default:
		s.srv.stats.Writes.Add(int64(len(changes)))
		s.answer([]byte("+OK\r\n"))
	}
	return true
}

func (s *session) writeMySQL(changes []mapping.Change) (deleted int64, err error) {
	s.way = wayMySQL
	s.stepAside()
	defer s.waits(clock())
	return s.srv.writer.Write(changes)
}

// waits says why a row that is written through cannot be written now.
func waits(err error) error {
	return refused(err.Error() + ", from when its mapping was write = \"behind\"; nothing was applied, try again once it is flushed")
}

// throughPairs are the rows of an MSET or MSETNX that are written to MySQL first; it fails if they are not all that it has.
func (s *session) throughPairs(c *command, pairs [][]byte) (changes []mapping.Change, err error) {
	var other []byte
	for i := 0; i < len(pairs); i += 2 {
		m := s.mapped(pairs[i])
		if m == nil || !m.Through {
			other = pairs[i]
			continue
		}
		change, err := s.rowOf(m, written{key: pairs[i], value: pairs[i+1]})
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	if len(changes) > 0 && other != nil {
		return nil, refused(fmt.Sprintf("%s of rows that are write = \"through\" and of %.100q, which is not, is not supported; "+
			"send one for each, nothing was changed", c.name, other))
	}
	return changes, nil
}

// msetThrough serves an MSET with rows that are written to MySQL first. It is false if there are none.
func (s *session) msetThrough(c *command, req request) bool {
	return s.pairsThrough(c, req, func(changes []mapping.Change) { s.through(changes...) })
}

// msetnxThrough serves an MSETNX with rows that are written to MySQL first. It is false if there are none.
func (s *session) msetnxThrough(c *command, req request) bool {
	return s.pairsThrough(c, req, s.create)
}

func (s *session) pairsThrough(c *command, req request, write func([]mapping.Change)) bool {
	changes, err := s.throughPairs(c, req.args[1:])
	switch {
	case err != nil:
		s.refuseKnown(err)
	case len(changes) == 0:
		return false
	case s.entitled(req):
		write(changes)
	}
	return true
}

// create makes rows in MySQL, if none of them is there, and answers the client.
func (s *session) create(changes []mapping.Change) {
	s.settle()
	s.beforeWrite()
	s.way = wayMySQL
	s.stepAside()
	begun := clock()
	made, err := s.srv.writer.Create(changes)
	s.waits(begun)
	switch {
	case errors.Is(err, mapping.ErrWaits):
		s.refuse(waits(err))
	case err != nil:
		s.refuse(err)
	case made:
		s.srv.stats.Writes.Add(int64(len(changes)))
		s.answer([]byte(":1\r\n"))
	default:
		s.answer([]byte(":0\r\n"))
	}
}

// errAnswered says that the client has its answer.
var errAnswered = errors.New("answered")

// through deletes the rows that are deleted in MySQL first, with their images, and returns how many of them were there; what
// is left of the deletion are the other keys.
func (d *deletion) through(s *session, req request) (int64, error) {
	var changes []mapping.Change
	rest := deletion{command: d.command}
	for i, k := range d.how {
		if k.row && k.m.Through {
			changes = append(changes, mapping.Change{Mapping: k.m, Key: d.keys[i]})
			continue
		}
		rest.keys, rest.how = append(rest.keys, d.keys[i]), append(rest.how, k)
	}
	if len(changes) == 0 {
		return 0, nil
	}
	*d = rest
	if !s.entitled(req) {
		return 0, errAnswered
	}
	deleted, err := s.writeMySQL(changes)
	s.srv.stats.Deletes.Add(deleted)
	return deleted, err
}

// queueable refuses what cannot be undone if EXEC fails.
func (s *session) queueable(c *command, m *mapping.Mapping) error {
	if !m.Through {
		return nil
	}
	return refused(fmt.Sprintf("%s inside MULTI is not supported on rows of %s, which is write = \"through\": MySQL's commit and EXEC "+
		"cannot be one step; send it outside of MULTI, nothing was changed", c.name, m))
}

// entitled asks Redis whether it would run the command, for it is keyrow's own rights that the row is written with. If
// not, the client gets Redis's answer.
func (s *session) entitled(req request) bool {
	if !s.admitted() {
		return false
	}
	if !s.pinned() {
		return s.permitted()
	}
	return s.mayQueue(req.args...)
}

// mayQueue asks Redis to queue a command that it shall not run. If it does not, the client gets Redis's answer.
func (s *session) mayQueue(args ...[]byte) bool {
	s.settle()
	s.stepAside()
	reply, err := s.srv.upstream.tryQueued(s.key, args...)
	switch {
	case err != nil:
		s.refuse(notApplied(err))
	case reply[0] == '-':
		s.answer(reply)
	default:
		return true
	}
	return false
}

// tryQueued is try for a command that is queued and not run.
func (u *upstream) tryQueued(key laneKey, args ...[]byte) ([]byte, error) {
	conn, err := u.connect(key)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if reply, err := u.ask(conn, []byte("MULTI")); err != nil || reply[0] == '-' {
		return reply, err
	}
	return u.ask(conn, args...)
}

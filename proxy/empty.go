package proxy

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"
)

//go:embed lua/empty.lua
var emptyScript []byte

// emptyPatience is how long FLUSHALL and its likes wait for the journal to be empty.
const emptyPatience = 30 * time.Second

// empty serves FLUSHALL, FLUSHDB and SWAPDB, which would drop what is not in MySQL yet: they wait for the flush, and run
// as one step with finding the journal empty, so that no write is dropped that came in between.
func (s *session) empty(c *command, req request) {
	switch {
	case !s.empties(c, req.args):
		s.forward(req)
		return
	case s.pinned() && s.pin.tx != nil:
		s.abort(refused(c.name + " inside MULTI is not supported, as it has to wait for the flush of what was written; " +
			"send it by itself, nothing was changed"))
		return
	case !s.admitted() || !s.permitted():
		return
	}
	s.settle()
	deadline := time.Now().Add(emptyPatience)
	for {
		s.at("empty.before-script")
		reply, left, err := s.runEmpty(req.args)
		s.at("empty.after-script")
		switch {
		case err != nil:
			s.refuse(err)
			return
		case left == nil:
			s.answer(reply)
			return
		case left[1] > 0:
			s.refuse(refused(fmt.Sprintf("%s would lose %d rows that are parked because mysql refuses them; "+
				"KEYROW JOURNAL PARKED lists them, retry or drop them first, nothing was changed", c.name, left[1])))
			return
		case time.Now().After(deadline):
			s.refuse(refused(fmt.Sprintf("%s would lose %d writes that are not in mysql yet, and after %v there still are "+
				"some; try again when fewer are written and mysql is well, nothing was changed", c.name, left[0], emptyPatience)))
			return
		}
		_ = s.aside(time.Until(deadline), func(ctx context.Context) error {
			_, err := s.srv.drainer.Drain(ctx)
			return err
		})
		if s.gone.Load() {
			return
		}
	}
}

// empties reports whether a command drops rows that are written behind.
func (s *session) empties(c *command, args [][]byte) bool {
	behind := s.maps.WritesBehind()
	switch c.name {
	case "FLUSHDB":
		return behind && s.here()
	case "SWAPDB":
		for _, arg := range args[1:] {
			if n, ok := parseInt(arg); ok && n == int64(s.srv.up.DB) {
				return behind
			}
		}
		return false
	}
	return behind
}

// runEmpty runs the command where the rows are, under the client's own rights; left is the marks and the parked keys
// that keep it from running.
func (s *session) runEmpty(args [][]byte) (reply []byte, left []int64, err error) {
	j := s.srv.journal
	words := make([][]byte, 0, 4+4*j.Partitions+len(args))
	words = append(words, []byte("EVAL"), emptyScript, strconv.AppendInt(nil, int64(1+4*j.Partitions), 10), []byte(j.Meta()))
	for p := range j.Partitions {
		words = append(words, j.AppendDirty(nil, p), j.AppendFlushing(nil, p), j.AppendParked(nil, p), j.AppendFence(nil, p))
	}
	key := s.key
	key.db = s.srv.up.DB
	reply, err = s.try(key, append(words, args...)...)
	var sent unanswered
	switch {
	case errors.As(err, &sent):
		return nil, nil, upstreamError("connection to redis lost, so it is unknown whether the command was applied: " + err.Error())
	case err != nil:
		return nil, nil, notApplied(err)
	}
	if reply[0] == '*' {
		left, err = integers(reply)
	}
	return reply, left, err
}

package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// A change of a row that is written to MySQL first is made of the row itself, while nobody else can write it: the Writer
// locks the row, reads it, and has computed here what is to become of it. What Redis has in its cache plays no part.

// edit is what a command makes of a row.
type edit struct {
	write bool   // the row is written, or deleted
	gone  bool   // it is deleted
	value []byte // as a client would SET it
	reply []byte // nil: the value that MySQL has made of it, which may round
}

// edits are the commands that change rows which are written through, but for SET with its options, and how each is read.
// They are called with as many arguments as Redis takes.
var edits = map[string]func(s *session, c *command, m *mapping.Mapping, args [][]byte) (func(old []byte) (edit, error), error){
	"SETNX":       (*session).editSetnx,
	"GETSET":      (*session).editGetset,
	"GETDEL":      (*session).editGetdel,
	"APPEND":      (*session).editAppend,
	"SETRANGE":    (*session).editSetrange,
	"INCR":        (*session).editAdd,
	"DECR":        (*session).editAdd,
	"INCRBY":      (*session).editAdd,
	"DECRBY":      (*session).editAdd,
	"INCRBYFLOAT": (*session).editAddFloat,
}

const (
	errOverflow = redisReply("ERR increment or decrement would overflow")
	errOffset   = redisReply("ERR offset is out of range")
	errLength   = redisReply("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
)

const (
	// maxLength is how long a string of Redis is at most, unless its configuration says otherwise.
	maxLength = 512 << 20
	// maxPadding is how many bytes SETRANGE puts between the end of a value and its offset at most. A few bytes of a
	// client could make keyrow hold a multiple of maxLength otherwise.
	maxPadding = 1 << 20
)

// changeThrough serves the commands of edits, and SET with options, on a row that is written to MySQL first.
func (s *session) changeThrough(c *command, req request, m *mapping.Mapping) {
	key := bytes.Clone(req.args[1])
	err := s.writable(m, key)
	if err == nil && !editable(c, m) {
		err = s.objectionTo(c, key)
	}
	var compute func(old []byte) (edit, error)
	var deadline int64
	keep := true
	switch {
	case err != nil:
	case c.name == "SET":
		var w written
		if w, _, err = s.writtenBy(c, req); err == nil {
			deadline, keep = w.deadline, w.keep
			compute, err = s.editSet(m, w)
		}
	default:
		keep = c.name != "SETNX" && c.name != "GETSET"
		compute, err = edits[c.name](s, c, m, cloned(req.args))
	}
	if own, is := err.(redisReply); is {
		s.refuse(own)
		return
	}
	if err != nil {
		s.refuseKnown(err)
		return
	}
	if !s.entitled(req) {
		return
	}
	s.settle()
	s.beforeWrite()
	if keep {
		deadline = s.staying(key)
	}
	s.stepAside()
	s.way = wayMySQL
	begun := clock()
	var made edit
	stored, err := s.srv.writer.Change(m, key, func(old []byte) (mapping.Change, bool, error) {
		e, err := compute(old)
		change := mapping.Change{Mapping: m, Key: key, Deadline: deadline}
		if err == nil && e.write && !e.gone {
			change.Image, err = m.Canonical([]byte{}, key, e.value)
		}
		if err != nil && !hasReply(err) {
			err = refused(err.Error()) // the row's own fault, and no failure of MySQL
		}
		made = e
		return change, e.write, err
	})
	s.waits(begun)
	switch {
	case errors.Is(err, mapping.ErrWaits):
		s.refuse(waits(err))
	case err != nil:
		s.refuse(err)
	default:
		switch {
		case made.write && made.gone:
			s.srv.stats.Deletes.Add(1)
		case made.write:
			s.srv.stats.Writes.Add(1)
		}
		if made.reply == nil {
			made.reply = bulkOr(s.null(), stored)
		}
		s.answer(made.reply)
	}
}

func hasReply(err error) bool {
	var reply interface{ RESP() string }
	return errors.As(err, &reply)
}

// editable reports whether rows of m, which are written through, take a change.
func editable(c *command, m *mapping.Mapping) bool {
	if c.name == "SET" {
		return true
	}
	return edits[c.name] != nil && takes(m, c)
}

// staying is until when the cached copy of a row stays in Redis, Unix milliseconds; 0: there is none, or it stays.
func (s *session) staying(key []byte) int64 {
	reply, err := s.call([]byte("PTTL"), key)
	if err != nil || reply[0] != ':' {
		return 0
	}
	left, _ := parseInt(bytes.TrimRight(reply[1:], "\r\n"))
	if left <= 0 {
		return 0
	}
	return time.Now().UnixMilli() + left
}

// cloned is args with bytes of their own.
func cloned(args [][]byte) [][]byte {
	own := make([][]byte, len(args))
	for i, a := range args {
		own[i] = bytes.Clone(a)
	}
	return own
}

// bulkOr is a value as a reply, null if there is none.
func bulkOr(null string, value []byte) []byte {
	if value == nil {
		return []byte(null)
	}
	return redcon.AppendBulk(nil, value)
}

func (s *session) editSet(m *mapping.Mapping, w written) (func(old []byte) (edit, error), error) {
	value, null := bytes.Clone(w.value), s.null()
	_, err := m.Canonical(nil, w.key, value)
	o := w.setOptions
	return func(old []byte) (edit, error) {
		there := old != nil
		e := edit{write: !(o.when == "NX" && there || o.when == "XX" && !there), value: value, reply: []byte("+OK\r\n")}
		switch {
		case o.get:
			e.reply = bulkOr(null, old)
		case !e.write:
			e.reply = []byte(null)
		}
		return e, nil
	}, err
}

func (s *session) editSetnx(_ *command, m *mapping.Mapping, args [][]byte) (func(old []byte) (edit, error), error) {
	_, err := m.Canonical(nil, args[1], args[2])
	return func(old []byte) (edit, error) {
		if old != nil {
			return edit{reply: []byte(":0\r\n")}, nil
		}
		return edit{write: true, value: args[2], reply: []byte(":1\r\n")}, nil
	}, err
}

func (s *session) editGetset(_ *command, m *mapping.Mapping, args [][]byte) (func(old []byte) (edit, error), error) {
	_, err := m.Canonical(nil, args[1], args[2])
	null := s.null()
	return func(old []byte) (edit, error) {
		return edit{write: true, value: args[2], reply: bulkOr(null, old)}, nil
	}, err
}

// editGetdel is for rows that are deleted; of others the cached copy goes, which takes no MySQL.
func (s *session) editGetdel(*command, *mapping.Mapping, [][]byte) (func(old []byte) (edit, error), error) {
	null := s.null()
	return func(old []byte) (edit, error) {
		return edit{write: old != nil, gone: true, reply: bulkOr(null, old)}, nil
	}, nil
}

func (s *session) editAppend(_ *command, m *mapping.Mapping, args [][]byte) (func(old []byte) (edit, error), error) {
	return func(old []byte) (edit, error) {
		value, err := m.Canonical(nil, args[1], append(append([]byte{}, old...), args[2]...))
		return edit{write: true, value: value, reply: redcon.AppendInt(nil, int64(len(value)))}, err
	}, nil
}

func (s *session) editSetrange(_ *command, m *mapping.Mapping, args [][]byte) (func(old []byte) (edit, error), error) {
	offset, ok := parseInt(args[2])
	switch {
	case !ok:
		return nil, errInteger
	case offset < 0:
		return nil, errOffset
	}
	part := int64(len(args[3]))
	return func(old []byte) (edit, error) {
		padding := offset - int64(len(old))
		switch {
		case part == 0:
			return edit{reply: redcon.AppendInt(nil, int64(len(old)))}, nil
		case offset > maxLength-part:
			return edit{}, errLength
		case padding > maxPadding:
			return edit{}, refused(fmt.Sprintf("SETRANGE of %.100q would put %d bytes of 0 before the value, and %d is the most; "+
				"nothing was changed", args[1], padding, maxPadding))
		}
		whole := make([]byte, max(int64(len(old)), offset+part))
		copy(whole, old)
		copy(whole[offset:], args[3])
		value, err := m.Canonical(nil, args[1], whole)
		return edit{write: true, value: value, reply: redcon.AppendInt(nil, int64(len(value)))}, err
	}, nil
}

func (s *session) editAdd(c *command, m *mapping.Mapping, args [][]byte) (func(old []byte) (edit, error), error) {
	by, ok := int64(1), true
	if len(args) > 2 {
		by, ok = parseInt(args[2])
	}
	down := strings.HasPrefix(c.name, "DECR")
	switch {
	case !ok:
		return nil, errInteger
	case down && by == math.MinInt64:
		return nil, redisReply("ERR decrement would overflow")
	case down:
		by = -by
	}
	return func(old []byte) (edit, error) {
		n, ok := int64(0), true
		if old != nil {
			n, ok = parseInt(old)
		}
		switch {
		case !ok:
			return edit{}, errInteger
		case by > 0 && n > math.MaxInt64-by, by < 0 && n < math.MinInt64-by:
			return edit{}, errOverflow
		}
		sum := strconv.AppendInt(nil, n+by, 10)
		held, err := m.Canonical(nil, args[1], sum)
		if err == nil {
			err = inexact(c, args[1], sum, held)
		}
		return edit{write: true, value: held, reply: redcon.AppendInt(nil, n+by)}, err
	}, nil
}

// editAddFloat adds exactly where the column is one of whole numbers or decimals, and to others as Redis does.
func (s *session) editAddFloat(c *command, m *mapping.Mapping, args [][]byte) (func(old []byte) (edit, error), error) {
	if limits := m.Limits(nil); limits != nil {
		by, ok, err := limits.Units(args[2])
		if ok || err != nil {
			return addUnits(c, args[1], limits, by), err
		}
	}
	if _, err := parseLongDouble(args[2]); err != nil {
		return nil, err
	}
	return func(old []byte) (edit, error) {
		sum, err := addLongDouble(old, args[2])
		return edit{write: true, value: sum}, err
	}, nil
}

// addUnits adds units to a number of limits.
func addUnits(c *command, key []byte, limits *mapping.Limits, by []byte) func(old []byte) (edit, error) {
	return func(old []byte) (edit, error) {
		sum, _ := new(big.Int).SetString(string(by), 10)
		if old != nil {
			units, ok, err := limits.Units(old)
			if !ok || err != nil {
				return edit{}, errFloat
			}
			n, _ := new(big.Int).SetString(string(units), 10)
			sum.Add(sum, n)
		}
		low, _ := new(big.Int).SetString(limits.Low, 10)
		high, _ := new(big.Int).SetString(limits.High, 10)
		text := limits.Text(sum.String())
		if sum.Cmp(low) < 0 || sum.Cmp(high) > 0 {
			return edit{}, refused(fmt.Sprintf("%s of %.100q would be %s, and the column takes %s; nothing was changed", c.name, key, text, limits))
		}
		return edit{write: true, value: []byte(text)}, nil
	}
}

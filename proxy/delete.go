package proxy

import (
	"bytes"
	"cmp"
	"crypto/sha1" // #nosec G505 -- the name Redis gives a script
	_ "embed"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

//go:embed lua/del.lua
var delScript []byte

var delSHA = scriptName(delScript)

// scriptName is what Redis calls a script.
func scriptName(script []byte) []byte {
	sum := sha1.Sum(script) // #nosec G401
	return []byte(hex.EncodeToString(sum[:]))
}

// del serves DEL and UNLINK. With mapped keys among its keys it runs as a script: what happens to a key depends on
// its marks, and the answer counts rows that are only in MySQL.
func (s *session) del(c *command, req request) {
	d, err := s.deletionOf(c, req)
	switch {
	case err != nil:
		s.refuseKnown(err)
		return
	case d == nil:
		s.pass(c, req)
		return
	case !s.admitted():
		return
	}
	s.settle()
	deleted, err := d.through(s, req)
	if err == errAnswered {
		return
	}
	var there int64
	if err == nil && len(d.keys) > 0 {
		if there, err = d.run(s); err != nil && deleted > 0 {
			err = upstreamError(fmt.Sprintf("%d rows were deleted in mysql, and it is unknown whether the other keys were: %v", deleted, err))
		}
	}
	if err != nil {
		s.refuseKnown(err) // Redis may have refused the script to somebody who may not DEL either
		return
	}
	s.scratch = redcon.AppendInt(s.scratch[:0], there+deleted)
	s.answerWritten(d.durability(), 1, s.scratch)
}

// durability is what the deletion of the rows has to have.
func (d *deletion) durability() (all mapping.Durability) {
	for _, k := range d.how {
		if k.row {
			all = all.With(k.m.Durability)
		}
	}
	return all
}

// deletionOf reads a DEL or UNLINK; it is nil if no key is mapped.
func (s *session) deletionOf(c *command, req request) (*deletion, error) {
	var d *deletion
	keys := req.args[1:]
	for i, key := range keys {
		m := s.mapped(key)
		if m == nil {
			if s.here() && s.srv.journal.Reserved(key) {
				return nil, s.reserved()
			}
			continue
		}
		if d == nil {
			d = &deletion{command: []byte(c.name), keys: keys, how: make([]deletedKey, len(keys))}
		}
		d.how[i] = deletedKey{m: m, row: m.DeleteRow}
		if m.DeleteRow {
			if err := s.writable(m, key); err != nil {
				return nil, err
			}
		}
	}
	return d, nil
}

// deletion is one DEL or UNLINK.
type deletion struct {
	command []byte
	keys    [][]byte
	how     []deletedKey
	settled []byte // how many marks had been before MySQL was asked
}

type deletedKey struct {
	m     *mapping.Mapping // nil: not mapped
	row   bool
	known byte // '1' or '0' once MySQL was asked, else 0
}

// run returns how many of the keys were there.
func (d *deletion) run(s *session) (int64, error) {
	for range maxAbsent {
		s.at("delete.before-script")
		reply, err := s.eval(delScript, delSHA, d.args(s.srv.journal))
		s.at("delete.after-script")
		if err != nil {
			return 0, err
		}
		nums, err := integers(reply)
		if err != nil {
			return 0, err
		}
		if nums[0] >= 0 {
			s.srv.gate.Marked(int(nums[1]))
			s.srv.stats.Deletes.Add(nums[1])
			return nums[0], nil
		}
		d.settled = strconv.AppendInt(nil, nums[1], 10)
		if err := d.lookUp(s, nums[2:]); err != nil {
			return 0, err
		}
		s.at("del.asked")
	}
	return 0, refused("the keys changed while they were deleted; nothing was deleted, try again")
}

// lookUp asks MySQL for the rows that the script could not tell of; places count from 1. A key that holds something of
// another type is there, whatever it is.
func (d *deletion) lookUp(s *session, places []int64) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	for _, at := range places {
		if at < 1 || int(at) > len(d.how) {
			return fmt.Errorf("redis answered DEL with place %d of %d", at, len(d.how))
		}
		k := &d.how[at-1]
		wg.Add(1)
		s.srv.loader.Load(k.m, d.keys[at-1], func(image []byte, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil && !isWrongType(err):
				first = cmp.Or(first, err)
			case err != nil || image != nil:
				k.known = '1'
			default:
				k.known = '0'
			}
		})
	}
	s.stepAside()
	wg.Wait()
	return first
}

// eval runs a script on the client's lane, so with the client's own rights.
func (s *session) eval(script, sha []byte, args [][]byte) ([]byte, error) {
	reply, err := s.call(append([][]byte{[]byte("EVALSHA"), sha}, args...)...)
	if err == nil && bytes.HasPrefix(reply, []byte("-NOSCRIPT")) {
		reply, err = s.call(append([][]byte{[]byte("EVAL"), script}, args...)...)
	}
	return reply, err
}

// args are the keys and arguments of the script; the last says what it returns.
func (d *deletion) args(j mapping.Journal) [][]byte {
	args := make([][]byte, 0, 5+4*len(d.keys))
	args = append(args, strconv.AppendInt(nil, int64(len(d.keys)), 10))
	args = append(args, d.keys...)
	args = append(args, d.command, []byte(j.Prefix), strconv.AppendInt(nil, time.Now().UnixMilli(), 10))
	for i, k := range d.how {
		what, known := "plain", byte('?')
		switch {
		case k.m != nil && k.row:
			what = "row"
		case k.m != nil:
			what = "cache"
		}
		if k.known != 0 {
			known = k.known
		}
		args = append(args, []byte(what), strconv.AppendInt(nil, int64(j.Partition(d.keys[i])), 10), []byte{known})
	}
	return append(args, d.settled, []byte("both"))
}

// integers reads an array of at least two integers.
func integers(reply []byte) ([]int64, error) {
	if reply[0] == '-' {
		return nil, redisReply(bytes.TrimRight(reply[1:], "\r\n"))
	}
	elems, ok := elements(nil, reply)
	nums := make([]int64, 0, len(elems))
	for _, e := range elems {
		n, isInt := parseInt(bytes.TrimRight(e[1:], "\r\n"))
		if e[0] != ':' || !isInt {
			ok = false
			break
		}
		nums = append(nums, n)
	}
	if !ok || len(nums) < 2 {
		return nil, upstreamError(fmt.Sprintf("redis answered a command on rows with %.64q, so it is unknown whether it was applied", reply))
	}
	return nums, nil
}

package proxy

import (
	"bytes"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

//go:embed lua/msetnx.lua
var msetnxScript []byte

// maxMsetnx is how many keys an MSETNX may have, if one of them is mapped: Lua passes on some 8,000 arguments.
const maxMsetnx = 3500

// bundle is an MSETNX with mapped keys.
type bundle struct {
	keys, images [][]byte
	how          []deletedKey // m is nil for keys that are not mapped
}

// bundleOf reads an MSETNX; it is nil if no key is a row.
func (s *session) bundleOf(c *command, args [][]byte) (*bundle, error) {
	b, found := &bundle{}, false
	var own []byte // a key that is the clients' own
	for i := 1; i < len(args); i += 2 {
		key, image := args[i], args[i+1]
		m := s.mapped(key)
		var err error
		switch {
		case m != nil && m.Cache:
			own = key
		case m != nil:
			found = true
			if err = s.queueable(c, m); err == nil {
				err = s.writable(m, key)
			}
			if err == nil {
				image, err = m.Canonical(nil, key, image)
			}
		case s.here() && s.srv.journal.Reserved(key):
			err = s.reserved()
		}
		if err != nil {
			return nil, err
		}
		b.keys, b.images, b.how = append(b.keys, key), append(b.images, image), append(b.how, deletedKey{m: m})
	}
	switch {
	case !found:
		return nil, nil
	case own != nil:
		return nil, s.apart(c, own)
	case len(b.keys) > maxMsetnx:
		return nil, refused(fmt.Sprintf("MSETNX with rows takes %d keys at most; nothing was changed", maxMsetnx))
	}
	return b, nil
}

// msetnx serves MSETNX. With mapped keys in it, it runs as a script: whether a row is there is known to MySQL.
func (s *session) msetnx(c *command, req request) {
	switch {
	case len(req.args)%2 == 0:
		s.forward(req) // Redis refuses it
		return
	case s.msetnxThrough(c, req):
		return
	}
	b, err := s.bundleOf(c, req.args)
	switch {
	case err != nil:
		s.refuseKnown(err)
		return
	case b == nil:
		s.pass(c, req)
		return
	case !s.admitted():
		return
	}
	s.settle()
	for range maxAbsent {
		s.at("msetnx.before-script")
		reply, err := s.call(b.args(s.srv.journal)...)
		s.at("msetnx.after-script")
		if err == nil {
			var nums []int64
			if nums, err = integers(reply); err == nil && nums[0] >= 0 {
				s.srv.gate.Marked(int(nums[1]))
				s.srv.stats.Writes.Add(nums[0])
				s.answerWritten(b.durability(), 1, redcon.AppendInt(nil, nums[0]))
				return
			}
			if err == nil {
				err = b.ask(s, nums[1:])
			}
		}
		if err != nil {
			s.refuseKnown(err)
			return
		}
	}
	s.refuse(refused("rows come and go as soon as they are looked at; nothing was changed, try again"))
}

// ask looks for rows in MySQL, as change.ask does; places count from 1.
func (b *bundle) ask(s *session, places []int64) error {
	d := deletion{keys: b.keys, how: b.how}
	return d.lookUp(s, places)
}

// durability is what all of the rows ask for.
func (b *bundle) durability() (all mapping.Durability) {
	for _, k := range b.how {
		if k.m != nil {
			all = all.With(k.m.Durability)
		}
	}
	return all
}

func (b *bundle) args(j mapping.Journal) [][]byte {
	args := append([][]byte{[]byte("EVAL"), msetnxScript, strconv.AppendInt(nil, int64(len(b.keys)), 10)}, b.keys...)
	args = append(args, []byte(j.Prefix), strconv.AppendInt(nil, time.Now().UnixMilli(), 10))
	for i, k := range b.how {
		part, asked := []byte{}, ""
		if k.m != nil {
			part = strconv.AppendInt(nil, int64(j.Partition(b.keys[i])), 10)
			if k.known == '0' && k.m.NegativeTTL == 0 {
				asked = "asked"
			}
		}
		args = append(args, b.images[i], part, []byte(asked))
	}
	return args
}

// queueMsetnx queues MSETNX.
func (s *session) queueMsetnx(c *command, req request) {
	if !s.confirmed(req) {
		return
	}
	if len(req.args)%2 == 0 {
		s.forward(req) // Redis refuses it
		return
	}
	b, err := s.bundleOf(c, req.args)
	if b == nil && err == nil {
		s.queuePlain(c, req)
		return
	}
	if err == nil {
		s.settle()
		var places []int64
		for i, k := range b.how {
			if k.m != nil {
				places = append(places, int64(i+1))
			}
		}
		err = b.ask(s, places)
	}
	if err != nil {
		s.abort(err)
		return
	}
	s.pin.tx.writes(b.durability())
	s.pin.tx.tap(func(reply []byte) []byte {
		nums, err := integers(reply)
		switch {
		case err != nil:
			return bytes.Clone(reply)
		case nums[0] < 0:
			return appendError(nil, refused("a row left redis before EXEC: MSETNX was not applied, what else is in the "+
				"transaction was; try it again"))
		}
		s.srv.gate.Marked(int(nums[1]))
		s.srv.stats.Writes.Add(nums[0])
		return redcon.AppendInt(nil, nums[0])
	})
	args := b.args(s.srv.journal)
	s.forward(request{raw: appendCommand(nil, args...), args: args, made: true})
}

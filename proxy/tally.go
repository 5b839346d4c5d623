package proxy

import "sync/atomic"

// group is what Redis counts a command among, by the ACL categories in its COMMAND table.
type group uint8

// Groups are the names of the groups; what is of none of the categories, as commands of modules are, is of the last.
var Groups = [...]string{"string", "hash", "list", "set", "sortedset", "stream", "bitmap", "hyperloglog", "geo", "pubsub",
	"transaction", "scripting", "connection", "keyspace", "admin", "other"}

const groupOther = group(len(Groups) - 1)

// groupOf finds the group among the categories of a command, "@write", "@string" and so on.
func groupOf(categories map[string]bool) group {
	for i, name := range Groups[:groupOther] {
		if categories["@"+name] {
			return group(i)
		}
	}
	return groupOther
}

// fate is what became of a command as far as is known once it was dispatched; the reply may still be an error.
type fate uint8

const (
	fatePassed   fate = iota // it went to Redis as it came
	fateRow                  // it named the key of a row or of a query's result
	fateAnswered             // keyrow answered it
	fateRefused              // keyrow answered it with an error
	fates
)

// Outcomes are the names of what became of commands.
var Outcomes = [fates]string{"passed", "row", "answered", "refused"}

// tally counts commands. Each loop has one, so that loops take no cache lines from each other.
type tally struct {
	commands [len(Groups)][fates]atomic.Int64
	_        [64]byte
}

// counting is the commands of a session that are not in a tally yet: so many of one kind, one behind the other. A
// pipeline is mostly of one kind, and costs one addition to the tally.
type counting struct {
	kind, now kind // now: of the command being dispatched
	n         int64
}

type kind struct {
	group group
	fate  fate
}

// count counts the command that was dispatched.
func (s *session) count() {
	c := &s.counting
	if c.kind != c.now {
		s.fold()
		c.kind = c.now
	}
	c.n++
}

// fold puts what was counted into the tally.
func (s *session) fold() {
	c := &s.counting
	if c.n == 0 {
		return
	}
	t := &s.srv.tally
	if s.point != nil {
		t = &s.point.loop.tally
	}
	t.commands[c.kind.group][c.kind.fate].Add(c.n)
	c.n = 0
}

// wrote counts writes of rows that were acknowledged, and the marks that they added to the journal: fewer if some of the
// keys had been marked before.
func (s *Server) wrote(rows, marks int) {
	s.gate.Marked(marks)
	s.stats.Writes.Add(int64(rows))
	s.stats.Coalesced.Add(int64(max(0, rows-marks)))
}

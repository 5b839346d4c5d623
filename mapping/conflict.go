package mapping

import "slices"

// conflict returns a key that both p and q match, one of the shortest, if there is any.
//
// Both patterns are read as automata over bytes: a literal byte is one step, a variable is one step of any byte
// followed by a loop of any byte. A breadth-first walk over the pairs of states finds the shortest common key.
func (p *pattern) conflict(q *pattern) (example string, ok bool) {
	a, b := p.steps(), q.steps()
	type state struct{ i, j int }
	type arrival struct {
		from state
		c    byte
	}
	start, end := state{0, 0}, state{len(a), len(b)}
	came := map[state]arrival{start: {}}
	for queue := []state{start}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at == end {
			var key []byte
			for at != start {
				key = append(key, came[at].c)
				at = came[at].from
			}
			slices.Reverse(key)
			return string(key), true
		}
		for _, x := range moves(a, at.i) {
			for _, y := range moves(b, at.j) {
				c, meet := x.meet(y)
				next := state{x.to, y.to}
				if _, seen := came[next]; meet && !seen {
					came[next] = arrival{at, c}
					queue = append(queue, next)
				}
			}
		}
	}
	return "", false
}

// A step consumes one byte: c, or any one; more means that a loop of any bytes follows.
type step struct {
	c    byte
	any  bool
	more bool
}

func (p *pattern) steps() []step {
	var steps []step
	for i, literal := range p.literals {
		for _, c := range literal {
			steps = append(steps, step{c: c})
		}
		if i < len(p.variables) {
			steps = append(steps, step{any: true, more: true})
		}
	}
	return steps
}

type move struct {
	to  int
	c   byte
	any bool
}

// moves lists the bytes that can be consumed in state i, which is the number of steps done.
func moves(steps []step, i int) []move {
	var ms []move
	if i < len(steps) {
		ms = append(ms, move{i + 1, steps[i].c, steps[i].any})
	}
	if i > 0 && steps[i-1].more {
		ms = append(ms, move{to: i, any: true})
	}
	return ms
}

// meet returns a byte that both moves can consume.
func (m move) meet(o move) (c byte, ok bool) {
	switch {
	case m.any && o.any:
		return '1', true
	case m.any:
		return o.c, true
	case o.any || m.c == o.c:
		return m.c, true
	}
	return 0, false
}

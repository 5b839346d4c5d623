// Package history decides whether what clients saw of a key could have come from one register that does one operation
// at a time: whether the history is linearizable.
//
//	var r history.Recorder
//	call := r.Now()
//	…                                  // SET user:1 17 is answered
//	r.Add("user:1", history.Op{Name: "SET 17", Left: "17", Call: call, Return: r.Now()})
//	err := history.Check("16", r.Ops("user:1"))
package history

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// What an operation saw and left is a value of the register or one of these.
const (
	None = "no row"
	Some = "a row" // saw only: any but None
	// Any, as what was seen: the answer does not tell. As what was left: the register is as it was.
	Any = ""
)

// Never is the return of an operation whose outcome is unknown: it took effect at some time after its call, or does so
// later, or never. An unanswered read tells nothing and need not be recorded.
const Never = math.MaxInt64

// Op is one operation of one client: a read sees a value and leaves Any, a SET sees Any and leaves a value, a DEL leaves
// None, a GETSET sees one value and leaves another. An INCR adds 1 to a number, of which None is 0: it leaves the sum, or
// Any if that is not known.
type Op struct {
	Name         string // of the command, for messages
	Client       int    // for messages
	Saw, Left    string
	Add          int64
	Call, Return int64 // by the clock of the Recorder
}

func (op *Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%d, ", op.Call)
	if op.Return == Never {
		b.WriteString("unknown]")
	} else {
		fmt.Fprintf(&b, "%d]", op.Return)
	}
	fmt.Fprintf(&b, " client %d: %s", op.Client, op.Name)
	if op.Saw != Any {
		fmt.Fprintf(&b, ", saw %s", op.Saw)
	}
	if op.Add != 0 {
		fmt.Fprintf(&b, ", added %d", op.Add)
	}
	if op.Left != Any {
		fmt.Fprintf(&b, ", left %s", op.Left)
	}
	return b.String()
}

// sees reports whether the operation could have been answered as it was when the register had this value.
func (op *Op) sees(value string) bool {
	if op.Add != 0 && op.Left != Any && op.sum(value) != op.Left {
		return false
	}
	return op.Saw == Any || op.Saw == value || op.Saw == Some && value != None
}

// leaves is the value of the register once the operation took effect on this one.
func (op *Op) leaves(value string) string {
	switch {
	case op.Add != 0:
		return op.sum(value)
	case op.Left != Any:
		return op.Left
	}
	return value
}

// sum is what an INCR makes of a value, Any if that is no number.
func (op *Op) sum(value string) string {
	if value == None {
		value = "0"
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return Any
	}
	return strconv.FormatInt(n+op.Add, 10)
}

// adds reports whether the operation adds, never to return.
func (op *Op) adds() bool { return op.Add != 0 && op.Return == Never }

// reads reports whether the operation changes nothing.
func (op *Op) reads() bool { return op.Left == Any && op.Add == 0 }

// Recorder collects the operations of many clients. The zero value is ready.
type Recorder struct {
	clock atomic.Int64

	mu  sync.Mutex
	ops map[string][]Op // guarded by mu; by key
}

// Now is later than every Now that returned before.
func (r *Recorder) Now() int64 { return r.clock.Add(1) }

// Add records an operation on a key.
func (r *Recorder) Add(key string, op Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ops == nil {
		r.ops = make(map[string][]Op)
	}
	r.ops[key] = append(r.ops[key], op)
}

// Ops are the operations on a key.
func (r *Recorder) Ops(key string) []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops[key])
}

// Keys are the keys with operations, sorted.
func (r *Recorder) Keys() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.ops))
}

// mostOpen is how many operations may be under way at once; those that never return count from their call on.
const mostOpen = 64

var errCrowded = fmt.Errorf("more than %d operations are under way at once", mostOpen)

// possibility is a state in which the register may be: its value, and which of the operations under way took effect.
type possibility struct {
	value string
	took  uint64 // a bit for each slot of search.open
}

// search goes through a history from one call or return to the next, as in Lowe, Testing for Linearizability (2017),
// "just-in-time linearization": when an operation returns it must have taken effect, so the possibilities behind its
// return are those that become of the ones before by letting operations under way take effect until it is among them.
type search struct {
	open     [mostOpen]*Op
	used     uint64 // the slots of open that are taken
	possible map[possibility]bool
}

// Check returns nil if there is an order of the operations, each of which takes effect at one moment between its call
// and its return, that explains all that they saw of a register which has the value initial at first. Otherwise the
// error tells the first operation that cannot have been answered as it was, and what was possible.
func Check(initial string, ops []Op) error {
	s := &search{possible: map[possibility]bool{{value: initial}: true}}
	slots := make(map[*Op]int)
	for _, e := range order(ops) {
		if e.call {
			slot := bits.TrailingZeros64(^s.used)
			if slot == mostOpen {
				return errCrowded
			}
			s.open[slot], slots[e.op] = e.op, slot
			s.used |= 1 << slot
			continue
		}
		slot := slots[e.op]
		next := s.took(slot)
		if len(next) == 0 {
			return s.contradiction(e.op, ops)
		}
		s.possible, s.open[slot] = next, nil
		s.used &^= 1 << slot
	}
	return nil
}

// event is a call or a return.
type event struct {
	at   int64
	call bool
	op   *Op
}

func order(ops []Op) []event {
	events := make([]event, 0, 2*len(ops))
	for i := range ops {
		op := &ops[i]
		events = append(events, event{op.Call, true, op})
		if op.Return != Never {
			events = append(events, event{op.Return, false, op})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return events
}

// took are the possibilities in which the operation of a slot took effect; the slot is free in them.
func (s *search) took(slot int) map[possibility]bool {
	next, seen := make(map[possibility]bool), make(map[possibility]bool)
	var visit func(p possibility)
	visit = func(p possibility) {
		p = s.read(p)
		if seen[p] {
			return
		}
		seen[p] = true
		if p.took&(1<<slot) != 0 {
			p.took &^= 1 << slot
			next[p] = true
			return
		}
		for rest := s.used &^ p.took; rest != 0; rest &= rest - 1 {
			i := bits.TrailingZeros64(rest)
			if op := s.open[i]; op.sees(p.value) && !s.another(p, i) {
				if after := (possibility{op.leaves(p.value), p.took | 1<<i}); op.Return != Never || s.wanted(after) {
					visit(after)
				}
			}
		}
	}
	for p := range s.possible {
		visit(p)
	}
	return s.best(next)
}

// wanted reports whether an operation under way saw what p holds, or saw it once more was added. What never returns need
// not take effect otherwise: it can do so later.
func (s *search) wanted(p possibility) bool {
	for rest := s.used &^ p.took; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		op := s.open[i]
		if op.adds() {
			if !s.another(p, i) && s.wanted(possibility{op.leaves(p.value), p.took | 1<<i}) {
				return true
			}
		} else if (op.Saw != Any || op.Add != 0) && op.sees(p.value) {
			return true
		}
	}
	return false
}

// another reports whether the operation of a slot adds, never to return, as much as one of a slot before it: which of the
// two takes effect is all the same.
func (s *search) another(p possibility, slot int) bool {
	if !s.open[slot].adds() {
		return false
	}
	for rest := s.used &^ p.took & (1<<slot - 1); rest != 0; rest &= rest - 1 {
		if op := s.open[bits.TrailingZeros64(rest)]; op.adds() && op.Add == s.open[slot].Add {
			return true
		}
	}
	return false
}

// best leaves out each possibility that differs from another only in that operations took effect that need not: what may
// come of it may come of the other as well.
func (s *search) best(all map[possibility]bool) map[possibility]bool {
	var optional uint64
	for rest := s.used; rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros64(rest); s.open[i].Return == Never {
			optional |= 1 << i
		}
	}
	least := make(map[possibility][]uint64) // the optional operations of those that are alike but for these
	for p := range all {
		alike := possibility{p.value, p.took &^ optional}
		least[alike] = append(least[alike], p.took&optional)
	}
	for alike, sets := range least {
		for _, more := range sets {
			if slices.ContainsFunc(sets, func(fewer uint64) bool { return fewer != more && fewer&^more == 0 }) {
				delete(all, possibility{alike.value, alike.took | more})
			}
		}
	}
	return all
}

// read lets every read under way that saw the value of p take effect: since it changes nothing, that rules nothing out.
func (s *search) read(p possibility) possibility {
	for rest := s.used &^ p.took; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		if op := s.open[i]; op.reads() && op.sees(p.value) {
			p.took |= 1 << i
		}
	}
	return p
}

// told is how many operations before a contradiction are told.
const told = 20

func (s *search) contradiction(op *Op, ops []Op) error {
	values := make(map[string]bool)
	for p := range s.possible {
		values[p.value] = true
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s contradicts what was before: the value could have been %s, or left by what was under way\n", op,
		strings.Join(slices.Sorted(maps.Keys(values)), ", "))
	var before []*Op
	for i := range ops {
		if ops[i].Call < op.Return {
			before = append(before, &ops[i])
		}
	}
	slices.SortFunc(before, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	if skip := len(before) - told; skip > 0 {
		before = before[skip:]
		fmt.Fprintf(&b, "\t… %d before\n", skip)
	}
	for _, o := range before {
		fmt.Fprintf(&b, "\t%s\n", o)
	}
	return errors.New(strings.TrimSuffix(b.String(), "\n"))
}

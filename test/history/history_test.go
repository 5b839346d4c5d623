package history

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func read(call, ret int64, saw string) Op {
	return Op{Name: "GET", Saw: saw, Call: call, Return: ret}
}

func write(call, ret int64, left string) Op {
	return Op{Name: "SET", Left: left, Call: call, Return: ret}
}

func swap(call, ret int64, saw, left string) Op {
	return Op{Name: "GETSET", Saw: saw, Left: left, Call: call, Return: ret}
}

func incr(call, ret int64, left string) Op {
	return Op{Name: "INCR", Left: left, Add: 1, Call: call, Return: ret}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		ops  []Op
		bad  string // what the error says; "": there is none
	}{
		{name: "nothing"},
		{name: "the first value", ops: []Op{read(1, 2, "0")}},
		{name: "one after the other", ops: []Op{write(1, 2, "1"), read(3, 4, "1"), write(5, 6, None), read(7, 8, None)}},
		{name: "a read beside a write sees the old value", ops: []Op{write(1, 4, "1"), read(2, 3, "0")}},
		{name: "a read beside a write sees the new value", ops: []Op{write(1, 4, "1"), read(2, 3, "1")}},
		{name: "two writes at once, either last", ops: []Op{write(1, 3, "1"), write(2, 4, "2"), read(5, 6, "1")}},
		{name: "writes in the order that reads tell", ops: []Op{
			write(1, 10, "1"), write(2, 11, "2"), read(3, 4, "2"), read(5, 6, "1"), read(12, 13, "1")}},
		{name: "unknown, and took effect late", ops: []Op{write(1, Never, "1"), read(2, 3, "0"), write(4, 5, "2"), read(6, 7, "1")}},
		{name: "unknown, and never took effect", ops: []Op{write(1, Never, "1"), read(2, 3, "0"), read(4, 5, "0")}},
		{name: "a DEL that found a row", ops: []Op{swap(1, 2, Some, None), read(3, 4, None), swap(5, 6, None, None)}},
		{name: "a chain of swaps, answered in no order", ops: []Op{
			swap(1, 9, "0", "1"), swap(2, 9, "2", "3"), swap(3, 9, "1", "2"), read(10, 11, "3")}},
		{name: "sums", ops: []Op{incr(1, 2, "1"), incr(3, 6, "3"), incr(4, 5, "2"), read(7, 8, "3")}},
		{name: "a sum of nothing", ops: []Op{write(1, 2, None), incr(3, 4, "1")}},
		{name: "sums that nobody knows, all there", ops: []Op{incr(1, Never, Any), incr(2, Never, Any), incr(3, Never, Any), read(4, 5, "3")}},
		{name: "sums that nobody knows, some there", ops: []Op{incr(1, Never, Any), incr(2, Never, Any), incr(3, 4, "2"), read(5, 6, "2")}},
		{name: "sums that nobody knows, behind a write", ops: []Op{incr(1, Never, Any), write(2, 3, "7"), read(4, 5, "8")}},
		{name: "a sum that nobody knows, behind a write that nobody knows", ops: []Op{
			write(1, Never, "7"), incr(2, Never, Any), read(3, 4, "0"), read(5, 6, "8")}},

		{name: "a sum that is lost", ops: []Op{incr(1, 2, "1"), incr(3, 4, "1")}, bad: "left 1"},
		{name: "one sum too many", ops: []Op{incr(1, 2, "1"), incr(3, Never, Any), read(4, 5, "3")}, bad: "saw 3"},
		{name: "a sum of what is not there", ops: []Op{write(1, 2, "5"), incr(3, 4, "1")}, bad: "could have been 5"},
		{name: "stale read", ops: []Op{write(1, 2, "1"), read(3, 4, "0")}, bad: "could have been 1"},
		{name: "lost write", ops: []Op{write(1, 2, "1"), write(3, 4, "2"), read(5, 6, "2"), read(7, 8, "1")}, bad: "saw 1"},
		{name: "resurrected row", ops: []Op{write(1, 2, None), read(3, 4, None), read(5, 6, "0")}, bad: "could have been no row"},
		{name: "a value nobody wrote", ops: []Op{write(1, 2, "1"), read(3, 4, "7")}, bad: "saw 7"},
		{name: "seen before it was written", ops: []Op{read(1, 2, "1"), write(3, 4, "1")}, bad: "saw 1"},
		{name: "seen and taken back", ops: []Op{write(1, 10, "1"), read(2, 3, "1"), read(4, 5, "0")}, bad: "saw 0"},
		{name: "readers that do not agree", ops: []Op{
			write(1, 20, "1"), write(2, 21, "2"), read(3, 4, "1"), read(5, 6, "2"), read(7, 8, "1")}, bad: "[7, 8]"},
		{name: "both swaps found the same", ops: []Op{swap(1, 3, "0", "1"), swap(2, 4, "0", "2")}, bad: "saw 0"},
		{name: "a DEL that found a deleted row", ops: []Op{swap(1, 2, Some, None), swap(3, 4, Some, None)}, bad: "saw a row"},
		{name: "a DEL that found no row where there was one", ops: []Op{write(1, 2, "1"), swap(3, 4, None, None)}, bad: "saw no row"},
		{name: "unknown, took effect and was taken back", ops: []Op{
			write(1, Never, "1"), read(2, 3, "1"), read(4, 5, "0")}, bad: "saw 0"},
		{name: "unknown, seen before its call", ops: []Op{read(1, 2, "1"), write(3, Never, "1")}, bad: "saw 1"},
	}
	for _, test := range tests {
		for range 3 {
			rand.Shuffle(len(test.ops), func(i, j int) { test.ops[i], test.ops[j] = test.ops[j], test.ops[i] })
			err := Check("0", test.ops)
			switch {
			case test.bad == "" && err != nil:
				t.Errorf("%s: %v", test.name, err)
			case test.bad != "" && (err == nil || !strings.Contains(err.Error(), test.bad)):
				t.Errorf("%s: the error is %v, want %q in it", test.name, err, test.bad)
			}
		}
	}
}

func TestCheckCrowded(t *testing.T) {
	t.Parallel()
	var ops []Op
	for i := range int64(mostOpen + 1) {
		ops = append(ops, write(i, Never, fmt.Sprint(i)))
	}
	if err := Check("0", ops); !errors.Is(err, errCrowded) {
		t.Errorf("the error is %v", err)
	}
}

// made is a history as a real register would give it: every operation takes effect at a random moment while it is under
// way, and sees what is there then. A few never return.
func made(random *rand.Rand, clients, n int) []Op {
	var clock int64
	now := func() int64 { clock++; return clock }
	value := "0"
	var ops []Op
	under := make([]*Op, clients) // by client
	took := make([]bool, clients)
	for len(ops) < n {
		c := random.IntN(clients)
		op := under[c]
		switch {
		case op == nil:
			op = &Op{Client: c, Name: "GET", Call: now(), Return: Never}
			switch random.IntN(5) {
			case 0:
				op.Name, op.Left = "SET", fmt.Sprint(1000*op.Call)
			case 1:
				op.Name, op.Left = "DEL", None
			case 2:
				op.Name, op.Add = "INCR", 1
			}
			under[c], took[c] = op, false
		case !took[c]:
			took[c] = true
			if op.Left == Any && op.Add == 0 || random.IntN(2) == 0 {
				op.Saw = value
			}
			if value = op.leaves(value); op.Add != 0 {
				op.Left = value
			}
		default:
			under[c] = nil
			if op.Left != Any && random.IntN(n) < 8 {
				forget(op)
			} else {
				op.Return = now()
			}
			ops = append(ops, *op)
		}
	}
	for c, op := range under {
		if op != nil && took[c] && op.Left != Any {
			forget(op)
			ops = append(ops, *op)
		}
	}
	return ops
}

// forget makes op one that was not answered.
func forget(op *Op) {
	op.Saw = Any
	if op.Add != 0 {
		op.Left = Any
	}
}

// What a register answers is accepted; with one answer exchanged for one that was over by then it is not.
func TestCheckMadeUp(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		ops := made(random, 2+random.IntN(8), 20+random.IntN(400))
		if err := Check("0", ops); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		// A value that had been seen, whose successor had been seen too before the read began, must not come back.
		planted := slices.Clone(ops)
		slices.SortFunc(planted, func(a, b Op) int { return int(a.Call - b.Call) })
		last := &planted[len(planted)-1]
		*last = Op{Name: "GET", Saw: "0", Call: 1 << 40, Return: 1<<40 + 1}
		if !slices.ContainsFunc(ops, func(op Op) bool { return op.Left != Any && op.Return != Never }) {
			continue
		}
		if err := Check("0", planted); err == nil {
			t.Fatalf("seed %d: a read of the first value at the end is accepted", seed)
		}
	}
}

// Writes and sums that nobody knows of may be many, and the search must not try them in every order.
func TestCheckManyUnknown(t *testing.T) {
	t.Parallel()
	var ops []Op
	sum := int64(0)
	for i := range int64(1000) {
		at := 10 * i
		if i%100 == 0 {
			ops = append(ops, Op{Name: "INCR", Add: 1, Call: at, Return: Never}, write(at+1, Never, fmt.Sprint(1_000_000*(i+1))))
			sum += i / 100 % 2 // every other took effect
		}
		sum++
		ops = append(ops, incr(at+2, at+3, fmt.Sprint(sum)))
	}
	if err := Check("0", ops); err != nil {
		t.Error(err)
	}
}

func BenchmarkCheck(b *testing.B) {
	ops := made(rand.New(rand.NewPCG(1, 2)), 10, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := Check("0", ops); err != nil {
			b.Fatal(err)
		}
	}
}

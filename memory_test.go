package main

import "testing"

func TestIdleHeap(t *testing.T) {
	const small, large = 20 << 20, 90 << 20
	cycles := uint64(7)
	h := newIdleHeap(small, cycles)
	expect := func(held uint64, due bool) {
		t.Helper()
		if got := h.due(held, cycles); got != due {
			t.Errorf("%d MiB after %d collections: due is %v", held>>20, cycles, got)
		}
	}
	expect(small+memoryWorth, false)
	cycles++
	expect(large, false) // Go is at it
	expect(large, true)
	expect(small, false)
	expect(large, true) // another burst
	expect(large, false)
	expect(large, true) // some of which was still in use
	expect(small, false)
	n := 0
	for range 1000 {
		if h.due(large, cycles) {
			n++
		}
	}
	if n < 1000/memoryTicks-1 || n > 1000/memoryTicks+5 {
		t.Errorf("a heap that stays large is collected %d times in 1000 ticks", n)
	}
}

func TestHeapState(t *testing.T) {
	if held, _ := heapState(); held == 0 { // a metric that this Go does not know has no value
		t.Error("the heap is empty")
	}
}

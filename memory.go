package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	memoryTick  = 3 * time.Second
	memoryTicks = 40       // between two looks at a heap that stays large: two minutes, Go's own forced collection
	memoryWorth = 32 << 20 // bytes; less is not worth a collection

	// heapBallast is never touched, so it takes no memory: only the garbage collector counts it. Between two collections
	// a small heap may grow by as much more; by default it is collected at 4 MiB, at full load a hundred times a second.
	heapBallast = 8 << 20 // bytes
)

// giveMemoryBack returns to the operating system, until stopped, what a burst of large values leaves behind. Go does so
// after a collection, but collects only when the heap grows, or two minutes later: measured, a process that was idle
// again after fifty values of 20 MiB kept 150 MiB of garbage, and keeps more the more came at once. Here the collection
// comes as soon as nothing else calls for one; a heap that stays large nevertheless is collected no more often than Go
// does.
func giveMemoryBack() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	ballast := make([]byte, heapBallast)
	heap := newIdleHeap(heapState())
	go func() {
		defer close(ended)
		defer runtime.KeepAlive(ballast)
		tick := time.NewTicker(memoryTick)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if heap.due(heapState()) {
					debug.FreeOSMemory()
					_, heap.cycles = heapState()
				}
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

// idleHeap is what the ticks have seen of the heap.
type idleHeap struct {
	smallest    uint64 // bytes
	cycles      uint64 // collections so far
	wait, pause int    // ticks until the next collection, and after it
}

func newIdleHeap(held, cycles uint64) idleHeap {
	return idleHeap{smallest: held, cycles: cycles, pause: 1}
}

// due reports, once a tick, whether the heap is to be collected: it holds much more than it once did, and no collection
// came by itself since the last tick.
func (h *idleHeap) due(held, cycles uint64) bool {
	idle := cycles == h.cycles
	h.cycles = cycles
	h.smallest = min(h.smallest, held)
	switch {
	case held <= h.smallest+memoryWorth:
		h.wait, h.pause = 0, 1
	case h.wait > 0:
		h.wait--
	case idle:
		// What was in use at this collection may be garbage soon, and nothing tells, so there is another one.
		h.wait, h.pause = h.pause, min(2*h.pause, memoryTicks)
		return true
	}
	return false
}

// heapState is how many bytes the heap has from the operating system, garbage and free spans among them, and how many
// collections there were.
func heapState() (held, cycles uint64) {
	s := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	for _, class := range s[1:] {
		held += class.Value.Uint64()
	}
	return held, s[0].Value.Uint64()
}

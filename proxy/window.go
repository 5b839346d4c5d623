package proxy

const (
	// maxWindow is how many bytes of replies Redis is asked for ahead. It is what a link of 1 GB/s carries in 1 ms.
	maxWindow = 1 << 20
	// windowSample is how many replies their mean size is taken of.
	windowSample = 16
)

// window has the commands on a lane wait while the replies to those before them are more than Redis should make at a time.
//
// Redis runs all commands that it has read before it writes the replies of any. On a lane that is as many as there are
// clients: 50 that ask for a megabyte each have it fill memory that no cache holds and that the allocator takes from
// the system, and gives back, every time. Measured with 50 clients, in nine alternations: without that, LRANGE of 100
// elements of 10 KiB goes from 0.50 to 0.74 of a direct connection, and takes half of Redis's CPU time.
//
// How large replies will be is taken from those before. All of it is guarded by the lane's mu.
type window struct {
	queued uint64  // bytes of commands since the connection was made
	pauses []pause // before what was to wait when it was queued
	done   uint64  // replies that are taken in
	part   int     // bytes of the reply that is not
	each   float64 // bytes of a reply, as of late
}

// pause is where the writer may have to stop: between commands that were queued together and the next ones.
type pause struct {
	at     uint64 // byte of queued
	behind uint64 // replies to what was queued before
}

// full reports whether what is behind so many replies has to wait.
func (w *window) full(behind uint64) bool {
	return float64(behind-w.done)*w.each > maxWindow
}

// queue takes in n bytes of commands, behind so many replies.
func (w *window) queue(n int, behind uint64) {
	if len(w.pauses) > 0 || w.full(behind) {
		w.pauses = append(w.pauses, pause{w.queued, behind})
	}
	w.queued += uint64(n)
}

// open is how many of size bytes, the last ones that were queued, need not wait. That is never none if all replies are
// taken in.
func (w *window) open(size int) int {
	written := w.queued - uint64(size)
	n := 0
	for n < len(w.pauses) && (w.pauses[n].at < written || !w.full(w.pauses[n].behind)) {
		n++
	}
	if w.pauses = w.pauses[n:]; len(w.pauses) == 0 {
		w.pauses = nil
		return size
	}
	return int(w.pauses[0].at - written)
}

// take takes in n bytes of replies, of which so many have ended by now.
func (w *window) take(n int, done uint64) {
	w.part += n
	ended := done - w.done
	if ended == 0 {
		return
	}
	// One reply of 500 MB among small ones says little about the next.
	mean := min(float64(w.part)/float64(ended), maxWindow)
	w.each += (mean - w.each) * min(1, float64(ended)/windowSample)
	w.part, w.done = 0, done
}

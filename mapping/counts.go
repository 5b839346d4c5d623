package mapping

import "sync/atomic"

// Counts is what was done about the keys of a mapping since the process started. Who reads and who loads them counts;
// every version of a mapping that [Set.Renew] and [Set.Succeed] make has the same Counts.
type Counts struct {
	Hits      atomic.Int64 // keys that a read found in Redis
	Misses    atomic.Int64 // keys that a read did not find there
	Negatives atomic.Int64 // of these, keys that were remembered to have no row
	Fills     atomic.Int64 // rows, and absences of rows, that were cached
	Rejected  atomic.Int64 // those that were not, since the key was written, deleted or evicted meanwhile
	Waits     atomic.Int64 // looks at a key whose lease was another process's
}

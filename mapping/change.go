package mapping

import "errors"

// A Change is one row to be written, or deleted, in MySQL at once.
type Change struct {
	Mapping  *Mapping
	Key      []byte
	Image    []byte // nil: the row is deleted
	Deadline int64  // how long its image stays in Redis, Unix milliseconds; 0: as the mapping says
}

// ErrWaits says that a change was not made because an earlier one of the same key is still in the journal.
var ErrWaits = errors.New("an earlier write of the key waits for mysql")

// WriteBehind reports whether rows are written to Redis first, and so are marked in the journal.
func (m *Mapping) WriteBehind() bool { return !m.Deny && !m.Through && !m.Cache }

// ErrRemoved says that a row was not read because its mapping was removed from the configuration meanwhile.
var ErrRemoved = errors.New("the mapping of the key was removed while it was read: nothing was read, try again")

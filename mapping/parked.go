package mapping

import "time"

// Parked is a key whose row MySQL refused. Its image stays in Redis and is served, without a TTL.
type Parked struct {
	Key   string
	Mark  byte      // MarkWritten: the row was to be written; MarkDeleted: to be deleted; MarkMaybe
	Table string    // as a statement names it; empty if no mapping matched
	Code  uint16    // MySQL's error number, 0 if the error is not one of MySQL
	Error string    // MySQL's words, or keyrow's
	Since time.Time // when it was parked first, to the millisecond
	Tries int       // how often it was tried to be written
}

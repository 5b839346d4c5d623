package proxy

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/redcon"

	"keyrow/mapping"
)

// KEYROW JOURNAL, FLUSH and INVALIDATE: what is not in MySQL yet.
//
// Who may use them is Redis's to decide, by what rights there are to the keys they are about. Who may not HGET a key
// below the journal's prefix may not look at the journal, nor wait for it. To retry or drop a parked row takes EVAL with
// these keys and that of the row, which is what DEL of the row takes. INVALIDATE is a DEL, and runs as one.

// Parking looks after the rows that MySQL refused.
type Parking interface {
	// Parked returns some of them, limit at most, those that were parked first in front.
	Parked(ctx context.Context, limit int) ([]mapping.Parked, error)
	// Retry has those of keys that are parked tried again, and returns how many these are.
	Retry(ctx context.Context, keys ...string) (marked int, err error)
	// Drop gives up what was written to those of keys that are parked, and returns how many these were.
	Drop(ctx context.Context, keys ...string) (dropped int, err error)
}

// Drainer waits for what was written to be in MySQL.
type Drainer interface {
	// Drain waits until all marks that there are at the time of the call are worked off: their rows are written, or parked.
	// If ctx ends first it returns its error, and how many are left, -1 if that is unknown.
	Drain(ctx context.Context) (remaining int, err error)
	// DrainKey does so for the marks of one key.
	DrainKey(ctx context.Context, key string) (remaining int, err error)
}

const (
	// journalTimeout bounds a look at the journal.
	journalTimeout = 10 * time.Second
	// flushPatience is how long KEYROW FLUSH waits unless it is told otherwise.
	flushPatience = 30 * time.Second
	// forEver is how long it waits if it is told 0, which stands for no limit with Redis's WAIT, too.
	forEver = 24 * time.Hour
	// parkedLimit is how many rows KEYROW JOURNAL PARKED lists unless it is told otherwise.
	parkedLimit = 100
)

// keyrowJournal serves KEYROW JOURNAL and its subcommands; args is what follows.
func (s *session) keyrowJournal(args [][]byte) {
	sub := ""
	if len(args) > 0 {
		sub, args = strings.ToUpper(string(args[0])), args[1:]
	}
	switch {
	case sub == "" || sub == "STATUS" && len(args) == 0:
		if s.mayLook() {
			s.answer(redcon.AppendBulkString(nil, s.srv.lines(s.srv.journalReport)))
		}
	case sub == "PARKED" && len(args) <= 1:
		limit := int64(parkedLimit)
		if len(args) == 1 {
			var ok bool
			if limit, ok = parseInt(args[0]); !ok || limit < 0 {
				s.refuse(errInteger)
				return
			}
		}
		s.parkedRows(int(limit))
	case sub == "RETRY" && len(args) > 0:
		s.parkedKeys(args, "retried", s.srv.parking.Retry)
	case sub == "DROP" && len(args) > 0:
		s.parkedKeys(args, "dropped", s.srv.parking.Drop)
	default:
		s.refuse(refused("KEYROW JOURNAL knows STATUS, PARKED [count], RETRY key ..., and DROP key ..."))
	}
}

// mayLook reports whether the client may know of the journal.
func (s *session) mayLook() bool { return s.allowed("HGET", s.srv.journal.Meta(), "format") }

func (s *session) parkedRows(limit int) {
	if !s.mayLook() {
		return
	}
	var rows []mapping.Parked
	err := s.aside(journalTimeout, func(ctx context.Context) (err error) {
		rows, err = s.srv.parking.Parked(ctx, limit)
		return err
	})
	if err != nil {
		s.refuse(upstreamError("the parked rows could not be read: " + err.Error()))
		return
	}
	b := redcon.AppendArray(nil, len(rows))
	for _, r := range rows {
		fields := []string{
			"key", r.Key, "mark", string(r.Mark), "table", r.Table, "code", strconv.Itoa(int(r.Code)), "error", r.Error,
			"since", r.Since.UTC().Format("2006-01-02T15:04:05.000Z"), "tries", strconv.Itoa(r.Tries),
		}
		if s.key.proto == 3 {
			b = append(append(b, '%'), strconv.Itoa(len(fields)/2)...)
			b = append(b, "\r\n"...)
		} else {
			b = redcon.AppendArray(b, len(fields))
		}
		for _, f := range fields {
			b = redcon.AppendBulkString(b, f)
		}
	}
	s.answer(b)
}

// parkedKeys does something to parked keys, and answers how many these were.
func (s *session) parkedKeys(args [][]byte, what string, do func(context.Context, ...string) (int, error)) {
	keys := make([]string, len(args))
	ask := []string{"EVAL", "return 0", strconv.Itoa(1 + len(args)), s.srv.journal.Meta()}
	for i, key := range args {
		keys[i] = string(key)
		ask = append(ask, keys[i])
	}
	if !s.allowed(ask...) {
		return
	}
	n := 0
	err := s.aside(journalTimeout, func(ctx context.Context) (err error) {
		n, err = do(ctx, keys...)
		return err
	})
	if err != nil {
		s.refuse(refused(fmt.Sprintf("%v; %d keys were %s before that", err, n, what)))
		return
	}
	s.answer(redcon.AppendInt(nil, int64(n)))
}

// keyrowFlush serves KEYROW FLUSH [ms] [key]: 0 says that what was written is in MySQL, another number that so many
// marks are left after so many milliseconds.
func (s *session) keyrowFlush(args [][]byte) {
	patience := flushPatience
	if len(args) > 0 {
		ms, ok := parseInt(args[0])
		if !ok || ms < 0 {
			s.refuse(errInteger)
			return
		}
		if patience = forEver; ms > 0 {
			patience = time.Duration(min(ms, forEver.Milliseconds())) * time.Millisecond
		}
	}
	if len(args) > 2 {
		s.refuse(refused("KEYROW FLUSH takes at most the milliseconds to wait and a key"))
		return
	}
	if !s.mayLook() {
		return
	}
	left := 0
	err := s.aside(patience, func(ctx context.Context) (err error) {
		if len(args) == 2 {
			left, err = s.srv.drainer.DrainKey(ctx, string(args[1]))
		} else {
			left, err = s.srv.drainer.Drain(ctx)
		}
		return err
	})
	if left < 0 {
		s.refuse(upstreamError("the journal could not be read: " + err.Error()))
		return
	}
	s.answer(redcon.AppendInt(nil, int64(left)))
}

// keyrowInvalidate serves KEYROW INVALIDATE: the cached copies of keys go, as by a DEL with delete = "cache".
func (s *session) keyrowInvalidate(keys [][]byte) {
	d := &deletion{command: []byte("DEL"), keys: keys, how: make([]deletedKey, len(keys))}
	for i, key := range keys {
		m := s.mapped(key)
		if m == nil {
			s.refuse(refused(fmt.Sprintf("%.100q is no key of a mapping or query in this database; nothing was invalidated", key)))
			return
		}
		d.how[i].m = m
	}
	s.settle()
	there, err := d.run(s)
	if err != nil {
		s.refuse(err)
		return
	}
	s.answer(redcon.AppendInt(nil, there))
}

// aside runs do, which may wait, until it returns or patience ends, or the client has gone.
func (s *session) aside(patience time.Duration, do func(context.Context) error) error {
	s.settle()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		err := do(ctx)
		s.mu.Lock()
		result <- err
		s.moved.Broadcast()
		s.mu.Unlock()
	}()
	if !s.await(func() bool { return len(result) > 0 }) {
		cancel()
	}
	return <-result
}

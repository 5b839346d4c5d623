package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/mapping"
)

// Points at which WriterOptions.Hook is called, in the order of a write.
const (
	HookWritten      = "through.written"   // the statements have run, the rows are locked, and Redis knows nothing
	HookWithdrawn    = "through.withdrawn" // the images are gone and their keys leased; the next thing is the COMMIT
	HookThroughDone  = "through.committed" // the COMMIT has succeeded
	HookThroughShown = "through.shown"     // the new images are there, and the client has no answer yet
)

// throughTries is how often a write is tried that falls to a deadlock.
const throughTries = 5

// A Writer writes rows to MySQL while a client waits, and then shows them in Redis:
//
//	START TRANSACTION, INSERT or UPDATE or DELETE    the rows are locked, nobody sees anything yet
//	SELECT                                           what MySQL made of them
//	withdraw                                         the old images go, and their keys are leased to this write
//	COMMIT
//	fill                                             the new images take their place, as after any read
//
// From withdraw on nobody can cache what the rows were: there is no image, and the lease is ours. Who reads meanwhile waits
// for it. If this process is killed, the lease runs out by itself, and it outlasts the transaction: MySQL ends the session
// of who is silent for longer. So no image is ever older than the last commit, and none has to be looked for after a crash.
// As nothing happens in Redis before the statements have run, a MySQL that is down costs no image.
//
// Two writes of one row wait for each other in MySQL, so withdraw and fill of the later come after the withdraw of the
// first; and a fill whose lease is gone is refused.
//
// Keys of the same rows in other mappings are withdrawn with them. An image that waits to be flushed is never withdrawn:
// one of the row itself ends the write, see [mapping.ErrWaits]; one under another key goes with its own flush.
type Writer struct {
	rdb      *redis.Client
	db       *sql.DB
	journal  mapping.Journal
	mappings func() *mapping.Set
	watch    *Watch // nil: mappings stay as they are
	altered  func()
	lease    time.Duration
	hook     func(point string)
	log      zerolog.Logger

	token  string // start of every token
	tokens atomic.Uint64
}

// WriterOptions are what a Writer works on. All but Watch, Altered, Hook and Log are required.
type WriterOptions struct {
	Redis    *redis.Client
	DB       *sql.DB // the pool of OpenThrough
	Journal  mapping.Journal
	Mappings func() *mapping.Set
	// Watch knows which mappings are in force. Without it, all are.
	Watch *Watch
	// Altered is called where a table does not seem to be what its mapping says; it must not block.
	Altered func()
	Lease   time.Duration // ThroughLease
	// Hook is called at the points named above.
	Hook func(point string)
	Log  zerolog.Logger
}

// NewWriter returns a Writer.
func NewWriter(o WriterOptions) *Writer {
	if o.Hook == nil {
		o.Hook = func(string) {}
	}
	if o.Altered == nil {
		o.Altered = func() {}
	}
	return &Writer{
		rdb: o.Redis, db: o.DB, journal: o.Journal, mappings: o.Mappings, watch: o.Watch, altered: o.Altered, lease: o.Lease, hook: o.Hook,
		log: o.Log.Sample(&zerolog.BurstSampler{Burst: 5, Period: 10 * time.Second}), token: rand.Text() + ":",
	}
}

var scriptWithdraw = newScript("withdraw")

// Write makes all of the changes, or none, in one transaction, and returns how many of the rows to be deleted were there.
// Its errors say what a client is told, or are mapping.ErrWaits.
func (w *Writer) Write(changes []mapping.Change) (deleted int64, err error) {
	items := make([]*item, len(changes))
	for i, c := range changes {
		it := &item{key: string(c.Key), m: c.Mapping, image: [][]byte{c.Image}, step: stepUpsert}
		if c.Image == nil {
			it.step = stepDelete
		}
		if it.id, err = it.m.KeyArgs(nil, c.Key); err == nil && c.Image != nil {
			it.row, err = it.m.RowOf(nil, c.Key, [][]byte{c.Image})
		}
		if err != nil {
			return 0, &Error{CodeErr, err.Error() + ": nothing was applied"}
		}
		items[i] = it
	}
	for range throughTries {
		deleted, err = w.write(context.Background(), items, changes)
		if mysqlCode(err) != errDeadlock {
			break
		}
	}
	return deleted, w.told(err)
}

// unknownError is a COMMIT that was not answered.
type unknownError struct{ error }

func (e unknownError) Unwrap() error { return e.error }

// told is the error that a client gets for one of write.
func (w *Writer) told(err error) error {
	var unknown unknownError
	switch {
	case err == nil, errors.Is(err, mapping.ErrWaits), isReply(err):
		return err
	case errors.As(err, &unknown):
		return &Error{CodeDBDown, fmt.Sprintf("mysql failed at the commit: %v: it is unknown whether it was applied", unknown.error)}
	case classify(err) == transient:
		return &Error{CodeDBDown, fmt.Sprintf("mysql failed: %v: not applied", err)}
	case classify(err) == schema:
		w.altered()
	}
	return &Error{CodeErr, fmt.Sprintf("mysql refused it: %v: nothing was applied", err)}
}

// write is one try.
func (w *Writer) write(ctx context.Context, items []*item, changes []mapping.Change) (deleted int64, err error) {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return 0, err
	}
	committed := false
	defer func() {
		if !committed {
			if _, failed := conn.ExecContext(ctx, "ROLLBACK"); failed != nil {
				_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // the transaction ends with its session
			}
		}
		_ = conn.Close()
	}()
	if _, err := conn.ExecContext(ctx, "START TRANSACTION"); err != nil {
		return 0, err
	}
	kin, err := w.kin(ctx, conn, items, true)
	if err != nil {
		return 0, err
	}
	for _, it := range items {
		n, err := put(ctx, conn, it)
		if err != nil {
			return 0, err
		}
		if it.step == stepDelete {
			deleted += n
		}
	}
	more, err := w.kin(ctx, conn, items, false)
	if err != nil {
		return 0, err
	}
	kin = append(kin, more...)
	slices.SortFunc(kin, bytes.Compare)
	kin = slices.CompactFunc(kin, bytes.Equal)
	reads := make([]*read, len(items))
	for i, it := range items {
		if reads[i], err = w.look(ctx, conn, it); err != nil {
			return 0, err
		}
	}
	w.hook(HookWritten)
	token := w.token + strconv.FormatUint(w.tokens.Add(1), 36)
	if err := w.withdraw(ctx, token, items, kin); err != nil {
		return 0, err
	}
	w.hook(HookWithdrawn)
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		// The leases are left to run out: the commit may still be under way.
		return 0, unknownError{err}
	}
	committed = true
	w.hook(HookThroughDone)
	w.show(ctx, token, reads, changes, kin)
	w.hook(HookThroughShown)
	return deleted, nil
}

// kin are the keys of the rows in other mappings.
func (w *Writer) kin(ctx context.Context, conn *sql.Conn, items []*item, before bool) (keys [][]byte, err error) {
	set := w.mappings()
	for _, it := range items {
		if kin := set.Kin(it.m); len(kin) > 0 {
			found, err := kinOf(ctx, conn, newBuilder(it.m, nil), kin, []*item{it}, before)
			if err != nil {
				return nil, err
			}
			keys = append(keys, found...)
		}
	}
	return keys, nil
}

// put writes one row.
func put(ctx context.Context, conn *sql.Conn, it *item) (affected int64, err error) {
	exec := func(query string, args []any) (int64, error) {
		result, err := conn.ExecContext(ctx, query, args...)
		if err != nil {
			return 0, err
		}
		return result.RowsAffected()
	}
	const packet = 1 << 30 // the driver and MySQL say what is too large
	b := newBuilder(it.m, nil)
	switch {
	case it.step == stepDelete:
		query, args, _ := b.delete([]*item{it})
		return exec(query, args)
	case !it.m.UpdateFirst():
		query, args, _ := b.insert([]*item{it}, b.conflict, packet)
		return exec(query, args)
	}
	query, args := b.update(it)
	if n, err := exec(query, args); err != nil || n > 0 {
		return n, err
	}
	query, args, _ = b.insert([]*item{it}, "", packet)
	return exec(query, args)
}

// look reads the row as it will be.
func (w *Writer) look(ctx context.Context, conn *sql.Conn, it *item) (*read, error) {
	r := &read{load: newLoad([]byte(it.key))}
	if it.step == stepDelete {
		return r, nil
	}
	rows, err := conn.QueryContext(ctx, selectByKey(it.m, 1)+" FOR UPDATE", it.id...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for row := newRow(rows); rows.Next(); {
		if err := row.scan(rows); err != nil {
			return nil, err
		}
		if string(it.m.RowKey(nil, row.values)) != it.key {
			continue
		}
		if r.values, err = it.m.Values(nil, row.values); err != nil {
			return nil, &Error{CodeErr, fmt.Sprintf("the row would be one that cannot be shown: %v: nothing was applied", err)}
		}
	}
	return r, rows.Err()
}

func (w *Writer) withP(key []byte) string {
	return strconv.Itoa(w.journal.Partition(key)) + ":" + string(key)
}

// withdraw takes the images away and the leases.
func (w *Writer) withdraw(ctx context.Context, token string, items []*item, kin [][]byte) error {
	args := []any{token, w.lease.Milliseconds(), w.journal.Prefix, len(items)}
	for _, it := range items {
		args = append(args, w.withP([]byte(it.key)))
	}
	for _, key := range kin {
		args = append(args, w.withP(key))
	}
	done, err := scriptWithdraw.Run(ctx, w.rdb, nil, args...).Int()
	switch {
	case err != nil:
		return fromRedis(err, "not applied")
	case done == 0:
		return mapping.ErrWaits
	}
	return nil
}

// show fills in the images and gives back the leases of the other keys. What fails here costs an image and nothing else:
// the next reader reads the row.
func (w *Writer) show(ctx context.Context, token string, reads []*read, changes []mapping.Change, kin [][]byte) {
	aux := auxPrefix(w.journal)
	fills := make([]*call, len(reads))
	mappings := make([]*mapping.Mapping, len(reads))
	for i, r := range reads {
		m := changes[i].Mapping
		mappings[i] = m
		ttl := r.ttl(m)
		if at := changes[i].Deadline; at != 0 && !r.nothing() {
			ttl = max(1, time.Until(time.UnixMilli(at)).Milliseconds())
		}
		fills[i] = fillCall(m, token, aux, false)
		fills[i].fill(m, r, ttl)
	}
	releases := make([]*call, len(kin))
	for i, key := range kin {
		releases[i] = &call{keys: []string{string(key)}, args: []any{token, aux}}
	}
	w.watch.Storing(func() { pipeline(ctx, w.rdb, fillScript, fills) }, mappings...)
	if len(releases) > 0 {
		pipeline(ctx, w.rdb, releaseScript, releases)
	}

	// Whose lease is gone, by a later write or because it ran out, cannot know what was cached since.
	drop := []any{"", w.journal.Prefix}
	var failed error
	for i, c := range fills {
		result, _, err := c.result(0)
		if failed = errors.Join(failed, err); result != "FILLED" && result != "UNCACHED" {
			drop = append(drop, w.withP(reads[i].key))
		}
	}
	for i, c := range releases {
		if failed = errors.Join(failed, c.err); c.reply != int64(1) {
			drop = append(drop, w.withP(kin[i]))
		}
	}
	if len(drop) > 2 {
		failed = errors.Join(failed, scriptOutdate.Run(ctx, w.rdb, []string{"", ""}, drop...).Err())
	}
	if failed != nil {
		w.log.Warn().Err(failed).Msg("rows were written and redis could not be told; it has no images of them")
	}
}

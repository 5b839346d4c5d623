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
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/mapping"
	"keyrow/rarely"
)

// Points at which WriterOptions.Hook is called, in the order of a write.
const (
	HookThroughRead  = "through.read"      // of what depends on the rows: they are locked, and what becomes of them is decided next
	HookWritten      = "through.written"   // the statements have run, the rows are locked, and Redis knows nothing
	HookWithdrawn    = "through.withdrawn" // the images are gone and their keys leased; the next thing is the COMMIT
	HookThroughDone  = "through.committed" // the COMMIT has succeeded
	HookThroughShown = "through.shown"     // the new images are there, and the client has no answer yet
)

const (
	// throughTries is how often a write is tried that falls to a deadlock.
	throughTries = 5
	// changeTries is the same of a change: those who make a row that is not there fall to deadlocks with each other, until
	// one of them has made it.
	changeTries = 20
)

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
	written  func(rows int, took time.Duration)
	hook     func(point string)
	log      zerolog.Logger
	stats    throughStats

	token  string // start of every token
	tokens atomic.Uint64
}

// ThroughFailures are the classes of failed writes: a lock that was not let go or deadlocks, another failure of MySQL
// that passes, a row that MySQL refused, a table that is not what its mapping says, a COMMIT that was not answered, and
// Redis.
var ThroughFailures = [...]string{"lock", "mysql", "row", "table", "unknown", "redis"}

const (
	failLock = iota
	failMySQL
	failRow
	failTable
	failUnknown
	failRedis
)

type throughStats struct {
	upserts, deletes, retries atomic.Int64
	failed                    [len(ThroughFailures)]atomic.Int64
}

// ThroughStats are counters since the start of the process.
type ThroughStats struct {
	Upserts, Deletes int64                       // statements, failed ones included
	Retries          int64                       // tries after the first, because of a deadlock or of another who made the same row
	Failed           [len(ThroughFailures)]int64 // writes that the client was told have failed, as ThroughFailures has them
}

// Stats is cheap: it asks no server.
func (w *Writer) Stats() ThroughStats {
	s := ThroughStats{Upserts: w.stats.upserts.Load(), Deletes: w.stats.deletes.Load(), Retries: w.stats.retries.Load()}
	for c := range w.stats.failed {
		s.Failed[c] = w.stats.failed[c].Load()
	}
	return s
}

// WriterOptions are what a Writer works on. All but Watch, Altered, Written, Hook and Log are required.
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
	// Written is told of every write that was committed: how many rows it had, and how long it took until Redis showed
	// them; it must not block.
	Written func(rows int, took time.Duration)
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
	if o.Written == nil {
		o.Written = func(int, time.Duration) {}
	}
	return &Writer{
		rdb: o.Redis, db: o.DB, journal: o.Journal, mappings: o.Mappings, watch: o.Watch, altered: o.Altered, lease: o.Lease, written: o.Written, hook: o.Hook,
		log: rarely.Log(o.Log), token: rand.Text() + ":",
	}
}

var scriptWithdraw = newScript("withdraw")

// Write makes all of the changes, or none, in one transaction, and returns how many of the rows to be deleted were there.
// Its errors say what a client is told, or are mapping.ErrWaits.
func (w *Writer) Write(changes []mapping.Change) (deleted int64, err error) {
	items := make([]*item, len(changes))
	for i := range changes {
		if items[i], err = itemOf(changes[i]); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	for try := range throughTries {
		if try > 0 {
			w.stats.retries.Add(1)
		}
		_, deleted, err = w.write(context.Background(), func(*sql.Conn) ([]*item, []mapping.Change, error) { return items, changes, nil })
		if mysqlCode(err) != errDeadlock {
			break
		}
	}
	if err == nil {
		w.written(len(items), time.Since(start))
	}
	return deleted, w.told(err)
}

// itemOf is a change to be made.
func itemOf(c mapping.Change) (it *item, err error) {
	it = &item{key: string(c.Key), m: c.Mapping, image: [][]byte{c.Image}, step: stepUpsert}
	if c.Image == nil {
		it.step = stepDelete
	}
	if it.id, err = it.m.KeyArgs(nil, c.Key); err == nil && c.Image != nil {
		it.row, err = it.m.RowOf(nil, c.Key, [][]byte{c.Image})
	}
	if err != nil {
		return nil, &Error{CodeErr, err.Error() + ": nothing was applied"}
	}
	return it, nil
}

// Change writes one row as compute says, which is given the image of the row, nil if it has none, and tells what to write,
// or to write nothing. It may be called several times, and the last time counts. The image that MySQL has made of what was
// written is returned, nil if there is none. Errors are those of Write, or compute's.
func (w *Writer) Change(m *mapping.Mapping, key []byte, compute func(image []byte) (c mapping.Change, write bool, err error)) (image []byte, err error) {
	reads, err := w.decide(func(conn *sql.Conn) ([]*item, []mapping.Change, error) {
		r, found, err := w.look(context.Background(), conn, m, key, forUpdate)
		if err != nil {
			return nil, nil, err
		}
		w.hook(HookThroughRead)
		c, write, err := compute(r.image(m))
		if err != nil || !write {
			return nil, nil, err
		}
		it, err := itemOf(c)
		if err != nil {
			return nil, nil, err
		}
		it.fresh = !found
		return []*item{it}, []mapping.Change{c}, nil
	})
	if len(reads) > 0 {
		image = reads[0].image(m)
	}
	return image, err
}

// Create makes all of the changes in one transaction if none of their keys has an image, and else none; made tells which.
// Of changes of the same key the last one is made. Errors are those of Write.
func (w *Writer) Create(changes []mapping.Change) (made bool, err error) {
	last := make(map[string]int, len(changes))
	for i, c := range changes {
		last[string(c.Key)] = i
	}
	items, distinct := make([]*item, 0, len(last)), make([]mapping.Change, 0, len(last))
	for i, c := range changes {
		if last[string(c.Key)] != i {
			continue
		}
		it, err := itemOf(c)
		if err != nil {
			return false, err
		}
		items, distinct = append(items, it), append(distinct, c)
	}
	order := slices.Clone(items)
	slices.SortFunc(order, func(a, b *item) int { return strings.Compare(a.key, b.key) })
	reads, err := w.decide(func(conn *sql.Conn) ([]*item, []mapping.Change, error) {
		for _, it := range order { // all lock in one order, so nobody waits for who waits for him
			if absent, err := w.absent(context.Background(), conn, it); err != nil || !absent {
				return nil, nil, err
			}
		}
		w.hook(HookThroughRead)
		begun := make(map[string]bool, len(items))
		for _, it := range items {
			row := rowName(it)
			it.fresh = it.fresh && !begun[row] // what is behind the first key of a row changes what that made
			begun[row] = true
		}
		return items, distinct, nil
	})
	return len(reads) > 0, err
}

// absent reports whether the key of an item has no image, and makes the item fresh if there is no row. A row is locked where
// there is one only: what MySQL locks in the place of others keeps everybody from making rows near it, which ends in deadlocks.
func (w *Writer) absent(ctx context.Context, conn *sql.Conn, it *item) (bool, error) {
	r, found, err := w.look(ctx, conn, it.m, []byte(it.key), "")
	if err == nil && found && r.nothing() {
		r, found, err = w.look(ctx, conn, it.m, []byte(it.key), forUpdate)
	}
	it.fresh = !found
	return err == nil && r.nothing(), err
}

// rowName is the same for the keys that one row has in mappings with the same columns in their keys.
func rowName(it *item) string {
	parts := make([]string, len(it.id))
	for i, column := range it.m.KeyColumns() {
		parts[i] = fmt.Sprintf("%q=%#v", column, it.id[i])
	}
	slices.Sort(parts)
	return it.m.Table() + " " + strings.Join(parts, " ")
}

// decide writes what plan makes of rows that it looks at, and returns what MySQL has made of them, nothing if nothing was
// written.
//
// A row is locked when it is read, until the commit, so what is written is made of what there is, whoever else writes:
//
//	A: SELECT … FOR UPDATE -> 1          B: SELECT … FOR UPDATE waits
//	A: UPDATE 2, COMMIT                  B: -> 2, UPDATE 3, COMMIT
//
// A row that is not there cannot be locked. What MySQL locks in its place, if anything, both A and B get, and then
// their INSERTs wait for each other until MySQL ends one of them; or the later INSERT finds the row of the other. As it is
// a plain INSERT, that is an error and no update, in either case, and all of it is decided again.
func (w *Writer) decide(plan func(conn *sql.Conn) ([]*item, []mapping.Change, error)) (reads []*read, err error) {
	start := time.Now()
	for try := range changeTries {
		if try > 0 {
			w.stats.retries.Add(1)
		}
		fresh := false
		reads, _, err = w.write(context.Background(), func(conn *sql.Conn) ([]*item, []mapping.Change, error) {
			items, changes, err := plan(conn)
			fresh = slices.ContainsFunc(items, func(it *item) bool { return it.fresh })
			return items, changes, err
		})
		if code := mysqlCode(err); code != errDeadlock && !(fresh && code == errDuplicate) {
			break
		}
	}
	if len(reads) > 0 {
		w.written(len(reads), time.Since(start))
	}
	return reads, w.told(err)
}

// unknownError is a COMMIT that was not answered.
type unknownError struct{ error }

func (e unknownError) Unwrap() error { return e.error }

// told counts a failure of write, and is the error that a client gets for it.
func (w *Writer) told(err error) error {
	if err == nil || errors.Is(err, mapping.ErrWaits) {
		return err
	}
	var own *Error
	var said redisError
	if isReply(err) && !errors.As(err, &own) && !errors.As(err, &said) {
		return err // what was asked for cannot be, whatever the servers do
	}
	class := failRow
	defer func() { w.stats.failed[class].Add(1) }()
	var unknown unknownError
	switch {
	case isReply(err):
		if own == nil || own.Code == CodeUpstream {
			class = failRedis
		}
		return err
	case errors.As(err, &unknown):
		class = failUnknown
		return &Error{CodeDBDown, fmt.Sprintf("mysql failed at the commit: %v: it is unknown whether it was applied", unknown.error)}
	case classify(err) == transient:
		if class = failMySQL; isLock(err) {
			class = failLock
		}
		return &Error{CodeDBDown, fmt.Sprintf("mysql failed: %v: not applied", err)}
	case classify(err) == schema:
		class = failTable
		w.altered()
	}
	return &Error{CodeErr, fmt.Sprintf("mysql refused it: %v: nothing was applied", err)}
}

// write is one try to make what plan says within the transaction. It returns what MySQL has made of the rows, and how many
// of those to be deleted were there; nothing if nothing was written.
func (w *Writer) write(ctx context.Context, plan func(conn *sql.Conn) ([]*item, []mapping.Change, error)) (reads []*read, deleted int64, err error) {
	conn, err := w.db.Conn(ctx)
	if err != nil {
		return nil, 0, err
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
		return nil, 0, err
	}
	items, changes, err := plan(conn)
	if err != nil || len(items) == 0 {
		return nil, 0, err
	}
	kin, err := w.kin(ctx, conn, items, true)
	if err != nil {
		return nil, 0, err
	}
	for _, it := range items {
		n, err := w.put(ctx, conn, it)
		if err != nil {
			return nil, 0, err
		}
		if it.step == stepDelete {
			deleted += n
		}
	}
	more, err := w.kin(ctx, conn, items, false)
	if err != nil {
		return nil, 0, err
	}
	kin = append(kin, more...)
	slices.SortFunc(kin, bytes.Compare)
	kin = slices.CompactFunc(kin, bytes.Equal)
	reads = make([]*read, len(items))
	for i, it := range items {
		if it.step == stepDelete {
			reads[i] = &read{load: newLoad([]byte(it.key))}
		} else if reads[i], _, err = w.look(ctx, conn, it.m, []byte(it.key), forUpdate); err != nil {
			return nil, 0, err
		}
	}
	w.hook(HookWritten)
	token := w.token + strconv.FormatUint(w.tokens.Add(1), 36)
	if err := w.withdraw(ctx, token, items, kin); err != nil {
		return nil, 0, err
	}
	w.hook(HookWithdrawn)
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		// The leases are left to run out: the commit may still be under way.
		return nil, 0, unknownError{err}
	}
	committed = true
	w.hook(HookThroughDone)
	w.show(ctx, token, reads, changes, kin)
	w.hook(HookThroughShown)
	return reads, deleted, nil
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
func (w *Writer) put(ctx context.Context, conn *sql.Conn, it *item) (affected int64, err error) {
	exec := func(query string, args []any) (int64, error) {
		if it.step == stepDelete {
			w.stats.deletes.Add(1)
		} else {
			w.stats.upserts.Add(1)
		}
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
	case it.fresh:
		query, args, _ := b.insert([]*item{it}, "", packet)
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

const forUpdate = " FOR UPDATE"

// look reads a row, as it is in this transaction; with forUpdate it locks it too.
func (w *Writer) look(ctx context.Context, conn *sql.Conn, m *mapping.Mapping, key []byte, lock string) (r *read, found bool, err error) {
	r = &read{load: newLoad(key)}
	id, err := m.KeyArgs(nil, key)
	if err != nil {
		return nil, false, &Error{CodeErr, err.Error() + ": nothing was applied"}
	}
	rows, err := conn.QueryContext(ctx, selectByKey(m, 1)+lock, id...)
	if err != nil {
		return nil, false, err
	}
	defer rows.Close()
	for row := newRow(rows); rows.Next(); {
		if err := row.scan(rows); err != nil {
			return nil, false, err
		}
		if !bytes.Equal(m.RowKey(nil, row.values), key) {
			continue
		}
		found = true
		if r.values, err = m.Values(nil, row.values); err != nil {
			return nil, false, &Error{CodeErr, fmt.Sprintf("the row is or would be one that cannot be shown: %v: nothing was applied", err)}
		}
	}
	return r, found, rows.Err()
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
		w.log.Warn().Err(failed).Msg("rows were written to mysql and redis could not be told; it has no images of them, readers get them from mysql")
	}
}

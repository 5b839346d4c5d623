package backend

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"keyrow/mapping"
)

const (
	// lockWait, in seconds, bounds a wait for a partition (which is begun again at once) and for a row that somebody
	// else has locked. OpenOwners lets a read take at least a second more.
	lockWait = 1

	// goodbye bounds giving a partition back.
	goodbye = time.Second
)

// owner contends for one partition and flushes it while it has it. It is one goroutine.
//
// Ownership is a MySQL session that holds GET_LOCK('<prefix>:<p>') and runs the flush transactions itself. Lock and
// transaction live and die together: an owner that is paused for longer than the session's wait_timeout has lost both,
// so it cannot commit late. But settle runs in Redis, which knows nothing of that session:
//
//	A commits a batch with key k, and is paused before it settles k
//	A's session times out; B gets the lock
//	B finds k in flushing, writes it again, settles it
//	k is written anew; B sweeps: flushing holds a newer mark of k
//	A goes on and settles k: the newer mark is gone, and with it the write
//
// So a new owner puts a token of its own into the fence of the partition, and every script refuses (FENCED) who comes
// with another. Getting the lock and setting the fence are two steps, so A may be paused between them and set the fence
// when B is the owner already. That does no harm: A's session is dead, so it commits nothing, hence settles nothing that
// was to be committed; B is refused, gives up its session, and starts over. Tokens are random and not counted up, for a
// Redis that lost its last second would hand out a number twice.
//
// The same token fences off the owner's own past: a script whose reply did not arrive may still be on its way, so the
// next attempt takes a new token first.
type owner struct {
	f    *Flusher
	p    int
	lock string
	keys partition
	log  zerolog.Logger

	conn   *sql.Conn // holds the lock; nil: not the owner
	spoke  time.Time // when MySQL last heard of us
	packet int       // max_allowed_packet of the server
	token  string    // in the fence; "": to be set before the next script

	inRedis  time.Duration // what the flush under way has waited for Redis
	settled  int64         // marks that it took out
	retry    *pacer
	size     int                 // marks to read for a batch: less after failures
	image    int                 // bytes that an image may have, going by those before
	waiting  map[string]*waiting // keys tried alone, later
	stale    *stale
	admitted *mapping.Set // parked keys were looked through for such as are of it
	ranks    map[*mapping.Mapping]int
	ranksOf  *mapping.Set
	loose    map[string][]string // by table: foreign keys in circles, that may be NULL
	builders map[*mapping.Mapping]*builder
}

// Errors that end an ownership. Those of Redis do not: the partition stays ours while it is away.
var (
	errFenced   = errors.New("fenced off: the partition has another owner, or redis lost its data")
	errLostConn = errors.New("the connection to mysql is lost")
)

func newOwner(f *Flusher, p int) *owner {
	o := &owner{
		f:    f,
		p:    p,
		lock: fmt.Sprintf("%s:%d", f.journal.cfg.Prefix, p),
		keys: f.journal.partition(p),
		log:  f.often.With().Int("partition", p).Logger(),
		size: f.journal.cfg.Batch,

		image: firstImage,
		retry: newPacer(retryFirst, retryLast),
	}
	return o
}

// run owns the partition, loses it, and contends again, until ctx ends.
func (o *owner) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := o.acquire(ctx)
		if err == nil {
			err = o.own(ctx)
			o.f.stats.owns[o.p].Store(false)
		}
		o.release()
		if ctx.Err() != nil {
			return
		}
		pause := o.retry.NextBackOff()
		o.log.Warn().Err(err).Dur("pause", pause).Msg("partition is not flushed by this process for now; contending for it again")
		wait(ctx, pause)
	}
}

// acquire connects and waits, as long as ctx lasts, until the partition has no other owner.
func (o *owner) acquire(ctx context.Context) error {
	conn, err := o.f.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect to mysql: %w", err)
	}
	o.conn = conn
	if err := o.prepare(ctx); err != nil {
		return fmt.Errorf("prepare the session in mysql: %w", err)
	}
	for since := time.Now(); ; o.tellWait(since) {
		var got sql.NullInt64
		if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", o.lock, lockWait).Scan(&got); err != nil {
			return fmt.Errorf("wait for the lock %s: %w", o.lock, err)
		}
		if !got.Valid {
			return fmt.Errorf("wait for the lock %s: mysql ended it", o.lock)
		}
		o.f.stats.known[o.p].Store(true) // the lock has an owner: us, or somebody else who had it for all that time
		if got.Int64 == 1 {
			break
		}
	}
	o.f.hook(HookLocked)
	o.spoke = time.Now()
	o.token = ""
	o.waiting = make(map[string]*waiting)
	o.stale = &stale{unread: true}
	o.ranksOf, o.admitted = nil, nil
	return nil
}

// longWait is how long a partition may be another's, and writes may wait, before somebody should look.
const longWait = 30 * time.Second

// tellWait warns of an owner that does not do its work. It may be that of another Redis: the name of a lock counts for
// the whole MySQL server.
func (o *owner) tellWait(since time.Time) {
	oldest := o.f.journal.age()
	if time.Since(since) > longWait && oldest > longWait {
		o.log.Warn().Str("lock", o.lock).Dur("oldest_mark", oldest).Msg("another session of mysql has the lock of this " +
			"partition, and writes wait; if it serves another redis, give each keyrow a journal.prefix of its own")
	}
}

// prepare sets up the session: how long it may be silent, how long it waits, and how it reads.
//
// READ COMMITTED, because in REPEATABLE READ an UPDATE that finds no row locks the gap where the row would be; two
// owners that do so and then insert deadlock. It needs row-based or mixed binary logging.
func (o *owner) prepare(ctx context.Context) error {
	idle := int(o.f.journal.cfg.SessionTimeout / time.Second)
	set := fmt.Sprintf("SET SESSION wait_timeout=%d, net_read_timeout=%d, net_write_timeout=%d, "+
		"innodb_lock_wait_timeout=%d, lock_wait_timeout=%d, autocommit=1", idle, idle, idle, lockWait, lockWait)
	if _, err := o.conn.ExecContext(ctx, set); err != nil {
		return err
	}
	rows, err := o.conn.QueryContext(ctx, "SHOW SESSION VARIABLES WHERE Variable_name IN ('binlog_format','log_bin')")
	if err != nil {
		return err
	}
	defer rows.Close()
	variables := make(map[string]string)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		variables[name] = value
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if !strings.EqualFold(variables["log_bin"], "ON") || !strings.EqualFold(variables["binlog_format"], "STATEMENT") {
		if _, err := o.conn.ExecContext(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"); err != nil {
			return err
		}
	}
	return o.conn.QueryRowContext(ctx, "SELECT @@max_allowed_packet").Scan(&o.packet)
}

// own flushes, an interval after the other, until the partition is lost (the error) or ctx ends (nil).
func (o *owner) own(ctx context.Context) error {
	for {
		if err := o.readmit(ctx); err != nil && ctx.Err() == nil {
			o.log.Warn().Err(err).Msg("parked keys cannot be looked through for such as have a mapping now")
		}
		start := time.Now()
		o.inRedis, o.settled = 0, 0
		deferring, err := o.flush(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil:
			o.retry.Reset()
			// Marks that cannot be flushed yet go round with every sweep; they get half of the time at most.
			took := time.Since(start)
			err = o.rest(ctx, max(o.f.journal.cfg.Interval-took, deferring, o.yield(took)), o.f.kicks[o.p])
		case errors.Is(err, errFenced), errors.Is(err, errLostConn):
			o.f.retrying(err)
			return err
		default:
			o.f.retrying(err)
			pause := time.Duration(0) // a lock was waited for long enough
			if mysqlCode(err) != errLockWait {
				pause = o.retry.NextBackOff()
			}
			o.log.Warn().Err(err).Dur("pause", pause).Msg("flush failed; nothing is lost, trying again")
			err = o.rest(ctx, pause, nil)
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// yieldMost, in intervals, bounds yield.
const yieldMost = 5

// yield is how long to leave Redis to the clients after a flush that took so long. Who does not get through within the
// interval has more to do than Redis, or the machine, can bear; then it pays to be late, for rows that are written again
// meanwhile are flushed once and not twice. The flush still gets half of Redis's time: with less it would fall ever further
// behind under a load that it can well bear. It does not wait after a backlog that does not come again, nor because MySQL
// is slow, nor when the journal is half full, since clients would be refused in the end.
func (o *owner) yield(took time.Duration) time.Duration {
	j := o.f.journal
	if pending := j.Pending(); pending < o.settled || pending >= int64(j.MaxPending())/2 {
		return 0
	}
	return max(0, min(took-j.cfg.Interval, o.inRedis, yieldMost*j.cfg.Interval))
}

// rest waits for d, or less if kicked, and lets MySQL hear of us often enough to keep the session.
func (o *owner) rest(ctx context.Context, d time.Duration, kick <-chan struct{}) error {
	end := time.Now().Add(d)
	third := o.f.journal.cfg.SessionTimeout / 3
	for {
		if time.Since(o.spoke) >= third {
			if err := o.conn.PingContext(ctx); err != nil {
				return lost(err)
			}
			o.spoke = time.Now()
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(min(left, third))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-kick:
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// fence makes us the newest owner as far as Redis is concerned.
func (o *owner) fence(ctx context.Context) error {
	token := rand.Text()
	if err := scriptFence.Run(ctx, o.f.rdb, []string{o.keys.fence}, token).Err(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	o.token = token
	return nil
}

// release gives the partition back, so that the next owner need not wait for the session to time out, and closes the
// connection, whatever state it is in. It outlasts the context of Run.
func (o *owner) release() {
	if o.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	_, _ = o.conn.ExecContext(ctx, "ROLLBACK")
	_, _ = o.conn.ExecContext(ctx, "DO RELEASE_LOCK(?)", o.lock)
	// A connection that went back to a pool would keep what we could not release.
	_ = o.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = o.conn.Close()
	o.conn = nil
}

// exec runs a statement in our session.
func (o *owner) exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := o.conn.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	o.spoke = time.Now()
	return result.RowsAffected()
}

// keeps reports whether our session is as good as before after err, which made a batch fail. A lock that was waited for
// and a deadlock say nothing of the session. After all else, a server that has become read-only too, a new connection
// may find what this one cannot.
func keeps(err error) bool { return isLock(err) }

// Error numbers of MySQL that a flush tells apart within their class.
const (
	errChanged   = 1020 // the row was changed since the transaction began (MariaDB)
	errLockWait  = 1205
	errDeadlock  = 1213
	errDuplicate = 1062
	errNoDefault = 1364
)

func lost(err error) error { return fmt.Errorf("%w: %w", errLostConn, err) }

// wait waits for d or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

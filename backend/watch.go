package backend

import (
	"context"
	"database/sql"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"keyrow/mapping"
	"keyrow/rarely"
)

const (
	// watchEvery is how often the schema is read. An ALTER that matters shows sooner, by the errors it makes.
	watchEvery = 10 * time.Second
	// watchSoon is how often it is read at most because somebody asked, and how often while a mapping is suspended.
	watchSoon = time.Second
	// watchTimeout bounds one reading.
	watchTimeout = 30 * time.Second
)

// WatchOptions are what a Watch works on. All are required but Log.
type WatchOptions struct {
	DB  *sql.DB // the pool of OpenMySQL
	Set *mapping.Set
	// Swap is called with every Set that comes in force, one at a time.
	Swap func(*mapping.Set)
	Log  zerolog.Logger
}

// Watch keeps the mappings in step with their tables, which may be altered while keyrow runs.
//
// Nothing tells of an ALTER, so there is always a time when a process works with mappings of the table as it was. That
// does no harm: statements name their columns, so one that is gone makes an error, and no value ends in another column.
// And a process that knows a new column already may write images that the owner of their partition does not understand
// yet; so a flusher that does not has the schema read before it parks one.
type Watch struct {
	db    *sql.DB
	swap  func(*mapping.Set)
	log   zerolog.Logger
	asked chan struct{}
	set   atomic.Pointer[mapping.Set]

	stores sync.RWMutex // read-held while images are stored

	mu   sync.Mutex // held for a reading
	last mapping.Schema
}

// NewWatch returns a Watch that does nothing until Run or Look.
func NewWatch(o WatchOptions) *Watch {
	w := &Watch{db: o.DB, swap: o.Swap, log: o.Log, asked: make(chan struct{}, 1)}
	w.set.Store(o.Set)
	return w
}

// Mappings are those in force.
func (w *Watch) Mappings() *mapping.Set { return w.set.Load() }

// Run reads the schema time and again until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	often := rarely.Log(w.log)
	for {
		wait(ctx, watchSoon)
		timer := time.NewTimer(watchEvery - watchSoon)
		select {
		case <-timer.C:
		case <-w.asked:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		if err := w.Look(ctx); err != nil && ctx.Err() == nil {
			often.Warn().Err(err).Msg("the tables cannot be looked at; the mappings stay as they are")
		}
	}
}

// Ask has the schema read soon.
func (w *Watch) Ask() {
	select {
	case w.asked <- struct{}{}:
	default: // it is going to be
	}
}

// Look reads the schema now. When it returns nil, the mappings in force fit the tables as they were after the call.
func (w *Watch) Look(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.look(ctx)
}

// look is Look for who holds mu.
func (w *Watch) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	defer w.again()
	set := w.Mappings()
	schema, err := ReadSchema(ctx, w.db, set.Tables())
	if err != nil || reflect.DeepEqual(schema, w.last) {
		return err
	}
	w.last = schema
	next, findings := set.Renew(schema)
	if next != set {
		w.put(next)
	}
	for _, f := range findings {
		level := zerolog.WarnLevel
		if f.Severity == mapping.Error {
			level = zerolog.ErrorLevel
		}
		w.log.WithLevel(level).Str("mapping", f.Mapping).Msg("the table was altered: " + f.Text)
	}
	return nil
}

// put puts a Set in force: for loads and flushes first, which understand what sessions write that have the one before.
func (w *Watch) put(next *mapping.Set) {
	w.set.Store(next)
	w.swap(next)
}

// again asks for another reading if a mapping is suspended.
func (w *Watch) again() {
	if slices.ContainsFunc(w.Mappings().All(), func(m *mapping.Mapping) bool { return m.Unfit() != nil }) {
		w.Ask()
	}
}

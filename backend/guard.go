package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"keyrow/mapping"
)

const (
	// openFor is how long a breaker that has opened keeps everybody from MySQL, until one read may try it again.
	openFor = time.Second

	// maxPing bounds the wait for the answer to a ping.
	maxPing = time.Second
)

// A guard stands between the Loader and MySQL. It lets a SELECT through if MySQL answers, as far as is known, and once
// it is the turn of its mapping.
//
// Whether MySQL answers is known from the SELECTs. One that fails as if MySQL did not proves little: it may have been slow
// or locked out all by itself. So a ping is sent on a connection that no SELECT holds up, and only if that fails too the
// breaker opens: nothing is sent then but, after openFor, a single SELECT as a probe, whose success closes it again.
// What is wrong with one row, one table or one query never opens it.
type guard struct {
	ctx      context.Context
	wg       *sync.WaitGroup
	timeout  time.Duration
	ping     func(context.Context) error
	counters *loadCounters

	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	pings   singleflight.Group
	why     atomic.Pointer[string] // what the last ping failed with

	mu    sync.Mutex
	turns map[string]*rate.Limiter // by name of a mapping
}

func newGuard(l *Loader, ping func(context.Context) error, log zerolog.Logger) *guard {
	g := &guard{
		ctx: l.ctx, wg: &l.wg, timeout: l.timeout, ping: ping, counters: &l.counters,
		turns: make(map[string]*rate.Limiter),
	}
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     openFor,
		ReadyToTrip: func(gobreaker.Counts) bool { return true },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch {
			case from == gobreaker.StateClosed:
				l.counters.opened.Add(1)
				log.Warn().Str("error", *g.why.Load()).Msg("mysql does not answer; reads of what is not in redis fail at once until it does")
			case to == gobreaker.StateClosed:
				log.Info().Msg("mysql answers again")
			}
		},
	})
	return g
}

// errSilent is the error of a SELECT that was not sent because MySQL does not answer.
var errSilent = errors.New("mysql does not answer")

// run runs read, which sends one SELECT for m, or says why it is not sent.
func (g *guard) run(m *mapping.Mapping, read func() error) error {
	if g.breaker.State() == gobreaker.StateOpen {
		return g.silent()
	}
	if err := g.turn(m); err != nil {
		return err
	}
	return g.attempt(read)
}

// attempt is run for who has waited for the turn.
func (g *guard) attempt(read func() error) error {
	done, err := g.breaker.Allow()
	if err != nil {
		return g.silent()
	}
	if err = read(); err == nil || classify(err) != transient {
		done(nil)
	} else {
		g.wg.Go(func() { done(g.verify()) }) // the callers of read need not wait for it
	}
	return err
}

func (g *guard) silent() error {
	g.counters.broken.Add(1)
	return fmt.Errorf("%w: %s; it is tried again every %v", errSilent, *g.why.Load(), openFor)
}

// verify pings MySQL, once for all who want to know at a time.
func (g *guard) verify() error {
	_, err, _ := g.pings.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(g.ctx, min(g.timeout, maxPing))
		defer cancel()
		err := g.ping(ctx)
		if err == nil || g.ctx.Err() != nil {
			return nil, nil
		}
		why := err.Error()
		g.why.Store(&why)
		return nil, err
	})
	return err
}

// turn waits until max_selects lets another SELECT of m run, if that is within the timeout.
func (g *guard) turn(m *mapping.Mapping) error {
	if m.MaxSelects == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.timeout)
	defer cancel()
	if g.limiter(m).Wait(ctx) == nil {
		return nil
	}
	g.counters.throttled.Add(1)
	return throttled(m, g.timeout)
}

// wait waits for the turn of another SELECT of m for as long as that takes, for who keeps nobody waiting.
func (g *guard) wait(ctx context.Context, m *mapping.Mapping) error {
	if m.MaxSelects == 0 {
		return nil
	}
	return g.limiter(m).Wait(ctx)
}

func (g *guard) limiter(m *mapping.Mapping) *rate.Limiter {
	// What was not used of a tenth of a second can be made up for, since timers are not exact.
	limit, burst := rate.Limit(m.MaxSelects), max(1, int(m.MaxSelects/10))
	g.mu.Lock()
	defer g.mu.Unlock()
	turn := g.turns[m.Name]
	if turn == nil || turn.Limit() != limit {
		turn = rate.NewLimiter(limit, burst)
		g.turns[m.Name] = turn
	}
	return turn
}

func throttled(m *mapping.Mapping, waited time.Duration) error {
	return &Error{CodeDBDown, fmt.Sprintf("%s has as many SELECTs as its max_selects = %q allows, so the turn of this read does not come within %v: "+
		"nothing was read, try again", m, m.MaxSelects, waited)}
}

// unavailable reports whether a SELECT failed for the state MySQL is in, not for what was asked of it.
func unavailable(err error) bool { return errors.Is(err, errSilent) || classify(err) == transient }

// unread is what clients are told of a SELECT that failed.
func unread(err error) error {
	switch {
	case isReply(err):
		return err
	case errors.Is(err, errSilent):
		return &Error{CodeDBDown, err.Error() + ": nothing was read"}
	}
	return &Error{CodeDBDown, fmt.Sprintf("mysql failed: %v: nothing was read", err)}
}

// crowded is the error of a read beyond mysql.max_waiting.
func crowded(most int) error {
	return &Error{CodeDBDown, fmt.Sprintf("%d reads wait for mysql, as many as mysql.max_waiting allows: nothing was read, try again", most)}
}

// inTime returns the loads that have not waited for longer than the timeout, and fails the others.
func (l *Loader) inTime(q *queue, loads []*load) []*load {
	now := time.Now()
	kept := loads[:0]
	for _, ld := range loads {
		if ld.since.IsZero() || now.Sub(ld.since) <= l.timeout {
			ld.since = time.Time{}
			kept = append(kept, ld)
			continue
		}
		l.counters.overdue.Add(1)
		l.fail(q, ld, l.late(q.m))
	}
	return kept
}

// late is the error of a read whose turn did not come within the timeout.
func (l *Loader) late(m *mapping.Mapping) error {
	if m.MaxSelects > 0 {
		return throttled(m, l.timeout)
	}
	return &Error{CodeDBDown, fmt.Sprintf("mysql is too slow for all that is read: the turn of this read did not come within %v: "+
		"nothing was read, try again", l.timeout)}
}

// leaseOf is how long a lease for m lasts: the wait for the turn of the SELECT, the SELECT, and the fill.
func (l *Loader) leaseOf(m *mapping.Mapping) time.Duration {
	if m.MaxSelects > 0 {
		return l.lease + l.timeout
	}
	return l.lease
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"keyrow/admin"
	"keyrow/backend"
	"keyrow/handover"
	"keyrow/proxy"
	"keyrow/systemd"
)

// succeedTimeout bounds the start of the process that is handed over to: it asks Redis and then MySQL, each for
// startTimeout at most.
const succeedTimeout = 2*startTimeout + 10*time.Second

// countTimeout is for Redis to say what is left in the journal when there was no time to flush it.
const countTimeout = 2 * time.Second

// running is a keyrow that serves, with what it takes to end it.
type running struct {
	config        config
	rdb           *redis.Client
	sockets       *handover.Sockets
	server        *proxy.Server
	desk          *admin.Server
	loader        *backend.Loader
	flusher       *backend.Flusher
	stopFlushing  context.CancelFunc
	stopReloading context.CancelFunc
	adopted       chan struct{} // closed when no more clients come from the process before
	watched       chan struct{} // closed when neither the tables nor the configuration are looked at any more
	ended         chan error    // of desk, flusher and server; none ends by itself but by a failure
	waiting       int           // how many of them have not ended
	log           zerolog.Logger
}

// drain has the clients' last commands answered, and the journal flushed, for as long as journal.drain or until it is asked
// to stop again.
func (r *running) drain(failure error) error {
	limit := r.config.Journal.Drain
	drain, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	drain, stop := signal.NotifyContext(drain, syscall.SIGTERM, os.Interrupt)
	defer stop()
	r.log.Info().Stringer("within", limit).Msg("draining: no new clients, answering what was asked, flushing what was written")
	tell(r.log, "STOPPING=1", "STATUS=draining", extend(limit))
	r.stopReloading()
	r.desk.Drain()
	r.server.Shutdown(drain)
	r.loader.Close()
	left, err := r.flusher.Drain(drain)
	if err != nil && drain.Err() != nil {
		err = fmt.Errorf("journal.drain of %v is over", limit)
		if errors.Is(drain.Err(), context.Canceled) {
			err = errors.New("asked to stop a second time")
		}
	}
	var unknown error
	if err != nil {
		if left, unknown = r.count(); unknown != nil {
			_ = r.rdb.Close() // else what is asked of Redis just now is waited for
		}
	}
	failure = errors.Join(failure, r.end())
	if err != nil && unknown == nil { // what was under way is through by now, one way or the other
		left, unknown = r.count()
	}
	switch {
	case unknown != nil:
		left, err = -1, fmt.Errorf("%w; redis: %w", err, unknown)
	case left == 0:
		err = nil
	}
	switch {
	case failure != nil:
		r.log.Error().Err(failure).Int("remaining", left).Msg("stopped by a failure")
		return failure
	case left != 0 || err != nil:
		r.log.Warn().Err(err).Int("remaining", left).Msg("stopped with writes that are not in mysql yet; they stay in redis")
		return &remainderError{left, err}
	}
	r.log.Info().Int("remaining", 0).Msg("stopped; everything written is in mysql")
	return nil
}

// count is how many writes are not in MySQL yet.
func (r *running) count() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	return r.flusher.Left(ctx)
}

// end ends what flushes and what answers on the admin listener.
func (r *running) end() (failure error) {
	r.stopFlushing()
	r.desk.Close()
	for range r.waiting {
		failure = errors.Join(failure, <-r.ended)
	}
	<-r.watched
	return failure
}

// succeed starts the process to hand over to, and waits until it could serve.
func (r *running) succeed(ctx context.Context) (*handover.Successor, error) {
	if os.Getpid() == 1 {
		return nil, errors.New("process 1 of a container cannot be replaced, the container would end with it; replace the container")
	}
	r.log.Info().Msg("handing over: starting the process that takes over")
	next, err := handover.Start(func(yield func(l handover.Listener, socket net.Listener) error) error {
		each := func(key, addr string, l net.Listener) error {
			return yield(handover.Listener{Key: key, Addr: addr, Theirs: r.sockets.Theirs(key, addr)}, l)
		}
		if err := r.server.Listeners(each); err != nil {
			return err
		}
		return r.desk.Listeners(each)
	})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, succeedTimeout)
		defer cancel()
		err = next.Ready(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start the process that takes over: %w", err)
	}
	return next, nil
}

// handOver leaves everything to next: who connects, the journal, and the clients that can be handed over. Those that
// cannot may stay for as long as proxy.handover_timeout, or until ctx ends.
func (r *running) handOver(ctx context.Context, next *handover.Successor) error {
	r.log.Info().Int("pid", next.PID).Stringer("within", r.config.Proxy.HandoverTimeout).Msg("handing over: the process that takes over is ready")
	tell(r.log, fmt.Sprintf("MAINPID=%d", next.PID))
	r.stopReloading()
	r.server.Leave()
	if err := next.Serve(); err != nil {
		r.log.Error().Err(err).Int("pid", next.PID).Msg("the process that takes over is gone")
	}
	// Its mappings may be others, and what is written through those this process would take for rows without a mapping.
	r.stopFlushing()
	answering, cancel := context.WithTimeout(ctx, adminPatience)
	r.desk.Leave(answering)
	cancel()

	limit := r.config.Proxy.HandoverTimeout
	ctx, cancel = context.WithTimeout(ctx, limit)
	defer cancel()
	var gone sync.Once
	moved, left := r.server.HandOver(ctx, r.adopted, func(state []byte, fd int) error {
		err := next.Client(state, fd)
		if err != nil {
			gone.Do(func() {
				r.log.Error().Err(err).Int("pid", next.PID).Msg("clients cannot be handed over, and are closed")
			})
		}
		return err
	})
	next.Close() // a client that is on its way would wait for a process that stands still
	if left > 0 {
		r.log.Info().Int("clients", left).Msg("closing clients that could not be handed over")
	}
	last, cancel := context.WithTimeout(context.Background(), r.config.Journal.Drain)
	defer cancel()
	r.server.Shutdown(last)
	r.loader.Close()
	if err := r.end(); err != nil {
		return err
	}
	r.log.Info().Int("pid", next.PID).Int("handed_over", moved).Int("closed", left).Msg("handed over")
	return nil
}

// adminPatience is for the answers that are under way on the admin listener when it is handed over.
const adminPatience = 5 * time.Second

// adopt takes in the clients of the process before.
func adopt(before *handover.Predecessor, server *proxy.Server, log zerolog.Logger) {
	err := before.Clients(func(state []byte, conn net.Conn) {
		if err := server.Adopt(state, conn); err != nil {
			log.Error().Err(err).Msg("a client that was handed over is lost")
		}
	})
	if err != nil {
		log.Error().Err(err).Msg("clients that are still to be handed over are lost")
	}
}

// tell tells the service manager, if there is one.
func tell(log zerolog.Logger, assignments ...string) {
	if err := systemd.Notify(assignments...); err != nil {
		log.Warn().Err(err).Msg("the service manager could not be told")
	}
}

// extend asks the service manager for as much time as ending takes, and a little more.
func extend(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", (d + 10*time.Second).Microseconds())
}

// feed tells the watchdog of the service manager, if it has one, that alive has returned, twice as often as it has to
// hear. What it returns ends that.
func feed(alive func()) (stop func()) {
	every := systemd.Watchdog() / 2
	if every == 0 {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				alive()
				_ = systemd.Notify("WATCHDOG=1")
			}
		}
	}()
	return func() { close(done); <-ended }
}

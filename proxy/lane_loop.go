package proxy

import (
	"fmt"
	"time"
)

// ride runs the lane over point, on its loop, until that fails, and answers what is outstanding then.
func (l *lane) ride(point *endpoint) {
	failed := make(chan error, 1)
	l.mu.Lock()
	l.conn, l.point, l.failed = nil, point, failed
	if l.state == laneClosed {
		l.fail(errClosed)
	}
	l.mu.Unlock()
	if err := l.loop.watch(point, nil, l); err != nil {
		l.mu.Lock()
		l.fail(err)
		l.mu.Unlock()
	}
	l.flush()
	err := l.guard(failed)
	l.reading.Lock() // the loop may be handing out replies
	defer l.reading.Unlock()
	l.mu.Lock()
	l.point = nil
	l.mu.Unlock()
	point.close()
	l.lose(err)
}

// guard waits for the end of the connection, which it brings about itself if a command stays unanswered for one to two
// timeouts while no other reply comes either.
func (l *lane) guard(failed <-chan error) error {
	timeout := l.up.cfg.Timeout
	tick := time.NewTicker(timeout)
	defer tick.Stop()
	var marked uint64
	pending := false
	for {
		select {
		case err := <-failed:
			return err
		case <-tick.C:
			l.reading.Lock()
			now, outstanding := l.progress, l.outstanding()
			l.reading.Unlock()
			if pending && marked == now && !(l.private != nil && l.private.leisurely()) {
				return fmt.Errorf("no reply within %s", timeout)
			}
			marked, pending = now, outstanding
		}
	}
}

// fail gives the connection up; mu is held.
func (l *lane) fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// flush writes what is queued, as far as the socket takes it; the rest follows when the loop says that it takes more.
func (l *lane) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsent = false
	if refused, err := l.endRun(); refused != nil {
		l.mu.Unlock()
		refused.finish(err)
		l.mu.Lock()
	}
	for l.point != nil && !l.flushing && !l.full {
		piece, buf, kept := l.next()
		if len(buf) == 0 {
			break
		}
		point := l.point
		if rest := l.sendOff(buf); l.point == point {
			l.wrote(piece, len(rest)+kept)
		} else {
			freePiece(piece) // the next connection has nothing to do with it
		}
	}
}

// vacant reports whether what is written next may be written at once; mu is held.
func (l *lane) vacant() bool {
	return l.point != nil && l.run == nil && !l.flushing && !l.full && l.out.size == 0 &&
		(l.private != nil || !l.window.full(l.expected))
}

// sendOff writes buf, with mu released meanwhile, as far as the socket takes it, and returns the rest, which is to be
// written before anything else. It returns nothing if the connection has failed.
func (l *lane) sendOff(buf []byte) []byte {
	point := l.point
	// The loop may find that there is room again before mu is taken back, and must not be overruled.
	l.flushing, l.full = true, true
	l.mu.Unlock()
	n, err := point.write(buf)
	l.mu.Lock()
	if l.point != point {
		return nil
	}
	l.flushing = false
	if err != nil {
		l.fail(err)
		l.flushing = true // for good: nothing may be written behind what was not
		return nil
	}
	if n == len(buf) {
		l.full = false
	}
	return buf[n:]
}

// turn takes in what the loop's poller says of the connection, and reports whether there is more to read at once.
func (l *lane) turn(r readiness) (more bool) {
	if r&writable != 0 {
		l.mu.Lock()
		l.full = false
		l.mu.Unlock()
	}
	if r&readable != 0 {
		more = l.receive(r&ended != 0)
	}
	l.flush() // also what operations have added
	return more
}

// receive reads once and hands out the replies. It reports whether there may be more to read; of the end, which hung says
// is behind the replies, nobody tells again.
func (l *lane) receive(hung bool) bool {
	l.reading.Lock()
	defer l.reading.Unlock()
	l.hung = l.hung || hung
	l.mu.Lock()
	point := l.point
	l.mu.Unlock()
	if point == nil {
		return false
	}
	buf := l.loop.buf
	if len(l.left) > len(buf)/2 {
		buf = make([]byte, 4*len(l.left))
	}
	w := copy(buf, l.left)
	n, err := point.read(buf[w:])
	if err == errNothing {
		l.hung = false // it was the end of the connection before
		return false
	}
	if err == nil {
		var used int
		arrived := l.probe.arrived(l.loop.seen)
		l.arrived = l.loop.seen
		used, err = l.consume(buf[:w+n])
		l.took(used, arrived)
		l.left = append(l.left[:0], buf[used:w+n]...)
		l.progress++
	}
	if err != nil {
		l.mu.Lock()
		l.fail(err)
		l.mu.Unlock()
		return false
	}
	return w+n == len(buf) || l.hung
}

package harness

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Hooks holds keyrow processes at labelled points of their code, so that a test can kill, pause or overtake one
// there. Only a binary built with the tag "hooks" has them.
//
// The process that reaches a point connects to a unix socket, writes the label and a line feed, and waits for the
// line "go" or for the end of the connection. Its environment says which points do that:
//
//	KEYROW_HOOKS=/path/to/the/socket
//	KEYROW_HOOK_POINTS=label,label   or * for all of them
type Hooks struct {
	t      testing.TB
	points []string
	socket string
	listen net.Listener

	wg   sync.WaitGroup // accept, and one greet for each connection
	mu   sync.Mutex
	held []*Stop  // guarded by mu; arrived, in order, and not yet given to a Wait
	all  []*Stop  // guarded by mu; everything not released
	arm  []string // guarded by mu; points of which arrivals are held
}

// NewHooks arms points, "*" for all of them, for every process started with it. It lets all go at the end of the test.
func NewHooks(t testing.TB, points ...string) *Hooks {
	t.Helper()
	dir, err := newDir("h")
	if err != nil {
		t.Fatal(err)
	}
	h := &Hooks{t: t, points: points, socket: filepath.Join(dir, "s"), arm: points}
	if h.listen, err = net.Listen("unix", h.socket); err != nil {
		t.Fatal(err)
	}
	h.wg.Add(1)
	go h.accept()
	t.Cleanup(func() {
		h.listen.Close()
		h.ReleaseAll()
		h.wg.Wait()
	})
	return h
}

// Stop is a goroutine of a keyrow process that is held at a point.
type Stop struct {
	Point string
	PID   int // of its process

	conn net.Conn
	once sync.Once
}

// Release lets it go on. A second call does nothing.
func (s *Stop) Release() {
	s.once.Do(func() {
		s.conn.Write([]byte("go\n")) //nolint:errcheck // its process may have been killed; closing lets it go just as well
		s.conn.Close()
	})
}

func (s *Stop) alive() bool { return syscall.Kill(s.PID, 0) == nil }

// Wait returns when some process is held at point, "*" for any; each arrival is returned once. It fails the test after [Patience].
// Processes that were killed while being held do not count.
func (h *Hooks) Wait(point string) *Stop {
	h.t.Helper()
	var stop *Stop
	err := poll(Patience, func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.held = slices.DeleteFunc(h.held, func(s *Stop) bool { return !s.alive() })
		i := slices.IndexFunc(h.held, func(s *Stop) bool { return point == s.Point || point == "*" })
		if i < 0 {
			others := make([]string, len(h.held))
			for i, s := range h.held {
				others[i] = s.Point
			}
			return fmt.Errorf("no process is held at %q; there are some at %q", point, others)
		}
		stop = h.held[i]
		h.held = slices.Delete(h.held, i, i+1)
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return stop
}

// Try is Wait that does not wait: it returns nil if nobody is held at point.
func (h *Hooks) Try(point string) *Stop {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = slices.DeleteFunc(h.held, func(s *Stop) bool { return !s.alive() })
	i := slices.IndexFunc(h.held, func(s *Stop) bool { return point == s.Point || point == "*" })
	if i < 0 {
		return nil
	}
	stop := h.held[i]
	h.held = slices.Delete(h.held, i, i+1)
	return stop
}

// ReleaseAll lets go all that are held, and from now on holds nobody, until Arm.
func (h *Hooks) ReleaseAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arm = nil
	for _, s := range h.all {
		s.Release()
	}
	h.held, h.all = nil, nil
}

// Arm makes others of the points of NewHooks those at which processes are held from now on, none of them if none is
// given. Who is held already stays so.
func (h *Hooks) Arm(points ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arm = points
}

func (h *Hooks) env() []string {
	return []string{"KEYROW_HOOKS=" + h.socket, "KEYROW_HOOK_POINTS=" + strings.Join(h.points, ",")}
}

func (h *Hooks) accept() {
	defer h.wg.Done()
	for {
		c, err := h.listen.Accept()
		if err != nil {
			return
		}
		h.wg.Go(func() { h.greet(c) })
	}
}

// greet reads the label of an arrival. It ends because the process writes the label at once, or is killed.
func (h *Hooks) greet(c net.Conn) {
	label, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		c.Close()
		return
	}
	s := &Stop{Point: strings.TrimSuffix(label, "\n"), PID: peer(c), conn: c}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.arm, s.Point) && !slices.Contains(h.arm, "*") {
		s.Release()
		return
	}
	h.held = append(h.held, s)
	h.all = append(h.all, s)
}

// peer is the process at the other end of a unix socket, 0 if the kernel does not tell.
func peer(c net.Conn) int {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil {
		return 0
	}
	return pid
}

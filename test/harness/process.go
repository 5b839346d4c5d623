package harness

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is a running program that the kernel kills when the test process ends, however that ends.
type process struct {
	name   string
	pid    int
	group  int // the process group, which its children are in too
	log    *logbook
	copied chan struct{}    // closed when nobody is left who prints to log
	heir   atomic.Bool      // it has handed over to another, which prints to the same pipe
	state  *os.ProcessState // how it ended; set when done is closed
	done   chan struct{}    // closed when the program has ended and all it printed is in log
}

// startProcess runs argv in dir. Log takes what it prints on both outputs. Env nil: the environment of the tests.
func startProcess(log *logbook, dir string, env []string, argv ...string) (*process, error) {
	return startWith(nil, log, dir, env, argv...)
}

// startWith is startProcess with files that are 3 and so on to the program.
func startWith(files []*os.File, log *logbook, dir string, env []string, argv ...string) (*process, error) {
	p := &process{name: filepath.Base(argv[0]), log: log, copied: make(chan struct{}), done: make(chan struct{})}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, env, files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = w, w
	go p.listen(r)
	started := make(chan error)
	go p.run(cmd, w, started)
	return p, <-started
}

// listen takes in what is printed, until the last process that can print there has ended.
func (p *process) listen(r *os.File) {
	defer close(p.copied)
	defer r.Close()
	io.Copy(p.log, r) //nolint:errcheck // ends with the last process that has the other end
}

// program finds a server where Debian puts it: users other than root do not search /usr/sbin.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return filepath.Join("/usr/sbin", name)
}

// run starts the program and waits for its end on one thread, because the kernel sends Pdeathsig when the *thread*
// that forked ends, and the Go runtime is free to end a thread that no goroutine is locked to.
func (p *process) run(cmd *exec.Cmd, out *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	err := cmd.Start()
	out.Close()
	if err == nil {
		p.pid, p.group = cmd.Process.Pid, cmd.Process.Pid
	}
	started <- err
	if err == nil {
		cmd.Wait() //nolint:errcheck // how it ended is read from ProcessState
		p.ended(cmd.ProcessState)
	}
}

// ended is called before done is closed.
func (p *process) ended(state *os.ProcessState) {
	p.state = state
	if p.heir.Load() {
		return
	}
	select {
	case <-p.copied:
	case <-time.After(time.Second):
	}
}

// exited reports whether the program has ended.
func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// code is the exit status of an ended program, 128+n when signal n killed it.
func (p *process) code() int {
	s, ok := p.state.Sys().(syscall.WaitStatus)
	if ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return p.state.ExitCode()
}

// signal sends sig to the program and its children; a program that has ended is left alone.
func (p *process) signal(sig syscall.Signal) {
	if !p.exited() {
		syscall.Kill(-p.group, sig) //nolint:errcheck // it may end at this moment
	}
}

// kill ends the program as kill -9 does and waits for its end.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// terminate asks the program to end and waits for it. It reports false when the program had to be killed.
func (p *process) terminate(limit time.Duration) bool {
	p.signal(syscall.SIGCONT)
	p.signal(syscall.SIGTERM)
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-p.done:
		return true
	case <-late.C:
		p.signal(syscall.SIGQUIT) // a Go program prints its goroutines
		select {
		case <-p.done:
		case <-time.After(2 * time.Second):
		}
		p.kill()
		return false
	}
}

// pause stops every thread of the program and returns when they all stand still.
func (p *process) pause() error {
	p.signal(syscall.SIGSTOP)
	return poll(Patience, func() error {
		stats, _ := filepath.Glob("/proc/" + strconv.Itoa(p.pid) + "/task/*/stat")
		if len(stats) == 0 {
			return errGiveUp{fmt.Errorf("pause %s: it has ended", p.name)}
		}
		for _, name := range stats {
			stat, _ := os.ReadFile(name)
			// pid (command) state …: a command may contain spaces and parentheses, so look behind the last one.
			if i := bytes.LastIndexByte(stat, ')'); i >= 0 && len(stat) > i+2 && stat[i+2] != 'T' {
				return fmt.Errorf("pause %s: a thread is in state %c", p.name, stat[i+2])
			}
		}
		return nil
	})
}

// halted reports whether the program is paused.
func (p *process) halted() bool {
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/stat")
	i := bytes.LastIndexByte(stat, ')')
	return i >= 0 && len(stat) > i+2 && stat[i+2] == 'T'
}

// resume lets a paused program go on.
func (p *process) resume() { p.signal(syscall.SIGCONT) }

// logbook keeps what a program prints, over its restarts.
type logbook struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	return len(b), nil
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}

// since returns what was printed after the first n bytes.
func (l *logbook) since(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text[n:])
}

func (l *logbook) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.text)
}

// tail returns the last n lines.
func (l *logbook) tail(n int) string {
	lines := strings.Split(strings.TrimRight(l.String(), "\n"), "\n")
	if len(lines) > n {
		lines = append([]string{fmt.Sprintf("… %d lines before", len(lines)-n)}, lines[len(lines)-n:]...)
	}
	return strings.Join(lines, "\n")
}

// printIfFailed prints the end of the log when the test has failed.
func (l *logbook) printIfFailed(t testing.TB, name string) {
	if t.Failed() {
		t.Logf("%s printed:\n%s", name, l.tail(200))
	}
}

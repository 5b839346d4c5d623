package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a running program that the kernel kills when the test process ends, however that ends.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *logbook
	done chan struct{} // closed when the program has ended and all it printed is in log
}

// startProcess runs argv in dir. Log takes what it prints on both outputs. Env nil: the environment of the tests.
func startProcess(log *logbook, dir string, env []string, argv ...string) (*process, error) {
	p := &process{name: filepath.Base(argv[0]), log: log, done: make(chan struct{})}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go p.run(started)
	return p, <-started
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
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	err := p.cmd.Start()
	started <- err
	if err == nil {
		p.cmd.Wait() //nolint:errcheck // how it ended is read from ProcessState
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
	s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// signal sends sig to the program and its children; a program that has ended is left alone.
func (p *process) signal(sig syscall.Signal) {
	if !p.exited() {
		syscall.Kill(-p.cmd.Process.Pid, sig) //nolint:errcheck // it may end at this moment
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
		stats, _ := filepath.Glob("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/task/*/stat")
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
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
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

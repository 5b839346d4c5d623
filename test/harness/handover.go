package harness

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Predecessor is a keyrow process that has handed over to another.
type Predecessor struct {
	t    testing.TB
	proc *process
}

// Exited reports whether it has ended.
func (p *Predecessor) Exited() bool { return p.proc.exited() }

// Wait waits for its end and returns its exit status.
func (p *Predecessor) Wait() int {
	p.t.Helper()
	Until(p.t, "the keyrow that handed over ends", p.proc.exited)
	return p.proc.code()
}

// HandOver asks the process to hand over to a new one (SIGUSR2), and returns it once the new one, which k is from then on,
// serves.
func (k *Keyrow) HandOver() *Predecessor {
	k.t.Helper()
	if err := reapOrphans(); err != nil {
		k.t.Fatal(err)
	}
	old := k.proc
	k.guarded.Do(func() { guard(k.t, old.group) })
	from := k.log.len()
	k.Signal(syscall.SIGUSR2)
	pid := 0
	err := poll(2*Patience, func() error {
		log := k.log.since(from)
		if old.exited() && pid == 0 {
			return errGiveUp{fmt.Errorf("keyrow ended with status %d instead of handing over:\n%s", old.code(), k.log.tail(50))}
		}
		if pid = successor(log); pid != 0 {
			old.heir.Store(true)
			if addr, admin := listening(log); addr != "" {
				k.Addr, k.Admin = addr, admin
				return nil
			}
		}
		return fmt.Errorf("keyrow has not handed over:\n%s", k.log.tail(50))
	})
	if err != nil {
		k.t.Fatal(err)
	}
	k.proc = &process{name: old.name, pid: pid, group: old.group, log: k.log, copied: old.copied, done: make(chan struct{})}
	go k.proc.inherit(old)
	return &Predecessor{k.t, old}
}

// Signal sends sig to the process alone.
func (k *Keyrow) Signal(sig syscall.Signal) {
	k.t.Helper()
	if err := syscall.Kill(k.proc.pid, sig); err != nil {
		k.t.Fatal(err)
	}
}

// inherit waits for a process that old has started, which is ours to wait for once old has ended.
func (p *process) inherit(old *process) {
	defer close(p.done)
	<-old.done
	found, err := os.FindProcess(p.pid)
	if err != nil {
		p.ended(new(os.ProcessState))
		return
	}
	state, err := found.Wait()
	if err != nil { // it ended before old did
		state = new(os.ProcessState)
	}
	p.ended(state)
}

// successor finds the line of a log that says which process takes over.
func successor(log string) int {
	for line := range strings.Lines(log) {
		var entry struct {
			Message string
			PID     int
		}
		if json.Unmarshal([]byte(line), &entry) == nil && strings.HasPrefix(entry.Message, "handing over: the process") {
			return entry.PID
		}
	}
	return 0
}

// reapOrphans makes processes whose parent has ended children of this one.
var reapOrphans = sync.OnceValue(func() error {
	const prSetChildSubreaper = 36
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0); errno != 0 {
		return os.NewSyscallError("prctl", errno)
	}
	return nil
})

// guard has a process group killed when the test ends or, however that happens, this process does: unlike its children,
// the kernel does not end theirs.
func guard(t testing.TB, group int) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `read -r end; kill -9 -- "-$0" 2>/dev/null`, strconv.Itoa(group))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		io.WriteString(end, "\n") //nolint:errcheck // closing it does as well
		end.Close()
		cmd.Wait() //nolint:errcheck // there may be nobody left to kill
	})
}

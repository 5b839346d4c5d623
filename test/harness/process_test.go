package harness

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestVictim is what TestNothingOutlivesTheProcess kills: on its own it does nothing.
func TestVictim(t *testing.T) {
	if os.Getenv("KEYROW_VICTIM") == "" {
		return
	}
	r, m := StartRedis(t), SharedMySQL(t)
	dir, err := base()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("victim %d %d %s\n", r.proc.pid, m.proc.pid, dir.path)
	select {}
}

func TestNothingOutlivesTheProcess(t *testing.T) {
	victim := exec.Command(os.Args[0], "-test.run=^TestVictim$")
	victim.Env = append(os.Environ(), "KEYROW_VICTIM=1")
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var pids []int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 4 && f[0] == "victim" {
			one, _ := strconv.Atoi(f[1])
			two, _ := strconv.Atoi(f[2])
			pids, dir = []int{one, two}, f[3]
			break
		}
	}
	if err := victim.Process.Kill(); err != nil {
		t.Error(err)
	}
	victim.Wait() //nolint:errcheck // killed
	if pids == nil {
		t.Fatal("the servers did not start")
	}
	for _, pid := range pids {
		Until(t, "process "+strconv.Itoa(pid)+" is gone", func() bool { return !running(pid) })
	}
	Until(t, dir+" is gone", func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	})
}

// running is false for a process that has ended, also where nobody waits for it.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestProcess(t *testing.T) {
	log := new(logbook)
	p, err := startProcess(log, t.TempDir(), []string{"WORD=hello"}, "sh", "-c", `echo $WORD; sleep 600 & wait`)
	if err != nil {
		t.Fatal(err)
	}
	Until(t, "it printed", func() bool { return log.String() == "hello\n" })
	if err := p.pause(); err != nil {
		t.Error(err)
	}
	p.resume()
	if !p.terminate(Patience) {
		t.Error("it had to be killed")
	}
	if p.code() != 128+int(syscall.SIGTERM) {
		t.Errorf("status %d", p.code())
	}

	if _, err := startProcess(log, t.TempDir(), nil, "no-such-program"); err == nil {
		t.Error("started a program that does not exist")
	}
}

// The other side of hooks is keyrow's hooks.go, which TestKeyrowHooks drives.
func TestHooks(t *testing.T) {
	h := NewHooks(t, "a", "b")
	if got := strings.Join(h.env(), " "); !strings.HasSuffix(got, "/s KEYROW_HOOK_POINTS=a,b") {
		t.Errorf("environment: %s", got)
	}
	arrive := func(label string) (gone chan struct{}) {
		gone = make(chan struct{})
		c, err := net.Dial("unix", h.socket)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(c, label)
		go func() {
			defer close(gone)
			defer c.Close()
			bufio.NewReader(c).ReadString('\n') //nolint:errcheck // either way it goes on
		}()
		return gone
	}
	b1, a, b2 := arrive("b"), arrive("a"), arrive("b")
	stop := h.Wait("a")
	if stop.Point != "a" || stop.PID != os.Getpid() {
		t.Errorf("stopped at %q in %d", stop.Point, stop.PID)
	}
	stop.Release()
	<-a
	stop.Release()
	h.Wait("b")
	h.Wait("b").Release()
	select {
	case <-b1:
	case <-b2:
	}
	h.ReleaseAll()
	<-b1
	<-b2
	<-arrive("a")
}

func TestConfig(t *testing.T) {
	needed := map[string]any{"proxy": map[string]any{"listen": "a"}, "log": map[string]any{"format": "json"}}
	text, err := config(needed, `
		[proxy]
		max_clients = 5
		[[mapping]]
		key = "user:{id}"`, map[string]string{"journal.interval": "1h", "journal.batch": "7", "log.format": `"1"`})
	if err != nil {
		t.Fatal(err)
	}
	want := `[journal]
  batch = 7
  interval = "1h"

[log]
  format = "1"

[[mapping]]
  key = "user:{id}"

[proxy]
  listen = "a"
  max_clients = 5
`
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if _, err := config(needed, "[x", nil); err == nil {
		t.Error("took a config that is not TOML")
	}
}

func TestListening(t *testing.T) {
	log := "text\n{\"level\":\"info\",\"message\":\"starting\",\"addr\":\"x\"}\n"
	if got, _ := listening(log); got != "" {
		t.Errorf("got %q", got)
	}
	log += `{"level":"info","addr":"127.0.0.1:7","message":"listening"}`
	if got, _ := listening(log); got != "127.0.0.1:7" {
		t.Errorf("got %q", got)
	}
}

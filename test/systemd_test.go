package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrow/test/harness"
)

// manager is the socket on which a service manager hears of its service.
type manager struct {
	t     *testing.T
	path  string
	heard chan string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd")
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, path: filepath.Join(dir, "notify"), heard: make(chan string, 1000)}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			select {
			case m.heard <- string(b[:n]):
			default: // of the watchdog's, nobody wants to hear all
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
		os.RemoveAll(dir)
	})
	return m
}

// hear waits for a message that says want, and returns it.
func (m *manager) hear(want string) string {
	m.t.Helper()
	late := time.After(harness.Patience)
	var others []string
	for {
		select {
		case text := <-m.heard:
			if strings.Contains("\n"+text+"\n", "\n"+want+"\n") {
				return text
			}
			others = append(others, text)
		case <-late:
			m.t.Fatalf("nobody said %q; there was %q", want, others)
		}
	}
}

// The service manager is told when keyrow serves, that it is alive, who takes over, and that it drains.
func TestNotify(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	s := openShop(t, harness.Options{Env: []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=100000"},
		Set: map[string]string{"journal.drain": "20s"}})
	if got := m.hear("READY=1"); !strings.Contains(got, "STATUS=serving at "+s.Addr) {
		t.Errorf("ready with %q", got)
	}
	m.hear("WATCHDOG=1")
	s.Signal(syscall.SIGHUP)
	m.hear("RELOADING=1")
	m.hear("READY=1")
	if code := s.HandOver().Wait(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	m.hear(fmt.Sprintf("MAINPID=%d", s.PID()))
	m.hear("READY=1")
	m.hear("WATCHDOG=1")
	s.rest()
	if code := s.Term(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if got := m.hear("STOPPING=1"); !strings.Contains(got, "EXTEND_TIMEOUT_USEC=30000000") {
		t.Errorf("stopping with %q", got)
	}
}

// The sockets of a service manager stand for the addresses that are configured. Who connects before keyrow is there
// waits, and so does who connects between two starts.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	local, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	desk, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer desk.Close()
	var files []*os.File
	for _, l := range []interface{ File() (*os.File, error) }{l, local, desk} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}

	early := dial(t, l.Addr().String())
	early.send(encode("PING"))
	s := newShop(t, harness.Options{Listen: files, Set: map[string]string{
		"proxy.listen": fmt.Sprintf(`["unix://%s", %q]`, path, l.Addr()),
		"admin.listen": desk.Addr().String(),
	}})
	for range 2 {
		s.Start()
		if got := early.reply(); got != "+PONG\r\n" {
			t.Errorf("who came early gets %q", got)
		}
		if code := s.HandOver().Wait(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		early.want("+PONG\r\n", "PING")
		s.rest()
		if code := s.Term(); code != 0 {
			t.Errorf("exit status %d", code)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the manager's socket: %v", err)
		}
		early = dial(t, l.Addr().String())
		early.send(encode("PING"))
	}
}

// A socket that no setting names would be one on which clients wait for ever.
func TestSocketActivationElsewhere(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := newShop(t, harness.Options{Listen: []*os.File{f}})
	if code, printed := s.Run(); code != 2 || !strings.Contains(printed, "a socket at "+l.Addr().String()+" from systemd") {
		t.Errorf("exit status %d, and it printed %s", code, printed)
	}
}

// systemd has nothing to say against the units, and finds the service well shut in.
func TestUnits(t *testing.T) {
	t.Parallel()
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"keyrow.service", "keyrow.socket"} {
		text, err := os.ReadFile(filepath.Join("../docs/systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile(`/usr/local/bin/keyrow `).ReplaceAll(text, []byte(binary+" "))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"verify", "./keyrow.service", "./keyrow.socket"},
		{"security", "--offline=true", "--threshold=15", "./keyrow.service"}, // tenths; 100 is not shut in at all
	} {
		cmd := exec.Command("systemd-analyze", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v; test/run install installs it\n%s", args[0], err, out)
		}
	}
}

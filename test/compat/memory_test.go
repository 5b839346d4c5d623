//go:build compat

package compat

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyrow/test/harness"
)

// lean is keyrow as it is delivered: the race detector, which the harness builds it with where the tests have it, takes
// several times the memory.
type lean struct {
	addr string
	pid  int
}

func startLean(t *testing.T, o harness.Options) lean {
	t.Helper()
	o.MySQL = harness.SharedMySQL(t)
	o.DB = o.MySQL.NewDB(t)
	for _, query := range strings.Split(usersTable, ";") {
		o.MySQL.Exec(o.DB, query)
	}
	o.Config = fmt.Sprintf(usersConfig, "behind")
	if o.Set == nil {
		o.Set = map[string]string{}
	}
	o.Set["journal.prefix"] = "keyrow-" + o.DB
	conf := harness.NewKeyrow(t, o).Conf
	binary := filepath.Join(t.TempDir(), "keyrow")
	if out, err := exec.Command("go", "build", "-o", binary, "keyrow").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary, "-c", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	printed, err := cmd.StderrPipe()
	ok(t, err)
	ok(t, cmd.Start())
	lines := bufio.NewScanner(printed)
	var log bytes.Buffer
	l := lean{pid: cmd.Process.Pid}
	for l.addr == "" && lines.Scan() {
		log.WriteString(lines.Text() + "\n")
		var entry struct{ Message, Addr string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Message == "listening" {
			l.addr = entry.Addr
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines.Scan() {
			log.WriteString(lines.Text() + "\n")
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-ended
		cmd.Wait() //nolint:errcheck // it was killed
		if t.Failed() {
			t.Logf("keyrow printed:\n%s", log.String())
		}
	})
	if l.addr == "" {
		t.Fatal("keyrow did not come up")
	}
	return l
}

// memory is a line of the process's status: VmRSS, or VmHWM for the most there ever was. In MiB.
func (l lean) memory(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.pid))
	ok(t, err)
	m := regexp.MustCompile(`(?m)^` + name + `:\s*(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no %s", name)
	}
	kb, _ := strconv.Atoi(string(m[1]))
	return kb >> 10
}

// TestIdleClients connects 10,000 clients that have said something and then wait: they cost little memory and no
// connection to Redis.
func TestIdleClients(t *testing.T) {
	const clients, most = 10000, 100 // MiB
	var limit syscall.Rlimit
	ok(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if want := uint64(clients + 2000); limit.Cur < want {
		limit.Cur, limit.Max = want, max(want, limit.Max)
		ok(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	}
	r := harness.StartRedis(t)
	k := startLean(t, harness.Options{Redis: r, Set: map[string]string{"proxy.max_clients": strconv.Itoa(clients + 10)}})
	upstream := func() int {
		return strings.Count(fmt.Sprint(r.Do("CLIENT", "LIST", "TYPE", "normal")), "\n")
	}
	first := dial(t, k.addr)
	same(t, first.must(t, "PING"), "+PONG\r\n")
	before := upstream()

	ping := encode("PING")
	conns := make([]net.Conn, clients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := w; i < clients; i += 8 {
				// A client address has no more ports than this test needs; several leave room.
				d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%8))}}
				c, err := d.Dial("tcp", k.addr)
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = c
				b := make([]byte, 7)
				c.SetDeadline(time.Now().Add(patience))
				if _, err := c.Write(ping); err != nil {
					t.Error(err)
					return
				}
				if n, err := c.Read(b); err != nil || string(b[:n]) != "+PONG\r\n" {
					t.Errorf("client %d: %q %v", i, b[:n], err)
					return
				}
			}
		})
	}
	all.Wait()
	rss, now := k.memory(t, "VmRSS"), upstream()
	t.Logf("%d idle clients: %d MiB; %d connections to redis, %d before", clients, rss, now, before)
	if rss > most {
		t.Errorf("%d clients cost %d MiB, more than %d", clients, rss, most)
	}
	if now > before+20 { // keyrow's own come and go
		t.Errorf("%d connections to redis, %d before the clients came", now, before)
	}
	same(t, first.must(t, "PING"), "+PONG\r\n")
}

// TestLargeValuesLeaveNothing has 50 clients, one after the other, send 20 MiB each and stay: if each kept what it
// needed for that, there would be a gigabyte of it.
func TestLargeValuesLeaveNothing(t *testing.T) {
	const clients, most = 50, 400 // MiB
	k := startLean(t, harness.Options{})
	set := encode("SET", "big", strings.Repeat("x", 20<<20))
	for i := range clients {
		p := dial(t, k.addr)
		ok(t, p.write(set))
		b, err := p.frame()
		ok(t, err)
		same(t, string(b), "+OK\r\n")
		if i == clients/2 {
			same(t, len(p.must(t, "GET", "big")), 20<<20+len("$20971520\r\n\r\n"))
		}
	}
	peak := k.memory(t, "VmHWM")
	t.Logf("%d times 20 MiB: at most %d MiB", clients, peak)
	if peak > most {
		t.Errorf("%d clients that sent 20 MiB each cost %d MiB, more than %d", clients, peak, most)
	}
}

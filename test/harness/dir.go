package harness

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// base is the one folder of this test process. A shell that waits for the end of its standard input, which the
// process holds open, removes it, so that it goes away however the process ends.
var base = sync.OnceValues(func() (folder, error) {
	parent := os.TempDir()
	if len(parent) > 60 { // a socket below it must fit into the 108 bytes of sun_path
		parent = "/tmp"
	}
	path, err := os.MkdirTemp(parent, "keyrow-")
	if err != nil {
		return folder{}, err
	}
	sweep := exec.Command("sh", "-c", `cat >/dev/null; rm -rf "$0" || { sleep 1; rm -rf "$0"; }`, path)
	sweep.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // ^C ends the tests, not this
	held, err := sweep.StdinPipe()
	if err != nil {
		return folder{}, err
	}
	return folder{path, held}, sweep.Start()
})

type folder struct {
	path string
	held io.Closer // what the shell reads from; the garbage collector would close it
}

var folders atomic.Int64

// newDir makes a folder of a short name that starts with prefix.
func newDir(prefix string) (string, error) {
	b, err := base()
	if err != nil {
		return "", fmt.Errorf("make a temporary folder: %w", err)
	}
	dir := filepath.Join(b.path, prefix+strconv.FormatInt(folders.Add(1), 10))
	return dir, os.Mkdir(dir, 0o700)
}

// FreeAddr is an address of this machine at which nobody listens, for a server that is told its address.
func FreeAddr(t testing.TB) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strconv.Itoa(port)
}

// freePort finds a port to listen on that lies below the range the kernel takes for outgoing connections: while a
// server is down, a client that keeps dialing it could otherwise be given its port as its own, and hold it.
func freePort() (int, error) {
	const low = 12000
	high := 32768
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		if f := strings.Fields(string(text)); len(f) == 2 {
			if n, err := strconv.Atoi(f[0]); err == nil && n > low+1000 {
				high = n
			}
		}
	}
	var last error
	for range 200 {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("find a free port between %d and %d: %w", low, high, last)
}

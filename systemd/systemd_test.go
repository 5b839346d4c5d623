package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// A manager that is there and does not read holds nobody up; one that is not there is an error, and none at all is not.
func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Error(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	t.Setenv("NOTIFY_SOCKET", path)
	if err := Notify("READY=1"); err == nil {
		t.Error("nobody is there, and there is no error")
	}
	for _, name := range []string{path, "@keyrow-" + strconv.Itoa(os.Getpid())} {
		t.Setenv("NOTIFY_SOCKET", name)
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := Notify("READY=1", "STATUS=well"); err != nil {
			t.Error(err)
		}
		b := make([]byte, 100)
		if n, err := conn.Read(b); err != nil || string(b[:n]) != "READY=1\nSTATUS=well" {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	for range 1 << 20 { // until its queue is full
		if err := Notify("WATCHDOG=1"); err != nil {
			return
		}
	}
	t.Error("a manager that reads nothing is told without end")
}

func TestWatchdog(t *testing.T) {
	mine, other := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getpid()+1)
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"0", "", 0},
		{"-5", "", 0},
		{"soon", "", 0},
		{"30000000", "", 30 * time.Second},
		{"30000000", mine, 30 * time.Second},
		{"30000000", other, 0},
	} {
		t.Setenv("WATCHDOG_USEC", test.usec)
		t.Setenv("WATCHDOG_PID", test.pid)
		if got := Watchdog(); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// What was passed to another process is left alone, and nobody whom this one starts takes it for its own.
func TestListenersOfOthers(t *testing.T) {
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()+1))
	t.Setenv("LISTEN_FDS", "1")
	if list, err := Listeners(); list != nil || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if _, there := os.LookupEnv("LISTEN_FDS"); there {
		t.Error("LISTEN_FDS is left")
	}
}

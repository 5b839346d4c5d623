// Package systemd speaks with a service manager in the way of systemd: [Notify] tells it how the service is, [Watchdog]
// says how often it wants to hear that, and [Listeners] are the sockets that it opened for the service. All of them do
// nothing where nobody asked for it, so a service need not know who started it.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is for a manager that does not read what it is sent, which is no reason for the service to stand still.
const patience = time.Second

// Notify sends assignments as sd_notify(3) describes them, like "READY=1", in one message.
func Notify(assignments ...string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	// net takes a leading @ for an abstract name, as systemd does.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err = conn.Write([]byte(strings.Join(assignments, "\n")))
	return err
}

// Watchdog is within which time the manager wants to hear WATCHDOG=1 again and again; 0: it does not.
func Watchdog() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec < 0 {
		return 0
	}
	return time.Duration(usec) * time.Microsecond
}

// firstFD is the first file that is passed, behind standard input and both outputs.
const firstFD = 3

// Listeners returns the sockets that the manager listens on for this process, in its order. A second call finds none.
func Listeners() ([]net.Listener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range passed {
		_ = os.Unsetenv(name)
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS: %q is not a number of files", count)
	}
	var list []net.Listener
	var errs []error
	for fd := firstFD; fd < firstFD+n; fd++ {
		l, err := listener(fd)
		if err != nil {
			errs = append(errs, fmt.Errorf("file %d that was passed as a socket to listen on: %w; it has to be ListenStream= "+
				"with Accept=no", fd, err))
			continue
		}
		list = append(list, l)
	}
	return list, errors.Join(errs...)
}

// passed are the variables that are for one process and not for those that it starts.
var passed = []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}

func listener(fd int) (net.Listener, error) {
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	if listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	} else if listens == 0 {
		return nil, errors.New("it does not listen")
	}
	return net.FileListener(f)
}

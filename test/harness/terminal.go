package harness

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"unsafe"
)

// Terminal is what a program prints on. What was printed can be read once the program has ended.
type Terminal struct {
	*os.File // the program's end
	t        testing.TB
	read     chan string
}

// NewTerminal opens a terminal of a width in characters.
func NewTerminal(t testing.TB, width int) *Terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var number, unlocked int32
	control := func(request uintptr, arg unsafe.Pointer) {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(arg)); errno != 0 {
			t.Fatal(fmt.Errorf("open a terminal: %w", errno))
		}
	}
	control(syscall.TIOCSPTLCK, unsafe.Pointer(&unlocked))
	control(syscall.TIOCGPTN, unsafe.Pointer(&number))
	size := [4]uint16{24, uint16(width)}
	control(syscall.TIOCSWINSZ, unsafe.Pointer(&size))
	end, err := os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &Terminal{end, t, make(chan string, 1)}
	go func() {
		defer master.Close()
		var b bytes.Buffer
		_, _ = b.ReadFrom(master) // EIO once nobody has the other end
		term.read <- b.String()
	}()
	t.Cleanup(func() { end.Close() })
	return term
}

// Printed is all that was printed. The terminal is closed then.
func (t *Terminal) Printed() string {
	t.t.Helper()
	t.Close()
	return <-t.read
}

package rawio

import (
	"io"
	"os"
	"syscall"
	"unsafe"
)

// most is how many bytes are written at a time, so that the goroutine can be stopped in between.
const most = 256 << 10

// Read reads what is there from fd, which does not block. It fails with syscall.EAGAIN if that is nothing, and with io.EOF
// at the end.
func Read(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return 0, syscall.EAGAIN
		case errno != 0:
			return 0, os.NewSyscallError("read", errno)
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// Write writes as much of b to fd, which does not block, as it takes. It fails with syscall.EAGAIN if that is not all.
func Write(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		some := b[n:min(len(b), n+most)]
		done, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(some))), uintptr(len(some)))
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN:
			return n, syscall.EAGAIN
		case errno != 0:
			return n, os.NewSyscallError("write", errno)
		default:
			n += int(done)
		}
	}
	return n, nil
}

// silent reports whether fd is open at both ends, and nothing is there to be read.
func silent(fd int) bool {
	var b [1]byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1,
		syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno == syscall.EAGAIN
}

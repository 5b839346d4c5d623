package harness

import (
	"syscall"
	"testing"
)

// OpenFiles makes sure that this process can have n files open, and every process it starts afterwards. Go raises the
// limit as far as everybody may; beyond that it takes root.
func OpenFiles(t testing.TB, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= n && limit.Max >= n {
		return
	}
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: max(n, limit.Max)})
	if err != nil {
		t.Fatalf("this test opens %d files and may open %d (ulimit -Hn): raise the limit: %v", n, limit.Max, err)
	}
}

package harness

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// template is a freshly initialised data folder, made once for all test processes of a machine: mariadb-install-db
// takes 1.7 s, a copy of what it makes 50 ms.
var template = sync.OnceValues(func() (string, error) {
	version, err := exec.Command(program("mariadbd"), "--no-defaults", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask mariadbd for its version (test/run installs it): %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil { // no $HOME
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("keyrow-cache-%d", os.Getuid()))
	}
	cache = filepath.Join(cache, "keyrow-test")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "1 %s %q", version, installOptions))
	dir := filepath.Join(cache, fmt.Sprintf("mariadb-%x", sum[:6]))

	// Packages are tested in parallel: the first makes it, the others wait for it here.
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	made, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(made)
	argv := append([]string{"--no-defaults", "--datadir=" + made, "--auth-root-authentication-method=normal",
		"--skip-test-db"}, installOptions...)
	if os.Getuid() == 0 {
		argv = append(argv, "--user=root")
	}
	if out, err := exec.Command(program("mariadb-install-db"), argv...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return dir, os.Rename(made, dir)
})

// installOptions keep the data folder small enough to copy for each server.
var installOptions = []string{"--innodb-log-file-size=8M"}

// clone copies the template to dir, which must not exist.
func clone(dir string) error {
	from, err := template()
	if err != nil {
		return err
	}
	out, err := exec.Command("cp", "-a", "--reflink=auto", "--sparse=always", from, dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, out)
	}
	return nil
}

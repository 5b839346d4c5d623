//go:build compat

package compat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"keyrow/test/harness"
)

// clientTimeout is far longer than a client's script takes.
const clientTimeout = 3 * time.Minute

// program runs a client's script as a process against a keyrow with rows, as a user that Redis has, and holds the
// rows against the images afterwards.
func program(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	r := harness.StartRedis(t)
	r.Do("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
	k := keyrowFor(t, harness.Options{Redis: r}, "behind")
	through := newRelay(t, k.Addr)
	host, port, _ := net.SplitHostPort(through.addr)
	_, cutPort, _ := net.SplitHostPort(through.cutAddr)

	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOST="+host, "PORT="+port, "CUT_PORT="+cutPort, "USERNAME=app", "PASSWORD=secret")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v\n%s", name, args, err, out)
	}
	k.Settled()
	k.Equal(harness.Rows{Pattern: "user:{id}", Table: "users"})
	if n := k.MySQL.Text(k.DB, "SELECT COUNT(*) FROM users"); n == "0" {
		t.Error("no row came of it")
	}
}

// python is one that has redis-py and hiredis: the first on the path may be somebody's own.
func python() (string, error) {
	var last error
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		out, err := exec.Command(name, "-c", "import redis, hiredis").CombinedOutput()
		if err == nil {
			return name, nil
		}
		last = fmt.Errorf("%s has no redis and hiredis, which test/compat/install.sh installs: %w\n%s", name, err, out)
	}
	return "", last
}

func TestRedisPy(t *testing.T) {
	t.Parallel()
	name, err := python()
	if err != nil {
		t.Fatal(err)
	}
	program(t, "python", name, "check.py")
}

// modules installs what node/package-lock.json names into a folder of the user's cache, once for each lock file.
func modules() (string, error) {
	lock, err := os.ReadFile("node/package-lock.json")
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil { // no $HOME
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("keyrow-cache-%d", os.Getuid()))
	}
	cache = filepath.Join(cache, "keyrow-test")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, fmt.Sprintf("node-%x", sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	making, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(making)
	for _, name := range []string{"package.json", "package-lock.json"} {
		text, err := os.ReadFile(filepath.Join("node", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(making, name), text, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = making
	if out, err := npm.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci (test/compat/install.sh installs npm): %w\n%s", err, out)
	}
	if err := os.Rename(making, dir); err != nil && !os.IsExist(err) {
		return "", err
	}
	return dir, nil
}

func TestNode(t *testing.T) {
	t.Parallel()
	installed, err := modules()
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{"check-ioredis.js", "check-node-redis.js"} {
		t.Run(script, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS("node")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
				t.Fatal(err)
			}
			program(t, dir, "node", script)
		})
	}
}

// TestLockFile holds that the lock file names no machine and no registry: npm takes what it is configured to.
func TestLockFile(t *testing.T) {
	lock, err := os.ReadFile("node/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(lock, []byte(`"resolved"`)) {
		t.Error("package-lock.json says where things were downloaded; strip the fields \"resolved\"")
	}
}

func TestRueidis(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "rueidis")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = "rueidis"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	program(t, "rueidis", path)
}

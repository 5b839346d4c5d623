package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed conf.toml
var conf string

// startDeadline bounds keyrow's way from its start to its first PONG; stopDeadline the one from SIGTERM to its end,
// which includes the last flush. Both are longer than keyrow's own.
const (
	startDeadline = 40 * time.Second
	stopDeadline  = 40 * time.Second
)

// child is the running keyrow.
type child struct {
	cmd   *exec.Cmd
	dir   string        // holds the binary and conf.toml
	conf  string        // path of conf.toml
	ended chan struct{} // closed when the process is gone
	err   error         // how it went; valid once ended is closed

	stopping sync.Once
}

// startKeyrow builds keyrow, runs it and returns once it answers on addr.
func startKeyrow(ctx context.Context, addr, redis, mysql string, out *screen) (*child, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "keyrow-demo-")
	if err != nil {
		return nil, err
	}
	k := &child{dir: dir, conf: filepath.Join(dir, "conf.toml"), ended: make(chan struct{})}
	if err := k.prepare(ctx, root, map[string]string{
		"LISTEN": addr, "REDIS": redis, "DSN": "root@tcp(" + mysql + ")/" + database,
	}); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := k.start(out); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := k.ready(ctx, addr); err != nil {
		return nil, errors.Join(err, k.stop())
	}
	return k, nil
}

// prepare fills the temporary folder.
func (k *child) prepare(ctx context.Context, root string, values map[string]string) error {
	text := os.Expand(conf, func(name string) string { return values[name] })
	if err := os.WriteFile(k.conf, []byte(text), 0o600); err != nil {
		return err
	}
	binary := filepath.Join(k.dir, "keyrow"+exeSuffix())
	build := exec.CommandContext(ctx, "go", "build", "-C", root, "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(build.Args, " "), err, output)
	}
	k.cmd = exec.Command(binary, "-c", k.conf)
	return nil
}

func exeSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

// start runs the process and sees to its end.
func (k *child) start(out *screen) error {
	r, w := io.Pipe()
	k.cmd.Stdout, k.cmd.Stderr = w, w
	apart(k.cmd)
	started := make(chan error)
	go func() {
		// Linux ends the child with the thread that started it (see apart), so this one has to stay.
		runtime.LockOSThread()
		if err := k.cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		k.err = k.cmd.Wait()
		w.Close()
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("keyrow: %w", err)
	}
	go func() {
		defer close(k.ended) // after its last words
		for lines := bufio.NewScanner(r); lines.Scan(); {
			out.line("keyrow: %s", lines.Text())
		}
		io.Copy(io.Discard, r) // a line too long for the scanner must not block the child
	}()
	return nil
}

// ready waits until keyrow answers a PING.
func (k *child) ready(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startDeadline, fmt.Errorf("keyrow does not answer on %s after %v", addr, startDeadline))
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if c, err := dial(ctx, addr); err == nil {
			reply, err := c.do(ctx, "PING")
			c.close()
			if err == nil && reply == status("PONG") {
				return nil
			}
		}
		select {
		case <-again.C:
		case <-k.ended:
			return k.failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// failure is why keyrow ended although nobody asked it to.
func (k *child) failure() error {
	if k.err == nil {
		return errors.New("keyrow ended by itself")
	}
	return fmt.Errorf("keyrow ended by itself: %w; what it had to say stands above", k.err)
}

// stop asks keyrow to end, waits for it and removes its folder. It may be called again.
func (k *child) stop() (err error) {
	k.stopping.Do(func() {
		defer os.RemoveAll(k.dir)
		select {
		case <-k.ended: // by itself, which is reported already
			return
		default:
		}
		if terminate(k.cmd.Process) != nil {
			k.cmd.Process.Kill()
		}
		deadline := time.NewTimer(stopDeadline)
		defer deadline.Stop()
		select {
		case <-k.ended:
		case <-deadline.C:
			k.cmd.Process.Kill()
			<-k.ended
			err = fmt.Errorf("keyrow did not end within %v of SIGTERM and was killed", stopDeadline)
			return
		}
		if k.err != nil && runtime.GOOS != "windows" {
			err = fmt.Errorf("keyrow did not end well: %w", k.err)
		}
	})
	return err
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// moduleRoot is the folder of keyrow's own go.mod: above the working directory or above this source file.
func moduleRoot() (string, error) {
	var starts []string
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if line, _, _ := strings.Cut(string(text), "\n"); err == nil && strings.TrimSpace(line) == "module keyrow" {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("keyrow's source is not above the working directory: run the demo in its tree, like `go -C test/demo run .`")
}

// portOf is the port of an address.
func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

//go:build image

// Package image builds the image of keyrow with buildah, which needs root and no engine, and runs what is in it.
package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"keyrow/test/harness"
)

const version = "v1.2.3-test"

// store is a place for images, apart from those of the machine.
type store struct {
	t   *testing.T
	dir string
}

func newStore(t *testing.T) store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("images are built as root: run test/run image")
	}
	dir, err := os.MkdirTemp("", "image")
	if err != nil {
		t.Fatal(err)
	}
	s := store{t, dir}
	policy := `{"default": [{"type": "insecureAcceptAnything"}]}`
	if err := os.WriteFile(filepath.Join(dir, "policy.json"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.buildah("rm", "--all")
		os.RemoveAll(dir)
	})
	return s
}

// buildah runs it and returns the last line that it prints.
func (s store) buildah(args ...string) string {
	s.t.Helper()
	cmd := exec.Command("buildah", append([]string{"--root", filepath.Join(s.dir, "root"), "--runroot", filepath.Join(s.dir, "run"),
		"--storage-driver", "vfs"}, args...)...)
	cmd.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot", "TMPDIR="+s.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("buildah %s: %v; test/run image installs it\n%s%s", args[0], err, &out, &errs)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[len(lines)-1]
}

func (s store) policy() string { return "--signature-policy=" + filepath.Join(s.dir, "policy.json") }

// golang makes an image in place of the one that the Dockerfile names, with what builds programs of the Go that is
// installed here.
func (s store) golang() string {
	s.t.Helper()
	c := s.buildah("from", s.policy(), "scratch")
	script := `cd "$1"; mkdir -p tmp etc/ssl/certs usr/local/go; cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs
cd "$2"; tar c --exclude=src/cmd --exclude=testdata --exclude='*_test.go' bin/go pkg/tool pkg/include src go.env VERSION |
	tar xC "$1/usr/local/go"`
	root := s.buildah("mount", c)
	if out, err := exec.Command("sh", "-ec", script, "sh", root, goEnv(s.t, "GOROOT")).CombinedOutput(); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	s.buildah("config", "--env", "PATH=/usr/local/go/bin", "--env", "GOPATH=/go", "--env", "GOTOOLCHAIN=local",
		"--env", "GOCACHE=/tmp/cache", c)
	s.buildah("commit", s.policy(), c, "golang:here")
	s.buildah("rm", c)
	return "localhost/golang:here"
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// image is what the image says of itself.
type image struct {
	User         string
	Entrypoint   []string
	Cmd          []string
	ExposedPorts map[string]struct{}
	Healthcheck  struct{ Test []string }
}

func TestImage(t *testing.T) {
	s := newStore(t)
	if out, err := exec.Command("go", "mod", "download").CombinedOutput(); err != nil {
		t.Fatalf("go mod download: %v\n%s", err, out)
	}
	s.buildah("bud", s.policy(), "--format=docker", "--layers=false", "--pull-never", "--build-arg", "GO_IMAGE="+s.golang(),
		"--build-arg", "VERSION="+version, "--volume", goEnv(t, "GOMODCACHE")+":/go/pkg/mod", "-t", "keyrow:here", "../..")
	var about struct{ Docker struct{ Config image } }
	if err := json.Unmarshal([]byte(s.inspect("keyrow:here")), &about); err != nil {
		t.Fatal(err)
	}
	img := about.Docker.Config
	for _, port := range []string{"6380/tcp", "9121/tcp"} {
		if _, there := img.ExposedPorts[port]; !there {
			t.Errorf("port %s is not exposed: %v", port, img.ExposedPorts)
		}
	}
	if len(img.Healthcheck.Test) == 0 || img.Healthcheck.Test[0] != "CMD" {
		t.Fatalf("the health check is %q", img.Healthcheck.Test)
	}
	root := s.buildah("mount", s.buildah("from", s.policy(), "--pull-never", "localhost/keyrow:here"))
	c := container{t, root, img}

	t.Run("contents", c.contents)
	t.Run("reproducible", c.reproducible)
	t.Run("serves", c.serves)
}

// inspect returns all that is known of an image.
func (s store) inspect(name string) string {
	s.t.Helper()
	cmd := exec.Command("buildah", "--root", filepath.Join(s.dir, "root"), "--runroot", filepath.Join(s.dir, "run"),
		"--storage-driver", "vfs", "inspect", "--type", "image", name)
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("buildah inspect: %v", err)
	}
	return string(out)
}

// container is the root of a file system made from the image.
type container struct {
	t    *testing.T
	root string
	image
}

// contents: there is the program, and what it needs for TLS, and nothing else.
func (c container) contents(t *testing.T) {
	var files []string
	err := filepath.Walk(c.root, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			files = append(files, strings.TrimPrefix(path, c.root))
		}
		return err
	})
	if got, want := strings.Join(files, " "), "/etc/ssl/certs/ca-certificates.crt /keyrow"; err != nil || got != want {
		t.Errorf("the image has %s, not %s (%v)", got, want, err)
	}
	out, err := c.command(t, []string{"/keyrow", "--version"}).CombinedOutput()
	if err != nil || string(out) != "keyrow "+version+"\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// reproducible: who builds as the documentation says, elsewhere and with a cache of their own, gets the same program.
func (c container) reproducible(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^(CGO_ENABLED=0 go build .*)$`).FindSubmatch(text)
	if found == nil {
		t.Fatal("docs/operations.md has no command that builds")
	}
	path := filepath.Join(t.TempDir(), "keyrow")
	line := strings.Replace(strings.Replace(string(found[1]), "v1.2.3", version, 1), "-o keyrow", "-o "+path, 1)
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	if here, there := hash(t, path), hash(t, filepath.Join(c.root, "keyrow")); here != there {
		t.Errorf("%s makes %s, and the image has %s", line, here, there)
	}
}

func hash(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}

// serves: it runs as its user, is well once it serves, and drains on SIGTERM.
func (c container) serves(t *testing.T) {
	r, m := harness.StartRedis(t), harness.SharedMySQL(t)
	db := m.NewDB(t)
	m.Exec(db, "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, text VARCHAR(20) NOT NULL)")
	admin := freeAddr(t)
	conf := fmt.Sprintf(`
[proxy]
listen = "127.0.0.1:0"
[redis]
addr = %q
[mysql]
dsn = "root@tcp(%s)/%s"
[journal]
prefix = %q
interval = "1h" # so that the drain is what flushes
[admin]
listen = %q
[[mapping]]
name = "note"
key = "note:{id}"
table = "notes"
`, r.Addr, m.Addr, db, "keyrow-"+db, admin)
	if err := os.MkdirAll(filepath.Join(c.root, "etc/keyrow"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.root, "etc/keyrow/conf.toml"), []byte(conf), 0o644); err != nil { //nolint:gosec // for its user
		t.Fatal(err)
	}
	health := c.Healthcheck.Test[1:]
	if out, err := c.command(t, health).CombinedOutput(); err == nil {
		t.Errorf("it is well before it runs: %s", out)
	}

	cmd := c.command(t, append(append([]string{}, c.Entrypoint...), c.Cmd...))
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	printed, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(printed)
	addr := listening(t, lines)
	var rest bytes.Buffer
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(&rest, lines)
	}()
	var is syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d", cmd.Process.Pid), &is); err != nil || is.Uid != 65532 || is.Gid != 65532 {
		t.Errorf("it runs as %d:%d (%v)", is.Uid, is.Gid, err)
	}
	harness.Until(t, "it is well", func() bool {
		out, err := c.command(t, health).CombinedOutput()
		return err == nil && string(out) == "ready\n"
	})

	client := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2, MaxRetries: -1})
	defer client.Close()
	const n = 500
	for i := range n {
		if err := client.Set(context.Background(), fmt.Sprint("note:", i), fmt.Sprintf(`{"text":"%d"}`, i), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-copied
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &rest)
	}
	if !strings.Contains(rest.String(), `"remaining":0`) {
		t.Errorf("it does not say that nothing remains:\n%s", &rest)
	}
	if got := m.Text(db, "SELECT COUNT(*) FROM notes WHERE text = id"); got != fmt.Sprint(n) {
		t.Errorf("%s of %d rows are in MySQL", got, n)
	}
}

// command is a command in the container, as its user.
func (c container) command(t *testing.T, argv []string) *exec.Cmd {
	t.Helper()
	var uid, gid uint32
	if n, err := fmt.Sscanf(c.User, "%d:%d", &uid, &gid); n != 2 || uid == 0 || gid == 0 {
		t.Fatalf("the user %q is not a number and a group, other than root's: %v", c.User, err)
	}
	return &exec.Cmd{Path: argv[0], Args: argv, Dir: "/", Env: []string{}, SysProcAttr: &syscall.SysProcAttr{
		Chroot: c.root, Credential: &syscall.Credential{Uid: uid, Gid: gid},
	}}
}

// listening is the address in the line that says where clients connect.
func listening(t *testing.T, lines *bufio.Reader) string {
	t.Helper()
	var before strings.Builder
	for {
		line, err := lines.ReadString('\n')
		before.WriteString(line)
		if err != nil {
			t.Fatalf("it does not listen: %v\n%s", err, &before)
		}
		var entry struct{ Message, Addr string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "listening" {
			return entry.Addr
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
